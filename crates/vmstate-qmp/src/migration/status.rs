//! `MigrationStatus`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a migration is doing, by name. A name that is not known here is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MigrationStatus(Cow<'static, str>);

macro_rules! statuses {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        impl MigrationStatus {
            $($(#[$meta])* pub const $name: Self = Self(Cow::Borrowed($text));)*

            /// The names of QEMU 11.1, in its order.
            pub const NAMES: &[&str] = &[$($text,)*];
        }
    };
}

statuses! {
    /// No migration yet.
    NONE = "none",
    /// Connecting and preparing; at the destination, listening.
    SETUP = "setup",
    /// Being cancelled.
    CANCELLING = "cancelling",
    /// Cancelled.
    CANCELLED = "cancelled",
    /// Copying while the guest runs.
    ACTIVE = "active",
    /// Preparing postcopy. QEMU 10.2.
    POSTCOPY_DEVICE = "postcopy-device",
    /// The guest runs at the destination, its memory is on its way.
    POSTCOPY_ACTIVE = "postcopy-active",
    /// Postcopy has lost its channels.
    POSTCOPY_PAUSED = "postcopy-paused",
    /// Postcopy is connecting again. QEMU 9.1.
    POSTCOPY_RECOVER_SETUP = "postcopy-recover-setup",
    /// Postcopy finds out where it was.
    POSTCOPY_RECOVER = "postcopy-recover",
    /// Done.
    COMPLETED = "completed",
    /// Cleaning up after a failure. QEMU 11.0.
    FAILING = "failing",
    /// Failed.
    FAILED = "failed",
    /// Kept in step by COLO.
    COLO = "colo",
    /// The guest is stopped, waiting for `migrate-continue`.
    PRE_SWITCHOVER = "pre-switchover",
    /// The guest is stopped, the last part is on its way.
    DEVICE = "device",
    /// Waiting until the guest has let go of failover devices.
    WAIT_UNPLUG = "wait-unplug",
}

impl MigrationStatus {
    /// The status of this name, known or not.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether nothing happens any more, or nothing yet.
    #[must_use]
    pub fn is_over(&self) -> bool {
        ["none", "completed", "failed", "cancelled"].contains(&self.name())
    }

    /// Whether the guest has moved while memory has not: there is no way back.
    #[must_use]
    pub fn is_postcopy(&self) -> bool {
        self.name().starts_with("postcopy-")
    }
}

impl fmt::Display for MigrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
