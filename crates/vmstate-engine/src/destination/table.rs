//! The destination's table: what follows what, without errors or time.

use std::fmt;

use crate::status::MigrationStatus;

/// Where a destination is. Each phase but the waiting ones has one piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Waiting for the command `migrate-incoming`.
    Idle,
    /// Waiting for channels.
    Listening,
    /// Reading the stream up to the end-of-stream mark.
    Loading,
    /// Taking the right to run the guest, and running it. It has arrived.
    Starting,
    /// Reading the description trailer, while the guest runs: whatever becomes of that, nothing depends on it.
    Trailing,
    /// The same, before all RAM has arrived.
    Launching,
    /// The guest runs, its RAM is coming.
    Receiving,
    /// The connection has broken. The guest runs as far as it comes with what has arrived. Waiting for the command
    /// `migrate-recover`.
    Paused,
    /// Waiting for new channels.
    Reconnecting,
    /// Telling the source what has arrived, until it goes on.
    Recovering,
    /// The user has given up a guest whose RAM will never be complete: stopping it for good.
    GivingUp,
    /// Telling the source: SHUT.
    Answering,
    /// `load_cleanup` of all handlers.
    CleaningUp,
    /// Over.
    Over,
}

impl Phase {
    /// All of them, in the order of a migration.
    pub const ALL: &[Self] = &[
        Self::Idle,
        Self::Listening,
        Self::Loading,
        Self::Starting,
        Self::Trailing,
        Self::Launching,
        Self::Receiving,
        Self::Paused,
        Self::Reconnecting,
        Self::Recovering,
        Self::GivingUp,
        Self::Answering,
        Self::CleaningUp,
        Self::Over,
    ];

    const fn waits(self) -> bool {
        matches!(self, Self::Idle | Self::Paused | Self::Over)
    }

    /// Nothing of the guest runs here yet, and it need not.
    const fn is_before_arrival(self) -> bool {
        matches!(self, Self::Listening | Self::Loading)
    }

    /// The guest has been started, and its RAM is not complete.
    const fn is_incomplete(self) -> bool {
        matches!(
            self,
            Self::Receiving | Self::Paused | Self::Reconnecting | Self::Recovering
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What happens to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// The command `migrate-incoming`.
    Incoming,
    /// The worker has taken the phase's work.
    Taken,
    /// The work is done.
    Done,
    /// The work failed. From [`Phase::Starting`] on this changes nothing: the guest has arrived. In postcopy it pauses the
    /// migration.
    Failed,
    /// The user or another thread gives up. Not heard any more once the guest has arrived, nor from `POSTCOPY_LISTEN` on.
    Abandon,
    /// `POSTCOPY_LISTEN` has been executed, while the worker is at [`Phase::Loading`].
    Listen,
    /// `POSTCOPY_RUN` has been read: the worker has done its loading, all but RAM.
    Run,
    /// The command `migrate-recover`.
    Recover,
    /// `POSTCOPY_RESUME` has been read, while the worker is at [`Phase::Recovering`].
    Resume,
    /// The user gives up a guest that has been started without all of its RAM.
    GiveUp,
}

impl Input {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Incoming,
        Self::Taken,
        Self::Done,
        Self::Failed,
        Self::Abandon,
        Self::Listen,
        Self::Run,
        Self::Recover,
        Self::Resume,
        Self::GiveUp,
    ];
}

/// An event that cannot happen where the destination is: a mistake of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("destination: {input:?} in {phase}")]
pub struct OutOfTurn {
    /// Where it was.
    pub phase: Phase,
    /// What came.
    pub input: Input,
}

/// The rows that hold when nothing is given up: phase, what comes, next phase.
pub const ROWS: &[(Phase, Input, Phase)] = &[
    (Phase::Idle, Input::Incoming, Phase::Listening),
    (Phase::Listening, Input::Done, Phase::Loading),
    (Phase::Loading, Input::Done, Phase::Starting),
    (Phase::Starting, Input::Done, Phase::Trailing),
    (Phase::Trailing, Input::Done, Phase::Answering),
    (Phase::Trailing, Input::Failed, Phase::Answering),
    (Phase::Loading, Input::Run, Phase::Launching),
    (Phase::Launching, Input::Done, Phase::Receiving),
    (Phase::Receiving, Input::Done, Phase::Answering),
    (Phase::Receiving, Input::Failed, Phase::Paused),
    (Phase::Paused, Input::Recover, Phase::Reconnecting),
    (Phase::Reconnecting, Input::Done, Phase::Recovering),
    (Phase::Reconnecting, Input::Failed, Phase::Paused),
    (Phase::Recovering, Input::Resume, Phase::Receiving),
    (Phase::Recovering, Input::Failed, Phase::Paused),
    (Phase::Paused, Input::GiveUp, Phase::GivingUp),
    (Phase::GivingUp, Input::Done, Phase::CleaningUp),
    (Phase::Answering, Input::Done, Phase::CleaningUp),
    (Phase::Answering, Input::Failed, Phase::CleaningUp),
    (Phase::CleaningUp, Input::Done, Phase::Over),
];

/// The destination without anything that a table does not need. A copy is cheap, so a model can explore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Core {
    phase: Phase,
    busy: bool,
    failed: bool,
    /// The guest has been started here, or is deliberately held.
    has_guest: bool,
    /// `POSTCOPY_LISTEN` has come.
    listens: bool,
    /// The guest has been given up before its RAM was complete.
    lost: bool,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            busy: false,
            failed: false,
            has_guest: false,
            listens: false,
            lost: false,
        }
    }
}

impl Core {
    /// Where the destination is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the worker is at the phase's work.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether the guest is here.
    #[must_use]
    pub const fn has_guest(&self) -> bool {
        self.has_guest
    }

    /// Whether the migration has failed, or is about to.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether the guest has been started here and given up, since its RAM was never complete.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// QEMU's word for all this.
    #[must_use]
    pub const fn status(&self) -> MigrationStatus {
        match self.phase {
            Phase::Idle => MigrationStatus::None,
            _ if self.failed => MigrationStatus::Failed,
            Phase::Launching | Phase::Receiving => MigrationStatus::PostcopyActive,
            // Given up, but it may still run.
            Phase::Paused | Phase::Reconnecting | Phase::GivingUp => {
                MigrationStatus::PostcopyPaused
            }
            Phase::Recovering => MigrationStatus::PostcopyRecover,
            _ if self.lost => MigrationStatus::Failed,
            _ if self.has_guest => MigrationStatus::Completed,
            Phase::Listening => MigrationStatus::Setup,
            _ if self.listens => MigrationStatus::PostcopyDevice,
            _ => MigrationStatus::Active,
        }
    }

    /// Moves on.
    ///
    /// # Errors
    ///
    /// [`OutOfTurn`] if `input` cannot happen now; nothing changes then.
    pub fn step(&mut self, input: Input) -> Result<(), OutOfTurn> {
        let refused = OutOfTurn {
            phase: self.phase,
            input,
        };
        match input {
            Input::Taken if !self.busy && !self.phase.waits() => self.busy = true,
            Input::Incoming if self.phase == Phase::Idle => self.phase = Phase::Listening,
            Input::Listen if self.busy && self.phase == Phase::Loading && !self.listens => {
                self.listens = true;
            }
            // The worker goes on with the same work.
            Input::Resume if self.busy && !self.lost => {
                self.phase = self.next(input).ok_or(refused)?;
            }
            Input::Recover if !self.lost => self.phase = self.next(input).ok_or(refused)?,
            Input::GiveUp if self.phase.is_incomplete() => {
                self.lost = true;
                if !self.busy {
                    self.phase = Phase::GivingUp;
                }
            }
            Input::Done | Input::Failed | Input::Run if self.busy => {
                // Who has read RUN has read LISTEN before.
                let too_early = input == Input::Run && !self.listens;
                if self.phase.is_before_arrival() && (self.failed || input == Input::Failed) {
                    self.fail();
                } else if self.lost && self.phase.is_incomplete() {
                    self.phase = Phase::GivingUp;
                } else {
                    let next = self.next(input).filter(|_| !too_early).ok_or(refused)?;
                    self.has_guest |= matches!(self.phase, Phase::Starting | Phase::Launching);
                    self.phase = next;
                }
                self.busy = false;
            }
            Input::Abandon => {
                // From POSTCOPY_LISTEN on, the source may have been told that the guest runs.
                if self.phase.is_before_arrival() && !self.listens {
                    self.failed = true;
                    if !self.busy {
                        self.fail();
                    }
                }
            }
            _ => return Err(refused),
        }
        Ok(())
    }

    fn next(&self, input: Input) -> Option<Phase> {
        let row = ROWS
            .iter()
            .find(|(at, on, _)| (*at, *on) == (self.phase, input));
        row.map(|(_, _, to)| *to)
    }

    fn fail(&mut self) {
        self.failed = true;
        self.phase = Phase::Answering;
    }
}
