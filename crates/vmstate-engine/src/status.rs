//! `MigrationStatus`: what a migration is doing, in QEMU's words.

use std::fmt;

macro_rules! statuses {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        /// What a migration is doing: QEMU's `MigrationStatus`, with its names, as in `query-migrate` and in the event
        /// `MIGRATION`.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum MigrationStatus {
            $($(#[$meta])* $name,)*
        }

        impl MigrationStatus {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// QEMU's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

statuses! {
    /// No migration yet.
    #[default]
    None = "none",
    /// Connecting and preparing; at the destination, listening.
    Setup = "setup",
    /// Waiting until the guest has let go of its failover devices.
    WaitUnplug = "wait-unplug",
    /// Copying while the guest runs; at the destination, loading.
    Active = "active",
    /// The guest is stopped, waiting for `migrate-continue`.
    PreSwitchover = "pre-switchover",
    /// The guest is stopped, the final state is on its way.
    Device = "device",
    /// The final state of a postcopy migration is on its way.
    PostcopyDevice = "postcopy-device",
    /// The guest runs at the destination, RAM is on its way.
    PostcopyActive = "postcopy-active",
    /// Postcopy has lost its channels.
    PostcopyPaused = "postcopy-paused",
    /// Postcopy is connecting again.
    PostcopyRecoverSetup = "postcopy-recover-setup",
    /// Postcopy finds out where it was.
    PostcopyRecover = "postcopy-recover",
    /// Done: the guest is at the destination.
    Completed = "completed",
    /// Cleaning up after a failure.
    Failing = "failing",
    /// Failed; `error-desc` says why.
    Failed = "failed",
    /// Cleaning up after a cancel.
    Cancelling = "cancelling",
    /// Cancelled.
    Cancelled = "cancelled",
    /// Kept in step by COLO.
    Colo = "colo",
}

impl MigrationStatus {
    /// The status of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|status| status.name() == name)
    }

    /// Whether a migration is under way: then there is no second one, and capabilities stay as they are.
    #[must_use]
    pub const fn is_running(self) -> bool {
        !matches!(
            self,
            Self::None | Self::Completed | Self::Failed | Self::Cancelled
        )
    }

    /// Whether the migration has switched to postcopy, from where it cannot be cancelled.
    #[must_use]
    pub const fn is_postcopy(self) -> bool {
        matches!(
            self,
            Self::PostcopyDevice
                | Self::PostcopyActive
                | Self::PostcopyPaused
                | Self::PostcopyRecoverSetup
                | Self::PostcopyRecover
        )
    }
}

impl fmt::Display for MigrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_qemus_names() {
        for status in MigrationStatus::ALL {
            assert_eq!(MigrationStatus::from_name(status.name()), Some(*status));
        }
        assert_eq!(MigrationStatus::ALL.len(), 17);
        assert_eq!(MigrationStatus::from_name("unknown"), None);
        let over: Vec<_> = MigrationStatus::ALL
            .iter()
            .filter(|status| !status.is_running())
            .map(ToString::to_string)
            .collect();
        assert_eq!(over, ["none", "completed", "failed", "cancelled"]);
        let postcopy = MigrationStatus::ALL.iter().filter(|s| s.is_postcopy());
        assert!(
            postcopy
                .map(|s| s.name())
                .all(|name| name.starts_with("postcopy-"))
        );
    }
}
