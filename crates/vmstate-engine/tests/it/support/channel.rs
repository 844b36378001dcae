//! Channels of bytes in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use vmstate_engine::{
    ChannelEnd, ChannelError, ChannelWriter, GuestMemory, SectionReader, SectionWriter,
};
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

/// A pipe that breaks after a number of bytes.
#[derive(Default)]
pub(crate) struct Channel {
    bytes: VecDeque<u8>,
    sent: u64,
    received: u64,
    shut: bool,
    /// Offsets at which a write began: the boundaries of records.
    pub(crate) boundaries: Vec<u64>,
    /// After so many bytes nothing arrives any more.
    pub(crate) cut: Option<u64>,
    /// Whether the writer is told of the cut.
    pub(crate) tells: bool,
}

/// One end of a [`Channel`], for writing or for reading.
#[derive(Clone)]
pub(crate) struct Pipe {
    memory: Arc<dyn GuestMemory>,
    pub(crate) channel: Arc<Mutex<Channel>>,
    /// What the reader has taken out, and not consumed.
    buffer: VecDeque<u8>,
    pub(crate) stop_at: Option<u64>,
}

impl Pipe {
    /// The writing and the reading end.
    pub(crate) fn pair(from: Arc<dyn GuestMemory>, to: Arc<dyn GuestMemory>) -> (Self, Self) {
        let channel = Arc::new(Mutex::new(Channel::default()));
        let end = |memory| Self {
            memory,
            channel: Arc::clone(&channel),
            buffer: VecDeque::new(),
            stop_at: None,
        };
        (end(from), end(to))
    }

    /// Both ends: nothing goes through any more, what is under way still arrives.
    pub(crate) fn shut_down(&self) {
        self.channel.lock().unwrap().shut = true;
    }

    /// Whether there is something to read, or nothing will ever come.
    pub(crate) fn is_readable(&self) -> bool {
        let channel = self.channel.lock().unwrap();
        !self.buffer.is_empty() || !channel.bytes.is_empty() || channel.is_over()
    }

    fn put(&self, bytes: &[u8]) -> Result<(), ChannelError> {
        let mut channel = self.channel.lock().unwrap();
        let offset = StreamOffset(channel.sent);
        if channel.shut {
            return Err(ChannelError::new(ChannelEnd::ShutDown, offset));
        }
        let room = channel
            .cut
            .map_or(u64::MAX, |cut| cut.saturating_sub(channel.sent));
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        channel.boundaries.push(offset.0);
        channel.bytes.extend(&bytes[..fits]);
        channel.sent += bytes.len() as u64;
        if fits < bytes.len() && channel.tells {
            return Err(ChannelError::new(ChannelEnd::Closed, offset));
        }
        Ok(())
    }
}

impl Channel {
    pub(crate) fn is_over(&self) -> bool {
        self.shut || self.cut.is_some_and(|cut| self.sent > cut)
    }
}

impl SectionWriter for Pipe {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.put(bytes)
    }

    fn pages(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        let mut data = vec![0; usize::try_from(length).unwrap()];
        self.memory.copy_out(block, offset, &mut data).unwrap();
        self.put(&data)
    }

    fn rate_exceeded(&self) -> bool {
        self.stop_at.is_some_and(|stop| self.position().0 >= stop)
    }

    fn position(&self) -> StreamOffset {
        StreamOffset(self.channel.lock().unwrap().sent)
    }
}

impl ChannelWriter for Pipe {
    fn flush(&mut self) -> Result<(), ChannelError> {
        let channel = self.channel.lock().unwrap();
        if channel.tells && channel.is_over() {
            return Err(ChannelError::new(
                ChannelEnd::Closed,
                StreamOffset(channel.sent),
            ));
        }
        Ok(())
    }
}

impl SectionReader for Pipe {
    fn fill(&mut self, at_least: usize) -> Result<&[u8], ChannelError> {
        let mut channel = self.channel.lock().unwrap();
        self.buffer.append(&mut channel.bytes);
        assert!(
            self.buffer.len() >= at_least || channel.is_over(),
            "waits for bytes that do not come"
        );
        drop(channel);
        Ok(self.buffer.make_contiguous())
    }

    fn consume(&mut self, count: usize) {
        self.buffer.drain(..count);
        self.channel.lock().unwrap().received += count as u64;
    }

    fn offset(&self) -> StreamOffset {
        StreamOffset(self.channel.lock().unwrap().received)
    }

    fn read_into_guest(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
    ) -> Result<(), ChannelError> {
        let mut data = vec![0; usize::try_from(length).unwrap()];
        self.read_exact(&mut data)?;
        self.memory.copy_in(block, offset, &data).unwrap();
        Ok(())
    }
}
