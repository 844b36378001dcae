//! Guest RAM in QEMU migration streams: page records, XBZRLE, multifd, mapped-ram, without I/O.
//!
//! The crate reads and writes the bytes with which stock QEMU (7.2 to 11.1) moves guest memory. It opens no file and
//! no socket, starts no thread and reads no clock: parsers take bytes in pieces of any size and either yield an
//! event or say how many bytes they need; writers append to a buffer. Nothing panics on any input, and every length
//! is bounded before memory is taken.
//!
//! # Reading a `ram` section
//!
//! A driver finds the sections of a stream; the payload between a section's header and footer goes to a
//! [`RamParser`]. It keeps the block table and the memory of the last block from section to section.
//!
//! ```
//! use vmstate_ram::{Dialect, Event, MemoryStore, PageSize, RamImage, RamParser, RamSection, Step};
//!
//! // START: one block of two pages. PART: a page full of 7, and a zero page.
//! let start = b"\0\0\0\0\0\0\x20\x04\x03ram\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\0\x10";
//! let part = [
//!     &b"\0\0\0\0\0\0\0\x08\x03ram"[..],
//!     &[7; 4096],
//!     b"\0\0\0\0\0\0\x10\x22\0\0\0\0\0\0\0\0\x10",
//! ]
//! .concat();
//!
//! let mut parser = RamParser::new(Dialect::modern());
//! parser.begin_section(RamSection::Start, 0x20)?;
//! let mut input = &start[..];
//! while let Step::Event { consumed, event } = parser.step(input)? {
//!     input = &input[consumed..];
//!     if event == Event::EndOfSection {
//!         break;
//!     }
//! }
//!
//! let store = MemoryStore::new(PageSize::KIB4, 1 << 20);
//! let mut image = RamImage::new(parser.blocks().clone(), PageSize::KIB4, store);
//! parser.begin_section(RamSection::Part, 0x50)?;
//! let mut records = parser.records(&part);
//! for record in &mut records {
//!     image.apply(&record?)?;
//! }
//! let rest = &part[records.consumed()..];
//! assert_eq!(parser.step(rest)?, Step::Event { consumed: 8, event: Event::EndOfSection });
//!
//! let ram = image.blocks().find(b"ram").ok_or("no such block")?;
//! let mut bytes = [0; 2];
//! image.read(ram, 0xfff, &mut bytes)?;
//! assert_eq!(bytes, [7, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A page's bytes need not pass through the parser: [`RamParser::step_header`] yields only the words.
//!
//! # Where things are
//!
//! | to do | use |
//! |---|---|
//! | read and write page records | [`RamParser`], [`RamWriter`] |
//! | say what the bytes do not tell | [`Dialect`] |
//! | make and apply deltas | [`xbzrle`] |
//! | read and write multifd channels | [`multifd`] |
//! | lay out and read mapped-ram files | [`mapped_ram`] |
//! | know which pages are dirty, or received | [`DirtyBitmap`], [`put_received_bitmap`] |
//! | find zero pages | [`is_zero_page`] |
//! | look at the memory that a stream carries | [`RamImage`] over a [`PageStore`] |
//! | read and write the dirty bitmaps of disks | [`dirty_bitmap`] |
//!
//! # Features
//!
//! All are on by default, and each only adds: `digest` (SHA-256 of blocks), `zlib` and `zstd` (compressed pages).
//!
//! Wire: QEMU 7.2..11.1, `docs/devel/migration`; checked against recorded streams.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::single_range_in_vec_init,
        reason = "tests build their input from small numbers"
    )
)]

mod bitmap;
mod block;
mod codec;
mod cursor;
mod dialect;
pub mod dirty_bitmap;
mod error;
mod flags;
mod image;
pub mod mapped_ram;
pub mod multifd;
mod page;
mod parser;
mod received;
mod record;
mod store;
mod writer;
pub mod xbzrle;
mod zero;

pub use self::bitmap::{DirtyBitmap, Runs, WordOrder};
pub use self::block::{BlockId, BlockName, BlockTable, RamBlock};
pub use self::dialect::{Dialect, PageSizeExtra};
pub use self::error::{Blame, RamError, RamErrorKind};
pub use self::flags::RamFlags;
pub use self::image::RamImage;
pub use self::page::{PageRef, PageSize};
pub use self::parser::{RamParser, Records, Stop};
pub use self::received::{parse_received_bitmap, put_received_bitmap};
pub use self::record::{Event, RamSection, Record, Step};
pub use self::store::{MemoryStore, PageStore};
pub use self::writer::RamWriter;
pub use self::zero::is_zero_page;
