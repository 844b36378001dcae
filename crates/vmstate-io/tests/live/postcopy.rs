//! Guests that go before their memory.

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstate_ber::frame::Hello;
use vmstate_ber::stream::Writer;
use vmstate_engine::{Capability, MigrationInfo, MigrationStatus as Status, Peer, Settings};
use vmstate_io::live::MigrationEvent;
use vmstate_linux::Userfault;
use vmstate_qmp::address::MigrationAddress;

use crate::toy::{Census, PATIENCE, Toy};
use crate::{pair, set, socket, speak};

const PLAIN: &[Capability] = &[Capability::PostcopyRam, Capability::PostcopyBlocktime];
const PREEMPT: &[Capability] = &[
    Capability::PostcopyRam,
    Capability::PostcopyPreempt,
    Capability::PostcopyBlocktime,
];

/// QEMU's stream, VM state over BER from the first byte on, and after both ends have found out who the other is.
const PEERS: [Peer; 3] = [Peer::Qemu, Peer::Vmstate, Peer::Auto];

/// All ways to go.
fn ways() -> impl Iterator<Item = (&'static [Capability], Peer)> {
    [PLAIN, PREEMPT]
        .into_iter()
        .flat_map(|capabilities| PEERS.map(|peer| (capabilities, peer)))
}

/// Bytes per second that the link carries, far less than what the guest writes.
const BANDWIDTH: u64 = 8 << 20;
/// Pages beside those that the guest writes.
const PAGES: u64 = 2048;

fn limit(toy: &Toy, precopy: u64, postcopy: u64) {
    let change = |settings: &mut Settings| {
        settings.parameters.max_bandwidth = precopy;
        settings.parameters.max_postcopy_bandwidth = postcopy;
        settings.parameters.downtime_limit = 1;
        Ok::<_, ()>(())
    };
    toy.migrator.change_settings(change).unwrap();
}

/// A guest on its way whose source has switched to postcopy.
fn switched(
    census: &Arc<Census>,
    place: &MigrationAddress,
    (capabilities, peer): (&[Capability], Peer),
    bandwidth: u64,
) -> (Toy, Toy) {
    let (source, destination) = pair(census);
    speak(&source, peer);
    source.board.fill(PAGES);
    limit(&source, BANDWIDTH, bandwidth);
    set(&source, capabilities);
    set(&destination, capabilities);
    destination.migrator.check_postcopy().unwrap();
    destination.migrator.incoming(place).unwrap();
    source.migrator.migrate(place.clone()).unwrap();
    source.wait(|event| *event == MigrationEvent::Source(Status::Active));
    std::thread::sleep(Duration::from_millis(200));
    source.migrator.start_postcopy().unwrap();
    (source, destination)
}

fn status(toy: &Toy, status: Status) {
    toy.wait(|event| {
        *event == MigrationEvent::Destination(status) || *event == MigrationEvent::Source(status)
    });
}

fn arrived(source: &Toy, destination: &Toy) -> MigrationInfo {
    assert_eq!(
        source.departed(),
        Status::Completed,
        "{:?}",
        source.migrator.info()
    );
    assert_eq!(destination.arrived(), None);
    let framed = source.migrator.settings().parameters.x_peer != Peer::Qemu;
    for toy in [source, destination] {
        let agreed = toy.migrator.negotiated().map(|n| n.capabilities);
        let agreed = agreed.is_some_and(|all| all.contains(&"postcopy".to_owned()));
        assert_eq!(agreed, framed);
    }
    let info = destination.migrator.info();
    assert_eq!(info.status, Some(Status::Completed));
    let postcopy = info.postcopy.as_ref().unwrap();
    assert_eq!(postcopy.missing, []);
    destination.board.check(PAGES);
    // Round its ring, and it finds all that it has written.
    destination.goes_on(2000);
    info
}

#[test]
fn a_guest_that_writes_too_fast_goes_before_its_memory() {
    for way in ways() {
        let census = Arc::default();
        let (_dir, place) = socket();
        let (source, destination) = switched(&census, &place, way, BANDWIDTH);
        let info = arrived(&source, &destination);
        assert_eq!(
            destination.statuses(),
            [
                Status::Setup,
                Status::Active,
                Status::PostcopyDevice,
                Status::PostcopyActive,
                Status::Completed
            ]
        );
        let postcopy = info.postcopy.unwrap();
        assert!(postcopy.latency.faults > 0, "{postcopy:?}");
        assert!(postcopy.latency.p50 <= postcopy.latency.p99);
        assert!(postcopy.latency.p99 <= postcopy.latency.max);
        assert!(
            postcopy.pages.requested > 0 && postcopy.pages.requested <= postcopy.latency.faults
        );
        assert!(postcopy.pages.background > 0, "{postcopy:?}");
        let blocktime = postcopy.blocktime.unwrap();
        assert_eq!(
            blocktime.distribution.iter().sum::<u64>(),
            postcopy.latency.faults
        );
        assert_eq!((census.most(), census.running()), (1, 1));
    }
}

#[test]
fn a_link_that_breaks_pauses_and_another_goes_on() {
    for way in ways() {
        let census = Arc::default();
        let (_dir, place) = socket();
        let (source, destination) = switched(&census, &place, way, 1 << 20);
        for (number, at_source) in [true, false].into_iter().enumerate() {
            status(&destination, Status::PostcopyActive);
            status(&source, Status::PostcopyActive);
            std::thread::sleep(Duration::from_millis(100));
            if at_source {
                source.migrator.pause().unwrap();
            } else {
                destination.migrator.pause_arrival().unwrap();
            }
            status(&destination, Status::PostcopyPaused);
            status(&source, Status::PostcopyPaused);
            let info = destination.migrator.info();
            assert!(info.error_desc.is_some(), "{info:?}");
            let missing = info.postcopy.unwrap().missing;
            assert_eq!(missing[0].block.to_string(), "toy.ram");
            assert!(missing[0].pages > 0);
            assert!(destination.migrator.pause_arrival().is_err());
            assert!(destination.migrator.migrate(place.clone()).is_err());
            if number == 1 {
                limit(&source, 0, 0);
            }
            // At another place first, at which nobody comes; and twice at the same one.
            let (_wrong, wrong) = socket();
            for place in [&wrong, &place, &place] {
                destination.migrator.recover(place).unwrap();
            }
            source.migrator.resume(place.clone()).unwrap();
        }
        arrived(&source, &destination);
        let all = destination.statuses();
        let recovers = all.iter().filter(|s| **s == Status::PostcopyRecover);
        assert_eq!(recovers.count(), 2, "{all:?}");
        assert_eq!(census.most(), 1);
    }
}

#[test]
fn a_guest_whose_memory_never_comes_is_given_up() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let way = (PLAIN, Peer::Auto);
    let (source, destination) = switched(&census, &place, way, 1 << 20);
    status(&destination, Status::PostcopyActive);
    assert!(destination.migrator.give_up_arrival("too early").is_err());
    status(&source, Status::PostcopyActive);
    source.migrator.pause().unwrap();
    status(&destination, Status::PostcopyPaused);
    status(&source, Status::PostcopyPaused);
    destination.migrator.recover(&place).unwrap();
    // It waits for a source that does not come.
    destination
        .migrator
        .give_up_arrival("the user has given it up")
        .unwrap();
    let why = destination.arrived().unwrap();
    assert!(why.starts_with("the user has given it up: "), "{why}");
    let end = Instant::now() + PATIENCE;
    while !destination.board.is_still() {
        assert!(Instant::now() < end, "the guest still waits");
        std::thread::sleep(Duration::from_millis(1));
    }
    let state = vmstate_engine::Machine::run_state(&*destination.board);
    assert_eq!(state, vmstate_engine::RunState::InternalError);
    assert!(destination.migrator.recover(&place).is_err());
    assert_eq!(destination.migrator.info().status, Some(Status::Failed));
    // The source still must not run it.
    assert!(source.migrator.resume_here().is_err());
}

#[test]
fn without_the_capability_a_source_is_refused() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let (source, destination) = pair(&census);
    set(&source, PLAIN);
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Failed);
    let why = destination.arrived().unwrap();
    assert!(why.contains("N02  capability postcopy\n"), "{why}");
    source.goes_on(1000);
    // QEMU's stream says it later.
    let destination = Toy::new(true, &census);
    speak(&source, Peer::Qemu);
    let (_dir, place) = socket();
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Failed);
    let why = destination.arrived().unwrap();
    assert!(why.contains("capability postcopy-ram is off here"), "{why}");
    source.goes_on(1000);
    assert_eq!((census.most(), census.running()), (1, 1));
}

/// A connection that replaces another is of the same migration, in the same format: anything else pauses again, at either end, and the
/// right one goes on.
#[test]
fn who_is_somebody_else_does_not_go_on() {
    let hello = |session: [u8; 16], number: u64| {
        let mut bytes = Vec::new();
        let hello = Hello::of_channel("somebody", session, number);
        let _ = Writer::without_digest(&hello, &mut bytes);
        bytes
    };
    let other = [
        (hello([7; 16], 0), "another migration"),
        (vec![8, 0, 4, 0, 0], "this is another stream"),
        // It is gone before anybody could greet it.
        (Vec::new(), ""),
    ];
    for (peer, framed) in [(Peer::Auto, true), (Peer::Qemu, false)] {
        let census = Arc::default();
        let (dir, place) = socket();
        let (source, destination) = switched(&census, &place, (PLAIN, peer), 1 << 20);
        status(&destination, Status::PostcopyActive);
        status(&source, Status::PostcopyActive);
        source.migrator.pause().unwrap();
        for toy in [&source, &destination] {
            status(toy, Status::PostcopyPaused);
        }
        let strangers = match framed {
            true => other.to_vec(),
            false => vec![(hello([7; 16], 0), "VM state over BER"), (Vec::new(), "")],
        };
        for (bytes, text) in strangers {
            destination.migrator.recover(&place).unwrap();
            let mut stranger = UnixStream::connect(dir.path().join("s")).unwrap();
            stranger.write_all(&bytes).unwrap();
            stranger.shutdown(std::net::Shutdown::Write).unwrap();
            let _kept = (!bytes.is_empty()).then_some(stranger);
            status(&destination, Status::PostcopyPaused);
            let why = destination.migrator.info().error_desc.unwrap();
            assert!(why.contains(text), "{why}");
        }
        // And a destination that is another one.
        let listener = UnixListener::bind(dir.path().join("other")).unwrap();
        let path = dir.path().join("other");
        let there = MigrationAddress::unix(path.to_str().unwrap());
        source.migrator.resume(there).unwrap();
        let (mut stranger, _) = listener.accept().unwrap();
        let bytes = match framed {
            true => hello([7; 16], 0),
            false => vec![0x60; 8],
        };
        stranger.write_all(&bytes).unwrap();
        status(&source, Status::PostcopyPaused);
        limit(&source, 0, 0);
        destination.migrator.recover(&place).unwrap();
        source.migrator.resume(place.clone()).unwrap();
        arrived(&source, &destination);
        assert_eq!(census.most(), 1);
    }
}

/// Somebody else serves the memory's missing pages: the host refuses a second one, as it refuses one that may not have any.
#[test]
fn a_host_that_cannot_serve_missing_pages_refuses_before_the_guest_goes() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let (source, destination) = pair(&census);
    let other = Userfault::open().unwrap();
    other.register(destination.board.memory()).unwrap();
    let what = "serve the missing pages of guest RAM";
    let refused = destination.migrator.check_postcopy().unwrap_err();
    assert!(refused.contains(what), "{refused}");
    // Nobody has asked it.
    set(&source, PLAIN);
    set(&destination, PLAIN);
    limit(&source, BANDWIDTH, 0);
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place.clone()).unwrap();
    let why = destination.arrived().unwrap();
    assert!(why.contains(what), "{why}");
    assert_eq!(source.departed(), Status::Failed);
    assert!(!source.statuses().contains(&Status::PostcopyActive));
    source.goes_on(1000);
    assert_eq!((census.most(), census.running()), (1, 1));
}
