//! Lists of pieces that the kernel copies to or from a file descriptor in one call.

#![expect(unsafe_code, reason = "handing addresses to the kernel")]

#[cfg(test)]
mod tests;

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use crate::{GuestRam, OutOfBounds};

/// Most pieces that Linux takes in one call (`UIO_MAXIOV`). More are passed in several.
const MOST: usize = 1024;

/// A piece of memory by address.
#[derive(Debug, Clone, Copy)]
struct Piece {
    base: *mut u8,
    len: usize,
}

/// Pieces of which a part is done.
#[derive(Debug, Default)]
struct Pieces {
    list: Vec<Piece>,
    /// The first piece that is not done, and what is done of it.
    next: usize,
    within: usize,
    left: u64,
}

// SAFETY: addresses only; the lists that own them say why what they point to may be used from other threads.
unsafe impl Send for Pieces {}

impl Pieces {
    fn push(&mut self, base: *mut u8, len: usize) {
        if len == 0 {
            return;
        }
        self.left += len as u64;
        // Neighbours in one mapping become one piece. Their addresses may also meet by chance; that does no harm, the
        // kernel knows addresses only.
        if let Some(last) = self.list.get_mut(self.next..).and_then(<[_]>::last_mut)
            && last.base.wrapping_add(last.len) == base
        {
            last.len += len;
        } else {
            self.list.push(Piece { base, len });
        }
    }

    /// The next pieces as the kernel takes them.
    fn vectors(&self) -> Vec<libc::iovec> {
        let rest = self.list.get(self.next..).unwrap_or_default();
        let mut done = self.within;
        rest.iter()
            .take(MOST)
            .map(|piece| {
                let skip = std::mem::take(&mut done);
                libc::iovec {
                    iov_base: piece.base.wrapping_add(skip).cast(),
                    iov_len: piece.len - skip,
                }
            })
            .collect()
    }

    /// Counts bytes as done.
    fn advance(&mut self, mut bytes: usize) {
        self.left -= bytes as u64;
        while let Some(piece) = self.list.get(self.next)
            && bytes >= piece.len - self.within
        {
            bytes -= piece.len - self.within;
            self.next += 1;
            self.within = 0;
        }
        self.within += bytes;
    }

    /// Passes what one call takes, and says how many bytes that were.
    fn pass(
        &mut self,
        call: impl FnOnce(*const libc::iovec, libc::c_int) -> libc::ssize_t,
    ) -> io::Result<usize> {
        let vectors = self.vectors();
        let Ok(count) = libc::c_int::try_from(vectors.len()) else {
            unreachable!("at most {MOST}");
        };
        if count == 0 {
            return Ok(0);
        }
        let done = usize::try_from(call(vectors.as_ptr(), count))
            .map_err(|_| io::Error::last_os_error())?;
        self.advance(done);
        Ok(done)
    }
}

/// Bytes and ranges of guest RAM, to be written to a file descriptor in order, without copying the RAM.
///
/// The kernel reads the RAM during the call: what a hart writes meanwhile is sent as old or new, byte by byte.
///
/// A writer that must not end its process when the peer has gone ignores `SIGPIPE`, as Rust programs do.
///
/// ```
/// use std::io::Read;
/// use vmstate_linux::{Gather, GuestRam};
///
/// let ram = GuestRam::new(1 << 20)?;
/// ram.write(0x2000, b"page")?;
/// let (mut reader, writer) = std::io::pipe()?;
/// let mut list = Gather::new();
/// list.bytes(b"header:");
/// list.ram(&ram, 0x2000, 4)?;
/// list.write_all_to(&writer)?;
/// drop(writer);
/// let mut sent = String::new();
/// reader.read_to_string(&mut sent)?;
/// assert_eq!(sent, "header:page");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Gather<'a> {
    pieces: Pieces,
    /// Copied bytes, in boxes that do not move when more come.
    copies: Vec<Vec<u8>>,
    borrowed: PhantomData<(&'a GuestRam, &'a [u8])>,
}

impl<'a> Gather<'a> {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a copy of a few bytes, such as a page's header.
    pub fn bytes(&mut self, bytes: &[u8]) {
        /// What is taken at least for the copies that follow.
        const CHUNK: usize = 16 << 10;
        let fits = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= bytes.len();
        if !self.copies.last().is_some_and(fits) {
            self.copies.push(Vec::with_capacity(bytes.len().max(CHUNK)));
        }
        if let Some(chunk) = self.copies.last_mut() {
            let start = chunk.len();
            // It has room, so what it holds stays where it is.
            chunk.extend_from_slice(bytes);
            let base = chunk.as_mut_ptr().wrapping_add(start);
            self.pieces.push(base, bytes.len());
        }
    }

    /// Appends bytes that stay where they are.
    pub fn borrowed(&mut self, bytes: &'a [u8]) {
        // The kernel only reads from pieces of this list.
        self.pieces.push(bytes.as_ptr().cast_mut(), bytes.len());
    }

    /// Appends a range of guest RAM.
    ///
    /// # Errors
    /// If the range is not inside.
    pub fn ram(&mut self, ram: &'a GuestRam, offset: u64, len: u64) -> Result<(), OutOfBounds> {
        let (base, len) = ram.pointer(offset, len)?;
        self.pieces.push(base, len);
        Ok(())
    }

    /// Bytes that are not written yet.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.pieces.left
    }

    /// Writes once, up to 1024 pieces, and returns the number of bytes that went. What is left stays in the list.
    ///
    /// # Errors
    /// As `writev(2)`; the list is unchanged then.
    pub fn write_to(&mut self, to: impl AsFd) -> io::Result<usize> {
        let fd = to.as_fd().as_raw_fd();
        self.pieces.pass(|vectors, count| {
            // SAFETY: the vectors live during the call, and so do the pieces: copies are owned by this list and do not
            // move, the others are borrowed for longer than it. Guest RAM is shared memory that the kernel may read while
            // it changes.
            unsafe { libc::writev(fd, vectors, count) }
        })
    }

    /// Writes everything to a descriptor that blocks.
    ///
    /// # Errors
    /// As [`write_to`](Self::write_to), except that an interrupted call is made again; [`io::ErrorKind::WriteZero`] if
    /// nothing goes any more. What was not written is still in the list.
    pub fn write_all_to(&mut self, to: impl AsFd) -> io::Result<()> {
        while self.left() > 0 {
            match self.write_to(&to) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets everything and keeps the list's memory for other pieces.
    #[must_use]
    pub fn recycle<'b>(self) -> Gather<'b> {
        let Self {
            pieces: Pieces { mut list, .. },
            mut copies,
            borrowed: _,
        } = self;
        list.clear();
        copies.truncate(1);
        if let Some(chunk) = copies.first_mut() {
            chunk.clear();
        }
        Gather {
            pieces: Pieces {
                list,
                ..Pieces::default()
            },
            copies,
            borrowed: PhantomData,
        }
    }
}

/// Buffers and ranges of guest RAM, to be filled from a file descriptor in order, without a copy in between.
///
/// ```
/// use std::io::Write;
/// use vmstate_linux::{GuestRam, Scatter};
///
/// let ram = GuestRam::new(1 << 20)?;
/// let (reader, mut writer) = std::io::pipe()?;
/// writer.write_all(b"page|next header")?;
/// drop(writer);
/// let mut next = [0; 20];
/// let mut list = Scatter::new();
/// list.ram(&ram, 0x2000, 4)?;
/// list.buffer(&mut next);
/// while list.read_from(&reader)? > 0 {}
/// assert_eq!(list.left(), 8);
/// assert_eq!(&next[..12], b"|next header");
/// assert_eq!(ram.load::<u8>(0x2003), Some(b'e'));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Scatter<'a> {
    pieces: Pieces,
    borrowed: PhantomData<(&'a GuestRam, &'a mut [u8])>,
}

impl<'a> Scatter<'a> {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a buffer.
    pub fn buffer(&mut self, buffer: &'a mut [u8]) {
        self.pieces.push(buffer.as_mut_ptr(), buffer.len());
    }

    /// Appends a range of guest RAM.
    ///
    /// # Errors
    /// If the range is not inside.
    pub fn ram(&mut self, ram: &'a GuestRam, offset: u64, len: u64) -> Result<(), OutOfBounds> {
        let (base, len) = ram.pointer(offset, len)?;
        self.pieces.push(base, len);
        Ok(())
    }

    /// Bytes that are not filled yet.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.pieces.left
    }

    /// Reads once, up to 1024 pieces, and returns the number of bytes that came: 0 if the list is full, or at the end of
    /// the input.
    ///
    /// # Errors
    /// As `readv(2)`; the list is unchanged then.
    pub fn read_from(&mut self, from: impl AsFd) -> io::Result<usize> {
        let fd = from.as_fd().as_raw_fd();
        self.pieces.pass(|vectors, count| {
            // SAFETY: the vectors live during the call, and so do the pieces, which are borrowed for longer than this list:
            // buffers exclusively, guest RAM as shared memory that the kernel may write while others use it.
            unsafe { libc::readv(fd, vectors, count) }
        })
    }

    /// Reads until the list is full, from a descriptor that blocks.
    ///
    /// # Errors
    /// As [`read_from`](Self::read_from), except that an interrupted call is made again;
    /// [`io::ErrorKind::UnexpectedEof`] if the input ends before.
    pub fn read_all_from(&mut self, from: impl AsFd) -> io::Result<()> {
        while self.left() > 0 {
            match self.read_from(&from) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
