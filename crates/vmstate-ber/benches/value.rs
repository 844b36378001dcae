//! Saving and loading device state over BER beside QEMU's encoding: 1024 structs of 8 integers, with and without a hook, and one
//! struct of 31 scalars of all kinds.
//!
//! A struct with a hook is walked field by field in both formats; one without goes into QEMU's encoding as a whole. The single one has
//! a hook, and two without in it.

#![allow(missing_docs, reason = "criterion's macros make items without")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use vmstate_ber::der::DerReader;
use vmstate_ber::types::{TypeDef, TypeTable};
use vmstate_ber::{BerIn, encode};
use vmstate_derive::VmState;
use vmstate_desc::{Limits, Reason, VmState, load_with};

const STRUCTS: usize = 1024;
const FIELDS: u64 = 8 * STRUCTS as u64;
const SINGLE_FIELDS: u64 = 23 + 2 * 4;

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

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "ring", version = 1)]
struct Ring {
    base: u64,
    head: u16,
    tail: u16,
    enabled: bool,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "single", version = 1, post_load = Self::check)]
struct Single {
    control: u32,
    status: u32,
    command: u16,
    flags: u16,
    cause: u32,
    mask: u32,
    mode: u8,
    phase: u8,
    retries: u8,
    link: bool,
    sending: Ring,
    receiving: Ring,
    delay: i32,
    offset: i64,
    received: u32,
    sent: u32,
    receive_base: u64,
    send_base: u64,
    wake: u32,
    power: u32,
    test: u16,
    revision: u8,
    voltage: f64,
    armed: bool,
    address: u64,
}

impl Single {
    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        if self.revision > 9 {
            return Err("a revision that is not known".into());
        }
        Ok(())
    }

    fn new() -> Self {
        let ring = Ring {
            base: 0xfff0_0000,
            head: 17,
            tail: 300,
            enabled: true,
        };
        Self {
            control: 0x8000_0001,
            status: 3,
            command: 0x106,
            flags: 1,
            cause: 0,
            mask: 0xffff_ffff,
            mode: 3,
            phase: 1,
            retries: 0,
            link: true,
            sending: ring.clone(),
            receiving: ring,
            delay: -5,
            offset: -123_456,
            received: 77,
            sent: 99_999,
            receive_base: 0x1_0000_0000,
            send_base: 0x1_0000_8000,
            wake: 0,
            power: 2,
            test: 500,
            revision: 9,
            voltage: 1.5,
            armed: false,
            address: 0xffff_8000_0000_1234,
        }
    }
}

/// Tables at a time: few enough to stay in the cache, as do the types that a stream has just brought.
const BATCH: u64 = 8;

/// A table in which nothing has been found out yet.
fn copy(types: &TypeTable) -> TypeTable {
    insert(types.since(0).iter().map(|ty| TypeDef::clone(ty)).collect())
}

fn insert(types: Vec<TypeDef>) -> TypeTable {
    let mut table = TypeTable::default();
    for ty in types {
        table
            .insert(ty, 0, 0, &vmstate_ber::Limits::default())
            .expect("it is alone");
    }
    table
}

fn measure<D: VmState + PartialEq + std::fmt::Debug>(
    criterion: &mut Criterion,
    name: &str,
    fields: u64,
    device: &D,
    mut empty: D,
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(fields));
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
    // With the type to be made first. A real migration has few devices of each type.
    group.bench_function("save, BER, first of its type", |b| {
        b.iter_batched_ref(
            TypeTable::default,
            |types| {
                out.clear();
                encode(black_box(device), types, &mut out).expect("encodes")
            },
            BatchSize::NumIterations(BATCH),
        );
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
    group.bench_function("load, BER, first of its type", |b| {
        b.iter_batched_ref(
            || copy(&types),
            |types| {
                let value = DerReader::new(black_box(&ber), 0).any().expect("a value");
                let mut input = BerIn::new(types, ty, value);
                load_with(&mut empty, 1, &mut input, Limits::default()).expect("decodes");
            },
            BatchSize::NumIterations(BATCH),
        );
    });
    group.finish();
    let value = DerReader::new(&ber, 0).any().expect("a value");
    let mut input = BerIn::new(&types, ty, value);
    load_with(&mut empty, 1, &mut input, Limits::default()).expect("decodes");
    assert_eq!(*device, empty);
}

fn benches(criterion: &mut Criterion) {
    let (walked, plain, single) = (Walked::new(), Plain::new(), Single::new());
    measure(criterion, "walked", FIELDS, &walked, Walked::empty());
    measure(criterion, "plain", FIELDS, &plain, Plain::empty());
    let empty = Single::default();
    measure(criterion, "single", SINGLE_FIELDS, &single, empty);
}

criterion_group!(all, benches);
criterion_main!(all);
