//! The kernel's side of userfaultfd: `linux/userfaultfd.h`.
//!
//! | call | number | argument |
//! |---|---|---|
//! | `USERFAULTFD_IOC_NEW`, on the device | 0xaa, 0x00 | flags of `open(2)`; gives a descriptor |
//! | `UFFDIO_API` | 0xaa, 0x3f | [`Api`] |
//! | `UFFDIO_REGISTER` | 0xaa, 0x00 | [`Register`] |
//! | `UFFDIO_UNREGISTER` | 0xaa, 0x01 | [`Range`] |
//! | `UFFDIO_WAKE` | 0xaa, 0x02 | [`Range`] |
//! | `UFFDIO_COPY` | 0xaa, 0x03 | [`Copy`] |
//! | `UFFDIO_ZEROPAGE` | 0xaa, 0x04 | [`Zeropage`] |

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::Fault;

/// Type of the calls, and version of the protocol.
const UFFD: u32 = 0xaa;
/// Feature: messages carry the thread's number.
pub(super) const THREAD_ID: u64 = 1 << 8;
/// Only for what the process touches itself, not for what the kernel does on its behalf.
const USER_MODE_ONLY: libc::c_int = 1;
/// Bytes of a message.
pub(super) const MESSAGE: usize = 32;
/// A thread waits for a page.
const PAGEFAULT: u8 = 0x12;
/// It wants to write.
const WRITE: u64 = 1;
const MODE_MISSING: u64 = 1;

#[repr(C)]
pub(super) struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Range {
    start: u64,
    len: u64,
}

impl Range {
    pub(super) fn new(base: *mut u8, len: usize) -> Self {
        Self {
            start: base.expose_provenance() as u64,
            len: len as u64,
        }
    }
}

#[repr(C)]
pub(super) struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

impl Register {
    pub(super) const fn missing(range: Range) -> Self {
        Self {
            range,
            mode: MODE_MISSING,
            ioctls: 0,
        }
    }
}

#[repr(C)]
pub(super) struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    /// Bytes copied, or an error.
    pub(super) copied: i64,
}

impl Copy {
    /// `len` is at most the length of `source`.
    pub(super) fn new(to: *mut u8, source: &[u8], len: usize) -> Self {
        Self {
            dst: to.expose_provenance() as u64,
            src: source.as_ptr().expose_provenance() as u64,
            len: len.min(source.len()) as u64,
            mode: 0,
            copied: 0,
        }
    }
}

#[repr(C)]
pub(super) struct Zeropage {
    range: Range,
    mode: u64,
    /// Bytes placed, or an error.
    pub(super) zeroed: i64,
}

impl Zeropage {
    pub(super) fn new(to: *mut u8, len: usize) -> Self {
        Self {
            range: Range::new(to, len),
            mode: 0,
            zeroed: 0,
        }
    }
}

/// A new descriptor, by whichever way this process may have one.
pub(super) fn open() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    if let Ok(device) = File::options()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd")
    {
        // SAFETY: the call takes flags by value and makes a descriptor.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), libc::_IO(UFFD, 0x00), flags) };
        if fd >= 0 {
            // SAFETY: the kernel has just made it, so nobody else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    // The restricted kind is the last resort.
    system_call(flags).or_else(|error| system_call(flags | USER_MODE_ONLY).map_err(|_| error))
}

fn system_call(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the call takes flags by value and makes a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    match i32::try_from(fd) {
        // SAFETY: as above.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Agrees with the kernel on the protocol; once for each descriptor.
pub(super) fn handshake(fd: &OwnedFd, features: u64) -> io::Result<()> {
    let mut argument = Api {
        api: UFFD.into(),
        features,
        ioctls: 0,
    };
    let number = libc::_IOWR::<Api>(UFFD, 0x3f);
    // SAFETY: the argument has the layout that the call expects, and lives as long as it.
    answer(unsafe { libc::ioctl(fd.as_raw_fd(), number, &raw mut argument) })
}

fn answer(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// # Safety
/// The range must be a mapping whose missing pages may come late.
pub(super) unsafe fn register(fd: BorrowedFd<'_>, argument: &mut Register) -> io::Result<()> {
    let number = libc::_IOWR::<Register>(UFFD, 0x00);
    // SAFETY: the argument has the layout that the call expects, and lives as long as it; the rest is the caller's.
    answer(unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(argument)) })
}

/// # Safety
/// As [`register`].
pub(super) unsafe fn unregister(fd: BorrowedFd<'_>, argument: &Range) -> io::Result<()> {
    let number = libc::_IOR::<Range>(UFFD, 0x01);
    // SAFETY: as in `register`.
    answer(unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_ref(argument)) })
}

/// # Safety
/// None beyond that of a range.
pub(super) unsafe fn wake(fd: BorrowedFd<'_>, argument: &Range) -> io::Result<()> {
    let number = libc::_IOR::<Range>(UFFD, 0x02);
    // SAFETY: as in `register`.
    answer(unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_ref(argument)) })
}

/// # Safety
/// Source and destination must be readable and writable memory of that length.
pub(super) unsafe fn copy(fd: BorrowedFd<'_>, argument: &mut Copy) -> io::Result<()> {
    let number = libc::_IOWR::<Copy>(UFFD, 0x03);
    // SAFETY: as in `register`.
    answer(unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(argument)) })
}

/// # Safety
/// The destination must be writable memory of that length.
pub(super) unsafe fn zeropage(fd: BorrowedFd<'_>, argument: &mut Zeropage) -> io::Result<()> {
    let number = libc::_IOWR::<Zeropage>(UFFD, 0x04);
    // SAFETY: as in `register`.
    answer(unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(argument)) })
}

/// The fault in a message: kind at 0, flags at 8, address at 16, thread at 24.
pub(super) fn fault(message: &[u8; MESSAGE]) -> Option<Fault> {
    let (words, _) = message.as_chunks::<8>();
    let word = |index: usize| words.get(index).copied().map(u64::from_ne_bytes);
    let thread = message.get(24..28)?.first_chunk().copied();
    (message.first() == Some(&PAGEFAULT)).then_some(Fault {
        address: word(2)?,
        thread: u32::from_ne_bytes(thread?),
        write: word(1)? & WRITE != 0,
    })
}
