//! Descriptors that travel over the monitor, as management software passes them.

use std::io::{BufRead as _, BufReader, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use vmstate_io::qmp::QmpAddress;

use crate::host::{Host, Kind, qemu};

/// A monitor's client that passes descriptors.
struct Passer {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Passer {
    fn new(host: &Host) -> Self {
        let QmpAddress::Unix(path) = &host.monitor else {
            panic!("no Unix socket");
        };
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        let mut passer = Self { stream, lines };
        passer.run("qmp_capabilities", &json!({})).unwrap();
        passer
    }

    fn answer(&mut self) -> Result<Value, String> {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0);
            let answer: Value = serde_json::from_str(&line).unwrap();
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                return Err(error["desc"].as_str().unwrap().to_owned());
            }
        }
    }

    fn run(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream, "{line}").unwrap();
        self.answer()
    }

    /// Passes `end` and names it.
    fn pass(&mut self, end: &UnixStream, name: &str) -> Result<Value, String> {
        let line = json!({ "execute": "getfd", "arguments": { "fdname": name } });
        let line = format!("{line}\n");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let ends = [end.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&ends)));
        let pieces = [IoSlice::new(line.as_bytes())];
        let sent = sendmsg(&self.stream, &pieces, &mut ancillary, SendFlags::empty());
        assert_eq!(sent.unwrap(), line.len());
        self.answer()
    }
}

/// The guest goes over a pair of sockets that neither process has opened.
fn over_a_descriptor(from: Kind, to: Kind) {
    let (mut here, mut there) = (Host::started(from), Host::start(to, Some("defer")));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut source, mut destination) = (Passer::new(&here), Passer::new(&there));
    source.pass(&ours, "out").unwrap();
    destination.pass(&theirs, "in").unwrap();
    drop((ours, theirs));
    let missing = source.run("migrate", &json!({ "uri": "fd:another" }));
    let missing = missing.unwrap_err();
    let expected = "File descriptor named 'another' has not been found";
    assert!(missing.contains(expected), "{missing}");
    destination
        .run("migrate-incoming", &json!({ "uri": "fd:in" }))
        .unwrap();
    source.run("migrate", &json!({ "uri": "fd:out" })).unwrap();
    here.wait_for("completed");
    there.wait_for("completed");
    there.goes_on();
    assert!(!here.is_running());
    // They have been taken.
    for (passer, name) in [(&mut source, "out"), (&mut destination, "in")] {
        let gone = passer.run("closefd", &json!({ "fdname": name }));
        let expected = format!("File descriptor named '{name}' not found");
        assert_eq!(gone.unwrap_err(), expected);
    }
}

#[test]
fn from_ours_to_ours() {
    over_a_descriptor(Kind::Ours, Kind::Ours);
}

#[test]
fn between_ours_and_qemu() {
    if qemu().is_none() {
        return;
    }
    over_a_descriptor(Kind::Ours, Kind::Qemu);
    over_a_descriptor(Kind::Qemu, Kind::Ours);
}

/// What is refused, and how, is the same everywhere.
#[test]
fn names_are_refused_as_by_qemu() {
    let kinds = match qemu() {
        Some(_) => vec![Kind::Ours, Kind::Qemu],
        None => vec![Kind::Ours],
    };
    for kind in kinds {
        let host = Host::start(kind, Some("defer"));
        let mut passer = Passer::new(&host);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let nothing = passer.run("getfd", &json!({ "fdname": "a" }));
        assert_eq!(
            nothing.unwrap_err(),
            "No file descriptor supplied via SCM_RIGHTS"
        );
        assert_eq!(
            passer.pass(&theirs, "1a").unwrap_err(),
            "Parameter 'fdname' expects a name not starting with a digit"
        );
        for _ in 0..2 {
            passer.pass(&theirs, "a").unwrap();
        }
        drop(theirs);
        passer.run("closefd", &json!({ "fdname": "a" })).unwrap();
        // Nobody holds the other end any more.
        let mut end = BufReader::new(ours);
        end.get_ref()
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        assert_eq!(end.read_line(&mut String::new()).unwrap(), 0);
    }
}
