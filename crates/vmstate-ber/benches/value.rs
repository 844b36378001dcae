//! Saving and loading device state over BER beside QEMU's encoding: 1024 structs of 8 integers, with and without a hook.
//!
//! A struct with a hook is walked field by field in both formats; one without goes into QEMU's encoding as a whole.

#![allow(missing_docs, reason = "criterion's macros make items without")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vmstate_ber::der::DerReader;
use vmstate_ber::types::TypeTable;
use vmstate_ber::{BerIn, encode};
use vmstate_derive::VmState;
use vmstate_desc::{Limits, Reason, VmState, load_with};

const STRUCTS: usize = 1024;
const FIELDS: u64 = 8 * STRUCTS as u64;

macro_rules! devices {
    ($device:ident, $queue:ident, $($hook:tt)*) => {
        #[derive(Debug, Default, Clone, PartialEq, VmState)]
        #[vmstate(name = "queue", version = 1 $($hook)*)]
        struct $queue {
            id: u16,
            size: u32,
            head: u32,
            tail: u32,
            vector: u16,
            flags: u8,
            base: u64,
            deadline: i64,
        }

        #[derive(Debug, Clone, PartialEq, VmState)]
        #[vmstate(name = "device", version = 1)]
        struct $device {
            queues: [$queue; STRUCTS],
        }

        impl $device {
            /// Values that neither repeat nor are all small.
            fn new() -> Self {
                let queue = |i: usize| {
                    let n = u32::try_from(i).unwrap_or(0);
                    $queue {
                        id: u16::try_from(i).unwrap_or(0),
                        size: 256,
                        head: n.wrapping_mul(2_654_435_761) >> 12,
                        tail: n * 3,
                        vector: u16::try_from(i % 32).unwrap_or(0),
                        flags: u8::try_from(i % 7).unwrap_or(0),
                        base: 0x7f00_0000_0000 + u64::from(n) * 4096,
                        deadline: -i64::from(n),
                    }
                };
                Self { queues: std::array::from_fn(queue) }
            }

            fn empty() -> Self {
                Self { queues: std::array::from_fn(|_| $queue::default()) }
            }
        }
    };
}

devices!(Plain, PlainQueue,);
devices!(Walked, WalkedQueue, , post_load = Self::check);

impl WalkedQueue {
    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        if self.size > 32_768 {
            return Err("a queue that is too long".into());
        }
        Ok(())
    }
}

fn measure<D: VmState + PartialEq + std::fmt::Debug>(
    criterion: &mut Criterion,
    name: &str,
    device: &D,
    mut empty: D,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(FIELDS));
    let mut qemu = Vec::new();
    vmstate_wire::codec::encode(device, &mut qemu).expect("encodes");
    let (mut types, mut ber) = (TypeTable::default(), Vec::new());
    let ty = encode(device, &mut types, &mut ber).expect("encodes");
    println!("{name}: QEMU {} bytes, BER {} bytes", qemu.len(), ber.len());
    let mut out = Vec::new();
    group.bench_function("save, QEMU", |b| {
        b.iter(|| {
            out.clear();
            vmstate_wire::codec::encode(black_box(device), &mut out).expect("encodes");
        });
    });
    group.bench_function("save, BER", |b| {
        b.iter(|| {
            out.clear();
            encode(black_box(device), &mut types, &mut out).expect("encodes")
        });
    });
    group.bench_function("load, QEMU", |b| {
        b.iter(|| {
            let bytes = black_box(qemu.as_slice());
            vmstate_wire::codec::decode(&mut empty, 1, bytes, Limits::default()).expect("decodes")
        });
    });
    group.bench_function("load, BER", |b| {
        b.iter(|| {
            let value = DerReader::new(black_box(&ber), 0).any().expect("a value");
            let mut input = BerIn::new(&types, ty, value);
            load_with(&mut empty, 1, &mut input, Limits::default()).expect("decodes");
        });
    });
    group.finish();
    let value = DerReader::new(&ber, 0).any().expect("a value");
    let mut input = BerIn::new(&types, ty, value);
    load_with(&mut empty, 1, &mut input, Limits::default()).expect("decodes");
    assert_eq!(*device, empty);
}

fn benches(criterion: &mut Criterion) {
    measure(criterion, "walked", &Walked::new(), Walked::empty());
    measure(criterion, "plain", &Plain::new(), Plain::empty());
}

criterion_group!(all, benches);
criterion_main!(all);
