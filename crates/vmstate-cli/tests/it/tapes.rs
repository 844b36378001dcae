//! Whole live migrations over BER in postcopy, with every channel recorded: ASN.1 tools of other people read them, and so do ours.
//!
//! `VMSTATE_PYTHON` names an interpreter that has `asn1tools`, else `python3` is tried. What is missing is said, and its part is left
//! out, unless `VMSTATE_REQUIRE_PYTHON` or `VMSTATE_REQUIRE_OPENSSL` is set.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::host::{Host, Kind, qemu};
use crate::late::{pair, proven};
use crate::proxy::recorder;
use crate::support::{json, run, status, stderr, stdout};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether a tool does this.
fn has(tool: &Path, arguments: &[&str], required: &str) -> bool {
    let found = Command::new(tool).args(arguments).output();
    let found = found.is_ok_and(|output| output.status.success());
    let must = std::env::var_os(required).is_some();
    assert!(found || !must, "{} is required", tool.display());
    if !found {
        eprintln!("skipped: {} cannot do {arguments:?}", tool.display());
    }
    found
}

/// Frames by kind, as `asn1tools` finds them: each of them encodes to its octets again, and checksums are right.
fn judged(file: &Path, mode: &str) -> Option<BTreeMap<String, u64>> {
    let openssl = Path::new("openssl");
    if has(openssl, &["version"], "VMSTATE_REQUIRE_OPENSSL") {
        let mut command = Command::new(openssl);
        command
            .args(["asn1parse", "-inform", "DER", "-in"])
            .arg(file);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        // "   17:d=1  hl=2 l=  74 cons: appl [ 1 ]": a Hello in the envelope.
        assert!(stdout(&output).contains("cons: appl [ 1 ]"));
    }
    let named = std::env::var_os("VMSTATE_PYTHON");
    let python = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    if !has(
        &python,
        &["-c", "import asn1tools"],
        "VMSTATE_REQUIRE_PYTHON",
    ) {
        return None;
    }
    let mut command = Command::new(python);
    command
        .arg(root().join("crates/vmstate-io/tests/python/ber_judge.py"))
        .arg(root().join("docs/vmstate-ber-v1.asn1"))
        .args([file, Path::new(mode)]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{mode}: {}", stderr(&output));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The octets of a tape in a file.
pub(crate) fn kept(host: &Host, name: &str, octets: &[u8]) -> PathBuf {
    let path = host.path(name);
    fs::write(&path, octets).unwrap();
    path
}

pub(crate) fn in_postcopy(
    source: &mut Host,
    destination: &mut Host,
    capabilities: &[&str],
) -> PathBuf {
    for host in [&mut *source, &mut *destination] {
        for capability in capabilities {
            host.enable(capability);
        }
    }
    let (there, at) = (destination.path("there"), destination.path("at"));
    destination.run("migrate-incoming", uri(&there));
    at
}

pub(crate) fn uri(path: &Path) -> Value {
    json!({ "uri": format!("unix:{}", path.display()) })
}

/// The guest goes as soon as that is possible. How long its memory takes from then on is the postcopy bandwidth's.
pub(crate) fn begin(source: &mut Host, at: &Path) {
    // So slow that nobody misses it.
    source.set(json!({ "max-bandwidth": 1 << 20 }));
    source.run("migrate", uri(at));
    source.wait_for("active");
    source.run("migrate-start-postcopy", json!({}));
}

/// What `inspect` says of a migration's main channel.
pub(crate) fn inspected(file: &Path) -> Value {
    let file = file.to_str().unwrap();
    let output = run(["inspect", "--format=json", "--ram=pages", file]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    json(&output)
}

/// Commands, by name, and whether they stand in a package.
fn commands(answer: &Value) -> Vec<(String, bool)> {
    let all = answer["commands"].as_array().unwrap().iter();
    all.map(|one| {
        let packaged = one["packaged"] == true;
        (one["name"].as_str().unwrap().to_owned(), packaged)
    })
    .collect()
}

/// A migration that is done: what its main channel holds is what `inspect` and `verify` say.
fn ours(main: &Path) -> Value {
    let file = main.to_str().unwrap();
    let answer = inspected(main);
    let found = commands(&answer);
    let place = |name: &str| {
        let at = found.iter().position(|(command, _)| command.contains(name));
        at.unwrap_or_else(|| panic!("no {name}: {found:?}"))
    };
    let order = ["ADVISE", "DISCARD", "PACKAGED", "LISTEN", "RUN"].map(place);
    assert!(order.is_sorted(), "{found:?}");
    assert!(
        found[place("LISTEN")].1 && !found[place("ADVISE")].1,
        "{found:?}"
    );
    let sections = answer["sections"].as_array().unwrap();
    for name in ["ram", "riscv_mtimer", "cpu", "globalstate"] {
        assert!(sections.iter().any(|one| one["idstr"] == name), "{name}");
    }
    let output = run(["verify", file]);
    assert_eq!(status(&output), 0, "{}{}", stdout(&output), stderr(&output));
    // A package of frames is none of QEMU's.
    let output = run(["convert", file, "-", "--to", "qemu", "--quiet"]);
    assert_eq!(status(&output), 1);
    let told = stderr(&output);
    assert!(
        told.contains("live migration") && told.contains("x-peer=qemu"),
        "{told}"
    );
    answer
}

#[test]
fn a_postcopy() {
    let (mut source, mut destination) = pair(Kind::Ber, 0);
    let at = in_postcopy(&mut source, &mut destination, &["postcopy-ram"]);
    let (tapes, _) = recorder(&at, &destination.path("there"), 1);
    begin(&mut source, &at);
    for host in [&mut source, &mut destination] {
        host.wait_for("completed");
    }
    let (there, back) = (tapes[0].there(), tapes[0].back());
    let main = kept(&source, "main", &there);
    if let Some(found) = judged(&main, "--live") {
        for kind in [
            "hello",
            "typeDef",
            "device",
            "ramBlocks",
            "ramPages",
            "command",
            "phase",
            "end",
        ] {
            assert!(found[kind] > 0, "{kind}: {found:?}");
        }
    }
    if let Some(found) = judged(&kept(&source, "back", &back), "--live") {
        for kind in ["hello", "verdict", "reply", "end"] {
            assert!(found[kind] > 0, "{kind}: {found:?}");
        }
    }
    let answer = ours(&main);
    assert_eq!(answer["ram"]["warnings"], Value::Null);
    let back = source.path("back");
    let output = run(["inspect", back.to_str().unwrap()]);
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("answers of a destination"),
        "{}",
        stderr(&output)
    );
    proven(source, destination, &["postcopy"]);
}

#[test]
fn a_postcopy_with_a_channel_for_requested_pages() {
    let (mut source, mut destination) = pair(Kind::Ber, 1 << 20);
    let capabilities = ["postcopy-ram", "postcopy-preempt"];
    let at = in_postcopy(&mut source, &mut destination, &capabilities);
    let (tapes, _) = recorder(&at, &destination.path("there"), 2);
    begin(&mut source, &at);
    for host in [&mut source, &mut destination] {
        host.wait_for("completed");
    }
    let [main, requested] =
        [0, 1].map(|n| kept(&source, &format!("channel{n}"), &tapes[n].there()));
    judged(&main, "--live");
    if let Some(found) = judged(&requested, "--open") {
        assert_eq!(found["hello"], 1);
        assert!(found["ramPages"] > 0, "{found:?}");
    }
    judged(&kept(&source, "back", &tapes[0].back()), "--live");
    assert!(tapes[1].back().is_empty());
    let answer = ours(&main);
    let warnings = answer["warnings"].to_string();
    assert!(warnings.contains("requested"), "{answer}");
    let output = run(["inspect", requested.to_str().unwrap()]);
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("channel 1 of a migration"),
        "{}",
        stderr(&output)
    );
    proven(source, destination, &["postcopy", "channels"]);
}

#[test]
fn a_postcopy_that_was_paused() {
    let (mut source, mut destination) = pair(Kind::Ber, 256 << 10);
    let at = in_postcopy(&mut source, &mut destination, &["postcopy-ram"]);
    let (first, cutter) = recorder(&at, &destination.path("there"), 1);
    begin(&mut source, &at);
    for host in [&mut source, &mut destination] {
        host.wait_for("postcopy-active");
    }
    cutter.cut();
    for host in [&mut source, &mut destination] {
        host.wait_for("postcopy-paused");
    }
    let (there, again) = (destination.path("again"), destination.path("at-again"));
    destination.run("migrate-recover", uri(&there));
    let (second, _) = recorder(&again, &there, 1);
    source.set(json!({ "max-postcopy-bandwidth": 0 }));
    let mut resume = uri(&again);
    resume["resume"] = true.into();
    source.run("migrate", resume);
    for host in [&mut source, &mut destination] {
        host.wait_for("completed");
    }
    let file = |name: &str, octets: &[u8]| kept(&source, name, octets);
    let main = file("main", &first[0].there());
    judged(&main, "--cut");
    judged(&file("back", &first[0].back()), "--cut");
    let resumed = file("resumed", &second[0].there());
    if let Some(found) = judged(&resumed, "--live") {
        assert!(
            found["hello"] == 1 && found["command"] >= 2 && found["ramPages"] > 0,
            "{found:?}"
        );
    }
    if let Some(found) = judged(&file("answers", &second[0].back()), "--live") {
        assert!(found["reply"] >= 2 && found["blob"] > 0, "{found:?}");
    }
    // What was cut off says so, and what it held until then.
    let output = run(["inspect", "--format=json", main.to_str().unwrap()]);
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("incomplete"),
        "{}",
        stderr(&output)
    );
    assert!(
        commands(&json(&output))
            .iter()
            .any(|(command, _)| command.contains("RUN"))
    );
    let output = run(["verify", resumed.to_str().unwrap()]);
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("channel 0 of a migration"),
        "{}",
        stderr(&output)
    );
    proven(source, destination, &["postcopy"]);
}

/// What went live without postcopy is a stream like any other, and becomes QEMU's. Behind an upgrade, the place is told.
#[test]
fn a_precopy_and_what_is_made_of_it() {
    for kind in [Kind::Ber, Kind::Ours] {
        let mut source = Host::started(kind);
        let mut destination = Host::start(kind, Some("defer"));
        let at = in_postcopy(&mut source, &mut destination, &[]);
        let (tapes, _) = recorder(&at, &destination.path("there"), 1);
        source.run("migrate", uri(&at));
        for host in [&mut source, &mut destination] {
            host.wait_for("completed");
        }
        let main = kept(&source, "main", &tapes[0].there());
        let main = main.to_str().unwrap();
        let mut start = "0".to_owned();
        let output = run(["verify", main]);
        assert_eq!(status(&output), 0, "{}{}", stdout(&output), stderr(&output));
        let answer = inspected(Path::new(main));
        assert_eq!(answer["length"], tapes[0].there().len());
        if kind == Kind::Ours {
            // They have found out by asking.
            let found = commands(&answer);
            for name in ["PING", "UPGRADE"] {
                assert!(
                    found.iter().any(|(command, _)| command == name),
                    "{name}: {found:?}"
                );
            }
            let output = run(["convert", main, "-", "--to", "ber", "--quiet"]);
            assert_eq!(status(&output), 1);
            let told = stderr(&output);
            assert!(told.contains("VM state over BER"), "{told}");
            start = told.split("--start ").nth(1).unwrap().trim().to_owned();
        } else {
            judged(Path::new(main), "--live");
        }
        let converted = source.path("qemu");
        let converted = converted.to_str().unwrap();
        let output = run([
            "convert", main, converted, "--start", &start, "--to", "qemu", "--quiet",
        ]);
        assert_eq!((status(&output), stderr(&output)), (0, ""));
        if qemu().is_some() {
            let mut there = Host::start(Kind::Qemu, Some(&format!("file:{converted}")));
            there.wait_for("completed");
            there.goes_on();
        }
    }
}
