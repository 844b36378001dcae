use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

fn ram(len: u64) -> GuestRam {
    GuestRam::new(len).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (1..=251).cycle().take(len).collect()
}

#[test]
fn words_are_little_endian_and_may_lie_anywhere() {
    let ram = ram(8192);
    for offset in [0, 1, 3, 8, 4092, 4093, 4095, 8184] {
        assert!(ram.store(offset, 0x0102_0304_0506_0708_u64));
        let mut bytes = [0; 8];
        ram.read(offset, &mut bytes).unwrap();
        assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(ram.load::<u8>(offset + 7), Some(1));
        assert_eq!(ram.load::<u16>(offset + 1), Some(0x0607));
        assert_eq!(ram.load::<u32>(offset + 4), Some(0x0102_0304));
        assert_eq!(ram.load::<u64>(offset), Some(0x0102_0304_0506_0708));
    }
}

#[test]
fn nothing_happens_outside() {
    let ram = ram(4096);
    for offset in [4089, 4095, 4096, u64::MAX, u64::MAX - 7] {
        assert_eq!(ram.load::<u64>(offset), None);
        assert!(!ram.store(offset, u64::MAX));
        assert_eq!(ram.update(offset, |x: u64| !x), None);
        assert_eq!(ram.compare_exchange(offset, 0_u64, 1), None);
    }
    let outside = |offset, len| OutOfBounds {
        offset,
        len,
        size: 4096,
    };
    assert_eq!(ram.read(4090, &mut [1; 7]), Err(outside(4090, 7)));
    assert_eq!(ram.write(u64::MAX, &[1; 7]), Err(outside(u64::MAX, 7)));
    assert_eq!(ram.fill(0, 4097, 1), Err(outside(0, 4097)));
    assert_eq!(ram.is_zero(4097, 0), Err(outside(4097, 0)));
    assert!(ram.discard(0, 8192).is_err() && ram.populate(4095, 2).is_err());
    assert!(ram.is_zero(0, 4096).unwrap());
    assert_eq!(
        outside(0x20, 7).to_string(),
        "7 bytes at 0x20 of a memory of 0x1000 bytes"
    );
    for bad in [0, 1, 4095, u64::MAX, u64::MAX - 4095] {
        assert!(GuestRam::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn copies_of_any_length_at_any_offset() {
    let ram = ram(3 * 4096);
    let bytes = pattern(300);
    for offset in [0, 1, 5, 8, 4000, 4096, 4095] {
        for len in [0, 1, 3, 7, 8, 9, 15, 16, 17, 64, 65, 300] {
            ram.fill(0, ram.len(), 0xee).unwrap();
            ram.write(offset, &bytes[..len]).unwrap();
            let mut all = vec![0; 3 * 4096];
            ram.read(0, &mut all).unwrap();
            let start = usize::try_from(offset).unwrap();
            assert_eq!(all[start..start + len], bytes[..len]);
            assert!(all[..start].iter().all(|byte| *byte == 0xee));
            assert!(all[start + len..].iter().all(|byte| *byte == 0xee));
            let mut some = vec![0; len];
            ram.read(offset, &mut some).unwrap();
            assert_eq!(some, bytes[..len]);
        }
    }
}

#[test]
fn one_bit_anywhere_is_not_zero() {
    let ram = ram(8192);
    for offset in (0..400).chain(4000..4300) {
        ram.store(offset, 0x80_u8);
        for (start, end) in [(0, 8192), (offset, offset + 1), (offset.max(3) - 3, 4400)] {
            assert!(!ram.is_zero(start, end - start).unwrap());
        }
        assert!(ram.is_zero(0, offset).unwrap());
        assert!(ram.is_zero(offset + 1, 8191 - offset).unwrap());
        ram.store(offset, 0_u8);
    }
    assert!(ram.is_zero(0, 8192).unwrap());
    assert!(ram.is_zero(8192, 0).unwrap());
}

#[test]
fn atomic_operations_want_alignment() {
    let ram = ram(4096);
    assert_eq!(ram.compare_exchange(8, 0_u64, 5), Some(Ok(0)));
    assert_eq!(ram.compare_exchange(8, 0_u64, 6), Some(Err(5)));
    assert_eq!(ram.update(12, |x: u32| x | 1), Some(0));
    assert_eq!(ram.load(8), Some(0x1_0000_0005_u64));
    assert_eq!(ram.update(9, |x: u32| x), None);
    assert_eq!(ram.compare_exchange(12, 0_u64, 0), None);
}

#[test]
fn memory_is_taken_when_touched_and_given_back() {
    let ram = ram(64 << 30);
    ram.store(63 << 30, 1_u8);
    ram.populate(4097, 8192).unwrap();
    ram.populate(0, 0).unwrap();
    assert!(ram.is_zero(0, 16384).unwrap());
    ram.write(0, &pattern(16384)).unwrap();
    ram.populate(0, 16384).unwrap();
    ram.discard(4096, 8192).unwrap();
    assert!(ram.discard(1, 4096).is_err() && ram.discard(0, 5).is_err());
    ram.discard(0, 0).unwrap();
    assert!(ram.is_zero(4096, 8192).unwrap());
    assert_eq!(ram.load::<u8>(4095), Some(pattern(4096)[4095]));
    assert!(!ram.is_zero(12288, 1).unwrap());
}

#[test]
fn untouched_pages_are_known_and_stay_so() {
    let ram = ram(8 << 30);
    // A kernel may give out huge pages; here only what is asked for shall be there.
    _ = ram.wish_huge_pages(false);
    if ram.untouched(0) == 0 {
        eprintln!("skipped: the kernel does not say");
        return;
    }
    assert_eq!(ram.untouched(0), u64::MAX);
    assert_eq!(ram.untouched((8 << 30) - 3 * 4096), 0b111);
    for outside in [8 << 30, u64::MAX, 1, 4095] {
        assert_eq!(ram.untouched(outside), 0, "{outside}");
    }
    ram.store(5 * 4096 + 17, 1_u8);
    ram.store(63 * 4096, 0_u8);
    assert_eq!(ram.untouched(0), !(1 << 5 | 1 << 63));
    assert_eq!(ram.untouched(64 * 4096), u64::MAX);
    // What was only read is the kernel's page of zeros: not untouched any more, which is the safe answer.
    assert!(ram.is_zero(4096, 4096).unwrap());
    ram.discard(0, 64 * 4096).unwrap();
    assert_eq!(ram.untouched(0), u64::MAX);
}

#[test]
fn threads_update_without_losing_anything() {
    let ram = ram(4096);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let ram = &ram;
            scope.spawn(move || {
                for _ in 0..10_000 {
                    ram.update(64, |x: u64| x + 1);
                    ram.update(72 + thread / 2, |x: u8| x ^ 1);
                }
            });
        }
    });
    assert_eq!(ram.load(64), Some(40_000_u64));
    assert_eq!(ram.load(72), Some(0_u8));
}

#[test]
fn an_aligned_word_is_seen_whole() {
    let ram = ram(4096);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = 0_u8;
            while !stop.load(Ordering::Relaxed) {
                ram.store(8, u64::from_ne_bytes([byte; 8]));
                byte = byte.wrapping_add(1);
            }
        });
        let mut changes = 0;
        let mut last = [0; 8];
        // The other thread may have to wait for its turn.
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let bytes = ram.load::<u64>(8).unwrap().to_ne_bytes();
            assert_eq!(bytes, [bytes[0]; 8]);
            changes += u32::from(bytes != last);
            last = bytes;
            if changes > 1000 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(changes > 1000, "{changes}");
    });
}
