//! Ending whatever waits on a channel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// A switch that ends all waits of one migration, from any thread, for good.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    thrown: AtomicBool,
    /// Readable once the switch has been thrown.
    event: OwnedFd,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// The descriptor is ready, or broken: the next call on it tells.
    Ready,
    /// [`Stop::stop`] has been called.
    Stopped,
    /// The deadline has passed.
    TimedOut,
}

impl Stop {
    /// A switch that has not been thrown.
    ///
    /// # Errors
    /// If the process has too many descriptors.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Switch {
            thrown: AtomicBool::new(false),
            event,
        })))
    }

    /// Ends all waits, present and future.
    pub fn stop(&self) {
        self.0.thrown.store(true, Ordering::Release);
        // Fails only if the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
    }

    /// Whether [`stop`](Self::stop) has been called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.thrown.load(Ordering::Acquire)
    }

    /// Waits until `fd` is ready for what `flags` say, at most until `deadline`.
    pub(super) fn wait(
        &self,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        deadline: Option<Instant>,
    ) -> io::Result<Woken> {
        loop {
            if self.is_stopped() {
                return Ok(Woken::Stopped);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Woken::TimedOut);
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [
                PollFd::from_borrowed_fd(fd, flags),
                PollFd::from_borrowed_fd(self.0.event.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [ready, _] = fds;
            if !ready.revents().is_empty() {
                return Ok(Woken::Ready);
            }
        }
    }

    /// Waits until `deadline`, without a descriptor.
    pub(super) fn sleep(&self, deadline: Instant) -> io::Result<Woken> {
        self.wait(self.0.event.as_fd(), PollFlags::empty(), Some(deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_for_each_reason() {
        let (reader, writer) = io::pipe().unwrap();
        let stop = Stop::new().unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(5));
        let read = |deadline| stop.wait(reader.as_fd(), PollFlags::IN, deadline).unwrap();
        assert_eq!(read(soon()), Woken::TimedOut);
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(read(None), Woken::Ready);
        drop(writer);
        assert_eq!(read(None), Woken::Ready);
        stop.stop();
        assert_eq!(read(None), Woken::Stopped);
    }

    #[test]
    fn a_sleep_ends_when_stopped_from_elsewhere() {
        let stop = Stop::new().unwrap();
        let other = stop.clone();
        let thread =
            std::thread::spawn(move || other.sleep(Instant::now() + Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(5));
        stop.stop();
        assert_eq!(thread.join().unwrap().unwrap(), Woken::Stopped);
    }
}
