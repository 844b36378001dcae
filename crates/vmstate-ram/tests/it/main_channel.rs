//! Streams with all pages on the main channel.

use std::collections::BTreeMap;

use vmstate_ram::{
    Dialect, Event, MemoryStore, PageSize, RamImage, RamParser, RamWriter, Step, Stop,
};

use crate::stream::{Element, Walker};
use crate::vectors::Vector;

/// How the parser is driven.
#[derive(Clone, Copy)]
enum Mode {
    /// Record by record, with as little input as it asks for.
    Sparing,
    /// With the batch iterator over all that is there.
    Batch,
    /// Only the words; the pages are skipped.
    Headers,
}

/// Reads a stream, builds its memory, and checks that writing every event again gives the same bytes. Returns how
/// often each kind of event came.
fn read(vector: &Vector, mode: Mode) -> BTreeMap<&'static str, u64> {
    let bytes = vector.channel("main");
    let mut walker = Walker::new(&bytes);
    let mut parser = RamParser::new(Dialect::lenient());
    let mut writer = RamWriter::new(PageSize::KIB4, parser.blocks().clone());
    let store = || MemoryStore::new(PageSize::KIB4, 64 << 20);
    let mut image = RamImage::new(parser.blocks().clone(), PageSize::KIB4, store());
    let mut counts = BTreeMap::new();
    loop {
        match walker.next() {
            Element::Ram(section) => {
                parser.begin_section(section, walker.at as u64).unwrap();
                let begin = walker.at;
                let mut out = Vec::new();
                let mut count = |event: &Event<'_>| *counts.entry(kind(event)).or_insert(0) += 1;
                'section: loop {
                    let input = walker.rest();
                    if matches!(mode, Mode::Batch) {
                        let mut records = parser.records(input);
                        for record in &mut records {
                            let record = record.unwrap();
                            count(&Event::Record(record));
                            writer.record(&record, &mut out).unwrap();
                            image.apply(&record).unwrap();
                        }
                        assert_eq!(records.stop(), Stop::Other);
                        walker.at += records.consumed();
                    }
                    let mut given = 0;
                    let (consumed, event) = loop {
                        let input = &walker.rest()[..given];
                        let step = match mode {
                            Mode::Headers => parser.step_header(input),
                            _ => parser.step(input),
                        };
                        match step.unwrap() {
                            Step::NeedMore { at_least } => {
                                assert!(at_least > given);
                                given = at_least;
                            }
                            Step::Event { consumed, event } => break (consumed, event),
                        }
                    };
                    count(&event);
                    if matches!(event, Event::Block { .. }) {
                        writer.set_blocks(parser.blocks().clone());
                    }
                    writer.event(&event, &mut out).unwrap();
                    walker.at += consumed;
                    match event {
                        Event::BlockListEnd => {
                            image = RamImage::new(parser.blocks().clone(), PageSize::KIB4, store());
                        }
                        Event::Record(record) => image.apply(&record).unwrap(),
                        Event::PageHeader(page) => {
                            let data = &walker.rest()[..parser.payload_due()];
                            image.page(page.block, page.offset, data).unwrap();
                            out.extend_from_slice(data);
                            walker.at += data.len();
                            parser.payload_done().unwrap();
                        }
                        Event::EndOfSection => break 'section,
                        _ => {}
                    }
                }
                assert_eq!(parser.position(), walker.at as u64);
                assert!(
                    out == bytes[begin..walker.at],
                    "{}: bytes of the section at {begin:#x}",
                    vector.name
                );
                walker.footer();
            }
            Element::Discard(name, ranges) => {
                let block = parser.blocks().find(&name).unwrap();
                for (offset, length) in ranges {
                    image.discard(block, offset, length).unwrap();
                }
                *counts.entry("discard").or_insert(0) += 1;
            }
            Element::Package => {
                parser.enter_postcopy();
                writer.forget();
            }
            Element::Other => break,
        }
    }
    vector.check_memory(&mut image);
    counts
}

fn kind(event: &Event<'_>) -> &'static str {
    match event {
        Event::BlockListStart { .. } => "start",
        Event::Block { .. } => "block",
        Event::BlockListEnd => "list end",
        Event::Record(vmstate_ram::Record::Page { .. }) | Event::PageHeader(_) => "page",
        Event::Record(vmstate_ram::Record::Zero { .. }) => "zero",
        Event::Record(vmstate_ram::Record::Xbzrle { .. }) => "xbzrle",
        Event::Record(vmstate_ram::Record::Compressed { .. }) => "compressed",
        Event::MultifdFlush => "flush",
        Event::EndOfSection => "end",
    }
}

#[test]
fn own_streams_give_the_sources_memory() {
    for name in ["spike-11.1", "spike-11.1-smp4"] {
        let vector = Vector::own(name);
        let sparing = read(&vector, Mode::Sparing);
        assert_eq!(sparing, read(&vector, Mode::Batch));
        assert_eq!(sparing, read(&vector, Mode::Headers));
        let ram = &vector.sidecar["query_migrate"]["ram"];
        assert_eq!(Some(sparing["page"]), ram["normal"].as_u64(), "{name}");
        assert_eq!(Some(sparing["zero"]), ram["duplicate"].as_u64(), "{name}");
    }
}

#[test]
fn shared_streams_give_the_sources_memory() {
    // These have pages elsewhere; see the other tests.
    let others = [
        "pc-11.1-mapped-ram",
        "pc-11.1-multifd2",
        "pc-11.1-multifd2-zstd",
    ];
    let vectors = Vector::all_shared(&others);
    assert!(vectors.len() >= 13, "only {} streams", vectors.len());
    for vector in vectors {
        read(&vector, Mode::Batch);
    }
}

#[test]
fn xbzrle_and_postcopy_streams_have_what_they_are_for() {
    let counts = read(&Vector::shared("pc-11.1-xbzrle"), Mode::Headers);
    assert!(counts["xbzrle"] > 0, "{counts:?}");
    let counts = read(&Vector::shared("pc-11.1-postcopy"), Mode::Sparing);
    assert!(counts["discard"] > 0, "{counts:?}");
}
