//! The receiving end of a stream: pages go straight to where they belong.

use std::time::Duration;

use vmstate_engine::{ChannelEnd, ChannelError, MAX_PEEK, SectionReader};
use vmstate_linux::Scatter;
use vmstate_ram::BlockId;
use vmstate_wire::stream::StreamOffset;

use super::link::Link;
use super::memory::MappedMemory;

/// Bytes that are read ahead at once: few enough to stay in the processor's cache until they are copied on.
const AHEAD: usize = 64 << 10;

/// Reads a stream from a [`Link`].
pub struct StreamReader<'m> {
    link: Link,
    memory: &'m dyn MappedMemory,
    buffer: Box<[u8]>,
    /// The part of the buffer that has not been consumed.
    start: usize,
    end: usize,
    /// Stream offset of `start`.
    offset: u64,
}

impl<'m> StreamReader<'m> {
    /// A reader at the beginning of a stream. Pages go into `memory`.
    #[must_use]
    pub fn new(link: Link, memory: &'m dyn MappedMemory) -> Self {
        Self {
            link,
            memory,
            buffer: vec![0; MAX_PEEK + AHEAD].into(),
            start: 0,
            end: 0,
            offset: 0,
        }
    }

    /// The channel.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// From now on, something must come at least this often.
    pub(super) fn set_silence(&mut self, silence: Duration) {
        self.link = self.link.clone().with_silence(Some(silence));
    }

    fn available(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Reads once into the buffer behind `end`; 0 is the end of the stream.
    fn read_more(&mut self) -> Result<usize, ChannelError> {
        let at = StreamOffset(self.offset.saturating_add(self.available() as u64));
        let limit = self.end.saturating_add(AHEAD).min(self.buffer.len());
        let mut list = Scatter::new();
        list.buffer(self.buffer.get_mut(self.end..limit).unwrap_or_default());
        let count = self.link.read(&mut list, at)?;
        self.end = self.end.saturating_add(count);
        Ok(count)
    }

    fn range_error(&self, reason: impl std::fmt::Display) -> ChannelError {
        ChannelError::failed(StreamOffset(self.offset), reason.to_string())
    }
}

impl SectionReader for StreamReader<'_> {
    fn fill(&mut self, at_least: usize) -> Result<&[u8], ChannelError> {
        if at_least > MAX_PEEK {
            return Err(self.range_error(format_args!("{at_least} bytes are too many to look at")));
        }
        if self.available() < at_least {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end = self.available();
                self.start = 0;
            }
            while self.available() < at_least && self.read_more()? > 0 {}
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.available());
        self.start = self.start.saturating_add(count);
        self.offset = self.offset.saturating_add(count as u64);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    fn offset(&self) -> StreamOffset {
        StreamOffset(self.offset)
    }

    fn read_into_guest(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
    ) -> Result<(), ChannelError> {
        let here = usize::try_from(length).unwrap_or(usize::MAX);
        let here = here.min(self.available());
        let bytes = self.buffer.get(self.start..self.start.saturating_add(here));
        self.memory
            .copy_in(block, offset, bytes.unwrap_or_default())
            .map_err(|error| self.range_error(error))?;
        self.consume(here);
        let mut offset = offset.saturating_add(here as u64);
        let mut left = length.saturating_sub(here as u64);
        while left > 0 {
            // The buffer is empty. What follows the page is read in the same call.
            let at = StreamOffset(self.offset);
            let Some(ram) = self.memory.mapping(block) else {
                return Err(self.range_error(format_args!("there is no RAM block {}", block.0)));
            };
            let mut list = Scatter::new();
            list.ram(ram, offset, left)
                .map_err(|error| ChannelError::failed(at, error))?;
            list.buffer(self.buffer.get_mut(..AHEAD).unwrap_or_default());
            let count = self.link.read(&mut list, at)? as u64;
            if count == 0 {
                return Err(ChannelError::new(ChannelEnd::Closed, at));
            }
            let placed = count.min(left);
            self.end = usize::try_from(count.saturating_sub(placed)).unwrap_or(0);
            self.offset = self.offset.saturating_add(placed);
            offset = offset.saturating_add(placed);
            left = left.saturating_sub(placed);
        }
        Ok(())
    }
}

impl std::fmt::Debug for StreamReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamReader")
            .field("link", &self.link)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
