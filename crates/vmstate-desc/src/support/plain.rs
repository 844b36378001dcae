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

/// The first `size` bytes of `out`, for a value, and what is behind them.
#[inline(always)]
#[must_use]
pub fn split(out: &mut [u8], size: Option<usize>) -> (&mut [u8], &mut [u8]) {
    out.split_at_mut_checked(size.unwrap_or(0))
        .unwrap_or_default()
}

/// What is behind the first `size` bytes.
#[inline(always)]
#[must_use]
pub fn behind(bytes: &[u8], size: Option<usize>) -> &[u8] {
    bytes.get(size.unwrap_or(0)..).unwrap_or_default()
}

/// Whether the byte at `end` may begin a subsection: then the engine has to look.
#[inline(always)]
#[must_use]
pub fn subsection_may_follow(bytes: &[u8], end: usize) -> bool {
    bytes.get(end) == Some(&5)
}
