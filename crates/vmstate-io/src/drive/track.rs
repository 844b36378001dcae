//! What the answers of a source add up to.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use vmstate_qmp::migration::{MigrationInfo, MigrationStatus};

use super::forecast::{Outlook, Situation, as_f64, whole};

/// Rates are those of this time.
const WINDOW: Duration = Duration::from_secs(2);

/// How a migration stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What it is doing.
    pub status: MigrationStatus,
    /// Since it was begun.
    pub elapsed: Duration,
    /// Bytes sent so far.
    pub transferred: u64,
    /// Bytes of guest memory left to be sent.
    pub remaining: u64,
    /// Bytes of guest memory that travels.
    pub total: u64,
    /// Bytes sent per second, lately.
    pub throughput: u64,
    /// Bytes of guest memory that get dirty per second, as measured when the last round ended.
    pub dirty_rate: u64,
    /// Round over memory, from 1. 0: not begun.
    pub pass: u64,
    /// Milliseconds that the guest would be stopped if it was now.
    pub expected_downtime: Option<u64>,
    /// Percent of the time that the guest is held up.
    pub throttle: Option<u64>,
    /// What is to be expected, while the guest runs.
    pub outlook: Option<Outlook>,
}

/// An answer, and when it came.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    pass: u64,
    transferred: u64,
    remaining: u64,
}

/// Turns answers into [`Progress`].
#[derive(Debug)]
pub(super) struct Tracker {
    begin: Instant,
    samples: VecDeque<Sample>,
    /// Bytes left at the beginning of this round and of the one before.
    at_sync: Option<u64>,
    before: Option<u64>,
    downtime_limit: u64,
    max_bandwidth: u64,
    auto_converge: bool,
    postcopy: bool,
}

impl Tracker {
    pub(super) fn new(begin: Instant) -> Self {
        Self {
            begin,
            samples: VecDeque::new(),
            at_sync: None,
            before: None,
            downtime_limit: 300,
            max_bandwidth: 0,
            auto_converge: false,
            postcopy: false,
        }
    }

    /// Since the migration was begun.
    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begin)
    }

    /// What the parameters are now.
    pub(super) fn parameters(&mut self, parameters: &Map<String, Value>) {
        let number = |name: &str| parameters.get(name).and_then(Value::as_u64);
        self.downtime_limit = number("downtime-limit").unwrap_or(self.downtime_limit);
        self.max_bandwidth = number("max-bandwidth").unwrap_or(self.max_bandwidth);
    }

    /// Which capabilities are on.
    pub(super) fn capabilities(&mut self, on: impl Fn(&str) -> bool) {
        self.auto_converge = on("auto-converge") || on("dirty-limit");
        self.postcopy = on("postcopy-ram");
    }

    /// An answer that came now.
    pub(super) fn take(&mut self, info: &MigrationInfo, now: Instant) -> Progress {
        let ram = info.ram.clone().unwrap_or_default();
        let pass = ram.dirty_sync_count;
        let new_pass = pass >= 2 && self.samples.back().is_some_and(|last| last.pass < pass);
        self.samples.push_back(Sample {
            at: now,
            pass,
            transferred: ram.transferred,
            remaining: ram.remaining,
        });
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|s| now - s.at >= WINDOW) {
            self.samples.pop_front();
        }
        let throughput = self.throughput(now);
        let dirty = ram.dirty_pages_rate.saturating_mul(ram.page_size);
        // Without a bandwidth, QEMU's is the largest number there is.
        let expected_downtime = info.expected_downtime;
        let expected_downtime = expected_downtime.filter(|ms| *ms < i64::MAX.cast_unsigned());
        if new_pass {
            // Short rounds are over before they are seen, but the source remembers what they began with. It does so where
            // something gets dirty; else it shows the limit.
            let told = match expected_downtime {
                Some(time) if dirty > 0 => whole(as_f64(time) * throughput / 1000.0),
                _ => 0,
            };
            self.before = self.at_sync;
            self.at_sync = Some(ram.remaining.max(told));
        }
        let status = info.status();
        let situation = Situation {
            pass,
            remaining: as_f64(ram.remaining),
            at_sync: self.at_sync.map(as_f64),
            before: self.before.map(as_f64),
            throughput,
            drain: self.drain().max(throughput),
            dirty: as_f64(dirty),
            downtime_limit: self.downtime_limit,
            max_bandwidth: self.max_bandwidth,
            auto_converge: self.auto_converge,
            postcopy: self.postcopy,
        };
        let runs = status == MigrationStatus::ACTIVE && pass > 0;
        Progress {
            elapsed: now - self.begin,
            transferred: ram.transferred,
            remaining: ram.remaining,
            total: ram.total,
            throughput: whole(throughput),
            dirty_rate: dirty,
            pass,
            // Without a bandwidth, QEMU's is the largest number there is.
            expected_downtime: info
                .expected_downtime
                .filter(|ms| *ms < i64::MAX.cast_unsigned()),
            throttle: info.cpu_throttle_percentage.filter(|percent| *percent > 0),
            outlook: runs.then(|| situation.outlook()),
            status,
        }
    }

    /// Bytes per second on the wire.
    fn throughput(&self, now: Instant) -> f64 {
        match self.samples.front() {
            Some(first) if now > first.at => {
                let sent = self.samples.back().map_or(0, |last| last.transferred);
                as_f64(sent.saturating_sub(first.transferred)) / (now - first.at).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    /// Bytes of guest memory that get clean per second, of the times between answers in one round.
    fn drain(&self) -> f64 {
        let (mut bytes, mut time) = (0, Duration::ZERO);
        for (one, next) in self.samples.iter().zip(self.samples.iter().skip(1)) {
            if one.pass == next.pass {
                bytes += one.remaining.saturating_sub(next.remaining);
                time += next.at - one.at;
            }
        }
        match time {
            Duration::ZERO => 0.0,
            time => as_f64(bytes) / time.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info(pass: u64, transferred: u64, remaining: u64, dirty: u64) -> MigrationInfo {
        serde_json::from_value(json!({
            "status": "active",
            "expected-downtime": 300,
            "ram": {
                "dirty-sync-count": pass, "transferred": transferred, "remaining": remaining,
                "total": 1000, "dirty-pages-rate": dirty, "page-size": 10,
            },
        }))
        .unwrap()
    }

    #[test]
    fn rates_and_rounds() {
        let begin = Instant::now();
        let mut tracker = Tracker::new(begin);
        let parameters = json!({"downtime-limit": 100, "max-bandwidth": 100});
        tracker.parameters(parameters.as_object().unwrap());
        let mut at = |second: u64, info: &MigrationInfo| {
            tracker.take(info, begin + Duration::from_secs(second))
        };
        let first = at(0, &info(1, 0, 1000, 0));
        assert_eq!((first.throughput, first.pass), (0, 1));
        assert_eq!(first.outlook, Some(Outlook::FirstPass { seconds: None }));
        // Half of the pages are zero: 100 bytes a second are 200 of memory.
        let second = at(1, &info(1, 100, 800, 0));
        assert_eq!(second.throughput, 100);
        assert_eq!(
            second.outlook,
            Some(Outlook::FirstPass { seconds: Some(4.0) })
        );
        let fast = at(2, &info(2, 200, 100, 20));
        assert_eq!((fast.dirty_rate, fast.elapsed.as_secs()), (200, 2));
        assert!(
            matches!(
                fast.outlook,
                Some(Outlook::DoesNotConverge {
                    downtime_needed: 1000,
                    ..
                })
            ),
            "{:?}",
            fast.outlook
        );
        // The rounds get shorter.
        at(3, &info(3, 300, 60, 5));
        let slow = at(4, &info(4, 400, 30, 5));
        assert!(
            matches!(slow.outlook, Some(Outlook::Converges { .. })),
            "{:?}",
            slow.outlook
        );
    }

    #[test]
    fn rounds_that_nobody_sees() {
        let begin = Instant::now();
        let mut tracker = Tracker::new(begin);
        let parameters = json!({"downtime-limit": 100, "max-bandwidth": 100});
        tracker.parameters(parameters.as_object().unwrap());
        let mut outlook = None;
        for second in 0..5 {
            let mut info = info(second + 1, second * 100, 0, 10);
            info.expected_downtime = Some(700);
            let at = begin + Duration::from_secs(second);
            outlook = tracker.take(&info, at).outlook;
        }
        assert!(
            matches!(
                outlook,
                Some(Outlook::DoesNotConverge {
                    downtime_needed: 700,
                    ..
                })
            ),
            "{outlook:?}"
        );
    }

    #[test]
    fn a_migration_that_has_not_begun() {
        let begin = Instant::now();
        let progress = Tracker::new(begin).take(&MigrationInfo::default(), begin);
        assert_eq!(progress.status, MigrationStatus::NONE);
        assert_eq!((progress.total, progress.outlook), (0, None));
        let unknown = MigrationInfo {
            expected_downtime: Some(i64::MAX.cast_unsigned()),
            ..MigrationInfo::default()
        };
        let progress = Tracker::new(begin).take(&unknown, begin);
        assert_eq!(progress.expected_downtime, None);
    }
}
