//! One mebibyte of registers behind a lock: saving by snapshot, side by side with serialising under the lock.
//!
//! `whole`: from taking the lock to the last byte. `held`: how much of that the lock is held, which is how long the device
//! waits. With a serialiser under the lock the two are the same. `words` is one array of registers, `queues` 16384 structs of
//! 64 bytes.

#![allow(missing_docs, reason = "criterion's macros make items without")]

use std::hint::black_box;
use std::sync::Mutex;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use serde::{Deserialize, Serialize};
use vmstate::{
    Limits, Migratable, ToMigrationState, ToMigrationStateShared, VmState, decode, encode,
};

const SIZE: usize = 1 << 20;

#[derive(Debug, Default, ToMigrationState, Serialize, Deserialize)]
#[migration_state(name = "words", version = 1)]
struct Words {
    #[migration_state(max = 262_144)]
    registers: Vec<u32>,
}

#[derive(Debug, Default, Clone, ToMigrationState, Serialize, Deserialize)]
#[migration_state(name = "queue", version = 1)]
struct Queue {
    base: u64,
    head: u32,
    tail: u32,
    size: u16,
    vector: u16,
    enabled: bool,
    interrupt: bool,
    features: [u8; 26],
    descriptors: [u32; 4],
}

#[derive(Debug, Default, ToMigrationState, Serialize, Deserialize)]
#[migration_state(name = "queues", version = 1)]
struct Queues {
    #[migration_state(max = 65_536)]
    queues: Vec<Queue>,
}

fn words() -> Words {
    let word = |n: usize| u32::try_from(n).unwrap_or(0).wrapping_mul(0x9e37_79b9);
    Words {
        registers: (0..SIZE / 4).map(word).collect(),
    }
}

fn queues() -> Queues {
    let queue = |n: u32| Queue {
        base: u64::from(n) << 20,
        head: n,
        tail: n.wrapping_mul(0x9e37_79b9),
        size: 256,
        vector: 7,
        enabled: true,
        interrupt: n.is_multiple_of(2),
        features: [3; 26],
        descriptors: [n; 4],
    };
    Queues {
        queues: (0..16_384).map(queue).collect(),
    }
}

fn bench<T, M>(group: &mut BenchmarkGroup<'_, WallTime>, state: T)
where
    T: ToMigrationState<Migrated = M> + Default + Serialize + for<'de> Deserialize<'de>,
    M: VmState + Clone,
{
    let device = Migratable::new(Mutex::new(state));
    let mut bytes = Vec::new();
    encode(&device, &mut bytes).expect("saves");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    println!("{} bytes", bytes.len());

    group.bench_function("whole/vmstate", |b| {
        b.iter(|| {
            bytes.clear();
            encode(black_box(&device), &mut bytes).expect("saves");
            bytes.len()
        });
    });
    // Freeing the mirror is counted, though the lock is free by then.
    group.bench_function("held/vmstate", |b| {
        b.iter(|| black_box(&device).to_migration_state().expect("a snapshot"));
    });
    // A mirror that is there already, as for a device that is saved again and again.
    let mut mirror = *device.to_migration_state().expect("a snapshot");
    group.bench_function("held/vmstate, mirror kept", |b| {
        b.iter(|| {
            black_box(&device)
                .snapshot_migration_state(&mut mirror)
                .expect("a snapshot");
        });
    });
    group.bench_function("whole and held/serde and bitcode", |b| {
        b.iter(|| {
            let state = black_box(&device).lock().expect("not poisoned");
            bitcode::serialize(&*state).expect("saves").len()
        });
    });

    let target = Migratable::new(Mutex::new(T::default()));
    group.bench_function("load/vmstate", |b| {
        b.iter(|| decode(&mut &target, 1, black_box(&bytes), Limits::default()).expect("loads"));
    });
    group.bench_function("load, held/vmstate", |b| {
        b.iter_batched(
            || mirror.clone(),
            |mirror| target.restore_migrated_state(mirror, 1).expect("restores"),
            BatchSize::LargeInput,
        );
    });
    let serialised = bitcode::serialize(&*device.lock().expect("not poisoned")).expect("saves");
    group.bench_function("load/serde and bitcode", |b| {
        b.iter(|| {
            let loaded: T = bitcode::deserialize(black_box(&serialised)).expect("loads");
            *target.lock().expect("not poisoned") = loaded;
        });
    });
}

fn snapshots(c: &mut Criterion) {
    let mut group = c.benchmark_group("words");
    bench(&mut group, words());
    group.finish();
    let mut group = c.benchmark_group("queues");
    bench(&mut group, queues());
    group.finish();
}

criterion_group!(benches, snapshots);
criterion_main!(benches);
