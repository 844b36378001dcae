//! Ranges of bytes: copying, and looking for zeros.

use super::word::sealed::Sealed;
use super::{GuestRam, OutOfBounds};

/// Bytes that are looked at before it is decided whether to go on.
const STRIDE: usize = 64;

impl GuestRam {
    /// Copies bytes out.
    ///
    /// # Errors
    /// If the range is not inside; `out` is unchanged then.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), OutOfBounds> {
        let range = self.range(offset, out.len() as u64)?;
        let (head, words, tail) = split(range.start, out);
        let mut at = range.start;
        for byte in head {
            *byte = self.byte(at);
            at += 1;
        }
        for word in words {
            *word = self.word(at).to_le_bytes();
            at += 8;
        }
        for byte in tail {
            *byte = self.byte(at);
            at += 1;
        }
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// If the range is not inside; the memory is unchanged then.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let range = self.range(offset, bytes.len() as u64)?;
        let mut at = range.start;
        let (head, rest) = bytes.split_at(to_alignment(at).min(bytes.len()));
        let (words, tail) = rest.as_chunks::<8>();
        for byte in head {
            self.set_byte(at, *byte);
            at += 1;
        }
        for word in words {
            // SAFETY: `at` is a multiple of 8 here and the mapping begins at a page; the word is inside the range that was
            // checked; the memory is accessed only atomically or by the kernel.
            unsafe { u64::store(self.at(at), u64::from_le_bytes(*word)) };
            at += 8;
        }
        for byte in tail {
            self.set_byte(at, *byte);
            at += 1;
        }
        Ok(())
    }

    /// Fills a range with one byte.
    ///
    /// # Errors
    /// If the range is not inside; the memory is unchanged then.
    pub fn fill(&self, offset: u64, len: u64, byte: u8) -> Result<(), OutOfBounds> {
        let range = self.range(offset, len)?;
        let mut at = range.start;
        let words = u64::from_le_bytes([byte; 8]);
        while at < range.end {
            if at.is_multiple_of(8) && range.end - at >= 8 {
                // SAFETY: as in `write`.
                unsafe { u64::store(self.at(at), words) };
                at += 8;
            } else {
                self.set_byte(at, byte);
                at += 1;
            }
        }
        Ok(())
    }

    /// Whether all bytes of a range are 0. Looks at no more than it must; memory that was never written is not taken.
    ///
    /// A hart that writes meanwhile may or may not be seen: only its mark in a dirty log, made after the write, says that
    /// the answer is out of date.
    ///
    /// # Errors
    /// If the range is not inside.
    pub fn is_zero(&self, offset: u64, len: u64) -> Result<bool, OutOfBounds> {
        let range = self.range(offset, len)?;
        let mut at = range.start;
        while at < range.end && !at.is_multiple_of(STRIDE) {
            if self.byte(at) != 0 {
                return Ok(false);
            }
            at += 1;
        }
        while range.end - at >= STRIDE {
            if self.stride(at) != 0 {
                return Ok(false);
            }
            at += STRIDE;
        }
        Ok((at..range.end).all(|at| self.byte(at) == 0))
    }

    /// All bits that are set in a stride.
    #[inline]
    fn stride(&self, at: usize) -> u64 {
        let pair = |first: usize| self.word(at + first) | self.word(at + first + 8);
        (pair(0) | pair(16)) | (pair(32) | pair(48))
    }

    /// A word at a multiple of 8 inside of the memory.
    #[inline]
    fn word(&self, at: usize) -> u64 {
        debug_assert!(at.is_multiple_of(8) && at + 8 <= self.len);
        // SAFETY: callers keep `at` at a multiple of 8, the mapping begins at a page, and the word is inside; the memory is
        // accessed only atomically or by the kernel.
        unsafe { u64::load(self.at(at)) }
    }

    #[inline]
    fn byte(&self, at: usize) -> u8 {
        debug_assert!(at < self.len);
        // SAFETY: callers keep `at` inside; a byte is always aligned; as in `word`.
        unsafe { u8::load(self.at(at)) }
    }

    #[inline]
    fn set_byte(&self, at: usize, byte: u8) {
        debug_assert!(at < self.len);
        // SAFETY: as in `byte`.
        unsafe { u8::store(self.at(at), byte) };
    }
}

/// Bytes up to the next multiple of 8.
const fn to_alignment(at: usize) -> usize {
    at.wrapping_neg() % 8
}

/// A buffer for the bytes from `at` on: up to a multiple of 8, whole words, the rest.
fn split(at: usize, out: &mut [u8]) -> (&mut [u8], &mut [[u8; 8]], &mut [u8]) {
    let head = to_alignment(at).min(out.len());
    let (head, rest) = out.split_at_mut(head);
    let (words, tail) = rest.as_chunks_mut();
    (head, words, tail)
}
