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
