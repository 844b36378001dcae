//! Sending RAM.

use std::sync::Arc;

use vmstate_ram::{BlockId, BlockTable, PageSize, RamBlock, RamWriter};

use super::counters::{RamCounters, Sent, When};
use super::dirty::DirtyPages;
use crate::channel::SectionWriter;
use crate::handlers::{HandlerError, Progress};
use crate::memory::{DirtyLog, DirtySink, GuestMemory};
use crate::settings::{Capability, Settings, ZeroPageDetection};

/// Capabilities that would change the section in ways that are not done here.
const UNKNOWN: &[Capability] = &[
    Capability::BackgroundSnapshot,
    Capability::MappedRam,
    Capability::Multifd,
    Capability::PostcopyRam,
    Capability::XColo,
];

/// Bytes of a zero page's record without a block name.
const ZERO_RECORD: u64 = 9;

/// Bytes of small records that are written at the latest.
const COMPANY: usize = 16 << 10;

/// Bytes of a record's word.
const WORD: u64 = 8;

/// One migration's RAM on the source.
pub(super) struct Sending {
    memory: Arc<dyn GuestMemory>,
    counters: RamCounters,
    page_size: PageSize,
    writer: RamWriter,
    blocks: Vec<Block>,
    dirty: Vec<DirtyPages>,
    /// Where the next look for dirty pages begins: block and word of its bitmap.
    at: (usize, u64),
    look_for_zeros: bool,
    /// Small records that wait for company.
    records: Vec<u8>,
    words: Vec<[u8; 8]>,
}

/// What may not change during a migration.
struct Block {
    id: BlockId,
    used_length: u64,
}

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
        let page_size = memory.page_size();
        let addresses = settings.capabilities.has(Capability::XIgnoreShared);
        let mut table = BlockTable::new();
        let (mut blocks, mut dirty) = (Vec::new(), Vec::new());
        let mut total: u64 = 0;
        for block in memory.blocks() {
            let ignored = block.ignored && addresses;
            let mut entry = RamBlock::new(block.idstr, block.used_length);
            entry.ignored = ignored;
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
                used_length: block.used_length,
            });
        }
        counters.begin(page_size.bytes(), total);
        counters.set_remaining(total);
        Ok(Self {
            memory,
            counters,
            page_size,
            writer: RamWriter::new(page_size, Arc::new(table)),
            blocks,
            dirty,
            at: (0, 0),
            look_for_zeros: settings.parameters.zero_page_detection != ZeroPageDetection::None,
            records: Vec::new(),
            words: Vec::new(),
        })
    }

    /// Writes the block list.
    pub(super) fn write_setup(&mut self, out: &mut dyn SectionWriter) -> Result<(), HandlerError> {
        let mut bytes = Vec::new();
        self.writer.setup(&mut bytes);
        self.writer.end_of_section(&mut bytes);
        Ok(out.bytes(&bytes)?)
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
            self.send_word(out, block, index, bits, sent)?;
            if self.records.len() >= COMPANY {
                self.write_records(out)?;
            }
        }
        self.writer.end_of_section(&mut self.records);
        self.flush(out, sent)?;
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

    /// Sends the dirty pages of one word.
    fn send_word(
        &mut self,
        out: &mut dyn SectionWriter,
        block: usize,
        index: u64,
        bits: u64,
        sent: &mut Sent,
    ) -> Result<(), HandlerError> {
        let (Some(dirty), Some(of)) = (self.dirty.get_mut(block), self.blocks.get(block)) else {
            return Ok(());
        };
        // Clean first, read later: a write in between is dirty again.
        dirty.clear_bits(index, bits);
        let id = of.id;
        let first = index.saturating_mul(64);
        let zero = if self.look_for_zeros {
            self.memory.zero_pages(id, first, bits) & bits
        } else {
            0
        };
        let mut left = bits;
        while left != 0 {
            let start = left.trailing_zeros();
            let is_zero = zero >> start & 1 == 1;
            // Pages of the same kind in a row.
            let alike = if is_zero { zero } else { bits & !zero };
            let run = (alike >> start).trailing_ones();
            let offset = first
                .saturating_add(start.into())
                .saturating_mul(self.page_size.bytes());
            if is_zero {
                self.zero_run(id, offset, run, sent)?;
            } else {
                self.page_run(out, id, offset, run, sent)?;
            }
            left &= u64::MAX.checked_shl(start.saturating_add(run)).unwrap_or(0);
        }
        Ok(())
    }

    fn zero_run(
        &mut self,
        id: BlockId,
        offset: u64,
        pages: u32,
        sent: &mut Sent,
    ) -> Result<(), HandlerError> {
        let mut at = offset;
        for _ in 0..pages {
            self.writer.zero_page(id, at, &mut self.records)?;
            at = at.saturating_add(self.page_size.bytes());
        }
        sent.zero = sent.zero.saturating_add(pages.into());
        sent.bytes = sent
            .bytes
            .saturating_add(ZERO_RECORD.saturating_mul(pages.into()));
        Ok(())
    }

    fn page_run(
        &mut self,
        out: &mut dyn SectionWriter,
        id: BlockId,
        offset: u64,
        pages: u32,
        sent: &mut Sent,
    ) -> Result<(), HandlerError> {
        let size = self.page_size.bytes();
        let (mut at, mut left) = (offset, pages);
        self.words.clear();
        let mut named = Vec::new();
        if !self
            .writer
            .page_words(id, at, left as usize, &mut self.words)?
        {
            // The first of a block carries its name.
            self.writer.page_header(id, at, &mut named)?;
            self.records.extend_from_slice(&named);
            self.write_records(out)?;
            out.pages(id, at, size)?;
            (at, left) = (at.saturating_add(size), left.saturating_sub(1));
            self.writer
                .page_words(id, at, left as usize, &mut self.words)?;
        }
        self.write_records(out)?;
        if left > 0 {
            // A target page has at most 64 KiB.
            let page_size = u32::try_from(size).unwrap_or(u32::MAX);
            out.page_records(id, at, page_size, &self.words)?;
        }
        sent.normal = sent.normal.saturating_add(pages.into());
        let words = WORD.saturating_mul(left.into());
        sent.bytes = sent
            .bytes
            .saturating_add(size.saturating_mul(pages.into()))
            .saturating_add(words)
            .saturating_add(named.len() as u64);
        Ok(())
    }

    /// Writes the small records that wait.
    fn write_records(&mut self, out: &mut dyn SectionWriter) -> Result<(), HandlerError> {
        if !self.records.is_empty() {
            out.bytes(&self.records)?;
            self.records.clear();
        }
        Ok(())
    }

    /// Writes the end of the section.
    fn flush(&mut self, out: &mut dyn SectionWriter, sent: &mut Sent) -> Result<(), HandlerError> {
        sent.bytes = sent.bytes.saturating_add(WORD);
        self.write_records(out)
    }

    /// A block that changes its length would have to be listed again, which the format cannot.
    fn check_lengths(&self) -> Result<(), HandlerError> {
        for block in &self.blocks {
            let now = self.memory.used_length(block.id);
            if now != block.used_length {
                let name = self
                    .writer
                    .blocks()
                    .get(block.id)
                    .map(|b| b.name.to_string());
                return Err(HandlerError::refused(format!(
                    "RAM block {} changed its size during the migration, from {:#x} to {now:#x}",
                    name.unwrap_or_default(),
                    block.used_length
                )));
            }
        }
        Ok(())
    }
}
