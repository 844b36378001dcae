use std::cell::RefCell;

use super::*;
use crate::{Request, VersionTriple};

/// Writes down what it is told.
#[derive(Default)]
struct Toy {
    told: RefCell<Vec<String>>,
}

impl Toy {
    fn tell(&self, what: impl Into<String>) -> Result<(), QmpError> {
        self.told.borrow_mut().push(what.into());
        Ok(())
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
        StatusInfo {
            status: "running".to_owned(),
            running: true,
        }
    }

    fn stop(&self) -> Result<(), QmpError> {
        self.tell("stop")
    }

    fn cont(&self) -> Result<(), QmpError> {
        self.tell("cont")
    }

    fn quit(&self) -> Result<(), QmpError> {
        self.tell("quit")
    }

    fn migrate(&self, to: MigrationAddress, resume: bool) -> Result<(), QmpError> {
        self.tell(format!("migrate {to} {resume}"))
    }

    fn migrate_incoming(
        &self,
        from: MigrationAddress,
        exit_on_error: bool,
    ) -> Result<(), QmpError> {
        self.tell(format!("incoming {from} {exit_on_error}"))
    }

    fn migrate_start_postcopy(&self) -> Result<(), QmpError> {
        self.tell("start postcopy")
    }

    fn migrate_pause(&self) -> Result<(), QmpError> {
        self.tell("pause")
    }

    fn migrate_recover(&self, from: MigrationAddress) -> Result<(), QmpError> {
        self.tell(format!("recover {from}"))
    }

    fn migrate_cancel(&self) -> Result<(), QmpError> {
        self.tell("cancel")
    }

    fn migrate_continue(&self, state: MigrationStatus) -> Result<(), QmpError> {
        Err(QmpError::generic(format_args!(
            "Migration not in expected state: {state}"
        )))
    }

    fn migration_info(&self) -> MigrationInfo {
        MigrationInfo {
            status: Some(MigrationStatus::ACTIVE),
            expected_downtime: Some(300),
            ..MigrationInfo::default()
        }
    }

    fn capabilities(&self) -> Vec<CapabilityStatus> {
        vec![CapabilityStatus {
            capability: "events".to_owned(),
            state: true,
        }]
    }

    fn set_capabilities(&self, changes: &[CapabilityStatus]) -> Result<(), QmpError> {
        for one in changes {
            self.tell(format!("{}={}", one.capability, one.state))?;
        }
        Ok(())
    }

    fn parameters(&self) -> Map<String, Value> {
        Map::new()
    }

    fn set_parameters(&self, changes: &Map<String, Value>) -> Result<(), QmpError> {
        for (name, value) in changes {
            self.tell(format!("{name}={value}"))?;
        }
        Ok(())
    }
}

/// What a command gives, and what the machine was told meanwhile.
fn run(command: &str, arguments: Value) -> (Result<Value, String>, Vec<String>) {
    let toy = Toy::default();
    let Value::Object(arguments) = arguments else {
        panic!("{arguments}");
    };
    let request = Request {
        execute: command.to_owned(),
        arguments,
        id: None,
    };
    let response = machine_commands().run(&toy, request);
    (
        response.outcome.map_err(|e| e.to_string()),
        toy.told.into_inner(),
    )
}

#[track_caller]
fn told(command: &str, arguments: Value, expected: &[&str]) {
    let (result, told) = run(command, arguments);
    assert_eq!(result, Ok(json!({})));
    assert_eq!(told, expected);
}

#[track_caller]
fn gives(command: &str, expected: Value) {
    assert_eq!(run(command, json!({})), (Ok(expected), Vec::new()));
}

#[track_caller]
fn refused(command: &str, arguments: Value, expected: &str) {
    let (result, told) = run(command, arguments);
    assert_eq!(result, Err(expected.to_owned()), "{command}");
    assert_eq!(told, [""; 0]);
}

/// What ends a state in which other commands wait is run while they wait, as in QEMU.
#[test]
fn what_may_overtake() {
    let out_of_band = |name: &str| {
        let machine = Toy::default();
        let request = Request {
            execute: name.to_owned(),
            arguments: Map::new(),
            id: Some(json!(1)),
        };
        let table = machine_commands::<Toy>();
        assert!(table.has_out_of_band());
        table.run_out_of_band(&machine, request).to_json()
    };
    assert_eq!(out_of_band("migrate-pause"), json!({"return": {}, "id": 1}));
    let desc = |name: &str| out_of_band(name)["error"]["desc"].clone();
    assert_eq!(desc("migrate-recover"), "Parameter 'uri' is missing");
    assert_eq!(desc("nope"), "The command nope has not been found");
    for name in ["query-migrate", "qmp_capabilities", "query-commands"] {
        let refusal = format!("The command {name} does not support OOB");
        assert_eq!(desc(name), refusal);
    }
    assert!(!CommandTable::<Toy>::new().has_out_of_band());
}

#[test]
fn what_commands_do() {
    told("stop", json!({}), &["stop"]);
    told("cont", json!({}), &["cont"]);
    told("quit", json!({}), &["quit"]);
    told("migrate_cancel", json!({}), &["cancel"]);
    told("migrate-start-postcopy", json!({}), &["start postcopy"]);
    told("migrate-pause", json!({}), &["pause"]);
    told(
        "migrate-recover",
        json!({"uri": "unix:/a"}),
        &["recover unix:/a"],
    );
    told(
        "migrate",
        json!({"uri": "tcp:h:1"}),
        &["migrate tcp:h:1 false"],
    );
    let addr = json!({"transport": "socket", "type": "unix", "path": "/a"});
    told(
        "migrate",
        json!({"channels": [{"channel-type": "main", "addr": addr}], "resume": true}),
        &["migrate unix:/a true"],
    );
    told(
        "migrate-incoming",
        json!({"uri": "unix:/a"}),
        &["incoming unix:/a true"],
    );
    told(
        "migrate-incoming",
        json!({"uri": "fd:3", "exit-on-error": false}),
        &["incoming fd:3 false"],
    );
    told(
        "migrate-set-capabilities",
        json!({"capabilities": [
            {"capability": "events", "state": true}, {"capability": "multifd", "state": false}
        ]}),
        &["events=true", "multifd=false"],
    );
    told(
        "migrate-set-parameters",
        json!({"max-bandwidth": -1, "downtime-limit": 7, "tls-creds": null, "direct-io": true}),
        &[
            "max-bandwidth=18446744073709551615",
            "downtime-limit=7",
            "tls-creds=\"\"",
            "direct-io=true",
        ],
    );
}

#[test]
fn what_commands_give() {
    gives(
        "query-status",
        json!({"status": "running", "running": true}),
    );
    gives(
        "query-version",
        json!({"qemu": {"major": 11, "minor": 1, "micro": 0}, "package": "toy"}),
    );
    gives(
        "query-migrate",
        json!({"status": "active", "expected-downtime": 300}),
    );
    gives(
        "query-migrate-capabilities",
        json!([{"capability": "events", "state": true}]),
    );
    gives("query-migrate-parameters", json!({}));
    let (commands, _) = run("query-commands", json!({}));
    let names: Vec<_> = commands.unwrap().as_array().unwrap().clone();
    assert_eq!(names.len(), 23);
    assert!(names.contains(&json!({"name": "migrate_cancel"})));
    assert!(names.contains(&json!({"name": "qmp_capabilities"})));
    assert!(names.contains(&json!({"name": "query-commands"})));
}

// The texts were seen in answers of QEMU 11.1.3.
#[test]
fn what_does_not_fit() {
    refused(
        "query-status",
        json!({"a": 1}),
        "Parameter 'a' is unexpected",
    );
    refused("nope", json!({}), "The command nope has not been found");
    let place = "need either 'uri' or 'channels' argument";
    refused("migrate", json!({}), place);
    refused("migrate", json!({"channels": []}), place);
    refused(
        "migrate",
        json!({"uri": 1}),
        "Invalid parameter type for 'uri', expected: string",
    );
    refused(
        "migrate",
        json!({"uri": "tcp"}),
        "unknown migration protocol: tcp",
    );
    refused(
        "migrate",
        json!({"uri": "tcp:a:1", "detach": true}),
        "Parameter 'detach' is unexpected",
    );
    refused(
        "migrate",
        json!({"uri": "tcp:a:1", "resume": 1}),
        "Invalid parameter type for 'resume', expected: boolean",
    );
    for command in ["x-migrate-resume-here", "x-migrate-give-up"] {
        refused(
            command,
            json!({}),
            "There is no migration whose outcome is unknown",
        );
    }
    refused(
        "migrate-continue",
        json!({}),
        "Parameter 'state' is missing",
    );
    refused(
        "migrate-continue",
        json!({"state": "foo"}),
        "Parameter 'state' does not accept value 'foo'",
    );
    refused(
        "migrate-continue",
        json!({"state": "active"}),
        "Migration not in expected state: active",
    );
}

#[test]
fn channels_that_do_not_fit() {
    let check = |channel: Value, expected: &str| {
        refused("migrate", json!({ "channels": [channel] }), expected);
    };
    let addr = |addr: Value, expected: &str| {
        check(json!({"channel-type": "main", "addr": addr}), expected);
    };
    check(json!({}), "Parameter 'channels[0].channel-type' is missing");
    check(
        json!({"channel-type": "main"}),
        "Parameter 'channels[0].addr' is missing",
    );
    check(
        json!({"channel-type": "foo", "addr": {}}),
        "Parameter 'channel-type' does not accept value 'foo'",
    );
    addr(
        json!({}),
        "Parameter 'channels[0].addr.transport' is missing",
    );
    addr(
        json!(1),
        "Invalid parameter type for 'channels[0].addr', expected: object",
    );
    addr(
        json!({"transport": "bar"}),
        "Parameter 'transport' does not accept value 'bar'",
    );
    addr(
        json!({"transport": 1}),
        "Invalid parameter type for 'channels[0].addr.transport', expected: string",
    );
    addr(
        json!({"transport": "socket"}),
        "Parameter 'channels[0].addr.type' is missing",
    );
    addr(
        json!({"transport": "socket", "type": "unix"}),
        "Parameter 'channels[0].addr.path' is missing",
    );
    addr(
        json!({"transport": "socket", "type": "unix", "path": "/a", "x": 1}),
        "Parameter 'channels[0].addr.x' is unexpected",
    );
    addr(
        json!({"transport": "file", "filename": "/a"}),
        "Parameter 'channels[0].addr.offset' is missing",
    );
    addr(
        json!({"transport": "file", "filename": "/a", "offset": "1"}),
        "Parameter 'channels[0].addr.offset' expects uint64",
    );
    addr(
        json!({"transport": "exec", "args": ["/bin/sh", "-c", 1]}),
        "Invalid parameter type for 'channels[0].addr.args[2]', expected: string",
    );
    addr(
        json!({"transport": "socket", "type": "inet", "host": "a", "port": "1", "to": 65536}),
        "Parameter 'to' expects uint16_t",
    );
    addr(
        json!({"transport": "socket", "type": "inet", "host": "a", "port": 1}),
        "Invalid parameter type for 'channels[0].addr.port', expected: string",
    );
}

#[test]
fn places_that_only_qemu_can_go_to() {
    refused(
        "migrate",
        json!({"uri": "vsock:1:2"}),
        "migration protocol 'vsock' is not supported",
    );
    refused(
        "migrate-incoming",
        json!({"uri": "rdma:a:2"}),
        "migration protocol 'rdma' is not supported",
    );
}

#[test]
fn settings_that_do_not_fit() {
    let parameter = |name: &str, value: Value, expected: &str| {
        refused("migrate-set-parameters", json!({ name: value }), expected);
    };
    let uint64 = "Parameter 'max-bandwidth' expects uint64";
    parameter("foo", json!(1), "Parameter 'foo' is unexpected");
    parameter("max-bandwidth", json!("1"), uint64);
    parameter("max-bandwidth", json!(1.5), uint64);
    parameter("max-bandwidth", json!(1e3), uint64);
    parameter(
        "cpu-throttle-initial",
        json!(256),
        "Parameter 'cpu-throttle-initial' expects uint8_t",
    );
    parameter(
        "cpu-throttle-initial",
        json!(-1),
        "Parameter 'cpu-throttle-initial' expects uint8_t",
    );
    parameter(
        "cpu-throttle-initial",
        json!("1"),
        "Parameter 'cpu-throttle-initial' expects uint64",
    );
    parameter(
        "x-checkpoint-delay",
        json!(1_u64 << 32),
        "Parameter 'x-checkpoint-delay' expects uint32_t",
    );
    parameter(
        "tls-creds",
        json!([]),
        "Invalid parameter type for 'tls-creds', expected: StrOrNull",
    );
    parameter(
        "direct-io",
        json!(1),
        "Invalid parameter type for 'direct-io', expected: boolean",
    );
    parameter(
        "mode",
        json!("foo"),
        "Parameter 'mode' does not accept value 'foo'",
    );
    parameter(
        "block-bitmap-mapping",
        json!([{"node-name": "a"}]),
        "Parameter 'block-bitmap-mapping[0].alias' is missing",
    );
    let capabilities = |list: Value, expected: &str| {
        refused(
            "migrate-set-capabilities",
            json!({ "capabilities": list }),
            expected,
        );
    };
    capabilities(
        json!({}),
        "Invalid parameter type for 'capabilities', expected: array",
    );
    capabilities(
        json!([1]),
        "Invalid parameter type for 'capabilities[0]', expected: object",
    );
    capabilities(
        json!([{"capability": "foo", "state": true}]),
        "Parameter 'capability' does not accept value 'foo'",
    );
    capabilities(
        json!([{"capability": "xbzrle"}]),
        "Parameter 'capabilities[0].state' is missing",
    );
    capabilities(
        json!([{"capability": "xbzrle", "state": 1}]),
        "Invalid parameter type for 'capabilities[0].state', expected: boolean",
    );
}
