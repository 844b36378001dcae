//! The CLINT: software interrupts, and the timer.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use vmstate::Timer;

use crate::board::{CLINT_END, MSIP, MTIME, MTIMECMP, TICK_NS};
use crate::state::MTimer;

/// Registers that all harts share.
#[derive(Debug)]
pub(crate) struct Clint {
    /// What is added to the ticks of virtual time.
    delta: AtomicU64,
    harts: Box<[Line]>,
}

#[derive(Debug, Default)]
struct Line {
    msip: AtomicBool,
    timecmp: AtomicU64,
    /// When QEMU's timer for it would be due, in ns of virtual time: a little behind the moment at which `mtime` gets
    /// there, since QEMU adds whole ticks to a time that it reads after the write. Nothing but the section depends on it.
    due: AtomicI64,
}

/// How much later than its tick QEMU's timer may be due, in ns.
const LATE_NS: i64 = 1_000_000;

/// Whom a write concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concerns {
    Nobody,
    Hart(usize),
    All,
}

impl Clint {
    pub(crate) fn new(harts: usize) -> Self {
        Self {
            delta: AtomicU64::new(0),
            harts: (0..harts).map(|_| Line::default()).collect(),
        }
    }

    /// Whether the address belongs to it.
    pub(crate) fn covers(address: u64) -> bool {
        (MSIP..CLINT_END).contains(&address)
    }

    /// `mtime` at a virtual time.
    pub(crate) fn time(&self, now: i64) -> u64 {
        let ticks = now.div_euclid(TICK_NS).cast_unsigned();
        ticks.wrapping_add(self.delta.load(Ordering::Relaxed))
    }

    /// Whether the hart's timer interrupt is pending.
    pub(crate) fn timer_pending(&self, hart: usize, now: i64) -> bool {
        self.time(now) >= self.timecmp(hart)
    }

    /// Whether the hart's software interrupt is pending.
    pub(crate) fn software_pending(&self, hart: usize) -> bool {
        self.harts
            .get(hart)
            .is_some_and(|line| line.msip.load(Ordering::Acquire))
    }

    pub(crate) fn set_software(&self, hart: usize, pending: bool) {
        if let Some(line) = self.harts.get(hart) {
            line.msip.store(pending, Ordering::Release);
        }
    }

    /// When the hart's timer interrupt becomes pending, in ns of virtual time; none if it is pending.
    pub(crate) fn deadline(&self, hart: usize, now: i64) -> Option<i64> {
        let time = self.time(now);
        let ticks = self
            .timecmp(hart)
            .checked_sub(time)
            .filter(|left| *left > 0)?;
        // To the beginning of that tick.
        let this_tick = now.saturating_sub(now.rem_euclid(TICK_NS));
        Some(this_tick.saturating_add(nanoseconds(ticks)))
    }

    /// When QEMU's timer would be due; none if the interrupt is pending.
    fn due(&self, hart: usize, now: i64) -> Option<i64> {
        let deadline = self.deadline(hart, now)?;
        let due = self.harts.get(hart)?.due.load(Ordering::Relaxed);
        // Another value is of a time before `mtime` was set, or came with a stream that was wrong.
        let fits = due >= deadline && due.wrapping_sub(deadline) < LATE_NS;
        Some(if fits { due } else { deadline })
    }

    fn timecmp(&self, hart: usize) -> u64 {
        let line = self.harts.get(hart);
        line.map_or(u64::MAX, |line| line.timecmp.load(Ordering::Acquire))
    }

    /// Reads `size` bytes at an aligned address. What is not there is 0.
    pub(crate) fn read(&self, address: u64, size: u64, now: i64) -> u64 {
        let double = match address {
            MTIME.. => self.time(now),
            MTIMECMP.. => {
                let hart = index(address - MTIMECMP, 8);
                let line = self.harts.get(hart);
                line.map_or(0, |line| line.timecmp.load(Ordering::Acquire))
            }
            _ => {
                let hart = index(address - MSIP, 4);
                return u64::from(self.software_pending(hart));
            }
        };
        part(double, address % 8, size)
    }

    /// Writes `size` bytes at an aligned address. What is not there takes nothing.
    pub(crate) fn write(&self, address: u64, size: u64, value: u64, now: i64) -> Concerns {
        match address {
            MTIME.. => {
                let time = replace(self.time(now), address % 8, size, value);
                let ticks = now.div_euclid(TICK_NS).cast_unsigned();
                self.delta
                    .store(time.wrapping_sub(ticks), Ordering::Relaxed);
                Concerns::All
            }
            MTIMECMP.. => {
                let hart = index(address - MTIMECMP, 8);
                let Some(line) = self.harts.get(hart) else {
                    return Concerns::Nobody;
                };
                let old = line.timecmp.load(Ordering::Acquire);
                let new = replace(old, address % 8, size, value);
                line.timecmp.store(new, Ordering::Release);
                let ticks = new.saturating_sub(self.time(now));
                let due = now.saturating_add(nanoseconds(ticks));
                line.due.store(due, Ordering::Relaxed);
                Concerns::Hart(hart)
            }
            _ => {
                let hart = index(address - MSIP, 4);
                self.set_software(hart, value & 1 == 1);
                Concerns::Hart(hart)
            }
        }
    }

    /// The section, for a machine that stands still at this time.
    pub(crate) fn save(&self, now: i64) -> MTimer {
        let mut state = MTimer::new(u32::try_from(self.harts.len()).unwrap_or_default());
        state.time_delta = self.delta.load(Ordering::Relaxed);
        for (hart, (timecmp, timer)) in state.timecmp.iter_mut().zip(&mut state.timers).enumerate()
        {
            *timecmp = self.timecmp(hart);
            *timer = Timer(self.due(hart, now));
        }
        state
    }

    /// Takes a section over. Interrupts come by `timecmp`, whatever `timers` say.
    pub(crate) fn load(&self, state: &MTimer) {
        self.delta.store(state.time_delta, Ordering::Relaxed);
        let values = state.timecmp.iter().zip(&state.timers);
        for (line, (timecmp, timer)) in self.harts.iter().zip(values) {
            line.timecmp.store(*timecmp, Ordering::Release);
            line.due.store(timer.0.unwrap_or(-1), Ordering::Relaxed);
        }
    }
}

/// So many ticks in ns. What is later than the end of time never comes.
fn nanoseconds(ticks: u64) -> i64 {
    let ticks = i64::try_from(ticks).unwrap_or(i64::MAX);
    ticks.saturating_mul(TICK_NS)
}

fn index(offset: u64, stride: u64) -> usize {
    usize::try_from(offset / stride).unwrap_or(usize::MAX)
}

/// `size` bytes of a double word from byte `at` on.
fn part(double: u64, at: u64, size: u64) -> u64 {
    let value = double >> (8 * at);
    if size >= 8 {
        value
    } else {
        value & ((1 << (8 * size)) - 1)
    }
}

/// A double word in which `size` bytes from byte `at` on are replaced.
fn replace(double: u64, at: u64, size: u64, value: u64) -> u64 {
    if size >= 8 {
        return value;
    }
    let mask = ((1 << (8 * size)) - 1) << (8 * at);
    double & !mask | (value << (8 * at)) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_deadlines() {
        let clint = Clint::new(2);
        assert_eq!(clint.time(601_362_329), 0x5b_c2b7);
        assert!(clint.timer_pending(0, 0), "mtimecmp is 0");
        assert_eq!(clint.deadline(0, 0), None);
        assert_eq!(clint.write(MTIMECMP, 8, 1000, 250), Concerns::Hart(0));
        assert_eq!(clint.deadline(0, 250), Some(100_000));
        assert_eq!(clint.due(0, 250), Some(100_050));
        assert_eq!(clint.due(0, 99_000), Some(100_050));
        assert_eq!(clint.due(0, 100_000), None);
        assert_eq!(clint.deadline(0, 99_999), Some(100_000));
        assert!(!clint.timer_pending(0, 99_999) && clint.timer_pending(0, 100_000));
        clint.write(MTIMECMP + 8, 8, u64::MAX, 0);
        assert_eq!(clint.deadline(1, 5), Some(i64::MAX));
        assert_eq!(clint.write(MTIME, 8, 5000, 1000), Concerns::All);
        assert_eq!(clint.read(MTIME, 8, 1000), 5000);
        assert_eq!(clint.read(MTIME, 8, 2100), 5011);
        assert!(clint.timer_pending(0, 1000));
    }

    #[test]
    fn registers_by_word_and_byte() {
        let clint = Clint::new(1);
        clint.write(MTIMECMP, 8, 0x1122_3344_5566_7788, 0);
        assert_eq!(clint.read(MTIMECMP, 4, 0), 0x5566_7788);
        assert_eq!(clint.read(MTIMECMP + 4, 4, 0), 0x1122_3344);
        clint.write(MTIMECMP + 4, 4, 0xaabb_ccdd, 0);
        assert_eq!(clint.read(MTIMECMP, 8, 0), 0xaabb_ccdd_5566_7788);
        clint.write(MTIMECMP + 1, 1, 0x1ff, 0);
        assert_eq!(clint.read(MTIMECMP, 2, 0), 0xff88);
        assert_eq!(clint.read(MTIMECMP + 8, 8, 0), 0);
        assert_eq!(clint.write(MTIMECMP + 8, 8, 1, 0), Concerns::Nobody);
        clint.write(MSIP, 4, 1, 0);
        assert!(clint.software_pending(0));
        assert_eq!(clint.read(MSIP, 4, 0), 1);
        clint.write(MSIP, 4, 2, 0);
        assert!(!clint.software_pending(0));
    }

    #[test]
    fn the_section_says_when_timers_are_due() {
        let clint = Clint::new(2);
        clint.write(MTIME, 8, 70, 0);
        clint.write(MTIMECMP, 8, 100, 0);
        clint.write(MTIMECMP + 8, 8, 10, 0);
        let state = clint.save(0);
        assert_eq!(state.time_delta, 70);
        assert_eq!(state.timecmp, [100, 10]);
        assert_eq!(state.timers, [Timer(Some(3000)), Timer(None)]);
        let other = Clint::new(2);
        // QEMU's rule would lose the first tick.
        other.load(&MTimer {
            timers: vec![Timer(None); 2],
            ..state.clone()
        });
        assert_eq!(other.save(0), state);
    }
}
