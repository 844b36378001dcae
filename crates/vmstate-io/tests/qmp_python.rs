//! QEMU's own tools talk to our monitor: Python's `qemu.qmp` package and `qmp-shell`.
//!
//! `VMSTATE_PYTHON` names an interpreter that has the package, else `python3` is tried. Where it is missing, the tests say
//! so and pass, unless `VMSTATE_REQUIRE_PYTHON` is set.

#![expect(clippy::unwrap_used, reason = "tests and what they share")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use vmstate_io::qmp::{Events, QmpServer, RunningQmpServer};
use vmstate_qmp::address::MigrationAddress;
use vmstate_qmp::migration::{CapabilityStatus, MigrationInfo, MigrationStatus, StatusInfo};
use vmstate_qmp::{MachineEvent, QmpError, QmpMachine, Version, VersionTriple, machine_commands};

/// Nothing takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine without a guest.
struct Toy {
    events: Events,
    state: Mutex<State>,
}

struct State {
    running: bool,
    migration: Option<MigrationStatus>,
}

impl Toy {
    fn run(&self, running: bool, event: &MachineEvent) {
        self.state.lock().unwrap().running = running;
        self.events.emit(event);
    }
}

impl QmpMachine for Toy {
    fn version(&self) -> Version {
        Version {
            qemu: VersionTriple {
                major: 11,
                minor: 1,
                micro: 0,
            },
            package: "toy".to_owned(),
        }
    }

    fn status(&self) -> StatusInfo {
        let running = self.state.lock().unwrap().running;
        StatusInfo {
            status: if running { "running" } else { "paused" }.to_owned(),
            running,
        }
    }

    fn stop(&self) -> Result<(), QmpError> {
        self.run(false, &MachineEvent::Stop);
        Ok(())
    }

    fn cont(&self) -> Result<(), QmpError> {
        self.run(true, &MachineEvent::Resume);
        Ok(())
    }

    fn quit(&self) -> Result<(), QmpError> {
        let (guest, reason) = (false, "host-qmp-quit");
        self.events.emit(&MachineEvent::Shutdown { guest, reason });
        Ok(())
    }

    fn migrate(&self, _: MigrationAddress, _: bool) -> Result<(), QmpError> {
        self.state.lock().unwrap().migration = Some(MigrationStatus::SETUP);
        self.events
            .emit(&MachineEvent::Migration(MigrationStatus::SETUP));
        Ok(())
    }

    fn migrate_incoming(&self, _: MigrationAddress, _: bool) -> Result<(), QmpError> {
        Err(QmpError::generic(
            "'-incoming' was not specified on the command line",
        ))
    }

    fn migrate_cancel(&self) -> Result<(), QmpError> {
        Ok(())
    }

    fn migrate_continue(&self, _: MigrationStatus) -> Result<(), QmpError> {
        Ok(())
    }

    fn migration_info(&self) -> MigrationInfo {
        MigrationInfo {
            status: self.state.lock().unwrap().migration.clone(),
            ..MigrationInfo::default()
        }
    }

    fn capabilities(&self) -> Vec<CapabilityStatus> {
        vec![CapabilityStatus {
            capability: "events".to_owned(),
            state: true,
        }]
    }

    fn set_capabilities(&self, _: &[CapabilityStatus]) -> Result<(), QmpError> {
        Ok(())
    }

    fn parameters(&self) -> Map<String, Value> {
        let parameters = json!({"max-bandwidth": 1 << 20});
        parameters.as_object().cloned().unwrap_or_default()
    }

    fn set_parameters(&self, _: &Map<String, Value>) -> Result<(), QmpError> {
        Ok(())
    }
}

fn serve(path: &Path) -> RunningQmpServer {
    let events = Events::new();
    let toy = Toy {
        events: events.clone(),
        state: Mutex::new(State {
            running: true,
            migration: None,
        }),
    };
    let version = toy.version();
    let address = format!("unix:{}", path.display()).parse().unwrap();
    let server = QmpServer::bind(&address).unwrap();
    server
        .start(machine_commands::<Toy>(), Arc::new(toy), &events, version)
        .unwrap()
}

/// An interpreter that has the package.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("VMSTATE_PYTHON");
    let python = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let found = Command::new(&python)
        .args(["-c", "import qemu.qmp"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        assert!(
            std::env::var_os("VMSTATE_REQUIRE_PYTHON").is_none(),
            "Python's qemu.qmp is required and missing"
        );
        // Not through the macro: what a passing test prints would not be seen.
        let text = format!("skipped: {} has no package qemu.qmp\n", python.display());
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    found.then_some(python)
}

/// Waits for the process's end. One that does not end is ended.
fn finish(mut child: Child) -> Output {
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
        }
        sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_python_package() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp");
    let server = serve(&path);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/qmp_client.py");
    let output = finish(spawn(Command::new(python).arg(script).arg(&path)));
    assert!(
        output.status.success() && output.stdout == b"all as expected\n",
        "{output:#?}"
    );
    server.close();
}

#[test]
fn qmp_shell() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp");
    let server = serve(&path);
    let mut shell = Command::new(python);
    shell
        .args(["-m", "qemu.qmp.qmp_shell"])
        .arg(&path)
        // It keeps what was typed there.
        .env("HOME", dir.path());
    let mut child = spawn(&mut shell);
    let lines = "query-status\nmigrate-set-parameters max-bandwidth=1\nmigrate uri=tcp:a\nstop\nquery-status\n";
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    let output = finish(child);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:#?}");
    let expected = [
        "Connected to QEMU 11.1.0",
        r#"{"return": {"status": "running", "running": true}}"#,
        r#"{"return": {}}"#,
        r#"{"error": {"class": "GenericError", "desc": "error parsing address 'a'"}}"#,
        r#"{"return": {"status": "paused", "running": false}}"#,
    ];
    let mut rest = text.as_ref();
    for line in expected {
        let Some(at) = rest.find(line) else {
            panic!("{line} is missing in\n{text}");
        };
        rest = rest.get(at..).unwrap_or_default();
    }
    server.close();
}
