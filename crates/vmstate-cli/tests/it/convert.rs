//! `vmstate convert`.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::support::{Streams, recorded, run, status, stderr, vmstate};

#[test]
fn from_files_and_through_pipes() {
    let streams = Streams::new();
    let qemu = streams.recorded("spike-11.1.main.bin");
    let (ber, again) = (streams.file("x.ber", b"old"), streams.file("again", b""));
    let paths = [&qemu, &ber, &again].map(|path| path.to_str().unwrap());
    let [qemu, ber, again] = paths;
    let output = run(["convert", qemu, ber, "--to", "ber"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("5 devices converted"),
        "{}",
        stderr(&output)
    );
    let bytes = fs::read(ber).unwrap();
    assert!(bytes.starts_with(b"\x60\x80\x0c\x0dvmstate-ber/1"));
    let output = run(["convert", ber, again, "--to", "qemu", "--quiet"]);
    assert_eq!((status(&output), stderr(&output)), (0, ""));
    assert!(fs::read(again).unwrap() == fs::read(qemu).unwrap());

    // The same, from a pipe to a pipe.
    let mut command = vmstate();
    command.args(["convert", "-", "-", "--to", "qemu", "--quiet"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || pipe.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(status(&output), 0);
    assert!(output.stdout == recorded("spike-11.1.main.bin"));
}

#[test]
fn what_is_wrong_is_told_and_leaves_no_file() {
    let streams = Streams::new();
    let mut bytes = recorded("spike-11.1.main.bin");
    bytes.truncate(100_000);
    let cut = streams.file("cut", &bytes);
    let out = cut.with_file_name("out.ber");
    let (cut, out) = (cut.to_str().unwrap(), out.to_str().unwrap());
    let output = run(["convert", cut, out, "--to", "ber"]);
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("stream ends"),
        "{}",
        stderr(&output)
    );
    assert!(fs::metadata(out).is_err());

    // As bytes it goes; a flipped bit shows.
    let output = run(["convert", cut, out, "--to", "ber", "--opaque-stream"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let mut bytes = fs::read(out).unwrap();
    bytes[50_000] ^= 1;
    let flipped = streams.file("flipped", &bytes);
    let output = run(["convert", flipped.to_str().unwrap(), "-", "--to", "qemu"]);
    assert_eq!(status(&output), 1);
    let text = stderr(&output);
    assert!(
        text.contains("checksum") && text.contains("frame Opaque at 0x"),
        "{text}"
    );

    let output = run(["convert", "/nowhere/x", "-", "--to", "ber"]);
    assert_eq!(status(&output), 2);
    let output = run(["convert", out, "/nowhere/x", "--to", "qemu"]);
    assert_eq!(status(&output), 2);
}

#[test]
fn to_json_and_back() {
    let streams = Streams::new();
    let qemu = streams.recorded("spike-11.1.main.bin");
    let (text, again) = (streams.file("x.json", b""), streams.file("again", b""));
    let paths = [&qemu, &text, &again].map(|path| path.to_str().unwrap());
    let [qemu, text, again] = paths;
    let output = run(["convert", qemu, text, "--to", "json"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let told = stderr(&output);
    assert!(
        told.contains("to json") && told.contains("5 devices converted"),
        "{told}"
    );
    let output = run(["convert", text, again, "--to", "qemu", "--quiet"]);
    assert_eq!((status(&output), stderr(&output)), (0, ""));
    assert!(fs::read(again).unwrap() == fs::read(qemu).unwrap());
    let wrong = streams.file("wrong", b"{\"format\": \"vmstate-stream/2\"}");
    let output = run(["convert", wrong.to_str().unwrap(), again, "--to", "qemu"]);
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("vmstate-stream/1"),
        "{}",
        stderr(&output)
    );
}
