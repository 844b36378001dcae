//! `vmstate migrate` against a monitor without a machine. Real machines are in `interop`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vmstate_io::qmp::{Events, QmpAddress, QmpServer, RunningQmpServer};
use vmstate_qmp::schema::{Member, Shape, Type};
use vmstate_qmp::{CommandTable, Empty, QmpError, Version, VersionTriple};

use crate::support::{json, run, status, stderr, stdout, until_active, vmstate};

/// What the machine's migration does, by the number of questions since it was begun.
pub(crate) type Script = fn(usize) -> Value;

struct Toy {
    script: Script,
    /// Questions since it was begun.
    asked: Mutex<Option<usize>>,
    cancelled: Mutex<bool>,
}

impl Toy {
    fn info(&self) -> Value {
        if *self.cancelled.lock().unwrap() {
            return json!({ "status": "cancelled" });
        }
        match self.asked.lock().unwrap().as_mut() {
            None => json!({}),
            Some(count) => {
                *count += 1;
                (self.script)(*count)
            }
        }
    }

    fn status(&self) -> Value {
        let over = self.info()["status"] == "completed";
        let status = if over { "postmigrate" } else { "running" };
        json!({ "status": status, "running": !over })
    }
}

pub(crate) struct Machine {
    server: RunningQmpServer,
    _dir: TempDir,
}

impl Machine {
    pub(crate) fn new(script: Script) -> Self {
        let toy = Toy {
            script,
            asked: Mutex::new(None),
            cancelled: Mutex::new(false),
        };
        let mut table = CommandTable::<Toy>::new();
        table.add("query-status", Shape::EMPTY, |t: &Toy, _: Empty| {
            Ok(t.status())
        });
        table.add("query-migrate", Shape::EMPTY, |t: &Toy, _: Empty| {
            Ok(t.info())
        });
        table.add(
            "query-migrate-capabilities",
            Shape::EMPTY,
            |_: &Toy, _: Empty| Ok(json!([{"capability": "xbzrle", "state": false}])),
        );
        table.add(
            "query-migrate-parameters",
            Shape::EMPTY,
            |_: &Toy, _: Empty| Ok(json!({"downtime-limit": 300, "max-bandwidth": 1024})),
        );
        table.add("migrate_cancel", Shape::EMPTY, |t: &Toy, _: Empty| {
            *t.cancelled.lock().unwrap() = true;
            Ok(Empty {})
        });
        const URI: Shape = Shape::of(&[Member::required("uri", Type::String)]);
        table.add("migrate", URI, |t: &Toy, arguments: Value| {
            if arguments["uri"] == "unix:/refused" {
                return Err(QmpError::generic("not now"));
            }
            if arguments["uri"] == "unix:/evil" {
                return Err(QmpError::generic("\x1b]0;mine\x07\x1b[2J"));
            }
            *t.asked.lock().unwrap() = Some(0);
            Ok(Empty {})
        });
        let dir = tempfile::tempdir().unwrap();
        let address = QmpAddress::Unix(dir.path().join("qmp"));
        let version = Version {
            qemu: VersionTriple {
                major: 11,
                minor: 1,
                micro: 0,
            },
            package: String::new(),
        };
        let server = QmpServer::bind(&address).unwrap();
        let server = server.start(table, Arc::new(toy), &Events::new(), version);
        Self {
            server: server.unwrap(),
            _dir: dir,
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = vmstate();
        let monitor = self.server.address().to_string();
        command.args(["migrate", "--qmp", &monitor]).args(arguments);
        command
    }

    fn migrate(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

pub(crate) fn completes(count: usize) -> Value {
    let status = ["setup", "active", "completed"][count.saturating_sub(1).min(2)];
    json!({
        "status": status, "total-time": 20, "downtime": 3, "setup-time": 1,
        "ram": {"transferred": 4096, "total": 8192, "remaining": 0, "dirty-sync-count": 2, "page-size": 4096},
    })
}

fn goes_on(_: usize) -> Value {
    json!({ "status": "active" })
}

pub(crate) fn fails(_: usize) -> Value {
    json!({"status": "failed", "error-desc": "Connection refused"})
}

#[test]
fn a_guest_that_moves() {
    let output = Machine::new(completes).migrate(&["unix:/there"]);
    assert_eq!(status(&output), 0, "{output:#?}");
    let text = stdout(&output);
    assert!(
        text.starts_with("completed in 20 ms: downtime 3 ms, setup 1 ms\n"),
        "{text}"
    );
    assert!(
        text.contains("source       QEMU 11.1.0: the guest does not run (postmigrate)"),
        "{text}"
    );
    let progress = stderr(&output);
    assert!(progress.contains("the source has begun"), "{progress}");
    assert!(progress.contains("completed: pass 2"), "{progress}");

    let output = Machine::new(completes).migrate(&["unix:/there", "--format", "json", "-q"]);
    assert_eq!(stderr(&output), "");
    let answer = json(&output);
    for (member, expected) in [
        ("format", json!("vmstate-migrate/1")),
        ("outcome", json!("completed")),
        ("success", json!(true)),
        ("error", Value::Null),
        ("uri", json!("unix:/there")),
        ("destination", Value::Null),
        ("total_time_ms", json!(20)),
        ("downtime_ms", json!(3)),
        ("passes", json!(2)),
    ] {
        assert_eq!(answer[member], expected, "{member}");
    }
}

/// What the documentation names is there, and the other way round.
#[test]
fn the_documented_members() {
    let output = Machine::new(completes).migrate(&["unix:/there", "--format", "json", "-q"]);
    let answer = json(&output);
    let page = include_str!("../../../../docs/migrate-json.md");
    let table = page
        .split("## Members")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let documented: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let members: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(documented, members);
}

#[test]
fn a_guest_that_does_not_move() {
    let output = Machine::new(fails).migrate(&["tcp:there:1"]);
    assert_eq!(status(&output), 1, "{output:#?}");
    let text = stderr(&output);
    assert!(
        text.contains("vmstate: Connection refused\nhint: nobody listens there"),
        "{text}"
    );
    assert!(stdout(&output).contains("source       QEMU 11.1.0: the guest runs"));
    let output = Machine::new(fails).migrate(&["unix:/refused"]);
    assert_eq!(status(&output), 1);
    assert_eq!(stderr(&output), "vmstate: source: not now\n");
}

#[test]
fn what_cannot_be_asked() {
    let machine = Machine::new(goes_on);
    for (arguments, expected) in [
        (&["foo:1"][..], "unknown migration protocol"),
        (
            &["unix:/a", "--capability", "xbzrl"],
            "did you mean xbzrle?",
        ),
        (
            &["unix:/a", "--parameter", "max-bandwidth=x"],
            "expected a number",
        ),
        (
            &["unix:/a", "--parameter", "max-bandwidth"],
            "expected NAME=VALUE",
        ),
        (
            &["unix:/a", "--capability", "xbzrle=1"],
            "NAME=on or NAME=off",
        ),
        (&["unix:/a", "--incoming-uri", "unix:/b"], "--incoming-qmp"),
        (
            &["unix:/a", "--incoming-qmp", "/no/such"],
            "is the machine running",
        ),
        (&["unix:/a", "--incoming-qmp", "tcp:x"], "is no monitor"),
    ] {
        let output = machine.migrate(arguments);
        assert_eq!(status(&output), 2, "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let output = run(["migrate", "--qmp", "/no/such", "unix:/a"]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("server=on"), "{}", stderr(&output));
}

/// Ctrl-C: the source is told to cancel, and that its guest runs is confirmed.
#[test]
fn an_interrupt_cancels() {
    let machine = Machine::new(goes_on);
    let mut child = machine
        .command(&["unix:/there"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = until_active(&mut child);
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 1, "{rest}");
    assert!(rest.contains("cancelling\n"), "{rest}");
    assert_eq!(
        stdout(&output),
        "cancelled\n  source       QEMU 11.1.0: the guest runs\n  format       QEMU's stream\n"
    );
}

/// What a machine says is shown, and not obeyed by the terminal.
#[test]
fn what_a_machine_says_is_no_command_to_the_terminal() {
    let output = Machine::new(fails).migrate(&["unix:/evil"]);
    assert_eq!(status(&output), 1);
    assert_eq!(
        stderr(&output),
        "vmstate: source: \\u{1b}]0;mine\\u{7}\\u{1b}[2J\n"
    );
    let machine = Machine::new(|_| json!({"status": "failed", "error-desc": "\x1b[2J\u{9b}"}));
    let output = machine.migrate(&["unix:/there"]);
    for text in [stderr(&output), stdout(&output)] {
        assert!(!text.contains(['\x1b', '\u{9b}']), "{text:?}");
    }
    assert!(stderr(&output).contains("\\u{1b}[2J\\u{9b}"), "{output:?}");
}

#[test]
fn a_machine_that_does_not_speak_ber_is_called_so() {
    let output = Machine::new(completes).migrate(&["unix:/there", "--peer", "vmstate"]);
    assert_eq!(status(&output), 2);
    let text = stderr(&output);
    assert!(
        text.contains("hint: QEMU does not speak VM state over BER"),
        "{text}"
    );
}

/// A machine that does not answer is no reason to leave an interrupt without an answer; the second one is the last.
#[test]
fn an_interrupt_is_answered_at_once() {
    let machine = Machine::new(|count| {
        if count > 1 {
            std::thread::sleep(Duration::from_secs(3600));
        }
        goes_on(count)
    });
    let mut child = machine
        .command(&["unix:/there"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut wait_for = |start: &str| {
        let mut line = String::new();
        while !line.starts_with(start) {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0);
        }
    };
    let interrupt = |pid: u32| {
        let killed = Command::new("kill")
            .args(["-INT", &pid.to_string()])
            .status();
        assert!(killed.unwrap().success());
    };
    wait_for("active");
    interrupt(child.id());
    wait_for("interrupted: the source is to cancel");
    interrupt(child.id());
    wait_for("vmstate: interrupted again: a migration that has begun goes on");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    // Its monitor still waits for the answer.
    std::mem::forget(machine);
}
