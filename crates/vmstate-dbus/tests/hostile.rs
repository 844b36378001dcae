//! Peers that are no helpers at all: what they send takes bounded memory, and ends in an error that names them.
//!
//! In a process of its own, whose memory is counted.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use peak_alloc::PeakAlloc;
use vmstate_dbus::{DbusVmstate, MAX_MESSAGE, Place};
use vmstate_engine::{Bql, DescribedDevice as _};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Long enough for everybody who sends at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// For those who never come to an end.
const SHORT: Duration = Duration::from_millis(600);
/// What one connection may take: a message, and the same again for what is made of it.
const MOST: usize = 2 * MAX_MESSAGE;

/// The allocator counts what the whole process takes, so that tests must not overlap.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

type Act = fn(&mut UnixStream) -> std::io::Result<()>;

/// Does this to one caller.
fn at(path: &Path, act: Act) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The caller goes away when it has had enough.
        let _ = act(&mut stream);
        while let Ok(1..) = stream.read(&mut [0; 1024]) {}
    })
}

/// Reads the caller's greeting and answers it.
fn greet(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut said = Vec::new();
    while !said.ends_with(b"BEGIN\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        said.push(byte[0]);
    }
    stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")
}

/// Reads a call and returns its serial.
fn call(stream: &mut UnixStream) -> std::io::Result<u32> {
    let mut start = [0; 16];
    stream.read_exact(&mut start)?;
    let word = |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().unwrap());
    let (body, serial, fields) = (word(4), word(8), word(12));
    let mut rest = vec![0; fields.next_multiple_of(8) as usize + body as usize];
    stream.read_exact(&mut rest)?;
    Ok(serial)
}

/// The beginning of an answer with bytes, little-endian, whose body has this length.
fn answer(serial: u32, body: u32, signature: &[u8]) -> Vec<u8> {
    let mut bytes = b"l\x02\x01\x01".to_vec();
    bytes.extend(body.to_le_bytes());
    bytes.extend(7_u32.to_le_bytes());
    let mut fields = b"\x05\x01u\0".to_vec();
    fields.extend(serial.to_le_bytes());
    fields.extend(b"\x08\x01g\0");
    fields.push(u8::try_from(signature.len()).unwrap());
    fields.extend(signature);
    fields.push(0);
    bytes.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
    bytes.extend(&fields);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Says that its id is `x`.
fn identify(stream: &mut UnixStream) -> std::io::Result<()> {
    greet(stream)?;
    let serial = call(stream)?;
    // One entry, at a multiple of 8: "Id", a variant of the type s.
    let mut body = vec![0; 8];
    body.extend(b"\x02\0\0\0Id\0\x01s\0\0\0\x01\0\0\0x\0");
    let length = u32::try_from(body.len() - 8).unwrap();
    body[..4].copy_from_slice(&length.to_le_bytes());
    let mut bytes = answer(serial, u32::try_from(body.len()).unwrap(), b"a{sv}");
    bytes.extend(body);
    stream.write_all(&bytes)
}

fn flood(stream: &mut UnixStream, mut count: u64) -> std::io::Result<()> {
    let zeros = [0; 4096];
    while count > 0 {
        let take = count.min(4096);
        stream.write_all(&zeros[..usize::try_from(take).unwrap()])?;
        count -= take;
    }
    Ok(())
}

/// What saving this peer fails with, and the most memory that it took.
fn saved(act: Act, deadline: Duration) -> (String, usize) {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let thread = at(&path, act);
    let place = Place::peers(&format!("unix:path={}", path.display())).unwrap();
    let object = DbusVmstate::with_deadline(place, deadline);
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = object.section().save(&Bql::holding(()), &mut |_| Ok(()));
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    thread.join().unwrap();
    let error = result.unwrap_err().to_string();
    let address = format!("unix:path={}", path.display());
    assert!(error.contains(&address), "{error}");
    println!("{error}: {} KiB", taken >> 10);
    (error.replace(&address, "PEER"), taken)
}

#[test]
fn greetings_of_other_worlds() {
    let cases: [(&str, Act, Duration, &str); 5] = [
        (
            "an empty line",
            |stream| stream.write_all(b"\n"),
            PATIENCE,
            "helper PEER: connecting: D-Bus: the greeting begins with an empty line",
        ),
        (
            "a line without end",
            |stream| flood(stream, 64 << 20),
            PATIENCE,
            "helper PEER: connecting: D-Bus: the greeting does not end",
        ),
        (
            "another protocol",
            |stream| stream.write_all(b"220 mail.example.org ready\r\n"),
            PATIENCE,
            "helper PEER: connecting: D-Bus: ",
        ),
        (
            "not a word",
            |_| Ok(()),
            SHORT,
            "helper PEER: connecting: no answer within 600 ms",
        ),
        (
            "an end",
            |stream| stream.shutdown(std::net::Shutdown::Both),
            PATIENCE,
            "helper PEER: connecting: ",
        ),
    ];
    for (name, act, deadline, why) in cases {
        let (error, taken) = saved(act, deadline);
        assert!(error.contains(why), "{name}: {error}");
        assert!(taken < 1 << 20, "{name}: {taken} bytes");
    }
}

#[test]
fn messages_that_claim_much() {
    let cases: [(&str, Act, Duration, &str); 7] = [
        (
            "a state that is announced and does not come",
            |stream| {
                identify(stream)?;
                let serial = call(stream)?;
                stream.write_all(&answer(serial, 120 << 20, b"ay"))
            },
            SHORT,
            "helper 'x' (PEER): Save: no answer within 600 ms",
        ),
        (
            "a state that is announced and comes",
            |stream| {
                identify(stream)?;
                let serial = call(stream)?;
                stream.write_all(&answer(serial, 120 << 20, b"ay"))?;
                flood(stream, 120 << 20)
            },
            PATIENCE,
            "helper 'x' (PEER): Save: an answer of 125829152 bytes, more than 2097152",
        ),
        (
            "properties",
            |stream| {
                greet(stream)?;
                let serial = call(stream)?;
                stream.write_all(&answer(serial, 4 << 20, b"a{sv}"))?;
                flood(stream, 4 << 20)
            },
            PATIENCE,
            "helper PEER: reading its Id: an answer of 4194344 bytes, more than 2097152",
        ),
        (
            "a header",
            |stream| {
                identify(stream)?;
                let mut bytes = answer(1, 0, b"ay");
                bytes[12..16].copy_from_slice(&(60_u32 << 20).to_le_bytes());
                stream.write_all(&bytes)?;
                flood(stream, 60 << 20)
            },
            PATIENCE,
            "helper 'x' (PEER): Save: D-Bus: a message's header is too large",
        ),
        (
            "no message",
            |stream| {
                identify(stream)?;
                flood(stream, 16 << 20)
            },
            PATIENCE,
            "helper 'x' (PEER): Save: D-Bus: this is no message of D-Bus",
        ),
        (
            "answers to what was not asked",
            |stream| {
                identify(stream)?;
                for _ in 0..100 {
                    stream.write_all(&answer(99, 1 << 20, b"ay"))?;
                    flood(stream, 1 << 20)?;
                }
                Ok(())
            },
            SHORT,
            "helper 'x' (PEER): Save: ",
        ),
        (
            "an array that is longer than its message",
            |stream| {
                identify(stream)?;
                let serial = call(stream)?;
                let mut bytes = answer(serial, 4, b"ay");
                bytes.extend(u32::MAX.to_le_bytes());
                stream.write_all(&bytes)
            },
            PATIENCE,
            "helper 'x' (PEER): Save: D-Bus: ",
        ),
    ];
    for (name, act, deadline, why) in cases {
        let (error, taken) = saved(act, deadline);
        assert!(error.contains(why), "{name}: {error}");
        assert!(taken < MOST, "{name}: {taken} bytes");
    }
}
