//! What a handler gets: one type for each phase, so that a call in the wrong one does not compile.

use std::sync::Arc;

use vmstate_ram::BlockName;
use vmstate_wire::stream::{IdStr, InstanceId};

use crate::bql::Bql;
use crate::channel::{ChannelError, SectionReader, SectionWriter};
use crate::postcopy::PostcopyRam;
use crate::settings::Settings;

/// For `save_setup`: the guest runs, the lock is held, bytes go into START.
pub struct SetupCx<'a> {
    /// The VMM's lock.
    pub bql: &'a Bql<'a>,
    /// The section.
    pub out: &'a mut dyn SectionWriter,
    /// Capabilities, parameters and dialect of this migration.
    pub settings: &'a Settings,
}

/// For `save_live_iterate` and `save_postcopy_prepare`: the guest runs, here or in postcopy at the destination, the lock is
/// not held, bytes go into a PART.
pub struct IterateCx<'a> {
    /// The section. Ask its [`SectionWriter::rate_exceeded`] often.
    pub out: &'a mut dyn SectionWriter,
    /// Capabilities, parameters and dialect of this migration.
    pub settings: &'a Settings,
}

/// For `save_live_complete_precopy`, `save_live_complete_postcopy` and `save_state`: the guest is stopped, the lock is
/// held, bytes go into END or FULL.
pub struct CompleteCx<'a> {
    /// The VMM's lock.
    pub bql: &'a Bql<'a>,
    /// The section.
    pub out: &'a mut dyn SectionWriter,
    /// Capabilities, parameters and dialect of this migration.
    pub settings: &'a Settings,
}

/// For `save_postcopy_discard`: the guest is stopped, the lock is held.
pub struct DiscardCx<'a> {
    /// The VMM's lock.
    pub bql: &'a Bql<'a>,
    /// What the destination is told.
    pub out: &'a mut dyn DiscardSink,
    /// Capabilities, parameters and dialect of this migration.
    pub settings: &'a Settings,
}

/// What a destination is to drop before it runs the guest.
pub trait DiscardSink {
    /// Drops a range of a RAM block: `length` bytes from `start` on, both multiples of the block's page size.
    ///
    /// # Errors
    ///
    /// [`ChannelError`].
    fn discard(&mut self, block: &BlockName, start: u64, length: u64) -> Result<(), ChannelError>;
}

/// For `load_setup` and `switchover_start`.
pub struct LoadSetupCx<'a> {
    /// The VMM's lock; none in postcopy, where the listening thread reads the stream.
    pub bql: Option<&'a Bql<'a>>,
    /// Capabilities, parameters and dialect of this migration.
    pub settings: &'a Settings,
    /// RAM that may still be coming when the guest runs; none without the capability `postcopy-ram`.
    pub postcopy: Option<&'a Arc<PostcopyRam>>,
}

/// For `load_state`.
pub struct LoadCx<'a> {
    /// The VMM's lock; none in postcopy, where the listening thread reads the stream.
    pub bql: Option<&'a Bql<'a>>,
    /// The section.
    pub input: &'a mut dyn SectionReader,
    /// Capabilities, parameters and dialect of this migration.
    pub settings: &'a Settings,
    pub(crate) approvals: &'a mut u32,
}

impl<'a> LoadCx<'a> {
    /// A context. Approvals are added to `approvals`.
    pub fn new(
        bql: Option<&'a Bql<'a>>,
        input: &'a mut dyn SectionReader,
        settings: &'a Settings,
        approvals: &'a mut u32,
    ) -> Self {
        Self {
            bql,
            input,
            settings,
            approvals,
        }
    }

    /// Says that this device is ready for the switchover; without the capability `switchover-ack` nobody listens.
    pub fn approve_switchover(&mut self) {
        *self.approvals = self.approvals.saturating_add(1);
    }
}

/// For `resume_prepare`.
pub struct ResumeCx<'a> {
    /// The new connection.
    pub link: &'a mut dyn RecoveryLink,
    /// Capabilities, parameters and dialect of this migration.
    pub settings: &'a Settings,
}

/// What a handler may ask the destination after a broken postcopy.
pub trait RecoveryLink {
    /// Asks which pages of a block have arrived: one bit per target page, lowest bit of word 0 first.
    ///
    /// # Errors
    ///
    /// [`ChannelError`].
    fn received_bitmap(&mut self, block: &BlockName, pages: u64) -> Result<Vec<u64>, ChannelError>;
}

/// For [`CompletePrecopyThread`](super::CompletePrecopyThread).
pub struct ThreadCx<'a> {
    /// The entry's name, which goes into its packets.
    pub idstr: &'a IdStr,
    /// The entry's instance id, which goes into its packets.
    pub instance_id: InstanceId,
    /// Where packets go.
    pub out: &'a dyn StateBufferSink,
}

/// Extra channels that carry packets of device state.
pub trait StateBufferSink: Sync {
    /// Sends one packet.
    ///
    /// # Errors
    ///
    /// [`ChannelError`].
    fn send(
        &self,
        idstr: &IdStr,
        instance_id: InstanceId,
        buffer: &[u8],
    ) -> Result<(), ChannelError>;

    /// Whether the engine wants the thread to end.
    fn stopping(&self) -> bool;
}

macro_rules! debug {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

debug!(
    SetupCx,
    IterateCx, CompleteCx, DiscardCx, LoadSetupCx, LoadCx, ResumeCx, ThreadCx
);
