//! The built-in machine in the test's own process, with its monitor.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmstate_dbus::{Objects, add_object_commands};
use vmstate_engine::{RunState, Settings, Supported};
use vmstate_interop::Result;
use vmstate_io::live::{Deadlines, Migrator, Monitor, RunControl};
use vmstate_io::qmp::{Events, QmpAddress, QmpClient, QmpServer, RunningQmpServer, Timeouts};
use vmstate_qmp::{MachineEvent, Version, VersionTriple, machine_commands};
use vmstate_spike::{Config, Machine, Program};

use crate::host::{Shape, progress};

pub(crate) struct Control(Arc<Machine>, Objects);

impl RunControl for Control {
    fn run_state(&self) -> RunState {
        self.0.run_state()
    }

    fn pause(&self) {
        self.0.pause();
    }

    fn resume(&self) -> std::result::Result<(), String> {
        self.0.resume().map_err(|e| e.to_string())
    }

    fn quit(&self) {}
}

/// The built-in machine with its monitor.
pub(crate) struct Ours {
    pub(crate) machine: Arc<Machine>,
    address: QmpAddress,
    migrator: Migrator,
    _server: RunningQmpServer,
    dir: TempDir,
}

impl Ours {
    /// A machine that runs its guest, or waits for one and runs it then.
    pub(crate) fn new(shape: &Shape, incoming: bool) -> Result<Self> {
        let ours = Self::stopped(shape, incoming, true)?;
        if !incoming {
            ours.machine.resume()?;
        }
        Ok(ours)
    }

    /// A machine that does not run its guest yet; where it waits for one, `autostart` says whether it will by itself.
    pub(crate) fn stopped(shape: &Shape, incoming: bool, autostart: bool) -> Result<Self> {
        let machine = Arc::new(Machine::new(Config {
            harts: shape.harts,
            ram: shape.ram,
            program: Some(Program::parse(shape.guest)?),
            incoming,
            ..Config::default()
        })?);
        let events = Events::new();
        let told = events.clone();
        let monitor: Arc<OnceLock<Weak<Monitor<Control>>>> = Arc::default();
        let known = Arc::clone(&monitor);
        let migrator = Migrator::new(
            machine.vmm(incoming, autostart)?,
            Deadlines::default(),
            move |event| {
                let monitor = known.get().and_then(Weak::upgrade);
                let event: Option<MachineEvent> = monitor.and_then(|m| m.event(event));
                if let Some(event) = event {
                    told.emit(&event);
                }
            },
        )?;
        let version = Version {
            qemu: VersionTriple {
                major: 11,
                minor: 1,
                micro: 0,
            },
            package: "vmstate 0.1.0".to_owned(),
        };
        let moved = migrator.clone();
        let shared = migrator.clone();
        let objects = Objects::new(move |change| {
            let changed = moved.change_registry(change);
            changed.map_err(|error| error.to_string())
        });
        let mut commands = machine_commands();
        add_object_commands(&mut commands, |m: &Monitor<Control>| &m.control().1);
        let ours = Arc::new(Monitor::new(
            Control(Arc::clone(&machine), objects),
            migrator,
            version.clone(),
            Supported::default(),
        ));
        let _ = monitor.set(Arc::downgrade(&ours));
        let dir = tempfile::tempdir()?;
        let server = QmpServer::bind(&QmpAddress::Unix(dir.path().join("qmp")))?;
        let address = server.address().clone();
        let server = server.start(commands, ours, &events, version)?;
        Ok(Self {
            machine,
            address,
            migrator: shared,
            _server: server,
            dir,
        })
    }

    /// Has requested pages have their channel from the beginning.
    pub(crate) fn as_machine_of_7_2(&self) {
        let change = |settings: &mut Settings| {
            settings.dialect.preempt_pre_7_2 = true;
            Ok::<_, std::convert::Infallible>(())
        };
        let Ok(()) = self.migrator.change_settings(change);
    }

    pub(crate) fn client(&self) -> Result<QmpClient> {
        Ok(QmpClient::connect(&self.address, Timeouts::default())?)
    }

    /// A directory of its own.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A socket of its own to listen at.
    pub(crate) fn uri(&self) -> String {
        format!("unix:{}", self.dir.path().join("migration").display())
    }

    /// Waits until the counting guest has counted more than this, and finds nothing wrong. Returns how far it is.
    pub(crate) fn passes_after(&self, passes: u64) -> Result<u64> {
        use vmstate_spike::guests::{COUNTER, Counter};
        let end = Instant::now() + Duration::from_secs(60);
        while Counter::read(&self.machine)?.passes() <= passes {
            assert!(Instant::now() < end, "{:?}", self.machine.run_state());
            std::thread::sleep(Duration::from_millis(2));
        }
        self.machine.pause();
        let passes = progress(&self.machine, COUNTER)?;
        assert_eq!(self.machine.guest_error(), None);
        self.machine.resume()?;
        Ok(passes)
    }
}
