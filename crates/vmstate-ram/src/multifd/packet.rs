//! What a packet says.

use super::{MAGIC, Method, NAME_SIZE, PacketFlags};
use crate::{BlockId, BlockTable, PageSize, RamError, RamErrorKind};

/// A packet with pages of one block.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 4 | be | 0x11223344 |
/// | 4 | 4 | be | version, 1 |
/// | 8 | 4 | be | flags |
/// | 12 | 4 | be | capacity in pages, at most P |
/// | 16 | 4 | be | N, number of normal pages |
/// | 20 | 4 | be | size of the payload in bytes |
/// | 24 | 8 | be | packet number |
/// | 32 | 4 | be | Z, number of zero pages (since QEMU 9.0; 0 before) |
/// | 36 | 28 | | zeros |
/// | 64 | 256 | | block name, NUL padded |
/// | 320 | 8 P | be | offsets in the block: N of normal pages, Z of zero pages, then anything |
///
/// P is the number of target pages in 512 KiB; all P slots are always there. The payload follows if N > 0.
///
/// Block and offsets are the sender's words: nothing is known about them until [`locate`](Self::locate) has checked
/// them against the blocks of the setup record.
///
/// Wire: QEMU 7.2..11.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages<'a> {
    /// The packet's number. Not unique and not ascending: a reader must not rely on it.
    pub number: u64,
    /// How the payload is compressed.
    pub method: Method,
    /// Whether a synchronisation point follows this packet (sources before QEMU 9.0).
    pub sync: bool,
    /// The block's name.
    pub block: &'a [u8],
    /// Offsets of the normal pages in the block, in bytes, in the order of the payload.
    pub normal: Offsets<'a>,
    /// Offsets of the zero pages. A page that was received before must be filled with zeros; fresh memory need not
    /// be touched. Both count as received.
    pub zero: Offsets<'a>,
    /// Size of the payload in bytes.
    pub payload_len: usize,
    /// The payload; empty from [`ChannelParser::step_header`](super::ChannelParser::step_header).
    pub payload: &'a [u8],
}

impl Pages<'_> {
    /// Finds the block and checks every offset.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::UnknownBlock`], or as [`BlockTable::check_page`].
    pub fn locate(&self, blocks: &BlockTable, page_size: PageSize) -> Result<BlockId, RamError> {
        let Some(id) = blocks.find(self.block) else {
            return Err(RamErrorKind::UnknownBlock {
                name: crate::error::shown(self.block),
            }
            .into());
        };
        for offset in self.normal.iter().chain(self.zero.iter()) {
            blocks.check_page(id, offset, page_size)?;
        }
        Ok(id)
    }
}

/// Page offsets inside a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets<'a>(pub(super) &'a [[u8; 8]]);

impl<'a> Offsets<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The offsets, in bytes.
    #[must_use = "iterators do nothing unless consumed"]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.0.iter().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

/// A packet with state of one device.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 12 | be | magic, version, flags as in [`Pages`]; flag 0x40 |
/// | 12 | 256 | | idstr of the device's section, NUL padded |
/// | 268 | 4 | be | instance id |
/// | 272 | 4 | be | n, size of the payload in bytes, above 0 |
/// | 276 | n | | payload |
///
/// Wire: QEMU 10.0..11.1, without compression and mapped-ram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceState<'a> {
    /// The section's idstr.
    pub idstr: &'a [u8],
    /// The section's instance id.
    pub instance_id: u32,
    /// Size of the payload in bytes.
    pub payload_len: usize,
    /// The payload; empty from [`ChannelParser::step_header`](super::ChannelParser::step_header).
    pub payload: &'a [u8],
}

/// The name in a NUL padded field.
pub(super) fn name_in(field: &[u8; NAME_SIZE]) -> Result<&[u8], RamErrorKind> {
    match field.iter().position(|byte| *byte == 0) {
        Some(length) if length > 0 => Ok(field.split_at_checked(length).unwrap_or_default().0),
        _ => Err(RamErrorKind::MultifdName),
    }
}

/// Appends magic, version and flags.
pub(super) fn put_head(flags: PacketFlags, method: Method, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&super::VERSION.to_be_bytes());
    out.extend_from_slice(&(flags.bits() | method.bits()).to_be_bytes());
}
