//! Receiving RAM in a format that has a form of its own for it.

use vmstate_ram::{BlockId, BlockTable, PageSize};

use super::{Receiving, local};
use crate::channel::{PageItem, PageRun, SectionReader};
use crate::handlers::HandlerError;

impl Receiving {
    /// Reads one section.
    pub(super) fn framed(&mut self, input: &mut dyn SectionReader) -> Result<(), HandlerError> {
        loop {
            let item = match input.ram() {
                Some(ram) => ram.next()?,
                None => None,
            };
            match item {
                None => return Ok(()),
                Some(PageItem::Blocks { blocks, page_size }) => {
                    self.framed_blocks(&blocks, page_size)?;
                }
                Some(PageItem::Raw(run)) => {
                    let (block, offset, length) = self.place(run)?;
                    input.read_into_guest(block, offset, length)?;
                }
                Some(PageItem::Fill(run, value)) => {
                    let (block, offset, length) = self.place(run)?;
                    self.fill(block, offset, length, value)?;
                }
            }
        }
    }

    fn framed_blocks(
        &mut self,
        blocks: &BlockTable,
        page_size: PageSize,
    ) -> Result<(), HandlerError> {
        let own = self.memory.page_size();
        if self.started || page_size != own {
            return Err(HandlerError::refused(format!(
                "RAM blocks with pages of {} bytes, twice or of another size than {}",
                page_size.bytes(),
                own.bytes()
            )));
        }
        for (_, block) in blocks.iter() {
            let mut block = block.clone();
            block.ignored = self.listed(&block)?;
            self.table.push(block, page_size)?;
        }
        self.started = true;
        Ok(())
    }

    /// Where a run lies here: block, offset and length in bytes.
    fn place(&self, run: PageRun) -> Result<(BlockId, u64, u64), HandlerError> {
        let size = self.memory.page_size();
        let block = local(&self.blocks, run.block)?;
        let bytes = |pages: u64| pages.checked_mul(size.bytes());
        let (Some(offset), Some(length)) = (bytes(run.first), bytes(run.count)) else {
            return Err(HandlerError::refused(format!(
                "{run:?} is beyond all memory"
            )));
        };
        self.table.check_page(run.block, offset, size)?;
        // The block's bytes are counted in 64 bits, so a run that ends behind it is seen.
        let last = offset.saturating_add(length).saturating_sub(size.bytes());
        self.table.check_page(run.block, last, size)?;
        Ok((block, offset, length))
    }

    fn fill(
        &mut self,
        block: BlockId,
        offset: u64,
        length: u64,
        value: u8,
    ) -> Result<(), HandlerError> {
        self.page.fill(value);
        let size = self.page.len() as u64;
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            if value != 0 {
                self.memory.copy_in(block, at, &self.page)?;
            } else if !self.memory.is_zero(block, at, size) {
                // Untouched memory stays unallocated.
                self.memory.zero(block, at, size)?;
            }
            at = at.saturating_add(size);
        }
        Ok(())
    }
}
