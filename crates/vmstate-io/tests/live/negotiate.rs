//! Two machines that find out who the other is, and whether the guest can come.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use vmstate_desc::{Codec, Description, DynState, Field, Scalar, Size, Value};
use vmstate_engine::probe::{ALLOWED, FENCE, PROBE};
use vmstate_engine::{Capability, Device, MigrationStatus as Status, Peer};
use vmstate_qmp::address::MigrationAddress;

use crate::toy::{Census, Toy};
use crate::{pair, set, socket, speak};

/// Moves a guest, and tells whether the two ends have negotiated.
fn moved(source: &Toy, destination: &Toy, census: &Census) -> bool {
    let (_dir, place) = socket();
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    assert_eq!(
        source.departed(),
        Status::Completed,
        "{:?} {:?}",
        source.migrator.info(),
        destination.migrator.info()
    );
    assert_eq!(destination.arrived(), None);
    destination.goes_on(1000);
    assert_eq!((census.most(), census.running()), (1, 1));
    let (here, there) = (
        source.migrator.negotiated(),
        destination.migrator.negotiated(),
    );
    assert_eq!(here.is_some(), there.is_some());
    if let (Some(here), Some(there)) = (&here, &there) {
        assert!(here.source && !there.source);
        assert_eq!(here.report, there.report);
        assert_eq!(here.capabilities, there.capabilities);
        assert!(
            here.peer
                .as_ref()
                .is_some_and(|peer| peer.starts_with("vmstate "))
        );
    }
    here.is_some()
}

/// The source's error and the destination's; the guest goes on at the source.
fn failed(source: &Toy, destination: &Toy, census: &Census) -> (String, String) {
    let (_dir, place) = socket();
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Failed);
    let there = destination.arrived().unwrap();
    source.goes_on(1000);
    assert_eq!((census.most(), census.running()), (1, 1));
    (source.migrator.info().error_desc.unwrap(), there)
}

#[test]
fn who_asks_is_answered_and_who_does_not_is_not() {
    for (here, there, expected) in [
        (Peer::Auto, Peer::Auto, true),
        (Peer::Ber, Peer::Auto, true),
        (Peer::Auto, Peer::Ber, true),
        (Peer::Vmstate, Peer::Ber, true),
        (Peer::Auto, Peer::Qemu, false),
        (Peer::Qemu, Peer::Auto, false),
    ] {
        let census = Arc::default();
        let (source, destination) = pair(&census);
        speak(&source, here);
        speak(&destination, there);
        assert_eq!(
            moved(&source, &destination, &census),
            expected,
            "{here:?} {there:?}"
        );
    }
}

#[test]
fn a_guest_may_go_before_its_memory() {
    let census = Arc::default();
    let (source, destination) = pair(&census);
    if destination.migrator.check_postcopy().is_err() {
        return;
    }
    for toy in [&source, &destination] {
        set(toy, &[Capability::PostcopyRam]);
    }
    // It need not.
    assert!(moved(&source, &destination, &census));
    let used = source.migrator.negotiated().unwrap().capabilities;
    assert!(used.contains(&"postcopy".to_owned()), "{used:?}");
    assert!(!used.contains(&"channels".to_owned()), "{used:?}");
}

#[test]
fn what_is_required_and_not_there_ends_it() {
    for (here, there, at_source, at_destination) in [
        (Peer::Ber, Peer::Qemu, "N09  destination", "closed"),
        (Peer::Qemu, Peer::Ber, "", "N09"),
    ] {
        let census = Arc::default();
        let (source, destination) = pair(&census);
        speak(&source, here);
        speak(&destination, there);
        let (text, other) = failed(&source, &destination, &census);
        assert!(text.contains(at_source), "{text}");
        assert!(
            other.contains(at_destination) || at_destination == "closed",
            "{other}"
        );
        assert!(source.migrator.negotiated().is_none());
    }
}

#[test]
fn a_capability_that_is_on_at_the_source_alone_is_refused() {
    let census = Arc::default();
    let (source, destination) = pair(&census);
    set(
        &source,
        &[Capability::ReturnPath, Capability::SwitchoverAck],
    );
    let (here, there) = failed(&source, &destination, &census);
    assert!(
        here.contains("N02  capability qemu:switchover-ack"),
        "{here}"
    );
    assert_eq!(here, there);
    // Once more, with the same source.
    let destination = Toy::new(true, &census);
    set(
        &destination,
        &[Capability::ReturnPath, Capability::SwitchoverAck],
    );
    assert!(moved(&source, &destination, &census));
}

const ID: Field = Field::value("id", Codec::Uint32);
const READING: Field = Field::value("reading", Codec::Int32);
const HINT: Field = Field::value("hint", Codec::Uint16).ignorable();
const OLD: &[Cow<'static, str>] = &[Cow::Borrowed("reading")];

macro_rules! sensor {
    ($($field:expr),*) => {{
        static D: Description =
            Description::new("sensor", 1, 1).with_fields(const { &[$($field),*] });
        &D
    }};
}

/// Adds a device of this shape.
fn with_sensor(toy: &Toy, shape: &'static Description) -> Arc<Mutex<DynState>> {
    let state = Arc::new(Mutex::new(DynState::new(shape)));
    let device = Device::new(Arc::clone(&state));
    let added = toy
        .migrator
        .change_registry(|registry| registry.register_device(device));
    added.unwrap().unwrap();
    state
}

/// Two machines, of which the source has the plain sensor with values.
fn sensors(census: &Arc<Census>, theirs: &'static Description) -> (Toy, Toy, Arc<Mutex<DynState>>) {
    let (source, destination) = pair(census);
    let plain = with_sensor(&source, sensor!(ID, READING, HINT));
    let mut state = plain.lock().unwrap();
    state.set("id", Scalar::U32(7));
    state.set("reading", Scalar::I32(-40));
    state.set("hint", Scalar::U16(1));
    drop(state);
    let state = with_sensor(&destination, theirs);
    (source, destination, state)
}

#[test]
fn other_shapes_are_refused_before_a_page_is_sent() {
    for (theirs, rule, path) in [
        (
            sensor!(
                ID,
                Field::value("reading", Codec::Buffer(Size::Fixed(4))),
                HINT
            ),
            "C10",
            "reading",
        ),
        (
            sensor!(ID, READING, HINT, Field::value("alarm", Codec::Bool)),
            "C02",
            "alarm",
        ),
        (sensor!(ID, HINT), "C04", "reading"),
        (
            sensor!(ID, Field::value("heat", Codec::Int32), HINT),
            "C07",
            "heat",
        ),
    ] {
        let census = Arc::default();
        let (source, destination, _) = sensors(&census, theirs);
        let (here, there) = failed(&source, &destination, &census);
        let first = "migration refused before any guest page was sent (1 error";
        assert!(here.starts_with(first), "{here}");
        assert!(
            here.contains(&format!(" error   {rule}  sensor#0: ")),
            "{here}"
        );
        assert!(here.contains(path), "{here}");
        assert_eq!(here, there, "both ends say the same");
        let ram = source.migrator.info().ram;
        assert!(
            ram.is_none_or(|ram| ram.normal + ram.duplicate == 0),
            "{ram:?}"
        );
        let told = source.migrator.negotiated().unwrap();
        assert!(told.report.refused && told.peer.is_none());
        assert_eq!(
            Some(told.report),
            destination.migrator.negotiated().map(|n| n.report)
        );
    }
}

#[test]
fn other_shapes_are_adapted() {
    type Expected = &'static [(&'static str, Scalar)];
    let cases: [(&'static Description, &str, Expected); 4] = [
        (
            sensor!(HINT, READING, ID),
            "C19",
            &[("id", Scalar::U32(7)), ("reading", Scalar::I32(-40))],
        ),
        (
            sensor!(ID, Field::value("heat", Codec::Int32).aliases(OLD), HINT),
            "C06",
            &[("id", Scalar::U32(7)), ("heat", Scalar::I32(-40))],
        ),
        (
            sensor!(ID, Field::value("reading", Codec::Int64), HINT),
            "C08",
            &[("reading", Scalar::I64(-40))],
        ),
        (
            sensor!(ID, READING),
            "C04",
            &[("reading", Scalar::I32(-40))],
        ),
    ];
    for (theirs, rule, expected) in cases {
        let census = Arc::default();
        let (source, destination, state) = sensors(&census, theirs);
        assert!(moved(&source, &destination, &census));
        let told = source.migrator.negotiated().unwrap().report;
        assert!(
            told.findings.iter().any(|finding| finding.rule == rule),
            "{told}"
        );
        let state = state.lock().unwrap();
        for (name, value) in expected {
            assert_eq!(state.get(name), Some(&Value::Scalar(*value)), "{name}");
        }
    }
}

/// A peer of this test's own, which answers PINGs as told.
fn answered(
    toy: &Toy,
    answer: impl FnOnce(&mut std::os::unix::net::UnixStream, Vec<u8>) + Send + 'static,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let place = MigrationAddress::unix(path.to_str().unwrap());
    toy.migrator.migrate(place).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let ping = |value: u32| [&[8, 0, 2, 0, 4][..], &value.to_be_bytes()].concat();
    let asked = [ping(1), ping(PROBE), ping(FENCE)].concat();
    let mut seen = Vec::new();
    while !seen.ends_with(&asked) {
        let mut byte = [0];
        peer.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert!(
        seen.starts_with(b"QEVM\0\0\0\x03"),
        "nothing comes before the header"
    );
    answer(&mut peer, seen);
}

fn pong(value: u32) -> Vec<u8> {
    [&[0, 2, 0, 4][..], &value.to_be_bytes()].concat()
}

#[test]
fn the_upgrade_comes_only_after_permission() {
    let census = Arc::default();
    let source = Toy::new(false, &census);
    source.boot();
    for (pongs, expected) in [
        (
            vec![1, PROBE, ALLOWED, FENCE],
            &b"\x08\x56\x42\0\0\x60\x80\x0c\x0dvmstate-ber/1"[..],
        ),
        // A section.
        (vec![1, PROBE, FENCE], &b"\x01"[..]),
        (vec![PROBE, FENCE], &b"\x01"[..]),
    ] {
        answered(&source, move |peer, _| {
            for value in pongs {
                peer.write_all(&pong(value)).unwrap();
            }
            let mut next = vec![0; expected.len()];
            peer.read_exact(&mut next).unwrap();
            assert_eq!(next, expected);
        });
        assert_eq!(source.departed(), Status::Failed);
        source.goes_on(100);
    }
    assert_eq!((census.most(), census.running()), (1, 1));
}

#[test]
fn a_peer_that_leaves_or_rambles_does_not_cost_the_guest() {
    let census = Arc::default();
    let source = Toy::new(false, &census);
    source.boot();
    // How a connection that is gone shows depends on who looks first.
    let answers = [
        (Vec::new(), ""),
        (pong(PROBE), ""),
        ([pong(ALLOWED), pong(FENCE), pong(1)].concat(), "unasked"),
        ([pong(ALLOWED), pong(FENCE)].concat(), ""),
    ];
    for (bytes, expected) in answers {
        answered(&source, move |peer, _| peer.write_all(&bytes).unwrap());
        assert_eq!(source.departed(), Status::Failed);
        let text = source.migrator.info().error_desc.unwrap();
        assert!(!text.is_empty() && text.contains(expected), "{text}");
        source.goes_on(100);
    }
    assert_eq!((census.most(), census.running()), (1, 1));
}

#[test]
fn a_cancel_while_nobody_answers() {
    let census = Arc::default();
    let source = Toy::new(false, &census);
    source.boot();
    let canceller = source.migrator.clone();
    answered(&source, move |_, _| canceller.cancel().unwrap());
    assert_eq!(source.departed(), Status::Cancelled);
    source.goes_on(100);
}
