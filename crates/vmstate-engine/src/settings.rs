//! What is agreed upon before a migration: capabilities, parameters, dialect.

mod capabilities;
mod parameters;

use vmstate_wire::stream::Dialect;
use vmstate_wire::vmdesc::VmdescDialect;

pub use self::capabilities::{Capabilities, Capability, CapabilityError, Supported};
pub use self::parameters::{
    MigrationMode, MigrationParameters, MultifdCompression, ParameterError, ParameterValue, Peer,
    ZeroPageDetection,
};

/// Everything that a migration goes by and that no handler decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Which capabilities are on.
    pub capabilities: Capabilities,
    /// Tunable values. May change while a migration runs.
    pub parameters: MigrationParameters,
    /// How the peer's machine type speaks.
    pub dialect: Dialect,
    /// How the trailer describes devices.
    pub vmdesc: VmdescDialect,
}

impl Settings {
    /// Whether requested pages have a channel of their own from the beginning, on which a mark says that it ends: the capability
    /// `postcopy-preempt` with machine types of 7.2 and older. With others that channel is made when the guest goes, and just
    /// closed.
    ///
    /// | | 7.2 and older | newer |
    /// |---|---|---|
    /// | connected | right behind the main channel, with nothing but its header sent; on recovery before anything is sent | when the guest goes; on recovery behind the bitmaps |
    /// | the destination reads the main channel | once both are there | at once |
    /// | ends with | be64 `0x10`, a RAM section's end, behind the main channel's end-of-stream mark | nothing |
    /// | without postcopy | is closed with nothing sent | is not there |
    ///
    /// Wire: property `x-preempt-pre-7-2` of QEMU's `migration` object. Seen between QEMU 7.2.22, 10.0.13 and 11.1.3.
    #[must_use]
    pub const fn preempts_early(&self) -> bool {
        self.capabilities.has(Capability::PostcopyPreempt) && self.dialect.preempt_pre_7_2
    }
}

impl Default for Settings {
    /// No capability, QEMU's defaults, the dialect of 11.1.
    fn default() -> Self {
        Self {
            capabilities: Capabilities::default(),
            parameters: MigrationParameters::default(),
            dialect: Dialect::QEMU_11_1,
            vmdesc: VmdescDialect::V11_1,
        }
    }
}
