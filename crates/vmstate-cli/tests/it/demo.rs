//! `vmstate demo` and `vmstate machine`.

use std::io::{BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{run, status, stderr, stdout, until_active, vmstate};

#[test]
fn a_guest_moves_and_is_proven_right() {
    for (transport, peer, harts) in [
        ("unix", "auto", "2"),
        ("tcp", "qemu", "2"),
        ("unix", "vmstate", "4"),
        ("tcp", "vmstate", "2"),
    ] {
        let output = run([
            "demo",
            "--quiet",
            "--format",
            "json",
            "--ram",
            "32M",
            "--fill",
            "8M",
            "--working-set",
            "2M",
            "--harts",
            harts,
            "--max-bandwidth",
            "0",
            "--transport",
            transport,
            "--peer",
            peer,
        ]);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        let answer: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(answer["format"], "vmstate-demo/1");
        assert_eq!(answer["ok"], true);
        let proof = &answer["proof"];
        assert!(proof["pages_after"].as_u64() > proof["pages_before"].as_u64());
        assert_eq!(proof["source"], proof["destination"]);
        let digest = proof["source"]["riscv.spike.ram"].as_str().unwrap();
        assert_eq!(digest.len(), 64);
        assert_eq!(answer["migration"]["outcome"], "completed");
        assert!(answer["stopped_ms"].as_f64().unwrap() > 0.0);
    }
}

/// It writes faster than the link carries, so it would never get there otherwise.
#[test]
fn a_guest_that_goes_before_its_memory_is_proven_right() {
    let output = run([
        "demo",
        "--format",
        "json",
        "--quiet",
        "--ram",
        "16M",
        "--fill",
        "4M",
        "--working-set",
        "4M",
        "--dirty-rate",
        "200M",
        "--max-bandwidth",
        "4M",
        "--downtime-limit",
        "20",
        "--postcopy",
        "after=1",
    ]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let answer: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(answer["ok"], true);
    let migration = &answer["migration"];
    assert!(migration["postcopy"]["started_ms"].is_u64(), "{migration}");
    assert!(migration["ram"]["postcopy_bytes"].as_u64() > Some(1 << 20));
}

/// The demo with a sensor of this shape at the destination.
fn variant(shape: &str, format: &str) -> std::process::Output {
    let small = ["--ram", "16M", "--fill", "1M", "--working-set", "1M"];
    let fast = ["--max-bandwidth", "0", "--quiet"];
    let shape = ["--variant", shape, "--format", format];
    run([&["demo"], &small[..], &fast, &shape].concat())
}

#[test]
fn a_destination_that_cannot_load_a_device_says_so_and_the_guest_runs_on() {
    for (shape, rule) in [
        ("changed-type", "C10  sensor#0: reading"),
        ("missing-field", "C02  sensor#0: alarm"),
        ("unknown-field", "C04  sensor#0: unit"),
        ("renamed-silently", "C07  sensor#0: "),
    ] {
        let output = variant(shape, "text");
        assert_eq!(status(&output), 1, "{}", stderr(&output));
        let text = stdout(&output);
        let refused = "migration refused before any guest page was sent (1 error";
        assert!(text.contains(refused) && text.contains(rule), "{text}");
        assert!(text.contains("the guest runs on at the source"), "{text}");
    }
    let output = variant("changed-type", "json");
    assert_eq!(status(&output), 1);
    let answer: Value = serde_json::from_str(stdout(&output)).unwrap();
    let stayed = &answer["stayed"];
    assert!(stayed["pages_after"].as_u64() > stayed["pages_before"].as_u64());
    let told = &answer["migration"]["negotiation"];
    assert_eq!(told["refused"], true);
    assert_eq!(told["findings"][0]["rule"], "C10");
    let sent = &answer["migration"]["ram"]["transferred"];
    assert!(sent.is_null() || sent == 0, "{answer}");
}

#[test]
fn a_destination_with_another_number_of_harts_says_so() {
    let small = ["--ram", "16M", "--fill", "1M", "--working-set", "1M"];
    let harts = |here: &str, there: &str, format: &str| {
        let harts = ["--harts", here, "--destination-harts", there];
        run([&["demo", "--quiet", "--format", format], &small[..], &harts].concat())
    };
    let output = harts("1", "4", "text");
    assert_eq!(status(&output), 1, "{}", stderr(&output));
    let text = stdout(&output);
    for part in [
        "migration refused before any guest page was sent (2 errors",
        "error   N10  riscv_mtimer#0: timecmp",
        "number of elements differs (harts): source 1, destination 4",
        "do: configure the destination as the source is",
        "the guest runs on at the source",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let output = harts("2", "1", "json");
    assert_eq!(status(&output), 1);
    let answer: Value = serde_json::from_str(stdout(&output)).unwrap();
    let found = answer["migration"]["negotiation"]["findings"].as_array();
    let told = found.unwrap().iter().find(|one| one["rule"] == "N10");
    let told = told.unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(
        (&told["found"], &told["expected"]),
        (&json!("2"), &json!("1"))
    );
    let sent = &answer["migration"]["ram"]["transferred"];
    assert!(sent.is_null() || sent == 0, "{answer}");
}

#[test]
fn a_destination_that_can_adapt_a_device_does() {
    for (shape, rule, reading) in [
        ("plain", None, "reading"),
        ("widened", Some("C08"), "reading"),
        ("ignored-field", Some("C04"), "reading"),
        ("reordered", Some("C19"), "reading"),
        ("renamed", Some("C06"), "temperature"),
    ] {
        let output = variant(shape, "json");
        assert_eq!(status(&output), 0, "{shape}: {}", stderr(&output));
        let answer: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(answer["sensors"]["source"]["reading"], -40, "{answer}");
        assert_eq!(answer["sensors"]["destination"][reading], -40, "{answer}");
        assert_eq!(answer["migration"]["stream"], "ber");
        let adapted = &answer["migration"]["adapted"];
        if shape == "ignored-field" {
            assert_eq!(adapted["count"], 1, "{answer}");
            let field = &adapted["fields"][0];
            assert_eq!(field["rule"], "W-UNKNOWN", "{answer}");
            assert!(
                field["path"].as_str().unwrap().starts_with("sensor#0: "),
                "{answer}"
            );
        } else {
            assert!(adapted.is_null(), "{shape}: {answer}");
        }
        let told = &answer["migration"]["negotiation"];
        assert_eq!(told["refused"], false);
        let found = told["findings"].as_array().unwrap();
        let rules: Vec<_> = found
            .iter()
            .map(|finding| finding["rule"].as_str())
            .collect();
        assert!(
            rules.contains(&rule) || (rule.is_none() && rules.is_empty()),
            "{told}"
        );
    }
}

#[test]
fn what_a_machine_cannot_be_is_said() {
    let refused = |arguments: &[&str], expected: &str| {
        let output = run([&["machine"], arguments].concat());
        assert_eq!(status(&output), 2, "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains(expected), "{text}\nexpected: {expected}");
    };
    refused(&["--harts", "9"], "1 to 8");
    refused(&["--ram", "1000"], "RAM");
    refused(&["--guest", "nobody"], "counter, dirtier, console");
    refused(&["--guest", env!("CARGO_BIN_EXE_vmstate")], "RISC-V");
    refused(&["--guest", "dirtier", "--working-set", "100M"], "--ram");
    let all = u64::MAX.to_string();
    refused(&["--guest", "dirtier", "--working-set", &all], "--ram");
    refused(&["--incoming", "carrier-pigeon:coop"], "carrier-pigeon");
    refused(&["--incoming", "file:/nonexistent/stream"], "No such file");
    refused(
        &["--qmp", "/nonexistent/dir/socket", "-S"],
        "/nonexistent/dir/socket",
    );
}

#[test]
fn what_is_no_code_stops_the_machine() {
    let output = Command::new(env!("CARGO_BIN_EXE_vmstate"))
        .args([
            "machine",
            "--guest",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .output()
        .unwrap();
    // A text file is flat code, and no code that a hart knows.
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("the guest cannot go on"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_stream_that_is_none_ends_a_waiting_machine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    std::fs::write(&path, b"GIF89a, not a guest").unwrap();
    let uri = format!("file:{}", path.display());
    let output = run(["machine", "--incoming", &uri]);
    assert_eq!(status(&output), 1);
    let text = stderr(&output);
    assert!(
        text.contains("load of migration failed") && text.contains("magic"),
        "{text}"
    );
}

/// A demo whose guest takes long to get there, in a process group of its own, and its progress.
fn long_demo(dir: &Path) -> (Child, BufReader<ChildStderr>) {
    let small = ["--ram", "16M", "--fill", "8M", "--working-set", "1M"];
    let mut child = vmstate()
        .args(
            [
                &["demo", "--max-bandwidth", "64K", "--downtime-limit", "1"],
                &small[..],
            ]
            .concat(),
        )
        .env("TMPDIR", dir)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = until_active(&mut child);
    (child, lines)
}

/// Processes that this one has started and that have not ended.
fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if matches!(stat(pid), Some((state, of)) if of == parent && state != "Z") {
            found.push(pid);
        }
    }
    found
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit(')').next()?.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

fn signal(signal: &str, pid: &str) {
    let killed = Command::new("kill").args([signal, "--", pid]).status();
    assert!(killed.unwrap().success());
}

/// Ctrl-C on a terminal goes to all processes of the group, of which the machines are not.
#[test]
fn an_interrupt_from_the_terminal_cancels() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, mut lines) = long_demo(dir.path());
    signal("-INT", &format!("-{}", child.id()));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let mut answer = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut answer)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}\n{answer}");
    assert!(rest.contains("cancelling"), "{rest}");
    assert!(
        answer.starts_with("cancelled") && answer.contains("the guest runs on at the source"),
        "{answer}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// However it ends, its machines do, and nothing stays behind.
#[test]
fn a_demo_that_is_killed_takes_its_machines_along() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _lines) = long_demo(dir.path());
    let machines = children(child.id());
    assert_eq!(machines.len(), 2);
    signal("-KILL", &child.id().to_string());
    child.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    let runs = |pid: &u32| matches!(stat(*pid), Some((state, _)) if state != "Z");
    while machines.iter().any(runs) || std::fs::read_dir(dir.path()).unwrap().count() > 0 {
        assert!(Instant::now() < end, "{machines:?} run, or left files");
        std::thread::sleep(Duration::from_millis(20));
    }
}
