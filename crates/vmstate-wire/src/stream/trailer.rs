//! Finding the description trailer from the end of a file.

use super::options::Limits;
use super::types::{StreamOffset, mark};

/// Bytes before the text of a trailer: end-of-stream mark, type byte, be32 length.
const BEFORE_TEXT: usize = 6;

/// Tail length to begin with: most trailers fit.
pub const FIRST_TAIL: usize = 256 << 10;

/// The outcome of a search for the trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrailerSearch {
    /// The trailer is here.
    Found(TrailerPosition),
    /// The trailer, if there is one, begins before the tail given: call again with the last
    /// `length` bytes of the file.
    NeedTail {
        /// Length of the tail to ask with, in bytes.
        length: u64,
    },
    /// The file does not end with a trailer.
    Absent,
}

/// Where the trailer of a stream is.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 1 | | 0x06 |
/// | 1 | 4 | big-endian | n, length of the text |
/// | 5 | n | | JSON text, no terminator |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrailerPosition {
    /// Position of the byte 0x06 in the file.
    pub offset: StreamOffset,
    /// Position of the first byte of the text in the file.
    pub text: StreamOffset,
    /// Length of the text in bytes. It ends with the file.
    pub length: u32,
}

/// Finds the description trailer at the end of a file, given the file's last bytes.
///
/// `tail` holds the last `tail.len()` bytes of a file of `total_length` bytes; begin with
/// [`FIRST_TAIL`] bytes. The text may have [`Limits::trailer`](super::Limits::trailer) bytes by
/// default; see [`find_trailer_within`] for another bound. It is printable ASCII, so it begins within five bytes of the last byte
/// that is not; of these few positions the right one has the end-of-stream mark, 0x06 and a length
/// that reaches exactly to the end of the file before it. A length with bytes that look like text,
/// which mislead a search for the first brace, does not matter.
///
/// The file may have anything before the stream. It must not have anything behind it.
///
/// Wire: QEMU `scripts/analyze-migration.py` for the idea of starting at the end,
/// `vectors/streams/spike-11.1-smp4.main.bin.zst` for a length byte that is a brace.
#[must_use]
pub fn find_trailer(tail: &[u8], total_length: u64) -> TrailerSearch {
    find_trailer_within(tail, total_length, Limits::default().trailer)
}

/// [`find_trailer`] for a text of at most `limit` bytes.
#[must_use]
pub fn find_trailer_within(tail: &[u8], total_length: u64, limit: u32) -> TrailerSearch {
    let have = u64::try_from(tail.len()).unwrap_or(u64::MAX);
    let most = u64::from(limit)
        .saturating_add(u64::try_from(BEFORE_TEXT).unwrap_or(u64::MAX))
        .min(total_length);
    let first_text = start_of_text(tail);
    // The length may end with up to four printable bytes, which count as text above.
    for text in first_text..=first_text.saturating_add(4) {
        if let Some(length) = trailer_before(tail, text, limit) {
            let text = total_length.saturating_sub(u64::from(length));
            return TrailerSearch::Found(TrailerPosition {
                offset: StreamOffset(text.saturating_sub(5)),
                text: StreamOffset(text),
                length,
            });
        }
    }
    let begins_within = first_text >= BEFORE_TEXT;
    if begins_within || have >= most {
        return TrailerSearch::Absent;
    }
    let wanted = have.saturating_mul(4).max(4096).min(most);
    TrailerSearch::NeedTail { length: wanted }
}

/// Where the printable bytes at the end of `tail` begin. Many at a time: trailers are long, and this is done for each file.
fn start_of_text(tail: &[u8]) -> usize {
    const MANY: usize = 64;
    let is_printable = |byte: &u8| matches!(byte, 0x20..=0x7e);
    let many = tail
        .rchunks_exact(MANY)
        .take_while(|chunk| {
            chunk
                .iter()
                .fold(true, |all, byte| all & is_printable(byte))
        })
        .count();
    let rest = tail.len().saturating_sub(many.saturating_mul(MANY));
    let before = tail.get(..rest).unwrap_or_default();
    before
        .iter()
        .rposition(|byte| !is_printable(byte))
        .map_or(0, |at| at.saturating_add(1))
}

/// The length of the trailer whose text begins at `text`, if one does.
fn trailer_before(tail: &[u8], text: usize, limit: u32) -> Option<u32> {
    let frame = tail.get(text.checked_sub(BEFORE_TEXT)?..text)?;
    let [mark::EOF, mark::TRAILER, length @ ..] = frame else {
        return None;
    };
    let length = u32::from_be_bytes(*length.first_chunk()?);
    let there = tail.get(text..)?;
    let right = u32::try_from(there.len()) == Ok(length) && there.first() == Some(&b'{');
    (right && length <= limit).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::vectors;
    use crate::stream::write::{put_eof, put_trailer};

    fn file(before: &[u8], text: &[u8]) -> Vec<u8> {
        let mut out = before.to_vec();
        put_eof(&mut out);
        put_trailer(&mut out, text).unwrap();
        out
    }

    fn text_of(length: usize) -> Vec<u8> {
        let mut text = b"{\"a\": \"".to_vec();
        text.resize(length - 2, b'x');
        text.extend_from_slice(b"\"}");
        text
    }

    #[track_caller]
    fn check(file: &[u8], length: usize) {
        let total = file.len() as u64;
        let text = total - length as u64;
        let expected = TrailerSearch::Found(TrailerPosition {
            offset: StreamOffset(text - 5),
            text: StreamOffset(text),
            length: u32::try_from(length).unwrap(),
        });
        assert_eq!(find_trailer(file, total), expected);
        // From any tail, asking for more leads to the same.
        let mut tail = 1_u64;
        loop {
            let start = file.len() - usize::try_from(tail).unwrap();
            match find_trailer(&file[start..], total) {
                TrailerSearch::NeedTail { length } => {
                    assert!(length > tail);
                    tail = length;
                }
                found => {
                    assert_eq!(found, expected);
                    break;
                }
            }
        }
    }

    #[test]
    fn any_length_byte_may_look_like_text() {
        // 0x7b is the opening brace, 0x21 and 0x7e the ends of the printable range.
        for length in [12, 0x7b, 0x7d, 0x217b, 0x7b21, 0x7b00, 0x7b_7b7b, 0x7e_217b] {
            check(&file(b"\x01\x02", &text_of(length)), length);
            check(&file(b"", &text_of(length)), length);
        }
    }

    #[test]
    fn recorded_trailers_are_found() {
        for stream in vectors::mains() {
            let total = stream.bytes.len() as u64;
            let found = find_trailer(&stream.bytes, total);
            match stream.trailer() {
                Some(text) => check(&stream.bytes, text.len()),
                None => assert_eq!(found, TrailerSearch::Absent, "{}", stream.name),
            }
        }
    }

    #[test]
    fn what_is_not_a_trailer_is_not_found() {
        let good = file(b"\x00", &text_of(100));
        let search = |bytes: &[u8]| find_trailer(bytes, bytes.len() as u64);
        assert_eq!(search(b""), TrailerSearch::Absent);
        assert_eq!(search(b"{}"), TrailerSearch::Absent);
        let mut longer = good.clone();
        longer.push(b' ');
        assert_eq!(search(&longer), TrailerSearch::Absent);
        longer.push(0);
        assert_eq!(search(&longer), TrailerSearch::Absent);
        let mut wrong_mark = good.clone();
        wrong_mark[2] = 5;
        assert_eq!(search(&wrong_mark), TrailerSearch::Absent);
        let mut wrong_eof = good.clone();
        wrong_eof[1] = 1;
        assert_eq!(search(&wrong_eof), TrailerSearch::Absent);
    }

    #[test]
    fn the_limit_holds_on_both_sides() {
        let file = file(b"", &text_of(500));
        let total = file.len() as u64;
        assert!(matches!(
            find_trailer_within(&file, total, 500),
            TrailerSearch::Found(_)
        ));
        assert_eq!(
            find_trailer_within(&file, total, 499),
            TrailerSearch::Absent
        );
        // A file of text alone is not read beyond the limit.
        let text = vec![b'x'; 1000];
        assert_eq!(
            find_trailer_within(&text, 1 << 40, 10_000),
            TrailerSearch::NeedTail { length: 4096 }
        );
        assert_eq!(
            find_trailer_within(&text, 1 << 40, 900),
            TrailerSearch::Absent
        );
    }
}
