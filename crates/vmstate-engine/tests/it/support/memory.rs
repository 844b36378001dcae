//! Guest memory of atomic bytes, and its dirty log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use vmstate_engine::{DirtyLog, DirtySink, GuestBlock, GuestMemory, MemoryError};
use vmstate_ram::{BlockId, BlockName, PageSize};

use super::PAGE;

pub(crate) struct TestMemory {
    pub(crate) blocks: Vec<(GuestBlock, Vec<AtomicU8>)>,
    /// Lengths that the blocks claim to have.
    claimed: Vec<AtomicU64>,
    /// Pages written since the log was read; none while it is off.
    written: Mutex<Option<BTreeMap<(u32, u64), ()>>>,
    pub(crate) resizable: bool,
}

impl TestMemory {
    pub(crate) fn new(blocks: &[(&str, u64)]) -> Arc<Self> {
        Arc::new(Self::build(blocks))
    }

    pub(crate) fn build(blocks: &[(&str, u64)]) -> Self {
        let block = |(name, pages): &(&str, u64)| {
            let name = BlockName::new(name.as_bytes()).unwrap();
            let bytes = pages * PAGE;
            let memory = (0..bytes).map(|_| AtomicU8::new(0)).collect();
            (GuestBlock::new(name, bytes), memory)
        };
        Self {
            blocks: blocks.iter().map(block).collect(),
            claimed: blocks
                .iter()
                .map(|(_, pages)| AtomicU64::new(pages * PAGE))
                .collect(),
            written: Mutex::new(None),
            resizable: false,
        }
    }

    /// The guest writes.
    pub(crate) fn write(&self, block: u32, offset: u64, data: &[u8]) {
        self.copy_in(BlockId(block), offset, data).unwrap();
        if let Some(written) = &mut *self.written.lock().unwrap() {
            for page in offset / PAGE..=(offset + data.len() as u64 - 1) / PAGE {
                written.insert((block, page), ());
            }
        }
    }

    /// Fills a page with a byte, or leaves it as it is.
    pub(crate) fn fill(&self, block: u32, page: u64, byte: u8) {
        self.write(block, page * PAGE, &[byte; PAGE as usize]);
    }

    pub(crate) fn claim(&self, block: u32, length: u64) {
        self.claimed[block as usize].store(length, Relaxed);
    }

    pub(crate) fn content(&self) -> Vec<Vec<u8>> {
        let bytes =
            |(_, bytes): &(_, Vec<AtomicU8>)| bytes.iter().map(|b| b.load(Relaxed)).collect();
        self.blocks.iter().map(bytes).collect()
    }

    fn range(&self, block: BlockId, offset: u64, length: u64) -> Result<&[AtomicU8], MemoryError> {
        let range = |bytes: &'_ Vec<AtomicU8>| {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            (end <= bytes.len()).then_some((start, end))
        };
        let (_, bytes) = self
            .blocks
            .get(block.0 as usize)
            .filter(|(_, bytes)| range(bytes).is_some())
            .ok_or(MemoryError::OutOfRange {
                block: block.0,
                offset,
                length,
            })?;
        let (start, end) = range(bytes).unwrap();
        Ok(&bytes[start..end])
    }
}

impl GuestMemory for TestMemory {
    fn page_size(&self) -> PageSize {
        PageSize::KIB4
    }

    fn blocks(&self) -> Vec<GuestBlock> {
        self.blocks.iter().map(|(block, _)| block.clone()).collect()
    }

    fn used_length(&self, block: BlockId) -> u64 {
        self.claimed
            .get(block.0 as usize)
            .map_or(0, |length| length.load(Relaxed))
    }

    fn is_zero(&self, block: BlockId, offset: u64, length: u64) -> bool {
        self.range(block, offset, length)
            .is_ok_and(|bytes| bytes.iter().all(|byte| byte.load(Relaxed) == 0))
    }

    fn copy_out(&self, block: BlockId, offset: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let from = self.range(block, offset, out.len() as u64)?;
        for (to, from) in out.iter_mut().zip(from) {
            *to = from.load(Relaxed);
        }
        Ok(())
    }

    fn copy_in(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        for (to, from) in self
            .range(block, offset, data.len() as u64)?
            .iter()
            .zip(data)
        {
            to.store(*from, Relaxed);
        }
        Ok(())
    }

    fn zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        for byte in self.range(block, offset, length)? {
            byte.store(0, Relaxed);
        }
        Ok(())
    }

    fn resize(&self, block: BlockId, used_length: u64) -> Result<(), MemoryError> {
        let local = self.used_length(block);
        if !self.resizable || used_length > local {
            return Err(MemoryError::Resize {
                block: block.0,
                local,
                wanted: used_length,
            });
        }
        self.claim(block.0, used_length);
        Ok(())
    }
}

/// The log of a [`TestMemory`].
pub(crate) struct TestLog(pub(crate) Arc<TestMemory>);

impl DirtyLog for TestLog {
    fn start(&mut self) -> Result<(), MemoryError> {
        *self.0.written.lock().unwrap() = Some(BTreeMap::new());
        Ok(())
    }

    fn sync(&mut self, dirty: &mut DirtySink<'_>) -> Result<(), MemoryError> {
        if let Some(written) = &mut *self.0.written.lock().unwrap() {
            for ((block, page), ()) in std::mem::take(written) {
                dirty.range(BlockId(block), page, 1);
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        *self.0.written.lock().unwrap() = None;
    }
}
