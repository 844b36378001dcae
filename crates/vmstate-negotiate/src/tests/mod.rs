//! Both ends against each other, and against peers that break the rules.

mod counts;
mod hostile;
mod properties;
mod shapes;
mod wishes;

use vmstate_ber::frame::{Finding, Hello, Level, MachineId, Presence, Severity, Verdict};
use vmstate_ber::stream::{Parser, Step};
use vmstate_desc::{Codec, Description, Field};

use crate::{Agreement, Handshake, Inventory, NegotiateError, Outcome, Report, Terms};

pub(super) static RTC: Description = Description::new("rtc", 2, 1).with_fields(
    const {
        &[
            Field::value("year", Codec::Uint16),
            Field::value("ticks", Codec::Uint64),
        ]
    },
);

pub(super) fn machine() -> MachineId {
    MachineId {
        machine_type: "toy".to_owned(),
        page_bits: 12,
        arch: "riscv64".to_owned(),
    }
}

/// A machine with RAM and this device.
pub(super) fn inventory(device: &'static Description) -> Inventory {
    let mut inventory = Inventory::new(machine());
    inventory.add_live("ram", 0, 4, true).unwrap();
    inventory
        .add_described(&device.name, 0, device.into(), Presence::Always)
        .unwrap();
    inventory
}

pub(super) fn terms(device: &'static Description) -> Terms {
    Terms {
        session: [9; 16],
        ..Terms::new("toy 1.0", inventory(device))
    }
}

/// What an end has come to.
pub(super) type Answer = Result<Outcome, NegotiateError>;

/// Gives `bytes` to an end in pieces of `piece` bytes, and never more than it needs; tells what it says about it.
pub(super) fn feed(end: &mut Handshake, bytes: &[u8], piece: usize) -> Option<Answer> {
    let (mut start, mut have) = (0, 0);
    loop {
        let taken = match end.input(&bytes[start..start + have]) {
            Ok(taken) => taken,
            Err(error) => return Some(Err(error)),
        };
        start += taken.consumed;
        have -= taken.consumed;
        if let Some(outcome) = taken.outcome {
            assert_eq!((start, have), (bytes.len(), 0), "something is left over");
            return Some(Ok(outcome));
        }
        if start + have == bytes.len() {
            return None;
        }
        assert!(taken.need > have, "asks for what it has");
        have += (taken.need - have)
            .min(piece)
            .min(bytes.len() - start - have);
    }
}

/// Both ends until they have answered. Counts how often the source speaks.
pub(super) fn run(source: Terms, destination: Terms) -> (Answer, Answer, usize) {
    let mut source = Handshake::source(source);
    let mut destination = Handshake::destination(destination);
    let mut there = None;
    for turn in 1..10 {
        let bytes = source.output();
        there = there.or_else(|| feed(&mut destination, &bytes, 7));
        let bytes = destination.output();
        if let Some(here) = feed(&mut source, &bytes, 5) {
            let there = there.expect("the destination answers first");
            return (here, there, turn);
        }
        assert!(!matches!(there, Some(Err(_))), "{there:?}");
    }
    panic!("no answer");
}

pub(super) fn agreed(source: Terms, destination: Terms) -> Agreement {
    match run(source, destination) {
        (Ok(Outcome::Agreed(here)), Ok(Outcome::Agreed(there)), _) => {
            assert_eq!(here.capabilities, there.capabilities);
            assert_eq!(here.report, there.report);
            here
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn refused(source: Terms, destination: Terms) -> Report {
    match run(source, destination) {
        (Ok(Outcome::Refused(here)), Ok(Outcome::Refused(there)), _) => {
            assert_eq!(here, there);
            assert!(here.count(Severity::Error) > 0);
            here
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn rules(findings: &[Finding]) -> Vec<(&str, Severity)> {
    findings
        .iter()
        .map(|finding| (finding.rule.as_str(), finding.severity))
        .collect()
}

/// The frames in bytes of an end.
pub(super) fn frames(bytes: &[u8]) -> (Option<Hello>, Vec<Verdict>, usize) {
    use vmstate_ber::frame::Frame;
    let mut parser = Parser::default();
    let (mut rest, mut hello, mut verdicts, mut types) = (bytes, None, Vec::new(), 0);
    while !rest.is_empty() {
        match parser.next(rest).unwrap() {
            Step::Consumed { consumed } => rest = &rest[consumed..],
            Step::Frame {
                consumed, frame, ..
            } => {
                match *frame {
                    Frame::Hello(one) => hello = Some(one),
                    Frame::Verdict(one) => verdicts.push(one),
                    Frame::TypeDef(_) => types += 1,
                    _ => {}
                }
                rest = &rest[consumed..];
            }
            step => panic!("{step:?}"),
        }
    }
    (hello, verdicts, types)
}

#[test]
fn equal_machines_agree_at_once() {
    let (here, there, turns) = run(terms(&RTC), terms(&RTC));
    assert_eq!(turns, 1);
    let Ok(Outcome::Agreed(here)) = here else {
        panic!("{here:?}");
    };
    assert!(matches!(there, Ok(Outcome::Agreed(_))));
    assert_eq!(here.version, 1);
    assert_eq!(here.peer, "toy 1.0");
    assert_eq!(here.known, inventory(&RTC).digests());
    assert!(here.report.findings.is_empty());
    assert!(here.has("frame-crc") && here.has("typedefs") && !here.has("postcopy"));
    assert_eq!(
        here.report.to_string(),
        "migration accepted by the destination"
    );
}

#[test]
fn the_stream_goes_on_behind_the_verdict() {
    static OTHER: Description = Description::new("rtc", 2, 1).with_fields(
        const {
            &[
                Field::value("ticks", Codec::Uint64),
                Field::value("year", Codec::Uint16),
            ]
        },
    );
    for (theirs, sent_before) in [(&RTC, 0), (&OTHER, 1)] {
        let mut source = Handshake::source(terms(&RTC));
        let mut destination = Handshake::destination(terms(theirs));
        for _ in 0..4 {
            let there = source.output();
            feed(&mut destination, &there, 100);
            let back = destination.output();
            if let Some(Ok(outcome)) = feed(&mut source, &back, 100) {
                assert!(matches!(outcome, Outcome::Agreed(_)));
                break;
            }
        }
        let mut here = source.into_parts().unwrap();
        let mut there = destination.into_parts().unwrap();
        assert_eq!(there.types.len(), sent_before);
        // Types that were sent for the verdict are not sent again.
        let mut bytes = Vec::new();
        here.writer.new_types(&mut bytes);
        let count = 1 - sent_before;
        assert_eq!(bytes.is_empty(), count == 0);
        let mut seen = 0;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let Ok(Step::Frame { consumed, .. }) = there.parser.next(rest) else {
                panic!("the reader has lost its place");
            };
            rest = &rest[consumed..];
            seen += 1;
        }
        assert_eq!(seen, count);
    }
}

#[test]
fn a_source_that_is_refused_ends_its_stream() {
    static OTHER: Description =
        Description::new("rtc", 2, 1).with_fields(const { &[Field::value("year", Codec::Uint16)] });
    let mut source = Handshake::source(terms(&RTC));
    let mut destination = Handshake::destination(terms(&OTHER));
    let mut all = Vec::new();
    for _ in 0..3 {
        let there = source.output();
        all.extend_from_slice(&there);
        feed(&mut destination, &there, 100);
        let back = destination.output();
        feed(&mut source, &back, 100);
    }
    assert!(all.ends_with(&[0, 0]), "end of contents");
    let mut parser = Parser::default();
    let mut rest = all.as_slice();
    let mut last = None;
    loop {
        match parser.next(rest).unwrap() {
            Step::Consumed { consumed } => rest = &rest[consumed..],
            Step::Frame {
                consumed, frame, ..
            } => {
                if let vmstate_ber::frame::Frame::End(end) = *frame {
                    last = Some(end);
                }
                rest = &rest[consumed..];
            }
            Step::End => break,
            step @ Step::NeedMore { .. } => panic!("{step:?}"),
        }
    }
    let end = last.unwrap();
    assert_eq!(end.status, vmstate_ber::frame::Status::Cancelled);
    assert_eq!(
        end.finding.map(|finding| finding.rule).as_deref(),
        Some("C04")
    );
}

#[test]
fn versions_are_the_highest_of_both() {
    let with = |versions: &[u64]| Terms {
        versions: versions.to_vec(),
        ..terms(&RTC)
    };
    for (here, there, expected) in [
        (&[1][..], &[1][..], Some(1)),
        (&[3, 2, 1], &[2, 1], Some(2)),
        (&[1, 3], &[3, 4, 1], Some(3)),
        (&[2], &[1], None),
        (&[], &[1], None),
    ] {
        match expected {
            Some(version) => assert_eq!(agreed(with(here), with(there)).version, version),
            None => {
                let report = refused(with(here), with(there));
                assert_eq!(rules(&report.findings), [("N01", Severity::Error)]);
            }
        }
    }
}

#[test]
fn what_a_hello_says() {
    let mut source = Handshake::source(terms(&RTC).with("ram-fill", Level::Offered));
    let (hello, _, _) = frames(&source.output());
    let hello = hello.unwrap();
    assert_eq!(hello.session, [9; 16]);
    assert_eq!(hello.manifest, Some(inventory(&RTC).manifest()));
    assert_eq!(hello.known, None);
    let names: Vec<_> = hello.capabilities.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["frame-crc", "ram-fill", "typedefs"]);
    let catalog = hello.catalog.unwrap();
    let shown: Vec<_> = catalog.iter().map(|e| (&*e.idstr, e.version)).collect();
    assert_eq!(shown, [("ram", 4), ("rtc", 2)]);
    let mut destination = Handshake::destination(terms(&RTC));
    assert!(destination.output().is_empty(), "the source speaks first");
    let there = {
        let mut source = Handshake::source(terms(&RTC));
        source.output()
    };
    feed(&mut destination, &there, 1000);
    let (hello, verdicts, _) = frames(&destination.output());
    let hello = hello.unwrap();
    assert_eq!(hello.session, [9; 16], "the source's");
    assert_eq!(hello.catalog, None);
    assert_eq!(hello.known, Some(inventory(&RTC).digests()));
    assert_eq!(verdicts.len(), 1);
}
