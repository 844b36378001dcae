//! The commands of a machine's monitor, over its [`Migrator`].

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use vmstate_engine::{Capability, MigrationStatus, RunState, Supported};
use vmstate_qmp::address::{MigrationAddress, SocketAddress};
use vmstate_qmp::migration::{CapabilityStatus, MigrationInfo, StatusInfo};
use vmstate_qmp::{MachineEvent, QmpError, QmpMachine, Version};

use super::migrator::{MigrationEvent, Migrator};
use crate::qmp::engine;

/// What a monitor does to a machine beside migrating it.
pub trait RunControl: Send + Sync {
    /// What the machine is doing.
    fn run_state(&self) -> RunState;

    /// Stops the guest, if it runs.
    fn pause(&self);

    /// Runs the guest, if it stands still.
    ///
    /// # Errors
    /// Why it must not run: its right to do so is elsewhere, or it has come to its end.
    fn resume(&self) -> Result<(), String>;

    /// Ends the machine, soon.
    fn quit(&self);
}

/// Answers the commands of [`machine_commands`](vmstate_qmp::machine_commands) for a machine with a [`Migrator`].
#[derive(Debug)]
pub struct Monitor<C> {
    control: C,
    migrator: Migrator,
    version: Version,
    supported: Supported,
    exit_on_error: AtomicBool,
}

impl<C: RunControl> Monitor<C> {
    /// A monitor of this machine. `supported` is what its handlers can do.
    #[must_use]
    pub const fn new(
        control: C,
        migrator: Migrator,
        version: Version,
        supported: Supported,
    ) -> Self {
        Self {
            control,
            migrator,
            version,
            supported,
            exit_on_error: AtomicBool::new(true),
        }
    }

    /// The machine.
    pub const fn control(&self) -> &C {
        &self.control
    }

    /// What moves it.
    pub const fn migrator(&self) -> &Migrator {
        &self.migrator
    }

    /// Whether the machine's process is to end if its guest fails to arrive: `exit-on-error` of `migrate-incoming`.
    #[must_use]
    pub fn exits_on_error(&self) -> bool {
        self.exit_on_error.load(Ordering::Relaxed)
    }

    /// What QMP clients hear of a migration's event: nothing without the capability `events`.
    #[must_use]
    pub fn event(&self, event: &MigrationEvent) -> Option<MachineEvent> {
        let settings = self.migrator.settings();
        if !settings.capabilities.has(Capability::Events) {
            return None;
        }
        match event {
            MigrationEvent::Source(status) | MigrationEvent::Destination(status) => {
                Some(MachineEvent::Migration(engine::status_to_qmp(*status)))
            }
            MigrationEvent::Pass(pass) => Some(MachineEvent::MigrationPass(*pass)),
            MigrationEvent::Arrived(_) | MigrationEvent::Departed(_) => None,
        }
    }

    fn is_coming(&self) -> bool {
        self.control.run_state() == RunState::InMigrate
    }

    fn is_free(&self) -> Result<(), QmpError> {
        if self.migrator.is_running() {
            return Err(QmpError::generic("There's a migration process in progress"));
        }
        Ok(())
    }
}

impl<C: RunControl> QmpMachine for Monitor<C> {
    fn version(&self) -> Version {
        self.version.clone()
    }

    fn status(&self) -> StatusInfo {
        let state = self.control.run_state();
        StatusInfo {
            status: state.name().to_owned(),
            running: state == RunState::Running,
        }
    }

    fn stop(&self) -> Result<(), QmpError> {
        if self.is_coming() {
            self.migrator.set_autostart(false);
        } else {
            self.control.pause();
        }
        Ok(())
    }

    fn cont(&self) -> Result<(), QmpError> {
        if self.is_coming() {
            self.migrator.set_autostart(true);
            return Ok(());
        }
        // A guest that has been saved to a file has not left.
        if self.migrator.is_stored() {
            return self.migrator.resume_here().map_err(QmpError::generic);
        }
        self.control.resume().map_err(QmpError::generic)
    }

    fn quit(&self) -> Result<(), QmpError> {
        self.control.quit();
        Ok(())
    }

    fn getfd(&self, name: &str) -> Result<(), QmpError> {
        self.migrator
            .descriptors()
            .name(name)
            .map_err(QmpError::generic)
    }

    fn closefd(&self, name: &str) -> Result<(), QmpError> {
        self.migrator
            .descriptors()
            .close(name)
            .map_err(QmpError::generic)
    }

    fn migrate(&self, to: MigrationAddress, resume: bool) -> Result<(), QmpError> {
        if let MigrationAddress::Socket(SocketAddress::Fd { str: name }) = &to
            && name.parse::<u32>().is_err()
            && !self.migrator.descriptors().has(name)
        {
            return Err(QmpError::generic(format_args!(
                "File descriptor named '{name}' has not been found"
            )));
        }
        let begun = if resume {
            self.migrator.resume(to)
        } else {
            self.migrator.migrate(to)
        };
        begun.map_err(QmpError::generic)
    }

    fn migrate_start_postcopy(&self) -> Result<(), QmpError> {
        self.migrator.start_postcopy().map_err(QmpError::generic)
    }

    fn migrate_pause(&self) -> Result<(), QmpError> {
        if self.migrator.pause_arrival().is_ok() {
            return Ok(());
        }
        self.migrator.pause().map_err(QmpError::generic)
    }

    fn migrate_incoming(
        &self,
        from: MigrationAddress,
        exit_on_error: bool,
    ) -> Result<(), QmpError> {
        self.migrator.incoming(&from).map_err(QmpError::generic)?;
        self.exit_on_error.store(exit_on_error, Ordering::Relaxed);
        Ok(())
    }

    fn migrate_recover(&self, from: MigrationAddress) -> Result<(), QmpError> {
        self.migrator.recover(&from).map_err(QmpError::generic)?;
        Ok(())
    }

    fn migrate_cancel(&self) -> Result<(), QmpError> {
        self.migrator.cancel().map_err(QmpError::generic)
    }

    fn migrate_continue(
        &self,
        state: vmstate_qmp::migration::MigrationStatus,
    ) -> Result<(), QmpError> {
        let state: MigrationStatus = engine::status_from_qmp(&state)?;
        self.migrator.proceed(state).map_err(QmpError::generic)
    }

    fn resume_here(&self) -> Result<(), QmpError> {
        self.migrator.resume_here().map_err(QmpError::generic)
    }

    fn give_up(&self) -> Result<(), QmpError> {
        // A guest that came before its memory, or one that has gone.
        if self
            .migrator
            .give_up_arrival("the user has given it up")
            .is_ok()
        {
            return Ok(());
        }
        self.migrator.give_up().map_err(QmpError::generic)
    }

    fn migration_info(&self) -> MigrationInfo {
        let mut info = engine::info_to_qmp(&self.migrator.info());
        info.adapted = engine::adapted_to_qmp(self.migrator.adapted());
        if let Some(MigrationAddress::Socket(place)) = self.migrator.listening() {
            info.socket_address = serde_json::to_value(place).ok().map(|place| vec![place]);
        }
        info
    }

    fn capabilities(&self) -> Vec<CapabilityStatus> {
        engine::capabilities_to_qmp(self.migrator.settings().capabilities)
    }

    fn set_capabilities(&self, changes: &[CapabilityStatus]) -> Result<(), QmpError> {
        self.is_free()?;
        let asks = |one: &CapabilityStatus| one.state && one.capability == "postcopy-ram";
        if self.is_coming() && changes.iter().any(asks) {
            // Better now than when the source has begun.
            self.migrator.check_postcopy().map_err(|why| {
                QmpError::generic(format_args!("Postcopy is not supported: {why}"))
            })?;
        }
        self.migrator.change_settings(|settings| {
            let on = settings.capabilities;
            settings.capabilities = engine::change_capabilities(on, changes, &self.supported)?;
            Ok(())
        })
    }

    fn parameters(&self) -> Map<String, Value> {
        engine::parameters_to_qmp(&self.migrator.settings().parameters)
    }

    fn set_parameters(&self, changes: &Map<String, Value>) -> Result<(), QmpError> {
        self.migrator.change_settings(|settings| {
            let present = &settings.parameters;
            settings.parameters = engine::change_parameters(present, changes, PAGE)?;
            Ok(())
        })
    }
}

/// Bytes of a target page, the least that the XBZRLE cache may have.
const PAGE: u64 = 4096;
