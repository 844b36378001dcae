//! Standard output and standard error that take nothing: what was asked for happens all the same.

use std::fs::File;
use std::process::{Output, Stdio};

use crate::migrate::{Machine, completes, fails};
use crate::support::{Streams, recorded, run, status, stderr, stdout, vmstate};

/// A device that is always full.
fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// A pipe that nobody reads any more.
fn broken() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

#[test]
fn a_guest_moves_although_nobody_reads_about_it() {
    for unwritable in [full, broken] {
        let machine = Machine::new(completes);
        let mut command = machine.command(&["unix:/there"]);
        let output = command.stderr(unwritable()).output().unwrap();
        assert_eq!(status(&output), 0, "{output:#?}");
        assert!(stdout(&output).starts_with("completed in 20 ms"));

        let machine = Machine::new(completes);
        let output = machine
            .command(&["unix:/there", "--quiet"])
            .stdout(unwritable())
            .output()
            .unwrap();
        assert_eq!(status(&output), 0, "{output:#?}");
        let text = stderr(&output);
        assert!(
            text.contains("cannot write the answer") && text.contains("\ncompleted in 20 ms"),
            "{text}"
        );

        let machine = Machine::new(fails);
        let mut command = machine.command(&["unix:/there"]);
        let output = command
            .stdout(unwritable())
            .stderr(unwritable())
            .output()
            .unwrap();
        assert_eq!(status(&output), 1);
    }
}

fn without_stderr(arguments: &[&str]) -> Output {
    vmstate().args(arguments).stderr(full()).output().unwrap()
}

#[test]
fn every_command_has_its_exit_status() {
    let streams = Streams::new();
    let good = streams.recorded("spike-11.1.main.bin");
    let cut = streams.file("cut", &recorded("spike-11.1.main.bin")[..100_000]);
    let (good, cut) = (good.to_str().unwrap(), cut.to_str().unwrap());
    for (arguments, expected) in [
        (&["convert", good, "-", "--to", "ber"][..], 0),
        (&["convert", cut, "-", "--to", "ber"], 1),
        (&["inspect", cut], 1),
        (&["verify", cut], 1),
        (&["diff", good, cut], 1),
        (&["inspect", "/no/such/stream"], 2),
        (&["machine", "--guest", "/etc/passwd"], 1),
    ] {
        let output = without_stderr(arguments);
        assert_eq!(status(&output), expected, "{arguments:?}");
    }
}

/// A reader that goes away is content; a full disk is not, and is no fault of the stream.
#[test]
fn what_cannot_be_converted_to_is_named() {
    let streams = Streams::new();
    let good = streams.recorded("pc-11.1-smp4.main.bin");
    let good = good.to_str().unwrap();
    for to in ["qemu", "ber", "json"] {
        let mut command = vmstate();
        command.args(["convert", good, "-", "--to", to, "--quiet"]);
        let output = command.stdout(broken()).output().unwrap();
        assert_eq!((status(&output), stderr(&output)), (0, ""), "{to}");
        let mut command = vmstate();
        command.args(["convert", good, "-", "--to", to, "--quiet"]);
        let output = command.stdout(full()).output().unwrap();
        assert_eq!(status(&output), 2, "{to}");
        let text = stderr(&output);
        assert!(
            text.contains("cannot write standard output: No space"),
            "{text}"
        );
        let output = run(["convert", good, "/dev/full", "--to", to]);
        assert_eq!(status(&output), 2, "{to}");
        let text = stderr(&output);
        assert!(text.contains("cannot write /dev/full: No space"), "{text}");
    }
}
