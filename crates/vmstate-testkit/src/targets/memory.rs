//! Guest RAM in its forms, and dirty bitmaps of disks.

use vmstate_ram::dirty_bitmap::{ChunkEvent, ChunkParser, ChunkWriter};
use vmstate_ram::mapped_ram::{MappedBlock, MappedRamHeader};
use vmstate_ram::multifd::{ChannelEvent, ChannelParser, ChannelSettings, Decompressor, Method};
use vmstate_ram::xbzrle::{self, Encoding};
use vmstate_ram::{
    BlockName, BlockTable, Dialect, Event, MemoryStore, PageSize, PageSizeExtra, RamBlock,
    RamImage, RamParser, RamSection, Step, WordOrder, parse_received_bitmap, put_received_bitmap,
};

use super::{Next, in_pieces, settings};

/// Most bytes of guest RAM that a target keeps, and the longest block of which it takes a digest.
const MEMORY: u64 = 4 << 20;

/// Sections of RAM: the same in whole input and in pieces; whatever is accepted can be applied to memory.
///
/// First byte: dialect and size of the pieces. The rest: payload of START, PART, PART, ….
///
/// # Panics
/// If that does not hold.
pub fn ram(data: &[u8]) {
    let (byte, data) = settings(data);
    let dialect = Dialect {
        ignore_shared: byte & 1 != 0,
        mapped_ram: byte & 2 != 0,
        page_size_extra: if byte & 4 == 0 {
            PageSizeExtra::Infer
        } else {
            PageSizeExtra::Never
        },
        max_blocks: 64,
        ..if byte & 8 == 0 {
            Dialect::lenient()
        } else {
            Dialect::modern()
        }
    };
    let piece = if byte & 16 == 0 { 1 } else { 333 };
    assert_eq!(
        walk_ram(&dialect, data, data.len()),
        walk_ram(&dialect, data, piece)
    );
}

/// What a walk over sections of RAM saw: events, and the digests of small blocks.
fn walk_ram(dialect: &Dialect, data: &[u8], piece: usize) -> (Vec<String>, Vec<Vec<u8>>) {
    let mut parser = RamParser::new(dialect.clone());
    let mut seen = Vec::new();
    let mut image: Option<RamImage<MemoryStore>> = None;
    let mut begun = parser.begin_section(RamSection::Start, 0);
    in_pieces(data, piece, |have| {
        if let Err(e) = &begun {
            seen.push(e.to_string());
            return Next::Done;
        }
        let before = parser.position();
        match parser.step(have) {
            Ok(Step::NeedMore { at_least }) => Next::Need(at_least),
            Ok(Step::Event { consumed, event }) => {
                seen.push(format!("{event:x?}"));
                match &event {
                    Event::BlockListEnd => {
                        let store = MemoryStore::new(dialect.page_size, MEMORY);
                        let blocks = parser.blocks().clone();
                        image = Some(RamImage::new(blocks, dialect.page_size, store));
                    }
                    Event::Record(record) => {
                        let image = image.as_mut().expect("records come behind the list");
                        seen.extend(image.apply(record).err().map(|e| e.to_string()));
                    }
                    Event::EndOfSection => {
                        begun = parser.begin_section(RamSection::Part, parser.position());
                    }
                    _ => {}
                }
                let gap = match event {
                    Event::Block { gap, .. } => gap,
                    _ => 0,
                };
                let moved = before.saturating_add(consumed as u64).saturating_add(gap);
                assert_eq!(parser.position(), moved);
                let gap = usize::try_from(gap).unwrap_or(usize::MAX);
                Next::Skip(consumed.saturating_add(gap))
            }
            Err(e) => {
                assert_eq!(
                    parser.step(have),
                    Err(e.clone()),
                    "another error the second time"
                );
                seen.push(e.to_string());
                Next::Done
            }
        }
    });
    let mut digests = Vec::new();
    if let Some(image) = &mut image {
        let blocks = image.blocks().clone();
        for (id, block) in blocks.iter() {
            if block.used_length <= MEMORY {
                digests.extend(image.digest(id).map(Vec::from));
            }
        }
    }
    (seen, digests)
}

/// A difference: refused with the page as it was, or applied; and what is encoded is decoded.
///
/// First byte: 0 for a difference, else the size of a page for encoding.
///
/// # Panics
/// If that does not hold.
pub fn xbzrle(data: &[u8]) {
    let (byte, data) = settings(data);
    if byte == 0 {
        let before: Vec<u8> = (0..=255).cycle().take(4096).collect();
        let mut page = before.clone();
        if xbzrle::decode(data, &mut page).is_err() {
            assert!(page == before, "changed by a refused difference");
        }
        return;
    }
    let (old, new) = data.split_at(data.len() / 2);
    let old = old.get(..new.len().min(old.len())).unwrap_or_default();
    let new = new.get(..old.len()).unwrap_or_default();
    let mut delta = Vec::new();
    let limit = usize::from(byte) * 16;
    let mut page = old.to_vec();
    match xbzrle::encode(old, new, &mut delta, limit) {
        Encoding::Encoded(length) => {
            assert!(delta.len() == length && length <= limit);
            assert_eq!(xbzrle::decode(&delta, &mut page), Ok(()));
            assert!(page == new, "other bytes after the difference");
        }
        Encoding::Unchanged => assert!(old == new),
        Encoding::Overflow => {}
    }
}

/// A multifd channel: the same in whole input and in pieces; pages are decompressed.
///
/// First byte: compression and size of the pieces.
///
/// # Panics
/// If that does not hold.
pub fn multifd(data: &[u8]) {
    let (byte, data) = settings(data);
    let method = match byte & 7 {
        0 | 1 => Method::None,
        2 | 3 => Method::Zlib,
        4 | 5 => Method::Zstd,
        6 => Method::Qpl,
        _ => Method::Uadk,
    };
    let piece = 1 + usize::from(byte >> 3) * 97;
    assert_eq!(
        walk_channel(method, data, data.len()),
        walk_channel(method, data, piece)
    );
}

fn walk_channel(method: Method, data: &[u8], piece: usize) -> Vec<String> {
    let page_size = PageSize::KIB4;
    let blocks = one_block(1 << 20);
    let settings = ChannelSettings {
        method,
        ..ChannelSettings::default()
    };
    let mut parser = ChannelParser::new(settings);
    let mut decompressor =
        Decompressor::new(method, page_size).expect("all of these methods are built in");
    let mut pages = Vec::new();
    let mut seen = Vec::new();
    in_pieces(data, piece, |have| match parser.step(have) {
        Ok(Step::NeedMore { at_least }) => Next::Need(at_least),
        Ok(Step::Event { consumed, event }) => {
            seen.push(format!("{event:x?}"));
            if let ChannelEvent::Pages(packet) = event {
                let located = packet.locate(&blocks, page_size);
                pages.resize(packet.normal.len() * page_size.as_usize(), 0);
                let result = decompressor.decompress(packet.payload, &mut pages);
                seen.push(format!("{located:?} {result:?}"));
                if result.is_err() {
                    return Next::Done;
                }
            }
            Next::Took(consumed)
        }
        Err(e) => {
            assert_eq!(
                parser.step(have),
                Err(e.clone()),
                "another error the second time"
            );
            seen.push(e.to_string());
            Next::Done
        }
    });
    seen
}

fn one_block(size: u64) -> BlockTable {
    let mut blocks = BlockTable::new();
    let name = BlockName::new(b"pc.ram").expect("a short name");
    blocks
        .push(RamBlock::new(name, size), PageSize::KIB4)
        .expect("a whole number of pages");
    blocks
}

/// The places of mapped-ram: inside the file and apart, whatever a header says; and received bitmaps.
///
/// Header, be64 used length, be64 length of the file, bitmap.
///
/// # Panics
/// If that does not hold.
pub fn mapped_ram(data: &[u8]) {
    let Some((header, rest)) = data.split_first_chunk::<{ MappedRamHeader::SIZE }>() else {
        return;
    };
    let Some((used, rest)) = rest.split_first_chunk() else {
        return;
    };
    let Some((length, bitmap)) = rest.split_first_chunk() else {
        return;
    };
    let used = u64::from_be_bytes(*used);
    let length = u64::from_be_bytes(*length);
    let floor = data.len() as u64;
    let header = MappedRamHeader::decode(header);
    assert_eq!(MappedRamHeader::decode(&header.encode()), header);
    if let Ok(Step::Event { consumed, event }) = parse_received_bitmap(bitmap, used >> 12) {
        let mut again = Vec::new();
        put_received_bitmap(&event, &mut again);
        assert_eq!(bitmap.get(..consumed), Some(again.as_slice()));
    }
    let Ok(block) = MappedBlock::new(&header, used, PageSize::KIB4, floor, Some(length)) else {
        return;
    };
    assert!(floor <= block.bitmap().start && block.bitmap().end <= length);
    assert!(floor <= block.pages().start && block.pages().end <= length);
    assert_eq!(block.pages().end - block.pages().start, used);
    for order in [WordOrder::Little, WordOrder::Big] {
        let Ok(bitmap) = block.read_bitmap(bitmap, order) else {
            continue;
        };
        let mut bytes = 0;
        for run in block.file_runs(&bitmap, 1 << 20) {
            assert!(run.length > 0 && run.length <= 1 << 20);
            assert!(run.block_offset + run.length <= used.next_multiple_of(4096));
            assert_eq!(run.file_offset, block.pages().start + run.block_offset);
            bytes += run.length;
        }
        assert_eq!(bytes, bitmap.count() * 4096);
    }
}

/// Chunks of dirty bitmaps: the same in whole input and in pieces; written as the same bytes.
///
/// First byte: size of the pieces.
///
/// # Panics
/// If that does not hold.
pub fn dirty_bitmap(data: &[u8]) {
    let (byte, data) = settings(data);
    assert_eq!(
        walk_chunks(data, data.len()),
        walk_chunks(data, 1 + usize::from(byte))
    );
}

fn walk_chunks(data: &[u8], piece: usize) -> Vec<String> {
    let mut parser = ChunkParser::new();
    parser.begin_section(0);
    let mut seen = Vec::new();
    in_pieces(data, piece, |have| match parser.step(have) {
        Ok(Step::NeedMore { at_least }) => Next::Need(at_least),
        Ok(Step::Event { consumed, event }) => {
            if let ChunkEvent::Chunk(chunk) = &event {
                let mut again = Vec::new();
                ChunkWriter::chunk(chunk, &mut again).expect("what was read can be written");
                assert_eq!(have.get(..consumed), Some(again.as_slice()), "{chunk:x?}");
            }
            seen.push(format!("{event:x?}"));
            Next::Took(consumed)
        }
        Err(e) => {
            seen.push(e.to_string());
            Next::Done
        }
    });
    seen
}
