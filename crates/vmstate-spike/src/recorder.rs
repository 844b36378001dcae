//! A device with much state that changes all the time, and is no RAM: an optional part of the board.
//!
//! QEMU's board has none, so a machine with a recorder moves to machines of this kind only. It is there to show, and to
//! test, that an engine moves what it does not know.

mod handler;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vmstate_linux::{DirtyLog, GuestRam, OutOfBounds};

use crate::board::PAGE;
use crate::hart::Line;

pub(crate) use self::handler::{Handler, NAME, VERSION};

/// Bytes of an entry: its number and the time.
const ENTRY: u64 = 16;

/// A ring of entries into which the device writes while the machine runs: each is the entry's number, from 0 on, and the
/// virtual time in ns when it was made, little-endian.
#[derive(Debug)]
pub struct Recorder {
    ring: GuestRam,
    log: DirtyLog,
    /// Entries made so far.
    count: AtomicU64,
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
            period: config.period,
            burst: config.burst,
        })
    }

    /// Entries made so far; the ring holds the last ones.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Looks at all entries that the ring holds, of a machine that stands still at virtual time `now`.
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

    fn record(&self, time: u64) {
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
}
