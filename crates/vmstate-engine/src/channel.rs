//! What a handler writes into and reads from.

use vmstate_ram::{BlockId, BlockTable, PageSize};
use vmstate_wire::stream::StreamOffset;

use crate::handlers::HandlerError;

/// Why a channel does not carry bytes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelEnd {
    /// The peer closed it, or the file is over.
    Closed,
    /// This side has shut it down: a cancel, or a failure elsewhere.
    ShutDown,
    /// A deadline passed.
    TimedOut,
    /// The transport reported an error.
    Failed,
}

/// A channel broke.
#[derive(Debug, thiserror::Error)]
#[error("{} (stream offset {offset})", self.what())]
pub struct ChannelError {
    /// In which way.
    pub end: ChannelEnd,
    /// Bytes that had passed on this channel before.
    pub offset: StreamOffset,
    /// The driver's reason.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ChannelError {
    /// An error without a reason of the driver's own.
    #[must_use]
    pub fn new(end: ChannelEnd, offset: StreamOffset) -> Self {
        Self {
            end,
            offset,
            source: None,
        }
    }

    /// An error of the transport.
    #[must_use]
    pub fn failed(
        offset: StreamOffset,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            end: ChannelEnd::Failed,
            offset,
            source: Some(source.into()),
        }
    }

    fn what(&self) -> &'static str {
        match self.end {
            ChannelEnd::Closed => "the channel ended",
            ChannelEnd::ShutDown => "the channel was shut down",
            ChannelEnd::TimedOut => "nothing moved on the channel for too long",
            ChannelEnd::Failed => "the channel failed",
        }
    }
}

/// What a handler writes its section's payload into.
///
/// The engine has written the section's header and writes its footer; a handler writes what is between. Bytes and
/// pages keep their order. Nothing tells a handler when they leave the machine.
pub trait SectionWriter {
    /// Appends bytes. They are copied.
    ///
    /// # Errors
    ///
    /// [`ChannelError`]. The channel stays broken: every later call fails too.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError>;

    /// Appends `length` bytes of guest memory, from `offset` of a block on. The driver takes them from where they are,
    /// possibly much later: what the guest writes in between may or may not be sent, so the page must be marked
    /// clean *before* this call.
    ///
    /// # Errors
    ///
    /// As [`SectionWriter::bytes`], and a range that is not in the block.
    fn pages(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError>;

    /// Appends a run of adjacent pages, the first at `offset`, each with its eight bytes in front: word 0, page 0,
    /// word 1, page 1 and so on. Drivers override it to do so in one go; it is where nearly all bytes pass.
    ///
    /// # Errors
    ///
    /// As [`SectionWriter::pages`].
    fn page_records(
        &mut self,
        block: BlockId,
        offset: u64,
        page_size: u32,
        words: &[[u8; 8]],
    ) -> Result<(), ChannelError> {
        let mut offset = offset;
        for word in words {
            self.bytes(word)?;
            self.pages(block, offset, page_size.into())?;
            offset = offset.saturating_add(page_size.into());
        }
        Ok(())
    }

    /// Whether a handler that is asked for one piece should return now: this slice's share of the bandwidth limit is
    /// used up, or the driver wants its thread back. `true` also when the channel is broken.
    ///
    /// Cheap enough to be asked every 64 pages. Never `true` while the guest is stopped for the switchover.
    fn rate_exceeded(&self) -> bool;

    /// Bytes appended to this channel so far.
    fn position(&self) -> StreamOffset;

    /// Where guest RAM goes, in a format that has a form of its own for it; all of the section goes there then. `None`: RAM is
    /// records among the bytes.
    fn ram(&mut self) -> Option<&mut dyn PageSink> {
        None
    }
}

/// A section of guest RAM, in a format that does not carry it as bytes.
pub trait PageSink {
    /// The blocks, which stand in the START and nowhere else. Their numbers are those of the pages that follow.
    ///
    /// # Errors
    ///
    /// As [`SectionWriter::bytes`].
    fn blocks(&mut self, blocks: &BlockTable, page_size: PageSize) -> Result<(), ChannelError>;

    /// Appends some of the 64 pages from number `first` of a block on: with their content those whose bits are set in `raw`,
    /// lowest bit first, as pages of zeros those in `zero`. A page comes once in a section, in any order; as for
    /// [`SectionWriter::pages`], the content is taken later.
    ///
    /// # Errors
    ///
    /// As [`SectionWriter::pages`].
    fn pages(
        &mut self,
        block: BlockId,
        first: u64,
        raw: u64,
        zero: u64,
    ) -> Result<(), ChannelError>;
}

/// The main channel, as the engine itself writes it.
pub trait ChannelWriter: SectionWriter {
    /// Gives everything appended so far to the transport. What it has accepted may have arrived.
    ///
    /// # Errors
    ///
    /// As [`SectionWriter::bytes`].
    fn flush(&mut self) -> Result<(), ChannelError>;
}

/// What a handler reads its section's payload from.
///
/// No section says how long it is: a handler must take exactly its own bytes and leave the footer.
pub trait SectionReader {
    /// Everything at hand, at least `at_least` bytes; waits for them. Fewer only if the channel ends before. Nothing is
    /// consumed.
    ///
    /// Ask only for bytes that are sure to come: another wait would be for ever.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if the channel breaks; its end is none. [`ChannelEnd::Failed`] if `at_least` is above
    /// [`MAX_PEEK`].
    fn fill(&mut self, at_least: usize) -> Result<&[u8], ChannelError>;

    /// Takes `count` of the bytes that [`SectionReader::fill`] showed; more than that are not taken.
    fn consume(&mut self, count: usize);

    /// Offset of the next byte in the stream, for errors.
    fn offset(&self) -> StreamOffset;

    /// Fills `out`.
    ///
    /// # Errors
    ///
    /// [`ChannelError`], with [`ChannelEnd::Closed`] if the channel ends before.
    fn read_exact(&mut self, out: &mut [u8]) -> Result<(), ChannelError> {
        let mut rest = out;
        while !rest.is_empty() {
            let available = self.fill(1)?;
            let count = available.len().min(rest.len());
            if count == 0 {
                return Err(ChannelError::new(ChannelEnd::Closed, self.offset()));
            }
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(available.get(..count).unwrap_or_default());
            self.consume(count);
            rest = later;
        }
        Ok(())
    }

    /// Moves the next `length` bytes into guest memory, from `offset` of a block on, without a copy in between where
    /// the driver can.
    ///
    /// # Errors
    ///
    /// As [`SectionReader::read_exact`], and a range that is not in the block.
    fn read_into_guest(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
    ) -> Result<(), ChannelError>;

    /// Where guest RAM comes from, in a format that has a form of its own for it; all of the section comes from there then.
    /// `None`: RAM is records among the bytes.
    fn ram(&mut self) -> Option<&mut dyn PageSource> {
        None
    }
}

/// A section of guest RAM, in a format that does not carry it as bytes.
pub trait PageSource {
    /// What comes next; `None` at the end of the section. After [`PageItem::Raw`], the content must be taken first.
    ///
    /// # Errors
    ///
    /// [`HandlerError::Channel`], [`HandlerError::Format`].
    fn next(&mut self) -> Result<Option<PageItem>, HandlerError>;

    /// Takes content of [`PageItem::Raw`] into a buffer, which it fills: for pages that must be there as a whole before anybody sees
    /// them.
    ///
    /// # Errors
    ///
    /// As [`SectionReader::read_exact`], and more than there is.
    fn content(&mut self, out: &mut [u8]) -> Result<(), ChannelError>;
}

/// A piece of a section of guest RAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageItem {
    /// The source's blocks.
    Blocks {
        /// In the order of their numbers.
        blocks: BlockTable,
        /// The unit of page numbers.
        page_size: PageSize,
    },
    /// Adjacent pages, whose content [`SectionReader::read_into_guest`] or [`PageSource::content`] takes, in one or more calls.
    Raw(PageRun),
    /// Adjacent pages that have the same value in all bytes.
    Fill(PageRun, u8),
}

/// Adjacent pages. Nobody has checked that the block has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    /// Number of the block at the source.
    pub block: BlockId,
    /// Number of the first page in its block.
    pub first: u64,
    /// How many, at least 1.
    pub count: u64,
}

impl PageRun {
    /// Where the run lies in its block, first byte and bytes, if it is in one that is listed.
    pub(crate) fn range(
        &self,
        table: &BlockTable,
        size: PageSize,
    ) -> Result<(u64, u64), HandlerError> {
        let bytes = |pages: u64| pages.checked_mul(size.bytes());
        let (Some(offset), Some(length)) = (bytes(self.first), bytes(self.count)) else {
            return Err(HandlerError::refused(format!(
                "{self:?} is beyond all memory"
            )));
        };
        table.check_page(self.block, offset, size)?;
        // The block's bytes are counted in 64 bits, so a run that ends behind it is seen.
        let last = offset.saturating_add(length).saturating_sub(size.bytes());
        table.check_page(self.block, last, size)?;
        Ok((offset, length))
    }
}

/// The most that [`SectionReader::fill`] may be asked for, in bytes: enough for every record and for the fixed part
/// of every device.
pub const MAX_PEEK: usize = 256 << 10;
