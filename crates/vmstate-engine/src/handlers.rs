//! The handlers of a section: QEMU's `SaveVMHandlers`.

mod context;

use std::sync::Arc;

use vmstate_desc::Reason;
use vmstate_ram::RamError;
use vmstate_wire::stream::VersionId;

pub use self::context::{
    CompleteCx, DiscardCx, DiscardSink, IterateCx, LoadCx, LoadSetupCx, RecoveryLink, ResumeCx,
    SetupCx, StateBufferSink, ThreadCx,
};

use crate::bql::Bql;
use crate::channel::ChannelError;
use crate::memory::MemoryError;

bitflags::bitflags! {
    /// Which handlers of an entry write to the stream. A source asks no others, and the answer decides which sections
    /// exist. QEMU tests function pointers instead.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Writes: u32 {
        /// `save_state`: a FULL section, when the guest is stopped.
        const STATE = 1;
        /// `save_setup`: a START section. Makes the entry iterative.
        const SETUP = 1 << 1;
        /// `save_live_iterate`: PART sections.
        const ITERATE = 1 << 2;
        /// `save_live_complete_precopy`: an END section at the switchover.
        const COMPLETE_PRECOPY = 1 << 3;
        /// `save_live_complete_postcopy`: an END section at the end of postcopy.
        const COMPLETE_POSTCOPY = 1 << 4;
        /// `save_postcopy_prepare`: a PART section before the guest stops for postcopy.
        const POSTCOPY_PREPARE = 1 << 5;
        /// What an entry with live state does: START, PART and END.
        const LIVE = Self::SETUP.bits() | Self::ITERATE.bits() | Self::COMPLETE_PRECOPY.bits();
    }
}

/// How much of an entry's state is left, in bytes. A handler adds to what is there.
///
/// QEMU 8.0 to 11.0: `must_precopy` and `can_postcopy`; 11.1: `precopy_bytes`, `postcopy_bytes`, `stopcopy_bytes`,
/// `switchover_ack_pending`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// Can be sent while the guest runs or is stopped, but not after.
    pub must_precopy: u64,
    /// Can also be sent when the destination runs already.
    pub can_postcopy: u64,
    /// Can only be sent while the guest is stopped.
    pub stop_copy: u64,
    /// Became dirty since the last exact query. Exact queries only; what throttling goes by.
    pub dirtied: u64,
    /// New acknowledgements that the device wants from its peer before the switchover, with the capability
    /// `switchover-ack` in its present form; see [`SaveVmHandlers::switchover_ack_needed`] for the one of 8.1 to 11.0.
    pub switchover_acks: u32,
}

impl Pending {
    /// Everything that is left, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.must_precopy
            .saturating_add(self.can_postcopy)
            .saturating_add(self.stop_copy)
    }
}

/// What one iteration left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More could be sent now. QEMU: 0.
    More,
    /// Nothing is left *now*; the guest may make new work at any time. QEMU: 1.
    Finished,
}

/// Why a handler failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// The channel broke.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The handler's own reason.
    #[error("{0}")]
    Refused(Reason),
    /// Bytes that are no RAM records, or not ones for this machine.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// A described device refused, or its bytes are wrong.
    #[error(transparent)]
    Device(#[from] vmstate_desc::Error),
    /// Guest memory or the dirty log refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Bytes that the stream's format does not allow, or state that it cannot say.
    #[error(transparent)]
    Format(Box<dyn std::error::Error + Send + Sync>),
}

impl HandlerError {
    /// A refusal with this reason: lower case, no full stop, values included.
    pub fn refused(reason: impl Into<Reason>) -> Self {
        Self::Refused(reason.into())
    }

    /// The broken channel, if that is what happened.
    #[must_use]
    pub fn channel(&self) -> Option<&ChannelError> {
        match self {
            Self::Channel(error) => Some(error),
            _ => None,
        }
    }
}

/// What saves and loads state that a description cannot: live state in rounds, old state in a form of its own.
///
/// One object is one entry of a [`Registry`](crate::Registry). The names are those of QEMU 8.2 to 10.0. Every method
/// has a default, so an implementation has only what it needs, and says in [`writes`](Self::writes) which sections
/// it takes part in.
///
/// # Who calls what, when
///
/// "Lock" is the VMM's big lock, [`Bql`]: a method that runs under it has it in its context.
///
/// | # | side | when | method | lock | writes |
/// |---|---|---|---|---|---|
/// | 1 | source | the command `migrate` | `save_prepare` | held | |
/// | 2 | source | guest runs | `save_setup` | held | START |
/// | 3 | source | rounds, guest runs | `state_pending_estimate`, `state_pending_exact`, `save_live_iterate` | no | PART |
/// | 4 | source | guest stopped | `save_live_complete_precopy_thread`, `save_live_complete_precopy` | held | END |
/// | 5 | source | guest stopped | `save_state` | held | FULL |
/// | 6 | source | the end, whatever it is | `save_cleanup` | held | |
/// | 1 | destination | before the first section | `load_setup`, then `switchover_ack_needed` | held | |
/// | 2 | destination | a section has come | `load_state` | held in precopy | |
/// | 3 | destination | the source has stopped its guest | `switchover_start` | held in precopy | |
/// | 4 | destination | the end, whatever it is | `load_cleanup` | held | |
///
/// Postcopy adds, on the source: `save_postcopy_prepare` (no lock, PART) before the guest stops; then 4 only for entries
/// without `has_postcopy`, and `save_postcopy_discard` (held) for the others, which go on with 3 and end with
/// `save_live_complete_postcopy` (held, END). After a broken connection `resume_prepare` (no lock).
///
/// Both cleanups are called also if their setup never was.
///
/// # Errors
///
/// An error of `save_prepare` is the error of the command, nothing has happened. Any other error on the source fails
/// the migration; the guest runs on there. An error on the destination ends the load; a half-loaded machine never
/// starts.
pub trait SaveVmHandlers: Send {
    /// Which methods write sections. Asked often; must be cheap and always the same during a migration.
    fn writes(&self) -> Writes {
        Writes::LIVE
    }

    /// Whether the entry takes part at all; `false` removes it from every walk but the cleanups, and its section is
    /// still loaded if one comes. Both sides, any context: cheap, no locks. An entry that sent START should stay
    /// active until its END.
    fn is_active(&self) -> bool {
        true
    }

    /// Whether the entry is asked for PARTs now. As [`is_active`](Self::is_active).
    fn is_active_iterate(&self) -> bool {
        true
    }

    /// Whether what is left can be sent after the destination runs. Asked anew each time. As
    /// [`is_active`](Self::is_active).
    fn has_postcopy(&self) -> bool {
        false
    }

    /// The page sizes of all guest memory that this entry can send after the destination runs, or-ed together, in bytes; 0
    /// for an entry without guest memory. The destination must have the same.
    fn postcopy_page_sizes(&self) -> u64 {
        0
    }

    /// Early check on the source, before anything is set up or sent.
    ///
    /// # Errors
    ///
    /// The reason to refuse the migration. No cleanup follows then for the entries that were asked before.
    fn save_prepare(&mut self, bql: &Bql<'_>) -> Result<(), HandlerError> {
        let _ = bql;
        Ok(())
    }

    /// Prepares the source's side and writes the payload of START.
    ///
    /// # Errors
    ///
    /// Fails the migration; later entries are not set up.
    fn save_setup(&mut self, cx: &mut SetupCx<'_>) -> Result<(), HandlerError> {
        let _ = cx;
        Ok(())
    }

    /// Adds what is left, as far as that is known without work, to `pending`. Called before each iteration. May be
    /// wrong in both directions.
    fn state_pending_estimate(&mut self, pending: &mut Pending) {
        let _ = pending;
    }

    /// Finds out what is left and adds it to `pending`: what decides about the switchover. May be slow; takes the
    /// VMM's lock by itself if it needs it.
    ///
    /// # Errors
    ///
    /// Fails the migration.
    fn state_pending_exact(&mut self, pending: &mut Pending) -> Result<(), HandlerError> {
        self.state_pending_estimate(pending);
        Ok(())
    }

    /// Writes the payload of one PART, any number of times. Returns when the context says that the rate is exceeded,
    /// or nothing is left; with nothing to send it must still write something that its `load_state` can read.
    ///
    /// # Errors
    ///
    /// Fails the migration.
    fn save_live_iterate(&mut self, cx: &mut IterateCx<'_>) -> Result<Progress, HandlerError> {
        let _ = cx;
        Ok(Progress::Finished)
    }

    /// Gives the work that writes part of the final state from a thread of its own, over extra channels, while the
    /// others complete. Called with the guest stopped, before the first END. None: no such thread.
    ///
    /// The work must not wait for the VMM's lock, which is held until all have ended.
    fn save_live_complete_precopy_thread(&mut self) -> Option<Box<dyn CompletePrecopyThread>> {
        None
    }

    /// Writes the payload of END: everything that is left. Once, guest stopped, no rate limit. In postcopy only for
    /// entries without [`has_postcopy`](Self::has_postcopy).
    ///
    /// # Errors
    ///
    /// Fails the migration; later entries are not called.
    fn save_live_complete_precopy(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        let _ = cx;
        Ok(())
    }

    /// Last chance before the guest stops for postcopy; writes the payload of one PART. Guest still running.
    ///
    /// # Errors
    ///
    /// Fails the migration.
    fn save_postcopy_prepare(&mut self, cx: &mut IterateCx<'_>) -> Result<(), HandlerError> {
        let _ = cx;
        Ok(())
    }

    /// Says what the destination must drop before it runs: what it has and what is not so any more. The last look at what the
    /// guest has written; for entries with [`has_postcopy`](Self::has_postcopy).
    ///
    /// # Errors
    ///
    /// Fails the migration.
    fn save_postcopy_discard(&mut self, cx: &mut DiscardCx<'_>) -> Result<(), HandlerError> {
        let _ = cx;
        Ok(())
    }

    /// Writes the payload of END at the end of postcopy. Never in a pure precopy migration.
    ///
    /// # Errors
    ///
    /// Pauses the migration if the channel broke.
    fn save_live_complete_postcopy(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        let _ = cx;
        Ok(())
    }

    /// Writes the payload of FULL: the whole state, in a form that no description gives. Once, guest stopped.
    ///
    /// # Errors
    ///
    /// Fails the migration.
    fn save_state(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        let _ = cx;
        Ok(())
    }

    /// Frees what the source's side took. After success, failure and cancel, active or not, set up or not. The guest
    /// may be running again. Cannot write.
    fn save_cleanup(&mut self, bql: &Bql<'_>) {
        let _ = bql;
    }

    /// Postcopy, on the source, after a new connection is there: finds out with the destination what it has.
    ///
    /// # Errors
    ///
    /// The migration is paused again.
    fn resume_prepare(&mut self, cx: &mut ResumeCx<'_>) -> Result<(), HandlerError> {
        let _ = cx;
        Ok(())
    }

    /// Prepares for loading. Once, active entries only, before the first section.
    ///
    /// # Errors
    ///
    /// Ends the load.
    fn load_setup(&mut self, cx: &mut LoadSetupCx<'_>) -> Result<(), HandlerError> {
        let _ = cx;
        Ok(())
    }

    /// Whether the device must approve the switchover. Once, after all `load_setup`s, with the capability
    /// `switchover-ack` in its form of 8.1 to 11.0. If so, it must later call [`LoadCx::approve_switchover`] once.
    fn switchover_ack_needed(&mut self) -> bool {
        false
    }

    /// Reads the payload of one section: START, PART, END or FULL. Nothing tells which; its own bytes must. `version`
    /// is that of the START or FULL that came, at most the registered one; it may be any smaller one.
    ///
    /// Must take exactly the payload. The footer behind it gives away most mistakes.
    ///
    /// # Errors
    ///
    /// Ends the load.
    fn load_state(&mut self, cx: &mut LoadCx<'_>, version: VersionId) -> Result<(), HandlerError> {
        let _ = (cx, version);
        Err(HandlerError::refused("this section cannot be loaded"))
    }

    /// Gives what takes device state that comes over extra channels: packets in any order, from several threads at
    /// once, between `load_setup` and `load_cleanup`. Asked once after `load_setup`. None: such packets are refused.
    fn load_state_buffer(&mut self) -> Option<Arc<dyn LoadStateBuffer>> {
        None
    }

    /// The source has stopped its guest; what follows is final. At most once.
    ///
    /// # Errors
    ///
    /// Ends the load.
    fn switchover_start(&mut self, cx: &mut LoadSetupCx<'_>) -> Result<(), HandlerError> {
        let _ = cx;
        Ok(())
    }

    /// Frees what loading took. After success and failure, all entries, set up or not. The guest may be running.
    fn load_cleanup(&mut self, bql: &Bql<'_>) {
        let _ = bql;
    }
}

/// The work of [`SaveVmHandlers::save_live_complete_precopy_thread`].
pub trait CompletePrecopyThread: Send {
    /// Writes device state as packets until done, or until the context says stop.
    ///
    /// # Errors
    ///
    /// Fails the migration.
    fn run(self: Box<Self>, cx: &mut ThreadCx<'_>) -> Result<(), HandlerError>;
}

/// The receiving end of [`CompletePrecopyThread`].
pub trait LoadStateBuffer: Send + Sync {
    /// Takes one packet.
    ///
    /// # Errors
    ///
    /// Ends the load.
    fn load(&self, buffer: &[u8]) -> Result<(), HandlerError>;
}
