//! The words of the source's table: phases, inputs, rights.

use std::fmt;

/// Where a source is. Each phase but the waiting ones has one piece of work; the worker does it and says how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// No migration.
    Idle,
    /// `save_prepare` of all handlers.
    Preparing,
    /// Connecting.
    Connecting,
    /// Header, configuration, return path.
    Beginning,
    /// `save_setup` of all handlers.
    SettingUp,
    /// Waiting until the guest has let go of failover devices.
    Unplugging,
    /// Rounds; the guest runs.
    Precopy,
    /// Preparing to move the guest before its memory: the channel for requested pages, `save_postcopy_prepare`. The guest
    /// still runs here.
    PostcopyPreparing,
    /// Stopping the guest.
    Stopping,
    /// Waiting for `migrate-continue`.
    PreSwitchover,
    /// Writing all the rest but the end-of-stream mark.
    Completing,
    /// Waiting until the destination has confirmed that it has loaded everything.
    Confirming,
    /// Writing the end-of-stream mark. From when the worker takes this work, nobody can take it back.
    Committing,
    /// Writing the description trailer.
    Trailing,
    /// Postcopy: writing all that the guest needs to run, but for the last byte.
    Packaging,
    /// Postcopy: writing that byte. From when the worker takes this work, nobody can take it back.
    HandingOver,
    /// Postcopy: sending the rest, requested pages first.
    Postcopy,
    /// Postcopy: writing the ends of all sections and the end-of-stream mark.
    PostcopyCompleting,
    /// Postcopy without channels: waiting for the command `migrate` with `resume`, or for a decision.
    Paused,
    /// Connecting again.
    Reconnecting,
    /// Finding out what the destination has, and telling it to go on.
    Recovering,
    /// Waiting until the destination goes on.
    AwaitingResume,
    /// Waiting for the destination's last word.
    AwaitingShut,
    /// Giving the guest up.
    Departing,
    /// Running the guest here again.
    Resuming,
    /// `save_cleanup` of all handlers.
    CleaningUp,
    /// Over, and nobody here can know where the guest runs. It is stopped here and waits for a decision.
    Unknown,
}

impl Phase {
    /// All of them, in the order of a migration.
    pub const ALL: &[Self] = &[
        Self::Idle,
        Self::Preparing,
        Self::Connecting,
        Self::Beginning,
        Self::SettingUp,
        Self::Unplugging,
        Self::Precopy,
        Self::PostcopyPreparing,
        Self::Stopping,
        Self::PreSwitchover,
        Self::Completing,
        Self::Confirming,
        Self::Committing,
        Self::Trailing,
        Self::Packaging,
        Self::HandingOver,
        Self::Postcopy,
        Self::PostcopyCompleting,
        Self::Paused,
        Self::Reconnecting,
        Self::Recovering,
        Self::AwaitingResume,
        Self::AwaitingShut,
        Self::Departing,
        Self::Resuming,
        Self::CleaningUp,
        Self::Unknown,
    ];

    /// Whether the worker only waits here, until something comes from elsewhere.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(
            self,
            Self::Idle
                | Self::PreSwitchover
                | Self::Confirming
                | Self::Paused
                | Self::AwaitingResume
                | Self::AwaitingShut
                | Self::Unknown
        )
    }

    /// Whether nothing that lets the destination start the guest is on its way yet, so that giving up leaves the guest here.
    pub(super) const fn before_commit(self) -> bool {
        matches!(
            self,
            Self::Connecting
                | Self::Beginning
                | Self::SettingUp
                | Self::Unplugging
                | Self::Precopy
                | Self::PostcopyPreparing
                | Self::Stopping
                | Self::PreSwitchover
                | Self::Completing
                | Self::Confirming
                | Self::Committing
                | Self::Packaging
                | Self::HandingOver
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What happens to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// The command `migrate`.
    Migrate,
    /// The worker has taken the phase's work.
    Taken,
    /// The work is done and what the phase is there for has been reached.
    Done,
    /// The work failed. In [`Phase::Committing`] and [`Phase::HandingOver`]: the last byte may have been sent.
    Failed,
    /// [`Phase::Committing`], [`Phase::HandingOver`]: the last byte has certainly not been sent.
    NotSent,
    /// The work is done, there will be more in this phase: a round, a look at failover devices.
    Again,
    /// [`Phase::Precopy`]: the work is done, the guest is to move before its memory.
    Switch,
    /// The destination has confirmed what came before the end-of-stream mark.
    Confirm,
    /// The destination has loaded all devices and starts the guest.
    Loaded,
    /// The command `migrate-pause`.
    Pause,
    /// The command `migrate` with `resume`.
    Recover,
    /// The destination goes on after a broken connection.
    Resumed,
    /// The command `migrate-continue`.
    Continue,
    /// The command `migrate_cancel`.
    Cancel,
    /// Something failed outside of the worker.
    Broken,
    /// SHUT 0: the destination has the guest.
    ShutOk,
    /// SHUT with another value: the destination does not say that it has the guest.
    ShutError,
    /// The return path ended without SHUT.
    ReturnPathEnded,
    /// The user says that the guest does not run at the destination.
    ResumeHere,
    /// The user says that the guest runs at the destination.
    GiveUp,
}

impl Input {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Migrate,
        Self::Taken,
        Self::Done,
        Self::Failed,
        Self::NotSent,
        Self::Again,
        Self::Switch,
        Self::Confirm,
        Self::Loaded,
        Self::Pause,
        Self::Recover,
        Self::Resumed,
        Self::Continue,
        Self::Cancel,
        Self::Broken,
        Self::ShutOk,
        Self::ShutError,
        Self::ReturnPathEnded,
        Self::ResumeHere,
        Self::GiveUp,
    ];
}

/// Why a migration is being given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Abort {
    /// By the user.
    Cancelled,
    /// By a failure.
    Failed,
}

/// Where the right to run the guest is, as far as the source knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// With the machine here, which may run the guest.
    Machine,
    /// With this migration: the guest is stopped here and runs nowhere.
    Migration,
    /// The destination may have taken it: the guest is stopped here.
    InDoubt,
    /// With the destination.
    Destination,
}

/// What the destination has said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Word {
    Nothing,
    Taken,
    Refused,
    Ended,
}

/// An event that cannot happen where the source is: a mistake of the driver, or of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("source: {input:?} in {phase}")]
pub struct OutOfTurn {
    /// Where it was.
    pub phase: Phase,
    /// What came.
    pub input: Input,
}

/// What a migration is like; see [`Core::new`](super::Core::new).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Traits {
    /// The destination answers.
    pub return_path: bool,
    /// Capability `pause-before-switchover`.
    pub pause: bool,
    /// A SHUT other than 0 proves that the destination will never start the guest. Not so with stock QEMU.
    pub refusal_is_proof: bool,
}
