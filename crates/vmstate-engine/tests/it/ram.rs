//! The RAM handler, byte by byte.

use std::sync::Arc;

use vmstate_engine::{
    Bql, Capabilities, Capability, CompleteCx, HandlerError, IterateCx, LoadCx, LoadSetupCx,
    Pending, Progress, RamHandler, SaveVmHandlers, Settings, SetupCx, ZeroPageDetection,
};
use vmstate_wire::stream::VersionId;

use crate::support::{Bytes, PAGE, Recorder, TestLog, TestMemory};

struct Source {
    ram: RamHandler,
    out: Recorder,
    settings: Settings,
}

impl Source {
    fn new(memory: Arc<TestMemory>) -> Self {
        Self {
            ram: RamHandler::new(memory.clone(), Box::new(TestLog(memory.clone()))),
            out: Recorder::new(memory),
            settings: Settings::default(),
        }
    }

    fn setup(&mut self) -> Result<Vec<u8>, HandlerError> {
        self.ram.save_setup(&mut SetupCx {
            bql: &Bql::holding(()),
            out: &mut self.out,
            settings: &self.settings,
        })?;
        Ok(self.out.take())
    }

    fn iterate(&mut self) -> (Vec<u8>, Progress) {
        let progress = self.ram.save_live_iterate(&mut IterateCx {
            out: &mut self.out,
            settings: &self.settings,
        });
        (self.out.take(), progress.unwrap())
    }

    fn complete(&mut self) -> Vec<u8> {
        self.ram
            .save_live_complete_precopy(&mut CompleteCx {
                bql: &Bql::holding(()),
                out: &mut self.out,
                settings: &self.settings,
            })
            .unwrap();
        self.out.take()
    }

    fn estimate(&mut self) -> u64 {
        let mut pending = Pending::default();
        self.ram.state_pending_estimate(&mut pending);
        pending.must_precopy
    }

    fn exact(&mut self) -> Result<Pending, HandlerError> {
        let mut pending = Pending::default();
        self.ram.state_pending_exact(&mut pending)?;
        Ok(pending)
    }
}

fn memory() -> Arc<TestMemory> {
    TestMemory::new(&[("a", 3), ("b", 2)])
}

/// Loads payloads into memory of its own.
struct Sink {
    memory: Arc<TestMemory>,
    ram: RamHandler,
    settings: Settings,
}

impl Sink {
    fn new(memory: Arc<TestMemory>) -> Self {
        let mut sink = Self {
            ram: RamHandler::new(memory.clone(), Box::new(TestLog(memory.clone()))),
            memory,
            settings: Settings::default(),
        };
        sink.setup();
        sink
    }

    fn setup(&mut self) {
        let bql = Bql::holding(());
        self.ram
            .load_setup(&mut LoadSetupCx {
                bql: Some(&bql),
                settings: &self.settings,
                postcopy: None,
            })
            .unwrap();
    }

    fn load(&mut self, payload: &[u8], piece: usize) -> Result<usize, HandlerError> {
        let mut input = Bytes::new(self.memory.clone(), payload, piece);
        let mut approvals = 0;
        let mut cx = LoadCx::new(None, &mut input, &self.settings, &mut approvals);
        self.ram.load_state(&mut cx, VersionId(4))?;
        Ok(input.position)
    }
}

#[test]
fn the_bytes_of_a_small_machine() {
    let memory = memory();
    memory.fill(0, 1, 7);
    memory.fill(0, 2, 8);
    memory.fill(1, 1, 9);
    let mut source = Source::new(memory);
    assert_eq!(
        source.setup().unwrap(),
        *b"\0\0\0\0\0\0\x50\x04\x01a\0\0\0\0\0\0\x30\0\x01b\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\0\x10"
    );
    let (part, progress) = source.iterate();
    let expected = [
        &b"\0\0\0\0\0\0\0\x02\x01a\0"[..],
        b"\0\0\0\0\0\0\x10\x28",
        &[7; 4096],
        b"\0\0\0\0\0\0\x20\x28",
        &[8; 4096],
        b"\0\0\0\0\0\0\0\x02\x01b\0",
        b"\0\0\0\0\0\0\x10\x28",
        &[9; 4096],
        b"\0\0\0\0\0\0\0\x10",
    ]
    .concat();
    assert_eq!((part == expected, progress), (true, Progress::Finished));
    // Nothing left: a payload all the same.
    assert_eq!(
        source.iterate(),
        (b"\0\0\0\0\0\0\0\x10".to_vec(), Progress::Finished)
    );
    assert_eq!(source.complete(), b"\0\0\0\0\0\0\0\x10");
}

#[test]
fn only_what_is_dirty_is_sent_again() {
    let memory = memory();
    let mut source = Source::new(memory.clone());
    source.setup().unwrap();
    assert_eq!(source.estimate(), 5 * PAGE);
    source.iterate();
    assert_eq!(source.estimate(), 0);
    memory.write(0, 2 * PAGE + 5, b"x");
    memory.write(1, PAGE - 1, b"yz");
    assert_eq!(source.estimate(), 0);
    let pending = source.exact().unwrap();
    assert_eq!(
        (pending.must_precopy, pending.dirtied),
        (3 * PAGE, 3 * PAGE)
    );
    // Written again before it was sent: dirty once.
    memory.write(1, 0, b"w");
    let pending = source.exact().unwrap();
    assert_eq!((pending.must_precopy, pending.dirtied), (3 * PAGE, 0));
    let (part, _) = source.iterate();
    assert_eq!(part.len(), 3 * (8 + 4096) + 2 + 2 + 8);
    // The last block was b, so a is named again.
    assert_eq!(part[..10], *b"\0\0\0\0\0\0\x20\x08\x01a");
    // What is written after the last look comes with the end.
    memory.write(0, 0, b"late");
    let end = source.complete();
    assert_eq!(end.len(), 10 + 4096 + 8);
    assert_eq!(end[10..14], *b"late");
    let totals = source.ram.counters().totals();
    assert_eq!((totals.normal, totals.duplicate), (4, 5));
    assert_eq!(
        (totals.total, totals.remaining, totals.page_size),
        (5 * PAGE, 0, PAGE)
    );
    assert_eq!(totals.downtime_bytes, 8 + 2 + 4096 + 8);
}

#[test]
fn the_rate_limit_ends_a_part_and_the_next_goes_on_there() {
    let memory = TestMemory::new(&[("a", 200), ("b", 10)]);
    for page in 0..200 {
        memory.fill(0, page, 1);
    }
    let mut source = Source::new(memory);
    source.setup().unwrap();
    let mut sizes = Vec::new();
    source.out.limit = 1;
    loop {
        let (part, progress) = source.iterate();
        sizes.push(part.len());
        if progress == Progress::Finished {
            break;
        }
    }
    let pages = |n: usize, named: usize| n * 4104 + named + 8;
    assert_eq!(
        sizes,
        // Words of 64 pages.
        [
            pages(64, 2),
            pages(64, 0),
            pages(64, 0),
            pages(8, 0),
            10 * 9 + 2 + 8
        ]
    );
}

#[test]
fn small_records_do_not_pile_up() {
    let mut source = Source::new(TestMemory::new(&[("a", 64 * 80)]));
    source.setup().unwrap();
    source.out.limit = 20_000;
    let (part, progress) = source.iterate();
    assert_eq!(progress, Progress::More);
    assert!(part.len() < 40_000, "{}", part.len());
}

#[test]
fn zero_pages_are_looked_for_only_if_wanted() {
    let mut source = Source::new(memory());
    source.settings.parameters.zero_page_detection = ZeroPageDetection::None;
    source.setup().unwrap();
    let (part, _) = source.iterate();
    assert_eq!(part.len(), 5 * (8 + 4096) + 2 * 2 + 8);
    assert_eq!(source.ram.counters().totals().duplicate, 0);
}

#[test]
fn a_block_that_changes_its_size_ends_the_migration() {
    let memory = memory();
    let mut source = Source::new(memory.clone());
    source.setup().unwrap();
    source.iterate();
    memory.claim(1, PAGE);
    let error = source.exact().unwrap_err();
    assert_eq!(
        error.to_string(),
        "RAM block b changed its size during the migration, from 0x2000 to 0x1000"
    );
    memory.claim(1, 2 * PAGE);
    source.exact().unwrap();
}

#[test]
fn capabilities_that_would_change_the_bytes_are_refused() {
    for one in [Capability::Multifd, Capability::MappedRam] {
        let mut source = Source::new(memory());
        source.settings.capabilities = Capabilities::of(&[one]);
        let error = source.setup().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("RAM cannot be sent with capability {one}")
        );
    }
}

#[test]
fn handlers_without_setup_refuse_and_clean_up() {
    let mut source = Source::new(memory());
    assert!(source.exact().is_err());
    assert_eq!(source.estimate(), 0);
    source.ram.save_cleanup(&Bql::holding(()));
    source.ram.load_cleanup(&Bql::holding(()));
    let mut sink = Sink::new(memory());
    sink.ram.load_cleanup(&Bql::holding(()));
    assert_eq!(
        sink.load(&[], 1).unwrap_err().to_string(),
        "RAM has not been set up for loading"
    );
    let mut cx_input = Bytes::new(sink.memory.clone(), &[], 1);
    let (settings, mut approvals) = (Settings::default(), 0);
    let mut cx = LoadCx::new(None, &mut cx_input, &settings, &mut approvals);
    let error = sink.ram.load_state(&mut cx, VersionId(3)).unwrap_err();
    assert_eq!(error.to_string(), "RAM of version 3, only 4 is known");
}

#[test]
fn ignored_blocks_are_listed_and_stay() {
    let shared = |address| {
        let mut memory = TestMemory::build(&[("a", 1), ("b", 2)]);
        memory.blocks[1].0.ignored = true;
        memory.blocks[1].0.address = address;
        Arc::new(memory)
    };
    let settings = Settings {
        capabilities: Capabilities::of(&[Capability::XIgnoreShared]),
        ..Settings::default()
    };
    let memory = shared(0x8000_0000);
    let mut source = Source::new(memory.clone());
    source.settings = settings.clone();
    let start = source.setup().unwrap();
    assert_eq!(source.estimate(), PAGE);
    memory.fill(1, 0, 1);
    assert_eq!(source.exact().unwrap().must_precopy, PAGE);
    let (part, _) = source.iterate();
    assert_eq!(part.len(), 8 + 2 + 1 + 8);
    for (address, good) in [(0x8000_0000, true), (0x9000_0000, false)] {
        let mut sink = Sink::new(shared(address));
        sink.settings = settings.clone();
        sink.setup();
        assert_eq!(sink.load(&start, 9).is_ok(), good);
    }
    let mut sink = Sink::new(shared(0x8000_0000));
    sink.settings = settings;
    sink.setup();
    sink.load(&start, 9).unwrap();
    let record = b"\0\0\0\0\0\0\0\x02\x01b\0\0\0\0\0\0\0\0\x10";
    assert!(sink.load(record, 9).is_err());
}

#[test]
fn what_is_sent_arrives_however_it_is_cut() {
    let memory = TestMemory::new(&[("a", 70), ("b", 2)]);
    for page in (0..70).step_by(3) {
        memory.fill(0, page, page as u8 + 1);
    }
    memory.write(1, PAGE, b"b");
    let mut source = Source::new(memory.clone());
    let start = source.setup().unwrap();
    let (part, _) = source.iterate();
    memory.fill(0, 5, 0xff);
    memory.fill(0, 3, 0);
    let end = source.complete();
    for piece in [1, 7, 100, 4096, 5000, 1 << 20] {
        let other = TestMemory::new(&[("b", 2), ("a", 70)]);
        other.fill(1, 69, 0x55);
        other.fill(1, 1, 0x55);
        let mut sink = Sink::new(other.clone());
        for payload in [&start, &part, &end] {
            // A footer follows, which stays.
            let with_footer = [payload, &b"\x7e\0\0\0\x02"[..]].concat();
            assert_eq!(sink.load(&with_footer, piece).unwrap(), payload.len());
        }
        let (mut sent, got) = (memory.content(), other.content());
        sent.reverse();
        assert!(sent == got, "{piece}");
    }
}

#[test]
fn a_payload_that_ends_early_is_refused_wherever_it_ends() {
    let memory = memory();
    memory.fill(0, 0, 1);
    let mut source = Source::new(memory);
    let start = source.setup().unwrap();
    let (part, _) = source.iterate();
    for cut in 0..start.len() {
        assert!(Sink::new(self::memory()).load(&start[..cut], 3).is_err());
    }
    for cut in (0..part.len()).step_by(13) {
        let mut sink = Sink::new(self::memory());
        sink.load(&start, 1 << 20).unwrap();
        let error = sink.load(&part[..cut], 100).unwrap_err();
        assert!(error.channel().is_some(), "{error}");
    }
}

#[test]
fn what_a_destination_refuses() {
    let start = |text: &[u8]| [text, &b"\0\0\0\0\0\0\0\x10"[..]].concat();
    let good = b"\0\0\0\0\0\0\x50\x04\x01a\0\0\0\0\0\0\x30\0\x01b\0\0\0\0\0\0\x20\0";
    let check = |start: &[u8], part: Option<&[u8]>, expected: &str| {
        let mut sink = Sink::new(memory());
        let mut result = sink.load(start, 1 << 20);
        if let Some(part) = part {
            result.unwrap();
            result = sink.load(part, 1 << 20);
        }
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        &start(b"\0\0\0\0\0\0\x10\x04\x01c\0\0\0\0\0\0\x10\0"),
        None,
        "unknown RAM block c, this machine has a, b",
    );
    check(
        &start(b"\0\0\0\0\0\0\x20\x04\x01a\0\0\0\0\0\0\x20\0"),
        None,
        "size mismatch of RAM block a: 0x2000 at the source, 0x3000 here",
    );
    check(
        &start(b"\0\0\0\0\0\0\x60\x04\x01a\0\0\0\0\0\0\x30\0\x01a\0\0\0\0\0\0\x30\0"),
        None,
        "a",
    );
    let start = start(good);
    check(&start, Some(b"\0\0\0\0\0\0\x30\x02\x01a\0"), "0x3000");
    check(&start, Some(b"\0\0\0\0\0\0\0\x22\0"), "CONTINUE");
    check(&start, Some(b"\0\0\0\0\0\0\0\x02\x01z\0"), "z");
    check(&start, Some(b"\0\0\0\0\0\0\0\x02\x01a\x01"), "0x01");
    check(&start, Some(b"\0\0\0\0\0\0\x50\x04\x01a"), "MEM_SIZE");
    check(&start, Some(b"\0\0\0\0\0\0\x01\0\0\0\0\0"), "");
}

#[test]
fn a_block_that_can_be_resized_follows_the_source() {
    let mut memory = TestMemory::build(&[("a", 3)]);
    memory.resizable = true;
    let memory = Arc::new(memory);
    let mut sink = Sink::new(memory.clone());
    let start = b"\0\0\0\0\0\0\x20\x04\x01a\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\0\x10";
    sink.load(start, 1 << 20).unwrap();
    assert_eq!(
        vmstate_engine::GuestMemory::used_length(&*memory, vmstate_ram::BlockId(0)),
        2 * PAGE
    );
}

#[test]
fn deltas_are_applied() {
    let memory = memory();
    memory.fill(0, 0, 5);
    let mut sink = Sink::new(memory.clone());
    sink.load(
        b"\0\0\0\0\0\0\x50\x04\x01a\0\0\0\0\0\0\x30\0\x01b\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\0\x10",
        9,
    )
    .unwrap();
    // Two bytes stay, two change.
    let record = b"\0\0\0\0\0\0\0\x40\x01a\x01\0\x04\x02\x02xy\0\0\0\0\0\0\0\x10";
    sink.load(record, 9).unwrap();
    assert_eq!(memory.content()[0][..5], *b"\x05\x05xy\x05");
    let bad = b"\0\0\0\0\0\0\0\x40\x01a\x01\0\x02\x02\0\0\0\0\0\0\0\0\x10";
    assert!(
        sink.load(bad, 9)
            .unwrap_err()
            .to_string()
            .starts_with("page delta: ")
    );
}
