//! Where a converted stream goes.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tempfile::NamedTempFile;

/// How many symbolic links in a row are followed.
const MAX_LINKS: usize = 40;

/// A file appears under its name when it is complete.
pub(super) enum Output {
    Standard,
    /// Not a regular file: a pipe or a device.
    Opened(File),
    File {
        file: NamedTempFile,
        /// Where it belongs: behind all links.
        target: PathBuf,
        /// Whose the file is that stands there now.
        before: Option<Owner>,
    },
}

/// To whom a file belongs: user, group, and its mode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    user: u32,
    group: u32,
    mode: u32,
}

impl From<Metadata> for Owner {
    fn from(metadata: Metadata) -> Self {
        Self {
            user: metadata.uid(),
            group: metadata.gid(),
            mode: metadata.mode(),
        }
    }
}

impl Output {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Standard);
        }
        let before = std::fs::metadata(path).ok();
        if before.as_ref().is_some_and(|before| !before.is_file()) {
            return File::options().write(true).open(path).map(Self::Opened);
        }
        let target = behind_links(path)?;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Guest memory is nobody else's business: the mode is 0600.
        let file = NamedTempFile::new_in(directory)?;
        remove_on_signals(file.path())?;
        Ok(Self::File {
            file,
            target,
            before: before.map(Owner::from),
        })
    }

    pub(super) fn writer(&mut self) -> Noting<'_> {
        Noting {
            inner: match self {
                Self::Standard => Box::new(io::stdout().lock()),
                Self::Opened(file) => Box::new(file),
                Self::File { file, .. } => Box::new(file.as_file_mut()),
            },
            failed: None,
        }
    }

    /// Puts the file in its place. One that stood there hands on its owner and its mode.
    pub(super) fn keep(self) -> io::Result<()> {
        let Self::File {
            file,
            target,
            before,
        } = self
        else {
            return Ok(());
        };
        if let Some(before) = before {
            let now = Owner::from(file.as_file().metadata()?);
            let is_theirs = (now.user, now.group) == (before.user, before.group)
                || fchown(file.as_file(), Some(before.user), Some(before.group)).is_ok();
            // What the mode gives to a group is not for another group.
            let mode = before.mode & if is_theirs { 0o777 } else { 0o700 };
            file.as_file()
                .set_permissions(Permissions::from_mode(mode))?;
        }
        file.persist(target).map_err(|e| e.error)?;
        Ok(())
    }
}

/// Where a path leads to, if that is a link, even to a file that is not there yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&path) {
            // One that is relative is so to the link's directory.
            Ok(to) => {
                let directory = path.parent().unwrap_or(Path::new(""));
                path = directory.join(to);
            }
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Whoever is interrupted leaves no guest memory behind.
fn remove_on_signals(path: &Path) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let path = path.to_owned();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                // It may have got its name just now: then it is complete.
                let _ = std::fs::remove_file(&path);
                let _ = emulate_default_handler(signal);
            }
        })?;
    Ok(())
}

/// A writer that remembers how it failed: what converts cannot tell errors of its output from those of its input.
pub(super) struct Noting<'a> {
    inner: Box<dyn Write + 'a>,
    pub(super) failed: Option<io::Error>,
}

impl Noting<'_> {
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                let same = match error.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => error.kind().into(),
                };
                self.failed = Some(same);
            }
        })
    }
}

impl Write for Noting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.inner.flush();
        self.note(result)
    }
}
