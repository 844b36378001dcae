//! multifd: pages in packets on channels of their own.
//!
//! A channel begins with one [`InitPacket`]. Then come packets of a fixed header size, each with pages of one block
//! and perhaps a payload, or with a synchronisation mark, or with device state. Nothing flows back.
//!
//! - [`Admission`] checks the initial packets of all channels.
//! - [`ChannelParser`] takes a channel's bytes apart.
//! - [`Decompressor`] and [`Compressor`] hold a channel's compression state.
//! - [`PacketWriter`] writes packets.
//!
//! How channels and main channel wait for each other is the engine's business: a channel that reads a SYNC stops
//! until the main channel has met its mark and **all** channels their SYNC.
//!
//! With mapped-ram there are no packets at all: channels write pages at their places in the file.
//!
//! Wire: QEMU 7.2..11.1, capability `multifd`.

mod codec;
mod init;
mod packet;
mod parser;
mod writer;

use std::fmt;

pub use self::codec::{Compressor, Decompressor};
pub use self::init::{Admission, InitPacket};
pub use self::packet::{DeviceState, Offsets, Pages};
pub use self::parser::{ChannelEvent, ChannelParser, ChannelSettings};
pub use self::writer::{PacketWriter, PagesHeader};

use crate::PageSize;

/// The first four bytes of every packet.
const MAGIC: u32 = 0x1122_3344;
/// The version of every packet.
const VERSION: u32 = 1;
/// Size of a name field in bytes.
const NAME_SIZE: usize = 256;
/// Size of a pages packet's header without its offsets.
const PAGES_HEADER_SIZE: usize = 320;
/// Size of a device state packet's header.
const DEVICE_HEADER_SIZE: usize = 276;
/// The input buffer of a stock destination for zlib, zstd and `QATzip`. Stock does not check a packet against it, so a
/// sender must never exceed it and a reader must look.
const PAYLOAD_LIMIT: u64 = 2 * 512 * 1024;

bitflags::bitflags! {
    /// The flags of a packet.
    ///
    /// Wire: QEMU 7.2..11.1.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct PacketFlags: u32 {
        /// A synchronisation point stands behind this packet.
        const SYNC = 0x01;
        /// The bits that say how the payload is compressed, see [`Method`].
        const METHOD = 0x3e;
        /// The packet carries device state (since QEMU 10.0).
        const DEVICE_STATE = 0x40;
    }
}

/// How the payload of a packet with pages is compressed (parameter `multifd-compression`). Both sides must have the
/// same; levels need not match.
///
/// | flags | method | payload of a packet with N normal pages | state |
/// |---|---|---|---|
/// | 0x00 | none | N pages | none |
/// | 0x02 | zlib | a stretch of one zlib stream, flushed at the packet's end | the channel's whole life |
/// | 0x04 | zstd | a stretch of one zstd frame, flushed at the packet's end | the channel's whole life |
/// | 0x08 | QPL | N be32 lengths, N pieces of raw deflate; a length equal to the page size is a raw page | none |
/// | 0x10 | UADK | as QPL, with pieces in zlib format | none |
/// | 0x20 | `QATzip` | one piece for all pages | not supported here |
///
/// Wire: none, zlib, zstd: QEMU 7.2..11.1; the others: 9.1..11.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Method {
    /// Raw pages.
    #[default]
    None,
    /// zlib, needs the feature `zlib`.
    Zlib,
    /// zstd, needs the feature `zstd`.
    Zstd,
    /// Raw deflate per page (Intel QPL), needs the feature `zlib`.
    Qpl,
    /// zlib per page (UADK), needs the feature `zlib`.
    Uadk,
    /// Intel `QATzip`. Known, so that its packets are refused with a clear message.
    Qatzip,
}

impl Method {
    const ALL: [Self; 6] = [
        Self::None,
        Self::Zlib,
        Self::Zstd,
        Self::Qpl,
        Self::Uadk,
        Self::Qatzip,
    ];

    /// The method's bits in a packet's flags.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::None => 0x00,
            Self::Zlib => 0x02,
            Self::Zstd => 0x04,
            Self::Qpl => 0x08,
            Self::Uadk => 0x10,
            Self::Qatzip => 0x20,
        }
    }

    /// The method with these bits in a packet's flags, if they are those of one; other flags do not matter.
    #[must_use]
    pub fn from_bits(flags: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|method| method.bits() == flags & PacketFlags::METHOD.bits())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::Qpl => "qpl",
            Self::Uadk => "uadk",
            Self::Qatzip => "qatzip",
        })
    }
}

/// Size in bytes of the header of a packet with pages, or of a SYNC packet: it always has room for the offsets of
/// 512 KiB of pages (1344 bytes with pages of 4 KiB).
#[must_use]
pub const fn packet_header_size(page_size: PageSize) -> usize {
    PAGES_HEADER_SIZE.saturating_add((page_size.pages_per_packet() as usize).saturating_mul(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_their_bits() {
        for method in Method::ALL {
            assert_eq!(Method::from_bits(method.bits() | 0x41), Some(method));
        }
        assert_eq!(Method::from_bits(0x06), None);
        assert_eq!(packet_header_size(PageSize::KIB4), 1344);
    }
}
