//! Sending RAM.

use std::sync::Arc;

use vmstate_ram::{BlockId, BlockName, BlockTable, PageSize, RamBlock};

use super::counters::{RamCounters, Sent, When};
use super::dirty::DirtyPages;
use super::pages::PageWriter;
use crate::channel::SectionWriter;
use crate::handlers::{HandlerError, Progress};
use crate::memory::{DirtyLog, DirtySink, GuestMemory};
use crate::settings::{Capability, Settings, ZeroPageDetection};

/// Capabilities that would change the section in ways that are not done here.
const UNKNOWN: &[Capability] = &[
    Capability::BackgroundSnapshot,
    Capability::MappedRam,
    Capability::Multifd,
    Capability::XColo,
];

/// One migration's RAM on the source.
pub(super) struct Sending {
    memory: Arc<dyn GuestMemory>,
    counters: RamCounters,
    pub(super) page_size: PageSize,
    pub(super) writer: PageWriter,
    pub(super) blocks: Vec<Block>,
    pub(super) dirty: Vec<DirtyPages>,
    /// Where the next look for dirty pages begins: block and word of its bitmap.
    at: (usize, u64),
    /// The guest may go before its memory.
    pub(super) may_postcopy: bool,
    /// Requested pages have a channel of their own.
    pub(super) preempt: bool,
    /// The guest has gone: what it may still ask for, instead of `dirty`.
    pub(super) postcopy: bool,
}

/// What may not change during a migration.
pub(super) struct Block {
    pub(super) id: BlockId,
    pub(super) name: BlockName,
    pub(super) used_length: u64,
    /// Bytes of a page of the memory behind it.
    pub(super) page_size: u64,
    pub(super) ignored: bool,
}

/// The page size that a block has if the list says nothing else.
const USUAL_PAGE: u64 = 4096;

impl Sending {
    /// Every page of every block that travels is dirty.
    pub(super) fn new(
        memory: Arc<dyn GuestMemory>,
        counters: RamCounters,
        settings: &Settings,
    ) -> Result<Self, HandlerError> {
        if let Some(unknown) = UNKNOWN.iter().find(|one| settings.capabilities.has(**one)) {
            let reason = format!("RAM cannot be sent with capability {unknown}");
            return Err(HandlerError::refused(reason));
        }
        let preempt = settings.capabilities.has(Capability::PostcopyPreempt);
        let page_size = memory.page_size();
        let may_postcopy = settings.capabilities.has(Capability::PostcopyRam);
        let addresses = settings.capabilities.has(Capability::XIgnoreShared);
        let mut table = BlockTable::new();
        let (mut blocks, mut dirty) = (Vec::new(), Vec::new());
        let mut total: u64 = 0;
        for block in memory.blocks() {
            let ignored = block.ignored && addresses;
            let mut entry = RamBlock::new(block.idstr.clone(), block.used_length);
            entry.ignored = ignored;
            let unusual = block.page_size != USUAL_PAGE.max(page_size.bytes());
            entry.page_size = (may_postcopy && unusual).then_some(block.page_size);
            entry.address = addresses.then_some(block.address);
            let id = table.push(entry, page_size)?;
            // The log may know of an ignored block: what it says about it falls behind the end.
            let pages = match ignored {
                true => 0,
                false => page_size.pages_in(block.used_length),
            };
            dirty.push(DirtyPages::full(pages));
            total = total.saturating_add(pages.saturating_mul(page_size.bytes()));
            blocks.push(Block {
                id,
                name: block.idstr,
                used_length: block.used_length,
                page_size: block.page_size.max(page_size.bytes()),
                ignored,
            });
        }
        counters.begin(page_size.bytes(), total);
        counters.set_remaining(total);
        let zeros = settings.parameters.zero_page_detection != ZeroPageDetection::None;
        Ok(Self {
            writer: PageWriter::new(Arc::clone(&memory), Arc::new(table), zeros),
            memory,
            counters,
            page_size,
            blocks,
            dirty,
            at: (0, 0),
            may_postcopy,
            preempt,
            postcopy: false,
        })
    }

    /// Writes the block list.
    pub(super) fn write_setup(&mut self, out: &mut dyn SectionWriter) -> Result<(), HandlerError> {
        self.writer.setup(out)
    }

    /// Writes a payload without pages.
    pub(super) fn write_nothing(
        &mut self,
        out: &mut dyn SectionWriter,
    ) -> Result<(), HandlerError> {
        self.writer.end(out, &mut Sent::default())
    }

    /// The page sizes of all blocks that travel, or-ed together.
    pub(super) fn page_sizes(memory: &dyn GuestMemory) -> u64 {
        let smallest = memory.page_size().bytes();
        let sizes = memory
            .blocks()
            .into_iter()
            .map(|b| b.page_size.max(smallest));
        sizes.fold(0, |all, size| all | size)
    }

    pub(super) fn counters(&self) -> &RamCounters {
        &self.counters
    }

    /// Bytes of dirty pages.
    pub(super) fn remaining(&self) -> u64 {
        let pages = self
            .dirty
            .iter()
            .fold(0, |sum: u64, dirty| sum.saturating_add(dirty.count()));
        pages.saturating_mul(self.page_size.bytes())
    }

    /// Asks the log what the guest has written; returns the bytes that became dirty.
    pub(super) fn sync(&mut self, log: &mut dyn DirtyLog) -> Result<u64, HandlerError> {
        self.check_lengths()?;
        let mut sink = DirtySink::new(&mut self.dirty);
        log.sync(&mut sink)?;
        let (newly, outside) = (sink.newly_dirty(), sink.outside());
        if outside > 0 {
            let reason = format!("the dirty log reports {outside} pages of unknown RAM blocks");
            return Err(HandlerError::refused(reason));
        }
        self.counters.set_remaining(self.remaining());
        Ok(newly.saturating_mul(self.page_size.bytes()))
    }

    /// Sends dirty pages: while the guest runs, until the rate is exceeded; then all.
    pub(super) fn send(
        &mut self,
        out: &mut dyn SectionWriter,
        when: When,
    ) -> Result<Progress, HandlerError> {
        self.check_lengths()?;
        let mut sent = Sent::default();
        let result = self.send_dirty(out, when, &mut sent);
        self.counters.sent(&sent, when);
        self.counters.set_remaining(self.remaining());
        result
    }

    fn send_dirty(
        &mut self,
        out: &mut dyn SectionWriter,
        when: When,
        sent: &mut Sent,
    ) -> Result<Progress, HandlerError> {
        let limited = matches!(when, When::Precopy);
        let mut progress = Progress::Finished;
        loop {
            if limited && out.rate_exceeded() {
                if self.remaining() > 0 {
                    progress = Progress::More;
                }
                break;
            }
            let Some((block, index, bits)) = self.next_word() else {
                break;
            };
            if let (Some(dirty), Some(of)) = (self.dirty.get_mut(block), self.blocks.get(block)) {
                // Clean first, read later: a write in between is dirty again.
                dirty.clear_bits(index, bits);
                self.writer.word(out, of.id, index, bits, sent)?;
            }
        }
        self.writer.end(out, sent)?;
        Ok(progress)
    }

    /// The next 64 pages with a dirty one among them: block, index and bits. Goes round all blocks.
    fn next_word(&mut self) -> Option<(usize, u64, u64)> {
        let (start, from) = self.at;
        for step in 0..=self.dirty.len() {
            let block = start.saturating_add(step).checked_rem(self.dirty.len())?;
            // In the end, what stands before the start in its own block.
            let from = if step == 0 { from } else { 0 };
            if let Some((index, bits)) = self.dirty.get(block)?.next_word(from) {
                self.at = (block, index.saturating_add(1));
                return Some((block, index, bits));
            }
        }
        None
    }

    /// A block that changes its length would have to be listed again, which the format cannot.
    fn check_lengths(&self) -> Result<(), HandlerError> {
        for block in &self.blocks {
            let now = self.memory.used_length(block.id);
            if now != block.used_length {
                return Err(HandlerError::refused(format!(
                    "RAM block {} changed its size during the migration, from {:#x} to {now:#x}",
                    block.name, block.used_length
                )));
            }
        }
        Ok(())
    }
}
