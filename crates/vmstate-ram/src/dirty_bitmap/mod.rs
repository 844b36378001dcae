//! The `dirty-bitmap` section: dirty bitmaps of block devices, idstr `dirty-bitmap`, instance 0, version 1.
//!
//! The payload is a row of chunks; the last has the flag `EOS` and nothing else.
//!
//! ```text
//! chunk := u8 flags  [cstr8 node alias]  [cstr8 bitmap alias]  body
//! ```
//!
//! Aliases are sent when they change; that memory spans sections. START of the section holds a start chunk for each
//! bitmap, END the rest of the bits and a complete chunk for each.
//!
//! This is about the dirty bitmaps of disks; for those of RAM see [`DirtyBitmap`](crate::DirtyBitmap).
//!
//! Wire: QEMU 7.2..11.1, capability `dirty-bitmaps`.

mod parser;
mod writer;

pub use self::parser::ChunkParser;
pub use self::writer::ChunkWriter;

/// The longest piece of bits that a chunk may carry, in bytes. A stock sender's are at most 1 KiB.
pub const LONGEST_BITS: u64 = 10_240;

/// To what a sender pads a piece of bits, in bytes.
const PADDING: usize = 32;

bitflags::bitflags! {
    /// The first byte of a chunk.
    ///
    /// | value | name | body |
    /// |---|---|---|
    /// | 0x01 | `EOS` | none, and no other flag |
    /// | 0x02 | `ZEROES` | modifier of `BITS`: no data, all bits are 0 |
    /// | 0x04 | `BITMAP_NAME` | modifier: the bitmap's alias is present |
    /// | 0x08 | `DEVICE_NAME` | modifier: the node's alias is present, before the bitmap's |
    /// | 0x10 | `START` | be32 granularity in bytes, u8 [`StartFlags`] |
    /// | 0x20 | `COMPLETE` | none |
    /// | 0x40 | `BITS` | be64 first sector, be32 number of sectors; unless `ZEROES`: be64 size, bytes |
    ///
    /// 0x80 is reserved for a longer word and refused.
    ///
    /// Wire: QEMU 7.2..11.1.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct ChunkFlags: u8 {
        /// The last chunk of the section.
        const EOS = 0x01;
        /// All bits are 0.
        const ZEROES = 0x02;
        /// The bitmap's alias is present.
        const BITMAP_NAME = 0x04;
        /// The node's alias is present.
        const DEVICE_NAME = 0x08;
        /// A bitmap begins.
        const START = 0x10;
        /// A bitmap is complete.
        const COMPLETE = 0x20;
        /// A piece of a bitmap.
        const BITS = 0x40;
    }
}

bitflags::bitflags! {
    /// What a start chunk says about its bitmap.
    ///
    /// Wire: QEMU 7.2..11.1.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct StartFlags: u8 {
        /// The bitmap records writes.
        const ENABLED = 0x01;
        /// The bitmap is stored with the disk image.
        const PERSISTENT = 0x02;
        /// Obsolete and ignored.
        const AUTOLOAD = 0x04;
    }
}

/// A chunk that concerns a bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Alias of the node that has the bitmap.
    pub node: &'a [u8],
    /// Alias of the bitmap.
    pub bitmap: &'a [u8],
    /// Whether the chunk spelled the node's alias out.
    pub node_named: bool,
    /// Whether the chunk spelled the bitmap's alias out.
    pub bitmap_named: bool,
    /// What it says.
    pub body: Body<'a>,
}

/// What a chunk says about its bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// A bitmap begins.
    Start {
        /// Bytes of disk per bit: a power of two of at least 512.
        granularity: u32,
        /// Its properties.
        flags: StartFlags,
    },
    /// Bits of the bitmap.
    Bits {
        /// The first sector that they stand for, in units of 512 bytes.
        first_sector: u64,
        /// How many sectors they stand for.
        sectors: u32,
        /// The bits, least significant first, padded to 32 bytes; `None` if all are 0.
        data: Option<&'a [u8]>,
    },
    /// The bitmap is complete.
    Complete,
}

/// What stands next in the section's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkEvent<'a> {
    /// A chunk.
    Chunk(Chunk<'a>),
    /// The payload is over; the section's footer follows.
    EndOfSection,
}
