//! What the parser yields.

use crate::{BlockId, PageRef, RamFlags};

/// The three kinds of section that carry RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RamSection {
    /// The setup: the block list.
    Start,
    /// A slice of page records.
    Part,
    /// The last slice of page records.
    End,
}

impl RamSection {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Part => "PART",
            Self::End => "END",
        }
    }
}

/// One page record with its bytes.
///
/// Each begins with the word `offset | flags` and, unless the flags hold `CONTINUE`, the block name (a length byte
/// and the bytes).
///
/// | record | flag | after word and name |
/// |---|---|---|
/// | `Page` | 0x008 | the page |
/// | `Zero` | 0x002 | u8 fill byte |
/// | `Xbzrle` | 0x040 | u8 1, be16 length, delta |
/// | `Compressed` | 0x100 | be32 length, zlib data |
///
/// Wire: QEMU 7.2..11.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A page as it is.
    Page {
        /// Which page.
        page: PageRef,
        /// Its content: one target page.
        data: &'a [u8],
    },
    /// A page filled with one byte.
    Zero {
        /// Which page.
        page: PageRef,
        /// The byte: 0, unless the dialect allows others.
        fill: u8,
    },
    /// A page as a delta against its present content, see [`xbzrle`](crate::xbzrle).
    Xbzrle {
        /// Which page.
        page: PageRef,
        /// The delta, at most one target page long. It has not been decoded.
        delta: &'a [u8],
    },
    /// A page as zlib stream.
    Compressed {
        /// Which page.
        page: PageRef,
        /// The stream, not decoded.
        data: &'a [u8],
    },
}

impl Record<'_> {
    /// The page that the record names.
    #[must_use]
    pub fn page(&self) -> PageRef {
        match *self {
            Self::Page { page, .. }
            | Self::Zero { page, .. }
            | Self::Xbzrle { page, .. }
            | Self::Compressed { page, .. } => page,
        }
    }

    /// The record's own flag, without `CONTINUE`.
    #[must_use]
    pub fn flag(&self) -> RamFlags {
        match self {
            Self::Page { .. } => RamFlags::PAGE,
            Self::Zero { .. } => RamFlags::ZERO,
            Self::Xbzrle { .. } => RamFlags::XBZRLE,
            Self::Compressed { .. } => RamFlags::COMPRESS_PAGE,
        }
    }
}

/// What stands next in a section's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The setup record begins; [`Event::Block`]s follow.
    BlockListStart {
        /// The announced sum of all used lengths in bytes.
        total: u64,
    },
    /// One entry of the setup record; [`RamParser::blocks`](crate::RamParser::blocks) has its fields.
    Block {
        /// The new block.
        block: BlockId,
        /// How many bytes of bitmap and pages (mapped-ram) stand between this entry and the next record. The driver
        /// seeks or reads over them: the next input must begin behind them. Otherwise 0.
        gap: u64,
    },
    /// The lengths have reached the total: the list is complete. Consumes nothing.
    BlockListEnd,
    /// A page record.
    Record(Record<'a>),
    /// The word (and name) of a normal page; only from [`RamParser::step_header`](crate::RamParser::step_header).
    /// One target page of payload follows, which is the driver's to read or to seek over.
    PageHeader(PageRef),
    /// A mark: everything sent before on the multifd channels must be in memory before anything behind it is read.
    MultifdFlush,
    /// The payload is over; the section's footer follows.
    EndOfSection,
}

/// The outcome of one step of a parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<E> {
    /// Nothing was consumed. Call again with the same bytes and more behind them.
    NeedMore {
        /// The length that the next input must have at least; more than the present one.
        at_least: usize,
    },
    /// Something was understood.
    Event {
        /// How many bytes of the input it took. The next input begins behind them.
        consumed: usize,
        /// What it is.
        event: E,
    },
}
