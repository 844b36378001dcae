//! Unix sockets at paths: listening where nobody listens, and leaving nothing behind.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// A socket at a path. The path is removed when this is dropped, if it is still this socket's.
#[derive(Debug)]
pub(crate) struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the path.
    place: Option<(u64, u64)>,
}

impl LocalListener {
    /// Listens at `path`. A socket there that belongs to no process any more is replaced; one that lives is not disturbed, and
    /// what is no socket is left alone.
    ///
    /// # Errors
    /// `AddrInUse` if another process has a socket there; `AlreadyExists` for a file that is none; what the system says.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // Of two that find the same deserted socket, the second must not remove what the first has put there.
                let _turn = Turn::take(path)?;
                clear(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        let place = fs::symlink_metadata(path)
            .ok()
            .map(|found| (found.dev(), found.ino()));
        Ok(Self {
            listener,
            path: path.to_owned(),
            place,
        })
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &UnixListener {
        &self.listener
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path).ok();
        if found.map(|found| (found.dev(), found.ino())) == self.place {
            // Whoever has removed it before us has done no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The turn to replace a socket in a directory, as long as it is kept: a lock on the directory.
struct Turn {
    _directory: Option<OwnedFd>,
}

impl Turn {
    fn take(path: &Path) -> io::Result<Self> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match open(parent, flags, Mode::empty()) {
            Ok(directory) => directory,
            // A directory that may be written but not read can only be used without.
            Err(Errno::ACCESS) => return Ok(Self { _directory: None }),
            Err(error) => return Err(error.into()),
        };
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            // Somebody else is putting a socket there.
            Err(Errno::AGAIN) => Err(io::ErrorKind::AddrInUse.into()),
            // Not every file system has locks.
            _ => Ok(Self {
                _directory: Some(directory),
            }),
        }
    }
}

/// Removes a socket that a process has left behind.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // It has just gone by itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of that name which is no socket",
        ));
    }
    if !is_deserted(path)? {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    fs::remove_file(path)
}

/// Whether the socket at `path` belongs to nobody any more.
///
/// A connection would be taken for the one that its owner waits for. So a datagram socket asks: a stream socket that lives refuses it
/// as being of another type, without its owner noticing, and one that does not live refuses everything.
fn is_deserted(path: &Path) -> io::Result<bool> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    Ok(connect(&probe, &address) == Err(Errno::CONNREFUSED))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn refusal(path: &Path) -> io::ErrorKind {
        LocalListener::bind(path).unwrap_err().kind()
    }

    #[test]
    fn a_deserted_socket_is_replaced_and_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = LocalListener::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.img");
        fs::write(&file, "sectors").unwrap();
        assert_eq!(refusal(&file), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"sectors");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(refusal(&link), io::ErrorKind::AlreadyExists);
        assert!(fs::symlink_metadata(&link).is_ok() && file.exists());
        assert_eq!(refusal(dir.path()), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_listener_does_not_notice_that_another_wanted_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = LocalListener::bind(&path).unwrap();
        assert_eq!(refusal(&path), io::ErrorKind::AddrInUse);
        first.socket().set_nonblocking(true).unwrap();
        let kind = first.socket().accept().unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock, "nobody has come");
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"x").unwrap();
        first.socket().accept().unwrap();
    }

    #[test]
    fn a_path_that_is_another_sockets_by_now_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = LocalListener::bind(&path).unwrap();
        // Moved, not removed: its inode number is not free for the second.
        fs::rename(&path, dir.path().join("old")).unwrap();
        let second = LocalListener::bind(&path).unwrap();
        drop(first);
        UnixStream::connect(second.path()).unwrap();
    }

    #[test]
    fn one_at_a_time_replaces_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let turn = Turn::take(&path).unwrap();
        assert_eq!(refusal(&path), io::ErrorKind::AddrInUse);
        drop(turn);
        LocalListener::bind(&path).unwrap();
    }
}
