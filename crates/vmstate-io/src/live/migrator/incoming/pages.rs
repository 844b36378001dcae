//! Guest memory whose missing pages come from the source, over userfaultfd.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use vmstate_engine::postcopy::MissingPages;
use vmstate_engine::{Blocktime, FaultLatency, MemoryError};
use vmstate_linux::{Fault, GuestRam, Userfault};
use vmstate_ram::BlockId;

use super::waits::Waits;
use crate::live::MappedMemory;

/// All guest memory of an incoming migration.
pub(super) struct Pages {
    memory: Arc<dyn MappedMemory>,
    faults: OnceLock<Userfault>,
    waits: Waits,
}

/// An error of the memory, with its text and cause.
fn failed(error: impl std::error::Error + Send + Sync + 'static) -> MemoryError {
    MemoryError::Other(Box::new(error))
}

impl Pages {
    /// `threads` are those of the vCPUs.
    pub(super) fn new(memory: Arc<dyn MappedMemory>, threads: Vec<u32>) -> Self {
        Self {
            memory,
            faults: OnceLock::new(),
            waits: Waits::new(threads),
        }
    }

    /// Whether this host can do it for this memory.
    pub(super) fn check(memory: &Arc<dyn MappedMemory>) -> Result<(), MemoryError> {
        Self::new(Arc::clone(memory), Vec::new()).open().map(drop)
    }

    /// What faults are read from, once [`MissingPages::prepare`] has been called.
    pub(super) fn faults(&self) -> Option<&Userfault> {
        self.faults.get()
    }

    pub(super) fn latency(&self) -> FaultLatency {
        self.waits.latency()
    }

    pub(super) fn blocktime(&self) -> Blocktime {
        self.waits.blocktime()
    }

    /// Where in guest memory a thread waits: block, and the offset of the page. None if that is no guest memory.
    pub(super) fn begins(&self, fault: Fault, now: Instant) -> Option<(BlockId, u64)> {
        let found = self
            .blocks()
            .find_map(|(id, ram)| Some((id, ram, ram.offset_of(fault.address)?)));
        let (block, ram, offset) = found?;
        let page = offset - offset % ram.page_size();
        self.waits.begins(block, page, fault.thread, now);
        Some((block, page))
    }

    /// A thread waits for a page that has arrived: either it has been woken meanwhile, or the page came as zeros and takes no
    /// memory.
    pub(super) fn settle(&self, block: BlockId, page: u64) {
        let (Some(faults), Ok(ram)) = (self.faults.get(), self.ram(block, page)) else {
            return;
        };
        // The kernel refuses only if the service has ended, and then nobody waits.
        let _ = faults.place_zero(ram, page, ram.page_size());
        let _ = faults.wake(ram, page, ram.page_size());
        let end = page.saturating_add(1);
        self.waits.ends(block, page..end, Instant::now);
    }

    /// Ends the service. What is missing is zero from now on, when somebody touches it.
    pub(super) fn end(&self) {
        if let Some(faults) = self.faults.get() {
            for (_, ram) in self.blocks() {
                // It may never have begun; and a kernel without transparent huge pages makes none.
                let _ = faults.unregister(ram);
                let _ = ram.wish_huge_pages(true);
            }
        }
    }

    /// A descriptor that every block could be registered with. Nothing stays different for having asked.
    fn open(&self) -> Result<Userfault, MemoryError> {
        let faults = Userfault::open().map_err(failed)?;
        for (_, ram) in self.blocks() {
            faults.register(ram).map_err(failed)?;
            faults.unregister(ram).map_err(failed)?;
        }
        Ok(faults)
    }

    fn blocks(&self) -> impl Iterator<Item = (BlockId, &GuestRam)> {
        (0..)
            .map(BlockId)
            .map_while(|id| Some((id, self.memory.mapping(id)?)))
    }

    fn ram(&self, block: BlockId, offset: u64) -> Result<&GuestRam, MemoryError> {
        self.memory.mapping(block).ok_or(MemoryError::OutOfRange {
            block: block.0,
            offset,
            length: 0,
        })
    }

    fn served(&self) -> Result<&Userfault, MemoryError> {
        let none = || failed(std::io::Error::from(std::io::ErrorKind::NotConnected));
        self.faults.get().ok_or_else(none)
    }
}

impl MissingPages for Pages {
    fn prepare(&self) -> Result<(), MemoryError> {
        let faults = self.open()?;
        for (_, ram) in self.blocks() {
            // A kernel without transparent huge pages makes none.
            let _ = ram.wish_huge_pages(false);
        }
        let _ = self.faults.set(faults);
        Ok(())
    }

    fn discard(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        let ram = self.ram(block, offset)?;
        ram.discard(offset, length).map_err(failed)
    }

    fn serve(&self) -> Result<(), MemoryError> {
        let faults = self.served()?;
        self.blocks()
            .try_for_each(|(_, ram)| faults.register(ram).map_err(failed))
    }

    fn place(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        let ram = self.ram(block, offset)?;
        let placed = self.served()?.place(ram, offset, data);
        placed.map(|_| ()).map_err(failed)
    }

    fn place_zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        let ram = self.ram(block, offset)?;
        let placed = self.served()?.place_zero(ram, offset, length);
        placed.map(|_| ()).map_err(failed)
    }

    fn arrived(&self, block: BlockId, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        self.waits.ends(block, offset..end, Instant::now);
    }
}
