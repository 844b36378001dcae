//! A connection that somebody can cut.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// What happens to one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Everything gets through.
    Free,
    /// Nothing gets through, not even the end, and nobody is told.
    Held,
    /// The same, from the piece on that has these bytes.
    HeldAt([u8; 4]),
    /// After this many bytes the connection is cut, both ways.
    Cut(usize),
}

/// Cuts a proxy's connection.
pub(crate) struct Cutter(Arc<Mutex<Vec<UnixStream>>>);

impl Cutter {
    pub(crate) fn cut(&self) {
        for stream in self.0.lock().unwrap().iter() {
            // Fails only for a connection that is gone.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

type Bytes = Arc<Mutex<Vec<u8>>>;

/// What went through a connection.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tape {
    there: Bytes,
    back: Bytes,
}

impl Tape {
    /// What the source has sent.
    pub(crate) fn there(&self) -> Vec<u8> {
        self.there.lock().unwrap().clone()
    }

    /// What the destination has sent.
    pub(crate) fn back(&self) -> Vec<u8> {
        self.back.lock().unwrap().clone()
    }
}

/// Takes one connection at `at` and hands everything on to `to`.
pub(crate) fn proxy(at: PathBuf, to: &Path, there: Flow, back: Flow) -> Cutter {
    let cutter = Cutter(Arc::default());
    let ends = Arc::clone(&cutter.0);
    let listener = UnixListener::bind(at).unwrap();
    let to = to.to_owned();
    thread::spawn(move || {
        let Ok((source, _)) = listener.accept() else {
            return;
        };
        pass(source, &to, (there, back), &ends, None);
    });
    cutter
}

/// Takes so many connections at `at`, one after the other, hands everything on to `to`, and keeps it, by connection.
pub(crate) fn recorder(at: &Path, to: &Path, connections: usize) -> (Vec<Tape>, Cutter) {
    let cutter = Cutter(Arc::default());
    let tapes: Vec<_> = (0..connections).map(|_| Tape::default()).collect();
    let listener = UnixListener::bind(at).unwrap();
    let (to, ends, kept) = (to.to_owned(), Arc::clone(&cutter.0), tapes.clone());
    thread::spawn(move || {
        for tape in kept {
            let Ok((source, _)) = listener.accept() else {
                return;
            };
            let (to, ends) = (to.clone(), Arc::clone(&ends));
            thread::spawn(move || {
                pass(source, &to, (Flow::Free, Flow::Free), &ends, Some(&tape));
            });
        }
    });
    (tapes, cutter)
}

/// Hands on what goes through a connection, in both directions, until it is over.
fn pass(
    source: UnixStream,
    to: &Path,
    (there, back): (Flow, Flow),
    ends: &Mutex<Vec<UnixStream>>,
    tape: Option<&Tape>,
) {
    let Ok(destination) = UnixStream::connect(to) else {
        return;
    };
    let clones = || [&source, &destination].map(|stream| stream.try_clone().unwrap());
    ends.lock().unwrap().extend(clones());
    let [to_source, from_destination] = clones();
    let kept = tape.map(|tape| (Arc::clone(&tape.there), Arc::clone(&tape.back)));
    let (kept_there, kept_back) = kept.unzip();
    let answers = thread::spawn(move || pump(from_destination, to_source, back, kept_back));
    pump(source, destination, there, kept_there);
    // A panic of its own has been printed.
    let _ = answers.join();
}

/// Until one side ends. The end of a stream is passed on, and its answers can still come.
fn pump(mut from: UnixStream, mut to: UnixStream, flow: Flow, tape: Option<Bytes>) {
    let mut left = match flow {
        Flow::Cut(bytes) => bytes,
        Flow::Free | Flow::Held | Flow::HeldAt(_) => usize::MAX,
    };
    let mut held = flow == Flow::Held;
    let mut buffer = [0; 1 << 14];
    while left > 0 {
        let most = buffer.len().min(left);
        let Ok(count @ 1..) = from.read(&mut buffer[..most]) else {
            if held {
                return;
            }
            // Fails only for a connection that is gone.
            let _ = to.shutdown(Shutdown::Write);
            return;
        };
        if let Flow::HeldAt(bytes) = flow {
            let mut pieces = buffer[..count].windows(bytes.len());
            held |= pieces.any(|piece| piece == bytes);
        }
        if held {
            continue;
        }
        left -= count;
        if let Some(tape) = &tape {
            tape.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
