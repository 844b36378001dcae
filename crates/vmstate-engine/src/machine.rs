//! The VMM, as a migration sees it.

use std::fmt;

use vmstate_desc::Reason;

use crate::bql::Bql;

/// The right to run one guest. There is one value for each guest, and it cannot be copied: whoever holds it may run
/// the guest, nobody else.
///
/// A VMM makes one when it creates a guest, and keeps it while the guest runs. For a migration it gives it away
/// ([`Machine::stop`]), and gets it back if the migration fails ([`Machine::start`]). A destination receives one that
/// the source has given up.
///
/// ```compile_fail
/// # use vmstate_engine::RunToken;
/// let one = RunToken::new_guest();
/// let two = one.clone();
/// ```
#[must_use = "whoever drops the right to run a guest has given the guest up"]
#[derive(Debug, PartialEq, Eq)]
pub struct RunToken(());

impl RunToken {
    /// The right to run a guest that has just been created. Once per guest: not for one that comes by migration.
    pub fn new_guest() -> Self {
        Self(())
    }

    /// The right to run a guest that has arrived; made where the destination's table says so.
    pub(crate) fn arrived() -> Self {
        Self(())
    }

    /// Gives the guest up.
    pub(crate) fn surrender(self) {
        drop(self);
    }
}

macro_rules! run_states {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        /// What a machine is doing: QEMU's `RunState`, with its names.
        ///
        /// Wire: the section `globalstate` carries the name, at most 31 bytes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RunState {
            $($(#[$meta])* $name,)*
        }

        impl RunState {
            /// All of them, in QEMU's order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// QEMU's name, as in `query-status`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

run_states! {
    /// Stopped by a debugger.
    Debug = "debug",
    /// Waiting for an incoming migration.
    InMigrate = "inmigrate",
    /// Stopped by an error inside the VMM.
    InternalError = "internal-error",
    /// Stopped by an I/O error.
    IoError = "io-error",
    /// Stopped by a command.
    Paused = "paused",
    /// The guest has been migrated away.
    PostMigrate = "postmigrate",
    /// Not started yet.
    Prelaunch = "prelaunch",
    /// Stopped for the last part of a migration.
    FinishMigrate = "finish-migrate",
    /// Stopped while a snapshot is being loaded.
    RestoreVm = "restore-vm",
    /// Running.
    Running = "running",
    /// Stopped while a snapshot is being saved.
    SaveVm = "save-vm",
    /// The guest has shut itself down.
    Shutdown = "shutdown",
    /// The guest sleeps (ACPI S3).
    Suspended = "suspended",
    /// A watchdog has fired.
    Watchdog = "watchdog",
    /// The guest has panicked.
    GuestPanicked = "guest-panicked",
    /// Kept in step by COLO.
    Colo = "colo",
}

impl RunState {
    /// The state of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.name() == name)
    }

    /// Whether a destination starts a guest that comes in this state.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Suspended)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A guest that has just been stopped, with the right to run it.
#[derive(Debug)]
pub struct StoppedGuest {
    /// What the machine was doing before.
    pub was: RunState,
    /// The right to run the guest.
    pub token: RunToken,
}

/// The VMM did not do what a migration asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct MachineError {
    /// What it should have done, such as `stop the guest`.
    pub what: &'static str,
    /// The VMM's reason.
    pub reason: Reason,
}

impl MachineError {
    /// An error with this reason.
    pub fn new(what: &'static str, reason: impl Into<Reason>) -> Self {
        Self {
            what,
            reason: reason.into(),
        }
    }
}

/// What a VMM does for a migration.
///
/// RAM and devices are not here: they are entries of its [`Registry`](crate::Registry). Methods take `&self`: a
/// migration has threads of its own.
pub trait Machine: Send + Sync {
    /// The machine type's full name, never an alias: what the configuration section carries.
    fn name(&self) -> &str;

    /// What the machine is doing.
    fn run_state(&self) -> RunState;

    /// Stops all vCPUs, finishes what devices have begun (disks are flushed), changes to `state` and gives the right to run the
    /// guest away. From here on no device writes guest memory or changes its own state. A guest that was stopped
    /// already gives its right away all the same.
    ///
    /// # Errors
    ///
    /// [`MachineError`]; the guest then goes on as it was and the machine keeps the right.
    fn stop(&self, bql: &Bql<'_>, state: RunState) -> Result<StoppedGuest, MachineError>;

    /// Takes the right to run the guest. If `state` is live, starts all vCPUs, else changes to `state`, from which the
    /// user may start them.
    ///
    /// On the source this undoes [`stop`](Self::stop); `state` is then what it returned. It must not fail: a VMM that
    /// cannot start, for instance because a disk is locked, changes to a state that says so.
    fn start(&self, bql: &Bql<'_>, token: RunToken, state: RunState);

    /// The guest has gone to the destination: changes to `postmigrate`, from which nothing starts it any more.
    fn migrated(&self, bql: &Bql<'_>);

    /// The guest is lost: it has been started, and part of its RAM will never arrive. Gives the right to run it up, tells all
    /// vCPUs to stop where an instruction ends, and changes to `internal-error`, from which nothing starts it any more.
    ///
    /// It must not wait for vCPUs, nor for the lock: whoever has it may be waiting for RAM. When this has returned, what is
    /// missing becomes zero, so that vCPUs come to the end of their last instruction.
    fn lost(&self);

    /// The kernel's numbers of the threads that run the vCPUs, in their order, as far as there are such: whose waiting for
    /// RAM in postcopy is shown vCPU by vCPU.
    fn vcpu_threads(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Makes vCPUs sleep for `percent` percent of the time, 1 to 99; 0 ends it. QEMU: 10 ms of running to
    /// `percent / (100 - percent)` times 10 ms of sleep.
    fn throttle(&self, percent: u8);

    /// Whether a device still waits for its guest to let go of it (failover). Asked every 250 ms after the setup.
    fn unplug_pending(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_states_have_qemus_names() {
        for state in RunState::ALL {
            assert_eq!(RunState::from_name(state.name()), Some(*state));
            assert!(state.name().len() <= 31);
        }
        assert_eq!(RunState::ALL.len(), 16);
        assert_eq!(RunState::from_name("Running"), None);
        let live: Vec<_> = RunState::ALL.iter().filter(|s| s.is_live()).collect();
        assert_eq!(live, [&RunState::Running, &RunState::Suspended]);
    }
}
