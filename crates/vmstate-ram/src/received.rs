//! The received bitmap as it travels on the return path.

use crate::bitmap::WordOrder;
use crate::cursor::{Cursor, Halt};
use crate::record::Step;
use crate::{DirtyBitmap, RamError, RamErrorKind};

/// The value behind a received bitmap.
const MARK: u64 = 0x0123_4567_89ab_cdef;

/// Appends the bitmap that follows a `RECV_BITMAP` message on the return path.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 8 | be | S, size of the bitmap in bytes: a multiple of 8 |
/// | 8 | S | little-endian bits | bit per target page, 1 = received; pad bits 0 |
/// | 8 + S | 8 | be | 0x0123456789abcdef |
///
/// Wire: QEMU 7.2..11.1, postcopy recovery.
pub fn put_received_bitmap(bitmap: &DirtyBitmap, out: &mut Vec<u8>) {
    out.extend_from_slice(&DirtyBitmap::byte_len(bitmap.pages()).to_be_bytes());
    bitmap.put_bytes(WordOrder::Little, out);
    out.extend_from_slice(&MARK.to_be_bytes());
}

/// Parses what [`put_received_bitmap`] writes, for a block of so many target pages.
///
/// No memory is taken before the size is known to be the block's.
///
/// # Errors
///
/// [`RamErrorKind::BitmapSize`] unless the size is the block's, [`RamErrorKind::BitmapTail`] if a pad bit is set,
/// [`RamErrorKind::BitmapMark`] for another end mark, [`RamErrorKind::BitmapLimit`] if the bitmap cannot be in
/// memory.
pub fn parse_received_bitmap(input: &[u8], pages: u64) -> Result<Step<DirtyBitmap>, RamError> {
    let mut cursor = Cursor::new(input);
    match parse(&mut cursor, pages) {
        Ok(event) => Ok(Step::Event {
            consumed: cursor.consumed(),
            event,
        }),
        Err(Halt::Need(at_least)) => Ok(Step::NeedMore { at_least }),
        Err(Halt::Error(error)) => Err(error),
    }
}

fn parse(cursor: &mut Cursor<'_>, pages: u64) -> Result<DirtyBitmap, Halt> {
    let expected = DirtyBitmap::byte_len(pages);
    let found = cursor.u64_be()?;
    if found != expected {
        return Err(RamError::from(RamErrorKind::BitmapSize { expected, found })
            .at(0)
            .into());
    }
    let size = usize::try_from(found).map_err(|_| {
        RamError::from(RamErrorKind::BitmapLimit {
            found: pages,
            limit: usize::MAX as u64,
        })
    })?;
    let bytes = cursor.take(size)?;
    let at = cursor.consumed();
    let mark = cursor.u64_be()?;
    if mark != MARK {
        return Err(RamError::from(RamErrorKind::BitmapMark { found: mark })
            .at(at as u64)
            .into());
    }
    Ok(DirtyBitmap::from_bytes(bytes, pages, WordOrder::Little).map_err(|error| error.at(8))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (DirtyBitmap, Vec<u8>) {
        let mut bitmap = DirtyBitmap::new(65);
        bitmap.set(3);
        bitmap.set(64);
        let mut bytes = Vec::new();
        put_received_bitmap(&bitmap, &mut bytes);
        (bitmap, bytes)
    }

    #[test]
    fn bytes_are_those_of_the_wire() {
        let (_, bytes) = sample();
        assert_eq!(
            bytes,
            [
                [0, 0, 0, 0, 0, 0, 0, 16],
                [8, 0, 0, 0, 0, 0, 0, 0],
                [1, 0, 0, 0, 0, 0, 0, 0],
                [1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]
            ]
            .concat()
        );
    }

    #[test]
    fn parses_at_every_cut() {
        let (bitmap, bytes) = sample();
        for cut in 0..bytes.len() {
            match parse_received_bitmap(&bytes[..cut], 65).unwrap() {
                Step::NeedMore { at_least } => assert!(at_least > cut && at_least <= bytes.len()),
                Step::Event { .. } => panic!("complete at {cut}"),
            }
        }
        assert_eq!(
            parse_received_bitmap(&bytes, 65).unwrap(),
            Step::Event {
                consumed: bytes.len(),
                event: bitmap
            }
        );
    }

    #[test]
    fn refuses_another_size_a_pad_bit_and_another_mark() {
        let (_, bytes) = sample();
        let kind = |bytes: &[u8], pages| {
            parse_received_bitmap(bytes, pages)
                .unwrap_err()
                .kind()
                .clone()
        };
        assert_eq!(
            kind(&bytes, 129),
            RamErrorKind::BitmapSize {
                expected: 24,
                found: 16
            }
        );
        assert_eq!(
            kind(&[0xff; 8], 65),
            RamErrorKind::BitmapSize {
                expected: 16,
                found: u64::MAX
            }
        );
        assert_eq!(
            kind(&bytes, 64),
            RamErrorKind::BitmapSize {
                expected: 8,
                found: 16
            }
        );
        let mut bad = bytes.clone();
        bad[16] |= 2;
        assert_eq!(kind(&bad, 65), RamErrorKind::BitmapTail { page: 65 });
        let mut bad = bytes;
        bad[31] = 0;
        assert_eq!(
            kind(&bad, 65),
            RamErrorKind::BitmapMark {
                found: 0x0123_4567_89ab_cd00
            }
        );
    }
}
