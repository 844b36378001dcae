//! A device with much state that changes all the time, and is no RAM: an optional part of the board.
//!
//! QEMU's board has none, so a machine with a recorder moves to machines of this kind only. It is there to show, and to
//! test, that an engine moves what it does not know: in rounds, and in postcopy after the guest.

mod handler;
mod registers;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmstate_linux::{DirtyLog, GuestRam, OutOfBounds};

use crate::board::PAGE;
use crate::hart::Line;

pub(crate) use self::handler::{Handler, NAME, VERSION};
pub(crate) use self::registers::Registers;

/// Bytes of an entry: its number and the time.
const ENTRY: u64 = ENTRY_BYTES as u64;
const ENTRY_BYTES: usize = 16;

/// A ring of entries into which the device writes while the machine runs: each is the entry's number, from 0 on, and the
/// virtual time in ns when it was made, little-endian.
#[derive(Debug)]
pub struct Recorder {
    ring: GuestRam,
    log: DirtyLog,
    /// Entries made so far.
    count: AtomicU64,
    /// Entries made before the machine came here.
    arrived_with: AtomicU64,
    /// Pages that came behind the guest.
    late: AtomicU64,
    /// Held by who changes the ring: in postcopy, its past comes while the device goes on writing.
    writing: Mutex<()>,
    period: Duration,
    burst: u64,
}

/// How a [`Recorder`] is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecorderConfig {
    /// Bytes of the ring: a positive multiple of 4096.
    pub bytes: u64,
    /// Time between two bursts of entries.
    pub period: Duration,
    /// Entries of a burst.
    pub burst: u64,
}

impl Default for RecorderConfig {
    /// 4 MiB; a page full of entries every 2 ms.
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            period: Duration::from_millis(2),
            burst: PAGE / ENTRY,
        }
    }
}

/// Why the entries are not those that were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {expected} has number {number} and time {time}")]
pub struct WrongEntry {
    /// Its number, as it must be.
    pub expected: u64,
    /// As it is.
    pub number: u64,
    /// Its time in ns, which must not be before that of the entry before, nor later than now.
    pub time: u64,
}

impl Recorder {
    pub(crate) fn new(config: RecorderConfig) -> io::Result<Self> {
        Ok(Self {
            ring: GuestRam::new(config.bytes)?,
            log: DirtyLog::new(config.bytes, PAGE),
            count: AtomicU64::new(0),
            arrived_with: AtomicU64::new(0),
            late: AtomicU64::new(0),
            writing: Mutex::new(()),
            period: config.period,
            burst: config.burst,
        })
    }

    /// Entries made so far; the ring holds the last ones.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Pages of the ring that have come behind the guest, in postcopy.
    #[must_use]
    pub fn late_pages(&self) -> u64 {
        self.late.load(Ordering::Acquire)
    }

    /// Looks at all entries that the ring holds, of a machine that stands still at virtual time `now`, and of which all has arrived.
    ///
    /// # Errors
    /// The first one that is wrong.
    pub fn check(&self, now: i64) -> Result<(), WrongEntry> {
        let places = self.ring.len() / ENTRY;
        let count = self.entries();
        let mut last = 0;
        for expected in count.saturating_sub(places)..count {
            let at = expected % places * ENTRY;
            let number = self.ring.load(at).unwrap_or(0);
            let time: u64 = self.ring.load(at + 8).unwrap_or(0);
            if number != expected || time < last || time > now.cast_unsigned() {
                return Err(WrongEntry {
                    expected,
                    number,
                    time,
                });
            }
            last = time;
        }
        Ok(())
    }

    /// What the device's thread does while the machine runs.
    pub(crate) fn run(&self, line: &Line, now: impl Fn() -> i64) {
        while !line.take_events() {
            for _ in 0..self.burst {
                self.record(now().cast_unsigned());
            }
            line.pause(self.period);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // What is written under it is whole, whoever has panicked elsewhere.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, time: u64) {
        let _writing = self.lock();
        let number = self.count.load(Ordering::Relaxed);
        let at = number % (self.ring.len() / ENTRY) * ENTRY;
        self.ring.store(at, number);
        self.ring.store(at + 8, time);
        self.log.mark(at);
        self.count.store(number.wrapping_add(1), Ordering::Release);
    }

    fn read(&self, page: u64, out: &mut [u8]) -> Result<(), OutOfBounds> {
        self.ring.read(page * PAGE, out)
    }

    /// The machine has come here when so many entries had been made.
    fn arrive_with(&self, count: u64) {
        self.arrived_with.store(count, Ordering::Release);
        self.count.store(count, Ordering::Release);
    }

    /// Takes a page as it was at the source. Entries that were made here since are newer.
    fn take(&self, page: u64, content: &[u8]) -> Result<(), OutOfBounds> {
        let _writing = self.lock();
        let (before, count) = (self.arrived_with.load(Ordering::Acquire), self.entries());
        let places = self.ring.len() / ENTRY;
        let first = page * (PAGE / ENTRY);
        // All of it, or none that is there.
        if before == count || first >= places {
            return self.ring.write(page * PAGE, content);
        }
        for (place, entry) in (first..).zip(content.chunks(ENTRY_BYTES)) {
            // The first entry since then that belongs here.
            let newer = before + (place + places - before % places) % places;
            if newer >= count {
                self.ring.write(place * ENTRY, entry)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_does_not_replace_what_is_newer() {
        const PLACES: u64 = 2 * PAGE / ENTRY;
        let recorder = Recorder::new(RecorderConfig {
            bytes: 2 * PAGE,
            ..RecorderConfig::default()
        })
        .unwrap();
        let entry = |place: u64| recorder.ring.load::<u64>(place * ENTRY).unwrap();
        for (before, since) in [
            (0, 0),
            (5, 0),
            (PLACES - 2, 5),
            (3 * PLACES + 250, 300),
            (7, 2 * PLACES),
        ] {
            recorder.arrive_with(before);
            for place in 0..PLACES {
                recorder.ring.store(place * ENTRY, u64::MAX);
            }
            for _ in 0..since {
                recorder.record(1);
            }
            let old = [0xaa; 4096];
            recorder.take(0, &old).unwrap();
            recorder.take(1, &old).unwrap();
            let newer: Vec<u64> = (before..before + since).map(|n| n % PLACES).collect();
            for place in 0..PLACES {
                let kept = newer.contains(&place);
                assert_eq!(
                    entry(place) != 0xaaaa_aaaa_aaaa_aaaa,
                    kept,
                    "{before}, {since}: {place}"
                );
            }
        }
        assert!(recorder.take(2, &[0; 4096]).is_err());
    }
}
