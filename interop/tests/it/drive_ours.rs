//! Migrations that `drive` runs between the built-in machine, through its own monitor, and stock QEMU.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmstate_engine::{RunState, Supported};
use vmstate_interop::{Generation, Machine as Qemu, Program as QemuProgram, Ram, Result, find};
use vmstate_io::drive::{Help, Note, Outcome, Outlook, Plan, Report, drive};
use vmstate_io::live::{Deadlines, Migrator, Monitor, RunControl};
use vmstate_io::qmp::{Events, QmpAddress, QmpClient, QmpServer, RunningQmpServer, Timeouts};
use vmstate_qmp::{MachineEvent, Version, VersionTriple, machine_commands};
use vmstate_spike::guests::{self, Counter};
use vmstate_spike::{Config, Machine, Program};

use crate::board::MONITOR;
use crate::drive::{Seen, connect, plan, settings};

/// Bytes of RAM.
const SIZE: u64 = 16 << 20;
/// Offset in RAM of the first hart's counter.
const COUNTER: u64 = 0x1200;

struct Control(Arc<Machine>);

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
struct Ours {
    machine: Arc<Machine>,
    address: QmpAddress,
    _server: RunningQmpServer,
    dir: TempDir,
}

impl Ours {
    fn new(incoming: bool, ram: u64) -> Result<Self> {
        let machine = Arc::new(Machine::new(Config {
            harts: 2,
            ram,
            program: Some(Program::parse(guests::COUNTER)?),
            incoming,
            ..Config::default()
        })?);
        let events = Events::new();
        let told = events.clone();
        let monitor: Arc<OnceLock<Weak<Monitor<Control>>>> = Arc::default();
        let known = Arc::clone(&monitor);
        let migrator = Migrator::new(
            machine.vmm(incoming, true)?,
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
        let ours = Arc::new(Monitor::new(
            Control(Arc::clone(&machine)),
            migrator,
            version.clone(),
            Supported::default(),
        ));
        let _ = monitor.set(Arc::downgrade(&ours));
        let dir = tempfile::tempdir()?;
        let server = QmpServer::bind(&QmpAddress::Unix(dir.path().join("qmp")))?;
        let address = server.address().clone();
        let server = server.start(machine_commands(), ours, &events, version)?;
        if !incoming {
            machine.resume()?;
        }
        Ok(Self {
            machine,
            address,
            _server: server,
            dir,
        })
    }

    fn client(&self) -> Result<QmpClient> {
        Ok(QmpClient::connect(&self.address, Timeouts::default())?)
    }

    fn uri(&self) -> String {
        format!("unix:{}", self.dir.path().join("migration").display())
    }

    /// Waits until the guest has computed more than this, and finds nothing wrong. Returns how far it is.
    fn passes_after(&self, passes: u64) -> Result<u64> {
        let end = Instant::now() + Duration::from_secs(60);
        while Counter::read(&self.machine)?.passes() <= passes {
            assert!(Instant::now() < end, "{:?}", self.machine.run_state());
            std::thread::sleep(Duration::from_millis(2));
        }
        self.machine.pause();
        let counter = Counter::read(&self.machine)?;
        counter.check(&self.machine)?;
        assert_eq!(self.machine.guest_error(), None);
        self.machine.resume()?;
        Ok(counter.passes())
    }
}

fn qemu(program: &QemuProgram, more: &[&str]) -> Result<Qemu> {
    let fixed = "-machine spike,memory-backend=riscv.spike.ram -smp 2 -bios DIR/guest.elf";
    let words = fixed.split_whitespace().chain(MONITOR.iter().copied());
    let arguments: Vec<_> = words
        .chain(more.iter().copied())
        .map(str::to_owned)
        .collect();
    let ram = Ram {
        block: "riscv.spike.ram",
        size: SIZE,
    };
    Qemu::start(program, ram, &[("guest.elf", guests::COUNTER)], &arguments)
}

fn run(source: &mut QmpClient, destination: &mut QmpClient, plan: &Plan) -> Result<Report> {
    let cancel = AtomicBool::new(false);
    let mut seen = Seen::new(&cancel, |_| false);
    Ok(drive(source, Some(destination), plan, &cancel, &mut seen)?)
}

fn assert_moved(report: &Report) {
    assert!(report.is_success(), "{report:#?}");
    assert_eq!(report.source.status.as_deref(), Some("postmigrate"));
    let ram = report.info.ram.clone().unwrap_or_default();
    assert!(ram.transferred > 0 && ram.total >= SIZE, "{ram:?}");
    assert!(report.info.downtime.is_some() && report.info.total_time.is_some());
}

#[test]
fn ours_to_ours() -> Result<()> {
    let source = Ours::new(false, SIZE)?;
    let destination = Ours::new(true, SIZE)?;
    let passes = source.passes_after(3)?;
    let report = run(
        &mut source.client()?,
        &mut destination.client()?,
        &plan(source.uri()),
    )?;
    assert_moved(&report);
    assert_eq!(report.source.program, "vmstate 0.1.0 (as QEMU 11.1.0)");
    assert!(destination.passes_after(passes)? > passes);
    Ok(())
}

/// With settings of both sides, over TCP, to a port that the destination chooses.
#[test]
fn ours_to_ours_with_settings() -> Result<()> {
    let source = Ours::new(false, SIZE)?;
    let destination = Ours::new(true, SIZE)?;
    let passes = source.passes_after(3)?;
    let plan = Plan {
        capabilities: ["return-path", "pause-before-switchover", "events"]
            .map(|name| (name.to_owned(), true))
            .to_vec(),
        parameters: settings(&[("max-bandwidth", "1G")]),
        ..plan("tcp:127.0.0.1:0")
    };
    let report = run(&mut source.client()?, &mut destination.client()?, &plan)?;
    assert_moved(&report);
    assert!(destination.passes_after(passes)? > passes);
    Ok(())
}

#[test]
fn qemu_to_ours_and_back() -> Result<()> {
    let Some(program) = find(Generation::V11_1, "riscv64") else {
        return Ok(());
    };
    let mut first = qemu(&program, &[])?;
    for _ in 0..3 {
        first.wait_for_change(COUNTER)?;
    }
    let ours = Ours::new(true, SIZE)?;
    let report = run(
        &mut connect(&first)?,
        &mut ours.client()?,
        &plan(ours.uri()),
    )?;
    assert_moved(&report);
    let passes = ours.passes_after(0)?;
    assert!(ours.passes_after(passes)? > passes);

    let mut last = qemu(&program, &["-incoming", "defer"])?;
    let uri = format!("unix:{}", last.dir().join("migration").display());
    let report = run(&mut ours.client()?, &mut connect(&last)?, &plan(uri))?;
    assert_moved(&report);
    for _ in 0..3 {
        last.wait_for_change(COUNTER)?;
    }
    Ok(())
}

/// Who has less memory refuses, says why, and the guest runs on where it is.
#[test]
fn a_refusal() -> Result<()> {
    let source = Ours::new(false, SIZE)?;
    let destination = Ours::new(true, 2 * SIZE)?;
    let passes = source.passes_after(1)?;
    let report = run(
        &mut source.client()?,
        &mut destination.client()?,
        &plan(source.uri()),
    )?;
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert!(report.source.as_expected, "{report:#?}");
    let reason = report.destination.and_then(|end| end.error);
    assert!(
        reason.as_ref().is_some_and(|reason| reason.contains("ram")),
        "{reason:?}"
    );
    assert!(source.passes_after(passes)? > passes);
    Ok(())
}

#[test]
fn a_cancel() -> Result<()> {
    let source = Ours::new(false, SIZE)?;
    let destination = Ours::new(true, SIZE)?;
    let passes = source.passes_after(1)?;
    let plan = Plan {
        parameters: settings(&[("max-bandwidth", "4K"), ("downtime-limit", "1")]),
        ..plan(source.uri())
    };
    let cancel = AtomicBool::new(false);
    let active = |seen: &Seen<'_>| seen.statuses.last().is_some_and(|s| s == "active");
    let mut seen = Seen::new(&cancel, active);
    let report = drive(
        &mut source.client()?,
        Some(&mut destination.client()?),
        &plan,
        &cancel,
        &mut seen,
    )?;
    assert_eq!(report.outcome, Outcome::Cancelled, "{report:#?}");
    assert!(seen.notes.contains(&Note::Cancelling), "{:?}", seen.notes);
    assert!(report.source.as_expected, "{report:#?}");
    assert!(source.passes_after(passes)? > passes);
    Ok(())
}

/// Our source, too, says what it needs for a forecast.
#[test]
fn too_fast() -> Result<()> {
    let source = Ours::new(false, SIZE)?;
    source.passes_after(1)?;
    let slow = Plan {
        parameters: settings(&[("max-bandwidth", "64K"), ("downtime-limit", "5")]),
        ..plan("exec:cat > /dev/null")
    };
    let cancel = AtomicBool::new(false);
    let mut seen = Seen::new(&cancel, |seen| seen.stuck().is_some());
    let report = drive(&mut source.client()?, None, &slow, &cancel, &mut seen)?;
    assert_eq!(report.outcome, Outcome::Cancelled, "{report:#?}");
    let Some(Outlook::DoesNotConverge { help, .. }) = seen.stuck() else {
        return Err(format!("{:?}", seen.notes).into());
    };
    assert!(help.contains(&Help::AutoConverge), "{help:?}");
    Ok(())
}
