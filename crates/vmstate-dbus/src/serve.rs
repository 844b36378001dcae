//! Serving a helper: on a bus, or peer to peer.

use std::future::Future;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Serialize, Serializer};
use vmstate_wire::helpers::{MAX_ID, MAX_STATE};
use zbus::connection::Builder;
use zbus::fdo::{self, RequestNameFlags, RequestNameReply};
use zbus::{Connection, Guid, Signature, Type};

use crate::alarm::{Alarm, Bell};
use crate::error::Fault;
use crate::helper::{Helper, HelperError};
use crate::place::{Kind, Place};
use crate::{BUS_NAME, OBJECT_PATH};

/// How long a bus, or a caller that has connected, may take until it talks D-Bus.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Callers at a time, peer to peer. More have to wait.
const MOST_CALLERS: usize = 8;
/// How long until a listener looks whether a place has become free.
const PAUSE: Duration = Duration::from_millis(20);

/// A helper cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Its id is empty or longer than 255 bytes.
    #[error("an id of {0} bytes, must be 1 to 255")]
    Id(usize),
    /// The bus cannot be reached, or does not give the name. A policy may forbid it.
    #[error("cannot serve at {place}: {fault}")]
    Bus {
        /// The bus.
        place: String,
        /// Why.
        fault: Fault,
    },
    /// Peers listen at sockets, not at addresses.
    #[error("a helper without a bus is served at a socket")]
    NoBus,
    /// The operating system has no thread or descriptor left.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A state that is sent in one piece; serde would send a vector byte by byte.
#[derive(Debug)]
struct State(Vec<u8>);

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl Type for State {
    const SIGNATURE: &'static Signature = <[u8]>::SIGNATURE;
}

/// The object that a helper exports.
struct Exported(Arc<dyn Helper>);

impl Exported {
    /// Calls the helper, whose panics are its own affair.
    fn call<T>(
        &self,
        what: &str,
        call: impl FnOnce(&dyn Helper) -> Result<T, HelperError>,
    ) -> fdo::Result<T> {
        let failed = |text: String| fdo::Error::Failed(text);
        match catch_unwind(AssertUnwindSafe(|| call(&*self.0))) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("the helper has panicked in {what}"))),
        }
    }
}

#[zbus::interface(name = "org.qemu.VMState1", spawn = false)]
impl Exported {
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> fdo::Result<String> {
        self.call("id", |helper| Ok(helper.id()))
    }

    #[zbus(out_args("data"))]
    fn save(&self) -> fdo::Result<State> {
        let state = self.call("save", Helper::save)?;
        match state.len() {
            // QEMU would complete the migration, and fail at the destination.
            0 => Err(fdo::Error::Failed(
                "the helper has an empty state, which QEMU cannot save".to_owned(),
            )),
            1..=MAX_STATE => Ok(State(state)),
            size => Err(fdo::Error::Failed(format!(
                "the helper has a state of {size} bytes, more than {MAX_STATE}"
            ))),
        }
    }

    fn load(&self, data: &[u8]) -> fdo::Result<()> {
        self.call("load", |helper| helper.load(data))
    }
}

/// Exports a helper on a connection that the program has already, and asks for the name if the connection is one to a bus. The
/// connection serves it for as long as its runtime runs.
///
/// Where the program has no connection of its own, [`Served`] is simpler.
///
/// # Errors
/// [`ServeError`].
pub async fn export(connection: &Connection, helper: impl Helper) -> Result<(), ServeError> {
    let failed = |error: zbus::Error| ServeError::Bus {
        place: "this connection".to_owned(),
        fault: error.into(),
    };
    let exported = Exported(checked(helper)?);
    let server = connection.object_server();
    server.at(OBJECT_PATH, exported).await.map_err(failed)?;
    if connection.is_bus() {
        queue(connection).await.map_err(failed)?;
    }
    Ok(())
}

fn checked(helper: impl Helper) -> Result<Arc<dyn Helper>, ServeError> {
    match helper.id().len() {
        1..=MAX_ID => Ok(Arc::new(helper)),
        length => Err(ServeError::Id(length)),
    }
}

/// Queues for the name that all helpers share. Whoever is behind the first one is found all the same.
async fn queue(connection: &Connection) -> zbus::Result<()> {
    // The defaults would push out the helper that has the name.
    let reply = connection
        .request_name_with_flags(BUS_NAME, RequestNameFlags::empty())
        .await?;
    match reply {
        RequestNameReply::Exists => Err(zbus::Error::NameTaken),
        _ => Ok(()),
    }
}

/// A helper that is being served, by threads of its own, until this is dropped.
///
/// ```no_run
/// use vmstate_dbus::{Helper, HelperError, Place, Served};
///
/// struct Nat;
///
/// impl Helper for Nat {
///     fn id(&self) -> String {
///         "net0".to_owned()
///     }
///     fn save(&self) -> Result<Vec<u8>, HelperError> {
///         Ok(b"a table".to_vec())
///     }
///     fn load(&self, state: &[u8]) -> Result<(), HelperError> {
///         println!("{} bytes have come", state.len());
///         Ok(())
///     }
/// }
///
/// let served = Served::on_bus(&Place::bus("unix:path=/run/vm7/bus")?, Nat)?;
/// served.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Served {
    thread: Option<JoinHandle<()>>,
    end: End,
}

/// How the thread is told to end.
#[derive(Debug)]
enum End {
    Bell(Arc<Bell>),
    /// The listener's thread sees that the other end is closed.
    Pipe(Option<io::PipeWriter>),
}

impl Served {
    /// Serves a helper on a bus, and returns when it can be found there.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn on_bus(place: &Place, helper: impl Helper) -> Result<Self, ServeError> {
        let Kind::Bus(addresses) = &place.0 else {
            return Err(ServeError::NoBus);
        };
        let (helper, addresses) = (checked(helper)?, addresses.clone());
        let (served, built) = start(move || on_first_bus(addresses, helper))?;
        wait_for(&built, &place.to_string())?;
        Ok(served)
    }

    /// Serves a helper on the bus of this session.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn on_session_bus(helper: impl Helper) -> Result<Self, ServeError> {
        let place = Place::session().map_err(|error| ServeError::Bus {
            place: "the session bus".to_owned(),
            fault: Fault::Protocol(error.to_string()),
        })?;
        Self::on_bus(&place, helper)
    }

    /// Serves a helper to one caller, at the other end of `stream`.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn on_stream(stream: UnixStream, helper: impl Helper) -> Result<Self, ServeError> {
        let (served, built) = caller(stream, checked(helper)?)?;
        wait_for(&built, "the socket")?;
        Ok(served)
    }

    /// Serves a helper to whoever connects to `listener`, one object for all. Who may connect is a matter of the socket's
    /// directory and mode.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn on_listener(listener: UnixListener, helper: impl Helper) -> Result<Self, ServeError> {
        let helper = checked(helper)?;
        listener.set_nonblocking(true)?;
        let (reader, writer) = io::pipe()?;
        let thread = thread::Builder::new()
            .name("vmstate listener".to_owned())
            .spawn(move || listen(&listener, &reader, &helper))?;
        Ok(Self {
            thread: Some(thread),
            end: End::Pipe(Some(writer)),
        })
    }

    /// Whether the connection has ended: the bus has gone, or the caller. A listener never ends by itself.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the connection ends.
    pub fn wait(mut self) {
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It has nothing to return.
            let _ = thread.join();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        match &mut self.end {
            End::Bell(bell) => bell.ring(),
            End::Pipe(writer) => drop(writer.take()),
        }
        self.join();
    }
}

type Built = Receiver<zbus::Result<()>>;

/// Builds a connection on a thread of its own, which serves it until it ends or the bell rings.
fn start<F>(build: impl FnOnce() -> F + Send + 'static) -> Result<(Served, Built), io::Error>
where
    F: Future<Output = zbus::Result<Connection>>,
{
    let bell = Arc::new(Bell::default());
    let heard = Arc::clone(&bell);
    let (tell, told) = channel();
    let alarm = Alarm::after(HANDSHAKE)?;
    let thread = thread::Builder::new()
        .name("vmstate helper".to_owned())
        .spawn(move || {
            zbus::block_on(async move {
                let late = || Err(io::Error::from(io::ErrorKind::TimedOut).into());
                let built = heard.or(alarm.bound(build())).await;
                let built = built.flatten().unwrap_or_else(late);
                drop(alarm);
                let connection = built.as_ref().ok().cloned();
                // Nobody may want to know.
                let _ = tell.send(built.map(drop));
                if let Some(connection) = connection {
                    heard.or(connection.closed()).await;
                    let _ = connection.close().await;
                }
            });
        })?;
    let served = Served {
        thread: Some(thread),
        end: End::Bell(bell),
    };
    Ok((served, told))
}

fn wait_for(built: &Built, place: &str) -> Result<(), ServeError> {
    let result = built
        .recv()
        .unwrap_or_else(|_| Err(zbus::Error::Failure("the thread has ended".to_owned())));
    result.map_err(|error| ServeError::Bus {
        place: place.to_owned(),
        fault: error.into(),
    })
}

async fn on_first_bus(
    addresses: Vec<zbus::Address>,
    helper: Arc<dyn Helper>,
) -> zbus::Result<Connection> {
    let mut last = zbus::Error::Unsupported;
    for address in addresses {
        // The object first: who has the name is called.
        let builder =
            Builder::address(address).serve_at(OBJECT_PATH, Exported(Arc::clone(&helper)));
        match builder.build().await {
            Ok(connection) => {
                queue(&connection).await?;
                return Ok(connection);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Serves one caller, peer to peer.
fn caller(stream: UnixStream, helper: Arc<dyn Helper>) -> Result<(Served, Built), io::Error> {
    start(move || {
        Builder::unix_stream(stream)
            .server(Guid::generate())
            .p2p()
            .serve_at(OBJECT_PATH, Exported(helper))
            .build()
    })
}

/// Takes callers until the other end of `pipe` is closed.
fn listen(listener: &UnixListener, pipe: &io::PipeReader, helper: &Arc<dyn Helper>) {
    let mut callers: Vec<Served> = Vec::new();
    loop {
        callers.retain(|caller| !caller.is_over());
        let full = callers.len() >= MOST_CALLERS;
        let ends = PollFd::new(pipe, PollFlags::IN);
        let comes = PollFd::new(listener, PollFlags::IN);
        let (mut alone, mut both) = ([ends.clone()], [ends, comes]);
        let fds: &mut [PollFd<'_>] = if full { &mut alone } else { &mut both };
        // With all places taken, looks again after a while.
        let patience = full.then(|| Timespec::try_from(PAUSE).ok()).flatten();
        match poll(fds, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if fds.first().is_none_or(|end| !end.revents().is_empty()) {
            return;
        }
        if full {
            continue;
        }
        // One that has gone already, or for which there is no thread, is no concern of the others.
        if let Ok((stream, _)) = listener.accept()
            && let Ok((served, _)) = caller(stream, Arc::clone(helper))
        {
            callers.push(served);
        }
    }
}
