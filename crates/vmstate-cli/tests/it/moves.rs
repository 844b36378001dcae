//! `vmstate machine` and `vmstate migrate`: a guest moves from process to process.

use serde_json::json;

use crate::host::{Host, Kind, qemu};
use crate::support::{json, run, status, stderr};

/// Moves the guest of `source` with the command. Returns its report.
fn migrate(source: &Host, destination: &Host, uri: &str) -> serde_json::Value {
    let (source, destination) = (source.monitor.to_string(), destination.monitor.to_string());
    let output = run([
        "migrate",
        "--quiet",
        "--format",
        "json",
        "--qmp",
        &source,
        "--incoming-qmp",
        &destination,
        uri,
    ]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    json(&output)
}

/// The guest goes from machine to machine, over a socket of each kind in turn, and counts on.
fn through(kinds: &[Kind]) {
    let mut here = Host::started(kinds[0]);
    let mut last = 0;
    for (number, kind) in kinds.iter().enumerate().skip(1) {
        let mut there = Host::start(*kind, Some("defer"));
        let uri = match number % 2 {
            0 => "tcp:127.0.0.1:0".to_owned(),
            _ => format!("unix:{}", there.path("migration").display()),
        };
        let report = migrate(&here, &there, &uri);
        assert_eq!(report["outcome"], "completed");
        assert_eq!(report["query_migrate"]["status"], "completed");
        assert!(!here.is_running() && there.is_running());
        let reached = there.goes_on();
        assert!(reached > last, "{reached} after {last}");
        last = reached;
        if *kind == Kind::Ours {
            there.check();
        }
        here = there;
    }
}

#[test]
fn from_ours_to_ours() {
    through(&[Kind::Ours; 4]);
}

#[test]
fn between_ours_and_qemu() {
    if qemu().is_none() {
        return;
    }
    through(&[Kind::Qemu, Kind::Ours, Kind::Qemu, Kind::Ours]);
}

/// A guest that has been saved has not left: `cont` lets it go on, as QEMU's does.
#[test]
fn a_saved_guest_goes_on_where_it_was() {
    let kinds = match qemu() {
        Some(_) => vec![Kind::Ours, Kind::Qemu],
        None => vec![Kind::Ours],
    };
    for kind in kinds {
        let mut host = Host::started(kind);
        let uri = format!("file:{}", host.path("stream").display());
        host.run("migrate", json!({ "uri": uri }));
        host.wait_for("completed");
        assert!(!host.is_running());
        host.run("cont", json!({}));
        host.goes_on();
        assert!(host.is_running());
        // Once more, now that it has changed.
        host.run("migrate", json!({ "uri": uri }));
        host.wait_for("completed");
    }
}

/// What a machine has written to a file, another one reads at its start.
#[test]
fn through_files() {
    let kinds = match qemu() {
        Some(_) => vec![Kind::Qemu, Kind::Ours, Kind::Qemu, Kind::Ours, Kind::Ours],
        None => vec![Kind::Ours; 3],
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stream").display().to_string();
    let mut here = Host::started(kinds[0]);
    let mut last = 0;
    for (number, kind) in kinds.iter().enumerate().skip(1) {
        let uri = match number % 3 {
            0 => format!("exec:cat > {file}"),
            _ => format!("file:{file}"),
        };
        here.run("migrate", json!({ "uri": uri }));
        here.wait_for("completed");
        let mut there = Host::start(*kind, Some(&format!("file:{file}")));
        there.wait_for("completed");
        assert!(there.is_running() && !here.is_running());
        let reached = there.goes_on();
        assert!(reached > last, "{reached} after {last}");
        last = reached;
        if *kind == Kind::Ours {
            there.check();
        }
        here = there;
    }
}
