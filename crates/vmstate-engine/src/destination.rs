//! The destination: a pure state machine that says what to do next and hears how it went.
//!
//! [`Core`] is its table, [`Destination`] adds texts and the guest's right to run.
//!
//! ```text
//! Idle → Listening → Loading → Starting → Trailing → Answering → CleaningUp → Over
//!                        ↓                               ↑
//!                    Launching ──────→ Receiving ────────┘
//!                                      ↓       ↑
//!                                   Paused     Recovering
//!                                   ↓    ↓       ↑
//!                            GivingUp    Reconnecting
//! ```
//!
//! Whatever fails up to the end of `Loading` leads to `Answering` with SHUT 1: the guest never starts here. With the
//! end-of-stream mark read and every section loaded, the source cannot take the guest back any more. So whatever fails
//! from there on, the guest starts, and does not wait for the trailer.
//!
//! The lower way is postcopy's. The guest is started with `POSTCOPY_RUN`, on a connection that holds; from there on what fails
//! pauses the migration, any number of times, until all RAM is here, or the user gives the guest up.

mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use self::table::{Core, Input, OutOfTurn, Phase, ROWS};

use crate::machine::{RunState, RunToken};
use crate::status::MigrationStatus;

/// What the worker does next. "Lock" is the VMM's big lock.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// Wait for all channels, without the lock; ends early after [`Notice::ShutDown`].
    Accept,
    /// [`Incoming`](crate::Incoming) up to and with the end-of-stream mark: every section loaded, the right answers given.
    Load,
    /// [`Incoming::trailer`](crate::Incoming::trailer): the description trailer, not for long. Whatever comes, the guest runs.
    Trailer,
    /// [`Machine::start`](crate::Machine::start) with this and [`start_state`]; with the lock, after taking the disks over.
    Start(RunToken),
    /// If the source has opened the return path: send SHUT with this value, the last message.
    Shut(u32),
    /// [`Registry::load_cleanup`](crate::Registry::load_cleanup) with the lock; end threads, close channels.
    CleanUp,
    /// [`Machine::start`](crate::Machine::start) with this, running or paused as the user wants it, whatever the guest did at
    /// the source; with the lock, after taking the disks over. Its RAM is still coming.
    Launch(RunToken),
    /// Read pages, and serve those who wait for them, up to the end-of-stream mark.
    Receive,
    /// Wait for new channels, without the lock; ends early after [`Notice::ShutDown`].
    Reconnect,
    /// [`Incoming::interrupted`](crate::Incoming::interrupted), then read from the new channels: with
    /// [`LoadStep::Resume`](crate::LoadStep::Resume) tell [`Destination::resumed`], and go on as in [`Work::Receive`].
    Recover,
    /// [`Machine::lost`](crate::Machine::lost), without the lock; then end the service of missing pages.
    GiveUp,
    /// Nothing now: postcopy is paused. Ask again when something has happened. No outcome.
    Wait,
    /// Nothing, until the next command. No outcome.
    Rest,
}

/// What else happens, for whoever called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The status changed. With the capability `events`, QEMU's event `MIGRATION`.
    Status(MigrationStatus),
    /// Shut down all channels, so that whatever waits for them returns.
    ShutDown,
}

/// The command `migrate-incoming` was refused. The texts are QEMU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IncomingError {
    /// The machine has not been started to wait for one.
    #[error("'-incoming' was not specified on the command line")]
    NotDeferred,
    /// A machine takes one guest, once.
    #[error("The incoming migration has already been started")]
    Started,
}

/// A command about postcopy was refused. The texts are QEMU's, as far as it has the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostcopyCommandError {
    /// `migrate-recover`, when nothing is paused.
    #[error("Migrate recover can only be run when postcopy is paused.")]
    NotPaused,
    /// `migrate-pause`, when there is nothing that could be paused.
    #[error(
        "migrate-pause is currently only supported during postcopy-active or postcopy-recover state"
    )]
    NotActive,
    /// There is no guest here that could be given up.
    #[error("There is no paused postcopy migration to give up")]
    NothingToGiveUp,
}

/// Drives one machine's incoming migration, of which there is at most one.
///
/// As for [`Source`](crate::source::Source): one thread alternates between [`work`](Self::work) and
/// [`done`](Self::done), whoever calls something takes the [`notice`](Self::notice)s.
#[derive(Debug, Default)]
pub struct Destination {
    core: Core,
    deferred: bool,
    shown: MigrationStatus,
    notices: VecDeque<Notice>,
    error: Option<String>,
}

impl Destination {
    /// A machine that waits for its guest (`-incoming defer`), or one that does not.
    #[must_use]
    pub fn new(deferred: bool) -> Self {
        Self {
            deferred,
            ..Self::default()
        }
    }

    /// QEMU's word for what is going on.
    #[must_use]
    pub fn status(&self) -> MigrationStatus {
        self.core.status()
    }

    /// Where the destination is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.core.phase()
    }

    /// The first error; while postcopy is paused, why. QEMU: `error-desc`.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether the status says already that the guest is here, while the worker still clears up behind it. What a client asks for
    /// next, having seen that status, should wait for it.
    #[must_use]
    pub fn is_clearing_up(&self) -> bool {
        let phase = self.core.phase();
        self.core.has_guest()
            && matches!(
                phase,
                Phase::Trailing | Phase::Answering | Phase::CleaningUp
            )
    }

    /// Starts to listen: the command `migrate-incoming`.
    ///
    /// # Errors
    ///
    /// [`IncomingError`].
    pub fn incoming(&mut self) -> Result<(), IncomingError> {
        if !self.deferred {
            return Err(IncomingError::NotDeferred);
        }
        self.step(Input::Incoming)
            .map_err(|_| IncomingError::Started)
    }

    /// Gives up, if the guest has not arrived, nor is about to be started before its memory.
    pub fn abandon(&mut self, reason: &str) {
        let failed = self.core.has_failed();
        let _ = self.step(Input::Abandon);
        if self.core.has_failed() && !failed {
            self.blame(reason);
            self.notices.push_back(Notice::ShutDown);
        }
    }

    /// What the worker does next. Taking it is a promise to answer with [`done`](Self::done) or
    /// [`failed`](Self::failed), except for [`Work::Rest`].
    pub fn work(&mut self) -> Work {
        if self.core.step(Input::Taken).is_err() && self.core.phase() != Phase::Paused {
            return Work::Rest;
        }
        match self.core.phase() {
            Phase::Listening => Work::Accept,
            Phase::Loading => Work::Load,
            Phase::Trailing => Work::Trailer,
            Phase::Starting => Work::Start(RunToken::arrived()),
            Phase::Launching => Work::Launch(RunToken::arrived()),
            Phase::Receiving => Work::Receive,
            Phase::Reconnecting => Work::Reconnect,
            Phase::Recovering => Work::Recover,
            Phase::GivingUp => Work::GiveUp,
            Phase::Answering => Work::Shut(self.core.has_failed().into()),
            Phase::CleaningUp => Work::CleanUp,
            Phase::Paused => Work::Wait,
            Phase::Idle | Phase::Over => Work::Rest,
        }
    }

    /// The work is done.
    ///
    /// # Errors
    ///
    /// [`OutOfTurn`] if there is none.
    pub fn done(&mut self) -> Result<(), OutOfTurn> {
        self.step(Input::Done)
    }

    /// The work failed.
    ///
    /// # Errors
    ///
    /// [`OutOfTurn`] if there is none, or it cannot fail.
    pub fn failed(&mut self, reason: &str) -> Result<(), OutOfTurn> {
        match self.core.phase() {
            Phase::Listening | Phase::Loading => self.blame(reason),
            Phase::Receiving | Phase::Reconnecting | Phase::Recovering if !self.core.is_lost() => {
                self.error = Some(reason.to_owned());
            }
            _ => {}
        }
        self.step(Input::Failed)
    }

    /// `POSTCOPY_LISTEN` has been executed, in the middle of [`Work::Load`].
    ///
    /// # Errors
    ///
    /// [`OutOfTurn`] if the worker is not at that.
    pub fn listening(&mut self) -> Result<(), OutOfTurn> {
        self.step(Input::Listen)
    }

    /// [`Work::Load`] has ended with `POSTCOPY_RUN`, and the connection holds: in place of [`done`](Self::done).
    ///
    /// # Errors
    ///
    /// [`OutOfTurn`] if the worker is not at that, or `POSTCOPY_LISTEN` has not come.
    pub fn ran(&mut self) -> Result<(), OutOfTurn> {
        self.step(Input::Run)
    }

    /// `POSTCOPY_RESUME` has been read, in the middle of [`Work::Recover`].
    ///
    /// # Errors
    ///
    /// [`OutOfTurn`] if the worker is not at that.
    pub fn resumed(&mut self) -> Result<(), OutOfTurn> {
        self.step(Input::Resume)?;
        self.error = None;
        Ok(())
    }

    /// Listens anew: the command `migrate-recover`.
    ///
    /// # Errors
    ///
    /// [`PostcopyCommandError::NotPaused`].
    pub fn recover(&mut self) -> Result<(), PostcopyCommandError> {
        self.step(Input::Recover)
            .map_err(|_| PostcopyCommandError::NotPaused)
    }

    /// Shuts the channels of postcopy down, so that it pauses: the command `migrate-pause`.
    ///
    /// # Errors
    ///
    /// [`PostcopyCommandError::NotActive`].
    pub fn pause(&mut self) -> Result<(), PostcopyCommandError> {
        if !matches!(self.core.phase(), Phase::Receiving | Phase::Recovering) {
            return Err(PostcopyCommandError::NotActive);
        }
        self.notices.push_back(Notice::ShutDown);
        Ok(())
    }

    /// Gives up a guest whose RAM will never be complete. It never runs again, here or elsewhere.
    ///
    /// # Errors
    ///
    /// [`PostcopyCommandError::NothingToGiveUp`], also while the connection holds.
    pub fn give_up(&mut self, reason: &str) -> Result<(), PostcopyCommandError> {
        if self.core.phase() == Phase::Receiving {
            return Err(PostcopyCommandError::NothingToGiveUp);
        }
        self.end(reason)
    }

    /// As [`give_up`](Self::give_up), also while the connection holds: the machine itself ends.
    ///
    /// # Errors
    ///
    /// [`PostcopyCommandError::NothingToGiveUp`].
    pub fn end(&mut self, reason: &str) -> Result<(), PostcopyCommandError> {
        self.step(Input::GiveUp)
            .map_err(|_| PostcopyCommandError::NothingToGiveUp)?;
        let why = match &self.error {
            Some(error) => format!("{reason}: {error}"),
            None => reason.to_owned(),
        };
        self.error = Some(why);
        self.notices.push_back(Notice::ShutDown);
        Ok(())
    }

    /// What to do now besides the worker's work; none when all has been taken.
    pub fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn blame(&mut self, reason: &str) {
        self.error.get_or_insert_with(|| reason.to_owned());
    }

    fn step(&mut self, input: Input) -> Result<(), OutOfTurn> {
        self.core.step(input)?;
        let status = self.core.status();
        if status != self.shown {
            self.shown = status;
            self.notices.push_back(Notice::Status(status));
        }
        Ok(())
    }
}

/// In which state a guest starts that has arrived: `sent` is what its machine did at the source, if the stream says it
/// (`globalstate`); `autostart` is whether the user wants it to run (not `-S`).
#[must_use]
pub fn start_state(sent: Option<RunState>, autostart: bool) -> RunState {
    match sent.unwrap_or(RunState::Running) {
        live if live.is_live() && autostart => live,
        live if live.is_live() => RunState::Paused,
        other => other,
    }
}
