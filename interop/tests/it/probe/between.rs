//! Somebody between two machines, who adds the probe to a stream and takes the answers out of the return path.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use vmstate_engine::probe::{ALLOWED, FENCE, PROBE};
use vmstate_interop::Result;
use vmstate_wire::stream::{
    Command, Event, ParserOptions, ReturnEvent, ReturnMessage, ReturnPathParser, ReturnStep, Step,
    StreamParser, write,
};

use super::tls::{Credentials, Tunnel};

/// The most connections that are handed on.
const CONNECTIONS: usize = 8;
/// What the main channel begins with.
const MAGIC: &[u8] = b"QEVM";

/// What the destination has said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    /// PONGs with values of the probe.
    pub(crate) pongs: Vec<u32>,
    /// Types of other messages that came before the fence, but for PONGs.
    pub(crate) early: Vec<u16>,
    pub(crate) connections: usize,
    /// What went wrong here.
    pub(crate) failures: Vec<String>,
}

/// Hands connections on.
pub(crate) struct Between {
    heard: Arc<Mutex<Heard>>,
    /// They end with it.
    _tunnels: Vec<Tunnel>,
}

type Shared = Arc<Mutex<Heard>>;

fn note(heard: &Shared, change: impl FnOnce(&mut Heard)) {
    change(&mut heard.lock().unwrap_or_else(PoisonError::into_inner));
}

impl Between {
    /// From `here` to `there`. `opens`: the source opens the return path itself.
    pub(crate) fn plain(here: &Path, there: &Path, opens: bool) -> Result<Self> {
        let listener = UnixListener::bind(here)?;
        let heard = Shared::default();
        let (shared, there): (Shared, PathBuf) = (Arc::clone(&heard), there.to_owned());
        thread::spawn(move || {
            for source in listener.incoming().take(CONNECTIONS).flatten() {
                note(&shared, |heard| heard.connections += 1);
                let failed = {
                    let shared = Arc::clone(&shared);
                    move |error: String| note(&shared, |heard| heard.failures.push(error))
                };
                // In the source's order: to old releases the first connection is the main channel.
                match UnixStream::connect(&there) {
                    Ok(destination) => {
                        let shared = Arc::clone(&shared);
                        thread::spawn(move || {
                            if let Err(error) = hand_on(source, destination, opens, &shared) {
                                failed(error.to_string());
                            }
                        });
                    }
                    Err(error) => failed(error.to_string()),
                }
            }
        });
        Ok(Self {
            heard,
            _tunnels: Vec::new(),
        })
    }

    /// The same over TLS. That of the main channel ends here and begins again; other channels go through as they are.
    pub(crate) fn over_tls(
        here: &Path,
        there: &Path,
        credentials: &Credentials,
        opens: bool,
    ) -> Result<Self> {
        let heard = Shared::default();
        let ends = here.with_extension("server");
        let (mut server, from, to) = credentials.serve(&ends)?;
        // The destination takes what comes first for the main channel: it is connected before any other can be.
        let begins = here.with_extension("client");
        let listener = UnixListener::bind(&begins)?;
        let (mut client, back, forth) = credentials.connect(&begins)?;
        relay(accept(&listener, &mut client)?, UnixStream::connect(there)?)?;
        server.check()?;
        let shared = Arc::clone(&heard);
        thread::spawn(move || forward(from, forth, opens, &shared));
        let shared = Arc::clone(&heard);
        thread::spawn(move || backward(back, to, opens, &shared));
        let listener = UnixListener::bind(here)?;
        let (shared, there) = (Arc::clone(&heard), there.to_owned());
        thread::spawn(move || {
            let mut place = &ends;
            for source in listener.incoming().take(CONNECTIONS).flatten() {
                note(&shared, |heard| heard.connections += 1);
                let to = UnixStream::connect(place);
                place = &there;
                let relayed = to.map_err(Into::into).and_then(|to| relay(source, to));
                if let Err(error) = relayed {
                    note(&shared, |heard| heard.failures.push(error.to_string()));
                }
            }
        });
        Ok(Self {
            heard,
            _tunnels: vec![server, client],
        })
    }

    /// What has been heard.
    pub(crate) fn heard(&self) -> Heard {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn hand_on(
    mut source: UnixStream,
    mut destination: UnixStream,
    opens: bool,
    heard: &Shared,
) -> Result<()> {
    let mut first = [0; 4];
    if source.read_exact(&mut first).is_err() {
        // A channel that nobody has used.
        return Ok(());
    }
    let is_main = first == MAGIC;
    let (back, to_source) = (destination.try_clone()?, source.try_clone()?);
    let shared = Arc::clone(heard);
    if is_main {
        thread::spawn(move || {
            let mut end = to_source.try_clone();
            backward(back, to_source, opens, &shared);
            if let Ok(end) = &mut end {
                let _ = end.shutdown(Shutdown::Write);
            }
        });
        let source = MAGIC.chain(source);
        forward(source, destination.try_clone()?, opens, heard);
        destination.shutdown(Shutdown::Write)?;
        return Ok(());
    }
    thread::spawn(move || copy(back, to_source));
    destination.write_all(&first)?;
    copy(source, destination.try_clone()?);
    destination.shutdown(Shutdown::Write)?;
    Ok(())
}

/// The connection of `openssl`, unless it ends before.
fn accept(listener: &UnixListener, client: &mut Tunnel) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        client.check()?;
        thread::sleep(Duration::from_millis(5));
    }
}

/// Hands both directions on, until both have ended.
fn relay(one: UnixStream, other: UnixStream) -> Result<()> {
    for (from, to) in [(one.try_clone()?, other.try_clone()?), (other, one)] {
        thread::spawn(move || {
            copy(&from, &to);
            // Fails only for a connection that is gone.
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

/// Until an end is gone.
fn copy(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}

/// The main channel: behind the configuration, or behind the source's own question for the return path, comes the probe.
fn forward(mut from: impl Read, mut to: impl Write, opens: bool, heard: &Shared) {
    let result = insert(&mut from, &mut to, opens);
    if let Err(error) = result {
        note(heard, |heard| {
            heard.failures.push(format!("forward: {error}"));
        });
    }
}

fn insert(from: &mut impl Read, to: &mut impl Write, opens: bool) -> Result<()> {
    let mut parser = StreamParser::new(ParserOptions::default());
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        match parser.next(&bytes[at..])? {
            Step::Event { consumed, event } => {
                at += consumed;
                match event {
                    Event::Configuration(_) if !opens => break,
                    Event::Command(Command::OpenReturnPath) if opens => break,
                    Event::Section(_) => return Err("the source begins otherwise".into()),
                    _ => {}
                }
            }
            Step::NeedMore { .. } => {
                let mut more = [0; 4096];
                let count = from.read(&mut more)?;
                if count == 0 {
                    return Err("the stream ends before it has begun".into());
                }
                bytes.extend_from_slice(&more[..count]);
            }
            step => return Err(format!("{step:?}").into()),
        }
    }
    let (before, behind) = bytes.split_at(at);
    let mut out = before.to_vec();
    if !opens {
        write::put_command(&mut out, &Command::OpenReturnPath)?;
    }
    write::put_command(&mut out, &Command::Ping(PROBE))?;
    write::put_command(&mut out, &Command::Ping(FENCE))?;
    out.extend_from_slice(behind);
    to.write_all(&out)?;
    to.flush()?;
    copy(from, to);
    Ok(())
}

/// The return path. A source that has not opened it hears nothing.
fn backward(mut from: impl Read, mut to: impl Write, opens: bool, heard: &Shared) {
    let mut parser = ReturnPathParser::new();
    let mut bytes = Vec::new();
    let mut fenced = false;
    loop {
        match parser.next(&bytes) {
            Ok(ReturnStep::Event { consumed, event }) => {
                let ours = match &event {
                    ReturnEvent::Message(ReturnMessage::Pong(value)) => {
                        let ours = [PROBE, ALLOWED, FENCE].contains(value);
                        fenced |= *value == FENCE;
                        if ours {
                            note(heard, |heard| heard.pongs.push(*value));
                        }
                        ours
                    }
                    ReturnEvent::Message(message) if !fenced => {
                        note(heard, |heard| heard.early.push(message.id().0));
                        false
                    }
                    _ => false,
                };
                let message: Vec<u8> = bytes.drain(..consumed).collect();
                if opens && !ours && to.write_all(&message).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Ok(ReturnStep::NeedMore { .. }) => {
                let mut more = [0; 4096];
                match from.read(&mut more) {
                    Ok(count @ 1..) => bytes.extend_from_slice(&more[..count]),
                    _ => return,
                }
            }
            Ok(ReturnStep::End) => break,
            Err(error) => {
                note(heard, |heard| heard.failures.push(format!("back: {error}")));
                return;
            }
        }
    }
    copy(from, to);
}
