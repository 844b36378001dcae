//! The user's commands.

use std::time::Duration;

use super::phase::{Input, Phase, Right, Traits};
use super::rate::Gauge;
use super::rounds::Rounds;
use super::{Source, Times};
use crate::machine::RunState;
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
    /// The guest has gone before its memory, or may have.
    #[error("Postcopy migration in progress, cannot cancel.")]
    InPostcopy,
    /// `migrate-start-postcopy` without the capability.
    #[error("Enable postcopy with migrate_set_capability before the start of migration")]
    PostcopyOff,
    /// `migrate-start-postcopy` before `migrate`.
    #[error("Postcopy must be started after migration has been started")]
    NotStarted,
    /// `migrate-pause` where there is nothing to pause.
    #[error(
        "migrate-pause is currently only supported during postcopy-active or postcopy-recover state"
    )]
    NotPausable,
    /// `migrate` with `resume` where nothing is paused.
    #[error("Cannot resume if there is no paused migration")]
    NotPaused,
    /// The destination has shown that it runs the guest.
    #[error("The guest has run at the destination, it cannot go on here")]
    HasRun,
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
        if self.core.phase() != Phase::Idle && self.core.is_postcopy() {
            return Err(CommandError::InProgress);
        }
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
        self.postcopy_wanted = false;
        self.answered = false;
        self.requests = 0;
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
    /// ended all the same. [`CommandError::InPostcopy`] once the guest may have gone before its memory; nothing happens then.
    pub fn cancel(&mut self, now: Duration) -> Result<(), CommandError> {
        if self.core.is_handed_over() {
            return Err(CommandError::InPostcopy);
        }
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
    /// In postcopy this is possible where the connection broke before the destination had said that it runs the guest.
    ///
    /// Besides an unknown outcome there is one more case: everything has been written, and nobody has said that it arrived, as when
    /// the guest has gone into a file. The machine is then in `postmigrate`, and the migration stays `completed`.
    ///
    /// # Errors
    ///
    /// [`CommandError::HasRun`] if the guest has run at the destination, [`CommandError::Known`] in all other cases.
    pub fn resume_here(&mut self, now: Duration) -> Result<(), CommandError> {
        if self.core.is_handed_over() && self.core.right() == Right::Destination {
            return Err(CommandError::HasRun);
        }
        self.step(now, Input::ResumeHere)
            .map_err(|_| CommandError::Known)
    }

    /// Says that the guest runs at the destination: it is given up here. With it goes the part of its memory that only the
    /// source has: a postcopy migration that had not sent everything ends as `failed`.
    ///
    /// # Errors
    ///
    /// [`CommandError::Known`] unless the outcome is unknown, or postcopy is paused.
    pub fn give_up(&mut self, now: Duration) -> Result<(), CommandError> {
        self.step(now, Input::GiveUp)
            .map_err(|_| CommandError::Known)
    }

    /// Lets the guest go before its memory, as soon as what must go before is small enough: the command
    /// `migrate-start-postcopy`. A migration that is over takes no notice.
    ///
    /// # Errors
    ///
    /// [`CommandError::PostcopyOff`], [`CommandError::NotStarted`].
    pub fn start_postcopy(&mut self, postcopy_ram: bool) -> Result<(), CommandError> {
        if !postcopy_ram {
            return Err(CommandError::PostcopyOff);
        }
        if self.status() == MigrationStatus::None {
            return Err(CommandError::NotStarted);
        }
        self.postcopy_wanted = true;
        Ok(())
    }

    /// Has both ends give up their channels, so that others can be made: the command `migrate-pause`.
    ///
    /// # Errors
    ///
    /// [`CommandError::NotPausable`] unless the guest has gone before its memory.
    pub fn pause(&mut self, now: Duration) -> Result<(), CommandError> {
        self.step(now, Input::Pause)
            .map_err(|_| CommandError::NotPausable)?;
        self.blame("paused by a command");
        Ok(())
    }

    /// Goes on with a paused postcopy: the command `migrate` with `resume`. [`Work::Reconnect`](super::Work::Reconnect) comes
    /// next.
    ///
    /// # Errors
    ///
    /// [`CommandError::NotPaused`].
    pub fn recover(&mut self, now: Duration) -> Result<(), CommandError> {
        self.step(now, Input::Recover)
            .map_err(|_| CommandError::NotPaused)?;
        self.error = None;
        Ok(())
    }
}
