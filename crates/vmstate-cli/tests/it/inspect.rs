//! `vmstate inspect`.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Streams, inspect, recorded, run, status, stderr, stdout, vmstate};

#[test]
fn standard_input_gives_the_same_answer() {
    let streams = Streams::new();
    for name in ["pc-11.1-smp4", "pc-7.2-default", "pc-11.1-mapped-ram"] {
        let path = streams.recorded(&format!("{name}.main.bin"));
        let (_, mut from_file) = inspect(&path, &["--ram", "digest"]);
        let mut child = vmstate()
            .args(["inspect", "--format", "json", "-", "--ram", "digest"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let writer = std::thread::spawn(move || pipe.write_all(&bytes));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(status(&output), 0);
        let mut from_pipe: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(from_pipe["file"], "standard input");
        from_pipe["file"] = Value::Null;
        from_file["file"] = Value::Null;
        assert_eq!(from_pipe, from_file, "{name}");
    }
}

#[test]
fn multifd_channels_are_further_files() {
    let streams = Streams::new();
    let main = streams.recorded("pc-11.1-multifd2.main.bin");
    let others = [0, 1].map(|i| {
        let path = streams.recorded(&format!("pc-11.1-multifd2.multifd{i}.bin"));
        path.to_str().unwrap().to_owned()
    });
    let more = [&*others[0], &*others[1], "--ram", "digest"];
    let (output, whole) = inspect(&main, &more);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(whole["channels"][0]["kind"], "multifd");
    assert!(whole["ram"]["pages"]["multifd"].as_u64().unwrap() > 0);
    assert!(whole["ram"]["blocks"][0]["sha256"].is_string());

    // Without them there is nothing that a digest could be made of.
    let (output, part) = inspect(&main, &["--ram", "digest"]);
    assert_eq!(status(&output), 0);
    assert!(
        part["warnings"][0]
            .as_str()
            .unwrap()
            .contains("multifd channels")
    );
    assert_eq!(part["ram"]["blocks"][0].get("sha256"), None);

    // A channel given in the place of the stream, and a stream in the place of a channel.
    let output = run(["verify", &*others[0]]);
    assert_eq!(status(&output), 1);
    let main = main.to_str().unwrap();
    let output = run(["inspect", main, main]);
    assert_eq!(status(&output), 2);
    assert!(
        stderr(&output).contains("give the main stream first"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn sections_are_chosen_by_pattern() {
    let streams = Streams::new();
    let path = streams.recorded("pc-11.1-smp4.main.bin");
    let (_, answer) = inspect(&path, &["--section", "cpu*"]);
    let names: Vec<_> = answer["sections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["idstr"])
        .collect();
    assert_eq!(names.len(), 8);
    assert!(names.iter().all(|n| *n == "cpu" || *n == "cpu_common"));
    let (_, answer) = inspect(&path, &["--section", "nothing"]);
    assert_eq!(answer["sections"], json!([]));
}

#[test]
fn pages_are_counted_by_kind() {
    let streams = Streams::new();
    for (name, kind) in [
        ("pc-11.1-xbzrle", "xbzrle"),
        ("pc-11.1-mapped-ram", "mapped"),
        ("pc-7.2-default", "zero"),
    ] {
        let path = streams.recorded(&format!("{name}.main.bin"));
        let (_, answer) = inspect(&path, &["--ram", "pages"]);
        let total = answer["ram"]["pages"][kind].as_u64().unwrap();
        assert!(total > 0, "{name}");
        let blocks = answer["ram"]["blocks"].as_array().unwrap();
        let sum: u64 = blocks
            .iter()
            .map(|b| b["pages"][kind].as_u64().unwrap())
            .sum();
        assert_eq!(sum, total, "{name}");
        let path = path.to_str().unwrap();
        let output = run(["inspect", path, "--ram", "pages", "--section", "none"]);
        assert!(stdout(&output).contains("% zero"), "{}", stdout(&output));
    }
}

#[test]
fn text_looks_as_it_should() {
    let streams = Streams::new();
    let path = streams.recorded("spike-11.1.main.bin");
    let mut text = String::new();
    for more in [
        &["--section", "none"][..],
        &["--section", "timer", "--offsets"],
        &["--section", "riscv_mtimer", "--ram", "digest"],
        &["--section", "globalstate", "--all", "--ram", "pages"],
    ] {
        let output = vmstate()
            .arg("inspect")
            .arg(&path)
            .args(more)
            .output()
            .unwrap();
        let said = stderr(&output);
        match more.contains(&"none") {
            true => assert!(said.contains("no section matches none"), "{said}"),
            false => assert_eq!(said, ""),
        }
        text.push_str(&stdout(&output).replace(path.to_str().unwrap(), "STREAM"));
        text.push_str("----\n");
    }
    assert!(!text.contains('\x1b'), "colours are for terminals");
    check_snapshot("spike-11.1.txt", &text);
}

#[test]
fn help_looks_as_it_should() {
    let mut text = String::new();
    for arguments in [
        &["--help"][..],
        &["inspect", "--help"],
        &["verify", "--help"],
        &["diff", "--help"],
        &["helpers", "--help"],
        &["migrate", "--help"],
    ] {
        let output = run(arguments);
        assert_eq!(status(&output), 0);
        text.push_str(stdout(&output));
        text.push_str("----\n");
    }
    check_snapshot("help.txt", &text);
}

/// Compares with a file of this directory. With `UPDATE_SNAPSHOTS=1` writes it instead.
fn check_snapshot(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/snapshots")
        .join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(
        expected == text,
        "{name} has changed (UPDATE_SNAPSHOTS=1 accepts it):\n{text}"
    );
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let streams = Streams::new();
    let path = streams.recorded("pc-11.1-smp4.main.bin");
    for format in ["text", "json"] {
        let mut child = vmstate()
            .args(["inspect", "--format", format])
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((status(&output), stderr(&output)), (0, ""));
    }
}

#[test]
fn streams_may_stand_behind_other_bytes() {
    let streams = Streams::new();
    let mut bytes = vec![0; 4096];
    bytes.extend(recorded("spike-11.1.main.bin"));
    let path = streams.file("offset", &bytes);
    let (output, answer) = inspect(&path, &["--start", "4K"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(answer["length"], bytes.len() - 4096);
    assert_eq!(answer["sections"][0]["idstr"], "ram");
    let output = run(["verify", path.to_str().unwrap()]);
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("--start 4096"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn memory_is_bounded() {
    let streams = Streams::new();
    let path = streams.recorded("pc-11.1-smp4.main.bin");
    let path = path.to_str().unwrap();
    let output = run(["inspect", path, "--memory", "1000"]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("--memory"), "{}", stderr(&output));
    // Pages of a file are read again where they stand; those of a pipe must be kept.
    let output = run(["inspect", path, "--memory", "2M", "--ram", "digest"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let pipe = File::open(path).unwrap();
    let output = Command::new("sh")
        .args(["-c", r#"cat | "$0" inspect - --memory 2M --ram digest"#])
        .arg(env!("CARGO_BIN_EXE_vmstate"))
        .stdin(pipe)
        .output()
        .unwrap();
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("--memory"), "{}", stderr(&output));
    let output = run(["inspect", path, "--memory", "2M"]);
    assert_eq!(status(&output), 0);
}

#[test]
fn a_full_disk_is_told() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return;
    };
    let streams = Streams::new();
    let path = streams.recorded("spike-11.1.main.bin");
    let output = vmstate()
        .args(["inspect", "--format", "json"])
        .arg(&path)
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(status(&output), 2);
    assert!(
        stderr(&output).contains("cannot write"),
        "{}",
        stderr(&output)
    );
}
