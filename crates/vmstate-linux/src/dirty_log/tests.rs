use std::thread;
use std::time::{Duration, Instant};

use crate::GuestRam;

use super::*;

fn pages(log: &DirtyLog) -> Vec<u64> {
    let mut pages = Vec::new();
    let count = log.collect(|word, bits| {
        for i in (0..64).filter(|i| bits >> i & 1 == 1) {
            pages.push(word as u64 * 64 + i);
        }
    });
    assert_eq!(count, pages.len() as u64);
    pages
}

#[test]
fn marks_are_taken_once() {
    let log = DirtyLog::new(70 * 4096 + 1, 4096);
    assert_eq!((log.pages(), log.page_size()), (71, 4096));
    for offset in [0, 4095, 70 * 4096, 63 * 4096, 64 * 4096] {
        log.mark(offset);
    }
    log.mark(128 * 4096);
    log.mark(u64::MAX);
    assert_eq!(pages(&log), [0, 63, 64, 70]);
    assert!(pages(&log).is_empty());
    log.mark(4096);
    assert_eq!(pages(&log), [1]);
}

#[test]
fn ranges_mark_each_page_that_they_touch() {
    let log = DirtyLog::new(1 << 30, 4096);
    for (offset, len, first, last) in [
        (0_u64, 1_u64, 0_u64, 0_u64),
        (4095, 2, 0, 1),
        (64 * 4096, 64 * 4096, 64, 127),
        (60 * 4096 + 5, 200 * 4096, 60, 260),
        ((1 << 30) - 1, u64::MAX, (1 << 18) - 1, (1 << 18) - 1),
        (0, 1 << 30, 0, (1 << 18) - 1),
    ] {
        log.mark_range(offset, len);
        assert_eq!(pages(&log), (first..=last).collect::<Vec<_>>());
    }
    log.mark_range(4096, 0);
    log.mark_range(1 << 30, 4096);
    log.mark_range(u64::MAX, u64::MAX);
    assert!(pages(&log).is_empty());
}

#[test]
fn into_a_bitmap_marks_are_added() {
    let log = DirtyLog::new(256 * 4096, 4096);
    let mut bitmap = [1, 0];
    log.mark_range(63 * 4096, 2 * 4096);
    log.mark(200 * 4096);
    assert_eq!(log.collect_into(&mut bitmap), 3);
    assert_eq!(bitmap, [1 | 1 << 63, 1]);
    assert!(pages(&log).is_empty());
}

/// The one promise: what was stored before a mark that is taken can be read, and what is stored later is marked again.
///
/// The second store to a page finds it marked, and is the one that may be lost: its own line of the cache is elsewhere,
/// since the collector has looked at it.
fn nothing_is_lost(fences: bool) {
    const PAGES: u64 = 4096;
    const ROUNDS: u64 = 300;
    let ram = GuestRam::new(PAGES * 4096).unwrap();
    let log = DirtyLog::new(ram.len(), 4096);
    log.fences.store(fences, Ordering::SeqCst);
    let started = AtomicU64::new(0);
    let stored = AtomicU64::new(0);
    let deadline = Instant::now() + Duration::from_secs(5);
    let second = |page: u64| page * 4096 + 1024;
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                while started.load(Ordering::SeqCst) < round {
                    thread::yield_now();
                }
                for page in 0..PAGES {
                    ram.store(page * 4096, round);
                    log.mark(page * 4096);
                    ram.store(second(page), round);
                    log.mark(second(page));
                }
                stored.store(round, Ordering::SeqCst);
            }
        });
        let mut copy = vec![0_u64; usize::try_from(PAGES).unwrap()];
        for round in 1..=ROUNDS {
            started.store(round, Ordering::SeqCst);
            let mut last = false;
            while !last {
                last = stored.load(Ordering::SeqCst) == round;
                for page in pages(&log) {
                    copy[usize::try_from(page).unwrap()] = ram.load(second(page)).unwrap();
                }
            }
            let lost = copy.iter().filter(|value| **value != round).count();
            if lost > 0 || Instant::now() > deadline {
                started.store(ROUNDS, Ordering::SeqCst);
                assert_eq!(lost, 0, "round {round}");
                break;
            }
        }
    });
}

#[test]
fn nothing_is_lost_between_threads() {
    nothing_is_lost(false);
}

#[test]
fn nothing_is_lost_without_the_kernels_barrier() {
    nothing_is_lost(true);
}
