//! Objects over QMP.

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use vmstate_dbus::{Objects, Served, add_object_commands};
use vmstate_engine::Registry;
use vmstate_qmp::address::MigrationAddress;
use vmstate_qmp::migration::{CapabilityStatus, MigrationInfo, MigrationStatus, StatusInfo};
use vmstate_qmp::{CommandTable, QmpError, QmpMachine, Request, Version, machine_commands};

use crate::support::{Good, save};

/// A machine that has objects and does nothing.
struct Idle {
    objects: Objects,
    registry: Arc<Mutex<Registry>>,
    busy: Arc<Mutex<bool>>,
}

impl Idle {
    fn new() -> Self {
        let registry = Arc::new(Mutex::new(Registry::new()));
        let busy = Arc::new(Mutex::new(false));
        let (lent, is_busy) = (Arc::clone(&registry), Arc::clone(&busy));
        Self {
            objects: Objects::new(move |change| {
                if *is_busy.lock().unwrap() {
                    return Err("busy".to_owned());
                }
                change(&mut lent.lock().unwrap());
                Ok(())
            }),
            registry,
            busy,
        }
    }

    fn sections(&self) -> Vec<String> {
        let registry = self.registry.lock().unwrap();
        registry
            .entries()
            .map(|one| one.idstr().to_string())
            .collect()
    }
}

fn none<T>() -> Result<T, QmpError> {
    Err(QmpError::generic("not this machine"))
}

impl QmpMachine for Idle {
    fn version(&self) -> Version {
        unreachable!("nobody asks")
    }
    fn status(&self) -> StatusInfo {
        unreachable!("nobody asks")
    }
    fn stop(&self) -> Result<(), QmpError> {
        none()
    }
    fn cont(&self) -> Result<(), QmpError> {
        none()
    }
    fn quit(&self) -> Result<(), QmpError> {
        none()
    }
    fn migrate(&self, _: MigrationAddress, _: bool) -> Result<(), QmpError> {
        none()
    }
    fn migrate_incoming(&self, _: MigrationAddress, _: bool) -> Result<(), QmpError> {
        none()
    }
    fn migrate_cancel(&self) -> Result<(), QmpError> {
        none()
    }
    fn migrate_continue(&self, _: MigrationStatus) -> Result<(), QmpError> {
        none()
    }
    fn migration_info(&self) -> MigrationInfo {
        MigrationInfo::default()
    }
    fn capabilities(&self) -> Vec<CapabilityStatus> {
        vec![]
    }
    fn set_capabilities(&self, _: &[CapabilityStatus]) -> Result<(), QmpError> {
        none()
    }
    fn parameters(&self) -> Map<String, Value> {
        Map::new()
    }
    fn set_parameters(&self, _: &Map<String, Value>) -> Result<(), QmpError> {
        none()
    }
}

fn run(table: &CommandTable<Idle>, machine: &Idle, command: &str, arguments: Value) -> Value {
    let request = Request {
        execute: command.to_owned(),
        arguments: arguments.as_object().unwrap().clone(),
        id: None,
    };
    table.run(machine, request).to_json()
}

#[test]
fn objects_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("net0");
    let helper = Good::new("net0", b"12345");
    let listener = UnixListener::bind(&socket).unwrap();
    let _served = Served::on_listener(listener, helper).unwrap();
    let peers = format!("unix:path={}", socket.display());

    let mut table = machine_commands::<Idle>();
    add_object_commands(&mut table, |machine: &Idle| &machine.objects);
    let machine = Idle::new();
    let run = |command: &str, arguments: Value| run(&table, &machine, command, arguments);
    let refused = |desc: &str| json!({"error": {"class": "GenericError", "desc": desc}});
    let done = json!({"return": {}});

    let add = |id: &str| json!({"qom-type": "dbus-vmstate", "id": id, "x-peers": peers});
    for id in ["dv0", "dv1"] {
        assert_eq!(run("object-add", add(id)), done);
    }
    let (qemus, ours) = ("dbus-vmstate/dbus-vmstate", "dbus-vmstate/dv1/dbus-vmstate");
    assert_eq!(machine.sections(), [qemus, ours]);
    let taken = "attempt to add duplicate property 'dv0' to object (type 'container')";
    assert_eq!(run("object-add", add("dv0")), refused(taken));
    let gone = json!({"qom-type": "dbus-vmstate", "id": "x", "addr": "unix:path=/nowhere"});
    let answer = run("object-add", gone);
    let desc = answer["error"]["desc"].as_str().unwrap();
    assert!(
        desc.starts_with("cannot connect to unix:path=/nowhere: "),
        "{desc}"
    );
    assert_eq!(machine.sections().len(), 2);

    // The list of ids.
    let path = json!({"path": "/objects/dv0", "property": "id-list"});
    assert_eq!(run("qom-get", path.clone()), json!({"return": ""}));
    let mut set = path.clone();
    set["value"] = "net0,tpm0".into();
    assert_eq!(run("qom-set", set.clone()), done);
    assert_eq!(run("qom-get", path), json!({"return": "net0,tpm0"}));
    let object = machine.objects.get("dv0").unwrap();
    let missing = save(&[&object]).unwrap_err().to_string();
    assert!(
        missing.contains("no helper has the listed id 'tpm0'"),
        "{missing}"
    );
    set["value"] = "net0".into();
    assert_eq!(run("qom-set", set.clone()), done);
    set["value"] = 1.into();
    let wrong = "Invalid parameter type for 'id-list', expected: string";
    assert_eq!(run("qom-set", set), refused(wrong));
    let other = json!({"path": "/objects/dv7", "property": "id-list"});
    assert_eq!(
        run("qom-get", other),
        json!({"error": {"class": "DeviceNotFound", "desc": "Device '/objects/dv7' not found"}})
    );

    // What query-migrate says, once something has been saved.
    assert_eq!(run("query-migrate", json!({})), json!({"return": {}}));
    save(&[&object]).unwrap();
    let info = run("query-migrate", json!({}));
    let share = &info["return"]["x-dbus-vmstate"][0];
    assert_eq!(share["id"], "dv0");
    assert_eq!(share["helpers"], json!([{"id": "net0", "size": 5}]));
    assert_eq!(share["skipped"], json!([]));
    assert!(share["save-time-us"].as_u64() > Some(0), "{share}");

    // The first one's section is free again.
    *machine.busy.lock().unwrap() = true;
    let dv0 = json!({"id": "dv0"});
    assert_eq!(run("object-del", dv0.clone()), refused("busy"));
    assert_eq!(run("object-add", add("dv2")), refused("busy"));
    *machine.busy.lock().unwrap() = false;
    assert_eq!(run("object-del", dv0.clone()), done);
    assert_eq!(machine.sections(), [ours]);
    assert_eq!(run("object-del", dv0), refused("object 'dv0' not found"));
    assert_eq!(run("object-add", add("dv2")), done);
    assert_eq!(machine.sections(), [ours, qemus]);
}

#[test]
fn arguments_are_checked_as_qemu_checks_them() {
    let mut table = machine_commands::<Idle>();
    add_object_commands(&mut table, |machine: &Idle| &machine.objects);
    let machine = Idle::new();
    for (arguments, desc) in [
        (json!({}), "Parameter 'qom-type' is missing"),
        (
            json!({"qom-type": "dbus-vmstate"}),
            "Parameter 'id' is missing",
        ),
        (
            json!({"qom-type": "rng", "id": "a"}),
            "Parameter 'qom-type' does not accept value 'rng'",
        ),
        (
            json!({"qom-type": "dbus-vmstate", "id": "a"}),
            "Parameter 'addr' is missing",
        ),
        (
            json!({"qom-type": "dbus-vmstate", "id": "a", "addr": 1}),
            "Invalid parameter type for 'addr', expected: string",
        ),
        (
            json!({"qom-type": "dbus-vmstate", "id": "a", "addr": "unix:path=/a", "x": 1}),
            "Parameter 'x' is unexpected",
        ),
    ] {
        let answer = run(&table, &machine, "object-add", arguments);
        let expected = json!({"error": {"class": "GenericError", "desc": desc}});
        assert_eq!(answer, expected);
    }
    assert!(machine.sections().is_empty());
}
