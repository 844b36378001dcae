//! Saving and loading one device, side by side with general serialisers.
//!
//! Two devices of some 100 fields, nested, with a buffer of 4 KiB. All of [`Fixed`] has a fixed size; [`Dynamic`] differs by
//! a counted buffer, a hook and a subsection, which excludes the straight-line path for its own fields.

#![allow(missing_docs, reason = "criterion's macros make items without")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
use vmstate::{Limits, Reason, VmState, Vmdesc, VmdescDialect, decode, encode};
use vmstate_ber::BerIn;
use vmstate_ber::der::DerReader;
use vmstate_ber::types::TypeTable;
use vmstate_desc::load_with;

const BUFFER: usize = 4096;

/// Devices of one stream: for so many a trailer is kept.
const DEVICES: u64 = 64;

mod bytes {
    //! A large array in one piece, for serde.

    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    use super::BUFFER;

    pub(crate) fn serialize<S: Serializer>(
        value: &[u8; BUFFER],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; BUFFER], D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = [u8; BUFFER];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{BUFFER} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                bytes
                    .try_into()
                    .map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

mod vec {
    //! A vector of bytes in one piece, for serde.

    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(bytes.to_vec())
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[derive(
    Debug,
    Default,
    Clone,
    PartialEq,
    VmState,
    Serialize,
    Deserialize,
    bitcode::Encode,
    bitcode::Decode,
)]
#[vmstate(name = "queue", version = 1)]
struct Queue {
    id: u16,
    enabled: bool,
    interrupt: bool,
    size: u32,
    head: u32,
    tail: u32,
    vector: u16,
    base: u64,
}

#[derive(
    Debug,
    Default,
    Clone,
    PartialEq,
    VmState,
    Serialize,
    Deserialize,
    bitcode::Encode,
    bitcode::Decode,
)]
#[vmstate(name = "counters", version = 1)]
struct Counters {
    received: u64,
    sent: u64,
    received_bytes: u64,
    sent_bytes: u64,
    errors: u32,
    dropped: u32,
    collisions: u16,
    overruns: u16,
    last: i64,
}

#[derive(
    Debug,
    Default,
    Clone,
    PartialEq,
    VmState,
    Serialize,
    Deserialize,
    bitcode::Encode,
    bitcode::Decode,
)]
#[vmstate(name = "registers", version = 1)]
struct Registers {
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
    address: [u8; 6],
    filter: [u32; 8],
    timer: [u64; 4],
    delay: i32,
    offset: i64,
    receive: u32,
    transmit: u32,
    receive_base: u64,
    transmit_base: u64,
    wake: u32,
    power: u32,
    test: u16,
    revision: u8,
}

#[derive(
    Debug, Clone, PartialEq, VmState, Serialize, Deserialize, bitcode::Encode, bitcode::Decode,
)]
#[vmstate(name = "fixed", version = 1)]
struct Fixed {
    enabled: bool,
    registers: Registers,
    counters: Counters,
    queues: [Queue; 6],
    serial: u64,
    seconds: u32,
    fraction: u32,
    state: u8,
    next: u8,
    pending: u16,
    delay: i16,
    limit: u32,
    deadline: i64,
    temperature: u16,
    voltage: u16,
    errors: u32,
    seed: u64,
    armed: bool,
    ready: bool,
    faulted: bool,
    revision: u8,
    #[vmstate(buffer)]
    #[serde(with = "bytes")]
    buffer: [u8; BUFFER],
}

#[derive(
    Debug,
    Default,
    Clone,
    PartialEq,
    VmState,
    Serialize,
    Deserialize,
    bitcode::Encode,
    bitcode::Decode,
)]
#[vmstate(name = "dynamic/wake", version = 1)]
struct Wake {
    pattern: u64,
    length: u32,
}

#[derive(
    Debug,
    Default,
    Clone,
    PartialEq,
    VmState,
    Serialize,
    Deserialize,
    bitcode::Encode,
    bitcode::Decode,
)]
#[vmstate(name = "dynamic", version = 1, post_load = Self::check)]
struct Dynamic {
    enabled: bool,
    registers: Registers,
    counters: Counters,
    queues: [Queue; 6],
    serial: u64,
    seconds: u32,
    fraction: u32,
    state: u8,
    next: u8,
    pending: u16,
    delay: i16,
    limit: u32,
    deadline: i64,
    temperature: u16,
    voltage: u16,
    errors: u32,
    seed: u64,
    armed: bool,
    ready: bool,
    faulted: bool,
    revision: u8,
    length: u32,
    #[vmstate(buffer, count = length, max = 65_536)]
    #[serde(with = "vec")]
    buffer: Vec<u8>,
    #[vmstate(subsection)]
    wake: Option<Wake>,
}

impl Dynamic {
    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        if self.revision > 9 {
            return Err("a revision that is not known".into());
        }
        Ok(())
    }
}

/// Values that are neither all small nor all large.
struct Noise(u64);

impl Noise {
    #[expect(clippy::cast_possible_truncation, reason = "noise")]
    fn next<T: From<u8> + std::ops::Shl<u32, Output = T> + std::ops::BitOr<Output = T>>(
        &mut self,
    ) -> T {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let byte = (self.0 >> 33) as u8;
        let shift = (size_of::<T>() as u32 * 8 - 8) & ((self.0 >> 60) as u32 * 4);
        (T::from(byte) << shift) | T::from(byte >> 3)
    }

    fn flag(&mut self) -> bool {
        self.next::<u32>() & 1 != 0
    }

    fn signed(&mut self) -> i64 {
        -i64::from(self.next::<u32>())
    }
}

fn registers(n: &mut Noise) -> Registers {
    Registers {
        control: n.next(),
        status: n.next(),
        command: n.next(),
        flags: n.next(),
        cause: n.next(),
        mask: n.next(),
        mode: 3,
        phase: 1,
        retries: 7,
        link: n.flag(),
        address: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        filter: std::array::from_fn(|_| n.next()),
        timer: std::array::from_fn(|_| n.next()),
        delay: -5,
        offset: n.signed(),
        receive: n.next(),
        transmit: n.next(),
        receive_base: n.next(),
        transmit_base: n.next(),
        wake: n.next(),
        power: n.next(),
        test: n.next(),
        revision: 2,
    }
}

fn counters(n: &mut Noise) -> Counters {
    Counters {
        received: n.next(),
        sent: n.next(),
        received_bytes: n.next(),
        sent_bytes: n.next(),
        errors: n.next(),
        dropped: n.next(),
        collisions: n.next(),
        overruns: n.next(),
        last: n.signed(),
    }
}

fn queue(n: &mut Noise) -> Queue {
    Queue {
        id: n.next(),
        enabled: n.flag(),
        interrupt: n.flag(),
        size: n.next(),
        head: n.next(),
        tail: n.next(),
        vector: n.next(),
        base: n.next(),
    }
}

fn fixed() -> Fixed {
    let n = &mut Noise(1);
    Fixed {
        enabled: true,
        registers: registers(n),
        counters: counters(n),
        queues: std::array::from_fn(|_| queue(n)),
        serial: n.next(),
        seconds: n.next(),
        fraction: n.next(),
        state: 1,
        next: 2,
        pending: n.next(),
        delay: -7,
        limit: n.next(),
        deadline: n.signed(),
        temperature: n.next(),
        voltage: n.next(),
        errors: 0,
        seed: n.next(),
        armed: n.flag(),
        ready: n.flag(),
        faulted: n.flag(),
        revision: 2,
        buffer: std::array::from_fn(|_| n.next()),
    }
}

fn dynamic() -> Dynamic {
    let f = fixed();
    Dynamic {
        enabled: f.enabled,
        registers: f.registers,
        counters: f.counters,
        queues: f.queues,
        serial: f.serial,
        seconds: f.seconds,
        fraction: f.fraction,
        state: f.state,
        next: f.next,
        pending: f.pending,
        delay: f.delay,
        limit: f.limit,
        deadline: f.deadline,
        temperature: f.temperature,
        voltage: f.voltage,
        errors: f.errors,
        seed: f.seed,
        armed: f.armed,
        ready: f.ready,
        faulted: f.faulted,
        revision: f.revision,
        length: u32::try_from(BUFFER).unwrap_or(u32::MAX),
        buffer: f.buffer.to_vec(),
        wake: Some(Wake {
            pattern: 0x0123_4567,
            length: 8,
        }),
    }
}

/// Fields of each device, those of embedded ones counted each time: the divisor for figures per field.
const FIELDS: u64 = 19 + 1 + 23 + 9 + 6 * 8;

/// Calls `save` for so many devices, with a new trailer for every `DEVICES` of them.
fn described(iterations: u64, save: &mut dyn FnMut(&mut Vmdesc)) -> Duration {
    let mut left = iterations;
    let mut time = Duration::ZERO;
    while left > 0 {
        let n = left.min(DEVICES);
        let start = Instant::now();
        let mut vmdesc = Vmdesc::new(VmdescDialect::V11_1, 4096);
        for _ in 0..n {
            save(&mut vmdesc);
        }
        black_box(vmdesc.finish());
        time += start.elapsed();
        left -= n;
    }
    time
}

fn save<T>(group: &mut BenchmarkGroup<'_, WallTime>, device: &T)
where
    T: VmState + Serialize + bitcode::Encode,
{
    group.throughput(Throughput::Elements(FIELDS));
    let mut out = Vec::with_capacity(1 << 16);
    group.bench_function("vmstate", |b| {
        b.iter(|| {
            out.clear();
            encode(black_box(device), &mut out).expect("it is well-formed");
            black_box(&out);
        });
    });
    let mut types = TypeTable::default();
    group.bench_function("vmstate, BER", |b| {
        b.iter(|| {
            out.clear();
            vmstate_ber::encode(black_box(device), &mut types, &mut out)
                .expect("it is well-formed");
            black_box(&out);
        });
    });
    group.bench_function("vmstate, BER, the first of a stream", |b| {
        b.iter(|| {
            out.clear();
            let mut types = TypeTable::default();
            vmstate_ber::encode(black_box(device), &mut types, &mut out)
                .expect("it is well-formed");
            black_box((&out, &types));
        });
    });
    group.bench_function("vmstate, trailer", |b| {
        b.iter_custom(|iterations| {
            described(iterations, &mut |vmdesc| {
                out.clear();
                vmdesc
                    .device("0000:00:04.0/device", 0, black_box(device), &mut out)
                    .expect("it is well-formed");
                black_box(&out);
            })
        });
    });
    group.bench_function("vmstate, trailer of one device", |b| {
        b.iter(|| {
            out.clear();
            let mut vmdesc = Vmdesc::new(VmdescDialect::V11_1, 4096);
            vmdesc
                .device("0000:00:04.0/device", 0, black_box(device), &mut out)
                .expect("it is well-formed");
            black_box(vmdesc.finish());
        });
    });
    let mut slice = vec![0; 1 << 16];
    group.bench_function("postcard", |b| {
        b.iter(|| {
            black_box(postcard::to_slice(black_box(device), &mut slice).expect("there is room"));
        });
    });
    group.bench_function("bitcode, serde", |b| {
        b.iter(|| black_box(bitcode::serialize(black_box(device)).expect("it is well-formed")));
    });
    let mut buffer = bitcode::Buffer::new();
    group.bench_function("bitcode", |b| {
        b.iter(|| {
            black_box(buffer.encode(black_box(device)));
        });
    });
}

fn load<T>(group: &mut BenchmarkGroup<'_, WallTime>, device: &T)
where
    T: VmState + Clone + PartialEq + std::fmt::Debug,
    T: Serialize + for<'de> Deserialize<'de> + bitcode::Encode + for<'de> bitcode::Decode<'de>,
{
    group.throughput(Throughput::Elements(FIELDS));
    let mut bytes = Vec::new();
    encode(device, &mut bytes).expect("it is well-formed");
    let mut target = device.clone();
    group.bench_function("vmstate", |b| {
        b.iter(|| {
            decode(&mut target, 1, black_box(&bytes), Limits::default()).expect("it is right");
            black_box(&target);
        });
    });
    assert_eq!(&target, device);
    let (mut types, mut ber) = (TypeTable::default(), Vec::new());
    let ty = vmstate_ber::encode(device, &mut types, &mut ber).expect("it is well-formed");
    let read = |target: &mut T, types: &TypeTable| {
        let value = DerReader::new(black_box(&ber), 0).any().expect("a value");
        let mut input = BerIn::new(types, ty, value);
        load_with(target, 1, &mut input, Limits::default()).expect("it is right");
        black_box(&target);
    };
    group.bench_function("vmstate, BER", |b| b.iter(|| read(&mut target, &types)));
    assert_eq!(&target, device);
    let mut slice = vec![0; 1 << 16];
    let bytes = postcard::to_slice(device, &mut slice).expect("there is room");
    group.bench_function("postcard", |b| {
        b.iter(|| {
            target = postcard::from_bytes(black_box(bytes)).expect("it is right");
            black_box(&target);
        });
    });
    assert_eq!(&target, device);
    let bytes = bitcode::serialize(device).expect("it is well-formed");
    group.bench_function("bitcode, serde", |b| {
        b.iter(|| {
            target = bitcode::deserialize(black_box(&bytes)).expect("it is right");
            black_box(&target);
        });
    });
    assert_eq!(&target, device);
    let bytes = bitcode::encode(device);
    let mut buffer = bitcode::Buffer::new();
    group.bench_function("bitcode", |b| {
        b.iter(|| {
            target = buffer.decode(black_box(&bytes)).expect("it is right");
            black_box(&target);
        });
    });
    assert_eq!(&target, device);
}

fn device(c: &mut Criterion) {
    let (fixed, dynamic) = (fixed(), dynamic());
    let mut group = c.benchmark_group("save fixed");
    save(&mut group, &fixed);
    group.finish();
    let mut group = c.benchmark_group("save dynamic");
    save(&mut group, &dynamic);
    group.finish();
    let mut group = c.benchmark_group("load fixed");
    load(&mut group, &fixed);
    group.finish();
    let mut group = c.benchmark_group("load dynamic");
    load(&mut group, &dynamic);
    group.finish();
}

criterion_group!(benches, device);
criterion_main!(benches);
