//! Page records that come after the guest may have been started.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmstate_ram::{BlockId, Event, PageRef, RamParser, Record, Step};

use super::{PostcopyError, PostcopyRam};
use crate::channel::SectionReader;
use crate::handlers::HandlerError;
use crate::stream::closed;

/// A page of the memory behind a block, of which not all target pages have come.
struct Part {
    block: BlockId,
    offset: u64,
    /// Bytes that have come.
    have: u64,
    /// What has come, unless all of it was zero.
    data: Vec<u8>,
}

/// Places the pages of one channel.
pub(crate) struct Placer {
    ram: Arc<PostcopyRam>,
    /// The stream's blocks, by their numbers there.
    blocks: Arc<[BlockId]>,
    part: Option<Part>,
}

impl Placer {
    pub(crate) fn new(ram: Arc<PostcopyRam>, blocks: Arc<[BlockId]>) -> Self {
        Self {
            ram,
            blocks,
            part: None,
        }
    }

    /// Applies all whole page records at the front of `bytes`; returns how many bytes they took.
    pub(crate) fn records(
        &mut self,
        parser: &mut RamParser,
        bytes: &[u8],
    ) -> Result<usize, HandlerError> {
        let mut records = parser.records(bytes);
        for record in &mut records {
            self.record(&record?)?;
        }
        Ok(records.consumed())
    }

    /// Applies one record.
    pub(crate) fn record(&mut self, record: &Record<'_>) -> Result<(), HandlerError> {
        let page = record.page();
        let data = match record {
            Record::Zero { .. } => None,
            Record::Page { data, .. } => Some(*data),
            _ => {
                let reason = "a delta, or a compressed page, in postcopy";
                return Err(HandlerError::refused(reason));
            }
        };
        let index = usize::try_from(page.block.0).ok();
        let id = index.and_then(|index| self.blocks.get(index).copied());
        let block = id.and_then(|id| Some((id, self.ram.block(id)?)));
        let Some((id, block)) = block else {
            let reason = "a page of a RAM block that is not listed";
            return Err(HandlerError::refused(reason));
        };
        let size = block.known.page_size.max(self.ram.page());
        if size == self.ram.page() {
            self.ram.place(id, page.offset, size, data)?;
            return Ok(());
        }
        self.assemble(id, size, page, data)
    }

    /// Takes a part of a page. All of them come in a row, in ascending order.
    fn assemble(
        &mut self,
        block: BlockId,
        size: u64,
        page: PageRef,
        data: Option<&[u8]>,
    ) -> Result<(), HandlerError> {
        let target = self.ram.page();
        let within = page.offset.checked_rem(size).unwrap_or(0);
        let offset = page.offset.saturating_sub(within);
        let mut part = self.part.take().unwrap_or(Part {
            block,
            offset,
            have: 0,
            data: Vec::new(),
        });
        if (part.block, part.offset, part.have) != (block, offset, within) {
            let name = self.ram.name(block).cloned();
            let error = name.map(|block| PostcopyError::Mixture {
                block,
                offset: page.offset,
            });
            let reason = error.map(|error| error.to_string()).unwrap_or_default();
            return Err(HandlerError::refused(reason));
        }
        let have = usize::try_from(part.have).unwrap_or(usize::MAX);
        part.have = part.have.saturating_add(target);
        match data {
            Some(data) => {
                // What was zero until now has taken no memory.
                part.data.resize(have, 0);
                part.data.extend_from_slice(data);
            }
            None if !part.data.is_empty() => {
                let more = usize::try_from(part.have).unwrap_or(usize::MAX);
                part.data.resize(more, 0);
            }
            None => {}
        }
        if part.have < size {
            self.part = Some(part);
            return Ok(());
        }
        let data = Some(&*part.data).filter(|data| !data.is_empty());
        Ok(self.ram.place(block, offset, size, data)?)
    }
}

impl PostcopyRam {
    /// Places one page of the memory behind a block, all zeros if there is no data, unless it has arrived before.
    pub(super) fn place(
        &self,
        id: BlockId,
        offset: u64,
        length: u64,
        data: Option<&[u8]>,
    ) -> Result<(), crate::memory::MemoryError> {
        let pages = self.pages(offset, length);
        let Some(block) = self.block(id) else {
            return Ok(());
        };
        if block.received.contains(pages.start) {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        match data {
            Some(data) => self.host.place(id, offset, data)?,
            None => self.host.place_zero(id, offset, length)?,
        }
        let first = pages.start;
        for page in pages {
            block.received.insert(page);
        }
        // Whoever waits for a page marks the request first and looks for the page then.
        let count = if block.asked.remove(first) {
            &self.requested
        } else {
            &self.background
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.host.arrived(id, offset, length);
        Ok(())
    }
}

/// The reader of the preempt channel: page records without sections around them.
pub struct PreemptChannel {
    parser: RamParser,
    placer: Placer,
}

impl std::fmt::Debug for PreemptChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreemptChannel")
            .field("position", &self.parser.position())
            .finish_non_exhaustive()
    }
}

impl PreemptChannel {
    pub(super) fn new(
        ram: Arc<PostcopyRam>,
        (parser, blocks): (RamParser, Arc<[BlockId]>),
    ) -> Self {
        Self {
            parser,
            placer: Placer::new(ram, blocks),
        }
    }

    /// Places pages as they come, up to the end of the channel: `true` if the source has said that it is the end, as those of
    /// 7.2 do; others just close it.
    ///
    /// # Errors
    ///
    /// [`HandlerError`]: bytes that are no page records, a record that is not complete, or a channel that breaks.
    pub fn run(&mut self, input: &mut dyn SectionReader) -> Result<bool, HandlerError> {
        let mut at_least = 1;
        loop {
            let bytes = input.fill(at_least)?;
            if bytes.is_empty() {
                return Ok(false);
            }
            if bytes.len() < at_least {
                return Err(closed(input).into());
            }
            let consumed = self.placer.records(&mut self.parser, bytes)?;
            if consumed > 0 {
                input.consume(consumed);
                at_least = 1;
                continue;
            }
            match self.parser.step(bytes)? {
                Step::NeedMore { at_least: more } => at_least = more,
                Step::Event { consumed, event } => {
                    let over = event == Event::EndOfSection;
                    if let Event::Record(record) = &event {
                        self.placer.record(record)?;
                    }
                    input.consume(consumed);
                    at_least = 1;
                    if over {
                        return Ok(true);
                    }
                }
            }
        }
    }
}
