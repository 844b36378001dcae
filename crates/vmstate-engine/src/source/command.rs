//! The user's commands, and what `query-migrate` tells.

use std::time::Duration;

use super::rounds::Rounds;
use super::table::{Input, Phase, Right, Traits};
use super::{Gauge, Source, Times, rate};
use crate::info::{MigrationInfo, MigrationStats};
use crate::machine::RunState;
use crate::ram::RamTotals;
use crate::settings::{Capability, Settings};
use crate::status::MigrationStatus;

/// A command was refused; nothing has happened. The texts are QEMU's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// One is running.
    #[error("There's a migration process in progress")]
    InProgress,
    /// The guest has not arrived yet.
    #[error("Guest is waiting for an incoming migration")]
    Incoming,
    /// The guest has been migrated away.
    #[error("Can't migrate the vm that was paused due to previous migration")]
    PostMigrate,
    /// Nobody knows where the guest runs.
    #[error("It is unknown whether the guest runs at the destination of the previous migration")]
    Unknown,
    /// Something in the machine cannot be migrated.
    #[error("{0}")]
    Blocked(String),
    /// The migration is elsewhere than the command says.
    #[error("Migration not in expected state: {0}")]
    NotInState(MigrationStatus),
    /// There is nothing to decide.
    #[error("There is no migration whose outcome is unknown")]
    Known,
    /// The destination may have the guest already, or has it.
    #[error("The end of the migration has been sent, it cannot be cancelled")]
    TooLate,
}

impl Source {
    /// Starts a migration: the command `migrate`. `run_state` is what the machine is doing, `blockers` are reasons not to
    /// migrate. [`Work::Prepare`](super::Work::Prepare) comes next, whose failure is the command's error.
    ///
    /// `refusal_is_proof` says that the destination never starts a guest after it has sent SHUT with a value other than
    /// 0. True for destinations of this crate; not for stock QEMU.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub fn migrate(
        &mut self,
        now: Duration,
        settings: Settings,
        run_state: RunState,
        blockers: &[String],
        refusal_is_proof: bool,
    ) -> Result<(), CommandError> {
        if self.is_unknown() || self.core.right() == Right::InDoubt {
            return Err(CommandError::Unknown);
        }
        if self.core.phase() != Phase::Idle {
            return Err(CommandError::InProgress);
        }
        match run_state {
            RunState::InMigrate => return Err(CommandError::Incoming),
            RunState::PostMigrate => return Err(CommandError::PostMigrate),
            _ => {}
        }
        if let Some(reason) = blockers.first() {
            return Err(CommandError::Blocked(reason.clone()));
        }
        self.core.set_traits(Traits {
            return_path: false,
            pause: settings.capabilities.has(Capability::PauseBeforeSwitchover),
            refusal_is_proof,
        });
        if self.step(now, Input::Migrate).is_err() {
            return Err(CommandError::PostMigrate);
        }
        let acks = settings.dialect.switchover_ack_legacy
            && settings.capabilities.has(Capability::SwitchoverAck);
        self.rounds = Rounds::new(now, Gauge::default(), acks.into());
        self.settings = settings;
        self.error = None;
        self.times = Times {
            start: now,
            ..Times::default()
        };
        Ok(())
    }

    /// Gives the migration up: the command `migrate_cancel`. Does nothing if none is running, or while `migrate` has not
    /// answered yet.
    ///
    /// Where the source only waits for the destination's last word, this ends the wait; the outcome is then unknown.
    ///
    /// # Errors
    ///
    /// [`CommandError::TooLate`] once the end-of-stream mark may be on its way; whatever waits for the channels is
    /// ended all the same.
    pub fn cancel(&mut self, now: Duration) -> Result<(), CommandError> {
        let too_late = self.core.right() == Right::InDoubt && !self.is_unknown();
        self.feed(now, Input::Cancel);
        if too_late {
            return Err(CommandError::TooLate);
        }
        Ok(())
    }

    /// Goes on after `pre-switchover`: the command `migrate-continue`.
    ///
    /// # Errors
    ///
    /// [`CommandError::NotInState`] if the present status is not `state`.
    pub fn proceed(&mut self, now: Duration, state: MigrationStatus) -> Result<(), CommandError> {
        if self.status() != state {
            return Err(CommandError::NotInState(self.status()));
        }
        self.step(now, Input::Continue)
            .map_err(|_| CommandError::NotInState(self.status()))
    }

    /// Says that the guest does not run at the destination and never will: it goes on here. Whoever says so without
    /// knowing may have two.
    ///
    /// Besides an unknown outcome there is one more case: everything has been written, and nobody has said that it arrived, as when
    /// the guest has gone into a file. The machine is then in `postmigrate`, and the migration stays `completed`.
    ///
    /// # Errors
    ///
    /// [`CommandError::Known`] in all other cases.
    pub fn resume_here(&mut self, now: Duration) -> Result<(), CommandError> {
        self.step(now, Input::ResumeHere)
            .map_err(|_| CommandError::Known)
    }

    /// Says that the guest runs at the destination: it is given up here.
    ///
    /// # Errors
    ///
    /// [`CommandError::Known`] unless the outcome is unknown.
    pub fn give_up(&mut self, now: Duration) -> Result<(), CommandError> {
        self.step(now, Input::GiveUp)
            .map_err(|_| CommandError::Known)
    }

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
        if completed {
            info.downtime = self.times.stopped.map(|at| end.saturating_sub(at));
        } else {
            info.expected_downtime = Some(self.expected_downtime());
            info.remaining = Some(self.rounds.left);
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
