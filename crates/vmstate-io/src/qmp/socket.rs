//! Where a monitor is, and the sockets to it.

use std::fmt;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, recvmsg,
};
use thiserror::Error;

use crate::clock::after;
use crate::descriptors::Descriptors;
use crate::local::LocalListener;

/// Descriptors that one read takes. The kernel closes more.
const DESCRIPTORS: usize = 8;
/// How often a server that is too busy to accept is tried.
const PAUSE: Duration = Duration::from_millis(20);

/// Where a QMP monitor listens.
///
/// Read from `unix:PATH`, `tcp:HOST:PORT` or a bare path. What QEMU's option `-qmp` has behind it (`,server=on,wait=off`)
/// may stand there and says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QmpAddress {
    /// A Unix domain socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String, u16),
}

/// A text that says nowhere to look for a monitor.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no monitor: expected a path, unix:PATH or tcp:HOST:PORT")]
pub struct QmpAddressError(String);

impl FromStr for QmpAddress {
    type Err = QmpAddressError;

    fn from_str(text: &str) -> Result<Self, QmpAddressError> {
        let wrong = || QmpAddressError(text.to_owned());
        let options = [",server", ",wait", ",nowait"];
        let end = options.iter().filter_map(|o| text.find(o)).min();
        let place = text.get(..end.unwrap_or(text.len())).unwrap_or(text);
        if let Some(place) = place.strip_prefix("tcp:") {
            let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = port.parse().map_err(|_| wrong())?;
            return Ok(Self::Tcp(host.to_owned(), port));
        }
        let path = place.strip_prefix("unix:").unwrap_or(place);
        if path.is_empty() {
            return Err(wrong());
        }
        Ok(Self::Unix(path.into()))
    }
}

impl fmt::Display for QmpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects within this time.
    pub(super) fn connect(address: &QmpAddress, within: Duration) -> io::Result<Self> {
        match address {
            QmpAddress::Unix(path) => connect_unix(path, within).map(Self::Unix),
            QmpAddress::Tcp(host, port) => {
                let end = after(within);
                let mut failure = io::Error::from(io::ErrorKind::NotFound);
                for place in (host.as_str(), *port).to_socket_addrs()? {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    match TcpStream::connect_timeout(&place, left) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(e) => failure = e,
                    }
                }
                Err(failure)
            }
        }
    }

    /// Zero is not allowed: it would mean no bound.
    pub(super) fn set_timeouts(&self, read: Option<Duration>, write: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(read)?;
                stream.set_write_timeout(Some(write))
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(read)?;
                stream.set_write_timeout(Some(write))
            }
        }
    }

    /// Reads, and keeps the first descriptor that comes along.
    pub(super) fn receive(
        &self,
        buffer: &mut [u8],
        descriptors: &Descriptors,
    ) -> io::Result<usize> {
        let Self::Unix(stream) = self else {
            return (&*self).read(buffer);
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(buffer)];
        let message = recvmsg(stream, &mut pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut received = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        if let Some(descriptor) = received.by_ref().flatten().next() {
            descriptors.receive(descriptor);
        }
        Ok(message.bytes)
    }

    /// Ends both directions. Who waits for the socket wakes up.
    pub(super) fn shut_down(&self) {
        // Fails only if the other side has ended it before.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).read(buffer),
            Stream::Tcp(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).write(bytes),
            Stream::Tcp(stream) => (&*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel waits for ever if as many wait already as the server allows: so it is asked not to wait.
fn connect_unix(path: &Path, within: Duration) -> io::Result<UnixStream> {
    let end = after(within);
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < end => sleep(PAUSE),
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A socket that waits for connections.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(LocalListener),
    Tcp(TcpListener),
}

impl Listener {
    pub(super) fn bind(address: &QmpAddress) -> io::Result<Self> {
        match address {
            QmpAddress::Tcp(host, port) => TcpListener::bind((host.as_str(), *port)).map(Self::Tcp),
            QmpAddress::Unix(path) => LocalListener::bind(path).map(Self::Unix),
        }
    }

    /// Where this is, with the port that the kernel has chosen if none was named.
    pub(super) fn address(&self) -> io::Result<QmpAddress> {
        Ok(match self {
            Self::Unix(listener) => QmpAddress::Unix(listener.path().to_owned()),
            Self::Tcp(listener) => {
                let place = listener.local_addr()?;
                QmpAddress::Tcp(place.ip().to_string(), place.port())
            }
        })
    }

    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.socket().accept()?;
                Ok(Stream::Unix(stream))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    /// Ends the waiting in [`Listener::accept`], now and later.
    pub(super) fn shut_down(&self) {
        let how = rustix::net::Shutdown::Both;
        // A listener that is shut down already is none to be told.
        let _ = match self {
            Self::Unix(listener) => rustix::net::shutdown(listener.socket(), how),
            Self::Tcp(listener) => rustix::net::shutdown(listener, how),
        };
    }
}
