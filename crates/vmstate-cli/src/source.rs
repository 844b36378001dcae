//! Opening streams, and showing how far their reading has come.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmstate_io::{Input, open};

use crate::outcome::Failure;

/// How many bytes go by between two looks at the clock.
const STRIDE: u64 = 16 << 20;
/// How long a command may take before it shows that it works.
const PATIENCE: Duration = Duration::from_millis(500);

/// A stream and its further channels.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) main: Box<dyn Input>,
    pub(crate) channels: Vec<Box<dyn Input>>,
}

impl Source {
    pub(crate) fn open(file: &Path, channels: &[PathBuf]) -> Result<Self, Failure> {
        if let Some(what) = foreign(file) {
            return Err(what);
        }
        let opened = |path: &Path| open(path).map_err(|e| Failure::open(path, &e));
        let mut main = opened(file)?;
        if io::stderr().is_terminal() {
            main = Box::new(Progress::new(main));
        }
        Ok(Self {
            name: name(file),
            main,
            channels: channels
                .iter()
                .map(|path| opened(path))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn name(file: &Path) -> String {
    if file.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}

/// Files that hold no stream, but from which one can be had.
fn foreign(file: &Path) -> Option<Failure> {
    if file.as_os_str() == "-" {
        return None;
    }
    let path = file.display();
    let metadata = std::fs::metadata(file).ok()?;
    if metadata.is_dir() {
        return Some(
            Failure::new(format!("{path} is a directory"))
                .with_advice("give the path of a recorded stream, or - for standard input"),
        );
    }
    if !metadata.is_file() {
        return None;
    }
    let mut start = [0; 16];
    let mut opened = std::fs::File::open(file).ok()?;
    let n = io::Read::read(&mut opened, &mut start).ok()?;
    let start = start.get(..n)?;
    let packed = |tool: &str| {
        Failure::new(format!("{path} is compressed"))
            .with_advice(format!("try: {tool} -dc {path} | vmstate … -"))
    };
    match start {
        [0x1f, 0x8b, ..] => Some(packed("gzip")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(packed("zstd")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some(packed("xz")),
        [b'B', b'Z', b'h', ..] => Some(packed("bzip2")),
        _ if start.starts_with(b"LibvirtQemudSave") || start.starts_with(b"LibvirtQemudPart") => {
            Some(
                Failure::new(format!("{path} is a save image of libvirt, which has a header of its own"))
                    .with_advice(format!(
                        "find the stream with: grep -abo QEVM {path} | head -1; then: tail -c +$((OFFSET+1)) {path} | vmstate … -"
                    )),
            )
        }
        _ if start.starts_with(b"QFI\xfb") => Some(
            Failure::new(format!("{path} is a qcow2 image"))
                .with_advice("snapshots inside of disk images cannot be read; record a stream with: migrate file:PATH"),
        ),
        _ => None,
    }
}

/// An input that tells on the terminal how far it has come.
struct Progress {
    inner: Box<dyn Input>,
    begun: Instant,
    told: Option<Instant>,
    next: u64,
}

impl Progress {
    fn new(inner: Box<dyn Input>) -> Self {
        Self {
            inner,
            begun: Instant::now(),
            told: None,
            next: STRIDE,
        }
    }

    #[cold]
    fn tell(&mut self) {
        let position = self.inner.position();
        self.next = position.saturating_add(STRIDE);
        let due = self.told.map_or(self.begun.elapsed() > PATIENCE, |told| {
            told.elapsed() > PATIENCE / 5
        });
        if !due {
            return;
        }
        self.told = Some(Instant::now());
        let mib = position >> 20;
        // Nobody misses a line of progress that could not be written.
        let _ = match self.inner.len() {
            Some(length) if length > 0 => write!(
                io::stderr(),
                "\r  {mib} of {} MiB ({} %) \x1b[K",
                length >> 20,
                position.saturating_mul(100) / length
            ),
            _ => write!(io::stderr(), "\r  {mib} MiB \x1b[K"),
        };
    }
}

impl Input for Progress {
    fn peek(&mut self, min: usize) -> io::Result<&[u8]> {
        self.inner.peek(min)
    }

    fn consume(&mut self, count: u64) -> io::Result<u64> {
        let consumed = self.inner.consume(count)?;
        if self.inner.position() >= self.next {
            self.tell();
        }
        Ok(consumed)
    }

    fn position(&self) -> u64 {
        self.inner.position()
    }

    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, out)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
