//! Opening streams, and showing how far their reading has come.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstate_io::inspect::{DEFAULT_MEMORY, Options};
use vmstate_io::schema::MAX_TEXT;
use vmstate_io::{Dump, Input, MappedFile, open};

use crate::args::Reading;
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
    pub(crate) fn open(file: &Path, channels: &[PathBuf], start: u64) -> Result<Self, Failure> {
        if start == 0
            && let Some(what) = json(file)
        {
            return Err(what);
        }
        Self::open_any(file, channels, start)
    }

    /// As [`open`](Self::open), also of a stream that was converted to JSON.
    pub(crate) fn open_any(file: &Path, channels: &[PathBuf], start: u64) -> Result<Self, Failure> {
        if start == 0
            && let Some(what) = foreign(file)
        {
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

/// What the command line means for an analysis.
pub(crate) fn options(reading: &Reading) -> Result<Options, Failure> {
    let describe = match &reading.describe {
        Some(path) => {
            let text = read_bounded(path, MAX_TEXT).map_err(|e| Failure::open(path, &e))?;
            let dump = Dump::parse(&text).map_err(|e| {
                Failure::new(format!("{}: {e}", path.display()))
                    .with_advice("make the file with: qemu-system-… -machine … -dump-vmstate FILE")
            })?;
            Some(Arc::new(dump))
        }
        None => None,
    };
    Ok(Options {
        memory: reading.memory.unwrap_or(DEFAULT_MEMORY),
        ram_memory: reading.memory.unwrap_or(u64::MAX),
        page_size: reading.page_size,
        start: reading.start,
        describe,
        ..Options::default()
    })
}

/// A whole file, of at most so many bytes: devices and pipes have no end that could be seen beforehand.
pub(crate) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(max.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        let what = format!("it has more than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(content)
}

fn name(file: &Path) -> String {
    if file.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}

/// Files that hold no stream, but from which one can be had.
pub(crate) fn foreign(file: &Path) -> Option<Failure> {
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
    let n = opened.read(&mut start).ok()?;
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
            Some(save_image(file))
        }
        _ if start.starts_with(b"QFI\xfb") => Some(
            Failure::new(format!("{path} is a qcow2 image"))
                .with_advice("snapshots inside of disk images cannot be read; record a stream with: migrate file:PATH"),
        ),
        _ => None,
    }
}

/// A stream as JSON, which is for people, scripts and the way back.
pub(crate) fn json(file: &Path) -> Option<Failure> {
    if !std::fs::metadata(file).ok()?.is_file() {
        return None;
    }
    let mut start = Vec::new();
    let opened = std::fs::File::open(file).ok()?;
    opened.take(64).read_to_end(&mut start).ok()?;
    let is_json = start.trim_ascii_start().starts_with(b"{");
    let name = b"\"vmstate-stream/1\"";
    (is_json && start.windows(name.len()).any(|w| w == name)).then(|| {
        let path = file.display();
        Failure::new(format!("{path} is a stream as JSON"))
            .with_advice(format!("try: vmstate convert {path} FILE --to qemu"))
    })
}

/// How streams begin: QEMU's, and VM state over BER.
const STREAMS: [&[u8]; 2] = [b"QEVM\0\0\0\x03", b"\x60\x80\x0c\x0dvmstate-ber/1"];
/// How far into a file a stream is looked for.
const SEARCHED: u64 = 1 << 20;

/// Where in a regular file a stream begins.
pub(crate) fn find_magic(file: &Path) -> Option<usize> {
    let opened = std::fs::File::open(file).ok()?;
    if !opened.metadata().ok()?.is_file() {
        return None;
    }
    let mut start = Vec::new();
    opened.take(SEARCHED).read_to_end(&mut start).ok()?;
    let begins = |magic: &[u8]| start.windows(magic.len()).position(|w| w == magic);
    let found = STREAMS.iter().filter_map(|magic| begins(magic));
    found.min()
}

/// Bytes of the fixed part of libvirt's header; the length of the rest stands at byte 20 of it.
const SAVE_HEADER: u64 = 92;

/// A save image of libvirt: header, description of the domain, stream.
fn save_image(file: &Path) -> Failure {
    let path = file.display();
    let failure = Failure::new(format!(
        "{path} is a save image of libvirt, in which the stream stands behind a header"
    ));
    let mut length = [0; 4];
    let mut magic = [0; 4];
    let found = std::fs::File::open(file).ok().and_then(|file| {
        file.read_exact_at(&mut length, 20).ok()?;
        let start = SAVE_HEADER + u64::from(u32::from_ne_bytes(length));
        file.read_exact_at(&mut magic, start).ok()?;
        (&magic == b"QEVM").then_some(start)
    });
    match found {
        Some(start) => failure.with_advice(format!("add --start {start}")),
        None => failure.with_advice(
            "the stream in it is compressed: save with save_image_format = \"raw\" in qemu.conf",
        ),
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

    fn file(&self) -> Option<Arc<MappedFile>> {
        self.inner.file()
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
