//! A mapped-ram file.

use vmstate_ram::mapped_ram::MappedBlock;
use vmstate_ram::{
    BlockId, Dialect, DirtyBitmap, Event, MemoryStore, PageSize, RamImage, RamParser, RamSection,
    RamWriter, Step, WordOrder,
};

use crate::stream::{Element, Walker};
use crate::vectors::Vector;

#[test]
fn a_mapped_ram_file_gives_the_sources_memory() {
    let vector = Vector::shared("pc-11.1-mapped-ram");
    let bytes = vector.channel("main");
    let mut walker = Walker::new(&bytes);
    let dialect = Dialect {
        mapped_ram: true,
        file_length: Some(bytes.len() as u64),
        ..Dialect::modern()
    };
    let mut parser = RamParser::new(dialect);
    let mut writer = RamWriter::new(PageSize::KIB4, parser.blocks().clone());
    let mut places = Vec::new();
    let mut sections = 0;
    while let Element::Ram(section) = walker.next() {
        sections += 1;
        parser.begin_section(section, walker.at as u64).unwrap();
        loop {
            let Step::Event { consumed, event } = parser.step(walker.rest()).unwrap() else {
                panic!()
            };
            let gap = if let Event::Block { block, gap } = event {
                writer.set_blocks(parser.blocks().clone());
                places.push((block, walker.at + consumed));
                gap
            } else {
                0
            };
            let mut out = Vec::new();
            writer.event(&event, &mut out).unwrap();
            assert_eq!(out, walker.rest()[..consumed]);
            walker.at += consumed + gap as usize;
            assert_eq!(parser.position(), walker.at as u64);
            if event == Event::EndOfSection {
                break;
            }
            assert_eq!(section, RamSection::Start, "{event:?}");
        }
        walker.footer();
    }
    assert!(sections >= 3);

    let blocks = parser.blocks().clone();
    let mut image = RamImage::new(
        blocks.clone(),
        PageSize::KIB4,
        MemoryStore::new(PageSize::KIB4, 64 << 20),
    );
    let range = |range: std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
    for (id, behind_header) in places {
        let block = blocks.get(id).unwrap();
        let header = block.mapped.unwrap();
        let place = MappedBlock::new(
            &header,
            block.used_length,
            PageSize::KIB4,
            behind_header as u64,
            Some(bytes.len() as u64),
        )
        .unwrap();
        let planned =
            MappedBlock::plan(behind_header as u64, block.used_length, PageSize::KIB4).unwrap();
        assert_eq!((header, place.clone()), planned, "our plan is QEMU's");
        let bitmap = place
            .read_bitmap(range(place.bitmap()), WordOrder::Little)
            .unwrap();
        load(&mut image, id, &place, &bitmap, &bytes);
    }
    vector.check_memory(&mut image);
}

fn load(
    image: &mut RamImage,
    id: BlockId,
    place: &MappedBlock,
    bitmap: &DirtyBitmap,
    bytes: &[u8],
) {
    for run in place.file_runs(bitmap, 1 << 20) {
        let content = &bytes[run.file_offset as usize..][..run.length as usize];
        for (index, page) in content.chunks_exact(4096).enumerate() {
            image
                .page(id, run.block_offset + index as u64 * 4096, page)
                .unwrap();
        }
    }
}
