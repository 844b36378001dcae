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
        &["inspect", good, "--describe", "/dev/zero"],
        &["check", good, good, "--exceptions", "/dev/zero"],
        &["machine", "--guest", "/dev/zero"],
        &["inspect", good, "--memory", "1K"],
        &["inspect", good, "--memory", "1K", "--format", "json"],
        &["verify", good, "--memory", "1K"],
        &["verify", good, "--memory", "1K", "--format", "json"],
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

/// What a reader with more memory takes is no damage.
#[test]
fn want_of_memory_is_no_damage() {
    let streams = Streams::new();
    let qemu = streams.recorded("pc-11.1-smp4.main.bin");
    let ber = streams.file("ber", b"");
    let paths = [&qemu, &ber].map(|path| path.to_str().unwrap());
    let output = run(["convert", paths[0], paths[1], "--to", "ber"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    for (path, memory) in [
        (paths[0], "100K"),
        (paths[1], "64K"),
        (paths[1], "256K"),
        (paths[1], "1M"),
    ] {
        for command in ["verify", "inspect", "schema"] {
            let output = run([command, path, "--memory", memory]);
            let text = stderr(&output);
            assert_eq!(status(&output), 2, "{command} {path} {memory}: {text}");
            assert!(
                text.contains("hint: give more memory with --memory"),
                "{text}"
            );
            assert!(output.stdout.is_empty());
        }
    }
    let output = run(["convert", paths[1], "-", "--to", "qemu", "--memory", "256K"]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("--memory"), "{}", stderr(&output));
    // A length that nobody takes is damage, however much memory there is.
    let mut bytes = recorded("spike-11.1.main.bin");
    let trailer = bytes.windows(2).rposition(|w| w == b"\x06\x00").unwrap();
    bytes[trailer + 1] = 0x7f;
    let damaged = streams.file("damaged", &bytes);
    let output = run(["verify", damaged.to_str().unwrap()]);
    assert_eq!(status(&output), 1, "{}", stderr(&output));
}

#[test]
fn what_is_no_stream_is_an_answer_everywhere() {
    let streams = Streams::new();
    let empty = streams.file("empty", b"");
    let empty = empty.to_str().unwrap();
    for arguments in [
        &["inspect", empty][..],
        &["verify", empty],
        &["schema", empty],
        &["check", empty, empty],
        &["diff", empty, empty],
    ] {
        let output = run(arguments);
        assert_eq!(status(&output), 1, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("hint: "), "{arguments:?}");
    }
}

#[test]
fn hints_for_what_was_asked_wrongly() {
    let streams = Streams::new();
    let good = streams.recorded("spike-11.1.main.bin");
    let (json, ber) = (streams.file("json", b""), streams.file("ber", b""));
    let paths = [&good, &json, &ber].map(|path| path.to_str().unwrap());
    let [good, json, ber] = paths;
    for (to, path) in [("json", json), ("ber", ber)] {
        let output = run(["convert", good, path, "--to", to, "--quiet"]);
        assert_eq!((status(&output), stderr(&output)), (0, ""));
    }
    for (arguments, code, expected) in [
        (
            &["inspect", good, "--start", "5"][..],
            1,
            "leave --start out",
        ),
        (
            &["inspect", good, "--section", "nic*"],
            0,
            "no section matches nic*",
        ),
        (&["inspect", json], 2, "--to qemu"),
        (&["verify", json], 2, "--to qemu"),
        (&["diff", good, json], 2, "--to qemu"),
        (&["check", json, good], 2, "--to qemu"),
        (&["schema", json], 2, "--to qemu"),
        (
            &["convert", ber, "-", "--to", "qemu", "--start", "3"],
            1,
            "leave --start out",
        ),
        (&["demo", "--ram", "1T"], 2, "at most 64G"),
    ] {
        let output = run(arguments);
        let text = stderr(&output);
        assert_eq!(status(&output), code, "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}
