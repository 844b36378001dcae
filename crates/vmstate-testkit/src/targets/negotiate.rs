//! Peers that negotiate.

use vmstate_ber::frame::{Level, MachineId, Presence, Severity};
use vmstate_desc::{Codec, Description, Field, OwnCount, Size};
use vmstate_negotiate::{Handshake, Inventory, Outcome, Terms};

use super::{Next, in_pieces, settings};

static OURS: Description = Description::new("rtc", 2, 1).with_fields(
    const {
        &[
            Field::value("year", Codec::Uint16),
            Field::value("ticks", Codec::Uint64),
        ]
    },
);
static THEIRS: Description = Description::new("rtc", 2, 1).with_fields(
    const {
        &[
            Field::value("ticks", Codec::Uint64),
            Field::value("year", Codec::Buffer(Size::Fixed(2))),
        ]
    },
);

/// The terms of a small machine.
fn terms(device: &'static Description) -> Terms {
    let mut machine = Inventory::new(MachineId {
        machine_type: "toy".to_owned(),
        page_bits: 12,
        arch: "riscv64".to_owned(),
    });
    machine
        .add_live("ram", 0, 4, true)
        .expect("the first section");
    machine
        .add_described("rtc", 0, device.into(), Presence::Always)
        .expect("another section");
    // As many as the configuration says.
    let ticks = OwnCount {
        path: "ticks".to_owned(),
        aliases: vec!["clock.ticks".to_owned()],
        counter: "harts".to_owned(),
        number: 1,
        resize_max: Some(2),
    };
    machine.set_counts(("rtc", 0), vec![ticks]);
    Terms::new("toy 1.0", machine).with("ram-fill", Level::Wanted)
}

/// A peer that says anything gets an answer or an error; what is agreed on holds, and what is refused has a reason.
///
/// A byte: 0x80: this end is the source; 0x40: its hello, and of a destination the wish for types, come before; the rest is the size of
/// the pieces. Then what the peer sends.
///
/// # Panics
/// If it does not.
pub fn negotiate(data: &[u8]) {
    let (setting, data) = settings(data);
    let mut end = match setting & 0x80 != 0 {
        true => Handshake::source(terms(&OURS)),
        false => Handshake::destination(terms(&OURS)),
    };
    let hello = end.output();
    let mut said = match (setting & 0x40 != 0, setting & 0x80 != 0) {
        (false, _) => Vec::new(),
        (true, false) => Handshake::source(terms(&THEIRS)).output(),
        (true, true) => {
            let mut peer = Handshake::destination(terms(&THEIRS));
            let mut rest = hello.as_slice();
            while let Ok(taken) = peer.input(rest) {
                rest = rest.get(taken.consumed..).unwrap_or_default();
                if taken.consumed == 0 {
                    break;
                }
            }
            peer.output()
        }
    };
    said.extend_from_slice(data);
    let mut outcome = None;
    in_pieces(&said, usize::from(setting & 0x3f) * 8, |input| {
        match end.input(input) {
            Ok(taken) if taken.outcome.is_some() => {
                outcome = taken.outcome;
                Next::Done
            }
            Ok(taken) if taken.consumed > 0 => Next::Took(taken.consumed),
            Ok(taken) => {
                assert!(taken.need > input.len(), "asks for what it has");
                Next::Need(taken.need)
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                Next::Done
            }
        }
    });
    match outcome {
        Some(Outcome::Agreed(agreement)) => {
            assert_eq!(agreement.report.count(Severity::Error), 0);
            assert!(agreement.has("frame-crc") && agreement.version == 1);
            assert!(end.into_parts().is_some());
        }
        Some(Outcome::Refused(report)) => {
            let text = report.to_string();
            let controls = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(controls), "{text:?}");
        }
        None => {}
    }
}
