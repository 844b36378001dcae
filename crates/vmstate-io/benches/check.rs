//! `vmstate check` on two whole dumps: reading them, and comparing what is in them.

#![expect(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use vmstate_io::schema::of_text;
use vmstate_schema::Schema;
use vmstate_schema::compare::{Options, compare};

fn dump(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/dumps");
    let packed = fs::read(dir.join(format!("{name}.json.zst"))).unwrap();
    zstd::decode_all(&*packed).unwrap()
}

fn schema(text: &[u8]) -> Schema {
    of_text(Path::new("dump"), text).unwrap()
}

fn bench(c: &mut Criterion) {
    let old = dump("7.2-x86_64-pc-q35-7.2");
    let new = dump("11.1-x86_64-pc-q35-7.2");
    c.bench_function("check/dumps", |b| {
        b.iter(|| {
            let (old, new) = (schema(black_box(&old)), schema(black_box(&new)));
            compare(&old, &new, &Options::default())
        });
    });
    let (old, new) = (schema(&old), schema(&new));
    c.bench_function("check/compare", |b| {
        b.iter(|| compare(black_box(&old), black_box(&new), &Options::default()));
    });
    let document = new.to_text();
    c.bench_function("check/document", |b| {
        b.iter(|| Schema::from_text(black_box(document.as_bytes())).unwrap());
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
