//! QMP's types of a migration, in QMP's units.
//!
//! Members are those of 7.2 to 11.1; what a release does not have is absent.

mod info;
mod status;

use serde::{Deserialize, Serialize};

use crate::address::{ChannelsError, MigrationAddress, MigrationChannel, main_channel};

pub use info::{
    AdaptedField, AdaptedState, MigrationInfo, MigrationStats, MissingPages, PostcopyStats,
    VfioStats, XbzrleCacheStats,
};
pub use status::MigrationStatus;

/// The capabilities of QEMU 11.1, in the order of `query-migrate-capabilities`.
pub const CAPABILITIES: &[&str] = &[
    "xbzrle",
    "rdma-pin-all",
    "auto-converge",
    "events",
    "postcopy-ram",
    "x-colo",
    "release-ram",
    "return-path",
    "pause-before-switchover",
    "multifd",
    "dirty-bitmaps",
    "postcopy-blocktime",
    "late-block-activate",
    "x-ignore-shared",
    "validate-uuid",
    "background-snapshot",
    "zero-copy-send",
    "postcopy-preempt",
    "switchover-ack",
    "dirty-limit",
    "mapped-ram",
];

/// A capability, and whether it is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityStatus {
    /// Its name.
    pub capability: String,
    /// Whether it is on.
    pub state: bool,
}

/// Arguments of `migrate-set-capabilities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetCapabilities {
    /// What to change.
    pub capabilities: Vec<CapabilityStatus>,
}

/// Arguments of `migrate`. QEMU before 8.2 knows no `channels`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrate {
    /// Where to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Where to, in the other form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<MigrationChannel>>,
    /// Whether to go on with a postcopy migration that has lost its channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<bool>,
}

impl Migrate {
    /// Where to.
    ///
    /// # Errors
    /// Neither or both forms, and what names no place.
    pub fn address(&self) -> Result<MigrationAddress, ChannelsError> {
        main_channel(self.uri.as_deref(), self.channels.as_deref())
    }
}

/// Arguments of `migrate-incoming`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MigrateIncoming {
    /// Where to listen, or where the stream is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The same in the other form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<MigrationChannel>>,
    /// Whether the process ends if the migration fails. Default: yes. QEMU 9.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_on_error: Option<bool>,
}

impl MigrateIncoming {
    /// Where to listen.
    ///
    /// # Errors
    /// Neither or both forms, and what names no place.
    pub fn address(&self) -> Result<MigrationAddress, ChannelsError> {
        main_channel(self.uri.as_deref(), self.channels.as_deref())
    }
}

/// Arguments of `migrate-recover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateRecover {
    /// Where to listen.
    pub uri: String,
}

impl MigrateRecover {
    /// Where to listen.
    ///
    /// # Errors
    /// What names no place.
    pub fn address(&self) -> Result<MigrationAddress, ChannelsError> {
        main_channel(Some(&self.uri), None)
    }
}

/// Arguments of `migrate-continue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateContinue {
    /// The status that the migration must have.
    pub state: MigrationStatus,
}

/// Result of `query-status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusInfo {
    /// Name of the run state, such as `running`, `paused`, `inmigrate` or `postmigrate`.
    pub status: String,
    /// Whether the guest's processors run.
    pub running: bool,
}
