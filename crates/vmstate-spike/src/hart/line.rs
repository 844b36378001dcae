//! How a running hart is told that something has happened.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Stop; stays until it is taken back.
const STOP: u32 = 1;
/// Look at interrupts again.
const LOOK: u32 = 2;

/// What others tell one hart, and where it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Line {
    events: AtomicU32,
    asleep: Mutex<()>,
    called: Condvar,
    instructions: AtomicU64,
    /// The kernel's number of the hart's thread; 0 before it has begun.
    thread: AtomicU32,
}

impl Line {
    /// Whether there is anything to look at. Cheap.
    #[inline]
    pub(crate) fn has_events(&self) -> bool {
        self.events.load(Ordering::Relaxed) != 0
    }

    /// Takes what there is; returns whether to stop.
    pub(crate) fn take_events(&self) -> bool {
        self.events.fetch_and(!LOOK, Ordering::AcqRel) & STOP != 0
    }

    /// Tells the hart to look at interrupts again.
    pub(crate) fn look(&self) {
        self.tell(LOOK);
    }

    /// Tells the hart to stop.
    pub(crate) fn stop(&self) {
        self.tell(STOP);
    }

    /// Takes that back, before the hart is started.
    pub(crate) fn may_run(&self) {
        self.events.fetch_and(!STOP, Ordering::AcqRel);
    }

    fn tell(&self, event: u32) {
        if self.events.fetch_or(event, Ordering::AcqRel) & event == 0 {
            // Whoever is about to sleep holds the lock, and looks at the events under it.
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.called.notify_all();
        }
    }

    /// Sleeps until there is an event, or for this long.
    pub(crate) fn sleep(&self, time: Option<Duration>) {
        self.wait(time, STOP | LOOK);
    }

    /// Sleeps for this long, or until told to stop.
    pub(crate) fn pause(&self, time: Duration) {
        self.wait(Some(time), STOP);
    }

    fn wait(&self, time: Option<Duration>, wakes: u32) {
        let end = time.and_then(|time| Instant::now().checked_add(time));
        let mut guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        while self.events.load(Ordering::Acquire) & wakes == 0 {
            guard = if let Some(end) = end {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                let result = self.called.wait_timeout(guard, left);
                result.unwrap_or_else(PoisonError::into_inner).0
            } else {
                let result = self.called.wait(guard);
                result.unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    pub(crate) fn set_thread(&self, number: u32) {
        self.thread.store(number, Ordering::Relaxed);
    }

    /// The kernel's number of the thread; 0 before it has begun.
    pub(crate) fn thread(&self) -> u32 {
        self.thread.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, instructions: u64) {
        self.instructions.fetch_add(instructions, Ordering::Relaxed);
    }

    /// Instructions since the machine was made.
    pub(crate) fn instructions(&self) -> u64 {
        self.instructions.load(Ordering::Relaxed)
    }
}
