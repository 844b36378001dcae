//! VM state over BER where a stream is expected: the same answers as of the QEMU stream that it was made of.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Streams, channels, json, run, sidecars, status, stderr, stdout};

/// A recorded stream and what is made of it in BER.
fn both(streams: &Streams, name: &str) -> (PathBuf, PathBuf) {
    let qemu = streams.recorded(&format!("{name}.main.bin"));
    let ber = qemu.with_extension("ber");
    let output = run([
        Path::new("convert"),
        &qemu,
        &ber,
        Path::new("--to=ber"),
        Path::new("--quiet"),
    ]);
    assert_eq!(status(&output), 0, "{name}: {}", stderr(&output));
    (qemu, ber)
}

fn answer(command: &[&str], file: &Path) -> Value {
    let output = run(command.iter().map(Path::new).chain([file]));
    assert_eq!(status(&output), 0, "{}{}", stdout(&output), stderr(&output));
    json(&output)
}

/// Recorded streams in one channel.
fn names() -> Vec<String> {
    let names = sidecars().into_iter().map(|(name, _)| name);
    let fits = |name: &String| channels(name).is_empty();
    let names: Vec<String> = names.filter(fits).collect();
    assert!(names.len() >= 12, "{names:?}");
    assert!(names.iter().any(|name| name.contains("mapped-ram")));
    names
}

#[test]
fn contents_are_the_same() {
    for name in names() {
        let streams = Streams::new();
        let (qemu, ber) = both(&streams, &name);
        let (from, to) = (qemu.to_str().unwrap(), ber.to_str().unwrap());
        let output = run(["diff", from, to, "--ram", "digest"]);
        assert_eq!(
            status(&output),
            0,
            "{name}: {}{}",
            stdout(&output),
            stderr(&output)
        );
        let inspect = ["inspect", "--format=json", "--ram=pages"];
        let (qemu, ber) = (answer(&inspect, &qemu), answer(&inspect, &ber));
        assert_eq!(qemu["machine"], ber["machine"], "{name}");
        assert_eq!(qemu["page_size"], ber["page_size"], "{name}");
        let described = |answer: &Value| -> Vec<[Value; 5]> {
            let sections = answer["sections"].as_array().unwrap();
            let members = ["idstr", "instance_id", "version_id", "kind", "state"];
            // Of some only the length is known: one field in QEMU's trailer, bytes without a name in BER.
            let of = |section: &Value| {
                members.map(|member| match &section[member] {
                    Value::Object(fields) if fields.len() == 1 && fields.contains_key("data") => {
                        fields["data"].clone()
                    }
                    other => other.clone(),
                })
            };
            sections.iter().map(of).collect()
        };
        assert_eq!(described(&qemu), described(&ber), "{name}");
    }
}

/// Mapped pages have their places in a file: they are read from that, also where a stream goes on in the middle of it. In a pipe
/// they have gone by.
#[test]
fn mapped_pages_are_counted() {
    let names = names().into_iter();
    for name in names.filter(|name| name.contains("mapped-ram")) {
        let streams = Streams::new();
        let (qemu, ber) = both(&streams, &name);
        let inspect = ["inspect", "--format=json", "--ram=digest"];
        let (qemu, once) = (answer(&inspect, &qemu), answer(&inspect, &ber));
        assert_eq!(qemu["ram"], once["ram"], "{name}");
        assert!(
            once["ram"]["pages"]["mapped"].as_u64() > Some(100),
            "{once}"
        );
        assert_eq!(once["warnings"], serde_json::json!([]), "{name}");
        let bytes = fs::read(&ber).unwrap();
        let behind = streams.file("behind", &[&[7; 100], &*bytes].concat());
        let later = answer(&[&inspect[..], &["--start=100"]].concat(), &behind);
        assert_eq!(qemu["ram"], later["ram"], "{name}");
        let mut command = crate::support::vmstate();
        command
            .args(inspect)
            .arg("-")
            .stdin(fs::File::open(&ber).unwrap());
        let output = command.output().unwrap();
        // A file is a file, whoever opens it: only a pipe goes by.
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        let mut cat = std::process::Command::new("cat");
        let mut cat = cat
            .arg(&ber)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut command = crate::support::vmstate();
        let pipe = cat.stdout.take().unwrap();
        let output = command.args(inspect).arg("-").stdin(pipe).output().unwrap();
        assert!(cat.wait().unwrap().success());
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        let warned = json(&output)["warnings"].to_string();
        assert!(warned.contains("not looked into"), "{warned}");
    }
}

#[test]
fn every_byte_counts() {
    let streams = Streams::new();
    let (_, ber) = both(&streams, "spike-11.1");
    let verified = answer(&["verify", "--format=json"], &ber);
    assert_eq!(verified["ok"], true);
    let accounts = &verified["accounts"];
    let sum: u64 = ["described", "ram", "opaque", "trailer", "framing"]
        .iter()
        .map(|k| accounts[k].as_u64().unwrap())
        .sum();
    assert_eq!(verified["length"], sum);
    assert!(accounts["described"].as_u64().unwrap() > 1000, "{accounts}");
    let bytes = fs::read(&ber).unwrap();
    assert_eq!(verified["length"], bytes.len());
    let step = bytes.len() / 23;
    let places = [
        0,
        20,
        70,
        bytes.len() - 1,
        bytes.len() - 2,
        bytes.len() - 20,
    ];
    for at in places.into_iter().chain((0..bytes.len()).step_by(step)) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let file = streams.file("flipped.ber", &flipped);
        let output = run([Path::new("verify"), &file]);
        assert_eq!(status(&output), 1, "byte {at}: {}", stdout(&output));
        assert!(stderr(&output).contains("byte 0x"), "{}", stderr(&output));
    }
    for length in [17, 100, bytes.len() / 2, bytes.len() - 1] {
        let file = streams.file("cut.ber", &bytes[..length]);
        let output = run([Path::new("verify"), &file]);
        assert_eq!(status(&output), 1, "{length} bytes");
        let text = stderr(&output);
        assert!(text.contains("the recording is incomplete"), "{text}");
    }
    let mut more = bytes;
    more.push(0);
    let output = run([Path::new("verify"), &streams.file("more.ber", &more)]);
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("bytes follow the end of the stream"));
}

#[test]
fn schemas_are_the_same() {
    for name in ["spike-11.1", "q35-7.2-virtio", "pc-11.1-smp4"] {
        let streams = Streams::new();
        let (qemu, ber) = both(&streams, name);
        let schema = |file: &Path| answer(&["schema"], file);
        assert_eq!(schema(&qemu), schema(&ber), "{name}");
        let output = run([
            Path::new("check"),
            &qemu,
            &ber,
            Path::new("--both"),
            Path::new("--strict"),
            Path::new("--format=json"),
        ]);
        assert_eq!(status(&output), 0, "{name}: {}", stdout(&output));
        assert_eq!(json(&output)["findings"], serde_json::json!([]), "{name}");
    }
}

/// Places are those of the file.
#[test]
fn a_stream_behind_other_bytes() {
    let streams = Streams::new();
    let (qemu, ber) = both(&streams, "spike-11.1");
    let alone = fs::read(&ber).unwrap();
    let behind = streams.file("behind", &[&[0x60; 4099], &*alone].concat());
    let start = ["--start", "4099"];
    let (at_once, later) = (
        answer(&["inspect", "--format=json", "--ram=digest"], &ber),
        answer(
            &[&["inspect", "--format=json", "--ram=digest"], &start[..]].concat(),
            &behind,
        ),
    );
    assert_eq!(at_once["ram"], later["ram"]);
    assert_eq!(at_once["length"], later["length"]);
    let offset = |answer: &Value| answer["sections"][3]["offset"].as_u64().unwrap();
    assert_eq!(offset(&later), offset(&at_once) + 4099);
    let verified = answer(
        &[&["verify", "--format=json"], &start[..]].concat(),
        &behind,
    );
    assert_eq!(verified["ok"], true);
    for input in [behind.to_str().unwrap(), "-"] {
        let mut command = crate::support::vmstate();
        command.args(["convert", input, "-", "--to=qemu", "--quiet"]);
        let output = command
            .args(start)
            .stdin(fs::File::open(&behind).unwrap())
            .output()
            .unwrap();
        assert_eq!(status(&output), 0, "{input}: {}", stderr(&output));
        assert_eq!(output.stdout, fs::read(&qemu).unwrap(), "{input}");
    }
    // Where it is, is found out; and an error tells the place in the file.
    let output = run([Path::new("verify"), &behind]);
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("--start 4099"),
        "{}",
        stderr(&output)
    );
    let mut flipped = fs::read(&behind).unwrap();
    let last = flipped.len() - 3;
    flipped[last] ^= 1;
    let flipped = streams.file("flipped", &flipped);
    let arguments = [&["verify"], &start[..], &[flipped.to_str().unwrap()]].concat();
    let output = run(arguments);
    assert_eq!(status(&output), 1);
    // The last frame has the digest: it stands behind the one before.
    let told = stderr(&output);
    let digits = told.split("byte 0x").nth(1).unwrap();
    let digits: String = digits.chars().take_while(char::is_ascii_hexdigit).collect();
    let place = usize::from_str_radix(&digits, 16).unwrap();
    assert!(place > 4099 + alone.len() / 2 && place < last, "{told}");
    let output = run(["inspect", "--start", "999999999", behind.to_str().unwrap()]);
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("what stands before the stream"));
}
