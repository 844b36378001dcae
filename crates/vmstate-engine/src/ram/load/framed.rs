//! Receiving RAM in a format that has a form of its own for it.

use vmstate_ram::{BlockId, BlockTable, PageSize};

use super::{Receiving, local};
use crate::channel::{PageItem, PageRun, SectionReader};
use crate::handlers::HandlerError;
use crate::postcopy::PageForm;

impl Receiving {
    /// Reads one section.
    pub(super) fn framed(&mut self, input: &mut dyn SectionReader) -> Result<(), HandlerError> {
        self.follow_postcopy();
        loop {
            let item = match input.ram() {
                Some(ram) => ram.next()?,
                None => None,
            };
            let Some(item) = item else {
                return Ok(());
            };
            if let Some((placer, _)) = &mut self.placer {
                placer.framed(&item, &self.table, input)?;
                continue;
            }
            match item {
                PageItem::Blocks { blocks, page_size } => {
                    self.framed_blocks(&blocks, page_size)?;
                }
                PageItem::Raw(run) => {
                    let (block, offset, length) = self.place(run)?;
                    input.read_into_guest(block, offset, length)?;
                    self.precopied_run(block, offset, length);
                }
                PageItem::Fill(run, value) => {
                    let (block, offset, length) = self.place(run)?;
                    self.fill(block, offset, length, value)?;
                    self.precopied_run(block, offset, length);
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
        let advised = self.postcopy.as_ref().filter(|ram| ram.is_advised());
        let unusual = advised.map(|ram| ram.unusual_page_sizes());
        for (_, block) in blocks.iter() {
            let mut block = block.clone();
            if let Some(unusual) = &unusual {
                let here = unusual.iter().find(|(name, _)| *name == block.name);
                let here = here.map(|(_, size)| *size);
                if here != block.page_size {
                    return Err(HandlerError::refused(format!(
                        "RAM block {} has pages of {:?} bytes at the source, of {here:?} here",
                        block.name, block.page_size
                    )));
                }
            }
            block.ignored = self.listed(&block)?;
            self.table.push(block, page_size)?;
        }
        self.started = true;
        if let Some(ram) = &self.postcopy {
            ram.set_preempt(PageForm::Framed(self.table.clone()), &self.blocks);
        }
        Ok(())
    }

    /// Where a run lies here: block, offset and length in bytes.
    fn place(&self, run: PageRun) -> Result<(BlockId, u64, u64), HandlerError> {
        let (offset, length) = run.range(&self.table, self.memory.page_size())?;
        Ok((local(&self.blocks, run.block)?, offset, length))
    }

    fn precopied_run(&self, block: BlockId, offset: u64, length: u64) {
        if self.postcopy.is_none() {
            return;
        }
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            self.precopied(block, at);
            at = at.saturating_add(self.memory.page_size().bytes());
        }
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
