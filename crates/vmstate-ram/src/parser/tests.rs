mod properties;
mod setup;

use super::*;
use crate::{PageSize, RamWriter};

const PAGE: [u8; 4096] = [0x5a; 4096];

fn word(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

fn entry(name: &str, length: u64) -> Vec<u8> {
    [&[name.len() as u8], name.as_bytes(), &length.to_be_bytes()].concat()
}

/// A parser that has read START with the blocks `a` (3 pages) and `b` (1 page).
fn ready(dialect: Dialect) -> RamParser {
    let mut parser = RamParser::new(dialect);
    parser.begin_section(RamSection::Start, 0).unwrap();
    let setup = [
        word(0x4004),
        entry("a", 0x3000),
        entry("b", 0x1000),
        word(0x10),
    ]
    .concat();
    let (_, rest) = walk(&mut parser, &setup).unwrap();
    assert!(rest.is_empty());
    parser.begin_section(RamSection::Part, 100).unwrap();
    parser
}

/// All events at the front of the input, and what they left. Mapped-ram gaps are skipped in the input.
fn walk<'a>(
    parser: &mut RamParser,
    mut input: &'a [u8],
) -> Result<(Vec<Event<'a>>, &'a [u8]), RamError> {
    let mut events = Vec::new();
    loop {
        match parser.step(input)? {
            Step::NeedMore { at_least } => {
                assert!(at_least > input.len());
                return Ok((events, input));
            }
            Step::Event { consumed, event } => {
                input = &input[consumed..];
                if let Event::Block { gap, .. } = event {
                    input = input.get(gap as usize..).unwrap_or_default();
                }
                events.push(event);
                if event == Event::EndOfSection {
                    return Ok((events, input));
                }
            }
        }
    }
}

#[track_caller]
fn refused(dialect: Dialect, input: &[u8], offset: u64, expected: RamErrorKind) {
    let mut parser = ready(dialect);
    let error = walk(&mut parser, input).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (&expected, Some(offset)));
    // Through the fast path as well.
    let mut parser = ready(parser.dialect().clone());
    let mut rest = input;
    let again = loop {
        let mut records = parser.records(rest);
        match records.find_map(Result::err) {
            Some(error) => {
                assert_eq!((records.stop(), records.next()), (Stop::Failed, None));
                break error;
            }
            None => rest = &rest[records.consumed()..],
        }
        match parser.step(rest) {
            Ok(Step::Event { consumed, .. }) => rest = &rest[consumed..],
            Ok(Step::NeedMore { .. }) => panic!("the fast path saw no error"),
            Err(error) => break error,
        }
    };
    assert_eq!(again, error);
}

#[test]
fn reads_every_record() {
    let mut dialect = Dialect::lenient();
    dialect.any_fill_byte = true;
    let mut parser = ready(dialect);
    let input = [
        &word(0x08)[..],
        b"\x01a",
        &PAGE,
        &word(0x1028),
        &PAGE,
        &word(0x1022),
        &[0],
        &word(0x02),
        b"\x01b",
        &[7],
        &word(0x60),
        &[1, 0, 3, 1, 1, 9],
        &word(0x1100),
        b"\x01a",
        &[0, 0, 0, 2, 8, 9],
        &word(0x200),
        &word(0x10),
    ]
    .concat();
    let (events, rest) = walk(&mut parser, &input).unwrap();
    let (a, b) = (BlockId(0), BlockId(1));
    let page = |block, offset, named| PageRef {
        block,
        offset,
        named,
    };
    assert_eq!(
        events,
        [
            Event::Record(Record::Page {
                page: page(a, 0, true),
                data: &PAGE
            }),
            Event::Record(Record::Page {
                page: page(a, 0x1000, false),
                data: &PAGE
            }),
            Event::Record(Record::Zero {
                page: page(a, 0x1000, false),
                fill: 0
            }),
            Event::Record(Record::Zero {
                page: page(b, 0, true),
                fill: 7
            }),
            Event::Record(Record::Xbzrle {
                page: page(b, 0, false),
                delta: &[1, 1, 9]
            }),
            Event::Record(Record::Compressed {
                page: page(a, 0x1000, true),
                data: &[8, 9]
            }),
            Event::MultifdFlush,
            Event::EndOfSection,
        ]
    );
    assert!(rest.is_empty());
    let mut writer = RamWriter::new(PageSize::KIB4, parser.blocks().clone());
    let mut out = Vec::new();
    for event in &events {
        writer.event(event, &mut out).unwrap();
    }
    assert_eq!(out, input);
}

#[test]
fn continue_lives_across_sections() {
    let mut parser = ready(Dialect::modern());
    walk(
        &mut parser,
        &[&word(0x02)[..], b"\x01a\0", &word(0x10)].concat(),
    )
    .unwrap();
    parser.begin_section(RamSection::End, 200).unwrap();
    let input = [&word(0x2022)[..], &[0], &word(0x10)].concat();
    let (events, _) = walk(&mut parser, &input).unwrap();
    assert_eq!(
        events[0],
        Event::Record(Record::Zero {
            page: PageRef {
                block: BlockId(0),
                offset: 0x2000,
                named: false
            },
            fill: 0
        })
    );
}

#[test]
fn a_driver_may_take_the_page_itself() {
    let mut parser = ready(Dialect::modern());
    let input = [&word(0x08)[..], b"\x01b"].concat();
    let page = PageRef {
        block: BlockId(1),
        offset: 0,
        named: true,
    };
    assert_eq!(parser.payload_due(), 0);
    assert!(parser.payload_done().is_err());
    assert_eq!(
        parser.step_header(&input).unwrap(),
        Step::Event {
            consumed: 10,
            event: Event::PageHeader(page)
        }
    );
    assert_eq!(parser.payload_due(), 4096);
    assert!(parser.step(&word(0x10)).is_err(), "the payload is due");
    assert_eq!(parser.records(&word(0x10)).stop(), Stop::Other);
    parser.payload_done().unwrap();
    assert_eq!(parser.position(), 100 + 10 + 4096);
    assert_eq!(
        parser.step_header(&word(0x10)).unwrap(),
        Step::Event {
            consumed: 8,
            event: Event::EndOfSection
        }
    );
}

#[test]
fn refuses_bad_words() {
    use RamErrorKind as Kind;
    let modern = Dialect::modern;
    refused(
        modern(),
        &word(0),
        100,
        Kind::NotOneRecord {
            word: 0,
            flags: RamFlags::empty(),
        },
    );
    refused(
        modern(),
        &word(0x0a),
        100,
        Kind::NotOneRecord {
            word: 0x0a,
            flags: RamFlags::PAGE | RamFlags::ZERO,
        },
    );
    refused(
        modern(),
        &word(0x20),
        100,
        Kind::NotOneRecord {
            word: 0x20,
            flags: RamFlags::CONTINUE,
        },
    );
    refused(
        modern(),
        &word(0x402),
        100,
        Kind::UnknownFlags {
            word: 0x402,
            unknown: 0x400,
        },
    );
    refused(
        modern(),
        &word(0x01),
        100,
        Kind::Obsolete {
            flags: RamFlags::FULL,
        },
    );
    refused(
        modern(),
        &word(0x80),
        100,
        Kind::Rdma {
            flags: RamFlags::HOOK,
        },
    );
    refused(
        modern(),
        &word(0x1010),
        100,
        Kind::BareWord {
            word: 0x1010,
            flags: RamFlags::EOS,
        },
    );
    refused(
        modern(),
        &word(0x30),
        100,
        Kind::BareWord {
            word: 0x30,
            flags: RamFlags::EOS,
        },
    );
    refused(
        modern(),
        &word(0x1200),
        100,
        Kind::BareWord {
            word: 0x1200,
            flags: RamFlags::MULTIFD_FLUSH,
        },
    );
    refused(
        modern(),
        &word(0x4004),
        100,
        Kind::NotAllowed {
            flags: RamFlags::MEM_SIZE,
            when: IN_A_SECTION,
        },
    );
    refused(
        modern(),
        &word(0x100),
        100,
        Kind::NotAllowed {
            flags: RamFlags::COMPRESS_PAGE,
            when: IN_A_SECTION,
        },
    );
    refused(
        Dialect::qemu_7_2(),
        &word(0x200),
        100,
        Kind::NotAllowed {
            flags: RamFlags::MULTIFD_FLUSH,
            when: IN_A_SECTION,
        },
    );
    refused(modern(), &word(0x22), 100, Kind::NothingToContinue);
}

#[test]
fn refuses_bad_pages() {
    use RamErrorKind as Kind;
    let modern = Dialect::modern;
    let named = |word_: u64, rest: &[u8]| [&word(word_)[..], b"\x01a", rest].concat();
    refused(
        modern(),
        &[&word(0x02)[..], b"\x01c\0"].concat(),
        108,
        Kind::UnknownBlock { name: "c".into() },
    );
    refused(
        modern(),
        &[&word(0x02)[..], b"\0\0"].concat(),
        108,
        Kind::UnknownBlock {
            name: String::new(),
        },
    );
    refused(
        modern(),
        &named(0x3002, &[0]),
        100,
        Kind::OutsideBlock {
            offset: 0x3000,
            used_length: 0x3000,
        },
    );
    refused(
        modern(),
        &[
            named(0x02, &[0]),
            word(0xffff_ffff_ffff_f028),
            PAGE.to_vec(),
        ]
        .concat(),
        111,
        Kind::OutsideBlock {
            offset: !0xfff,
            used_length: 0x3000,
        },
    );
    refused(
        modern(),
        &named(0x02, &[1]),
        110,
        Kind::FillByte { found: 1 },
    );
    refused(
        modern(),
        &[named(0x02, &[0]), word(0x1022), vec![9]].concat(),
        119,
        Kind::FillByte { found: 9 },
    );
    refused(
        modern(),
        &named(0x40, &[2, 0, 0]),
        110,
        Kind::XbzrleMark { found: 2 },
    );
    refused(
        modern(),
        &named(0x40, &[1, 0x10, 1]),
        111,
        Kind::XbzrleLength {
            found: 4097,
            limit: 4096,
        },
    );
    let old = Dialect::qemu_7_2;
    refused(
        old(),
        &named(0x100, &[0, 0, 0, 0]),
        110,
        Kind::CompressedLength {
            found: 0,
            limit: 4110,
        },
    );
    refused(
        old(),
        &named(0x100, &[0, 0, 0x10, 0x0f]),
        110,
        Kind::CompressedLength {
            found: 4111,
            limit: 4110,
        },
    );
    refused(
        old(),
        &named(0x100, &[0xff; 4]),
        110,
        Kind::CompressedLength {
            found: 0xffff_ffff,
            limit: 4110,
        },
    );
}

#[test]
fn refuses_pages_of_ignored_blocks() {
    let mut parser = ready(Dialect::modern());
    assert!(parser.ignore_block(BlockId(2)).is_err());
    let input = [&word(0x02)[..], b"\x01a\0", &word(0x1022), &[0]].concat();
    assert_eq!(parser.records(&input[..11]).count(), 1);
    parser.ignore_block(BlockId(0)).unwrap();
    for input in [&input[..11], &input[11..]] {
        let error = parser.records(input).next().unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.block().unwrap().as_bytes()),
            (&RamErrorKind::IgnoredBlock, &b"a"[..])
        );
    }
}

#[test]
fn sections_come_in_order() {
    let order = |section, when| RamErrorKind::SectionOrder { section, when };
    let mut parser = RamParser::new(Dialect::modern());
    assert!(parser.step(&word(0x10)).is_err());
    let error = parser.begin_section(RamSection::Part, 7).unwrap_err();
    assert_eq!(
        (error.kind(), error.offset()),
        (&order("PART", "before any START"), Some(7))
    );
    assert!(parser.preempt_channel().is_err());
    let mut parser = ready(Dialect::modern());
    assert!(matches!(
        parser
            .begin_section(RamSection::Part, 7)
            .unwrap_err()
            .kind(),
        RamErrorKind::OutOfTurn { .. }
    ));
    walk(&mut parser, &word(0x10)).unwrap();
    assert_eq!(
        parser
            .begin_section(RamSection::Start, 7)
            .unwrap_err()
            .kind(),
        &order("START", "came before")
    );
    assert!(parser.step(&word(0x10)).is_err());
    assert_eq!(
        parser.truncated(8, 3).to_string(),
        "input ended: 8 bytes needed, 3 there (stream offset 0x6c)"
    );
}

#[test]
fn postcopy_narrows_the_records() {
    let mut parser = ready(Dialect::modern());
    walk(
        &mut parser,
        &[&word(0x02)[..], b"\x01a\0", &word(0x10)].concat(),
    )
    .unwrap();
    let mut preempt = parser.preempt_channel().unwrap();
    assert_eq!(
        preempt.step(&word(0x22)).unwrap_err().kind(),
        &RamErrorKind::NothingToContinue
    );
    let input = [&word(0x02)[..], b"\x01b\0", &word(0x10)].concat();
    assert_eq!(walk(&mut preempt, &input).unwrap().0.len(), 2);
    parser.enter_postcopy();
    parser.begin_section(RamSection::Part, 0).unwrap();
    for flags in [RamFlags::XBZRLE, RamFlags::MULTIFD_FLUSH] {
        let error = parser.step(&word(flags.bits())).unwrap_err();
        assert_eq!(
            error.kind(),
            &RamErrorKind::NotAllowed {
                flags,
                when: IN_POSTCOPY
            }
        );
    }
}

#[test]
fn small_pages_have_fewer_flags() {
    let mut dialect = Dialect::lenient();
    dialect.page_size = PageSize::new(256).unwrap();
    let mut parser = RamParser::new(dialect);
    parser.begin_section(RamSection::Start, 0).unwrap();
    let setup = [word(0x404), entry("a", 0x400), word(0x10)].concat();
    walk(&mut parser, &setup).unwrap();
    parser.begin_section(RamSection::Part, 0).unwrap();
    let input = [
        &word(0x102)[..],
        b"\x01a\0",
        &word(0x222),
        &[0],
        &word(0x10),
    ]
    .concat();
    let (events, _) = walk(&mut parser, &input).unwrap();
    let offsets: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Record(record) => Some(record.page().offset),
            _ => None,
        })
        .collect();
    assert_eq!(offsets, [0x100, 0x200]);
}
