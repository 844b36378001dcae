//! What `query-migrate` tells.

use std::time::Duration;

use super::{Gauge, Source, rate};
use crate::info::{MigrationInfo, MigrationStats};
use crate::ram::RamTotals;
use crate::status::MigrationStatus;

impl Source {
    /// What `query-migrate` says. `gauge` and `ram` are present counts; `blockers` reasons not to migrate.
    #[must_use]
    pub fn info(
        &self,
        now: Duration,
        gauge: Gauge,
        ram: &RamTotals,
        blockers: Vec<String>,
    ) -> MigrationInfo {
        let status = self.status();
        let mut info = MigrationInfo {
            status: (status != MigrationStatus::None).then_some(status),
            error_desc: self.error.clone(),
            blocked_reasons: blockers,
            unknown: self.is_unknown(),
            ..MigrationInfo::default()
        };
        let completed = status == MigrationStatus::Completed;
        let copying = status.is_running()
            && !matches!(status, MigrationStatus::Setup | MigrationStatus::WaitUnplug);
        if !completed && !copying {
            return info;
        }
        let end = self.times.end.unwrap_or(now);
        let total = end.saturating_sub(self.times.start);
        info.total_time = Some(total);
        info.setup_time = self
            .times
            .set_up
            .map(|at| at.saturating_sub(self.times.start));
        // Before its memory, the guest arrives with the package.
        let arrived = self.times.handed_over.or(completed.then_some(end));
        info.downtime = self
            .times
            .stopped
            .zip(arrived)
            .map(|(stopped, arrived)| arrived.saturating_sub(stopped));
        if !completed {
            info.remaining = Some(self.rounds.left);
        }
        if !completed && !status.is_postcopy() {
            info.expected_downtime = Some(self.expected_downtime());
        }
        let percent = self.rounds.throttle_percent();
        if status == MigrationStatus::Active && percent != 0 {
            info.cpu_throttle_percentage = Some(percent);
        }
        info.ram = Some(self.stats(gauge, ram, completed, total));
        info
    }

    fn stats(
        &self,
        gauge: Gauge,
        ram: &RamTotals,
        completed: bool,
        total: Duration,
    ) -> MigrationStats {
        let setup = self
            .times
            .set_up
            .map_or(Duration::ZERO, |at| at.saturating_sub(self.times.start));
        MigrationStats {
            transferred: gauge.transferred,
            remaining: if completed { 0 } else { ram.remaining },
            total: ram.total,
            duplicate: ram.duplicate,
            normal: ram.normal,
            normal_bytes: ram.normal.saturating_mul(ram.page_size),
            dirty_pages_rate: if completed {
                0
            } else {
                self.rounds
                    .dirty_rate()
                    .checked_div(ram.page_size)
                    .unwrap_or(0)
            },
            mbps: if completed {
                rate::megabits(gauge.transferred, total.saturating_sub(setup))
            } else {
                self.rounds.rate.mbps
            },
            dirty_sync_count: self.rounds.sync_count,
            postcopy_requests: self.requests,
            page_size: ram.page_size,
            pages_per_second: self.rounds.rate.pages_per_second,
            precopy_bytes: ram.precopy_bytes,
            downtime_bytes: ram.downtime_bytes,
            postcopy_bytes: ram.postcopy_bytes,
            ..MigrationStats::default()
        }
    }

    /// What the switchover would take now: what was left at the last look, at the last slice's rate.
    fn expected_downtime(&self) -> Duration {
        let bandwidth = self.rounds.rate.bandwidth;
        if self.rounds.sync_count <= 1 {
            return Duration::from_millis(self.settings.parameters.downtime_limit);
        }
        let milliseconds = u128::from(self.rounds.left_at_sync)
            .saturating_mul(1000)
            .checked_div(bandwidth.into())
            .and_then(|ms| i64::try_from(ms).ok())
            .unwrap_or(i64::MAX);
        Duration::from_millis(milliseconds.unsigned_abs())
    }
}
