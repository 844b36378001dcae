//! Connections to those who are not trusted: nothing that they send takes more memory than a state can need.
//!
//! The library of D-Bus allocates a message when its first 16 bytes have come, and believes them up to 128 MiB. So its socket is one of
//! ours, which looks at the lengths first. Of a message that is too large it passes on the header alone and drops the body as it
//! comes, so that whoever waits for the answer gets one, without the content, and others on the same bus are not disturbed.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{self as unix, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zbus::address::Transport;
use zbus::address::transport::{Tcp, TcpTransportFamily, UnixSocket};
use zbus::connection::Builder;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::message::Type;
use zbus::{Address, Connection, Message};
use zruntime::{AsyncIo, Shared, SharedRuntime};

use crate::error::Fault;

/// Most bytes of a message: a state of 1 MiB, and as much again. The policy that is recommended for a bus has the same.
pub const MAX_MESSAGE: usize = 2 << 20;

/// Bytes of a message that say how long it is.
const PRIMARY: usize = 16;
/// Most bytes of a message's header. Names in it have at most 255 bytes each.
const MAX_HEADER: usize = 64 << 10;
/// Most bytes of what a server says before the first message: one line.
const MAX_GREETING: usize = 16 << 10;
/// Bytes of a body that are read to be dropped.
const PIECE: usize = 64 << 10;
/// Most messages that are remembered as too large: one for each call that can be waiting.
const MAX_CUTS: usize = 4096;

/// A message of which only the header was let through.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    /// On a bus, its sender's unique name.
    sender: Option<String>,
    /// Bytes that it had.
    size: u64,
}

/// The messages of a connection that were too large.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cuts(Arc<Mutex<Vec<Cut>>>);

impl Cuts {
    fn lock(&self) -> MutexGuard<'_, Vec<Cut>> {
        // Nothing that panics is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, message: &Message, size: u64) {
        let header = message.header();
        if !matches!(header.message_type(), Type::MethodReturn | Type::Error) {
            return;
        }
        let sender = header.sender().map(ToString::to_string);
        let mut cuts = self.lock();
        if cuts.len() < MAX_CUTS {
            cuts.push(Cut { sender, size });
        }
    }

    /// Bytes of an answer of this sender that was too large; it is forgotten. Peer to peer there is one sender, whoever it says that
    /// it is.
    pub(crate) fn take(&self, sender: Option<&str>) -> Option<u64> {
        let mut cuts = self.lock();
        let of = |cut: &Cut| sender.is_none() || cut.sender.as_deref() == sender;
        let index = cuts.iter().position(of)?;
        Some(cuts.swap_remove(index).size)
    }
}

/// Whether [`open`] can connect to this address, or why not.
pub(crate) fn reachable(address: &Address) -> Result<(), &'static str> {
    match address.transport() {
        Transport::Unix(unix) => match unix.path() {
            UnixSocket::File(_) | UnixSocket::Abstract(_) => Ok(()),
            _ => Err("it is one to listen at"),
        },
        Transport::Tcp(tcp) if tcp.nonce_file().is_none() => Ok(()),
        _ => Err("transports are unix:path, unix:abstract and tcp"),
    }
}

/// Connects to a bus, or to a peer.
pub(crate) async fn open(address: &Address, bus: bool) -> Result<(Connection, Cuts), Fault> {
    let runtime = SharedRuntime::current()?;
    let (builder, cuts) = match address.transport() {
        Transport::Unix(unix) => {
            let address = match unix.path() {
                UnixSocket::File(path) => unix::SocketAddr::from_pathname(path)?,
                UnixSocket::Abstract(name) => {
                    unix::SocketAddr::from_abstract_name(name.as_bytes())?
                }
                _ => return Err(unreachable_by(address)),
            };
            let stream = zruntime::net::unix::UnixStream::connect_addr(&runtime, &address).await?;
            bounded::<UnixStream>(&runtime, stream.into_std())?
        }
        Transport::Tcp(tcp) => bounded::<TcpStream>(&runtime, connect(&runtime, tcp).await?)?,
        _ => return Err(unreachable_by(address)),
    };
    let builder = if bus { builder } else { builder.p2p() };
    let connection = builder.build().await?;
    match address.guid() {
        Some(guid) if guid.as_str() != connection.server_guid().as_str() => {
            let _ = connection.close().await;
            Err(Fault::Protocol("it has another guid".to_owned()))
        }
        _ => Ok((connection, cuts)),
    }
}

fn unreachable_by(address: &Address) -> Fault {
    Fault::Protocol(format!("no transport for {address}"))
}

/// The first of a host's addresses that answers.
async fn connect(runtime: &SharedRuntime, tcp: &Tcp) -> io::Result<TcpStream> {
    let port = tcp.port();
    let addresses = match tcp.host().parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => {
            let host = tcp.host().to_owned();
            let resolve = move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            zruntime::unblock(resolve).await?
        }
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no such address");
    for address in addresses {
        let wanted = match tcp.family() {
            Some(TcpTransportFamily::Ipv4) => address.is_ipv4(),
            Some(TcpTransportFamily::Ipv6) => address.is_ipv6(),
            None => true,
        };
        if !wanted {
            continue;
        }
        match zruntime::net::TcpStream::connect(runtime, address).await {
            Ok(stream) => return Ok(stream.into_std()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A stream of bytes that is told from others by its type only.
trait Stream: AsFd + Debug + Send + Sync + 'static {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;
    fn end(&self) -> io::Result<()>;
}

macro_rules! stream {
    ($type:ty) => {
        impl Stream for $type {
            fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let mut stream = self;
                stream.read(buffer)
            }

            fn send(&self, bytes: &[u8]) -> io::Result<usize> {
                let mut stream = self;
                stream.write(bytes)
            }

            fn end(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Both)
            }
        }
    };
}

stream!(UnixStream);
stream!(TcpStream);

/// What makes a connection over this stream, which does not block.
fn bounded<S: Stream>(runtime: &SharedRuntime, stream: S) -> io::Result<(Builder<'static>, Cuts)> {
    let cuts = Cuts::default();
    let socket = Bounded {
        stream: Arc::new(AsyncIo::new_nonblocking(runtime, stream)?),
        cuts: cuts.clone(),
    };
    Ok((Builder::socket(socket), cuts))
}

struct Bounded<S> {
    stream: Arc<AsyncIo<S, Shared>>,
    cuts: Cuts,
}

impl<S: Stream> Socket for Bounded<S> {
    type ReadHalf = Reader<S>;
    type WriteHalf = Writer<S>;

    fn split(self) -> Split<Reader<S>, Writer<S>> {
        let reader = Reader {
            bytes: Bytes(Arc::clone(&self.stream)),
            greeting: 0,
            cuts: self.cuts,
        };
        Split::new(reader, Writer(self.stream))
    }
}

/// Reads bytes, and messages as the library does it.
#[derive(Debug)]
struct Bytes<S>(Arc<AsyncIo<S, Shared>>);

#[async_trait]
impl<S: Stream> ReadHalf for Bytes<S> {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let count = self.0.read_with(|stream| stream.receive(buffer)).await?;
        // Descriptors are not asked for; one that is sent all the same is closed by the system.
        Ok((count, Vec::new()))
    }
}

/// Reads messages that are not too large.
#[derive(Debug)]
struct Reader<S> {
    bytes: Bytes<S>,
    /// Bytes of the greeting so far.
    greeting: usize,
    cuts: Cuts,
}

impl<S: Stream> Reader<S> {
    /// Reads until `bytes` has so many.
    async fn at_least(&mut self, bytes: &mut Vec<u8>, count: usize) -> io::Result<()> {
        let mut buffer = [0; 256];
        while bytes.len() < count {
            let missing = count.saturating_sub(bytes.len()).min(buffer.len());
            let room = buffer.get_mut(..missing).unwrap_or_default();
            let (read, _) = self.bytes.recvmsg(room).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend(room.iter().take(read));
        }
        Ok(())
    }

    /// Reads so many bytes and forgets them.
    async fn drop_bytes(&mut self, mut left: u64) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        while left > 0 {
            let take = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let room = buffer.get_mut(..take).unwrap_or_default();
            let (read, _) = self.bytes.recvmsg(room).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left = left.saturating_sub(read as u64);
        }
        Ok(())
    }
}

#[async_trait]
impl<S: Stream> ReadHalf for Reader<S> {
    async fn receive_message(
        &mut self,
        seq: u64,
        already: &mut Vec<u8>,
        fds: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        self.at_least(already, PRIMARY).await?;
        let Some(lengths) = Lengths::of(already) else {
            return Err(invalid("this is no message of D-Bus").into());
        };
        if lengths.header > MAX_HEADER as u64 {
            return Err(invalid("a message's header is too large").into());
        }
        let size = lengths.header.saturating_add(lengths.body);
        if size <= MAX_MESSAGE as u64 {
            return self.bytes.receive_message(seq, already, fds).await;
        }
        let header = usize::try_from(lengths.header).unwrap_or(MAX_HEADER);
        self.at_least(already, header).await?;
        let rest = already.split_off(header.min(already.len()));
        let mut alone = std::mem::replace(already, rest);
        let buffered = usize::try_from(lengths.body).unwrap_or(usize::MAX);
        let buffered = buffered.min(already.len());
        already.drain(..buffered);
        self.drop_bytes(lengths.body.saturating_sub(buffered as u64))
            .await?;
        if let Some(length) = alone.get_mut(BODY..BODY + 4) {
            length.fill(0);
        }
        let message = self.bytes.receive_message(seq, &mut alone, fds).await?;
        self.cuts.add(&message, size);
        Ok(message)
    }

    /// Only the greeting is read by this.
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let (count, fds) = self.bytes.recvmsg(buffer).await?;
        // The library looks at what is in front of a line's end, whether there is something or not.
        if self.greeting == 0 && count > 0 && buffer.first() == Some(&b'\n') {
            return Err(invalid("the greeting begins with an empty line"));
        }
        self.greeting = self.greeting.saturating_add(count);
        if self.greeting > MAX_GREETING {
            return Err(invalid("the greeting does not end"));
        }
        Ok((count, fds))
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Where in a message its body's length is: 32 bits in the message's own order. At 12 is that of the header's fields.
const BODY: usize = 4;

/// How long a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lengths {
    /// With what fills it up to a multiple of 8.
    header: u64,
    body: u64,
}

impl Lengths {
    /// By a message's first 16 bytes.
    fn of(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| -> Option<u64> {
            let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
            Some(u64::from(match bytes.first()? {
                b'l' => u32::from_le_bytes(word),
                b'B' => u32::from_be_bytes(word),
                _ => return None,
            }))
        };
        let fields = word(12)?;
        let header = fields.saturating_add(PRIMARY as u64);
        Some(Self {
            header: header.next_multiple_of(8),
            body: word(BODY)?,
        })
    }
}

#[derive(Debug)]
struct Writer<S>(Arc<AsyncIo<S, Shared>>);

#[async_trait]
impl<S: Stream> WriteHalf for Writer<S> {
    async fn sendmsg(&mut self, bytes: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write_with(|stream| stream.send(bytes)).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.get_ref().end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_in_either_order() {
        let mut bytes = *b"l\x01\0\x01\x05\0\0\0\0\0\0\0\x09\0\0\0";
        let lengths = Lengths {
            header: 32,
            body: 5,
        };
        assert_eq!(Lengths::of(&bytes), Some(lengths));
        bytes[0] = b'B';
        let lengths = Lengths::of(&bytes).unwrap();
        assert_eq!(lengths.body, 5 << 24);
        assert_eq!(lengths.header, (9 << 24) + 16);
        assert_eq!(Lengths::of(&bytes[..15]), None);
        bytes[0] = b'x';
        assert_eq!(Lengths::of(&bytes), None);
        assert_eq!(Lengths::of(&[b'l'; 16]).map(|l| l.header % 8), Some(0));
    }
}
