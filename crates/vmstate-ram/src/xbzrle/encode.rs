//! Making a delta.

use super::LONGEST_RUN;

/// The outcome of [`encode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A delta of so many bytes was appended.
    Encoded(usize),
    /// The pages are equal: send nothing.
    Unchanged,
    /// The delta would be longer than the limit (or a run longer than the format can say, or the pages differ in
    /// size): send the page itself.
    Overflow,
}

/// Appends the delta that turns `old` into `new` to `out`, with runs as long as possible, unless it would be longer
/// than `limit` bytes (for a record: the target page size). If the outcome is not `Encoded`, `out` is as before.
///
/// ```
/// use vmstate_ram::xbzrle::{Encoding, decode, encode};
///
/// let (old, mut new) = ([7; 4096], [7; 4096]);
/// new[1001..1003].fill(1);
/// let mut delta = Vec::new();
/// assert_eq!(encode(&old, &new, &mut delta, 4096), Encoding::Encoded(5));
/// assert_eq!(delta, [0xe9, 0x07, 2, 1, 1]);
/// ```
pub fn encode(old: &[u8], new: &[u8], out: &mut Vec<u8>, limit: usize) -> Encoding {
    let begin = out.len();
    let outcome = append(old, new, out, limit);
    if !matches!(outcome, Encoding::Encoded(_)) {
        out.truncate(begin);
    }
    outcome
}

fn append(mut old: &[u8], mut new: &[u8], out: &mut Vec<u8>, limit: usize) -> Encoding {
    if old.len() != new.len() {
        return Encoding::Overflow;
    }
    let mut room = limit;
    loop {
        let same = equal_prefix(old, new);
        (old, new) = (tail(old, same), tail(new, same));
        if new.is_empty() {
            break;
        }
        let changed = differing_prefix(old, new);
        let Some((bytes, rest)) = new.split_at_checked(changed) else {
            return Encoding::Overflow;
        };
        (old, new) = (tail(old, changed), rest);
        let (Some(zrun), Some(nzrun)) = (Number::new(same), Number::new(changed)) else {
            return Encoding::Overflow;
        };
        let size = zrun
            .size()
            .saturating_add(nzrun.size())
            .saturating_add(changed);
        let Some(left) = room.checked_sub(size) else {
            return Encoding::Overflow;
        };
        room = left;
        zrun.put(out);
        nzrun.put(out);
        out.extend_from_slice(bytes);
    }
    match limit.saturating_sub(room) {
        0 => Encoding::Unchanged,
        length => Encoding::Encoded(length),
    }
}

/// A run's length as one or two bytes.
struct Number(u16);

impl Number {
    fn new(length: usize) -> Option<Self> {
        if length > LONGEST_RUN {
            None
        } else {
            u16::try_from(length).ok().map(Self)
        }
    }

    fn size(&self) -> usize {
        if self.0 < 0x80 { 1 } else { 2 }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let [high, low] = (self.0 << 1).to_be_bytes();
        if self.0 < 0x80 {
            out.push(low >> 1);
        } else {
            out.extend_from_slice(&[low >> 1 | 0x80, high]);
        }
    }
}

fn tail(bytes: &[u8], from: usize) -> &[u8] {
    bytes.get(from..).unwrap_or_default()
}

/// The number of leading bytes that are equal. Both slices are equally long.
fn equal_prefix(a: &[u8], b: &[u8]) -> usize {
    const STRIDE: usize = 128;
    // Short runs are common where runs are many.
    if let (Some(first_a), Some(first_b)) = (a.first_chunk(), b.first_chunk()) {
        let mark = u64::from_le_bytes(*first_a) ^ u64::from_le_bytes(*first_b);
        if mark != 0 {
            return (mark.trailing_zeros() / 8) as usize;
        }
    }
    let (strides_a, _) = a.as_chunks::<STRIDE>();
    let (strides_b, _) = b.as_chunks::<STRIDE>();
    // Without an early end inside a stride, so that it becomes vector code.
    let same = |(a, b): &(&[u8; STRIDE], &[u8; STRIDE])| {
        let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
        let words = a.iter().zip(b);
        0 == words.fold(0, |any, (a, b)| {
            any | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b))
        })
    };
    let equal = strides_a
        .iter()
        .zip(strides_b)
        .take_while(same)
        .count()
        .saturating_mul(STRIDE);
    equal.saturating_add(prefix(tail(a, equal), tail(b, equal), |x| x, |a, b| a == b))
}

/// The number of leading bytes that differ. Both slices are equally long.
fn differing_prefix(a: &[u8], b: &[u8]) -> usize {
    // The lowest byte of the word that is 0, marked in its top bit; marks above it may be wrong.
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOP: u64 = u64::from_ne_bytes([0x80; 8]);
    prefix(a, b, |x| x.wrapping_sub(LOW) & !x & TOP, |a, b| a != b)
}

/// Counts the bytes before the first at which the run ends. `end` marks it in the XOR of two words, lowest byte
/// first; `goes_on` tells the same for single bytes.
#[inline]
fn prefix(
    a: &[u8],
    b: &[u8],
    end: impl Fn(u64) -> u64,
    goes_on: impl Fn(&u8, &u8) -> bool,
) -> usize {
    let (words_a, rest_a) = a.as_chunks::<8>();
    let (words_b, rest_b) = b.as_chunks::<8>();
    let mut count: usize = 0;
    for (a, b) in words_a.iter().zip(words_b) {
        let mark = end(u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b));
        if mark != 0 {
            return count.saturating_add((mark.trailing_zeros() / 8) as usize);
        }
        count = count.saturating_add(8);
    }
    count.saturating_add(
        rest_a
            .iter()
            .zip(rest_b)
            .take_while(|(a, b)| goes_on(a, b))
            .count(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decode;
    use super::*;

    /// The delta byte by byte, with no thought of speed.
    fn plain(old: &[u8], new: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let same = (at..new.len()).take_while(|i| old[*i] == new[*i]).count();
            let start = at + same;
            if start == new.len() {
                return out;
            }
            let changed = (start..new.len())
                .take_while(|i| old[*i] != new[*i])
                .count();
            for run in [same, changed] {
                if run < 0x80 {
                    out.push(run as u8);
                } else {
                    out.extend([run as u8 | 0x80, (run >> 7) as u8]);
                }
            }
            out.extend(&new[start..start + changed]);
            at = start + changed;
        }
    }

    #[test]
    fn limits_are_exact_and_leave_the_buffer_alone() {
        let (old, mut new) = (vec![0; 4096], vec![0; 4096]);
        new[5] = 1;
        for (limit, expected) in [
            (3, Encoding::Encoded(3)),
            (2, Encoding::Overflow),
            (0, Encoding::Overflow),
        ] {
            let mut out = vec![9];
            assert_eq!(encode(&old, &new, &mut out, limit), expected);
            assert_eq!(out.len(), if limit == 3 { 4 } else { 1 });
        }
        let mut out = Vec::new();
        assert_eq!(encode(&old, &old, &mut out, 4096), Encoding::Unchanged);
        assert_eq!(encode(&old, &[1; 4096], &mut out, 4096), Encoding::Overflow);
        assert_eq!(encode(&old, &old[1..], &mut out, 4096), Encoding::Overflow);
        assert_eq!(encode(&[], &[], &mut out, 4096), Encoding::Unchanged);
    }

    #[test]
    fn runs_beyond_the_format_overflow() {
        let old = vec![0; 65536];
        let mut new = old.clone();
        let mut out = Vec::new();
        new[LONGEST_RUN] = 1;
        assert_eq!(encode(&old, &new, &mut out, 65536), Encoding::Encoded(4));
        new.swap(LONGEST_RUN, LONGEST_RUN + 1);
        assert_eq!(encode(&old, &new, &mut out, 65536), Encoding::Overflow);
        assert_eq!(out, [0xff, 0x7f, 1, 1]);
    }

    proptest! {
        #[test]
        fn decodes_to_the_new_page(
            old in prop::collection::vec(0_u8..4, 0..700),
            changes in prop::collection::vec((0_usize..700, 1_usize..200, any::<u8>()), 0..8),
        ) {
            let mut new = old.clone();
            for (start, length, value) in changes {
                for byte in new.iter_mut().skip(start).take(length) {
                    *byte = value;
                }
            }
            let mut delta = Vec::new();
            let outcome = encode(&old, &new, &mut delta, usize::MAX);
            prop_assert_eq!(&delta, &plain(&old, &new));
            prop_assert_eq!(outcome == Encoding::Unchanged, old == new);
            let mut page = old;
            prop_assert_eq!(decode(&delta, &mut page), Ok(()));
            prop_assert_eq!(page, new);
        }

        #[test]
        fn any_delta_is_refused_or_encodes_again(
            delta in prop::collection::vec(0_u8..8, 0..40),
            old in prop::collection::vec(0_u8..8, 64),
        ) {
            let mut page = old.clone();
            if decode(&delta, &mut page).is_ok() {
                let mut again = Vec::new();
                encode(&old, &page, &mut again, usize::MAX);
                let mut second = old.clone();
                prop_assert_eq!(decode(&again, &mut second), Ok(()));
                prop_assert_eq!(second, page);
            } else {
                prop_assert_eq!(page, old);
            }
        }
    }
}
