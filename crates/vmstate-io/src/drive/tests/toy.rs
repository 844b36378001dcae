//! Machines that say what they are told to say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use vmstate_qmp::address::MigrationAddress;
use vmstate_qmp::migration::{CapabilityStatus, MigrationInfo, MigrationStatus, StatusInfo};
use vmstate_qmp::schema::{Member, Shape, Type};
use vmstate_qmp::{QmpError, QmpMachine, Version, VersionTriple, machine_commands};

use crate::qmp::{Events, QmpAddress, QmpClient, QmpServer, RunningQmpServer, Timeouts};

/// What a machine says, and what it was told.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) release: (u32, u32),
    /// Its run state.
    pub(super) status: String,
    /// Before it was told to migrate or to wait.
    pub(super) idle: Value,
    /// One answer of `query-migrate` after the other; the last one stays.
    pub(super) answers: VecDeque<Value>,
    /// What `qom-get` says of its type; none: refused.
    pub(super) machine: Option<&'static str>,
    /// Its run state once the last answer is given.
    pub(super) then: Option<String>,
    /// What it says to `migrate` or `migrate-incoming`.
    pub(super) refusal: Option<String>,
    /// What `migrate_cancel` makes of the answers; none: refused.
    pub(super) cancelled: Option<Vec<Value>>,
    /// Commands that it was told.
    pub(super) told: Vec<String>,
    pub(super) begun: bool,
    /// Once it would say that it is paused, `query-migrate` has no answer until it is told to recover.
    pub(super) hangs: bool,
}

impl Script {
    fn hangs_now(&self) -> bool {
        let paused = json!({ "status": "postcopy-paused" });
        self.hangs && self.begun && self.answers.front() == Some(&paused)
    }
}

pub(super) struct Toy {
    script: Mutex<Script>,
}

impl Toy {
    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn begin(&self, told: String) -> Result<(), QmpError> {
        let mut script = self.script();
        script.told.push(told);
        if let Some(refusal) = &script.refusal {
            return Err(QmpError::generic(refusal));
        }
        script.begun = true;
        Ok(())
    }
}

impl QmpMachine for Toy {
    fn version(&self) -> Version {
        let (major, minor) = self.script().release;
        Version {
            qemu: VersionTriple {
                major,
                minor,
                micro: 1,
            },
            package: String::new(),
        }
    }

    fn status(&self) -> StatusInfo {
        let script = self.script();
        StatusInfo {
            status: script.status.clone(),
            running: script.status == "running",
        }
    }

    fn stop(&self) -> Result<(), QmpError> {
        unreachable!()
    }

    fn cont(&self) -> Result<(), QmpError> {
        unreachable!()
    }

    fn quit(&self) -> Result<(), QmpError> {
        self.script().told.push("quit".to_owned());
        Ok(())
    }

    fn migrate(&self, to: MigrationAddress, resume: bool) -> Result<(), QmpError> {
        let again = if resume { " again" } else { "" };
        self.begin(format!("migrate {to}{again}"))
    }

    fn migrate_start_postcopy(&self) -> Result<(), QmpError> {
        self.begin("start postcopy".to_owned())
    }

    fn migrate_pause(&self) -> Result<(), QmpError> {
        self.begin("pause".to_owned())
    }

    fn migrate_recover(&self, from: MigrationAddress) -> Result<(), QmpError> {
        self.script().hangs = false;
        self.begin(format!("recover {from}"))
    }

    fn give_up(&self) -> Result<(), QmpError> {
        self.begin("give up".to_owned())
    }

    fn migrate_incoming(&self, from: MigrationAddress, exit: bool) -> Result<(), QmpError> {
        self.begin(format!("incoming {from} {exit}"))
    }

    fn migrate_cancel(&self) -> Result<(), QmpError> {
        let mut script = self.script();
        script.told.push("cancel".to_owned());
        match script.cancelled.take() {
            Some(answers) => {
                script.answers = answers.into();
                Ok(())
            }
            None => Err(QmpError::generic(
                "Postcopy migration in progress, cannot cancel.",
            )),
        }
    }

    fn migrate_continue(&self, state: MigrationStatus) -> Result<(), QmpError> {
        self.script().told.push(format!("continue {state}"));
        Ok(())
    }

    fn migration_info(&self) -> MigrationInfo {
        let end = Instant::now() + Duration::from_secs(60);
        while self.script().hangs_now() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut script = self.script();
        let answer = match script.answers.len() {
            _ if !script.begun => script.idle.clone(),
            2.. => script.answers.pop_front().unwrap(),
            _ => {
                if let Some(status) = script.then.take() {
                    script.status = status;
                }
                script.answers.front().cloned().unwrap_or(json!({}))
            }
        };
        serde_json::from_value(answer).unwrap()
    }

    fn capabilities(&self) -> Vec<CapabilityStatus> {
        let names = ["events", "multifd", "auto-converge", "postcopy-ram"];
        let off = |name: &str| CapabilityStatus {
            capability: name.to_owned(),
            state: false,
        };
        names.map(off).to_vec()
    }

    fn set_capabilities(&self, changes: &[CapabilityStatus]) -> Result<(), QmpError> {
        let list: Vec<_> = changes
            .iter()
            .map(|one| format!("{}={}", one.capability, one.state))
            .collect();
        self.script().told.push(list.join(" "));
        Ok(())
    }

    fn parameters(&self) -> Map<String, Value> {
        let all = json!({"max-bandwidth": 1 << 20, "downtime-limit": 300, "multifd-channels": 2});
        all.as_object().unwrap().clone()
    }

    fn set_parameters(&self, changes: &Map<String, Value>) -> Result<(), QmpError> {
        if changes.get("downtime-limit") == Some(&json!(9_000_000)) {
            return Err(QmpError::generic("out of range"));
        }
        let list: Vec<_> = changes.iter().map(|(n, v)| format!("{n}={v}")).collect();
        self.script().told.push(list.join(" "));
        Ok(())
    }
}

const QOM_GET: Shape = Shape::of(&[
    Member::required("path", Type::String),
    Member::required("property", Type::String),
]);

/// A machine with its monitor.
pub(super) struct Running {
    pub(super) toy: Arc<Toy>,
    pub(super) server: RunningQmpServer,
    address: QmpAddress,
    _dir: TempDir,
}

impl Running {
    pub(super) fn new(script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = QmpAddress::Unix(dir.path().join("qmp"));
        let toy = Arc::new(Toy {
            script: Mutex::new(script),
        });
        let server = QmpServer::bind(&address).unwrap();
        let version = toy.version();
        let mut commands = machine_commands::<Toy>();
        commands.add("qom-get", QOM_GET, |toy: &Toy, _: Value| {
            let machine = toy.script().machine;
            machine.ok_or_else(|| QmpError::generic("Property '.type' not found"))
        });
        let server = server
            .start(commands, Arc::clone(&toy), &Events::new(), version)
            .unwrap();
        Self {
            toy,
            server,
            address,
            _dir: dir,
        }
    }

    pub(super) fn client(&self) -> QmpClient {
        QmpClient::connect(&self.address, Timeouts::default()).unwrap()
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.toy.script().told.clone()
    }
}

/// A source whose guest runs and that goes through these statuses.
pub(super) fn source(answers: &[Value]) -> Script {
    Script {
        release: (11, 1),
        status: "running".to_owned(),
        idle: json!({}),
        answers: answers.iter().cloned().collect(),
        ..Script::default()
    }
}

/// A destination that waits.
pub(super) fn destination(answers: &[Value]) -> Script {
    Script {
        status: "inmigrate".to_owned(),
        ..source(answers)
    }
}
