//! The states of helper processes, as QEMU's section `dbus-vmstate/dbus-vmstate` carries them: one blob.
//!
//! All numbers are big-endian. There is no alignment, and no byte behind a string.
//!
//! | bytes | meaning |
//! |---|---|
//! | 4 | number of elements |
//! | | for each element: |
//! | 4 | length of the id, 1 to 255 |
//! | | id |
//! | 4 | length of the state, at most 1 MiB |
//! | | state |
//! | | behind the last element: zeros, until the size is a power of two and at least 16 |
//!
//! The zeros are what QEMU's memory stream had allocated. [`put_blob`] writes as many, so that a stream is the same byte for byte; a
//! reader takes any number of any bytes there.
//!
//! Wire: QEMU 5.0 to 11.1, object `dbus-vmstate`; sizes and padding measured on 11.1.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod error;
mod reader;
#[cfg(test)]
mod tests;

pub use error::{BlobError, BlobErrorKind};
pub use reader::{BlobReader, decode_blob};

/// Most bytes of an id.
pub const MAX_ID: usize = 255;
/// Most bytes of one helper's state.
pub const MAX_STATE: usize = 1 << 20;
/// Most bytes of a blob: a signed 32-bit number says how many there are.
pub const MAX_BLOB: u32 = i32::MAX.cast_unsigned();
/// Least bytes of a blob that QEMU writes.
const LEAST: u64 = 16;

/// Id and state of one helper, as they travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Who it is: 1 to 255 bytes.
    pub id: Vec<u8>,
    /// Its state: at most 1 MiB.
    pub state: Vec<u8>,
}

/// How many bytes a blob with these elements has: those that mean something, and all.
///
/// # Errors
/// [`BlobErrorKind::IdLength`], [`BlobErrorKind::StateLength`], [`BlobErrorKind::TooLarge`].
pub fn blob_size<'a>(
    elements: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(u32, u32), BlobError> {
    let mut used = 4_u64;
    for (index, (id, state)) in (0..).zip(elements) {
        let at = |kind| BlobError::new(kind, used).in_element(index);
        if !(1..=MAX_ID).contains(&id.len()) {
            let found = id.len() as u64;
            return Err(at(BlobErrorKind::IdLength { found }));
        }
        if state.len() > MAX_STATE {
            let (id, found) = (id.to_vec(), state.len() as u64);
            return Err(at(BlobErrorKind::StateLength { id, found }));
        }
        let element = (id.len() as u64).saturating_add(state.len() as u64);
        used = used.saturating_add(element).saturating_add(8);
    }
    let too_large = || BlobError::new(BlobErrorKind::TooLarge, used);
    let size = used.checked_next_power_of_two().ok_or_else(too_large)?;
    let size = u32::try_from(size.max(LEAST)).ok();
    let size = size.filter(|size| *size <= MAX_BLOB);
    match (u32::try_from(used), size) {
        (Ok(used), Some(size)) => Ok((used, size)),
        _ => Err(too_large()),
    }
}

/// Gives a blob to `sink`, piece by piece, without a copy of the states.
///
/// # Errors
/// As [`blob_size`], and what `sink` returns.
pub fn write_blob<E: From<BlobError>>(
    elements: &[(&[u8], &[u8])],
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (used, size) = blob_size(elements.iter().copied())?;
    sink(&length(elements.len()))?;
    for (id, state) in elements {
        sink(&length(id.len()))?;
        sink(id)?;
        sink(&length(state.len()))?;
        sink(state)?;
    }
    let mut left = size.saturating_sub(used) as usize;
    let zeros = [0; 4096];
    while left > 0 {
        let piece = zeros.get(..left).unwrap_or(&zeros);
        sink(piece)?;
        left = left.saturating_sub(piece.len());
    }
    Ok(())
}

/// Appends a blob to `out`, padded as QEMU pads it.
///
/// ```
/// use vmstate_wire::helpers::{decode_blob, put_blob};
///
/// let mut blob = Vec::new();
/// put_blob(&mut blob, &[(b"alpha", b"abc"), (b"mid", b"xy")])?;
/// assert_eq!(blob.len(), 64);
/// assert_eq!(blob[..13], *b"\0\0\0\x02\0\0\0\x05alpha");
/// let elements = decode_blob(&blob, 2)?;
/// assert_eq!(elements[1].state, b"xy");
/// # Ok::<(), vmstate_wire::helpers::BlobError>(())
/// ```
///
/// # Errors
/// As [`blob_size`]; `out` is as it was then.
pub fn put_blob(out: &mut Vec<u8>, elements: &[(&[u8], &[u8])]) -> Result<(), BlobError> {
    write_blob(elements, |piece| {
        out.extend_from_slice(piece);
        Ok(())
    })
}

/// A number that [`blob_size`] has found small enough.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}
