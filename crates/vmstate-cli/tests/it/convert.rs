//! `vmstate convert`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Guest memory is for whoever was let in before, or for nobody else.
#[test]
fn files_are_private_and_keep_what_they_were() {
    let streams = Streams::new();
    let qemu = streams.recorded("spike-11.1.main.bin");
    let beside = |name: &str| qemu.with_file_name(name);
    let convert = |out: &Path| {
        let paths = [&*qemu, out].map(|path| path.to_str().unwrap());
        let output = run(["convert", paths[0], paths[1], "--to", "ber", "--quiet"]);
        assert_eq!((status(&output), stderr(&output)), (0, ""));
        assert!(fs::read(out).unwrap().starts_with(b"\x60\x80"));
    };
    convert(&beside("new"));
    assert_eq!(mode(&beside("new")), 0o600);
    for was in [0o600, 0o640, 0o604] {
        let old = streams.file("old", b"old");
        fs::set_permissions(&old, fs::Permissions::from_mode(was)).unwrap();
        convert(&old);
        assert_eq!(mode(&old), was);
    }
    // A link is followed, also to what is not there yet.
    fs::create_dir(beside("dir")).unwrap();
    fs::write(beside("dir/there"), b"old").unwrap();
    for (link, to) in [
        ("one", "dir/there"),
        ("two", "dir/not-yet"),
        ("three", "two"),
    ] {
        symlink(to, beside(link)).unwrap();
        convert(&beside(link));
        assert!(fs::symlink_metadata(beside(link)).unwrap().is_symlink());
        assert!(fs::read(beside(to)).unwrap().starts_with(b"\x60\x80"));
    }
    symlink("loop", beside("loop")).unwrap();
    let paths = [&qemu, &beside("loop")].map(|path| path.to_str().unwrap().to_owned());
    let output = run(["convert", &paths[0], &paths[1], "--to", "ber"]);
    assert_eq!(status(&output), 2);
}

#[test]
fn an_interrupt_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    for signal in ["-INT", "-TERM"] {
        let mut command = vmstate();
        command.args(["convert", "-", "out", "--to", "ber"]);
        command.current_dir(dir.path()).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&recorded("spike-11.1.main.bin")[..50_000])
            .unwrap();
        let files = || fs::read_dir(dir.path()).unwrap().count();
        let end = Instant::now() + Duration::from_secs(60);
        while files() == 0 {
            assert!(Instant::now() < end, "no temporary file");
            std::thread::sleep(Duration::from_millis(10));
        }
        // The signal's handler is there before the stream is read, and the pipe holds less than was written.
        pipe.write_all(&recorded("spike-11.1.main.bin")[50_000..200_000])
            .unwrap();
        let pid = child.id().to_string();
        let killed = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(killed.success());
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), None, "{signal}");
        assert_eq!(files(), 0, "{signal}");
        drop(pipe);
    }
}
