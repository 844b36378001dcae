//! The package: device state and commands that the source of a postcopy migration sends in one piece, so that the channel is
//! free for pages while they are being loaded.

use vmstate_ram::BlockId;
use vmstate_wire::stream::StreamOffset;

use crate::channel::{ChannelError, SectionReader};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// A package in memory. It holds no guest pages.
pub struct Package {
    bytes: Vec<u8>,
    used: usize,
    /// Stream offset of its first byte.
    start: StreamOffset,
}

impl Package {
    /// Takes a package off the channel. Memory grows with what comes, not with what is announced.
    pub(super) fn read(input: &mut dyn SectionReader, length: usize) -> Result<Self, ChannelError> {
        let start = input.offset();
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let done = bytes.len();
            bytes.resize(length.min(done.saturating_add(PIECE)), 0);
            input.read_exact(bytes.get_mut(done..).unwrap_or_default())?;
        }
        Ok(Self {
            bytes,
            used: 0,
            start,
        })
    }

    /// All of it.
    pub(super) fn content(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Package")
            .field("bytes", &self.bytes.len())
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl SectionReader for Package {
    fn fill(&mut self, _at_least: usize) -> Result<&[u8], ChannelError> {
        Ok(self.bytes.get(self.used..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.used = self.used.saturating_add(count).min(self.bytes.len());
    }

    fn offset(&self) -> StreamOffset {
        self.start.plus(self.used as u64)
    }

    fn read_into_guest(
        &mut self,
        _block: BlockId,
        _offset: u64,
        _length: u64,
    ) -> Result<(), ChannelError> {
        let reason = "a guest page inside of a package";
        Err(ChannelError::failed(self.offset(), reason))
    }
}
