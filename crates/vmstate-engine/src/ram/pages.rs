//! Page records on one channel.

use std::sync::Arc;

use vmstate_ram::{BlockId, BlockTable, PageSize, RamWriter};

use super::counters::Sent;
use crate::channel::SectionWriter;
use crate::handlers::HandlerError;
use crate::memory::GuestMemory;

/// Bytes of a zero page's record without a block name.
const ZERO_RECORD: u64 = 9;

/// Bytes of small records that are written at the latest.
const COMPANY: usize = 16 << 10;

/// Bytes of a record's word.
const WORD: u64 = 8;

/// Writes page records. Each channel has one of its own: it remembers the block of the last record.
pub(super) struct PageWriter {
    memory: Arc<dyn GuestMemory>,
    page_size: PageSize,
    writer: RamWriter,
    look_for_zeros: bool,
    /// Small records that wait for company.
    records: Vec<u8>,
    words: Vec<[u8; 8]>,
}

impl PageWriter {
    pub(super) fn new(
        memory: Arc<dyn GuestMemory>,
        blocks: Arc<BlockTable>,
        look_for_zeros: bool,
    ) -> Self {
        let page_size = memory.page_size();
        Self {
            memory,
            page_size,
            writer: RamWriter::new(page_size, blocks),
            look_for_zeros,
            records: Vec::new(),
            words: Vec::new(),
        }
    }

    /// One for another channel.
    pub(super) fn fork(&self) -> Self {
        let blocks = Arc::clone(self.writer.blocks());
        Self::new(Arc::clone(&self.memory), blocks, self.look_for_zeros)
    }

    /// The next record names its block, and nothing waits that was begun before.
    pub(super) fn forget(&mut self) {
        self.writer.forget();
        self.records.clear();
    }

    /// Writes the block list.
    pub(super) fn setup(&mut self, out: &mut dyn SectionWriter) -> Result<(), HandlerError> {
        if let Some(ram) = out.ram() {
            return Ok(ram.blocks(self.writer.blocks(), self.page_size)?);
        }
        self.writer.setup(&mut self.records);
        self.end(out, &mut Sent::default())
    }

    /// Writes those of 64 pages whose bits are set. They must be marked clean before.
    pub(super) fn word(
        &mut self,
        out: &mut dyn SectionWriter,
        id: BlockId,
        index: u64,
        bits: u64,
        sent: &mut Sent,
    ) -> Result<(), HandlerError> {
        let first = index.saturating_mul(64);
        let zero = if self.look_for_zeros {
            self.memory.zero_pages(id, first, bits) & bits
        } else {
            0
        };
        if let Some(ram) = out.ram() {
            ram.pages(id, first, bits & !zero, zero)?;
            let count = |bits: u64| u64::from(bits.count_ones());
            let normal = count(bits & !zero);
            sent.normal = sent.normal.saturating_add(normal);
            sent.zero = sent.zero.saturating_add(count(zero));
            let bytes = normal.saturating_mul(self.page_size.bytes());
            sent.bytes = sent.bytes.saturating_add(bytes);
            return Ok(());
        }
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
        if self.records.len() >= COMPANY {
            self.write_records(out)?;
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
    pub(super) fn write_records(
        &mut self,
        out: &mut dyn SectionWriter,
    ) -> Result<(), HandlerError> {
        if !self.records.is_empty() {
            out.bytes(&self.records)?;
            self.records.clear();
        }
        Ok(())
    }

    /// Writes the end of the section.
    pub(super) fn end(
        &mut self,
        out: &mut dyn SectionWriter,
        sent: &mut Sent,
    ) -> Result<(), HandlerError> {
        if out.ram().is_some() {
            return Ok(());
        }
        self.writer.end_of_section(&mut self.records);
        sent.bytes = sent.bytes.saturating_add(WORD);
        self.write_records(out)
    }
}
