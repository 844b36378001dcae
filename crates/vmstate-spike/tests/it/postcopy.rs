//! A machine goes before its memory, and its recorder follows it: the engine knows neither.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstate_engine::{Capabilities, Capability, MigrationStatus as Status, Peer, Settings};
use vmstate_io::live::Migrator;
use vmstate_spike::{Config, Machine, Program, RecorderConfig, guests};

const PATIENCE: Duration = Duration::from_secs(120);

fn machine(incoming: bool) -> Arc<Machine> {
    let machine = Machine::new(Config {
        program: Some(Program::parse(guests::COUNTER).unwrap()),
        incoming,
        recorder: Some(RecorderConfig::default()),
        ..Config::default()
    });
    Arc::new(machine.unwrap())
}

fn migrator(machine: &Arc<Machine>, incoming: bool, peer: Peer) -> Migrator {
    let vmm = machine.vmm(incoming, true).unwrap();
    let migrator = Migrator::new(vmm, Default::default(), |_| {}).unwrap();
    let change = |settings: &mut Settings| {
        settings.capabilities = Capabilities::of(&[Capability::PostcopyRam]);
        settings.parameters.max_bandwidth = 8 << 20;
        settings.parameters.max_postcopy_bandwidth = 1 << 20;
        settings.parameters.downtime_limit = 1;
        settings.parameters.x_peer = peer;
        Ok::<_, ()>(())
    };
    migrator.change_settings(change).unwrap();
    migrator
}

fn until(migrator: &Migrator, wanted: &[Status]) {
    let end = Instant::now() + PATIENCE;
    while !migrator.info().status.is_some_and(|s| wanted.contains(&s)) {
        assert!(Instant::now() < end, "{:?}", migrator.info());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn entries(machine: &Machine, more: u64) -> u64 {
    let recorder = machine.recorder().unwrap();
    let (from, end) = (recorder.entries(), Instant::now() + PATIENCE);
    while recorder.entries() < from + more {
        assert!(Instant::now() < end, "it does not record");
        std::thread::sleep(Duration::from_millis(1));
    }
    recorder.entries()
}

/// Its ring comes while it is being written at the destination, also over a second connection; in the end every entry is there.
#[test]
fn a_recorder_follows_its_machine() {
    let both = [Peer::Qemu, Peer::Auto];
    for (peer, breaks) in both
        .into_iter()
        .flat_map(|peer| [(peer, false), (peer, true)])
    {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            format!("unix:{}", dir.path().join(name).display())
                .parse()
                .unwrap()
        };
        let (here, there) = (machine(false), machine(true));
        here.resume().unwrap();
        // Once round its ring.
        let made = entries(&here, (4 << 20) / 16);
        let (source, destination) = (migrator(&here, false, peer), migrator(&there, true, peer));
        destination.incoming(&place("first")).unwrap();
        source.migrate(place("first")).unwrap();
        until(&source, &[Status::Active]);
        source.start_postcopy().unwrap();
        until(&source, &[Status::PostcopyActive]);
        assert!(entries(&there, 1000) > made);
        if breaks {
            source.pause().unwrap();
            until(&source, &[Status::PostcopyPaused]);
            until(&destination, &[Status::PostcopyPaused]);
            entries(&there, 1000);
            destination.recover(&place("second")).unwrap();
            source.resume(place("second")).unwrap();
        }
        let unlimited = |settings: &mut Settings| {
            settings.parameters.max_postcopy_bandwidth = 0;
            Ok::<_, ()>(())
        };
        source.change_settings(unlimited).unwrap();
        for side in [&source, &destination] {
            until(side, &[Status::Completed, Status::Failed]);
            assert_eq!(
                side.info().status,
                Some(Status::Completed),
                "{:?}",
                side.info()
            );
        }
        assert_eq!(source.negotiated().is_some(), peer == Peer::Auto);
        entries(&there, 1000);
        there.pause();
        let recorder = there.recorder().unwrap();
        recorder.check(there.virtual_time()).unwrap();
        assert!(recorder.late_pages() > 0, "all of it came before");
        assert_eq!(here.run_state(), vmstate_engine::RunState::PostMigrate);
    }
}
