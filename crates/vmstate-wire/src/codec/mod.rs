//! QEMU's encoding of device state: a pair of visitors for the traversal of `vmstate-desc`.
//!
//! | what | bytes |
//! |---|---|
//! | integers, timers, doubles | big-endian, two's complement |
//! | arrays | elements, nothing else |
//! | embedded description | its fields, then its subsections |
//! | absent pointer | `30` |
//! | present pointer, marker before every element | `31`, element |
//! | list | `01` element …, `00` |
//! | tree | be32 number of nodes, `01` key value …, `00` |
//! | subsection | `05`, length byte and name, be32 version, fields |
//!
//! Wire: QEMU 7.2 to 11.1, `migration/vmstate.c` and `migration/vmstate-types.c`; measured on recorded streams.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod input;
mod output;
mod stream;
#[cfg(test)]
mod tests;

use vmstate_desc::{Error, Limits, LoadState, SaveState, load_with, save_with};

pub use input::QemuIn;
pub use output::QemuOut;
pub use stream::{ByteSource, MAX_FILL, QemuStream};

use crate::vmdesc::Vmdesc;

/// Marker of an absent element in an array of pointers, `'0'`.
pub const MARKER_ABSENT: u8 = 0x30;
/// Marker of a present element in an array of pointers, `'1'`.
pub const MARKER_PRESENT: u8 = 0x31;
/// Type byte of a subsection.
pub const SUBSECTION: u8 = 0x05;

/// Appends the state's bytes to `out`: a section's payload, without header and footer.
///
/// # Errors
/// What the device refuses. `out` then ends with an incomplete payload.
///
/// ```
/// use vmstate_desc::{Codec, Description, DynState, Field, Scalar};
/// static RTC: Description =
///     Description::new("rtc", 1, 1).with_fields(const { &[Field::value("year", Codec::Uint16)] });
/// let mut rtc = DynState::new(&RTC);
/// rtc.set("year", Scalar::U16(2026));
/// let mut bytes = Vec::new();
/// vmstate_wire::codec::encode(&rtc, &mut bytes)?;
/// assert_eq!(bytes, [0x07, 0xea]);
/// # Ok::<(), vmstate_desc::Error>(())
/// ```
pub fn encode(state: &dyn SaveState, out: &mut Vec<u8>) -> Result<(), Error> {
    save_with(state, &mut QemuOut::new(out))
}

/// As [`encode`], and describes the device in a trailer.
///
/// # Errors
/// As [`encode`].
pub fn encode_described(
    state: &dyn SaveState,
    out: &mut Vec<u8>,
    vmdesc: &mut Vmdesc,
) -> Result<(), Error> {
    save_with(state, &mut QemuOut::described(out, vmdesc))
}

/// Loads `state` from a section's payload of version `version`. Returns the number of bytes used.
///
/// # Errors
/// With field path and byte offset (from the beginning of `bytes`): bytes that are missing or wrong, versions that do not fit,
/// whatever the device refuses.
pub fn decode(
    state: &mut dyn LoadState,
    version: u32,
    bytes: &[u8],
    limits: Limits,
) -> Result<usize, Error> {
    let mut input = QemuIn::new(bytes);
    load_with(state, version, &mut input, limits)?;
    Ok(input.position())
}

/// As [`decode`], from bytes that come in their own time. Exactly the payload is consumed.
///
/// # Errors
/// As [`decode`]; offsets are the source's.
pub fn decode_from<S: ByteSource + ?Sized>(
    state: &mut dyn LoadState,
    version: u32,
    source: &mut S,
    limits: Limits,
) -> Result<(), Error> {
    load_with(state, version, &mut QemuStream::new(source), limits)
}
