//! Files as the engine's channels.

use std::io::{self, Read, Write};

use vmstate::wire::stream::StreamOffset;
use vmstate_engine::{
    ChannelEnd, ChannelError, ChannelWriter, GuestMemory, MAX_PEEK, SectionReader, SectionWriter,
};
use vmstate_ram::BlockId;

use crate::{Machine, Memory};

/// Bytes that are collected before they are written, and at least read at once.
const CHUNK: usize = 256 << 10;

/// A file that is written.
pub(super) struct Output<'a, W> {
    memory: &'a Memory,
    to: W,
    buffer: Vec<u8>,
    /// Bytes that have left the buffer.
    written: u64,
}

impl<'a, W: Write> Output<'a, W> {
    pub(super) fn new(machine: &'a Machine, to: W) -> Self {
        Self {
            memory: machine.memory(),
            to,
            buffer: Vec::with_capacity(2 * CHUNK),
            written: 0,
        }
    }

    fn write_out(&mut self) -> Result<(), ChannelError> {
        let written = self.to.write_all(&self.buffer);
        written.map_err(|error| ChannelError::failed(self.position(), error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn write_out_when_full(&mut self) -> Result<(), ChannelError> {
        if self.buffer.len() < CHUNK {
            return Ok(());
        }
        self.write_out()
    }
}

impl<W: Write> SectionWriter for Output<'_, W> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.buffer.extend_from_slice(bytes);
        self.write_out_when_full()
    }

    fn pages(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        let position = self.position();
        let fail = |error: io::Error| ChannelError::failed(position, error);
        let start = self.buffer.len();
        let inside = offset.checked_add(length) <= Some(self.memory.used_length(block));
        let length = usize::try_from(length).ok().filter(|_| inside);
        let length = length.ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
        self.buffer.resize(start + length, 0);
        let out = self.buffer.get_mut(start..).unwrap_or_default();
        let copied = self.memory.copy_out(block, offset, out);
        copied.map_err(|error| fail(io::Error::other(error)))?;
        self.write_out_when_full()
    }

    fn rate_exceeded(&self) -> bool {
        false
    }

    fn position(&self) -> StreamOffset {
        StreamOffset(self.written + self.buffer.len() as u64)
    }
}

impl<W: Write> ChannelWriter for Output<'_, W> {
    fn flush(&mut self) -> Result<(), ChannelError> {
        self.write_out()?;
        let flushed = self.to.flush();
        flushed.map_err(|error| ChannelError::failed(self.position(), error))
    }
}

/// A file that is read.
pub(super) struct Input<'a, R> {
    memory: &'a Memory,
    from: R,
    buffer: Vec<u8>,
    /// What of the buffer has been consumed.
    used: usize,
    /// Bytes that were consumed and are not in the buffer any more.
    dropped: u64,
}

impl<'a, R: Read> Input<'a, R> {
    pub(super) fn new(machine: &'a Machine, from: R) -> Self {
        Self {
            memory: machine.memory(),
            from,
            buffer: Vec::new(),
            used: 0,
            dropped: 0,
        }
    }
}

impl<R: Read> SectionReader for Input<'_, R> {
    fn fill(&mut self, at_least: usize) -> Result<&[u8], ChannelError> {
        let offset = self.offset();
        if at_least > MAX_PEEK {
            return Err(ChannelError::new(ChannelEnd::Failed, offset));
        }
        if self.buffer.len() - self.used < at_least {
            self.buffer.drain(..self.used);
            self.dropped = offset.0;
            self.used = 0;
            let wanted = (at_least.max(CHUNK) - self.buffer.len()) as u64;
            let read = self
                .from
                .by_ref()
                .take(wanted)
                .read_to_end(&mut self.buffer);
            read.map_err(|error| ChannelError::failed(offset, error))?;
        }
        Ok(self.buffer.get(self.used..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.used = self.used.saturating_add(count).min(self.buffer.len());
    }

    fn offset(&self) -> StreamOffset {
        StreamOffset(self.dropped + self.used as u64)
    }

    fn read_into_guest(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
    ) -> Result<(), ChannelError> {
        let (mut at, mut left) = (offset, length);
        while left > 0 {
            let memory = self.memory;
            let here = self.offset();
            let available = self.fill(1)?;
            let count = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(available.len());
            let Some(data) = available.get(..count).filter(|data| !data.is_empty()) else {
                return Err(ChannelError::new(ChannelEnd::Closed, here));
            };
            let copied = memory.copy_in(block, at, data);
            copied.map_err(|error| ChannelError::failed(here, error))?;
            self.consume(count);
            at += count as u64;
            left -= count as u64;
        }
        Ok(())
    }
}
