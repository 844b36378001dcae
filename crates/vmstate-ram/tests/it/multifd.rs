//! Streams with pages on multifd channels.

use vmstate_ram::multifd::{
    Admission, ChannelEvent, ChannelParser, ChannelSettings, Decompressor, InitPacket, Method,
    PacketWriter, Pages, PagesHeader, packet_header_size,
};
use vmstate_ram::{BlockTable, Dialect, Event, MemoryStore, PageSize, RamImage, RamParser, Step};

use crate::stream::{Element, Walker};
use crate::vectors::Vector;

/// A channel and how far it has been read.
struct Channel {
    bytes: Vec<u8>,
    at: usize,
    parser: ChannelParser,
    decompressor: Decompressor,
    method: Method,
    syncs: usize,
    pages: u64,
}

impl Channel {
    fn new(bytes: Vec<u8>, method: Method, admission: &mut Admission) -> Self {
        let mut channel = Self {
            bytes,
            at: 0,
            parser: ChannelParser::new(ChannelSettings {
                method,
                ..ChannelSettings::default()
            }),
            decompressor: Decompressor::new(method, PageSize::KIB4).unwrap(),
            method,
            syncs: 0,
            pages: 0,
        };
        match channel.parser.step(&channel.bytes).unwrap() {
            Step::Event {
                consumed,
                event: ChannelEvent::Init(packet),
            } => {
                admission.admit(&packet).unwrap();
                assert_eq!(channel.bytes[..consumed], packet.encode());
                channel.at = consumed;
            }
            other => panic!("{other:?}"),
        }
        channel
    }

    /// Reads packets up to and including the next SYNC, or to the channel's end.
    fn run(&mut self, image: &mut RamImage) -> bool {
        let blocks = image.blocks().clone();
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            let Step::Event { consumed, event } = self.parser.step(rest).unwrap() else {
                panic!("packet cut off at {:#x}", self.at);
            };
            self.at += consumed;
            let raw = &rest[..consumed];
            let sync = match event {
                ChannelEvent::Pages(pages) => {
                    self.pages += (pages.normal.len() + pages.zero.len()) as u64;
                    rewrite(&pages, &blocks, self.method, raw);
                    apply(&pages, &mut self.decompressor, image);
                    pages.sync
                }
                ChannelEvent::Sync { number } => {
                    let mut out = Vec::new();
                    PacketWriter::new(PageSize::KIB4, self.method).sync(number, &mut out);
                    assert_eq!(out, raw);
                    true
                }
                other => panic!("{other:?}"),
            };
            if sync {
                self.syncs += 1;
                return true;
            }
        }
        assert!(self.parser.is_between_packets());
        false
    }
}

/// Our writer gives the same header, up to the offsets in use; behind them QEMU leaves what was there.
fn rewrite(pages: &Pages<'_>, blocks: &BlockTable, method: Method, raw: &[u8]) {
    let normal: Vec<u64> = pages.normal.iter().collect();
    let zero: Vec<u64> = pages.zero.iter().collect();
    let id = blocks.find(pages.block).unwrap();
    let header = PagesHeader {
        number: pages.number,
        block: &blocks.get(id).unwrap().name,
        normal: &normal,
        zero: &zero,
        payload_len: pages.payload_len,
    };
    let mut out = Vec::new();
    PacketWriter::new(PageSize::KIB4, method)
        .pages_header(&header, &mut out)
        .unwrap();
    assert_eq!(out.len(), packet_header_size(PageSize::KIB4));
    let used = 320 + 8 * (normal.len() + zero.len());
    assert_eq!(out[..used], raw[..used]);
    assert_eq!(pages.payload, &raw[out.len()..]);
}

fn apply(pages: &Pages<'_>, decompressor: &mut Decompressor, image: &mut RamImage) {
    let blocks = image.blocks().clone();
    let id = pages.locate(&blocks, PageSize::KIB4).unwrap();
    let mut content = vec![0; pages.normal.len() * 4096];
    if !pages.normal.is_empty() {
        decompressor
            .decompress(pages.payload, &mut content)
            .unwrap();
    }
    for (offset, page) in pages.normal.iter().zip(content.chunks_exact(4096)) {
        image.page(id, offset, page).unwrap();
    }
    for offset in pages.zero.iter() {
        image.fill(id, offset, 0).unwrap();
    }
}

fn read(name: &str, method: Method) {
    let vector = Vector::shared(name);
    let bytes = vector.channel("main");
    let uuid = InitPacket::decode(vector.channel("multifd0").first_chunk().unwrap())
        .unwrap()
        .uuid;
    let mut admission = Admission::new(uuid, 2);
    let mut channels = ["multifd0", "multifd1"]
        .map(|channel| Channel::new(vector.channel(channel), method, &mut admission));
    assert!(admission.is_complete());

    let mut walker = Walker::new(&bytes);
    let mut parser = RamParser::new(Dialect::modern());
    let mut image = None;
    while let Element::Ram(section) = walker.next() {
        parser.begin_section(section, walker.at as u64).unwrap();
        loop {
            let Step::Event { consumed, event } = parser.step(walker.rest()).unwrap() else {
                panic!()
            };
            walker.at += consumed;
            match event {
                Event::BlockListEnd => {
                    let store = MemoryStore::new(PageSize::KIB4, 64 << 20);
                    image = Some(RamImage::new(
                        parser.blocks().clone(),
                        PageSize::KIB4,
                        store,
                    ));
                }
                Event::Record(record) => image.as_mut().unwrap().apply(&record).unwrap(),
                // All that is before the SYNC of each channel must be in memory now.
                Event::MultifdFlush => {
                    for channel in &mut channels {
                        assert!(
                            channel.run(image.as_mut().unwrap()),
                            "a channel has no SYNC for this mark"
                        );
                    }
                }
                Event::EndOfSection => break,
                _ => {}
            }
        }
        walker.footer();
    }
    let image = image.as_mut().unwrap();
    for channel in &mut channels {
        assert!(!channel.run(image), "a SYNC without a mark");
        assert!(channel.syncs > 0 && channel.pages > 0);
    }
    vector.check_memory(image);
}

#[test]
fn multifd_gives_the_sources_memory() {
    read("pc-11.1-multifd2", Method::None);
}

#[test]
fn multifd_with_zstd_gives_the_sources_memory() {
    read("pc-11.1-multifd2-zstd", Method::Zstd);
}
