//! The crate's error: what is wrong, and where.

use std::error::Error;
use std::fmt;

use crate::multifd::Method;
use crate::xbzrle::XbzrleError;
use crate::{BlockName, PageSize, RamFlags};

/// Who has to change for an error to go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// The bytes do not follow the format.
    Malformed,
    /// Well-formed bytes at a moment when the peer must not send them.
    PeerMisbehaved,
    /// The two sides are set up differently: page size, capabilities, compression, blocks.
    Incompatible,
    /// A limit of this side was reached.
    Limit,
    /// The calling program used this crate wrongly.
    Misuse,
}

/// A refusal, with the place where it happened.
///
/// One machine word; success costs nothing. [`RamError::offset`] counts from where the driver said the stream
/// (or channel) begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: RamErrorKind,
    offset: Option<u64>,
    block: Option<BlockName>,
}

impl RamError {
    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> &RamErrorKind {
        &self.0.kind
    }

    /// The byte of the stream, channel or file at which the wrong field begins.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The RAM block that was being handled.
    #[must_use]
    pub fn block(&self) -> Option<&BlockName> {
        self.0.block.as_ref()
    }

    /// Who has to change.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.0.kind.blame()
    }

    /// Adds the place, unless one closer to the cause is there already.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Adds the block, unless one is there already.
    #[must_use]
    pub fn in_block(mut self, name: &BlockName) -> Self {
        self.0.block.get_or_insert_with(|| name.clone());
        self
    }
}

impl From<RamErrorKind> for RamError {
    #[cold]
    fn from(kind: RamErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            offset: None,
            block: None,
        }))
    }
}

impl fmt::Display for RamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            offset,
            block,
        } = &*self.0;
        if let Some(block) = block {
            write!(f, "block {block}: ")?;
        }
        write!(f, "{kind}")?;
        if let Some(offset) = offset {
            write!(f, " (stream offset {offset:#x})")?;
        }
        Ok(())
    }
}

impl Error for RamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.kind.source()
    }
}

/// What is wrong. Numbers are bytes unless the text says pages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the message of each variant is its documentation"
)]
pub enum RamErrorKind {
    // Pages and blocks.
    #[error("target page size {found} is not a power of two from 256 to 65536")]
    PageSize { found: u64 },
    #[error("block name of {length} bytes: expected 1 to 255 bytes without NUL")]
    BlockName { length: usize },
    #[error("block {name} is listed twice")]
    DuplicateBlock { name: BlockName },
    #[error(
        "used length {found:#x} is not a positive multiple of the target page size {page_size}"
    )]
    UsedLength { found: u64, page_size: PageSize },
    #[error("the used lengths of all blocks exceed 64 bits")]
    TotalOverflow,
    #[error("more than {limit} blocks")]
    TooManyBlocks { limit: usize },
    #[error(
        "the blocks add up to at least {found:#x} bytes, more than the announced total {total:#x}"
    )]
    TotalExceeded { total: u64, found: u64 },
    #[error("page size of the block's memory is {found:#x}, expected {expected:#x}")]
    BlockPageSize { expected: u64, found: u64 },
    #[error(
        "page size of the block's memory is {found:#x}: not a power of two or below the target page size"
    )]
    BadBlockPageSize { found: u64 },
    #[error("page record names unknown block \"{name}\"")]
    UnknownBlock { name: String },
    #[error("no block has id {id}")]
    UnknownBlockId { id: u32 },
    #[error("page record for a block whose pages do not travel")]
    IgnoredBlock,
    #[error("page offset {offset:#x} is not a multiple of the target page size {page_size}")]
    Unaligned { offset: u64, page_size: PageSize },
    #[error("page offset {offset:#x} is outside the block's used length {used_length:#x}")]
    OutsideBlock { offset: u64, used_length: u64 },

    // Records.
    #[error("record word {word:#x} has unknown flag bits {unknown:#x}")]
    UnknownFlags { word: u64, unknown: u64 },
    #[error(
        "record word {word:#x} has flags {flags}: expected exactly one record besides CONTINUE"
    )]
    NotOneRecord { word: u64, flags: RamFlags },
    #[error("record {flags} is obsolete and refused")]
    Obsolete { flags: RamFlags },
    #[error("record {flags} belongs to RDMA migration, which is not supported")]
    Rdma { flags: RamFlags },
    #[error("record word {word:#x}: {flags} carries neither an offset nor CONTINUE")]
    BareWord { word: u64, flags: RamFlags },
    #[error("record {flags} is not allowed {when}")]
    NotAllowed { flags: RamFlags, when: &'static str },
    #[error("the START section begins with {flags} instead of the block list")]
    NoBlockList { flags: RamFlags },
    #[error("CONTINUE before any record named a block")]
    NothingToContinue,
    #[error("fill byte of a zero page is {found:#04x}, expected 0")]
    FillByte { found: u8 },
    #[error("XBZRLE record begins with {found:#04x}, expected 0x01")]
    XbzrleMark { found: u8 },
    #[error("XBZRLE delta of {found} bytes is longer than the target page size {limit}")]
    XbzrleLength { found: u64, limit: u64 },
    #[error("XBZRLE delta cannot be applied")]
    Xbzrle(#[from] XbzrleError),
    #[error("compressed page of {found} bytes: expected 1 to {limit}")]
    CompressedLength { found: u64, limit: u64 },
    #[error("{section} section {when}")]
    SectionOrder {
        section: &'static str,
        when: &'static str,
    },
    #[error("input ended: {needed} bytes needed, {have} there")]
    Truncated { needed: usize, have: usize },

    // Multifd.
    #[error("multifd packet begins with {found:#010x}, expected 0x11223344")]
    MultifdMagic { found: u32 },
    #[error("multifd version {found}, expected 1")]
    MultifdVersion { found: u32 },
    #[error("multifd packet has unknown flag bits {found:#x}")]
    MultifdFlags { found: u32 },
    #[error("multifd channel {found} of {channels}")]
    MultifdChannel { found: u8, channels: u16 },
    #[error("multifd channel {found} came twice")]
    MultifdChannelTwice { found: u8 },
    #[error("multifd channel belongs to another virtual machine (its UUID differs)")]
    MultifdUuid,
    #[error("multifd packet has room for {found} pages, expected at most {limit}")]
    MultifdCapacity { found: u32, limit: u32 },
    #[error(
        "multifd packet has {normal} normal and {zero} zero pages, more than its capacity of {capacity}"
    )]
    MultifdPageCount {
        normal: u32,
        zero: u32,
        capacity: u32,
    },
    #[error("multifd payload of {found} bytes: expected {expected}")]
    MultifdPayload { expected: u64, found: u64 },
    #[error("multifd payload of {found} bytes: expected {minimum} to {limit}")]
    MultifdPayloadBound {
        minimum: u64,
        limit: u64,
        found: u64,
    },
    #[error("name field of a multifd packet is not a NUL padded name of 1 to 255 bytes")]
    MultifdName,
    #[error("multifd packet is compressed with {found}, expected {expected}")]
    MultifdMethod { expected: Method, found: Method },
    #[error("compression bits {found:#x} of a multifd packet name no method")]
    MultifdMethodBits { found: u32 },
    #[error("SYNC on a device state packet")]
    MultifdDeviceSync,
    #[error("page payload compressed with {method} is damaged: {what}")]
    Inflate { method: Method, what: &'static str },
    #[error("compression method {method} is not supported by this build")]
    MethodNotBuilt { method: Method },
    #[error("compression with {method} failed: {what}")]
    Deflate { method: Method, what: &'static str },

    // mapped-ram.
    #[error("mapped-ram header version {found}, expected at most 1")]
    MappedVersion { found: u32 },
    #[error("mapped-ram file has target page size {found}, expected {expected}")]
    MappedPageSize { expected: u64, found: u64 },
    #[error("mapped-ram {what} at file bytes {start:#x}..{end:#x}: {problem}")]
    MappedPlace {
        what: &'static str,
        start: u64,
        end: u64,
        problem: &'static str,
    },

    // Page bitmaps.
    #[error("bitmap of {found} bytes, expected {expected}")]
    BitmapSize { expected: u64, found: u64 },
    #[error("bitmap of {found} pages exceeds the limit of {limit}")]
    BitmapLimit { found: u64, limit: u64 },
    #[error("bitmap has a bit set at or behind its end, page {page}")]
    BitmapTail { page: u64 },
    #[error("received bitmap ends with {found:#x}, expected 0x0123456789abcdef")]
    BitmapMark { found: u64 },

    // The dirty-bitmap section.
    #[error("dirty bitmap chunk has flags {flags:#04x}: {problem}")]
    ChunkFlags { flags: u8, problem: &'static str },
    #[error("dirty bitmap chunk: {what} alias is missing and none came before")]
    ChunkAlias { what: &'static str },
    #[error("dirty bitmap start flags {found:#04x}: only bits 0 to 2 are known")]
    ChunkStartFlags { found: u8 },
    #[error("dirty bitmap granularity {found} is not a power of two of at least 512")]
    ChunkGranularity { found: u32 },
    #[error("dirty bitmap chunk holds {found} bytes of bits, expected at most {limit}")]
    ChunkBits { found: u64, limit: u64 },

    // Limits and misuse.
    #[error("guest memory content exceeds the limit of {limit} bytes")]
    MemoryLimit { limit: u64 },
    #[error("called out of turn: {what}")]
    OutOfTurn { what: &'static str },
    #[error("buffer of {found} bytes, expected {expected}")]
    BufferLength { expected: usize, found: usize },
    #[error(
        "XBZRLE cache of {found} bytes: expected a power of two of at least one page, {page_size}"
    )]
    CacheSize { found: u64, page_size: PageSize },
}

impl RamErrorKind {
    /// Who has to change.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnknownBlock { .. }
            | Self::BlockPageSize { .. }
            | Self::MultifdUuid
            | Self::MultifdMethod { .. }
            | Self::MethodNotBuilt { .. }
            | Self::MultifdVersion { .. }
            | Self::MultifdChannel { .. }
            | Self::MappedVersion { .. }
            | Self::MappedPageSize { .. }
            | Self::Rdma { .. }
            | Self::Obsolete { .. } => Blame::Incompatible,
            Self::IgnoredBlock
            | Self::NotAllowed { .. }
            | Self::NoBlockList { .. }
            | Self::NothingToContinue
            | Self::MultifdChannelTwice { .. }
            | Self::MultifdDeviceSync
            | Self::ChunkAlias { .. }
            | Self::SectionOrder { .. } => Blame::PeerMisbehaved,
            Self::TooManyBlocks { .. } | Self::BitmapLimit { .. } | Self::MemoryLimit { .. } => {
                Blame::Limit
            }
            Self::PageSize { .. }
            | Self::UnknownBlockId { .. }
            | Self::Deflate { .. }
            | Self::OutOfTurn { .. }
            | Self::BufferLength { .. }
            | Self::CacheSize { .. } => Blame::Misuse,
            _ => Blame::Malformed,
        }
    }
}

/// What is found where a name was expected, for messages.
#[cold]
pub(crate) fn shown(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_block_kind_and_place() {
        let name = BlockName::new(b"pc.ram").unwrap();
        let error = RamError::from(RamErrorKind::FillByte { found: 7 })
            .at(0x3f2a1)
            .in_block(&name);
        assert_eq!(
            error.to_string(),
            "block pc.ram: fill byte of a zero page is 0x07, expected 0 (stream offset 0x3f2a1)"
        );
        assert_eq!(
            (error.offset(), error.block(), error.blame()),
            (Some(0x3f2a1), Some(&name), Blame::Malformed)
        );
    }

    #[test]
    fn the_place_closest_to_the_cause_wins() {
        let error = RamError::from(RamErrorKind::NothingToContinue).at(1).at(2);
        assert_eq!(error.offset(), Some(1));
    }

    #[test]
    fn an_error_is_one_word() {
        assert_eq!(size_of::<RamError>(), size_of::<usize>());
    }
}
