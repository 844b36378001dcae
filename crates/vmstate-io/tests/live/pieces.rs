//! VM state over BER whose bytes come in pieces that do not belong together.

use std::sync::Arc;

use vmstate_ber::frame::{
    Capability, Frame, Hello, Level, Opaque, OpaqueKind, Phase, PhaseName, Status,
};
use vmstate_ber::stream::Writer;
use vmstate_io::SliceInput;
use vmstate_io::convert::{Format, Options, convert};

use crate::address;
use crate::toy::Toy;

/// A stream whose configuration comes in two pieces, of these kinds.
fn stream(kinds: [OpaqueKind; 2]) -> Vec<u8> {
    let capability = Capability {
        name: "opaque-sections".to_owned(),
        level: Level::Required,
        params: Vec::new(),
    };
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&Hello::of_file("test", vec![capability]), &mut bytes);
    let phase = |name| Frame::Phase(Phase { name, round: None });
    writer.frame(&phase(PhaseName::Setup), &mut bytes);
    // A machine of the name "toy".
    let pieces = [&[0, 0, 0][..], b"\x03toy"];
    for (number, (what, data)) in kinds.into_iter().zip(pieces).enumerate() {
        let more = number == 0;
        writer.frame(&Frame::Opaque(Opaque { what, more, data }), &mut bytes);
    }
    writer.frame(&phase(PhaseName::Complete), &mut bytes);
    writer.end(Status::Complete, &mut bytes);
    bytes
}

/// Why a machine does not load it, and why it is not converted.
fn refusals(bytes: &[u8]) -> [Option<String>; 2] {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    std::fs::write(&path, bytes).unwrap();
    let destination = Toy::new(true, &Arc::default());
    let place = address(&format!("file:{}", path.display()));
    destination.migrator.incoming(&place).unwrap();
    let (mut input, mut out) = (SliceInput::new(bytes), Vec::new());
    let converted = convert(&mut input, &mut out, Format::Qemu, &Options::default());
    [
        destination.arrived(),
        converted.err().map(|error| error.to_string()),
    ]
}

#[test]
fn pieces_of_two_kinds_are_not_joined() {
    use OpaqueKind::{Configuration, Vmdesc};
    // Nothing follows, so the guest is started: the machine is right.
    assert_eq!(refusals(&stream([Configuration; 2])), [None, None]);
    for refusal in refusals(&stream([Configuration, Vmdesc])) {
        let refusal = refusal.unwrap();
        assert!(
            refusal.contains("do not go on") || refusal.contains("does not go on"),
            "{refusal}"
        );
    }
}
