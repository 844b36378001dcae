//! The memory, as an engine sees it.

use std::sync::Arc;

use vmstate_engine::{DirtyLog, DirtySink, GuestBlock, GuestMemory, MemoryError};
use vmstate_linux::OutOfBounds;
use vmstate_ram::{BlockId, BlockName, PageSize};

use super::{Block, Memory};
use crate::board::PAGE;

impl Memory {
    fn numbered(&self, block: BlockId) -> Option<&Block> {
        let index = usize::try_from(block.0).ok()?;
        self.blocks().get(index).copied()
    }

    fn with(
        &self,
        block: BlockId,
        offset: u64,
        length: u64,
        access: impl FnOnce(&Block) -> Result<(), OutOfBounds>,
    ) -> Result<(), MemoryError> {
        let found = self.numbered(block);
        found
            .and_then(|block| access(block).ok())
            .ok_or(MemoryError::OutOfRange {
                block: block.0,
                offset,
                length,
            })
    }

    /// The engine's view of the dirty logs of all blocks.
    ///
    /// The logs are always on, so its start only forgets what was written before.
    #[must_use]
    pub fn dirty_log(self: &Arc<Self>) -> Dirty {
        Dirty(Arc::clone(self))
    }
}

impl GuestMemory for Memory {
    fn page_size(&self) -> PageSize {
        PageSize::KIB4
    }

    fn blocks(&self) -> Vec<GuestBlock> {
        let blocks = Self::blocks(self);
        let known = blocks.into_iter().filter_map(|block| {
            let name = BlockName::new(block.idstr.as_bytes()).ok()?;
            let mut known = GuestBlock::new(name, block.ram.len());
            known.address = block.address;
            Some(known)
        });
        known.collect()
    }

    fn used_length(&self, block: BlockId) -> u64 {
        self.numbered(block).map_or(0, |block| block.ram.len())
    }

    fn is_zero(&self, block: BlockId, offset: u64, length: u64) -> bool {
        self.numbered(block)
            .is_some_and(|block| block.ram.is_zero(offset, length) == Ok(true))
    }

    fn zero_pages(&self, block: BlockId, first_page: u64, asked: u64) -> u64 {
        let Some(block) = self.numbered(block) else {
            return 0;
        };
        let first = first_page.saturating_mul(PAGE);
        // Asking the kernel pays for many pages: when all are sent for the first time.
        let untouched = if asked.count_ones() > 16 {
            block.ram.untouched(first) & asked
        } else {
            0
        };
        let left = asked & !untouched;
        (0..64_u32).fold(untouched, |zero, i| {
            let offset = first.saturating_add(u64::from(i) * PAGE);
            let is_zero = left >> i & 1 == 1 && block.ram.is_zero(offset, PAGE) == Ok(true);
            zero | u64::from(is_zero) << i
        })
    }

    fn copy_out(&self, block: BlockId, offset: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let length = out.len() as u64;
        self.with(block, offset, length, |block| block.ram.read(offset, out))
    }

    fn copy_in(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        let length = data.len() as u64;
        self.with(block, offset, length, |block| block.ram.write(offset, data))
    }

    fn zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        self.with(block, offset, length, |block| {
            if block.ram.is_zero(offset, length)? {
                Ok(())
            } else {
                block.ram.fill(offset, length, 0)
            }
        })
    }
}

/// The dirty logs of all blocks, for one migration.
#[derive(Debug, Clone)]
pub struct Dirty(Arc<Memory>);

impl DirtyLog for Dirty {
    fn start(&mut self) -> Result<(), MemoryError> {
        for block in self.0.blocks() {
            block.log.collect(|_, _| ());
        }
        Ok(())
    }

    fn sync(&mut self, dirty: &mut DirtySink<'_>) -> Result<(), MemoryError> {
        for (block, number) in self.0.blocks().into_iter().zip(0..) {
            block.log.collect(|index, word| {
                dirty.words(BlockId(number), index as u64, &[word]);
            });
        }
        Ok(())
    }

    fn stop(&mut self) {}
}
