//! Speed of the inner loops. The baseline of the record benches is a copy of the same bytes.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "benches fail by panicking"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vmstate_ram::{
    BlockId, BlockName, BlockTable, Dialect, DirtyBitmap, Event, PageSize, RamBlock, RamParser,
    RamSection, RamWriter, Record, Step, is_zero_page, xbzrle,
};

const PAGE: usize = 4096;
const PAGES: u64 = 16_384;

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// A parser at the beginning of a PART section, and its writer.
fn ready() -> (RamParser, RamWriter) {
    let mut blocks = BlockTable::new();
    let name = BlockName::new(b"pc.ram").unwrap();
    blocks
        .push(RamBlock::new(name, PAGES * PAGE as u64), PageSize::KIB4)
        .unwrap();
    let writer = RamWriter::new(PageSize::KIB4, Arc::new(blocks));
    let mut setup = Vec::new();
    writer.setup(&mut setup);
    writer.end_of_section(&mut setup);
    let mut parser = RamParser::new(Dialect::modern());
    parser.begin_section(RamSection::Start, 0).unwrap();
    let mut rest = &setup[..];
    while let Step::Event { consumed, event } = parser.step(rest).unwrap() {
        rest = &rest[consumed..];
        if event == Event::EndOfSection {
            break;
        }
    }
    parser.begin_section(RamSection::Part, 0).unwrap();
    (parser, writer)
}

fn section(content: &[u8], kind: impl Fn(u64) -> bool) -> Vec<u8> {
    let (_, mut writer) = ready();
    let mut out = Vec::with_capacity(content.len() + content.len() / 256);
    for (number, page) in (0..PAGES).zip(content.chunks_exact(PAGE)) {
        let offset = number * PAGE as u64;
        if kind(number) {
            writer.page(BlockId(0), offset, page, &mut out).unwrap();
        } else {
            writer.zero_page(BlockId(0), offset, &mut out).unwrap();
        }
    }
    writer.end_of_section(&mut out);
    out
}

fn records(c: &mut Criterion) {
    let content = noise(usize::try_from(PAGES).unwrap() * PAGE);
    let mut memory = vec![1; content.len()];
    for (name, bytes) in [
        ("pages", section(&content, |_| true)),
        (
            "half zero, alternating",
            section(&content, |number| number % 2 == 0),
        ),
    ] {
        let mut group = c.benchmark_group(format!("records/{name}"));
        group
            .throughput(Throughput::Bytes(bytes.len() as u64))
            .sample_size(20);
        let mut copy = vec![1; bytes.len()];
        group.bench_function("baseline: memcpy of the section", |b| {
            b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&bytes)));
        });
        let (parser, _) = ready();
        group.bench_function("parse", |b| {
            b.iter(|| {
                let mut parser = parser.clone();
                parser
                    .records(&bytes)
                    .fold(0, |sum, record| sum ^ record.unwrap().page().offset)
            });
        });
        group.bench_function("parse, step by step", |b| {
            b.iter(|| {
                let mut parser = parser.clone();
                let mut rest = &bytes[..];
                loop {
                    let Step::Event { consumed, event } = parser.step(rest).unwrap() else {
                        panic!()
                    };
                    rest = &rest[consumed..];
                    if black_box(event) == Event::EndOfSection {
                        break;
                    }
                }
            });
        });
        group.bench_function("parse and copy the pages to their places", |b| {
            b.iter(|| {
                let mut parser = parser.clone();
                for record in parser.records(&bytes) {
                    let record = record.unwrap();
                    let place =
                        &mut memory[usize::try_from(record.page().offset).unwrap()..][..PAGE];
                    match record {
                        Record::Page { data, .. } => place.copy_from_slice(data),
                        Record::Zero { .. } => {
                            if !is_zero_page(place) {
                                place.fill(0);
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        });
        group.finish();
    }
    let mut group = c.benchmark_group("records/zero");
    let zeros = section(&content, |_| false);
    let (parser, _) = ready();
    group.throughput(Throughput::Elements(PAGES));
    group.bench_function("parse", |b| {
        b.iter(|| {
            let mut parser = parser.clone();
            parser
                .records(&zeros)
                .fold(0, |sum, record| sum ^ record.unwrap().page().offset)
        });
    });
    group.bench_function("write", |b| {
        let mut out = Vec::with_capacity(zeros.len());
        b.iter(|| {
            let (_, mut writer) = ready();
            out.clear();
            for number in 0..PAGES {
                writer
                    .zero_page(BlockId(0), number * PAGE as u64, &mut out)
                    .unwrap();
            }
        });
    });
    group.finish();
}

/// A name, and which bytes of the page change.
type Case = (&'static str, fn(usize) -> bool);

fn deltas(c: &mut Criterion) {
    let old = noise(PAGE);
    let cases: [Case; 4] = [
        ("unchanged", |_| false),
        ("64 bytes in one place", |at| (1000..1064).contains(&at)),
        ("8 bytes in every 128", |at| at % 128 < 8),
        ("every other byte of half the page", |at| {
            at < PAGE / 2 && at % 2 == 0
        }),
    ];
    for (name, changed) in cases {
        let new: Vec<u8> = old
            .iter()
            .enumerate()
            .map(|(at, byte)| if changed(at) { !byte } else { *byte })
            .collect();
        let mut delta = Vec::with_capacity(PAGE);
        xbzrle::encode(&old, &new, &mut delta, PAGE);
        let mut group = c.benchmark_group(format!("xbzrle/{name}"));
        group.throughput(Throughput::Bytes(PAGE as u64));
        let mut out = Vec::with_capacity(PAGE);
        group.bench_function("encode", |b| {
            b.iter(|| {
                out.clear();
                black_box(xbzrle::encode(
                    black_box(&old),
                    black_box(&new),
                    &mut out,
                    PAGE,
                ));
            });
        });
        let mut page = old.clone();
        group.bench_function("decode", |b| {
            b.iter(|| xbzrle::decode(black_box(&delta), black_box(&mut page)).unwrap());
        });
        group.finish();
    }
}

fn pages(c: &mut Criterion) {
    let mut group = c.benchmark_group("is_zero_page");
    group.throughput(Throughput::Bytes(PAGE as u64));
    let zero = vec![0; PAGE];
    let full = noise(PAGE);
    group.bench_function("zero", |b| b.iter(|| is_zero_page(black_box(&zero))));
    group.bench_function("not zero", |b| b.iter(|| is_zero_page(black_box(&full))));
    group.finish();

    let mut group = c.benchmark_group("bitmap");
    let pages = 1 << 20;
    group.throughput(Throughput::Elements(pages));
    let mut sparse = DirtyBitmap::new(pages);
    for start in (0..pages).step_by(1000) {
        sparse.set_range(start..start + 10);
    }
    group.bench_function("runs of 10 in every 1000", |b| {
        b.iter(|| {
            black_box(&sparse)
                .runs()
                .fold(0, |sum, run| sum + run.end - run.start)
        });
    });
    group.bench_function("count", |b| b.iter(|| black_box(&sparse).count()));
    group.finish();
}

criterion_group!(benches, records, deltas, pages);
criterion_main!(benches);
