//! Guest RAM whose pages come when they are needed: userfaultfd.

#![expect(unsafe_code, reason = "system calls that rustix does not have")]

mod kernel;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use self::kernel::{Copy, MESSAGE, Range, Register, Zeropage};
use crate::guest_ram::{Backing, GuestRam, OutOfBounds};

/// Faults that are taken from the kernel at once.
const BATCH: usize = 64;
/// How often a page is tried again while the kernel is changing the memory's layout.
const TRIES: u32 = 10_000;

/// Missing pages cannot be served on this host, or one was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum UserfaultError {
    /// The kernel has no userfaultfd, or this process may not have one.
    Unavailable(io::Error),
    /// A range that is not inside of the memory.
    OutOfBounds(OutOfBounds),
    /// The kernel refused.
    Kernel {
        /// What it should have done.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
}

impl std::fmt::Display for UserfaultError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(error) if error.kind() == io::ErrorKind::Unsupported => f.write_str(
                "this kernel has no userfaultfd: it must be built with CONFIG_USERFAULTFD",
            ),
            Self::Unavailable(error) => write!(
                f,
                "no userfaultfd: {error}; give this process access to /dev/userfaultfd, or set \
                 vm.unprivileged_userfaultfd to 1"
            ),
            Self::OutOfBounds(error) => error.fmt(f),
            Self::Kernel { what, source } => write!(f, "cannot {what}: {source}"),
        }
    }
}

impl std::error::Error for UserfaultError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unavailable(source) | Self::Kernel { source, .. } => Some(source),
            Self::OutOfBounds(source) => Some(source),
        }
    }
}

impl From<OutOfBounds> for UserfaultError {
    fn from(error: OutOfBounds) -> Self {
        Self::OutOfBounds(error)
    }
}

/// A thread that waits for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What it wants to read or write: an address of this process; see [`GuestRam::offset_of`].
    pub address: u64,
    /// The kernel's number of the thread, as `gettid(2)` gives it; 0 where the kernel does not say.
    pub thread: u32,
    /// Whether it wants to write.
    pub write: bool,
}

/// Serves the missing pages of any number of [`GuestRam`]s.
///
/// Memory that is registered has two kinds of pages: those that are there, and those that are missing, since they were
/// never touched or have been [discarded](GuestRam::discard). Whoever touches a missing page sleeps in the kernel until
/// the page is [placed](Self::place), whole and at once; this is so for harts, and for system calls that are given the memory.
/// A page that is there is never written over.
///
/// Dropping it ends this for all memory, as [`unregister`](Self::unregister) does.
///
/// ```
/// use vmstate_linux::{GuestRam, Userfault};
///
/// let ram = GuestRam::new(1 << 20)?;
/// let Ok(faults) = Userfault::open() else {
///     return Ok(()); // not on this host
/// };
/// faults.register(&ram)?;
/// assert_eq!(faults.place(&ram, 0x3000, &[7; 4096])?, 4096);
/// assert_eq!(ram.load::<u8>(0x3fff), Some(7));
/// assert_eq!(faults.place(&ram, 0x3000, &[8; 4096])?, 0);
/// assert_eq!(ram.load::<u8>(0x3fff), Some(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Userfault {
    fd: OwnedFd,
    names_threads: bool,
}

impl Userfault {
    /// Asks the kernel for one: from `/dev/userfaultfd`, else by system call. Where the process may only have one for what it
    /// touches itself, system calls that meet a missing page fail with `EFAULT`.
    ///
    /// # Errors
    /// [`UserfaultError::Unavailable`], which says what to do.
    pub fn open() -> Result<Self, UserfaultError> {
        let opened = kernel::open().map_err(UserfaultError::Unavailable)?;
        if kernel::handshake(&opened, kernel::THREAD_ID).is_ok() {
            return Ok(Self {
                fd: opened,
                names_threads: true,
            });
        }
        // A descriptor takes one handshake only.
        let fd = kernel::open().map_err(UserfaultError::Unavailable)?;
        kernel::handshake(&fd, 0).map_err(UserfaultError::Unavailable)?;
        Ok(Self {
            fd,
            names_threads: false,
        })
    }

    /// Whether faults say which thread waits.
    #[must_use]
    pub const fn names_threads(&self) -> bool {
        self.names_threads
    }

    /// From now on, whoever touches a missing page of `ram` waits for it.
    ///
    /// # Errors
    /// Memory of a kind for which the kernel does not do it, or that is registered elsewhere.
    pub fn register(&self, ram: &GuestRam) -> Result<(), UserfaultError> {
        let range = whole(ram)?;
        let mut argument = Register::missing(range);
        // SAFETY: the range is a mapping that `ram` owns; being registered changes when its pages come, not what they hold.
        unsafe { kernel::register(self.as_fd(), &mut argument) }.map_err(|source| {
            UserfaultError::Kernel {
                what: "serve the missing pages of guest RAM",
                source,
            }
        })
    }

    /// Ends it: pages that are missing are zero when they are touched, and those who wait go on.
    ///
    /// # Errors
    /// Memory that is not registered.
    pub fn unregister(&self, ram: &GuestRam) -> Result<(), UserfaultError> {
        let range = whole(ram)?;
        // SAFETY: as in `register`.
        unsafe { kernel::unregister(self.as_fd(), &range) }.map_err(|source| {
            UserfaultError::Kernel {
                what: "let go of guest RAM",
                source,
            }
        })
    }

    /// Gives missing pages their content, each at once, and wakes who waits for them. Pages that are there stay as they are.
    /// Returns how many bytes were missing. `offset` and the length are multiples of the memory's page size.
    ///
    /// # Errors
    /// [`UserfaultError`]; memory that is not registered, or none left.
    pub fn place(&self, ram: &GuestRam, offset: u64, data: &[u8]) -> Result<u64, UserfaultError> {
        let what = "place pages of guest RAM";
        self.fill(ram, offset, data.len() as u64, what, |at, done, left| {
            let source = data.get(done..).unwrap_or_default();
            let mut argument = Copy::new(at, source, left);
            // SAFETY: source and destination are inside of `data` and of the mapping that `ram` owns, `fill` sees to
            // that; the kernel writes to pages that are missing only, and nobody has references into guest RAM.
            let result = unsafe { kernel::copy(self.as_fd(), &mut argument) };
            (result, argument.copied)
        })
    }

    /// As [`place`](Self::place), with zeros.
    ///
    /// # Errors
    /// As [`place`](Self::place).
    pub fn place_zero(
        &self,
        ram: &GuestRam,
        offset: u64,
        length: u64,
    ) -> Result<u64, UserfaultError> {
        if let Backing::HugePages { bytes } = ram.backing() {
            // The kernel has no huge page of zeros to lend.
            let zeros = vec![0; usize::try_from(bytes).unwrap_or(0)];
            let mut placed = 0;
            for at in (0..length).step_by(zeros.len().max(1)) {
                placed += self.place(ram, offset + at, &zeros)?;
            }
            return Ok(placed);
        }
        let what = "place zero pages of guest RAM";
        self.fill(ram, offset, length, what, |at, _, left| {
            let mut argument = Zeropage::new(at, left);
            // SAFETY: as in `place`.
            let result = unsafe { kernel::zeropage(self.as_fd(), &mut argument) };
            (result, argument.zeroed)
        })
    }

    /// Wakes who waits for pages of a range; whoever finds the page still missing waits again.
    ///
    /// # Errors
    /// [`UserfaultError`].
    pub fn wake(&self, ram: &GuestRam, offset: u64, length: u64) -> Result<(), UserfaultError> {
        let (base, len) = ram.pointer(offset, length)?;
        let range = Range::new(base, len);
        // SAFETY: waking changes no memory.
        unsafe { kernel::wake(self.as_fd(), &range) }.map_err(|source| UserfaultError::Kernel {
            what: "wake who waits for guest RAM",
            source,
        })
    }

    /// Takes who has begun to wait since the last call, and appends it to `out`; returns at once, with what there is. The
    /// descriptor ([`AsFd`]) is readable when there is something.
    ///
    /// # Errors
    /// If the descriptor cannot be read.
    pub fn take_faults(&self, out: &mut Vec<Fault>) -> io::Result<usize> {
        let mut buffer = [0; BATCH * MESSAGE];
        match rustix::io::read(&self.fd, &mut buffer) {
            Ok(count) => {
                let before = out.len();
                let (messages, _) = buffer[..count].as_chunks::<MESSAGE>();
                out.extend(messages.iter().filter_map(kernel::fault));
                Ok(out.len() - before)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Fills pages with `call`, which gets address, bytes done and bytes left, and returns the kernel's answer and its count.
    fn fill(
        &self,
        ram: &GuestRam,
        offset: u64,
        length: u64,
        what: &'static str,
        mut call: impl FnMut(*mut u8, usize, usize) -> (io::Result<()>, i64),
    ) -> Result<u64, UserfaultError> {
        let (base, len) = ram.pointer(offset, length)?;
        let page = usize::try_from(ram.page_size()).unwrap_or(usize::MAX);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let refused = |source| UserfaultError::Kernel { what, source };
        if !len.is_multiple_of(page) || !start.is_multiple_of(page) {
            return Err(refused(io::ErrorKind::InvalidInput.into()));
        }
        let (mut done, mut placed, mut tries) = (0, 0, 0);
        while done < len {
            let (result, count) = call(base.wrapping_add(done), done, len - done);
            let Err(error) = result else {
                return Ok(placed + (len - done) as u64);
            };
            match (error.raw_os_error(), usize::try_from(count)) {
                (Some(libc::EEXIST), _) => done += page,
                // Part of it was done.
                (Some(libc::EAGAIN), Ok(part)) if part > 0 => {
                    done += part;
                    placed += part as u64;
                }
                (Some(libc::EAGAIN), _) if tries < TRIES => {
                    tries += 1;
                    std::thread::yield_now();
                }
                _ => return Err(refused(error)),
            }
        }
        Ok(placed)
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// All of the memory, for the kernel.
fn whole(ram: &GuestRam) -> Result<Range, OutOfBounds> {
    let (base, len) = ram.pointer(0, ram.len())?;
    Ok(Range::new(base, len))
}
