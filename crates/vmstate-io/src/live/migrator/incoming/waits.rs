//! Who waits for guest memory, and how long.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vmstate_engine::{Blocktime, FaultLatency};
use vmstate_ram::BlockId;

use crate::live::migrator::lock;

/// Buckets of each doubling of the latency: what a percentile is exact to.
const STEPS: u32 = 16;
/// Buckets in all: up to 2^64 ns.
const BUCKETS: usize = 64 * STEPS as usize;

/// All who wait, and what came of those who do not any more.
#[derive(Debug)]
pub(super) struct Waits {
    /// Number of pages that somebody waits for: most pages that arrive are none of them.
    pages: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Threads by page: block and offset.
    open: HashMap<(u32, u64), Vec<Wait>>,
    vcpus: Vec<Vcpu>,
    /// vCPUs that wait now.
    waiting: usize,
    /// Since when all do.
    all_since: Option<Instant>,
    all: Duration,
    buckets: Box<[u64]>,
    count: u64,
    sum: Duration,
    max: Duration,
    others: Sum,
    distribution: [u64; Blocktime::BUCKETS],
}

#[derive(Debug)]
struct Wait {
    thread: u32,
    since: Instant,
}

#[derive(Debug, Default)]
struct Vcpu {
    thread: u32,
    /// Pages that it waits for. An instruction that touches several waits for one after the other.
    waits: u32,
    since: Option<Instant>,
    blocked: Duration,
    latency: Sum,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    count: u32,
    time: Duration,
}

impl Sum {
    fn add(&mut self, time: Duration) {
        self.count = self.count.saturating_add(1);
        self.time = self.time.saturating_add(time);
    }

    fn mean(self) -> Duration {
        self.time.checked_div(self.count).unwrap_or_default()
    }
}

impl Waits {
    /// Nobody waits. `threads` are those of the vCPUs.
    pub(super) fn new(threads: Vec<u32>) -> Self {
        let vcpu = |thread| Vcpu {
            thread,
            ..Vcpu::default()
        };
        Self {
            pages: AtomicUsize::new(0),
            inner: Mutex::new(Inner {
                open: HashMap::new(),
                vcpus: threads.into_iter().map(vcpu).collect(),
                waiting: 0,
                all_since: None,
                all: Duration::ZERO,
                buckets: vec![0; BUCKETS].into(),
                count: 0,
                sum: Duration::ZERO,
                max: Duration::ZERO,
                others: Sum::default(),
                distribution: [0; Blocktime::BUCKETS],
            }),
        }
    }

    /// A thread begins to wait for a page.
    pub(super) fn begins(&self, block: BlockId, page: u64, thread: u32, now: Instant) {
        let mut inner = lock(&self.inner);
        let waits = inner.open.entry((block.0, page)).or_default();
        if waits.iter().any(|wait| wait.thread == thread) {
            // It has been woken, and has found the page still missing.
            return;
        }
        waits.push(Wait { thread, since: now });
        self.pages.store(inner.open.len(), Ordering::SeqCst);
        inner.blocks(thread, now);
    }

    /// The pages that begin in a range have arrived.
    pub(super) fn ends(&self, block: BlockId, range: Range<u64>, now: impl FnOnce() -> Instant) {
        if self.pages.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut inner = lock(&self.inner);
        // As many as there are threads, at most.
        let over = inner
            .open
            .extract_if(|(of, page), _| *of == block.0 && range.contains(page));
        let over: Vec<_> = over.flat_map(|(_, waits)| waits).collect();
        if over.is_empty() {
            return;
        }
        self.pages.store(inner.open.len(), Ordering::SeqCst);
        let now = now();
        for wait in over {
            inner.ends(&wait, now);
        }
    }

    /// How long pages took to come.
    pub(super) fn latency(&self) -> FaultLatency {
        let inner = lock(&self.inner);
        FaultLatency {
            faults: inner.count,
            mean: mean(inner.sum, inner.count),
            p50: inner.percentile(50),
            p99: inner.percentile(99),
            max: inner.max,
        }
    }

    /// How long vCPUs stood still for it.
    pub(super) fn blocktime(&self) -> Blocktime {
        let inner = lock(&self.inner);
        Blocktime {
            all_vcpus: inner.all,
            vcpus: inner.vcpus.iter().map(|vcpu| vcpu.blocked).collect(),
            latency: mean(inner.sum, inner.count),
            distribution: inner.distribution,
            vcpu_latency: inner.vcpus.iter().map(|v| v.latency.mean()).collect(),
            non_vcpu_latency: inner.others.mean(),
        }
    }
}

impl Inner {
    fn vcpu(&mut self, thread: u32) -> Option<&mut Vcpu> {
        let known = |vcpu: &&mut Vcpu| thread != 0 && vcpu.thread == thread;
        self.vcpus.iter_mut().find(known)
    }

    fn blocks(&mut self, thread: u32, now: Instant) {
        let Some(vcpu) = self.vcpu(thread) else {
            return;
        };
        vcpu.waits = vcpu.waits.saturating_add(1);
        if vcpu.waits > 1 {
            return;
        }
        vcpu.since = Some(now);
        self.waiting = self.waiting.saturating_add(1);
        if self.waiting == self.vcpus.len() {
            self.all_since = Some(now);
        }
    }

    fn ends(&mut self, wait: &Wait, now: Instant) {
        let time = now.saturating_duration_since(wait.since);
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(time);
        self.max = self.max.max(time);
        if let Some(bucket) = self.buckets.get_mut(bucket(time)) {
            *bucket = bucket.saturating_add(1);
        }
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let power = microseconds.checked_ilog2().unwrap_or(0) as usize;
        let last = Blocktime::BUCKETS - 1;
        if let Some(bucket) = self.distribution.get_mut(power.min(last)) {
            *bucket = bucket.saturating_add(1);
        }
        let Some(vcpu) = self.vcpu(wait.thread) else {
            self.others.add(time);
            return;
        };
        vcpu.latency.add(time);
        vcpu.waits = vcpu.waits.saturating_sub(1);
        if vcpu.waits > 0 {
            return;
        }
        let since = vcpu.since.take().unwrap_or(now);
        vcpu.blocked = vcpu
            .blocked
            .saturating_add(now.saturating_duration_since(since));
        self.waiting = self.waiting.saturating_sub(1);
        if let Some(since) = self.all_since.take() {
            let all = now.saturating_duration_since(since);
            self.all = self.all.saturating_add(all);
        }
    }

    /// The latency that so many percent of all waits did not exceed, to a sixteenth.
    fn percentile(&self, percent: u64) -> Duration {
        let wanted = self.count.saturating_mul(percent).div_ceil(100);
        let mut seen = 0_u64;
        for (index, count) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= wanted && *count > 0 {
                return upper(index).min(self.max);
            }
        }
        Duration::ZERO
    }
}

fn mean(sum: Duration, count: u64) -> Duration {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    sum.checked_div(count).unwrap_or_default()
}

/// The bucket of a latency: a sixteenth of the range from one power of two of nanoseconds to the next.
fn bucket(time: Duration) -> usize {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    if ns < u64::from(STEPS) {
        return usize::try_from(ns).unwrap_or(0);
    }
    let power = ns.ilog2();
    let step = ns >> (power - STEPS.ilog2()) & u64::from(STEPS - 1);
    (power * STEPS) as usize + usize::try_from(step).unwrap_or(0)
}

/// The largest latency of a bucket.
fn upper(index: usize) -> Duration {
    let steps = STEPS as usize;
    let (power, step) = (index / steps, (index % steps) as u64);
    let Some(shift) = u32::try_from(power)
        .ok()
        .and_then(|p| p.checked_sub(STEPS.ilog2()))
    else {
        return Duration::from_nanos(index as u64);
    };
    let lower = u64::from(STEPS).saturating_add(step);
    let next = u128::from(lower.saturating_add(1)) << shift;
    Duration::from_nanos(u64::try_from(next - 1).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: BlockId = BlockId(0);

    #[test]
    fn buckets_hold_what_falls_into_them() {
        let mut last = 0;
        for ns in (0..2000).chain([1 << 20, (1 << 20) + 70_000, 1 << 40, u64::MAX]) {
            let time = Duration::from_nanos(ns);
            let index = bucket(time);
            assert!(index >= last && index < BUCKETS, "{ns}");
            assert!(time <= upper(index), "{ns}: {:?}", upper(index));
            assert!(
                upper(index).as_nanos() <= u128::from(ns) * 17 / 16 + 1,
                "{ns}"
            );
            last = index;
        }
    }

    #[test]
    fn latencies_and_who_stood_still() {
        let waits = Waits::new(vec![7, 8]);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let page = |start| start..start + 0x1000;
        // Both vCPUs wait from 10 to 30; the second goes on at 30, the first at 60.
        waits.begins(BLOCK, 0x1000, 7, at(0));
        waits.begins(BLOCK, 0x1000, 7, at(5));
        waits.begins(BLOCK, 0x2000, 8, at(10));
        waits.begins(BLOCK, 0x2000, 99, at(20));
        waits.ends(BLOCK, page(0x2000), || at(30));
        waits.ends(BLOCK, page(0x3000), || at(40));
        waits.ends(BLOCK, page(0x1000), || at(60));
        let latency = waits.latency();
        let ms = Duration::from_millis;
        assert_eq!((latency.faults, latency.max), (3, ms(60)));
        assert_eq!(latency.mean, ms(30));
        assert!(latency.p50 >= ms(20) && latency.p50 < ms(22), "{latency:?}");
        assert_eq!(latency.p99, ms(60));
        let blocktime = waits.blocktime();
        assert_eq!(blocktime.all_vcpus, ms(20));
        assert_eq!(blocktime.vcpus, [ms(60), ms(20)]);
        assert_eq!(blocktime.vcpu_latency, [ms(60), ms(20)]);
        assert_eq!(blocktime.non_vcpu_latency, ms(10));
        // 8192 µs to 16384 µs, and so on.
        assert_eq!(blocktime.distribution[13..16], [1, 1, 1]);
        assert_eq!(blocktime.distribution.iter().sum::<u64>(), 3);
    }

    #[test]
    fn nobody_has_waited() {
        let waits = Waits::new(Vec::new());
        assert_eq!(waits.latency(), FaultLatency::default());
        waits.ends(BLOCK, 0..u64::MAX, Instant::now);
    }
}
