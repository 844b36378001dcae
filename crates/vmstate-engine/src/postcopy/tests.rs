use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use vmstate_ram::{Event, PageSize, RamParser, RamSection, RamWriter, Record, Step};
use vmstate_wire::stream::StreamOffset;

use super::*;
use crate::channel::{ChannelError, PageItem, PageRun, PageSource, SectionReader};
use crate::handlers::HandlerError;

const PAGE: u64 = 4096;

/// A block of 4 KiB pages and one of 16 KiB pages, of which nobody looks at the content.
struct Blocks;

fn blocks() -> Vec<GuestBlock> {
    let mut large = GuestBlock::new(BlockName::new(b"large").unwrap(), 8 * 4 * PAGE);
    large.page_size = 4 * PAGE;
    vec![
        GuestBlock::new(BlockName::new(b"small").unwrap(), 100 * PAGE),
        large,
    ]
}

impl GuestMemory for Blocks {
    fn page_size(&self) -> PageSize {
        PageSize::KIB4
    }

    fn blocks(&self) -> Vec<GuestBlock> {
        blocks()
    }

    fn used_length(&self, block: BlockId) -> u64 {
        let blocks = blocks();
        let block = blocks.get(block.0 as usize);
        block.map_or(0, |block| block.used_length)
    }

    fn is_zero(&self, _: BlockId, _: u64, _: u64) -> bool {
        false
    }

    fn copy_out(&self, _: BlockId, _: u64, _: &mut [u8]) -> Result<(), MemoryError> {
        Ok(())
    }

    fn copy_in(&self, _: BlockId, _: u64, _: &[u8]) -> Result<(), MemoryError> {
        Ok(())
    }

    fn zero(&self, _: BlockId, _: u64, _: u64) -> Result<(), MemoryError> {
        Ok(())
    }
}

/// What was asked of the host.
#[derive(Default)]
struct Host {
    cannot: AtomicBool,
    serves: AtomicBool,
    discarded: Mutex<Vec<(u32, u64, u64)>>,
    /// First byte of each page that was placed.
    placed: Mutex<BTreeMap<(u32, u64), (u64, u8)>>,
    arrived: Mutex<Vec<(u32, u64)>>,
}

impl MissingPages for Host {
    fn prepare(&self) -> Result<(), MemoryError> {
        match self.cannot.load(Ordering::Relaxed) {
            true => Err(MemoryError::Other("no userfaultfd".into())),
            false => Ok(()),
        }
    }

    fn discard(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        lock(&self.discarded).push((block.0, offset, length));
        Ok(())
    }

    fn serve(&self) -> Result<(), MemoryError> {
        self.serves.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn place(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        let what = (data.len() as u64, data[data.len() / 2]);
        let before = lock(&self.placed).insert((block.0, offset), what);
        assert_eq!(before, None, "placed twice");
        Ok(())
    }

    fn place_zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        let before = lock(&self.placed).insert((block.0, offset), (length, 0));
        assert_eq!(before, None, "placed twice");
        Ok(())
    }

    fn arrived(&self, block: BlockId, offset: u64, _: u64) {
        lock(&self.arrived).push((block.0, offset));
    }
}

fn ram() -> (Arc<PostcopyRam>, Arc<Host>) {
    let host = Arc::new(Host::default());
    let ram = PostcopyRam::new(Arc::new(Blocks), host.clone());
    (Arc::new(ram), host)
}

const ADVISE: PostcopyAdvise = PostcopyAdvise {
    page_sizes: 0x1000 | 0x4000,
    target_page_size: 0x1000,
};

fn wire(name: &[u8]) -> WireName {
    WireName::new(name).unwrap()
}

fn range(start: u64, length: u64) -> DiscardRange {
    DiscardRange { start, length }
}

/// All pages have arrived but a few, and the guest may touch them.
fn listening() -> (Arc<PostcopyRam>, Arc<Host>) {
    let (ram, host) = ram();
    ram.advise(Some(ADVISE)).unwrap();
    for (id, block) in (0..).zip(&blocks()) {
        for page in 0..block.used_length / PAGE {
            // The last ones never came.
            if !(id == 0 && page >= 98 || id == 1 && page == 9) {
                ram.precopied(BlockId(id), page * PAGE);
            }
        }
    }
    let small = wire(b"small");
    ram.discard(
        &small,
        &[range(10 * PAGE, 2 * PAGE), range(50 * PAGE, PAGE)],
    )
    .unwrap();
    assert_eq!(
        std::mem::take(&mut *lock(&host.discarded)),
        [(0, 10 * PAGE, 2 * PAGE), (0, 50 * PAGE, PAGE)]
    );
    ram.listen().unwrap();
    (ram, host)
}

#[test]
fn exactly_what_has_arrived_is_there() {
    let (ram, host) = listening();
    assert!(host.serves.load(Ordering::Relaxed));
    // What never came is dropped, too; of large pages, the whole.
    assert_eq!(
        *lock(&host.discarded),
        [
            (0, 10 * PAGE, 2 * PAGE),
            (0, 50 * PAGE, PAGE),
            (0, 98 * PAGE, 2 * PAGE),
            (1, 8 * PAGE, 4 * PAGE)
        ]
    );
    let missing = |block: &[u8], pages, first| MissingBlock {
        block: BlockName::new(block).unwrap(),
        pages,
        first,
    };
    assert_eq!(
        ram.missing(),
        [
            missing(b"small", 5, 10 * PAGE),
            missing(b"large", 4, 8 * PAGE)
        ]
    );
    let received = ram.received(&wire(b"small")).unwrap();
    assert_eq!(received.pages(), 100);
    let absent: Vec<_> = (0..100).filter(|page| !received.contains(*page)).collect();
    assert_eq!(absent, [10, 11, 50, 98, 99]);
}

#[test]
fn a_page_is_asked_for_once() {
    let (ram, host) = listening();
    let ask = |block, offset, length| {
        FaultAnswer::Ask(PageRequest {
            block: BlockId(block),
            offset,
            length,
        })
    };
    let fault = |block, offset| ram.fault(BlockId(block), offset);
    assert_eq!(fault(0, 10 * PAGE + 5), ask(0, 10 * PAGE, 4096));
    assert_eq!(fault(0, 10 * PAGE), FaultAnswer::Asked);
    assert_eq!(fault(1, 10 * PAGE), ask(1, 8 * PAGE, 16384));
    assert_eq!(fault(1, 11 * PAGE), FaultAnswer::Asked);
    assert_eq!(fault(0, 0), FaultAnswer::Arrived);
    for (block, offset) in [(0, 100 * PAGE), (0, u64::MAX), (2, 0)] {
        assert_eq!(fault(block, offset), FaultAnswer::Outside);
    }
    let open = [ask(0, 10 * PAGE, 4096), ask(1, 8 * PAGE, 16384)];
    let outstanding = || ram.outstanding().into_iter().map(FaultAnswer::Ask);
    assert_eq!(outstanding().collect::<Vec<_>>(), open);
    ram.place(BlockId(0), 10 * PAGE, PAGE, Some(&[7; 4096]))
        .unwrap();
    assert_eq!(fault(0, 10 * PAGE), FaultAnswer::Arrived);
    assert_eq!(outstanding().collect::<Vec<_>>(), open[1..]);
    // It comes again, with something else in it.
    ram.place(BlockId(0), 10 * PAGE, PAGE, Some(&[8; 4096]))
        .unwrap();
    ram.place(BlockId(0), 11 * PAGE, PAGE, None).unwrap();
    assert_eq!(
        ram.counts(),
        PostcopyPages {
            requested: 1,
            background: 1,
            repeated: 1
        }
    );
    assert_eq!(
        lock(&host.placed).iter().collect::<Vec<_>>(),
        [(&(0, 10 * PAGE), &(PAGE, 7)), (&(0, 11 * PAGE), &(PAGE, 0))]
    );
    assert_eq!(*lock(&host.arrived), [(0, 10 * PAGE), (0, 11 * PAGE)]);
}

#[test]
fn what_was_promised_must_come() {
    let (ram, _) = listening();
    let unfinished = |pages, first| {
        let error = ram.complete().unwrap_err().to_string();
        let expected = format!(
            "the source has ended without {pages} pages of RAM block small, the first at {first:#x}"
        );
        assert_eq!(error, expected);
    };
    unfinished(3, 10 * PAGE);
    for page in [10, 50, 11] {
        ram.place(BlockId(0), page * PAGE, PAGE, None).unwrap();
    }
    // What never came and was never wanted may stay away.
    ram.complete().unwrap();
    assert!(matches!(
        ram.fault(BlockId(0), 99 * PAGE),
        FaultAnswer::Ask(_)
    ));
    unfinished(1, 99 * PAGE);
    ram.place(BlockId(0), 99 * PAGE, PAGE, None).unwrap();
    ram.complete().unwrap();
}

#[test]
fn one_thing_after_the_other() {
    let (ram, host) = ram();
    let small = wire(b"small");
    let text = |result: Result<(), PostcopyError>| result.unwrap_err().to_string();
    let before = "POSTCOPY_LISTEN before POSTCOPY_ADVISE";
    assert_eq!(text(ram.listen()), before);
    assert!(ram.discard(&small, &[range(0, PAGE)]).is_err() && ram.run().is_err());
    assert!(text(ram.advise(None)).contains("dirty bitmaps"));
    for (page_sizes, target_page_size) in [(0x1000, 0x1000), (0x5000, 0x2000), (0, 0)] {
        let other = PostcopyAdvise {
            page_sizes,
            target_page_size,
        };
        assert!(text(ram.advise(Some(other))).contains("0x5000"));
    }
    host.cannot.store(true, Ordering::Relaxed);
    assert!(text(ram.advise(Some(ADVISE))).contains("no userfaultfd"));
    assert!(!ram.is_advised());
    host.cannot.store(false, Ordering::Relaxed);
    ram.advise(Some(ADVISE)).unwrap();
    assert!(ram.advise(Some(ADVISE)).is_err() && ram.run().is_err());
    for (start, length) in [
        (0, 0),
        (1, PAGE),
        (0, PAGE - 1),
        (99 * PAGE, 2 * PAGE),
        (u64::MAX - PAGE + 1, PAGE),
        (PAGE, u64::MAX),
    ] {
        let refused = ram.discard(&small, &[range(start, length)]);
        assert!(
            matches!(refused, Err(PostcopyError::Range { .. })),
            "{start} {length}"
        );
    }
    assert!(
        ram.discard(&wire(b"large"), &[range(PAGE, 4 * PAGE)])
            .is_err()
    );
    assert_eq!(
        text(ram.discard(&wire(b"other"), &[range(0, PAGE)])),
        "unknown RAM block other"
    );
    assert!(ram.received(&wire(b"other")).is_err());
    assert!(lock(&host.discarded).is_empty());
    ram.listen().unwrap();
    assert!(ram.discard(&small, &[range(0, PAGE)]).is_err() && ram.listen().is_err());
    ram.run().unwrap();
    assert!(ram.run().is_err() && ram.is_listening());
}

/// Feeds records to a preempt channel's parts, as they would come over the wire.
fn records(ram: &Arc<PostcopyRam>, records: &[Record<'_>]) -> Result<(), HandlerError> {
    let page_size = PageSize::KIB4;
    let mut table = vmstate_ram::BlockTable::new();
    for block in blocks() {
        let block = vmstate_ram::RamBlock::new(block.idstr, block.used_length);
        table.push(block, page_size).unwrap();
    }
    let mut writer = RamWriter::new(page_size, Arc::new(table));
    let mut setup = Vec::new();
    writer.setup(&mut setup);
    writer.end_of_section(&mut setup);
    let mut parser = RamParser::new(vmstate_ram::Dialect::modern());
    parser.begin_section(RamSection::Start, 0).unwrap();
    let mut input = &*setup;
    while let Step::Event { consumed, event } = parser.step(input).unwrap() {
        input = &input[consumed..];
        if event == Event::BlockListEnd {
            break;
        }
    }
    let mut bytes = Vec::new();
    for record in records {
        writer.record(record, &mut bytes).unwrap();
    }
    let mut parser = parser.preempt_channel().unwrap();
    let mut placer = Placer::new(Arc::clone(ram), [BlockId(0), BlockId(1)].into());
    let taken = placer.records(&mut parser, &bytes)?;
    assert_eq!(taken, bytes.len());
    Ok(())
}

fn small(n: u64) -> vmstate_ram::PageRef {
    vmstate_ram::PageRef {
        block: BlockId(0),
        offset: n * PAGE,
        named: true,
    }
}

fn small_page(n: u64) -> Record<'static> {
    Record::Page {
        page: small(n),
        data: &[9; 4096],
    }
}

#[test]
fn neighbours_are_placed_together_and_wanted_pages_first() {
    let (ram, host) = listening();
    let fill = 0;
    let zero = |n| Record::Zero {
        page: small(n),
        fill,
    };
    let wanted = ram.fault(BlockId(0), 99 * PAGE);
    assert!(matches!(wanted, FaultAnswer::Ask(_)));
    let all = [10, 11, 98, 99].map(small_page);
    let all: Vec<_> = all.into_iter().chain([zero(50)]).collect();
    records(&ram, &all).unwrap();
    let order = [99, 10, 98, 50].map(|page| (0, page * PAGE));
    assert_eq!(*lock(&host.arrived), order);
    let placed = [
        ((0, 10 * PAGE), (2 * PAGE, 9)),
        ((0, 50 * PAGE), (PAGE, 0)),
        ((0, 98 * PAGE), (PAGE, 9)),
        ((0, 99 * PAGE), (PAGE, 9)),
    ];
    assert_eq!(*lock(&host.placed), BTreeMap::from(placed));
    assert_eq!(ram.missing().len(), 1);
    let mut counts = PostcopyPages {
        requested: 1,
        background: 4,
        repeated: 0,
    };
    assert_eq!(ram.counts(), counts);
    // Once more, and the host sees nothing of it.
    records(&ram, &all).unwrap();
    counts.repeated = 5;
    assert_eq!(ram.counts(), counts);
}

#[test]
fn what_comes_twice_at_once_is_placed_once() {
    let (ram, host) = listening();
    let all = [11, 11, 10, 11, 98, 98, 99].map(small_page);
    records(&ram, &all).unwrap();
    let order = [11, 10, 98, 99].map(|page| (0, page * PAGE));
    assert_eq!(*lock(&host.arrived), order);
    assert_eq!((ram.counts().background, ram.counts().repeated), (4, 3));
}

#[test]
fn large_pages_are_placed_as_a_whole() {
    let page = |n: u64| vmstate_ram::PageRef {
        block: BlockId(1),
        offset: n * PAGE,
        named: true,
    };
    let full = |n: u64| Record::Page {
        page: page(n),
        data: &[9; 4096],
    };
    let zero = |n: u64| Record::Zero {
        page: page(n),
        fill: 0,
    };
    let placed = |parts: &[Record<'_>]| {
        let (ram, host) = listening();
        records(&ram, parts).map(|()| lock(&host.placed).clone())
    };
    let whole = |kind| BTreeMap::from([((1, 8 * PAGE), (4 * PAGE, kind))]);
    assert_eq!(
        placed(&[zero(8), zero(9), zero(10), zero(11)]).unwrap(),
        whole(0)
    );
    assert_eq!(
        placed(&[zero(8), zero(9), full(10), zero(11)]).unwrap(),
        whole(9)
    );
    assert_eq!(
        placed(&[full(8), full(9), zero(10), zero(11)]).unwrap(),
        whole(0)
    );
    // Half of it is nothing.
    assert_eq!(placed(&[full(8), full(9)]).unwrap(), BTreeMap::new());
    // A page that is there stays.
    assert_eq!(
        placed(&[full(0), full(1), full(2), full(3)]).unwrap(),
        BTreeMap::new()
    );
    for mixture in [
        &[full(9)][..],
        &[full(8), full(10)],
        &[full(8), full(8)],
        &[full(8), full(9), full(4)],
    ] {
        let error = placed(mixture).unwrap_err().to_string();
        assert!(error.contains("between parts of another page"), "{error}");
    }
}

/// Pages in a form of the format's own, whose content is 9.
struct Framed(std::vec::IntoIter<PageItem>);

impl PageSource for Framed {
    fn next(&mut self) -> Result<Option<PageItem>, HandlerError> {
        Ok(self.0.next())
    }

    fn content(&mut self, out: &mut [u8]) -> Result<(), ChannelError> {
        out.fill(9);
        Ok(())
    }
}

impl SectionReader for Framed {
    fn fill(&mut self, _: usize) -> Result<&[u8], ChannelError> {
        Ok(&[])
    }

    fn consume(&mut self, _: usize) {}

    fn offset(&self) -> StreamOffset {
        StreamOffset(0)
    }

    fn read_into_guest(&mut self, _: BlockId, _: u64, _: u64) -> Result<(), ChannelError> {
        panic!("a page must be there as a whole before anybody sees it");
    }

    fn ram(&mut self) -> Option<&mut dyn PageSource> {
        Some(self)
    }
}

/// Runs a preempt channel in such a form.
fn framed(ram: &Arc<PostcopyRam>, items: Vec<PageItem>) -> Result<bool, HandlerError> {
    let mut table = vmstate_ram::BlockTable::new();
    for block in blocks() {
        let block = vmstate_ram::RamBlock::new(block.idstr, block.used_length);
        table.push(block, PageSize::KIB4).unwrap();
    }
    ram.set_preempt(PageForm::Framed(table), &[BlockId(0), BlockId(1)]);
    let mut channel = ram.preempt_channel().unwrap();
    channel.run(&mut Framed(items.into_iter()))
}

fn run(block: u32, first: u64, count: u64) -> PageRun {
    let block = BlockId(block);
    PageRun {
        block,
        first,
        count,
    }
}

#[test]
fn pages_in_another_form_are_placed_alike() {
    let (ram, host) = listening();
    assert!(matches!(
        ram.fault(BlockId(0), 99 * PAGE),
        FaultAnswer::Ask(_)
    ));
    let items = vec![
        PageItem::Raw(run(0, 97, 3)),
        PageItem::Fill(run(0, 10, 2), 0),
        PageItem::Fill(run(0, 50, 1), 3),
        // One page of the memory behind the block, of several kinds.
        PageItem::Fill(run(1, 8, 1), 0),
        PageItem::Raw(run(1, 9, 2)),
        PageItem::Fill(run(1, 11, 1), 0),
    ];
    assert!(!framed(&ram, items).unwrap());
    let placed = [
        ((0, 10 * PAGE), (2 * PAGE, 0)),
        ((0, 50 * PAGE), (PAGE, 3)),
        ((0, 98 * PAGE), (PAGE, 9)),
        ((0, 99 * PAGE), (PAGE, 9)),
        ((1, 8 * PAGE), (4 * PAGE, 9)),
    ];
    assert_eq!(*lock(&host.placed), BTreeMap::from(placed));
    assert_eq!(lock(&host.arrived)[0], (0, 99 * PAGE), "it was asked for");
    assert!(ram.missing().is_empty());
    // What is there stays.
    framed(&ram, vec![PageItem::Raw(run(0, 97, 3))]).unwrap();
    assert_eq!(ram.counts().repeated, 4);
}

#[test]
fn pages_in_another_form_are_of_the_blocks() {
    for (item, text) in [
        (PageItem::Raw(run(0, 99, 2)), "small"),
        (PageItem::Raw(run(2, 0, 1)), "2"),
        (PageItem::Fill(run(0, 1 << 60, 1), 0), "beyond all memory"),
        (PageItem::Fill(run(0, 0, u64::MAX), 0), "beyond all memory"),
        (
            PageItem::Blocks {
                blocks: vmstate_ram::BlockTable::new(),
                page_size: PageSize::KIB4,
            },
            "RAM blocks in postcopy",
        ),
    ] {
        let (ram, host) = listening();
        let error = framed(&ram, vec![item]).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert!(lock(&host.placed).is_empty());
    }
}
