use std::collections::BTreeMap;

use super::*;
use crate::mapped_ram::{MappedBlock, MappedRamHeader};
use crate::{BlockName, PageSizeExtra};

#[test]
fn reads_the_setup_record() {
    let mut parser = RamParser::new(Dialect::modern());
    parser.begin_section(RamSection::Start, 0x20).unwrap();
    let setup = [
        word(0x4004),
        entry("a", 0x3000),
        entry("b", 0x1000),
        word(0x200),
        word(0x10),
    ]
    .concat();
    let (events, _) = walk(&mut parser, &setup).unwrap();
    assert_eq!(
        events,
        [
            Event::BlockListStart { total: 0x4000 },
            Event::Block {
                block: BlockId(0),
                gap: 0
            },
            Event::Block {
                block: BlockId(1),
                gap: 0
            },
            Event::BlockListEnd,
            Event::MultifdFlush,
            Event::EndOfSection,
        ]
    );
    assert_eq!(parser.position(), 0x20 + setup.len() as u64);
}

#[test]
fn refuses_bad_setups() {
    use RamErrorKind as Kind;
    #[track_caller]
    fn check(setup: &[u8], offset: u64, expected: Kind) {
        let mut dialect = Dialect::modern();
        dialect.max_blocks = 2;
        let mut parser = RamParser::new(dialect);
        parser.begin_section(RamSection::Start, 0).unwrap();
        let error = walk(&mut parser, setup).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (&expected, Some(offset)));
    }
    let a = || entry("a", 0x1000);
    check(
        &word(0x10),
        0,
        Kind::NoBlockList {
            flags: RamFlags::EOS,
        },
    );
    check(
        &word(0x4024),
        0,
        Kind::NoBlockList {
            flags: RamFlags::MEM_SIZE | RamFlags::CONTINUE,
        },
    );
    check(
        &[word(0x1004), entry("a", 0x2000)].concat(),
        10,
        Kind::TotalExceeded {
            total: 0x1000,
            found: 0x2000,
        },
    );
    check(
        &[word(0x2004), a(), a(), word(0x10)].concat(),
        18,
        Kind::DuplicateBlock {
            name: BlockName::new(b"a").unwrap(),
        },
    );
    check(
        &[word(0x3004), entry("a", 0), a()].concat(),
        8,
        Kind::UsedLength {
            found: 0,
            page_size: PageSize::KIB4,
        },
    );
    check(
        &[word(0x3004), entry("a", 1), a()].concat(),
        8,
        Kind::UsedLength {
            found: 1,
            page_size: PageSize::KIB4,
        },
    );
    check(
        &[word(0x3004), entry("", 1), a()].concat(),
        8,
        Kind::BlockName { length: 0 },
    );
    check(
        &[
            word(0x9004),
            a(),
            entry("b", 0x1000),
            entry("c", 0x1000),
            word(0x10),
        ]
        .concat(),
        28,
        Kind::TooManyBlocks { limit: 2 },
    );
    check(
        &[word(0x3004), a(), word(0x800), a()].concat(),
        18,
        Kind::BadBlockPageSize { found: 0x800 },
    );
    check(
        &[word(0x1004), a(), word(0x3000), a()].concat(),
        18,
        Kind::BadBlockPageSize { found: 0x3000 },
    );
}

#[test]
fn page_sizes_are_inferred() {
    let with_sizes = [
        word(0x4004),
        entry("a", 0x2000),
        word(0x20_0000),
        entry("b", 0x1000),
        entry("c", 0x1000),
        word(0x4000_0000),
        word(0x10),
    ]
    .concat();
    let names = |sizes: &[(&str, u64)]| -> BTreeMap<_, _> {
        sizes
            .iter()
            .map(|(name, size)| (BlockName::new(name.as_bytes()).unwrap(), *size))
            .collect()
    };
    for (extra, good) in [
        (PageSizeExtra::Infer, true),
        (PageSizeExtra::Never, false),
        (
            PageSizeExtra::Expect(names(&[("a", 0x20_0000), ("c", 0x4000_0000)])),
            true,
        ),
        (
            PageSizeExtra::Expect(names(&[("a", 0x20_0000), ("c", 0x20_0000)])),
            false,
        ),
        (PageSizeExtra::Expect(names(&[("a", 0x20_0000)])), false),
    ] {
        let mut dialect = Dialect::modern();
        dialect.page_size_extra = extra.clone();
        let mut parser = RamParser::new(dialect);
        parser.begin_section(RamSection::Start, 0).unwrap();
        let outcome = walk(&mut parser, &with_sizes);
        assert_eq!(outcome.is_ok(), good, "{extra:?}: {outcome:?}");
        if good {
            let sizes: Vec<_> = parser
                .blocks()
                .iter()
                .map(|(_, block)| block.page_size)
                .collect();
            assert_eq!(sizes, [Some(0x20_0000), None, Some(0x4000_0000)]);
            let mut writer = RamWriter::new(PageSize::KIB4, parser.blocks().clone());
            let mut out = Vec::new();
            for event in outcome.unwrap().0 {
                writer.event(&event, &mut out).unwrap();
            }
            assert_eq!(out, with_sizes);
        }
    }
}

#[test]
fn a_record_in_start_is_not_taken_for_a_page_size() {
    for next in [0x10, 0x200] {
        let mut parser = RamParser::new(Dialect::modern());
        parser.begin_section(RamSection::Start, 0).unwrap();
        let input = [word(0x1004), entry("a", 0x1000), word(next), word(0x10)].concat();
        assert!(walk(&mut parser, &input).is_ok(), "{next:#x}");
    }
}

#[test]
fn shared_blocks_carry_their_address() {
    let mut dialect = Dialect::modern();
    dialect.ignore_shared = true;
    let mut parser = RamParser::new(dialect);
    parser.begin_section(RamSection::Start, 0).unwrap();
    let input = [
        word(0x2004),
        entry("a", 0x1000),
        word(0),
        entry("b", 0x1000),
        word(0x8000_0000),
        word(0x10),
    ]
    .concat();
    let (_, rest) = walk(&mut parser, &input).unwrap();
    assert!(rest.is_empty());
    let addresses: Vec<_> = parser
        .blocks()
        .iter()
        .map(|(_, block)| block.address)
        .collect();
    assert_eq!(addresses, [Some(0), Some(0x8000_0000)]);
}

#[test]
fn mapped_ram_leaves_gaps_and_has_no_records() {
    let mut dialect = Dialect::modern();
    dialect.mapped_ram = true;
    dialect.stream_base = 0x1000;
    dialect.file_length = Some(0x10_3000);
    let (header, place) =
        MappedBlock::plan(0x1000 + 100 + 8 + 10 + 28, 0x3000, PageSize::KIB4).unwrap();
    let start = [&word(0x4004)[..], &entry("a", 0x3000), &header.encode()].concat();
    let mut parser = RamParser::new(dialect.clone());
    parser.begin_section(RamSection::Start, 100).unwrap();
    assert!(matches!(
        parser.step(&start).unwrap(),
        Step::Event { consumed: 8, .. }
    ));
    let gap = match parser.step(&start[8..]).unwrap() {
        Step::Event {
            consumed: 38,
            event: Event::Block { gap, .. },
        } => gap,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (parser.position() + 0x1000, gap),
        (place.end(), place.end() - 0x1000 - 146)
    );
    // An ignored block: no places, no gap.
    let ignored = [
        entry("b", 0x1000),
        MappedRamHeader::ignored(PageSize::KIB4).encode().to_vec(),
        word(0x10),
    ]
    .concat();
    let (events, _) = walk(&mut parser, &ignored).unwrap();
    assert_eq!(
        events,
        [
            Event::Block {
                block: BlockId(1),
                gap: 0
            },
            Event::BlockListEnd,
            Event::EndOfSection
        ]
    );
    assert!(parser.blocks().get(BlockId(1)).unwrap().ignored);
    parser.begin_section(RamSection::Part, 0).unwrap();
    for record in [0x02, 0x08, 0x40, 0x200] {
        let kind = parser.step(&word(record)).unwrap_err().kind().clone();
        assert!(
            matches!(
                kind,
                RamErrorKind::NotAllowed {
                    when: IN_MAPPED_RAM,
                    ..
                }
            ),
            "{record:#x}: {kind}"
        );
    }
    // A file too short for the pages.
    dialect.file_length = Some(0x10_2fff);
    let mut parser = RamParser::new(dialect);
    parser.begin_section(RamSection::Start, 100).unwrap();
    let error = walk(&mut parser, &start).unwrap_err();
    assert_eq!(
        (error.offset(), error.block().unwrap().as_bytes()),
        (Some(118), &b"a"[..])
    );
}
