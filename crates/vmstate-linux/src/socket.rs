//! How much of a stream waits in the kernel, on its way through a socket.

#![expect(unsafe_code, reason = "socket options that rustix does not have")]

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

/// Where `tcpi_min_rtt`, in µs, stands in `struct tcp_info`, in words of 32 bits.
const MIN_RTT: usize = 148 / 4;

/// Has no more than about so many bytes wait on this side of a stream socket: what does not fit is not accepted by a write. What
/// is written later then overtakes nothing, but has less in front of it.
///
/// Unix: `SO_SNDBUF`, which holds whatever the peer has not read. TCP: `TCP_NOTSENT_LOWAT`, which leaves out what is on
/// its way, so that it costs no throughput on a long link. Other sockets stay as they are.
///
/// # Errors
/// If it is no socket.
///
/// ```
/// use std::io::Write as _;
/// use std::os::unix::net::UnixStream;
///
/// let (mut writer, _reader) = UnixStream::pair()?;
/// vmstate_linux::limit_unsent(&writer, 16 << 10)?;
/// writer.set_nonblocking(true)?;
/// let accepted = writer.write(&[0; 1 << 20])?;
/// assert!(accepted < 128 << 10);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn limit_unsent(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    match get(&socket, libc::SOL_SOCKET, libc::SO_DOMAIN)? {
        // The system doubles it.
        libc::AF_UNIX => set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes / 2),
        libc::AF_INET | libc::AF_INET6 => {
            set(&socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)
        }
        _ => Ok(()),
    }
}

/// Has the peer of a TCP connection send no more than about so many bytes that have not been read here, from now on; the system
/// would give it many MiB where it can (`SO_RCVBUF`, at most `net.core.rmem_max`). A link whose round trip takes longer than these
/// bytes take to send is not filled then. Other sockets stay as they are: a Unix socket has no room on this side.
///
/// # Errors
/// If it is no socket.
pub fn limit_unread(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    match get(&socket, libc::SOL_SOCKET, libc::SO_DOMAIN)? {
        libc::AF_INET | libc::AF_INET6 => {
            // The system doubles it. What it promised before is still taken.
            set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes / 2)
        }
        _ => Ok(()),
    }
}

/// The least time that a TCP connection has taken there and back in the last minutes; none for other sockets, and before anything
/// has been acknowledged.
///
/// # Errors
/// If it is no socket.
pub fn least_round_trip(socket: impl AsFd) -> io::Result<Option<Duration>> {
    let domain = get(&socket, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    if domain != libc::AF_INET && domain != libc::AF_INET6 {
        return Ok(None);
    }
    // `struct tcp_info`, the first bytes. Of an old kernel, fewer; the rest stays 0.
    let mut info = [0_u32; MIN_RTT + 1];
    let mut length = length_of(&info);
    let fd = socket.as_fd().as_raw_fd();
    let to = (&raw mut info).cast();
    // SAFETY: the kernel writes at most `length` bytes, which the value has.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut length) };
    answer(result)?;
    let known = Some(info[MIN_RTT]).filter(|least| (1..u32::MAX).contains(least));
    Ok(known.map(|least| Duration::from_micros(least.into())))
}

fn get(socket: impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = length_of(&value);
    let fd = socket.as_fd().as_raw_fd();
    let to = (&raw mut value).cast();
    // SAFETY: the kernel writes at most `length` bytes, which the value has.
    answer(unsafe { libc::getsockopt(fd, level, name, to, &raw mut length) })?;
    Ok(value)
}

fn set(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = length_of(&value);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` bytes of the value, and keeps no pointer.
    answer(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) })
}

#[expect(clippy::cast_possible_truncation, reason = "a few bytes")]
const fn length_of<T>(_: &T) -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn answer(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
