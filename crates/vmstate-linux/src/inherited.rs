//! Descriptors that the process was started with.

#![expect(unsafe_code, reason = "a number becomes a descriptor")]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// A duplicate of the descriptor of this number, which a parent has left open for this process. It is not passed on to
/// further programs.
///
/// # Errors
/// As `fcntl(2)`: `EBADF` if no such descriptor is open.
///
/// ```
/// assert!(vmstate_linux::inherited_fd(2).is_ok());
/// assert!(vmstate_linux::inherited_fd(-1).is_err());
/// ```
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes any number, looks it up and changes nothing that exists.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
