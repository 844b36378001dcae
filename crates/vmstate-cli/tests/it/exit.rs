//! Exit status and messages: 0 fine, 1 the answer is no, 2 the question could not be asked.

use serde_json::Value;

use crate::support::{Streams, find_header, inspect, recorded, run, status, stderr};

#[test]
fn what_cannot_be_asked() {
    let streams = Streams::new();
    let good = streams.recorded("spike-11.1.main.bin");
    let good = good.to_str().unwrap();
    let packed = streams.file("packed", &zstd::encode_all(&[0; 100][..], 0).unwrap());
    for arguments in [
        &["inspect"][..],
        &["frobnicate"],
        &[],
        &["inspect", "/no/such/stream"],
        &["inspect", good, "/no/such/channel"],
        &["inspect", "/"],
        &["inspect", good, "--format", "yaml"],
        &["inspect", good, "--page-size", "5000"],
        &["inspect", good, "--memory", "lots"],
        &["inspect", good, "--describe", "/no/such/dump"],
        &["inspect", good, "--describe", good],
        &["inspect", packed.to_str().unwrap()],
        &["verify", "/no/such/stream"],
        &["diff", good],
        &["diff", "-", "-"],
        &["diff", good, "/no/such/stream"],
    ] {
        let output = run(arguments);
        assert_eq!(status(&output), 2, "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let output = run(["inspect", packed.to_str().unwrap()]);
    assert!(stderr(&output).contains("zstd -dc"), "{}", stderr(&output));
}

/// Cut anywhere, a stream is told to be cut, and what was there is shown.
#[test]
fn cut_streams() {
    let whole = recorded("spike-11.1.main.bin");
    let length = whole.len();
    let cpu = find_header(&whole, "cpu", 0);
    let mut cuts: Vec<usize> = (0..40).collect();
    cuts.extend((0..20).map(|i| 100 + i * (length / 20 - 5)));
    cuts.extend(cpu..cpu + 40);
    cuts.extend([length - 1, length - 2, length - 100]);
    let streams = Streams::new();
    for cut in cuts {
        let path = streams.file("cut", &whole[..cut]);
        let (output, answer) = inspect(&path, &[]);
        assert_eq!(status(&output), 1, "{cut}");
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{cut}"));
        assert!(error.contains("stream ends"), "{cut}: {error}");
        assert!(
            stderr(&output).contains(error),
            "{cut}: {}",
            stderr(&output)
        );
        assert!(stderr(&output).contains("hint: "), "{cut}");
        assert!(answer["length"].as_u64().unwrap() <= cut as u64, "{cut}");
        let output = run(["verify", path.to_str().unwrap()]);
        assert_eq!(status(&output), 1, "{cut}");
    }
    let path = streams.file("cut", &whole[..cpu + 30]);
    let (_, answer) = inspect(&path, &[]);
    let sections = answer["sections"].as_array().unwrap();
    assert!(
        sections.iter().any(|s| s["idstr"] == "timer"),
        "found until then"
    );
    assert!(!answer["ram"]["blocks"].as_array().unwrap().is_empty());
}

fn damaged(what: impl FnOnce(&mut Vec<u8>)) -> (i32, String, Value) {
    let mut bytes = recorded("pc-11.1-smp4.main.bin");
    what(&mut bytes);
    let streams = Streams::new();
    let (output, answer) = inspect(&streams.file("damaged", &bytes), &[]);
    (status(&output), stderr(&output).to_owned(), answer)
}

#[test]
fn damaged_streams_are_an_answer() {
    // The footer in front of the section `cpu_common`.
    let (code, message, answer) = damaged(|bytes| {
        let at = find_header(bytes, "cpu_common", 0);
        bytes[at - 5] ^= 1;
    });
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("timer"), "{message}");
    assert!(answer["error"].is_string());
    assert!(answer["sections"].as_array().unwrap().len() >= 5);

    // Its section id.
    let (code, message, _) = damaged(|bytes| {
        let at = find_header(bytes, "cpu_common", 0);
        bytes[at - 1] ^= 0x40;
    });
    assert_eq!(code, 1, "{message}");

    // A part of a section that was never started.
    let (code, message, _) = damaged(|bytes| {
        let at = find_header(bytes, "cpu_common", 0);
        bytes[at] = 2;
    });
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("section"), "{message}");

    // The magic, and the version behind it.
    let (code, message, _) = damaged(|bytes| bytes[0] = b'X');
    assert_eq!(code, 1);
    assert!(message.contains("not a migration stream"), "{message}");
    let (code, message, _) = damaged(|bytes| bytes[..2].copy_from_slice(&[0x60, 0x80]));
    assert_eq!(code, 1);
    assert!(message.contains("VM state over BER"), "{message}");
    let (code, message, _) = damaged(|bytes| bytes[7] = 9);
    assert_eq!(code, 1);
    assert!(message.contains("version"), "{message}");

    // The trailer.
    let (code, message, answer) = damaged(|bytes| {
        let end = bytes.len();
        bytes[end - 200] = b'\x01';
    });
    assert_eq!(code, 1, "{message}");
    assert!(!answer["sections"].as_array().unwrap().is_empty());

    // Bytes that belong to nothing.
    let (code, _, answer) = damaged(|bytes| bytes.extend([0; 7]));
    assert_eq!(code, 1);
    assert!(answer["error"].is_string() || !answer["problems"].as_array().unwrap().is_empty());
}

#[test]
fn unknown_sections_are_listed_with_inferred_ends() {
    let mut bytes = recorded("spike-11.1.main.bin");
    let at = find_header(&bytes, "riscv_mtimer", 0);
    bytes[at + 6] = b'X';
    let streams = Streams::new();
    let (output, answer) = inspect(&streams.file("unknown", &bytes), &[]);
    let section = crate::support::section(&answer, "Xiscv_mtimer", 0);
    assert_eq!(section["inferred"], true);
    assert!(section["state"].as_str().unwrap().len() > 8);
    // The trailer describes a section that did not come.
    assert_eq!(status(&output), 1);
    assert!(
        answer["problems"][0]["text"]
            .as_str()
            .unwrap()
            .contains("riscv_mtimer")
    );
}
