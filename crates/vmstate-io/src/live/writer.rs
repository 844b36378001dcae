//! The sending end of a stream: bytes are gathered, guest pages go from where they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use vmstate_engine::{ChannelEnd, ChannelError, ChannelWriter, SectionWriter};
use vmstate_linux::Gather;
use vmstate_ram::BlockId;
use vmstate_wire::stream::StreamOffset;

use super::link::Link;
use super::memory::MappedMemory;

/// Pieces that are gathered before they are written: what the kernel takes in one call.
const PIECES: usize = 1024;
/// Bytes that are gathered before they are written.
const BYTES: u64 = 2 << 20;

/// What has been given to all channels of a migration, for whoever wants to know.
#[derive(Debug, Default)]
pub struct Counters {
    bytes: AtomicU64,
    pages: AtomicU64,
}

impl Counters {
    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Guest pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }
}

/// Writes a stream into a [`Link`].
pub struct StreamWriter<'m> {
    link: Link,
    memory: &'m dyn MappedMemory,
    counters: Arc<Counters>,
    list: Gather<'m>,
    pieces: usize,
    /// Bytes appended so far.
    appended: u64,
    /// Position from which on the rate counts as exceeded, and when it does at the latest.
    budget: Option<u64>,
    until: Option<Instant>,
    /// Bytes that are gathered before they are written.
    batch: u64,
    broken: Option<ChannelEnd>,
}

impl<'m> StreamWriter<'m> {
    /// A writer of a new stream. Pages come out of `memory`; `counters` are counted up.
    #[must_use]
    pub fn new(link: Link, memory: &'m dyn MappedMemory, counters: Arc<Counters>) -> Self {
        Self {
            link,
            memory,
            counters,
            list: Gather::new(),
            pieces: 0,
            appended: 0,
            budget: None,
            until: None,
            batch: BYTES,
            broken: None,
        }
    }

    /// From now on, the rate is exceeded when `budget` more bytes have been appended, and at the time `until`.
    pub fn limit(&mut self, budget: Option<u64>, until: Instant) {
        self.budget = budget.map(|bytes| self.appended.saturating_add(bytes));
        self.until = Some(until);
    }

    /// From now on, the rate is never exceeded.
    pub fn unlimited(&mut self) {
        self.budget = None;
        self.until = None;
    }

    /// From now on, no more than about so many bytes are gathered before they are written.
    pub fn gather_at_most(&mut self, bytes: u64) {
        self.batch = bytes.min(BYTES);
    }

    /// The channel.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// Whether everything appended has been given to the transport.
    #[must_use]
    pub const fn is_flushed(&self) -> bool {
        self.list.left() == 0
    }

    fn alive(&self) -> Result<(), ChannelError> {
        match self.broken {
            Some(end) => Err(ChannelError::new(end, self.position())),
            None => Ok(()),
        }
    }

    fn appended(&mut self, bytes: u64, pieces: usize) -> Result<(), ChannelError> {
        self.appended = self.appended.saturating_add(bytes);
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.pieces = self.pieces.saturating_add(pieces);
        if self.pieces >= PIECES || self.list.left() >= self.batch {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), ChannelError> {
        let offset = StreamOffset(self.appended.saturating_sub(self.list.left()));
        let result = self.link.write(&mut self.list, offset);
        if let Err(error) = &result {
            self.broken = Some(error.end);
        }
        self.list = std::mem::take(&mut self.list).recycle();
        self.pieces = 0;
        result
    }

    fn gather(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        let at = StreamOffset(self.appended);
        let ram = self.memory.mapping(block).ok_or_else(|| {
            ChannelError::failed(at, format!("there is no RAM block {}", block.0))
        })?;
        self.list
            .ram(ram, offset, length)
            .map_err(|error| ChannelError::failed(at, error))
    }
}

impl SectionWriter for StreamWriter<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.alive()?;
        self.list.bytes(bytes);
        self.appended(bytes.len() as u64, 1)
    }

    fn pages(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        self.alive()?;
        self.gather(block, offset, length)?;
        let pages = length >> self.memory.page_size().bits();
        self.counters
            .pages
            .fetch_add(pages.max(1), Ordering::Relaxed);
        self.appended(length, 1)
    }

    fn page_records(
        &mut self,
        block: BlockId,
        offset: u64,
        page_size: u32,
        words: &[[u8; 8]],
    ) -> Result<(), ChannelError> {
        self.alive()?;
        let mut offset = offset;
        let size = u64::from(page_size);
        for words in words.chunks(PIECES / 2) {
            for word in words {
                self.list.bytes(word);
                self.gather(block, offset, size)?;
                offset = offset.saturating_add(size);
            }
            let count = words.len();
            self.counters
                .pages
                .fetch_add(count as u64, Ordering::Relaxed);
            self.appended(
                (size.saturating_add(8)).saturating_mul(count as u64),
                count.saturating_mul(2),
            )?;
        }
        Ok(())
    }

    fn rate_exceeded(&self) -> bool {
        self.broken.is_some()
            || self.budget.is_some_and(|budget| self.appended >= budget)
            || self.until.is_some_and(|until| Instant::now() >= until)
            || self.link.stop().is_stopped()
    }

    fn position(&self) -> StreamOffset {
        StreamOffset(self.appended)
    }
}

impl ChannelWriter for StreamWriter<'_> {
    fn flush(&mut self) -> Result<(), ChannelError> {
        self.alive()?;
        self.write()
    }
}

impl std::fmt::Debug for StreamWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamWriter")
            .field("link", &self.link)
            .field("appended", &self.appended)
            .finish_non_exhaustive()
    }
}
