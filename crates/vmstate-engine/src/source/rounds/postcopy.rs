//! The loop after the guest has gone before its memory.

use std::time::Duration;

use super::{Rounds, Step};
use crate::handlers::Pending;
use crate::settings::Settings;
use crate::source::Work;
use crate::source::rate::{Gauge, Rate, SLICE};

impl Rounds {
    /// Whether what must go before the guest is small enough for the allowed downtime.
    pub(in crate::source) fn may_switch(
        &self,
        gauge: Gauge,
        pending: &Pending,
        settings: &Settings,
    ) -> bool {
        let before = pending.must_precopy.saturating_add(pending.stop_copy);
        before <= self.rate.threshold && self.is_acknowledged(gauge, settings)
    }

    /// Begins when the guest has gone, and again after each recovery.
    pub(in crate::source) fn begin_postcopy(&mut self, now: Duration, gauge: Gauge) {
        self.rate = Rate::new(now, gauge);
        self.step = Step::Estimate;
        self.not_before = None;
    }

    /// Until when to wait: because this slice is used up, or because nothing is left while the destination has not loaded
    /// its devices. A request for pages ends every wait.
    pub(in crate::source) fn pause_in_postcopy(
        &mut self,
        now: Duration,
        gauge: Gauge,
        settings: &Settings,
    ) -> Option<Duration> {
        self.rate.update(now, gauge, &settings.parameters);
        if gauge.urgent {
            return None;
        }
        if let Some(until) = self.not_before(now) {
            return Some(until);
        }
        let limit = settings.parameters.max_postcopy_bandwidth;
        let used_up = self.rate.share(gauge, limit) == Some(0);
        if used_up {
            return Some(self.rate.end());
        }
        if self.step == Step::Iterate && self.left == 0 {
            self.step = Step::Estimate;
            return Some(now.saturating_add(SLICE));
        }
        None
    }

    /// The next piece of work.
    pub(in crate::source) fn next_in_postcopy(
        &self,
        now: Duration,
        gauge: Gauge,
        longest: Duration,
        settings: &Settings,
    ) -> Work {
        if self.step == Step::Estimate {
            return Work::Estimate;
        }
        let limit = settings.parameters.max_postcopy_bandwidth;
        Work::Iterate {
            budget: self.rate.share(gauge, limit),
            until: now.saturating_add(longest),
        }
    }

    /// An answer to a query; whether nothing is left.
    pub(in crate::source) fn counted_in_postcopy(&mut self, pending: &Pending) -> bool {
        self.left = pending.total();
        self.step = Step::Iterate;
        self.left == 0
    }
}
