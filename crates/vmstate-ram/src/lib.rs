//! Guest RAM in QEMU migration streams: page records, XBZRLE, multifd, mapped-ram, without I/O.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]
#![cfg_attr(
    test,
    allow(clippy::cast_possible_truncation, clippy::single_range_in_vec_init)
)]

mod bitmap;
mod block;
mod codec;
mod cursor;
mod dialect;
mod error;
mod flags;
pub mod mapped_ram;
pub mod multifd;
mod page;
mod parser;
mod received;
mod record;
mod writer;
pub mod xbzrle;
mod zero;

pub use self::bitmap::{DirtyBitmap, Runs, WordOrder};
pub use self::block::{BlockId, BlockName, BlockTable, RamBlock};
pub use self::dialect::{Dialect, PageSizeExtra};
pub use self::error::{Blame, RamError, RamErrorKind};
pub use self::flags::RamFlags;
pub use self::page::{PageRef, PageSize};
pub use self::parser::{RamParser, Records, Stop};
pub use self::received::{parse_received_bitmap, put_received_bitmap};
pub use self::record::{Event, RamSection, Record, Step};
pub use self::writer::RamWriter;
pub use self::zero::is_zero_page;
