//! Channels of bytes in memory.

use std::sync::Arc;

use vmstate_engine::{ChannelError, ChannelWriter, GuestMemory, SectionReader, SectionWriter};
use vmstate_ram::BlockId;
use vmstate_wire::stream::StreamOffset;

/// A writer that keeps everything, pages by value.
pub(crate) struct Recorder {
    memory: Arc<dyn GuestMemory>,
    pub(crate) bytes: Vec<u8>,
    /// When the rate counts as exceeded, in bytes written.
    pub(crate) limit: usize,
}

impl Recorder {
    pub(crate) fn new(memory: Arc<dyn GuestMemory>) -> Self {
        Self {
            memory,
            bytes: Vec::new(),
            limit: usize::MAX,
        }
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl SectionWriter for Recorder {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn pages(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        let start = self.bytes.len();
        self.bytes
            .resize(start + usize::try_from(length).unwrap(), 0);
        self.memory
            .copy_out(block, offset, &mut self.bytes[start..])
            .map_err(|error| ChannelError::failed(StreamOffset(start as u64), error))
    }

    fn rate_exceeded(&self) -> bool {
        self.bytes.len() >= self.limit
    }

    fn position(&self) -> StreamOffset {
        StreamOffset(self.bytes.len() as u64)
    }
}

impl ChannelWriter for Recorder {
    fn flush(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }
}

/// A reader of bytes that are there, giving them out in pieces of `piece` bytes.
pub(crate) struct Bytes<'a> {
    pub(crate) memory: Arc<dyn GuestMemory>,
    pub(crate) bytes: &'a [u8],
    pub(crate) position: usize,
    pub(crate) piece: usize,
    shown: usize,
}

impl<'a> Bytes<'a> {
    pub(crate) fn new(memory: Arc<dyn GuestMemory>, bytes: &'a [u8], piece: usize) -> Self {
        Self {
            memory,
            bytes,
            position: 0,
            piece,
            shown: 0,
        }
    }
}

impl SectionReader for Bytes<'_> {
    fn fill(&mut self, at_least: usize) -> Result<&[u8], ChannelError> {
        if self.shown < self.position + at_least || self.shown == self.position {
            self.shown = self.position + at_least.max(self.piece);
        }
        self.shown = self.shown.min(self.bytes.len());
        Ok(&self.bytes[self.position..self.shown])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
        assert!(self.position <= self.shown, "consumed what was not shown");
    }

    fn offset(&self) -> StreamOffset {
        StreamOffset(self.position as u64)
    }

    fn read_into_guest(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
    ) -> Result<(), ChannelError> {
        let mut data = vec![0; usize::try_from(length).unwrap()];
        self.read_exact(&mut data)?;
        self.memory
            .copy_in(block, offset, &data)
            .map_err(|error| ChannelError::failed(self.offset(), error))
    }
}
