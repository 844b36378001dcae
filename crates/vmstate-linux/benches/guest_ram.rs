//! What guest RAM and its dirty log cost, beside what the processor can do at best.
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use std::fs::File;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vmstate_linux::{DirtyLog, Gather, GuestRam};

const MIB: u64 = 1 << 20;

/// Looking for zeros, and copying, page by page: in the cache, and beyond it.
fn pages(c: &mut Criterion) {
    for size in [MIB / 4, 256 * MIB] {
        let ram = GuestRam::new(size).expect("memory");
        ram.populate(0, size).expect("memory");
        // Not zero at first, so that it is memory of its own.
        let mut plain = vec![1_u64; usize::try_from(size / 8).expect("64 bits")];
        plain.fill(0);
        let mut out = vec![0; 4096];
        let mut group = c.benchmark_group(format!("pages/{}KiB", size >> 10));
        group.throughput(Throughput::Bytes(size)).sample_size(20);
        group.bench_function("is_zero", |b| {
            b.iter(|| (0..size / 4096).all(|page| ram.is_zero(page * 4096, 4096) == Ok(true)));
        });
        group.bench_function("is_zero of a slice", |b| {
            b.iter(|| {
                black_box(&plain)
                    .chunks(512)
                    .all(|page| page.iter().fold(0, |all, word| all | word) == 0)
            });
        });
        group.bench_function("read", |b| {
            b.iter(|| {
                for page in 0..size / 4096 {
                    ram.read(page * 4096, &mut out).expect("inside");
                }
            });
        });
        group.bench_function("copy of a slice", |b| {
            let mut out = vec![0; 512];
            b.iter(|| {
                for page in black_box(&plain).chunks(512) {
                    out.copy_from_slice(page);
                    black_box(&mut out);
                }
            });
        });
        group.finish();
    }
}

/// Stores with and without a mark, round a working set that fits the cache.
fn marking(c: &mut Criterion) {
    const STORES: u64 = 4096;
    let ram = GuestRam::new(16 * MIB).expect("memory");
    let log = DirtyLog::new(ram.len(), 4096);
    let offset = |i: u64| black_box(i * 8 % MIB);
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(STORES));
    group.bench_function("alone", |b| {
        b.iter(|| {
            for i in 0..STORES {
                ram.store(offset(i), i);
            }
        });
    });
    group.bench_function("marked", |b| {
        b.iter(|| {
            for i in 0..STORES {
                ram.store(offset(i), i);
                log.mark(offset(i));
            }
        });
    });
    group.finish();
}

/// Collecting a fixed number of dirty pages from logs of growing size.
fn collecting(c: &mut Criterion) {
    const DIRTY: u64 = 1000;
    let mut group = c.benchmark_group("collect");
    for gib in [1, 4, 16, 64, 256] {
        let log = DirtyLog::new(gib << 30, 4096);
        let stride = log.pages() / DIRTY * 4096;
        for (name, dirty) in [("nothing", 0), ("1000 pages", DIRTY)] {
            group.bench_with_input(BenchmarkId::new(name, format!("{gib}GiB")), &(), |b, ()| {
                b.iter_custom(|times| {
                    (0..times)
                        .map(|_| {
                            for i in 0..dirty {
                                log.mark(i * stride);
                            }
                            let start = std::time::Instant::now();
                            assert_eq!(log.collect(|_, bits| _ = black_box(bits)), dirty);
                            start.elapsed()
                        })
                        .sum()
                });
            });
        }
    }
    group.finish();
}

/// The cost of a list of pages with a header each, without the kernel's copying.
fn listing(c: &mut Criterion) {
    const PAGES: u64 = 512;
    let ram = GuestRam::new(PAGES * 8192).expect("memory");
    let null = File::options()
        .write(true)
        .open("/dev/null")
        .expect("there");
    let mut list = Gather::new();
    let mut group = c.benchmark_group("gather");
    group.throughput(Throughput::Bytes(PAGES * 4096));
    group.bench_function("512 pages to /dev/null", |b| {
        b.iter(|| {
            for page in 0..PAGES {
                list.bytes(&[8; 8]);
                list.ram(&ram, page * 8192, 4096).expect("inside");
            }
            list.write_all_to(&null).expect("takes everything");
            list = std::mem::take(&mut list).recycle();
        });
    });
    group.finish();
}

/// Asking which pages were never touched, of a large memory.
fn untouched(c: &mut Criterion) {
    const SIZE: u64 = 4 << 30;
    let ram = GuestRam::new(SIZE).expect("memory");
    let mut group = c.benchmark_group("untouched");
    group.throughput(Throughput::Bytes(SIZE)).sample_size(10);
    group.bench_function("4GiB", |b| {
        b.iter(|| {
            (0..SIZE)
                .step_by(64 * 4096)
                .all(|at| ram.untouched(at) == u64::MAX)
        });
    });
    group.finish();
}

criterion_group!(benches, pages, marking, collecting, listing, untouched);
criterion_main!(benches);
