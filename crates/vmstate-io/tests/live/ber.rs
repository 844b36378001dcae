//! The same machines over VM state over BER.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vmstate_ber::frame::{Coding, Frame};
use vmstate_ber::stream::{Parser, Step};
use vmstate_engine::{Capability, MigrationStatus as Status, Peer, Settings};
use vmstate_io::SliceInput;
use vmstate_io::convert::{Format, Options, convert};
use vmstate_io::inspect::{self, analyze};
use vmstate_io::live::MigrationEvent;
use vmstate_qmp::address::MigrationAddress;

use crate::toy::{Census, PATIENCE, Toy};
use crate::{address, pair, set, socket, speak};

fn change(toy: &Toy, change: impl FnOnce(&mut Settings)) {
    let changed = toy.migrator.change_settings(|settings| {
        change(settings);
        Ok::<_, ()>(())
    });
    changed.unwrap();
}

#[test]
fn a_running_guest_moves_over_sockets_again_and_again() {
    let (_dir, unix) = socket();
    for place in [unix, address("tcp:127.0.0.1:0")] {
        let census = Arc::default();
        let (mut source, _) = pair(&census);
        for (peer, ack) in [(Peer::Auto, false), (Peer::Vmstate, true)].repeat(2) {
            let destination = Toy::new(true, &census);
            speak(&destination, peer);
            speak(&source, Peer::Vmstate);
            let on: &[Capability] = match ack {
                true => &[Capability::ReturnPath, Capability::SwitchoverAck],
                false => &[],
            };
            set(&source, on);
            set(&destination, on);
            let place = destination.migrator.incoming(&place).unwrap();
            source.migrator.migrate(place).unwrap();
            assert_eq!(
                source.departed(),
                Status::Completed,
                "{:?} {:?}",
                source.migrator.info(),
                destination.migrator.info()
            );
            assert_eq!(destination.arrived(), None);
            assert_eq!(
                source.statuses(),
                [
                    Status::Setup,
                    Status::Active,
                    Status::Device,
                    Status::Completed
                ]
            );
            assert_eq!(
                destination.statuses(),
                [Status::Setup, Status::Active, Status::Completed]
            );
            assert!(source.count() <= destination.count());
            let ram = source.migrator.info().ram.unwrap();
            assert!(ram.normal >= 511 && ram.duplicate >= 3000, "{ram:?}");
            destination.goes_on(2000);
            source = destination;
        }
        assert_eq!((census.most(), census.running()), (1, 1));
    }
}

/// All frames of a stream, with the offsets behind them.
fn frames(bytes: &[u8]) -> Vec<(u64, String)> {
    let mut parser = Parser::default();
    let (mut rest, mut all) = (bytes, Vec::new());
    loop {
        let step = parser.next(rest).unwrap();
        let consumed = match step {
            Step::Frame {
                consumed, frame, ..
            } => {
                let name = match &*frame {
                    Frame::RamPages(pages) => match pages.coding {
                        Coding::Zero => "zero".to_owned(),
                        _ => "raw".to_owned(),
                    },
                    Frame::Device(device) => device.idstr.to_owned(),
                    frame => vmstate_ber::frame::FrameKind(frame.tag()).to_string(),
                };
                all.push((parser.offset(), name));
                consumed
            }
            Step::Consumed { consumed } => {
                all.push((parser.offset(), "envelope".to_owned()));
                consumed
            }
            Step::NeedMore { .. } => {
                parser.finish(rest).unwrap();
                return all;
            }
            Step::End => return all,
        };
        rest = &rest[consumed..];
    }
}

#[test]
fn a_file_says_what_it_contains_and_gives_qemus_stream() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream").display().to_string();
    for (save, load) in [
        (format!("file:{path}"), format!("file:{path}")),
        (format!("exec:cat > {path}"), format!("exec:cat {path}")),
    ] {
        let census = Arc::default();
        let (source, destination) = pair(&census);
        speak(&source, Peer::Vmstate);
        source.migrator.migrate(address(&save)).unwrap();
        assert_eq!(
            source.departed(),
            Status::Completed,
            "{:?}",
            source.migrator.info()
        );
        assert_eq!(census.running(), 0);
        let bytes = std::fs::read(&path).unwrap();
        let frames = frames(&bytes);
        assert_eq!(frames.last().map(|(at, _)| *at), Some(bytes.len() as u64));
        let names: Vec<_> = frames.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names[..3], ["envelope", "Hello", "Phase"]);
        let last = ["counter", "globalstate", "Phase", "End", "envelope"];
        assert_eq!(names[names.len() - 5..], last);
        for kind in ["Machine", "TypeDef", "RamBlocks", "raw", "zero", "RamMark"] {
            assert!(names.contains(&kind), "{kind}: {names:?}");
        }
        // QEMU's stream of it is whole, and describes its devices as QEMU would.
        let mut qemu = Vec::new();
        convert(
            &mut SliceInput::new(&bytes),
            &mut qemu,
            Format::Qemu,
            &Options::default(),
        )
        .unwrap();
        let options = inspect::Options {
            verify: true,
            ..inspect::Options::default()
        };
        let analysis = analyze(&mut SliceInput::new(&qemu), &mut [], &options);
        assert!(
            analysis.is_clean(),
            "{:?} {:?}",
            analysis.failure,
            analysis.report.problems
        );
        let sections: Vec<_> = analysis.report.sections.iter().map(|s| &*s.idstr).collect();
        assert_eq!(sections, ["ram", "counter", "globalstate"]);
        destination.migrator.incoming(&address(&load)).unwrap();
        assert_eq!(destination.arrived(), None);
        assert!(source.count() <= destination.count());
        destination.goes_on(1000);
        assert_eq!(census.most(), 1);
    }
}

/// What was converted from QEMU's format is loaded like what was written in this one.
#[test]
fn a_converted_stream_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let census = Arc::default();
    let (source, destination) = pair(&census);
    let path = dir.path().join("qemu");
    let place = address(&format!("file:{}", path.display()));
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Completed);
    let (qemu, mut ber) = (std::fs::read(&path).unwrap(), Vec::new());
    let options = Options::default();
    convert(&mut SliceInput::new(&qemu), &mut ber, Format::Ber, &options).unwrap();
    std::fs::write(&path, ber).unwrap();
    let place = address(&format!("file:{}", path.display()));
    destination.migrator.incoming(&place).unwrap();
    assert_eq!(destination.arrived(), None);
    assert!(source.count() <= destination.count());
    destination.goes_on(1000);
}

#[test]
fn who_wants_another_format_refuses_and_the_guest_goes_on() {
    for (there, here, text) in [
        (Peer::Qemu, Peer::Vmstate, "x-peer is 'qemu'"),
        (Peer::Vmstate, Peer::Qemu, "x-peer is 'vmstate'"),
        (Peer::Vmstate, Peer::Auto, "x-peer is 'vmstate'"),
    ] {
        let census = Arc::default();
        let (_dir, place) = socket();
        let (source, destination) = pair(&census);
        speak(&destination, there);
        speak(&source, here);
        destination.migrator.incoming(&place).unwrap();
        source.migrator.migrate(place).unwrap();
        assert_eq!(source.departed(), Status::Failed);
        let failure = destination.arrived().unwrap();
        assert!(failure.contains(text), "{failure}");
        source.goes_on(1000);
        assert_eq!((census.most(), census.running()), (1, 1));
    }
}

/// What went through a proxy.
#[derive(Default)]
struct Taped {
    there: Vec<u8>,
    back: Vec<u8>,
}

/// Hands one connection on, and cuts it after so many bytes in either direction.
fn proxy(at: &Path, to: &Path, there: usize, back: usize) -> Arc<Mutex<Taped>> {
    let listener = UnixListener::bind(at).unwrap();
    let to = to.to_owned();
    let tape = Arc::<Mutex<Taped>>::default();
    let taped = Arc::clone(&tape);
    std::thread::spawn(move || {
        let (source, _) = listener.accept().unwrap();
        let destination = UnixStream::connect(to).unwrap();
        let ends = (
            source.try_clone().unwrap(),
            destination.try_clone().unwrap(),
        );
        let tape = Arc::clone(&taped);
        let answers = std::thread::spawn(move || {
            pump(ends.1, ends.0, back, |bytes| {
                tape.lock().unwrap().back.extend_from_slice(bytes);
            });
        });
        pump(source, destination, there, |bytes| {
            taped.lock().unwrap().there.extend_from_slice(bytes);
        });
        answers.join().unwrap();
    });
    tape
}

fn pump(mut from: UnixStream, mut to: UnixStream, mut left: usize, keep: impl Fn(&[u8])) {
    let mut piece = vec![0; 1 << 16];
    while left > 0 {
        let most = piece.len().min(left);
        let Ok(count @ 1..) = from.read(&mut piece[..most]) else {
            break;
        };
        left -= count;
        keep(&piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    for end in [&from, &to] {
        // Fails only for a connection that is gone.
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// Who has the guest in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Here,
    There,
    /// The source cannot know; it runs there.
    DoubtThere,
    /// The source cannot know; it runs nowhere.
    DoubtNowhere,
}

fn over(toy: &Toy) -> Status {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let info = toy.migrator.info();
        match info.status {
            Some(status @ (Status::Completed | Status::Failed | Status::Cancelled)) => {
                return status;
            }
            _ => assert!(Instant::now() < deadline, "{info:?}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn cut(there: usize, back: usize) -> (End, Arc<Mutex<Taped>>) {
    let census: Arc<Census> = Arc::default();
    let source = Toy::new(false, &census);
    let destination = Toy::new(true, &census);
    source.board.fill(300);
    speak(&source, Peer::Vmstate);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let place = |name: &str| MigrationAddress::unix(path(name).to_str().unwrap());
    destination.migrator.incoming(&place("there")).unwrap();
    let tape = proxy(&path("at"), &path("there"), there, back);
    source.boot();
    source.migrator.migrate(place("at")).unwrap();
    let statuses = (over(&source), over(&destination));
    let what = format!(
        "{there} {back} {:?} {:?}",
        source.migrator.info(),
        destination.migrator.info()
    );
    let unknown = source.migrator.info().unknown;
    let end = match statuses {
        (Status::Completed, Status::Completed) => End::There,
        (Status::Failed, Status::Completed) if unknown => End::DoubtThere,
        (Status::Failed, Status::Failed) if unknown => End::DoubtNowhere,
        (Status::Failed, Status::Failed) => End::Here,
        other => panic!("{other:?}: {what}"),
    };
    match end {
        End::Here => source.goes_on(100),
        End::There => {
            destination.goes_on(100);
            destination.board.check(300);
        }
        End::DoubtThere => {
            destination.goes_on(100);
            source.migrator.give_up().expect(&what);
        }
        End::DoubtNowhere => {
            source.migrator.resume_here().expect(&what);
            source.goes_on(100);
        }
    }
    assert_eq!((census.most(), census.running()), (1, 1), "{what}");
    (end, tape)
}

/// Whether bytes are a whole stream.
fn is_whole(bytes: &[u8]) -> bool {
    let (mut parser, mut rest) = (Parser::default(), bytes);
    while let Step::Consumed { consumed } | Step::Frame { consumed, .. } =
        parser.next(rest).unwrap()
    {
        rest = &rest[consumed..];
    }
    parser.finish(rest).is_ok()
}

/// No run of a guest is like another, so what went through says what must come of it.
#[test]
fn a_cut_at_every_frame_leaves_one_guest() {
    let (end, tape) = cut(usize::MAX, usize::MAX);
    assert_eq!(end, End::There);
    let there = frames(&tape.lock().unwrap().there);
    assert!(there.len() > 20, "{there:?}");
    let mut ends = Vec::new();
    for (at, name) in &there {
        let at = usize::try_from(*at).unwrap();
        for cut_at in [at - 1, at] {
            let (end, tape) = cut(cut_at, usize::MAX);
            let mut taped = std::mem::take(&mut tape.lock().unwrap().there);
            let arrived = matches!(end, End::There | End::DoubtThere);
            assert_eq!(arrived, is_whole(&taped), "{name} {cut_at}: {end:?}");
            if end == End::DoubtNowhere {
                // All but the byte that decides.
                taped.push(0);
                assert!(is_whole(&taped), "{name} {cut_at}");
            }
            ends.push(end);
        }
    }
    assert!(ends.contains(&End::Here), "{ends:?}");
}

#[test]
fn a_cut_of_the_answers_leaves_one_guest() {
    let (_, tape) = cut(usize::MAX, usize::MAX);
    let whole = tape.lock().unwrap().back.len();
    let ends: Vec<_> = (0..=whole)
        .step_by(5)
        .map(|at| cut(usize::MAX, at).0)
        .collect();
    assert_eq!(ends[0], End::Here, "{ends:?}");
    assert!(
        ends.contains(&End::DoubtThere) || ends.contains(&End::There),
        "{ends:?}"
    );
}

/// Behind the confirmation there is one byte. It decides.
#[test]
fn the_last_byte_decides() {
    for sent in [false, true] {
        let census: Arc<Census> = Arc::default();
        let (_dir, place) = socket();
        let (source, destination) = pair(&census);
        speak(&source, Peer::Vmstate);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("at");
        let listener = UnixListener::bind(&path).unwrap();
        destination.migrator.incoming(&place).unwrap();
        let there = place.to_uri().unwrap();
        let there = there.strip_prefix("unix:").unwrap().to_owned();
        let proxy = std::thread::spawn(move || {
            let (mut from, _) = listener.accept().unwrap();
            let mut to = UnixStream::connect(there).unwrap();
            let (mut answers, mut back) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            let answering = std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = answers.read(&mut piece) {
                    if back.write_all(&piece[..count]).is_err() {
                        break;
                    }
                }
            });
            let (mut seen, mut piece) = (Vec::new(), vec![0; 1 << 16]);
            let mut held = None;
            while let Ok(count @ 1..) = from.read(&mut piece) {
                seen.extend_from_slice(&piece[..count]);
                let mut end = count;
                // The byte comes alone, when all else has been confirmed.
                if count == 1 && piece[0] == 0 && seen.ends_with(&[0, 0]) && !sent {
                    held = Some(0);
                    end = 0;
                }
                if to.write_all(&piece[..end]).is_err() || held.is_some() {
                    break;
                }
            }
            for end in [&from, &to] {
                let _ = end.shutdown(Shutdown::Both);
            }
            answering.join().unwrap();
            held.is_some()
        });
        let at = MigrationAddress::unix(path.to_str().unwrap());
        source.migrator.migrate(at).unwrap();
        source.departed();
        let arrived = destination.arrived();
        assert_eq!(proxy.join().unwrap(), !sent);
        let info = source.migrator.info();
        if sent {
            assert_eq!((arrived, info.status), (None, Some(Status::Completed)));
            destination.goes_on(100);
        } else {
            // It has been given to the transport, so the source cannot know.
            assert!(info.unknown, "{info:?}");
            assert!(arrived.is_some(), "a stream without its last byte is none");
            assert_eq!(census.running(), 0);
            source.migrator.resume_here().unwrap();
            source.goes_on(100);
        }
        assert_eq!(census.most(), 1);
    }
}

#[test]
fn a_cancel_leaves_the_guest_here() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let (source, destination) = pair(&census);
    change(&source, |settings| {
        settings.parameters.x_peer = Peer::Vmstate;
        settings.parameters.max_bandwidth = 100_000;
    });
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    source.wait(|event| *event == MigrationEvent::Source(Status::Active));
    source.migrator.cancel().unwrap();
    assert_eq!(source.departed(), Status::Cancelled);
    assert!(destination.arrived().is_some());
    source.goes_on(1000);
    assert_eq!((census.most(), census.running()), (1, 1));
}

#[test]
fn a_refusal_says_why_and_the_guest_goes_on() {
    let census = Arc::default();
    let (_dir, place) = socket();
    let source = Toy::new(false, &census);
    source.boot();
    speak(&source, Peer::Vmstate);
    let destination = Toy::with(
        true,
        &census,
        vmstate_io::live::Deadlines::default(),
        8 << 20,
    );
    destination.migrator.incoming(&place).unwrap();
    source.migrator.migrate(place).unwrap();
    assert_eq!(source.departed(), Status::Failed);
    let failure = destination.arrived().unwrap();
    assert!(failure.contains("toy.ram"), "{failure}");
    source.goes_on(1000);
    assert_eq!(census.most(), 1);
}
