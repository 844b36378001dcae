//! Guest memory and its dirty log, as the engine sees them.

use vmstate_ram::{BlockId, BlockName, PageSize};

use crate::ram::DirtyPages;

/// A block of guest memory, as the VMM describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestBlock {
    /// Name, unique in the machine. QEMU: `idstr`.
    pub idstr: BlockName,
    /// Bytes in use: a multiple of the target page size, not 0.
    pub used_length: u64,
    /// Page size of the memory behind the block in bytes: 4096, or that of its huge pages.
    pub page_size: u64,
    /// Guest physical address; meaningful with the capability `x-ignore-shared` only.
    pub address: u64,
    /// The block is listed, but its pages do not travel.
    pub ignored: bool,
}

impl GuestBlock {
    /// An ordinary block on 4 KiB pages.
    #[must_use]
    pub fn new(idstr: BlockName, used_length: u64) -> Self {
        Self {
            idstr,
            used_length,
            page_size: 4096,
            address: 0,
            ignored: false,
        }
    }
}

/// Guest memory or its dirty log refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A range that is not in the block, or a block that is not there.
    #[error("{length} bytes at {offset:#x} are not in RAM block {block}")]
    OutOfRange {
        /// Number of the block.
        block: u32,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// The block cannot take another length.
    #[error("RAM block {block} has {local:#x} bytes and cannot be resized to {wanted:#x}")]
    Resize {
        /// Number of the block.
        block: u32,
        /// Its length here, in bytes.
        local: u64,
        /// The length asked for, in bytes.
        wanted: u64,
    },
    /// The VMM's own reason.
    #[error("guest memory: {0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// Guest memory, shared with harts and devices.
///
/// Everything goes through `&self`: the guest may run meanwhile, and what is read while the guest writes may be any
/// mixture of old and new bytes. Blocks are numbered from 0 in the order of [`GuestMemory::blocks`]; numbers and
/// names do not change during a migration.
pub trait GuestMemory: Send + Sync {
    /// The target page size: the unit of page records and of the dirty log.
    fn page_size(&self) -> PageSize;

    /// All blocks that migrate.
    fn blocks(&self) -> Vec<GuestBlock>;

    /// The present length of a block, in bytes: 0 if there is no such block.
    fn used_length(&self, block: BlockId) -> u64;

    /// Whether all bytes of a range are 0; `false` for one that is not in the block.
    fn is_zero(&self, block: BlockId, offset: u64, length: u64) -> bool;

    /// Which of 64 pages are all zero: bit i of the result for page `first_page + i`, asked for where bit i of `asked`
    /// is set. Memory that knows its own zero pages, or reads many at once, overrides it.
    fn zero_pages(&self, block: BlockId, first_page: u64, asked: u64) -> u64 {
        let size = self.page_size().bytes();
        let mut zero = 0;
        let mut left = asked;
        while left != 0 {
            let bit = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            let page = first_page.saturating_add(bit.into());
            if self.is_zero(block, page.saturating_mul(size), size) {
                zero |= 1 << bit;
            }
        }
        zero
    }

    /// Copies guest memory into `out`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfRange`].
    fn copy_out(&self, block: BlockId, offset: u64, out: &mut [u8]) -> Result<(), MemoryError>;

    /// Copies `data` into guest memory.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfRange`].
    fn copy_in(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError>;

    /// Fills a range with zeros. Memory that is zero already should stay untouched, and so unallocated.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfRange`].
    fn zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError>;

    /// Gives a block another length, because the source's has it.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Resize`]; always, unless overridden.
    fn resize(&self, block: BlockId, used_length: u64) -> Result<(), MemoryError> {
        Err(MemoryError::Resize {
            block: block.0,
            local: self.used_length(block),
            wanted: used_length,
        })
    }
}

/// The record of what the guest has written.
///
/// It lives as long as one migration uses it: [`start`](Self::start), any number of [`sync`](Self::sync)s,
/// [`stop`](Self::stop).
pub trait DirtyLog: Send {
    /// Begins to log. Nothing is dirty yet: the engine counts every page as dirty by itself.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Other`] if the host cannot.
    fn start(&mut self) -> Result<(), MemoryError>;

    /// Adds to `dirty` whatever was written since the last call, and forgets it. A write that happens meanwhile is
    /// reported now or by the next call, never lost. The cost must be proportional to what was written, not to the
    /// size of memory.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Other`] if the log failed. Nothing may be assumed clean then.
    fn sync(&mut self, dirty: &mut DirtySink<'_>) -> Result<(), MemoryError>;

    /// Ends logging; also called if [`start`](Self::start) has not been, or failed.
    fn stop(&mut self);
}

/// Where a [`DirtyLog`] reports dirty pages.
#[derive(Debug)]
pub struct DirtySink<'a> {
    blocks: &'a mut [DirtyPages],
    newly: u64,
    outside: u64,
}

impl<'a> DirtySink<'a> {
    /// A sink into one bitmap for each block.
    #[must_use]
    pub fn new(blocks: &'a mut [DirtyPages]) -> Self {
        Self {
            blocks,
            newly: 0,
            outside: 0,
        }
    }

    /// Marks `pages` pages from `first_page` of a block on.
    pub fn range(&mut self, block: BlockId, first_page: u64, pages: u64) {
        let end = first_page.saturating_add(pages);
        let Some(dirty) = self.of(block) else {
            self.outside = self.outside.saturating_add(pages);
            return;
        };
        let newly = dirty.set_range(first_page..end);
        self.newly = self.newly.saturating_add(newly);
    }

    /// Marks the pages of 64-bit words, the first of which stands for pages `64 * first_word` and up, lowest bit
    /// first: the form of a hypervisor's log.
    pub fn words(&mut self, block: BlockId, first_word: u64, words: &[u64]) {
        let Some(dirty) = self.of(block) else {
            self.outside = self.outside.saturating_add(1);
            return;
        };
        let mut newly: u64 = 0;
        for (index, word) in (first_word..).zip(words) {
            newly = newly.saturating_add(dirty.merge_word(index, *word));
        }
        self.newly = self.newly.saturating_add(newly);
    }

    /// Pages that were clean before and are dirty now.
    #[must_use]
    pub fn newly_dirty(&self) -> u64 {
        self.newly
    }

    /// Pages and words reported for blocks that do not exist: a mistake of the log.
    #[must_use]
    pub fn outside(&self) -> u64 {
        self.outside
    }

    fn of(&mut self, block: BlockId) -> Option<&mut DirtyPages> {
        self.blocks.get_mut(usize::try_from(block.0).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_counts_what_became_dirty() {
        let mut blocks = [DirtyPages::new(100), DirtyPages::new(10)];
        let mut sink = DirtySink::new(&mut blocks);
        sink.range(BlockId(0), 90, 20);
        sink.words(BlockId(0), 0, &[0b11, u64::MAX]);
        sink.words(BlockId(1), 0, &[u64::MAX]);
        sink.range(BlockId(1), u64::MAX, 2);
        assert_eq!((sink.newly_dirty(), sink.outside()), (10 + 2 + 26 + 10, 0));
        sink.range(BlockId(2), 0, 3);
        sink.words(BlockId(2), 0, &[1]);
        assert_eq!(sink.outside(), 4);
        assert_eq!((blocks[0].count(), blocks[1].count()), (38, 10));
    }
}
