//! Making channels: connecting to an address, listening on one.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Seek as _};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use vmstate_qmp::address::{InetSocketAddress, MigrationAddress, SocketAddress, UnixSocketAddress};

use super::link::{Link, LinkKind, is_again};
use super::stop::{Stop, Woken};
use crate::clock::after;
use crate::descriptors::Descriptors;
use crate::local::LocalListener;

/// How long to try again while a listener has no room for another connection.
const RETRY: Duration = Duration::from_millis(10);

/// A channel could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The transport exists, but not here.
    #[error("migration over {scheme}: is not supported; use tcp:, unix:, fd:, exec: or file:")]
    Unsupported {
        /// Scheme of the URI.
        scheme: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Nothing answered in time.
    #[error("cannot {what}: no answer within {} ms", patience.as_millis())]
    TimedOut {
        /// What was tried.
        what: String,
        /// The deadline.
        patience: Duration,
    },
    /// The migration has been given up meanwhile.
    #[error("cannot {what}: the migration has been given up")]
    Stopped {
        /// What was tried.
        what: String,
    },
    /// The address makes no sense.
    #[error("cannot {what}: {reason}")]
    Address {
        /// What was tried.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Opens the channel to a destination. `fd:NAME` is taken out of `descriptors`.
///
/// # Errors
/// [`ConnectError`], which names the address; after `patience` at the latest.
pub fn connect_to(
    address: &MigrationAddress,
    descriptors: &Descriptors,
    stop: &Stop,
    patience: Duration,
) -> Result<Link, ConnectError> {
    let what = match address.to_uri() {
        Some(uri) => format!("connect to {uri}"),
        None => format!("connect over {}", address.scheme()),
    };
    let deadline = after(patience);
    let io = |source| ConnectError::Io {
        what: what.clone(),
        source,
    };
    let link = match address {
        MigrationAddress::Socket(SocketAddress::Inet(inet)) => {
            let fd = connect_inet(inet, stop, deadline).map_err(|e| e.named(&what, patience))?;
            Link::new(fd, LinkKind::Socket, stop.clone())
        }
        MigrationAddress::Socket(SocketAddress::Unix(unix)) => {
            let fd = connect_unix(unix, stop, deadline).map_err(|e| e.named(&what, patience))?;
            Link::new(fd, LinkKind::Socket, stop.clone())
        }
        MigrationAddress::Socket(SocketAddress::Fd { str: name }) => {
            return passed(name, descriptors, stop, &what);
        }
        MigrationAddress::Exec { args } => {
            let mut child = command(args, &what)?
                .stdin(Stdio::piped())
                .spawn()
                .map_err(io)?;
            let stdin = child.stdin.take().map(OwnedFd::from);
            let stdin = stdin.ok_or_else(|| io(io::ErrorKind::BrokenPipe.into()))?;
            let link = Link::new(stdin, LinkKind::Pipe, stop.clone());
            link.map(|link| link.with_child(child))
        }
        MigrationAddress::File { filename, offset } => {
            let file = open_to_write(filename, *offset).map_err(io)?;
            Link::new(file.into(), LinkKind::File, stop.clone())
        }
        _ => return Err(unsupported(address)),
    };
    link.map_err(io)
}

fn unsupported(address: &MigrationAddress) -> ConnectError {
    ConnectError::Unsupported {
        scheme: address.scheme(),
    }
}

fn open_to_write(filename: &str, offset: u64) -> io::Result<File> {
    let mut options = File::options();
    // Guest memory is nobody else's business.
    options.write(true).create(true).truncate(false).mode(0o600);
    let mut file = open_at_once(&mut options, filename)?;
    // What stands before the offset is kept, what stood behind is not. A device has no length.
    if file.metadata()?.is_file() {
        file.set_len(offset)?;
    }
    file.seek(io::SeekFrom::Start(offset))?;
    Ok(file)
}

fn open_to_read(filename: &str, offset: u64) -> io::Result<File> {
    let mut file = open_at_once(File::options().read(true), filename)?;
    file.seek(io::SeekFrom::Start(offset))?;
    Ok(file)
}

/// Opens a file or a device, without waiting for anybody. A FIFO would wait for its other end, and has no place to seek to.
fn open_at_once(options: &mut OpenOptions, filename: &str) -> io::Result<File> {
    let no_file = |found: &Metadata| {
        let kind = match found.file_type() {
            kind if kind.is_fifo() => "a FIFO; use exec: with a command that writes or reads it",
            kind if kind.is_socket() => "a socket; use unix:",
            kind if kind.is_dir() => "a directory",
            _ => return Ok(()),
        };
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it is {kind}"),
        ))
    };
    if let Ok(found) = fs::metadata(filename) {
        no_file(&found)?;
    }
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = options.custom_flags(flags).open(filename)?;
    // It may be another one by now.
    no_file(&file.metadata()?)?;
    Ok(file)
}

fn command(args: &[String], what: &str) -> Result<Command, ConnectError> {
    let Some((program, rest)) = args.split_first() else {
        return Err(ConnectError::Address {
            what: what.to_owned(),
            reason: "there is no command".to_owned(),
        });
    };
    let mut command = Command::new(program);
    command.args(rest);
    Ok(command)
}

/// A descriptor that this process was started with, by number, or that a client of its monitor has named.
fn passed(
    name: &str,
    descriptors: &Descriptors,
    stop: &Stop,
    what: &str,
) -> Result<Link, ConnectError> {
    let number = name.parse().ok();
    let named = match number {
        Some(_) => None,
        None => Some(descriptors.take(name).ok_or_else(|| ConnectError::Address {
            what: what.to_owned(),
            reason: format!(
                "File descriptor named '{name}' has not been found; pass it with getfd, or give the number of an \
                 inherited one"
            ),
        })?),
    };
    let open = || -> io::Result<Link> {
        let fd = match (named, number) {
            (Some(fd), _) => fd,
            (None, number) => vmstate_linux::inherited_fd(number.unwrap_or(-1))?,
        };
        let kind = match rustix::net::sockopt::socket_type(&fd) {
            Ok(_) => LinkKind::Socket,
            Err(_)
                if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode)
                    == rustix::fs::FileType::RegularFile =>
            {
                LinkKind::File
            }
            Err(_) => LinkKind::Pipe,
        };
        Link::new(fd, kind, stop.clone())
    };
    open().map_err(|source| ConnectError::Io {
        what: what.to_owned(),
        source,
    })
}

/// Why one attempt failed; the address is added later.
enum Attempt {
    Io(io::Error),
    Stopped,
    TimedOut,
}

impl Attempt {
    fn named(self, what: &str, patience: Duration) -> ConnectError {
        let what = what.to_owned();
        match self {
            Self::Io(source) => ConnectError::Io { what, source },
            Self::Stopped => ConnectError::Stopped { what },
            Self::TimedOut => ConnectError::TimedOut { what, patience },
        }
    }
}

impl From<io::Error> for Attempt {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustix::io::Errno> for Attempt {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// All addresses that a name stands for, of the families that are wanted.
fn resolve(inet: &InetSocketAddress, listening: bool) -> io::Result<Vec<SocketAddr>> {
    let port = inet.port.parse::<u16>().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("port {} is not a number up to 65535", inet.port),
        )
    })?;
    let host = match (inet.host.as_str(), listening) {
        ("", true) if inet.ipv6 == Some(true) => "::",
        ("", true) => "0.0.0.0",
        ("", false) => "localhost",
        (host, _) => host,
    };
    let allowed = |address: &SocketAddr| match (inet.ipv4, inet.ipv6) {
        (Some(false), _) | (None, Some(true)) => address.is_ipv6(),
        (_, Some(false)) | (Some(true), None) => address.is_ipv4(),
        _ => true,
    };
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.filter(allowed).collect();
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{host} has no address of the family that was asked for"),
        ));
    }
    Ok(addresses)
}

fn connect_inet(
    inet: &InetSocketAddress,
    stop: &Stop,
    deadline: Instant,
) -> Result<OwnedFd, Attempt> {
    let mut last = Attempt::TimedOut;
    for address in resolve(inet, false)? {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let fd = stream_socket(family)?;
        match finish_connect(fd, stop, deadline, |fd| connect(fd, &address)) {
            Ok(fd) => {
                rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
                if inet.keep_alive == Some(true) {
                    rustix::net::sockopt::set_socket_keepalive(&fd, true)?;
                }
                return Ok(fd);
            }
            Err(Attempt::Stopped) => return Err(Attempt::Stopped),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_unix(
    unix: &UnixSocketAddress,
    stop: &Stop,
    deadline: Instant,
) -> Result<OwnedFd, Attempt> {
    let address = unix_address(unix)?;
    let fd = stream_socket(AddressFamily::UNIX)?;
    finish_connect(fd, stop, deadline, |fd| connect(fd, &address))
}

fn unix_address(unix: &UnixSocketAddress) -> io::Result<SocketAddrUnix> {
    if unix.abstract_name != Some(true) {
        return Ok(SocketAddrUnix::new(unix.path.as_str())?);
    }
    if unix.tight == Some(false) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "abstract names that are filled up with zeros",
        ));
    }
    Ok(SocketAddrUnix::new_abstract_name(unix.path.as_bytes())?)
}

fn stream_socket(family: AddressFamily) -> Result<OwnedFd, Attempt> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

fn finish_connect(
    fd: OwnedFd,
    stop: &Stop,
    deadline: Instant,
    try_once: impl Fn(&OwnedFd) -> rustix::io::Result<()>,
) -> Result<OwnedFd, Attempt> {
    loop {
        match try_once(&fd) {
            Ok(()) | Err(rustix::io::Errno::ISCONN) => return Ok(fd),
            // A Unix listener without room says so at once: there is nothing to wait on.
            Err(rustix::io::Errno::AGAIN) => {
                let until = deadline.min(Instant::now() + RETRY);
                if stop.sleep(until)? == Woken::Stopped {
                    return Err(Attempt::Stopped);
                }
                if Instant::now() >= deadline {
                    return Err(Attempt::TimedOut);
                }
            }
            Err(error) if is_again(error) || error == rustix::io::Errno::ALREADY => {
                match stop.wait(fd.as_fd(), PollFlags::OUT, Some(deadline))? {
                    Woken::Ready => rustix::net::sockopt::socket_error(&fd)??,
                    Woken::Stopped => return Err(Attempt::Stopped),
                    Woken::TimedOut => return Err(Attempt::TimedOut),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where a destination waits for its source.
#[derive(Debug)]
pub struct Listener {
    kind: Waiting,
    address: MigrationAddress,
}

#[derive(Debug)]
enum Waiting {
    Tcp(TcpListener),
    Unix(LocalListener),
    Abstract(UnixListener),
    /// There is nothing to wait for.
    Link(Link),
}

impl Listener {
    /// Listens on `address`, or opens what needs no listening. `fd:NAME` is taken out of `descriptors`.
    ///
    /// # Errors
    /// [`ConnectError`], which names the address.
    pub fn new(
        address: &MigrationAddress,
        descriptors: &Descriptors,
        stop: &Stop,
    ) -> Result<Self, ConnectError> {
        let what = match address.to_uri() {
            Some(uri) => format!("listen on {uri}"),
            None => format!("listen over {}", address.scheme()),
        };
        let io = |source| ConnectError::Io {
            what: what.clone(),
            source,
        };
        let mut shown = address.clone();
        let kind = match address {
            MigrationAddress::Socket(SocketAddress::Inet(inet)) => {
                let listener = listen_inet(inet).map_err(io)?;
                let local = listener.local_addr().map_err(io)?;
                shown = MigrationAddress::Socket(SocketAddress::Inet(InetSocketAddress::new(
                    local.ip().to_string(),
                    local.port(),
                )));
                Waiting::Tcp(listener)
            }
            MigrationAddress::Socket(SocketAddress::Unix(unix)) => listen_unix(unix).map_err(io)?,
            MigrationAddress::Socket(SocketAddress::Fd { str: name }) => {
                Waiting::Link(passed(name, descriptors, stop, &what)?)
            }
            MigrationAddress::Exec { args } => {
                let mut child = command(args, &what)?
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .spawn()
                    .map_err(io)?;
                let stdout = child.stdout.take().map(OwnedFd::from);
                let stdout = stdout.ok_or_else(|| io(io::ErrorKind::BrokenPipe.into()))?;
                let link = Link::new(stdout, LinkKind::Pipe, stop.clone()).map_err(io)?;
                Waiting::Link(link.with_child(child))
            }
            MigrationAddress::File { filename, offset } => {
                let file = open_to_read(filename, *offset).map_err(io)?;
                Waiting::Link(Link::new(file.into(), LinkKind::File, stop.clone()).map_err(io)?)
            }
            _ => return Err(unsupported(address)),
        };
        Ok(Self {
            kind,
            address: shown,
        })
    }

    /// Where it listens: with the port that was chosen, if any would do.
    #[must_use]
    pub const fn address(&self) -> &MigrationAddress {
        &self.address
    }

    /// Waits for the source.
    ///
    /// # Errors
    /// [`ConnectError`], also when the switch is thrown.
    pub fn accept(&self, stop: &Stop) -> Result<Link, ConnectError> {
        match &self.kind {
            Waiting::Link(link) => Ok(link.clone()),
            _ => self.accept_socket(stop, stop, None),
        }
    }

    /// Waits for another connection of the same source, not longer than `patience`. `stop` ends the wait, `own` ends what is
    /// done on the connection.
    ///
    /// # Errors
    /// [`ConnectError`]; where there is nothing to wait for, there is one connection only.
    pub(super) fn accept_another(
        &self,
        stop: &Stop,
        own: &Stop,
        patience: Duration,
    ) -> Result<Link, ConnectError> {
        self.accept_socket(stop, own, Some(patience))
    }

    fn accept_socket(
        &self,
        stop: &Stop,
        own: &Stop,
        patience: Option<Duration>,
    ) -> Result<Link, ConnectError> {
        let what = "accept the source's connection".to_owned();
        let io = |source| ConnectError::Io {
            what: what.clone(),
            source,
        };
        let deadline = patience.map(after);
        let named = |e: Attempt| e.named(&what, patience.unwrap_or_default());
        let accept_unix =
            |listener: &UnixListener| accept_with(stop, listener, deadline, || listener.accept());
        let fd: OwnedFd = match &self.kind {
            Waiting::Link(_) => return Err(unsupported(&self.address)),
            Waiting::Tcp(listener) => {
                let stream =
                    accept_with(stop, listener, deadline, || listener.accept()).map_err(named)?;
                stream.set_nodelay(true).map_err(io)?;
                stream.into()
            }
            Waiting::Unix(listener) => accept_unix(listener.socket()).map_err(named)?.into(),
            Waiting::Abstract(listener) => accept_unix(listener).map_err(named)?.into(),
        };
        Link::new(fd, LinkKind::Socket, own.clone()).map_err(io)
    }
}

fn accept_with<S, A>(
    stop: &Stop,
    listener: &impl AsFd,
    deadline: Option<Instant>,
    accept: impl Fn() -> io::Result<(S, A)>,
) -> Result<S, Attempt> {
    loop {
        match stop.wait(listener.as_fd(), PollFlags::IN, deadline)? {
            Woken::Stopped => return Err(Attempt::Stopped),
            Woken::TimedOut => return Err(Attempt::TimedOut),
            Woken::Ready => match accept() {
                Ok((stream, _)) => return Ok(stream),
                Err(error) => match error.kind() {
                    // It has gone again before it was taken.
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(error.into()),
                },
            },
        }
    }
}

fn listen_inet(inet: &InetSocketAddress) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for address in resolve(inet, true)? {
        let highest = inet.to.unwrap_or(address.port()).max(address.port());
        for port in address.port()..=highest {
            match TcpListener::bind(SocketAddr::new(address.ip(), port)) {
                Ok(listener) => {
                    listener.set_nonblocking(true)?;
                    return Ok(listener);
                }
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

fn listen_unix(unix: &UnixSocketAddress) -> io::Result<Waiting> {
    if unix.abstract_name == Some(true) {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&unix.path)?;
        let listener = UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        return Ok(Waiting::Abstract(listener));
    }
    let listener = LocalListener::bind(Path::new(&unix.path))?;
    listener.socket().set_nonblocking(true)?;
    Ok(Waiting::Unix(listener))
}
