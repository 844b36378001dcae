//! Virtual time: it stands still while the machine does.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// The machine's clock in ns.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    now: RwLock<View>,
}

/// What a running hart knows of the clock: enough to read it without asking others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct View {
    /// The time when it was started last, or stopped.
    base: i64,
    since: Option<Instant>,
}

impl View {
    /// Virtual time in ns.
    #[inline]
    pub(crate) fn now(&self) -> i64 {
        let Some(since) = self.since else {
            return self.base;
        };
        let passed = i64::try_from(since.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.base.saturating_add(passed)
    }

    /// How long it is until then.
    pub(crate) fn until(&self, deadline: i64) -> Duration {
        let left = deadline.saturating_sub(self.now()).max(0);
        Duration::from_nanos(left.unsigned_abs())
    }
}

impl Clock {
    pub(crate) fn view(&self) -> View {
        *self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn start(&self) {
        self.change(|view| {
            if view.since.is_none() {
                view.since = Some(Instant::now());
            }
        });
    }

    pub(crate) fn stop(&self) {
        self.change(|view| {
            *view = View {
                base: view.now(),
                since: None,
            };
        });
    }

    /// Sets the time of a clock that stands still.
    pub(crate) fn set(&self, ns: i64) {
        self.change(|view| {
            *view = View {
                base: ns,
                since: view.since.map(|_| Instant::now()),
            };
        });
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.now.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_only_while_started() {
        let clock = Clock::default();
        clock.set(1_000_000);
        assert_eq!(clock.view().now(), 1_000_000);
        clock.start();
        let view = clock.view();
        std::thread::sleep(Duration::from_millis(2));
        assert!(view.now() >= 3_000_000);
        clock.stop();
        let stopped = clock.view().now();
        assert!(stopped >= 3_000_000);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.view().now(), stopped);
        assert_eq!(clock.view().until(stopped + 5), Duration::from_nanos(5));
        assert_eq!(clock.view().until(stopped - 5), Duration::ZERO);
    }
}
