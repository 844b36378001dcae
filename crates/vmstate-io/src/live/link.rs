//! One end of a channel: a descriptor that never blocks for ever.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use vmstate_engine::{ChannelEnd, ChannelError};
use vmstate_linux::{Gather, Scatter};
use vmstate_wire::stream::StreamOffset;

use super::stop::{Stop, Woken};
use crate::clock::after;

/// What a channel's descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A socket: both ends can write.
    Socket,
    /// A pipe, to or from a process.
    Pipe,
    /// A file.
    File,
}

/// One end of a channel. Clones share it; the descriptor is closed with the last one.
///
/// Every call ends when [`Stop`] is thrown, and when nothing moves for longer than the deadline, where there is one.
#[derive(Debug, Clone)]
pub struct Link {
    shared: Arc<Shared>,
    /// Longest time in which nothing moves, while something should.
    silence: Option<Duration>,
}

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    kind: LinkKind,
    stop: Stop,
    /// The command at the other end.
    child: Mutex<Option<Child>>,
}

impl Link {
    /// A link over `fd`, which does not block from now on.
    ///
    /// # Errors
    /// If the descriptor cannot be told not to block.
    pub fn new(fd: OwnedFd, kind: LinkKind, stop: Stop) -> io::Result<Self> {
        if kind != LinkKind::File {
            let flags = fcntl_getfl(&fd)?;
            fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        }
        Ok(Self {
            shared: Arc::new(Shared {
                fd,
                kind,
                stop,
                child: Mutex::new(None),
            }),
            silence: None,
        })
    }

    pub(super) fn with_child(self, child: Child) -> Self {
        *self.child() = Some(child);
        self
    }

    /// The same link, on which something must move at least this often, while a call waits for it.
    #[must_use]
    pub fn with_silence(mut self, silence: Option<Duration>) -> Self {
        self.silence = silence;
        self
    }

    /// What the descriptor is.
    #[must_use]
    pub fn kind(&self) -> LinkKind {
        self.shared.kind
    }

    /// Whether the other end can answer.
    #[must_use]
    pub fn is_bidirectional(&self) -> bool {
        self.shared.kind == LinkKind::Socket
    }

    /// The switch that ends its waits.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.shared.stop
    }

    /// Tells the other end that nothing more comes. What it has sent can still be read.
    pub fn finish(&self) {
        if self.shared.kind == LinkKind::Socket {
            // A connection that is gone needs no end.
            let _ = shutdown(&self.shared.fd, Shutdown::Write);
        }
    }

    /// Reads and drops what still comes, in a thread of its own, until the other end closes its side or says nothing for as long as TCP
    /// sends again. A socket that is closed before resets the connection: what was said last may be lost with it, and the other end's
    /// last bytes are refused.
    pub(super) fn read_off(self) {
        /// Longer than Linux tries to send again (`tcp_retries2` of tcp(7)).
        const PATIENCE: Duration = Duration::from_secs(20 * 60);
        /// Bytes. A trailer that nobody reads has less.
        const MOST: u64 = 64 << 20;
        if self.shared.kind != LinkKind::Socket {
            return;
        }
        let link = self.with_silence(Some(PATIENCE));
        let work = move || {
            let (mut buffer, mut seen) = (vec![0; 64 << 10], 0);
            while seen < MOST {
                let mut list = Scatter::new();
                list.buffer(&mut buffer);
                match link.read(&mut list, StreamOffset(seen)) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => seen = seen.saturating_add(count as u64),
                }
            }
        };
        // Without a thread, it is closed at once.
        let _ = std::thread::Builder::new()
            .name("last bytes".to_owned())
            .spawn(work);
    }

    /// Keeps what waits on this side short, so that what is written later does not wait behind much.
    pub(super) fn limit_unsent(&self, bytes: u32) {
        if self.shared.kind == LinkKind::Socket {
            // A wish: without it, it goes on as before.
            let _ = vmstate_linux::limit_unsent(&self.shared.fd, bytes);
        }
    }

    /// Keeps what has arrived and waits to be read short: `bytes`, and what `rate` bytes in a second make of a round trip. A link that
    /// is so long that this is much stays as it is.
    pub(super) fn limit_unread(&self, bytes: u32, rate: u64) {
        if self.shared.kind == LinkKind::Socket
            && let Ok(Some(time)) = vmstate_linux::least_round_trip(&self.shared.fd)
        {
            /// Bytes from which on the system does it better.
            const MUCH: u32 = 1 << 20;
            let way = u128::from(rate).saturating_mul(time.as_micros()) / 1_000_000;
            let all = u32::try_from(way).unwrap_or(MUCH).saturating_add(bytes);
            if all < MUCH {
                // As above.
                let _ = vmstate_linux::limit_unread(&self.shared.fd, all);
            }
        }
    }

    /// Whether the other end has neither closed its side nor gone, as far as is known here.
    pub(super) fn is_whole(&self) -> bool {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut fds = [PollFd::new(self, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&now)) {
            Ok(_) => !fds.iter().any(|fd| fd.revents().intersects(gone)),
            Err(_) => false,
        }
    }

    /// Waits for the command at the other end to end, once nothing more is written: what was written is then where the
    /// command puts it. `None`: there is no command, or it is still busy after `patience`.
    #[must_use]
    pub fn exit_status(self, patience: Duration) -> Option<std::process::ExitStatus> {
        let mut child = self.child().take()?;
        drop(self);
        let deadline = after(patience);
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return None,
            }
        }
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        let child = self.shared.child.lock();
        child.unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all of `list`. `offset` is the stream offset of its first byte.
    pub(super) fn write(
        &self,
        list: &mut Gather<'_>,
        offset: StreamOffset,
    ) -> Result<(), ChannelError> {
        let total = list.left();
        let at = |list: &Gather<'_>| StreamOffset(offset.0.saturating_add(total - list.left()));
        while list.left() > 0 {
            if self.shared.stop.is_stopped() {
                return Err(ChannelError::new(ChannelEnd::ShutDown, at(list)));
            }
            match list.write_to(&self.shared.fd) {
                Ok(0) => return Err(ChannelError::new(ChannelEnd::Closed, at(list))),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => self.wait(PollFlags::OUT, at(list))?,
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                        return Err(ChannelError {
                            end: ChannelEnd::Closed,
                            offset: at(list),
                            source: Some(error.into()),
                        });
                    }
                    _ => return Err(ChannelError::failed(at(list), error)),
                },
            }
        }
        Ok(())
    }

    /// Reads once into `list`; 0 is the end. What has arrived is read also when the switch has been thrown.
    pub(super) fn read(
        &self,
        list: &mut Scatter<'_>,
        offset: StreamOffset,
    ) -> Result<usize, ChannelError> {
        loop {
            match list.read_from(&self.shared.fd) {
                Ok(count) => return Ok(count),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => self.wait(PollFlags::IN, offset)?,
                    // As good as closed: the peer ended with something unread.
                    io::ErrorKind::ConnectionReset => return Ok(0),
                    _ => return Err(ChannelError::failed(offset, error)),
                },
            }
        }
    }

    fn wait(&self, flags: PollFlags, offset: StreamOffset) -> Result<(), ChannelError> {
        let deadline = self.silence.map(after);
        match self.shared.stop.wait(self.as_fd(), flags, deadline) {
            Ok(Woken::Ready) => Ok(()),
            Ok(Woken::Stopped) => Err(ChannelError::new(ChannelEnd::ShutDown, offset)),
            Ok(Woken::TimedOut) => Err(ChannelError::new(ChannelEnd::TimedOut, offset)),
            Err(error) => Err(ChannelError::failed(offset, error)),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A command that reads its input sees the end when the descriptor goes, a moment later. One that nobody asked for its
        // status is waited for, so that it does not stay behind as a zombie.
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = child.take() {
            // Where no thread can be started, the zombie stays until this process ends.
            let _ = std::thread::Builder::new().spawn(move || child.wait());
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }
}

/// An error of the operating system that only means "later".
pub(super) fn is_again(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::INPROGRESS | Errno::INTR)
}
