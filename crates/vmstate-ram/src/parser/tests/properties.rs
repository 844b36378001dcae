use proptest::prelude::*;

use super::*;

/// One record of any kind, in the two blocks of `ready`.
fn any_record() -> impl Strategy<Value = (u8, bool, u64, Vec<u8>)> {
    (
        0_u8..6,
        any::<bool>(),
        0_u64..3,
        prop::collection::vec(any::<u8>(), 1..60),
    )
}

fn write_section(records: &[(u8, bool, u64, Vec<u8>)], blocks: &Arc<BlockTable>) -> Vec<u8> {
    let mut writer = RamWriter::new(PageSize::KIB4, blocks.clone());
    let mut out = Vec::new();
    for (kind, named, page, bytes) in records {
        let block = BlockId(u32::from(*page == 0));
        let offset = page * 0x1000 * u64::from(block == BlockId(0));
        if *named {
            writer.forget();
        }
        match kind {
            0 => writer.page(block, offset, &PAGE, &mut out).unwrap(),
            1 => writer.zero_page(block, offset, &mut out).unwrap(),
            2 => writer
                .filled_page(block, offset, bytes[0], &mut out)
                .unwrap(),
            3 => writer.xbzrle_page(block, offset, bytes, &mut out).unwrap(),
            4 => writer
                .compressed_page(block, offset, bytes, &mut out)
                .unwrap(),
            _ => writer.multifd_flush(&mut out),
        }
    }
    writer.end_of_section(&mut out);
    out
}

proptest! {
    /// Events written again give the same bytes, whatever the pieces in which the input comes.
    #[test]
    fn rewrites_to_the_same_bytes(
        records in prop::collection::vec(any_record(), 0..30),
        pieces in prop::collection::vec(1_usize..6000, 1..20),
        fast in any::<bool>(),
    ) {
        let mut parser = ready(Dialect::lenient());
        let input = write_section(&records, parser.blocks());
        let mut writer = RamWriter::new(PageSize::KIB4, parser.blocks().clone());
        let mut out = Vec::new();
        let (mut from, mut to) = (0, 0);
        let mut pieces = pieces.iter().cycle();
        loop {
            if fast {
                let mut records = parser.records(&input[from..to]);
                for record in &mut records {
                    writer.record(&record.unwrap(), &mut out).unwrap();
                }
                from += records.consumed();
            }
            match parser.step(&input[from..to]).unwrap() {
                Step::NeedMore { at_least } => {
                    prop_assert!(at_least > to - from && from + at_least <= input.len());
                    to = (to + pieces.next().unwrap()).min(input.len());
                }
                Step::Event { consumed, event } => {
                    from += consumed;
                    writer.event(&event, &mut out).unwrap();
                    if event == Event::EndOfSection {
                        break;
                    }
                }
            }
        }
        prop_assert_eq!(parser.position(), 100 + input.len() as u64);
        prop_assert_eq!(out, input);
    }

    /// Whatever comes is refused or written again the same, and never panics.
    #[test]
    fn damaged_sections_are_refused_or_rewritten(
        records in prop::collection::vec(any_record(), 0..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut parser = ready(Dialect::lenient());
        let mut input = write_section(&records, parser.blocks());
        for (at, value) in damage {
            let at = at.index(input.len());
            input[at] = value;
        }
        let mut writer = RamWriter::new(PageSize::KIB4, parser.blocks().clone());
        let mut again = ready(Dialect::lenient());
        if let Ok((events, rest)) = walk(&mut parser, &input) {
            let mut out = Vec::new();
            for event in &events {
                writer.event(event, &mut out).unwrap();
            }
            prop_assert_eq!(&out, &input[..input.len() - rest.len()]);
            // The fast path sees the same records.
            let mut fast = Vec::new();
            let mut from = 0;
            loop {
                let mut records = again.records(&input[from..]);
                fast.extend((&mut records).map(|record| Event::Record(record.unwrap())));
                from += records.consumed();
                match again.step(&input[from..]).unwrap() {
                    Step::NeedMore { .. } => break,
                    Step::Event { consumed, event } => {
                        from += consumed;
                        fast.push(event);
                        if event == Event::EndOfSection {
                            break;
                        }
                    }
                }
            }
            prop_assert_eq!(fast, events);
        }
    }

    #[test]
    fn setups_are_refused_or_rewritten(input in prop::collection::vec(prop::sample::select(&[0_u8, 1, 2, 4, 0x10, 0x20, b'a', b'b'][..]), 0..80)) {
        let mut parser = RamParser::new(Dialect::modern());
        parser.begin_section(RamSection::Start, 0).unwrap();
        let setup = [&word(0x1012_1004)[..], &input].concat();
        if let Ok((events, rest)) = walk(&mut parser, &setup) {
            let mut writer = RamWriter::new(PageSize::KIB4, parser.blocks().clone());
            let mut out = Vec::new();
            for event in &events {
                writer.event(event, &mut out).unwrap();
            }
            prop_assert_eq!(&out, &setup[..setup.len() - rest.len()]);
        }
    }
}
