//! Bandwidth: slices of 100 ms, what they may carry, what they did carry, and what fits into the allowed downtime.

use std::time::Duration;

use crate::settings::MigrationParameters;

/// Length of a slice.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// What the driver sees at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauge {
    /// Bytes given to all channels since the migration began.
    pub transferred: u64,
    /// Pages given to all channels since the migration began.
    pub pages: u64,
    /// Whether the guest runs.
    pub running: bool,
    /// Whether the destination waits for pages that the worker sends: there is no other channel for them.
    pub urgent: bool,
}

/// Measures and limits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rate {
    start: Duration,
    at_start: Gauge,
    /// Bytes per second of the last slice, 0 before there was one.
    pub(super) bandwidth: u64,
    pub(super) mbps: f64,
    pub(super) pages_per_second: u64,
    /// Bytes that can be sent within the allowed downtime; 0 before the first slice is over.
    pub(super) threshold: u64,
}

impl Rate {
    pub(super) fn new(now: Duration, gauge: Gauge) -> Self {
        Self {
            start: now,
            at_start: gauge,
            bandwidth: 0,
            mbps: 0.0,
            pages_per_second: 0,
            threshold: 0,
        }
    }

    /// Ends the slice if it is over.
    pub(super) fn update(&mut self, now: Duration, gauge: Gauge, parameters: &MigrationParameters) {
        let spent = now.saturating_sub(self.start);
        if spent < SLICE {
            return;
        }
        let bytes = gauge.transferred.saturating_sub(self.at_start.transferred);
        let pages = gauge.pages.saturating_sub(self.at_start.pages);
        let measured = per_second(bytes, spent);
        self.mbps = megabits(bytes, spent);
        self.pages_per_second = per_second(pages, spent);
        self.bandwidth = match parameters.avail_switchover_bandwidth {
            0 => measured,
            given => given,
        };
        self.threshold = within(self.bandwidth, parameters.downtime_limit);
        self.start = now;
        self.at_start = gauge;
    }

    /// Bytes that this slice may still carry; `None` is no limit. 0: the slice is used up.
    pub(super) fn budget(&self, gauge: Gauge, parameters: &MigrationParameters) -> Option<u64> {
        self.share(gauge, parameters.max_bandwidth)
    }

    /// As [`budget`](Self::budget), of this many bytes per second; 0 is no limit.
    pub(super) fn share(&self, gauge: Gauge, limit: u64) -> Option<u64> {
        if limit == 0 {
            return None;
        }
        let used = gauge.transferred.saturating_sub(self.at_start.transferred);
        let share = limit / 10;
        // One byte more than the share is what exceeds it.
        Some(share.saturating_add(1).saturating_sub(used))
    }

    /// When this slice is over.
    pub(super) fn end(&self) -> Duration {
        self.start.saturating_add(SLICE)
    }
}

/// Megabits per second.
pub(super) fn megabits(bytes: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        // Exact below 2^53 bytes, and rounded above.
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let bits = bytes as f64 * 8.0;
        bits / seconds / 1e6
    } else {
        0.0
    }
}

/// Events per second; 0 if no time has passed.
pub(super) fn per_second(count: u64, time: Duration) -> u64 {
    let rate = u128::from(count)
        .saturating_mul(1_000_000_000)
        .checked_div(time.as_nanos())
        .unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

fn within(bytes_per_second: u64, milliseconds: u64) -> u64 {
    let bytes = u128::from(bytes_per_second).saturating_mul(milliseconds.into()) / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(transferred: u64) -> Gauge {
        Gauge {
            transferred,
            pages: transferred / 4096,
            running: true,
            urgent: false,
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_slice_carries_a_tenth_and_no_more() {
        let parameters = MigrationParameters {
            max_bandwidth: 1000,
            ..Default::default()
        };
        let mut rate = Rate::new(ms(5), gauge(7));
        assert_eq!(rate.budget(gauge(7), &parameters), Some(101));
        assert_eq!(rate.budget(gauge(107), &parameters), Some(1));
        assert_eq!(rate.budget(gauge(108), &parameters), Some(0));
        assert_eq!(rate.budget(gauge(500), &parameters), Some(0));
        rate.update(ms(104), gauge(500), &parameters);
        assert_eq!(
            (rate.budget(gauge(500), &parameters), rate.end()),
            (Some(0), ms(105))
        );
        rate.update(ms(105), gauge(500), &parameters);
        assert_eq!(
            (rate.budget(gauge(500), &parameters), rate.end()),
            (Some(101), ms(205))
        );
        let unlimited = MigrationParameters {
            max_bandwidth: 0,
            ..Default::default()
        };
        assert_eq!(rate.budget(gauge(u64::MAX), &unlimited), None);
    }

    #[test]
    fn the_threshold_is_bandwidth_times_downtime() {
        let mut parameters = MigrationParameters::default();
        let mut rate = Rate::new(ms(0), gauge(0));
        assert_eq!(rate.threshold, 0);
        rate.update(ms(200), gauge(4096 * 1000), &parameters);
        assert_eq!(rate.bandwidth, 20_480_000);
        assert_eq!(rate.threshold, 6_144_000);
        assert_eq!(rate.pages_per_second, 5000);
        assert!((rate.mbps - 163.84).abs() < 1e-9);
        parameters.avail_switchover_bandwidth = 1 << 30;
        parameters.downtime_limit = 2000;
        rate.update(ms(300), gauge(4096 * 1000), &parameters);
        assert_eq!((rate.bandwidth, rate.threshold), (1 << 30, 2 << 30));
        assert!(rate.mbps.abs() < 1e-9);
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(per_second(u64::MAX, Duration::ZERO), 0);
        assert_eq!(per_second(u64::MAX, Duration::from_nanos(1)), u64::MAX);
        assert_eq!(within(u64::MAX, u64::MAX), u64::MAX);
        let parameters = MigrationParameters::default();
        let mut rate = Rate::new(Duration::MAX, gauge(u64::MAX));
        rate.update(Duration::ZERO, gauge(0), &parameters);
        assert_eq!(rate.end(), Duration::MAX);
    }
}
