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
        if kind.is_ours() {
            there.check();
        }
        here = there;
    }
}

#[test]
fn from_ours_to_ours() {
    through(&[Kind::Ours; 4]);
}

/// Who is not set to a format takes either.
#[test]
fn over_ber() {
    through(&[Kind::Ber, Kind::Ber, Kind::Ours]);
    let mut here = Host::started(Kind::Ours);
    let mut there = Host::start(Kind::Ours, Some("defer"));
    let uri = format!("unix:{}", there.path("migration").display());
    let monitors = [&here, &there].map(|host| host.monitor.to_string());
    let [source, destination] = &monitors;
    let output = run([
        "migrate",
        "--quiet",
        "--peer",
        "vmstate",
        "--qmp",
        source,
        "--incoming-qmp",
        destination,
        &uri,
    ]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let set = there.run("query-migrate-parameters", json!({}));
    assert_eq!(set["x-peer"], "vmstate");
    assert!(there.is_running() && !here.is_running());
    there.goes_on();
}

/// A guest in a file that OpenSSL reads; what is converted from it, stock QEMU loads.
#[test]
fn a_file_over_ber_and_what_is_made_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ber, converted) = (file("ber"), file("qemu"));
    let mut here = Host::started(Kind::Ber);
    let uri = format!("file:{ber}");
    here.run("migrate", json!({ "uri": uri }));
    here.wait_for("completed");
    let mut there = Host::start(Kind::Ber, Some(&uri));
    there.wait_for("completed");
    let reached = there.goes_on();
    there.check();
    let openssl = std::process::Command::new("openssl")
        .args(["asn1parse", "-inform", "DER", "-in", &ber])
        .output();
    match openssl {
        Ok(output) => {
            assert!(output.status.success());
            let text = String::from_utf8(output.stdout).unwrap();
            for part in [
                "vmstate-ber/1",
                "appl [ 10 ]",
                "appl [ 16 ]",
                ":globalstate",
            ] {
                assert!(text.contains(part), "{part}");
            }
        }
        Err(error) => {
            assert!(
                std::env::var_os("VMSTATE_REQUIRE_OPENSSL").is_none(),
                "{error}"
            );
            eprintln!("openssl: {error}");
        }
    }
    let output = run(["convert", &ber, &converted, "--to", "qemu", "--quiet"]);
    assert_eq!((status(&output), stderr(&output)), (0, ""));
    let output = run(["verify", &converted]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    if qemu().is_none() {
        return;
    }
    let mut there = Host::start(Kind::Qemu, Some(&format!("file:{converted}")));
    there.wait_for("completed");
    assert!(there.is_running());
    assert!(there.goes_on() > 0 && reached > 0);
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
        if kind.is_ours() {
            there.check();
        }
        here = there;
    }
}
