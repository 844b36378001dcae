//! Page records that come after the guest may have been started.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmstate_ram::{
    BlockId, BlockTable, Event, PageRef, PageSize, RamError, RamParser, Record, Step,
};

use super::{PostcopyError, PostcopyRam};
use crate::channel::{PageItem, SectionReader};
use crate::handlers::HandlerError;
use crate::memory::MemoryError;
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

/// Bytes of adjacent pages that are placed together at most: a page that somebody begins to wait for may be among them.
const TOGETHER: u64 = 32 << 10;

/// A target page that is a page of the memory, too, all zeros if there is no data.
struct Page<'a> {
    block: BlockId,
    offset: u64,
    data: Option<&'a [u8]>,
}

/// Adjacent pages that nobody waits for, to be placed together.
struct Run {
    block: BlockId,
    offset: u64,
    length: u64,
    zero: bool,
}

/// Places the pages of one channel.
pub(crate) struct Placer {
    ram: Arc<PostcopyRam>,
    /// The stream's blocks, by their numbers there.
    blocks: Arc<[BlockId]>,
    part: Option<Part>,
    run: Option<Run>,
    /// What the pages of the run hold, unless it is zero.
    data: Vec<u8>,
}

impl Placer {
    pub(crate) fn new(ram: Arc<PostcopyRam>, blocks: Arc<[BlockId]>) -> Self {
        Self {
            ram,
            blocks,
            part: None,
            run: None,
            data: Vec::new(),
        }
    }

    /// Applies all whole page records at the front of `bytes`, first those that somebody waits for; returns how many bytes they
    /// took.
    pub(crate) fn records(
        &mut self,
        parser: &mut RamParser,
        bytes: &[u8],
    ) -> Result<usize, HandlerError> {
        let mut records = parser.records(bytes);
        self.all(&mut records)?;
        Ok(records.consumed())
    }

    /// Places pages that have come together, first those that somebody waits for.
    fn all<'a>(
        &mut self,
        records: impl Iterator<Item = Result<Record<'a>, RamError>>,
    ) -> Result<(), HandlerError> {
        let mut others = Vec::new();
        for record in records {
            others.extend(self.urgent(&record?)?);
        }
        for page in others {
            self.gather(page)?;
        }
        Ok(self.place_run()?)
    }

    /// Takes pages of a format that has a form of its own for guest RAM. They are pages of `table`.
    pub(crate) fn framed(
        &mut self,
        item: &PageItem,
        table: &BlockTable,
        input: &mut dyn SectionReader,
    ) -> Result<(), HandlerError> {
        let size = PageSize::from_bits(self.ram.page().trailing_zeros())?;
        let (run, fill) = match item {
            PageItem::Blocks { .. } => {
                return Err(HandlerError::refused("RAM blocks in postcopy"));
            }
            PageItem::Raw(run) => (run, None),
            PageItem::Fill(run, value) => (run, Some(*value)),
        };
        run.range(table, size)?;
        let page_ref = |page: u64| PageRef {
            block: run.block,
            offset: page.saturating_mul(size.bytes()),
            named: false,
        };
        let most = TOGETHER.checked_div(size.bytes()).unwrap_or(1).max(1);
        let mut buffer = match fill {
            Some(0) => Vec::new(),
            _ => {
                let length = run.count.min(most).saturating_mul(size.bytes());
                vec![fill.unwrap_or(0); usize::try_from(length).unwrap_or(0)]
            }
        };
        let (mut first, mut left) = (run.first, run.count);
        while left > 0 {
            let count = left.min(most);
            let pages = first..first.saturating_add(count);
            if fill == Some(0) {
                self.all(pages.map(|page| {
                    let page = page_ref(page);
                    Ok(Record::Zero { page, fill: 0 })
                }))?;
            } else {
                let length = usize::try_from(count.saturating_mul(size.bytes())).unwrap_or(0);
                let data = buffer.get_mut(..length).unwrap_or_default();
                if fill.is_none()
                    && let Some(ram) = input.ram()
                {
                    ram.content(data)?;
                }
                let contents = data.chunks_exact(size.as_usize());
                self.all(pages.zip(contents).map(|(page, data)| {
                    let page = page_ref(page);
                    Ok(Record::Page { page, data })
                }))?;
            }
            (first, left) = (first.saturating_add(count), left.saturating_sub(count));
        }
        Ok(())
    }

    /// Applies one record.
    pub(crate) fn record(&mut self, record: &Record<'_>) -> Result<(), HandlerError> {
        if let Some(page) = self.urgent(record)? {
            self.gather(page)?;
        }
        Ok(self.place_run()?)
    }

    /// Places a page that somebody waits for, or takes a part of a larger one; gives back any other.
    fn urgent<'a>(&mut self, record: &Record<'a>) -> Result<Option<Page<'a>>, HandlerError> {
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
        if size > self.ram.page() {
            self.assemble(id, size, page, data)?;
            return Ok(None);
        }
        let number = self.ram.pages(page.offset, 1).start;
        if block.asked.contains(number) {
            self.ram.place(id, page.offset, size, data)?;
            return Ok(None);
        }
        Ok(Some(Page {
            block: id,
            offset: page.offset,
            data,
        }))
    }

    /// Appends a page to those that are placed together.
    fn gather(&mut self, page: Page<'_>) -> Result<(), MemoryError> {
        let zero = page.data.is_none();
        let goes_on = |run: &Run| {
            let end = run.offset.saturating_add(run.length);
            (run.block, end, run.zero) == (page.block, page.offset, zero) && run.length < TOGETHER
        };
        if !self.run.as_ref().is_some_and(goes_on) {
            self.place_run()?;
        }
        let number = self.ram.pages(page.offset, 1).start;
        let block = self.ram.block(page.block);
        if block.is_some_and(|block| block.received.contains(number)) {
            // It has come twice at once.
            self.ram.repeated.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let run = self.run.get_or_insert(Run {
            block: page.block,
            offset: page.offset,
            length: 0,
            zero,
        });
        run.length = run.length.saturating_add(self.ram.page());
        self.data.extend_from_slice(page.data.unwrap_or_default());
        Ok(())
    }

    /// Places the pages that have been gathered.
    fn place_run(&mut self) -> Result<(), MemoryError> {
        let Some(run) = self.run.take() else {
            return Ok(());
        };
        let host = &*self.ram.host;
        if run.zero {
            host.place_zero(run.block, run.offset, run.length)?;
        } else {
            let placed = host.place(run.block, run.offset, &self.data);
            self.data.clear();
            placed?;
        }
        self.ram.placed(run.block, run.offset, run.length);
        Ok(())
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
    ) -> Result<(), MemoryError> {
        let first = self.pages(offset, length).start;
        if self.block(id).is_some_and(|b| b.received.contains(first)) {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        match data {
            Some(data) => self.host.place(id, offset, data)?,
            None => self.host.place_zero(id, offset, length)?,
        }
        self.placed(id, offset, length);
        Ok(())
    }

    /// These pages have been placed: whole ones of the memory behind the block.
    fn placed(&self, id: BlockId, offset: u64, length: u64) {
        let Some(block) = self.block(id) else {
            return;
        };
        let each = block.known.page_size.max(self.page());
        let mut at = offset;
        let end = offset.saturating_add(length);
        while at < end {
            let pages = self.pages(at, each);
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
            at = at.saturating_add(each);
        }
        self.host.arrived(id, offset, length);
    }
}

/// How pages come on the preempt channel.
#[derive(Clone)]
pub(crate) enum PageForm {
    /// As page records without sections around them.
    Records(RamParser),
    /// In a form of the format's own, with the numbers of this table.
    Framed(BlockTable),
}

/// The reader of the preempt channel: page records without sections around them, or pages in a form of the format's own.
pub struct PreemptChannel {
    form: PageForm,
    placer: Placer,
}

impl std::fmt::Debug for PreemptChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreemptChannel").finish_non_exhaustive()
    }
}

impl PreemptChannel {
    pub(super) fn new(ram: Arc<PostcopyRam>, (form, blocks): (PageForm, Arc<[BlockId]>)) -> Self {
        Self {
            form,
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
        let parser = match &mut self.form {
            PageForm::Records(parser) => parser,
            PageForm::Framed(table) => {
                while let Some(ram) = input.ram() {
                    match ram.next()? {
                        Some(item) => self.placer.framed(&item, table, input)?,
                        None => break,
                    }
                }
                return Ok(false);
            }
        };
        let mut at_least = 1;
        loop {
            let bytes = input.fill(at_least)?;
            if bytes.is_empty() {
                return Ok(false);
            }
            if bytes.len() < at_least {
                return Err(closed(input).into());
            }
            let consumed = self.placer.records(parser, bytes)?;
            if consumed > 0 {
                input.consume(consumed);
                at_least = 1;
                continue;
            }
            match parser.step(bytes)? {
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
