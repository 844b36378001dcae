//! Other people's ASN.1 tools read what we convert: `openssl asn1parse`, and Python's `asn1tools` with the module of the documentation.
//!
//! `VMSTATE_PYTHON` names an interpreter that has the package, else `python3` is tried. What is missing is said, and its tests
//! pass, unless `VMSTATE_REQUIRE_PYTHON` or `VMSTATE_REQUIRE_OPENSSL` is set.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use all of it")]
mod router;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vmstate_ber::frame::FrameKind;
use vmstate_ber::stream::{Parser, Step};
use vmstate_io::SliceInput;
use vmstate_io::convert::{Format, Options, convert};

/// One of each kind: devices and pages, mapped-ram, postcopy, differences.
const STREAMS: &[&str] = &[
    "pc-11.1-smp4",
    "q35-7.2-virtio",
    "spike-11.1",
    "pc-11.1-postcopy",
    "pc-11.1-xbzrle",
    "pc-11.1-multifd2",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn converted(name: &str) -> Vec<u8> {
    let path = root().join(format!("vectors/streams/{name}.main.bin.zst"));
    let stream = zstd::decode_all(fs::File::open(path).unwrap()).unwrap();
    let mut out = Vec::new();
    let options = Options::default();
    convert(
        &mut SliceInput::new(&stream),
        &mut out,
        Format::Ber,
        &options,
    )
    .unwrap();
    out
}

/// Whether a tool is there.
fn has(tool: &Path, arguments: &[&str], what: &str, required: &str) -> bool {
    let found = Command::new(tool)
        .args(arguments)
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        assert!(
            std::env::var_os(required).is_none(),
            "{what} is required and missing"
        );
        // Not through the macro: what a passing test prints would not be seen.
        let text = format!("skipped: {} has no {what}\n", tool.display());
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    found
}

fn python() -> Option<PathBuf> {
    let named = std::env::var_os("VMSTATE_PYTHON");
    let python = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let arguments = ["-c", "import asn1tools"];
    has(&python, &arguments, "asn1tools", "VMSTATE_REQUIRE_PYTHON").then_some(python)
}

fn openssl() -> Option<PathBuf> {
    let openssl = PathBuf::from("openssl");
    has(&openssl, &["version"], "openssl", "VMSTATE_REQUIRE_OPENSSL").then_some(openssl)
}

/// The frames by kind, and their places.
fn frames(stream: &[u8]) -> Vec<(u64, u8)> {
    let mut parser = Parser::default();
    let (mut rest, mut frames) = (stream, Vec::new());
    loop {
        let consumed = match parser.next(rest).unwrap() {
            Step::Consumed { consumed } => consumed,
            Step::Frame {
                consumed,
                offset,
                frame,
            } => {
                frames.push((offset, frame.tag()));
                consumed
            }
            Step::NeedMore { .. } => panic!("cut off"),
            Step::End => return frames,
        };
        rest = &rest[consumed..];
    }
}

fn judge(python: &Path, stream: &[u8]) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(stream).unwrap();
    Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/ber_judge.py"))
        .arg(root().join("docs/vmstate-ber-v1.asn1"))
        .arg(file.path())
        .output()
        .unwrap()
}

/// The name of a frame's kind in the module.
fn module_name(tag: u8) -> String {
    let name = FrameKind(tag).to_string();
    let name = if name == "DeviceState" {
        "Device"
    } else {
        &name
    };
    name[..1].to_lowercase() + &name[1..]
}

#[test]
fn asn1tools_reads_it_and_writes_the_same() {
    let Some(python) = python() else { return };
    let vector = fs::read(root().join("vectors/ber/serial.ber")).unwrap();
    for (name, stream) in STREAMS.iter().map(|name| (*name, converted(name))).chain([
        ("the vector", vector),
        ("tagged unions", router::in_ber(&router::Router::new())),
    ]) {
        let output = judge(&python, &stream);
        assert!(output.status.success(), "{name}: {output:#?}");
        let mut counts = BTreeMap::<String, u64>::new();
        for (_, tag) in frames(&stream) {
            *counts.entry(module_name(tag)).or_default() += 1;
        }
        let found: BTreeMap<String, u64> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found, counts, "{name}");
    }
}

#[test]
fn asn1tools_finds_what_is_wrong() {
    let Some(python) = python() else { return };
    let stream = fs::read(root().join("vectors/ber/serial.ber")).unwrap();
    let place = |kind| {
        let all = frames(&stream);
        let (offset, _) = all.iter().find(|(_, tag)| *tag == kind).unwrap();
        usize::try_from(*offset).unwrap()
    };
    // The last octet of a checksum; one of the digest; a phase that there is not.
    for (at, complaint) in [
        (place(0x70) - 1, "wrong checksum"),
        (stream.len() - 3, "wrong digest"),
        (place(0x65) + 4, "enumeration"),
    ] {
        let mut bytes = stream.clone();
        bytes[at] ^= 0x40;
        let output = judge(&python, &bytes);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(complaint), "{complaint}: {text}");
    }
}

fn asn1parse(openssl: &Path, stream: &[u8]) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(stream).unwrap();
    Command::new(openssl)
        .args(["asn1parse", "-inform", "DER", "-in"])
        .arg(file.path())
        .output()
        .unwrap()
}

#[test]
fn openssl_reads_it() {
    let Some(openssl) = openssl() else { return };
    for name in STREAMS {
        let stream = converted(name);
        let output = asn1parse(&openssl, &stream);
        assert!(output.status.success(), "{name}");
        let text = String::from_utf8_lossy(&output.stdout);
        // "   17:d=1  hl=2 l=  74 cons: appl [ 1 ]": the frames stand in the envelope.
        let found: Vec<(u64, u8)> = text
            .lines()
            .filter_map(|line| {
                let (offset, rest) = line.split_once(":d=1 ")?;
                let (_, number) = rest.split_once("appl [ ")?;
                let number: u8 = number.split(' ').next()?.parse().ok()?;
                Some((offset.trim().parse().ok()?, 0x60 + number))
            })
            .collect();
        assert_eq!(found, frames(&stream), "{name}");
    }
}

#[test]
fn openssl_finds_what_is_wrong() {
    let Some(openssl) = openssl() else { return };
    let stream = fs::read(root().join("vectors/ber/serial.ber")).unwrap();
    assert!(asn1parse(&openssl, &stream).status.success());
    // Cut off, and with a length that is too long.
    assert!(!asn1parse(&openssl, &stream[..400]).status.success());
    let mut bytes = stream;
    bytes[18] = 0x84;
    assert!(!asn1parse(&openssl, &bytes).status.success());
}
