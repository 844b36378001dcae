//! The end of a buffer, behind which there is room.

use crate::der::length_octets;

/// Most room that is made beyond what is asked for.
const PIECE: usize = 4096;

/// Appends to a buffer. It is longer meanwhile, so that most of what is appended needs no room of its own: to ask for room each
/// time takes longer than to write a number.
pub(super) struct Room<'o> {
    out: &'o mut Vec<u8>,
    /// Where what has been appended begins and ends.
    start: usize,
    end: usize,
}

impl<'o> Room<'o> {
    pub(super) const fn behind(out: &'o mut Vec<u8>) -> Self {
        let end = out.len();
        Self {
            out,
            start: end,
            end,
        }
    }

    /// Takes away what was not used.
    pub(super) fn close(self) {
        self.out.truncate(self.end);
    }

    /// Where what comes next will stand.
    pub(super) const fn end(&self) -> usize {
        self.end
    }

    /// At least `size` bytes to be written. [`Room::take`] says how many of them have been.
    #[inline]
    pub(super) fn ahead(&mut self, size: usize) -> Option<&mut [u8]> {
        let end = self.end.checked_add(size)?;
        if end > self.out.len() {
            self.grow(end)?;
        }
        self.out.get_mut(self.end..)
    }

    #[cold]
    fn grow(&mut self, end: usize) -> Option<()> {
        // As much again as there is already.
        let more = self.end.saturating_sub(self.start).min(PIECE);
        self.out.resize(end.checked_add(more)?, 0);
        Some(())
    }

    #[inline]
    pub(super) const fn take(&mut self, size: usize) {
        self.end = self.end.saturating_add(size);
    }

    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.ahead(bytes.len())?
            .get_mut(..bytes.len())?
            .copy_from_slice(bytes);
        self.take(bytes.len());
        Some(())
    }

    /// Lends the buffer, without any room.
    pub(super) fn lend(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.out.truncate(self.end);
        change(self.out);
        self.end = self.out.len();
    }

    /// Begins a value that [`Room::close_value`] ends, with room for one length octet.
    #[inline]
    pub(super) fn open_value(&mut self, tag: u8) -> Option<usize> {
        *self.ahead(2)?.first_chunk_mut()? = [tag, 0];
        let start = self.end;
        self.take(2);
        Some(start)
    }

    /// Ends the value that was begun at `start`. Its content moves if it is long.
    #[inline]
    pub(super) fn close_value(&mut self, start: usize) -> Option<()> {
        let content = start.checked_add(2)?;
        let size = self.end.checked_sub(content)?;
        match u8::try_from(size) {
            Ok(size @ ..=0x7f) => {
                *self.out.get_mut(start.checked_add(1)?)? = size;
                Some(())
            }
            _ => self.close_long(start, size),
        }
    }

    fn close_long(&mut self, start: usize, size: usize) -> Option<()> {
        let (octets, count) = length_octets(size);
        let content = start.checked_add(2)?;
        let behind = start.checked_add(1)?.checked_add(count)?;
        self.ahead(octets.len())?;
        self.out.copy_within(content..self.end, behind);
        self.out
            .get_mut(start.checked_add(1)?..behind)?
            .copy_from_slice(octets.get(..count)?);
        self.take(count.checked_sub(1)?);
        Some(())
    }
}
