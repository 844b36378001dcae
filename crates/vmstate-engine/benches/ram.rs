//! What the RAM handler costs by itself: memory and channel do nothing here.
//!
//! - `bulk`: every page once, per page; pages of data and pages of zeros.
//! - `round`: 4096 dirty pages, scattered over guests of 1 to 64 GiB: a look at the log, then sending. Should be flat.
//! - `load`: records that come in pieces of 256 KiB, into memory that drops them.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "benches fail by panicking, and run on 64-bit hosts"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use vmstate_engine::{
    Bql, ChannelError, DirtyLog, DirtySink, GuestBlock, GuestMemory, IterateCx, LoadCx,
    LoadSetupCx, MemoryError, Pending, RamHandler, SaveVmHandlers, SectionReader, SectionWriter,
    Settings, SetupCx,
};
use vmstate_ram::{BlockId, BlockName, PageSize};
use vmstate_wire::stream::{StreamOffset, VersionId};

const PAGE: u64 = 4096;
const GIB: u64 = 1 << 30;

/// Memory of any size that holds nothing.
struct Nothing {
    length: u64,
    zero: bool,
}

impl GuestMemory for Nothing {
    fn page_size(&self) -> PageSize {
        PageSize::KIB4
    }

    fn blocks(&self) -> Vec<GuestBlock> {
        vec![GuestBlock::new(
            BlockName::new(b"ram").unwrap(),
            self.length,
        )]
    }

    fn used_length(&self, _block: BlockId) -> u64 {
        self.length
    }

    fn is_zero(&self, _block: BlockId, _offset: u64, _length: u64) -> bool {
        self.zero
    }

    fn copy_out(&self, _block: BlockId, _offset: u64, _out: &mut [u8]) -> Result<(), MemoryError> {
        Ok(())
    }

    fn copy_in(&self, _block: BlockId, _offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        black_box(data);
        Ok(())
    }

    fn zero(&self, _block: BlockId, _offset: u64, _length: u64) -> Result<(), MemoryError> {
        Ok(())
    }
}

/// A log that always reports the same pages, evenly spread.
struct Scattered {
    pages: u64,
    dirty: u64,
}

impl DirtyLog for Scattered {
    fn start(&mut self) -> Result<(), MemoryError> {
        Ok(())
    }

    fn sync(&mut self, dirty: &mut DirtySink<'_>) -> Result<(), MemoryError> {
        let Some(apart) = self.pages.checked_div(self.dirty) else {
            return Ok(());
        };
        for page in (0..self.pages).step_by(apart as usize) {
            dirty.range(BlockId(0), page, 1);
        }
        Ok(())
    }

    fn stop(&mut self) {}
}

/// A channel that counts.
#[derive(Default)]
struct Count(u64);

impl SectionWriter for Count {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        black_box(bytes);
        self.0 += bytes.len() as u64;
        Ok(())
    }

    fn pages(&mut self, _block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        black_box(offset);
        self.0 += length;
        Ok(())
    }

    fn rate_exceeded(&self) -> bool {
        false
    }

    fn position(&self) -> StreamOffset {
        StreamOffset(self.0)
    }
}

fn source(length: u64, zero: bool, dirty: u64) -> RamHandler {
    let log = Scattered {
        pages: length / PAGE,
        dirty,
    };
    let mut ram = RamHandler::new(Arc::new(Nothing { length, zero }), Box::new(log));
    ram.save_setup(&mut SetupCx {
        bql: &Bql::holding(()),
        out: &mut Count::default(),
        settings: &Settings::default(),
    })
    .unwrap();
    ram
}

fn iterate(ram: &mut RamHandler) -> u64 {
    let mut out = Count::default();
    ram.save_live_iterate(&mut IterateCx {
        out: &mut out,
        settings: &Settings::default(),
    })
    .unwrap();
    out.0
}

fn bulk(c: &mut Criterion) {
    let mut group = c.benchmark_group("bulk");
    group.throughput(Throughput::Elements(GIB / PAGE));
    group.sample_size(20);
    for (name, zero) in [("data", false), ("zeros", true)] {
        group.bench_function(name, |b| {
            b.iter_batched_ref(|| source(GIB, zero, 0), iterate, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn round(c: &mut Criterion) {
    let mut group = c.benchmark_group("round");
    group.throughput(Throughput::Elements(4096));
    for gib in [1, 4, 16, 64] {
        let mut ram = source(gib * GIB, false, 4096);
        iterate(&mut ram);
        group.bench_function(format!("{gib} GiB"), |b| {
            b.iter(|| {
                let mut pending = Pending::default();
                ram.state_pending_exact(&mut pending).unwrap();
                assert_eq!(pending.dirtied, 4096 * PAGE);
                iterate(&mut ram)
            });
        });
    }
    group.finish();
}

/// Records that are all there.
struct Records<'a> {
    bytes: &'a [u8],
    position: usize,
    shown: usize,
}

impl SectionReader for Records<'_> {
    fn fill(&mut self, at_least: usize) -> Result<&[u8], ChannelError> {
        if self.shown < self.position + at_least || self.shown == self.position {
            self.shown = (self.position + at_least.max(256 << 10)).min(self.bytes.len());
        }
        Ok(&self.bytes[self.position..self.shown])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }

    fn offset(&self) -> StreamOffset {
        StreamOffset(self.position as u64)
    }

    fn read_into_guest(&mut self, _: BlockId, _: u64, length: u64) -> Result<(), ChannelError> {
        self.position += length as usize;
        self.shown = self.shown.max(self.position);
        Ok(())
    }
}

fn load(c: &mut Criterion) {
    let pages = 16 << 10;
    let length = pages * PAGE;
    let start = [
        &(length | 4).to_be_bytes()[..],
        b"\x03ram",
        &length.to_be_bytes(),
        &0x10_u64.to_be_bytes(),
    ]
    .concat();
    let mut part = Vec::new();
    for page in 0..pages {
        let flags = if page == 0 { 0x08 } else { 0x28 };
        part.extend_from_slice(&((page * PAGE) | flags).to_be_bytes());
        part.extend_from_slice(if page == 0 { b"\x03ram" } else { b"" });
        part.resize(part.len() + PAGE as usize, 1);
    }
    part.extend_from_slice(&0x10_u64.to_be_bytes());

    let settings = Settings::default();
    let memory = Nothing {
        length,
        zero: false,
    };
    let log = Scattered { pages, dirty: 0 };
    let mut ram = RamHandler::new(Arc::new(memory), Box::new(log));
    let bql = Bql::holding(());
    ram.load_setup(&mut LoadSetupCx {
        bql: Some(&bql),
        settings: &settings,
        postcopy: None,
    })
    .unwrap();
    let mut take = |bytes: &[u8]| {
        let mut input = Records {
            bytes,
            position: 0,
            shown: 0,
        };
        let mut approvals = 0;
        let mut cx = LoadCx::new(Some(&bql), &mut input, &settings, &mut approvals);
        ram.load_state(&mut cx, VersionId(4)).unwrap();
    };
    take(&start);
    let mut group = c.benchmark_group("load");
    group.throughput(Throughput::Elements(pages));
    group.bench_function("pages", |b| b.iter(|| take(&part)));
    group.finish();
}

criterion_group!(benches, bulk, round, load);
criterion_main!(benches);
