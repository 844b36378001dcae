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
    /// Reading the description trailer. The guest has arrived.
    Trailing,
    /// Taking the right to run the guest, and running it.
    Starting,
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
        Self::Trailing,
        Self::Starting,
        Self::Answering,
        Self::CleaningUp,
        Self::Over,
    ];

    const fn waits(self) -> bool {
        matches!(self, Self::Idle | Self::Over)
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
    /// The work failed. From [`Phase::Trailing`] on this changes nothing: the guest has arrived.
    Failed,
    /// The user or another thread gives up. Not heard any more once the guest has arrived.
    Abandon,
}

impl Input {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Incoming,
        Self::Taken,
        Self::Done,
        Self::Failed,
        Self::Abandon,
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

/// The rows that hold when nothing goes wrong: phase, how its work ended, next phase.
pub const ROWS: &[(Phase, Input, Phase)] = &[
    (Phase::Idle, Input::Incoming, Phase::Listening),
    (Phase::Listening, Input::Done, Phase::Loading),
    (Phase::Loading, Input::Done, Phase::Trailing),
    (Phase::Trailing, Input::Done, Phase::Starting),
    (Phase::Trailing, Input::Failed, Phase::Starting),
    (Phase::Starting, Input::Done, Phase::Answering),
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
}

impl Default for Core {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            busy: false,
            failed: false,
            has_guest: false,
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

    /// QEMU's word for all this.
    #[must_use]
    pub const fn status(&self) -> MigrationStatus {
        match self.phase {
            Phase::Idle => MigrationStatus::None,
            _ if self.failed => MigrationStatus::Failed,
            _ if self.has_guest => MigrationStatus::Completed,
            Phase::Listening => MigrationStatus::Setup,
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
            Input::Done | Input::Failed if self.busy => {
                let before_arrival = matches!(self.phase, Phase::Listening | Phase::Loading);
                if before_arrival && (self.failed || input == Input::Failed) {
                    self.fail();
                } else {
                    let next = ROWS
                        .iter()
                        .find(|(at, on, _)| (*at, *on) == (self.phase, input));
                    let (_, _, to) = next.ok_or(refused)?;
                    self.has_guest |= self.phase == Phase::Starting;
                    self.phase = *to;
                }
                self.busy = false;
            }
            Input::Abandon => {
                if matches!(self.phase, Phase::Listening | Phase::Loading) {
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

    fn fail(&mut self) {
        self.failed = true;
        self.phase = Phase::Answering;
    }
}
