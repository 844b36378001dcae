//! The rounds of precopy: when to look, when to send, when to stop the guest.

mod postcopy;

use std::time::Duration;

use super::approach::Approach;
use super::rate::{Gauge, Rate};
use super::throttle::Throttle;
use super::work::{Notice, Work};
use crate::handlers::Pending;
use crate::settings::{Capability, Settings};

/// With auto-converge, the longest that a round goes on without a look at the dirty log.
const LONG_ROUND: Duration = Duration::from_secs(5);

/// What comes next in the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Ask roughly what is left.
    Estimate,
    /// Ask exactly. `round`: because the estimate says that a round is over.
    Exact { round: bool },
    /// Send.
    Iterate,
}

/// The loop's state.
#[derive(Debug, Clone)]
pub(super) struct Rounds {
    step: Step,
    pub(super) rate: Rate,
    throttle: Throttle,
    approach: Approach,
    not_before: Option<Duration>,
    last_sync: Duration,
    /// Acknowledgements that devices at the destination still owe.
    acks: i64,
    /// Rounds, from 1 on. QEMU: `dirty-sync-count`.
    pub(super) sync_count: u64,
    /// What was left at the last exact query, in bytes.
    pub(super) left_at_sync: u64,
    /// What is left, in bytes, as far as known.
    pub(super) left: u64,
}

/// What came of a query.
pub(super) struct Verdict {
    pub(super) converged: bool,
    pub(super) notices: Vec<Notice>,
}

impl Rounds {
    pub(super) fn new(now: Duration, gauge: Gauge, acks: i64) -> Self {
        Self {
            step: Step::Estimate,
            rate: Rate::new(now, gauge),
            throttle: Throttle::new(now, gauge.transferred),
            approach: Approach::default(),
            not_before: None,
            last_sync: now,
            acks,
            sync_count: 1,
            left_at_sync: 0,
            left: 0,
        }
    }

    /// Begins when the setup is over.
    pub(super) fn begin(&mut self, now: Duration, gauge: Gauge) {
        *self = Self::new(now, gauge, self.acks);
    }

    /// vCPUs run at full speed again.
    pub(super) fn ended(&mut self) {
        self.not_before = None;
    }

    pub(super) fn throttle_percent(&self) -> u8 {
        self.throttle.percent()
    }

    /// Bytes dirtied per second, lately.
    pub(super) fn dirty_rate(&self) -> u64 {
        self.throttle.dirty_rate
    }

    pub(super) fn wait_until(&mut self, until: Duration) {
        self.not_before = Some(until);
    }

    /// Until when to wait, if that time has not come.
    pub(super) fn not_before(&mut self, now: Duration) -> Option<Duration> {
        if self.not_before.is_some_and(|until| until <= now) {
            self.not_before = None;
        }
        self.not_before
    }

    /// Until when to wait because this slice is used up.
    pub(super) fn pause(
        &mut self,
        now: Duration,
        gauge: Gauge,
        settings: &Settings,
    ) -> Option<Duration> {
        self.rate.update(now, gauge, &settings.parameters);
        if let Some(until) = self.not_before(now) {
            return Some(until);
        }
        let used_up = self.rate.budget(gauge, &settings.parameters) == Some(0);
        (used_up && self.step == Step::Estimate).then(|| self.rate.end())
    }

    /// The next piece of work.
    pub(super) fn next(
        &self,
        now: Duration,
        gauge: Gauge,
        longest: Duration,
        settings: &Settings,
    ) -> Work {
        match self.step {
            Step::Estimate => Work::Estimate,
            Step::Exact { .. } => Work::Exact,
            Step::Iterate => Work::Iterate {
                budget: self.rate.budget(gauge, &settings.parameters),
                until: now.saturating_add(longest),
            },
        }
    }

    /// An answer to a query.
    pub(super) fn counted(
        &mut self,
        now: Duration,
        gauge: Gauge,
        pending: &Pending,
        settings: &Settings,
    ) -> Verdict {
        let mut verdict = Verdict {
            converged: false,
            notices: Vec::new(),
        };
        self.left = pending.total();
        if self.waits_for_acks(settings) {
            self.acks = self.acks.saturating_add(pending.switchover_acks.into());
        }
        let auto_converge = settings.capabilities.has(Capability::AutoConverge);
        if self.step == Step::Estimate {
            // Nothing that only precopy can send: the rest of a round is over too.
            let fits = self.left <= self.rate.threshold;
            let over = fits && !self.sends_on(now, gauge, settings);
            if over || pending.must_precopy == 0 {
                self.step = Step::Exact { round: true };
                return verdict;
            }
            let long = now.saturating_sub(self.last_sync) >= LONG_ROUND;
            if auto_converge && self.sync_count > 1 && long {
                self.step = Step::Exact { round: false };
                return verdict;
            }
            self.step = Step::Iterate;
            return verdict;
        }
        if self.step == (Step::Exact { round: true }) {
            self.sync_count = self.sync_count.saturating_add(1);
            verdict.notices.push(Notice::Pass(self.sync_count));
        }
        self.last_sync = now;
        self.left_at_sync = self.left;
        let percent = self.throttle.synced(
            now,
            gauge.transferred,
            pending.dirtied,
            self.rate.threshold,
            &settings.parameters,
            auto_converge,
        );
        verdict.notices.extend(percent.map(Notice::Throttle));
        let acknowledged = self.is_acknowledged(gauge, settings);
        let fits = self.left <= self.rate.threshold;
        let another_round = fits && gauge.running && {
            let (bandwidth, limit) = (self.rate.bandwidth, settings.parameters.downtime_limit);
            self.approach
                .another_round(now, self.left, bandwidth, limit)
        };
        verdict.converged = fits && acknowledged && !another_round;
        if fits && !acknowledged {
            // The guest's writes go on piling up: send them once per slice, not as fast as the loop can turn.
            self.not_before = Some(self.rate.end());
        }
        self.step = Step::Iterate;
        verdict
    }

    /// Whether a running guest goes on for a while, though what is left fits.
    fn sends_on(&mut self, now: Duration, gauge: Gauge, settings: &Settings) -> bool {
        let (bandwidth, limit) = (self.rate.bandwidth, settings.parameters.downtime_limit);
        gauge.running && self.approach.sends_on(now, self.left, bandwidth, limit)
    }

    /// One walk over the handlers is done.
    pub(super) fn iterated(&mut self, now: Duration, gauge: Gauge, settings: &Settings) {
        self.rate.update(now, gauge, &settings.parameters);
        self.step = Step::Estimate;
    }

    /// An acknowledgement has come.
    pub(super) fn acknowledged(&mut self, settings: &Settings) -> Result<(), &'static str> {
        if !self.waits_for_acks(settings) {
            return Ok(());
        }
        if self.acks > 0 {
            self.acks = self.acks.saturating_sub(1);
            return Ok(());
        }
        // In the older form it is one flag, and a second acknowledgement does no harm.
        if settings.dialect.switchover_ack_legacy {
            return Ok(());
        }
        Err("the destination sent a switchover acknowledgement that nobody asked for")
    }

    /// Whether all devices at the destination that have to approve the switchover have done so.
    fn is_acknowledged(&self, gauge: Gauge, settings: &Settings) -> bool {
        !self.waits_for_acks(settings) || self.acks <= 0 || !gauge.running
    }

    fn waits_for_acks(&self, settings: &Settings) -> bool {
        settings.capabilities.has(Capability::SwitchoverAck)
    }
}
