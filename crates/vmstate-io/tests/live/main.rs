//! Whole migrations between two machines in one process, over real channels.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod ber;
mod cuts;
mod early;
mod hostile;
mod liar;
mod negotiate;
mod pieces;
mod postcopy;
mod recorded;
mod stalls;
mod toy;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use toy::{Census, Toy};
use vmstate_engine::{
    Bql, Capabilities, Capability, Device, GlobalState, MigrationStatus as Status, Peer, RunState,
    SaveVmHandlers,
};
use vmstate_io::inspect::{Options, analyze};
use vmstate_io::live::{Deadlines, MigrationEvent};
use vmstate_io::{SliceInput, live};
use vmstate_qmp::address::MigrationAddress;
use vmstate_wire::stream::InstanceId;

/// A running guest at the source, and a machine that waits for it.
fn pair(census: &Arc<Census>) -> (Toy, Toy) {
    let (source, destination) = (Toy::new(false, census), Toy::new(true, census));
    source.boot();
    source.goes_on(2000);
    (source, destination)
}

fn address(uri: &str) -> MigrationAddress {
    uri.parse().unwrap()
}

fn socket() -> (tempfile::TempDir, MigrationAddress) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let address = MigrationAddress::unix(path.to_str().unwrap());
    (dir, address)
}

fn set(toy: &Toy, capabilities: &[Capability]) {
    let changed = toy.migrator.change_settings(|settings| {
        settings.capabilities = Capabilities::of(capabilities);
        Ok::<_, ()>(())
    });
    changed.unwrap();
}

fn speak(toy: &Toy, peer: Peer) {
    let changed = toy.migrator.change_settings(|settings| {
        settings.parameters.x_peer = peer;
        Ok::<_, ()>(())
    });
    changed.unwrap();
}

#[test]
fn a_running_guest_moves_over_sockets_again_and_again() {
    let (_dir, unix) = socket();
    for place in [unix, address("tcp:127.0.0.1:0")] {
        let census = Arc::default();
        let (mut source, _) = pair(&census);
        for _ in 0..4 {
            let destination = Toy::new(true, &census);
            let place = destination.migrator.incoming(&place).unwrap();
            source.migrator.migrate(place).unwrap();
            assert_eq!(
                source.departed(),
                Status::Completed,
                "{:?}",
                source.migrator.info()
            );
            assert_eq!(destination.arrived(), None);
            assert_eq!(
                source.statuses(),
                [
                    Status::Setup,
                    Status::Active,
                    Status::Device,
                    Status::Completed
                ]
            );
            assert_eq!(
                destination.statuses(),
                [Status::Setup, Status::Active, Status::Completed]
            );
            assert_eq!(source.migrator.info().status, Some(Status::Completed));
            assert_eq!(source.migrator.info().error_desc, None);
            assert!(source.count() <= destination.count());
            destination.goes_on(2000);
            // A machine that has been a destination becomes a source.
            source = destination;
        }
        assert_eq!((census.most(), census.running()), (1, 1));
    }
}

#[test]
fn a_guest_moves_through_files_and_commands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream").display().to_string();
    for (save, load) in [
        (
            address(&format!("file:{path}")),
            address(&format!("file:{path}")),
        ),
        (
            address(&format!("file:{path},offset=0x10000")),
            address(&format!("exec:tail -c +65537 {path}")),
        ),
        (
            address(&format!("exec:gzip -1 > {path}")),
            address(&format!("exec:gunzip < {path}")),
        ),
    ] {
        let census = Arc::default();
        let (source, destination) = pair(&census);
        source.migrator.migrate(save).unwrap();
        assert_eq!(source.departed(), Status::Completed);
        assert_eq!(census.running(), 0);
        let info = source.migrator.info();
        let ram = info.ram.unwrap();
        assert_eq!(ram.total, (16 << 20) + 8192);
        assert!(ram.normal >= 511 && ram.duplicate >= 3000, "{ram:?}");
        assert!(ram.transferred > ram.normal_bytes);
        destination.migrator.incoming(&load).unwrap();
        assert_eq!(destination.arrived(), None);
        assert!(source.count() <= destination.count());
        destination.goes_on(1000);
        assert_eq!(census.most(), 1);
    }
}

#[test]
fn what_was_sent_is_a_stream_like_qemus() {
    let census = Arc::default();
    let (source, _) = pair(&census);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    let place = address(&format!("file:{}", path.display()));
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Completed);
    let bytes = std::fs::read(path).unwrap();
    let options = Options {
        verify: true,
        digest: true,
        ..Options::default()
    };
    let analysis = analyze(&mut SliceInput::new(&bytes), &mut [], &options);
    assert!(
        analysis.is_clean(),
        "{:?} {:?}",
        analysis.failure,
        analysis.report.problems
    );
    let names: Vec<_> = analysis.report.sections.iter().map(|s| &*s.idstr).collect();
    assert_eq!(names, ["ram", "counter", "globalstate"]);
}

#[test]
fn a_stopped_guest_stays_stopped() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let (source, destination) = (Toy::new(false, &census), Toy::new(true, &census));
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Completed);
    assert_eq!(destination.arrived(), None);
    let state = vmstate_engine::Machine::run_state(&*destination.board);
    assert_eq!((state, census.most()), (RunState::Paused, 0));
}

#[test]
fn the_switchover_waits_for_the_user() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let (source, destination) = pair(&census);
    set(&source, &[Capability::PauseBeforeSwitchover]);
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    source.wait(|event| *event == MigrationEvent::Source(Status::PreSwitchover));
    assert_eq!(census.running(), 0);
    assert!(source.migrator.proceed(Status::Active).is_err());
    source.migrator.proceed(Status::PreSwitchover).unwrap();
    assert_eq!(source.departed(), Status::Completed);
    assert_eq!(destination.arrived(), None);
    destination.goes_on(100);
}

#[test]
fn a_cancel_leaves_the_guest_here() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let (source, destination) = pair(&census);
    let slow = |settings: &mut vmstate_engine::Settings| {
        settings.parameters.max_bandwidth = 100_000;
        Ok::<_, ()>(())
    };
    source.migrator.change_settings(slow).unwrap();
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place.clone()).unwrap();
    source.wait(|event| *event == MigrationEvent::Source(Status::Active));
    assert!(source.migrator.migrate(place).is_err(), "one at a time");
    source.migrator.cancel().unwrap();
    assert_eq!(source.departed(), Status::Cancelled);
    let failure = destination.arrived().unwrap();
    assert!(
        failure.contains("ends inside") || failure.contains("ended"),
        "{failure}"
    );
    source.goes_on(1000);
    assert_eq!((census.most(), census.running()), (1, 1));
    // And once more, with a machine that is still willing.
    let (_dir, place) = socket();
    let destination = Toy::new(true, &census);
    destination.migrator.incoming(&place).unwrap();
    source
        .migrator
        .change_settings(|settings| {
            settings.parameters.max_bandwidth = 0;
            Ok::<_, ()>(())
        })
        .unwrap();
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Completed);
    assert_eq!(destination.arrived(), None);
}

#[test]
fn a_refusal_says_why_and_the_guest_goes_on() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let source = Toy::new(false, &census);
    source.boot();
    let destination = Toy::with(true, &census, Deadlines::default(), 8 << 20);
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Failed);
    let failure = destination.arrived().unwrap();
    assert!(failure.contains("toy.ram"), "{failure}");
    assert_eq!(destination.migrator.info().status, Some(Status::Failed));
    assert!(source.migrator.info().error_desc.is_some());
    source.goes_on(1000);
    assert_eq!(census.most(), 1);
}

#[test]
fn peers_that_go_away_or_say_nothing_do_not_cost_the_guest() {
    let census = Arc::default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let place = MigrationAddress::unix(path.to_str().unwrap());
    let deadlines = Deadlines {
        connect: Duration::from_millis(200),
        silence: Duration::from_millis(300),
    };
    let source = Toy::with(false, &census, deadlines, 16 << 20);
    source.boot();
    // These peers do not even answer who they are.
    speak(&source, Peer::Qemu);
    // Nobody is there.
    source.migrator.migrate(place.clone()).unwrap();
    assert_eq!(source.departed(), Status::Failed);
    let listener = UnixListener::bind(&path).unwrap();
    for (bytes, silent) in [(0, false), (100, false), (1 << 20, false), (4096, true)] {
        source.goes_on(100);
        source.migrator.migrate(place.clone()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.read_exact(&mut vec![0; bytes]).unwrap();
        if !silent {
            drop(peer);
            assert_eq!(source.departed(), Status::Failed);
            continue;
        }
        assert_eq!(source.departed(), Status::Failed);
        let text = source.migrator.info().error_desc.unwrap();
        assert!(text.contains("too long"), "{text}");
    }
    source.goes_on(100);
    // A full disk.
    source
        .migrator
        .migrate(address("exec:head -c 100000 > /dev/null"))
        .unwrap();
    assert_eq!(source.departed(), Status::Failed);
    source.migrator.migrate(address("file:/dev/full")).unwrap();
    assert_eq!(source.departed(), Status::Failed);
    let text = source.migrator.info().error_desc.unwrap();
    assert!(text.contains("No space left"), "{text}");
    source.goes_on(1000);
    assert_eq!((census.most(), census.running()), (1, 1));
}

/// Whether the stream is complete somewhere, only somebody who looks can say.
#[test]
fn a_command_that_fails_behind_the_last_byte_does_not_cost_the_guest() {
    let census = Arc::default();
    let source = Toy::new(false, &census);
    source.boot();
    let place = address("exec:cat > /dev/null; exit 3");
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Failed);
    let info = source.migrator.info();
    assert!(info.unknown, "{info:?}");
    let text = info.error_desc.unwrap();
    assert!(text.contains("exit status: 3"), "{text}");
    assert_eq!(census.running(), 0);
    source.migrator.resume_here().unwrap();
    source.goes_on(1000);
}

/// Everything arrives, and then the destination says nothing: nobody here can know.
#[test]
fn behind_the_end_of_the_stream_the_outcome_is_unknown() {
    for resume in [true, false] {
        let census = Arc::default();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let place = MigrationAddress::unix(path.to_str().unwrap());
        let source = Toy::new(false, &census);
        source.boot();
        speak(&source, Peer::Qemu);
        source.migrator.migrate(place).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        // The PONG that confirms the last section, as a destination gives it.
        let confirm = vmstate_engine::source::CONFIRM.to_be_bytes();
        let ping = [&[8, 0, 2, 0, 4][..], &confirm].concat();
        loop {
            let count = peer.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..count]);
            if seen.ends_with(&ping) {
                break;
            }
        }
        peer.write_all(&[&[0, 2, 0, 4][..], &confirm].concat())
            .unwrap();
        // The end-of-stream mark.
        peer.read_exact(&mut buffer[..1]).unwrap();
        assert_eq!(buffer[0], 0);
        drop(peer);
        source.departed();
        let info = source.migrator.info();
        assert!(info.unknown, "{info:?}");
        assert!(info.error_desc.unwrap().contains("unknown"));
        assert_eq!(census.running(), 0, "it must not run here");
        assert!(source.migrator.migrate(address("tcp:127.0.0.1:1")).is_err());
        if resume {
            source.migrator.resume_here().unwrap();
            source.goes_on(1000);
        } else {
            source.migrator.give_up().unwrap();
            let state = vmstate_engine::Machine::run_state(&*source.board);
            assert_eq!(state, RunState::PostMigrate);
        }
        assert!(source.migrator.resume_here().is_err(), "decided");
    }
}

#[test]
fn a_guest_that_writes_too_fast_is_throttled_until_it_converges() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let (source, destination) = pair(&census);
    set(&source, &[Capability::AutoConverge]);
    let crawl = |settings: &mut vmstate_engine::Settings| {
        settings.parameters.max_bandwidth = 4 << 20;
        settings.parameters.downtime_limit = 1;
        Ok::<_, ()>(())
    };
    source.migrator.change_settings(crawl).unwrap();
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    let begun = std::time::Instant::now();
    while source.board.throttled.load(Ordering::SeqCst) == 0 {
        assert!(
            begun.elapsed() < toy::PATIENCE,
            "{:?}",
            source.migrator.info()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(source.migrator.info().cpu_throttle_percentage.is_some());
    source
        .migrator
        .change_settings(|settings| {
            settings.parameters.max_bandwidth = 0;
            settings.parameters.downtime_limit = 2000;
            Ok::<_, ()>(())
        })
        .unwrap();
    assert_eq!(source.departed(), Status::Completed);
    assert_eq!(source.board.throttled.load(Ordering::SeqCst), 0);
    assert_eq!(destination.arrived(), None);
}

#[test]
fn waiting_can_be_given_up() {
    let census = Arc::default();
    let (dir, place) = socket();
    let destination = Toy::new(true, &census);
    assert!(
        destination
            .migrator
            .incoming(&address("unix:/nonexistent/s"))
            .is_err()
    );
    destination.migrator.incoming(&place).unwrap();
    assert_eq!(destination.migrator.listening(), Some(place.clone()));
    assert!(destination.migrator.incoming(&place).is_err(), "once");
    destination.migrator.abandon("the machine ends");
    assert_eq!(destination.arrived().as_deref(), Some("the machine ends"));
    assert!(!dir.path().join("s").exists());
    assert!(
        Toy::new(false, &census).migrator.incoming(&place).is_err(),
        "not deferred"
    );
    let _ = live::Stop::new().unwrap();
}

/// Sections come and go while the machine waits or runs, but not while it moves.
#[test]
fn sections_stay_while_a_migration_runs() {
    let census = Arc::default();
    let (source, destination) = pair(&census);
    let add = |toy: &Toy| {
        toy.migrator.change_registry(|registry| {
            let state = Arc::new(std::sync::Mutex::new(GlobalState::default()));
            let device = Device::new(state).at_path("late");
            registry.register_device(device).unwrap()
        })
    };
    add(&destination).unwrap();
    let (_dir, place) = socket();
    let place = destination.migrator.incoming(&place).unwrap();
    let section = add(&source).unwrap();
    set(&source, &[Capability::PauseBeforeSwitchover]);
    source.migrator.migrate(place).unwrap();
    source.wait(|event| *event == MigrationEvent::Source(Status::PreSwitchover));
    assert_eq!(add(&source), Err(live::MigrationInProgress));
    source.migrator.proceed(Status::PreSwitchover).unwrap();
    assert_eq!(source.departed(), Status::Completed);
    assert_eq!(destination.arrived(), None);
    let removed = source
        .migrator
        .change_registry(|registry| registry.unregister_savevm(section));
    assert_eq!(removed, Ok(true));
}

/// A handler whose cleanup takes as long as the test wants.
struct Slow(std::sync::mpsc::Receiver<()>);

impl SaveVmHandlers for Slow {
    fn save_cleanup(&mut self, _bql: &Bql<'_>) {
        let _ = self.0.recv_timeout(Duration::from_secs(60));
    }
}

/// The status says `completed` before the worker has cleared up: what a client asks for then waits for it.
#[test]
fn what_is_asked_at_once_after_the_end_waits_for_the_cleanup() {
    let dir = tempfile::tempdir().unwrap();
    let file = address(&format!("file:{}", dir.path().join("stream").display()));
    let census = Arc::default();
    let source = Toy::new(false, &census);
    source.boot();
    let (go_on, slow) = std::sync::mpsc::channel();
    let handler = Box::new(Slow(slow));
    let registered = source.migrator.change_registry(|registry| {
        registry.register_savevm_live("slow", InstanceId(0), 1, handler)
    });
    registered.unwrap().unwrap();
    for _ in 0..2 {
        source.migrator.migrate(file.clone()).unwrap();
        source.wait(|event| *event == MigrationEvent::Source(Status::Completed));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                go_on.send(()).unwrap();
            });
            assert!(source.migrator.is_stored());
        });
        source.migrator.resume_here().unwrap();
        source.goes_on(1000);
    }
    assert_eq!(census.most(), 1);
}
