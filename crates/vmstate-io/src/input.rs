//! Where bytes come from: mapped files, pipes, memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use vmstate_linux::MappedFile;

/// Smallest window that is read ahead.
const SMALL_WINDOW: usize = 24;
/// Largest window that is read ahead without being asked for.
const LARGE_WINDOW: usize = 256 << 10;

/// After how many bytes of a mapped file the memory of what lies behind is given back.
const FORGET: u64 = 32 << 20;
/// How many jumps ahead the next places are touched: pages of guest RAM come at a steady stride.
const AHEAD: u64 = 6;

/// A stream's bytes, from front to back, with skipping.
pub trait Input {
    /// The bytes from the present position on: at least `min` unless the input ends before, perhaps more.
    ///
    /// # Errors
    /// What reading gives.
    fn peek(&mut self, min: usize) -> io::Result<&[u8]>;

    /// Moves on by `count` bytes, over bytes that were never peeked if need be. Returns how many bytes there were.
    ///
    /// # Errors
    /// What reading gives.
    fn consume(&mut self, count: u64) -> io::Result<u64>;

    /// Offset of the next byte.
    fn position(&self) -> u64;

    /// Length of the whole input, if it is known and can be read at any place.
    fn len(&self) -> Option<u64> {
        None
    }

    /// Whether the input is known to have no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The file behind the input, where it is mapped: then content can be read again later.
    fn file(&self) -> Option<Arc<MappedFile>> {
        None
    }

    /// Copies bytes from any place, without moving. Only for inputs with a length. Returns how many.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] for pipes.
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let _ = (offset, out);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Opens a file for [`inspect`](crate::inspect): mapped if it is a regular file, read otherwise; `-` is standard input.
///
/// # Errors
/// What opening and mapping give.
pub fn open(path: &Path) -> io::Result<Box<dyn Input>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(ReadInput::new(io::stdin())));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        Ok(Box::new(MapInput::new(MappedFile::new(&file)?)))
    } else {
        Ok(Box::new(ReadInput::new(file)))
    }
}

/// Bytes in memory.
#[derive(Debug)]
pub struct SliceInput<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> SliceInput<'a> {
    /// An input of these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }
}

impl Input for SliceInput<'_> {
    fn peek(&mut self, _min: usize) -> io::Result<&[u8]> {
        Ok(self.bytes.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, count: u64) -> io::Result<u64> {
        let left = self.bytes.len().saturating_sub(self.position);
        let count = usize::try_from(count).unwrap_or(left).min(left);
        self.position += count;
        Ok(count as u64)
    }

    fn position(&self) -> u64 {
        self.position as u64
    }

    fn len(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.bytes.get(offset..))
            .unwrap_or_default();
        let n = rest.len().min(out.len());
        if let (Some(out), Some(rest)) = (out.get_mut(..n), rest.get(..n)) {
            out.copy_from_slice(rest);
        }
        Ok(n)
    }
}

/// A mapped file. Reads ahead little after a jump and more the longer it goes without one.
#[derive(Debug)]
pub struct MapInput {
    map: Arc<MappedFile>,
    window: Box<[u8]>,
    /// File offset of the window.
    start: u64,
    /// Valid bytes in the window.
    filled: usize,
    position: u64,
    ahead: usize,
    /// Where memory is given back next.
    forget_at: u64,
}

impl MapInput {
    /// An input of this file's bytes.
    #[must_use]
    pub fn new(map: MappedFile) -> Self {
        Self {
            map: Arc::new(map),
            window: vec![0; LARGE_WINDOW].into(),
            start: 0,
            filled: 0,
            position: 0,
            ahead: SMALL_WINDOW,
            forget_at: FORGET,
        }
    }

    fn buffered(&self) -> &[u8] {
        self.position
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .and_then(|skip| self.window.get(skip..self.filled))
            .unwrap_or_default()
    }
}

impl Input for MapInput {
    fn peek(&mut self, min: usize) -> io::Result<&[u8]> {
        if self.buffered().len() < min.max(1) {
            let want = min.max(self.ahead);
            self.ahead = (self.ahead * 2).min(LARGE_WINDOW);
            if self.window.len() < want {
                self.window = vec![0; want.next_power_of_two()].into();
            }
            self.start = self.position;
            let window = self.window.get_mut(..want).unwrap_or_default();
            self.filled = self.map.read_at(self.position, window);
        }
        Ok(self.buffered())
    }

    fn consume(&mut self, count: u64) -> io::Result<u64> {
        let left = (self.map.len() as u64).saturating_sub(self.position);
        let count = count.min(left);
        let jump = count > self.buffered().len() as u64;
        self.position += count;
        if jump {
            self.ahead = SMALL_WINDOW;
            self.map
                .touch(self.position.saturating_add(AHEAD * count.min(1 << 20)));
        }
        if self.position >= self.forget_at {
            self.forget_at = self.position + FORGET;
            self.map.forget_up_to(self.position);
        }
        Ok(count)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn len(&self) -> Option<u64> {
        Some(self.map.len() as u64)
    }

    fn file(&self) -> Option<Arc<MappedFile>> {
        Some(Arc::clone(&self.map))
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.map.read_at(offset, out))
    }
}

/// A pipe, or anything else that can only be read from front to back.
#[derive(Debug)]
pub struct ReadInput<R> {
    reader: R,
    buffer: Vec<u8>,
    /// First byte in `buffer` that has not been consumed.
    start: usize,
    /// End of the valid bytes in `buffer`.
    end: usize,
    position: u64,
    ended: bool,
}

impl<R: Read> ReadInput<R> {
    /// An input that reads from `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: vec![0; LARGE_WINDOW],
            start: 0,
            end: 0,
            position: 0,
            ended: false,
        }
    }

    fn fill(&mut self, min: usize) -> io::Result<()> {
        if self.buffer.len() - self.start < min {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() < min {
                self.buffer.resize(min.next_power_of_two(), 0);
            }
        }
        while !self.ended && self.end - self.start < min {
            let space = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.reader.read(space) {
                Ok(0) => self.ended = true,
                Ok(n) => self.end += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl<R: Read> Input for ReadInput<R> {
    fn peek(&mut self, min: usize) -> io::Result<&[u8]> {
        self.fill(min.max(1))?;
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, count: u64) -> io::Result<u64> {
        let mut left = count;
        while left > 0 {
            let buffered = self.end - self.start;
            let step = usize::try_from(left).unwrap_or(buffered).min(buffered);
            self.start += step;
            self.position += step as u64;
            left -= step as u64;
            if left > 0 {
                self.fill(1)?;
                if self.start == self.end {
                    break;
                }
            }
        }
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        Ok(count - left)
    }

    fn position(&self) -> u64 {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives bytes one by one.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(1).min(out.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn all_inputs_give_the_same_bytes() {
        let content: Vec<u8> = (0..100_000_u32).map(|i| (i % 253) as u8).collect();
        let mut file = tempfile();
        io::Write::write_all(&mut file, &content).unwrap();
        let mut inputs: Vec<Box<dyn Input>> = vec![
            Box::new(SliceInput::new(&content)),
            Box::new(ReadInput::new(&*content)),
            Box::new(ReadInput::new(Trickle(&content))),
            Box::new(MapInput::new(MappedFile::new(&file).unwrap())),
        ];
        for input in &mut inputs {
            let mut at = 0;
            for (peek, consume) in [(1, 1), (300, 7), (8, 40_000), (50_000, 50_000), (9, 3)] {
                let bytes = input.peek(peek).unwrap();
                let there = bytes.len().min(peek);
                assert_eq!(there, peek.min(content.len() - at));
                assert_eq!(bytes[..there], content[at..at + there]);
                assert_eq!(input.consume(consume as u64).unwrap(), consume as u64);
                at += consume;
                assert_eq!(input.position(), at as u64);
            }
            let left = (content.len() - at) as u64;
            assert_eq!(input.consume(u64::MAX).unwrap(), left);
            assert!(input.peek(1).unwrap().is_empty());
        }
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("vmstate-input-{}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }
}
