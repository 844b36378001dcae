//! Plain states: fixed size, no conditions, no hooks, no subsections. Straight-line code over one slice.

use crate::value::FieldValue;

/// Bytes of several fields together; none if one of them is not plain.
#[must_use]
pub const fn sum(sizes: &[Option<usize>]) -> Option<usize> {
    let mut total = 0;
    let mut i = 0;
    while i < sizes.len() {
        match sizes[i] {
            Some(size) => total += size,
            None => return None,
        }
        i += 1;
    }
    Some(total)
}

/// Bytes of a plain type; 0 for any other.
#[must_use]
pub const fn size<T: FieldValue + ?Sized>() -> usize {
    match T::PLAIN {
        Some(size) => size,
        None => 0,
    }
}

/// Encodes `value` at the beginning of `out` and returns what is behind it.
#[inline(always)]
#[must_use]
pub fn put<'o, T: FieldValue>(value: &T, out: &'o mut [u8]) -> &'o mut [u8] {
    match out.split_at_mut_checked(size::<T>()) {
        Some((head, rest)) => {
            value.put_plain(head);
            rest
        }
        None => &mut [],
    }
}

/// Puts `bytes` zeros at the beginning of `out` and returns what is behind them.
#[inline(always)]
#[must_use]
pub fn put_unused(bytes: usize, out: &mut [u8]) -> &mut [u8] {
    match out.split_at_mut_checked(bytes) {
        Some((head, rest)) => {
            head.fill(0);
            rest
        }
        None => &mut [],
    }
}

/// Decodes `value` from the beginning of `bytes` and returns what is behind it; none if the engine is needed.
#[inline(always)]
#[must_use]
pub fn get<'b, T: FieldValue>(value: &mut T, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let rest = bytes.get(size::<T>()..)?;
    value.get_plain(bytes).then_some(rest)
}

/// What is behind `unused` bytes.
#[inline(always)]
#[must_use]
pub fn get_unused(unused: usize, bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(unused..)
}

/// Whether the byte at `end` may begin a subsection: then the engine has to look.
#[inline(always)]
#[must_use]
pub fn subsection_may_follow(bytes: &[u8], end: usize) -> bool {
    bytes.get(end) == Some(&5)
}
