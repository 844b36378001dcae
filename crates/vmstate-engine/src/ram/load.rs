//! Receiving RAM.

mod framed;

use std::sync::Arc;

use vmstate_ram::{
    BlockId, BlockTable, Dialect, Event, PageSizeExtra, RamBlock, RamParser, RamSection, Record,
    Step, xbzrle,
};

use crate::channel::SectionReader;
use crate::handlers::HandlerError;
use crate::memory::{GuestBlock, GuestMemory};
use crate::postcopy::{PageForm, Placer, PostcopyRam};
use crate::settings::{Capability, Settings};
use crate::stream::closed;

/// One migration's RAM on the destination.
pub(super) struct Receiving {
    memory: Arc<dyn GuestMemory>,
    parser: RamParser,
    /// The stream's blocks, by their numbers there.
    blocks: Vec<BlockId>,
    /// The same as they were listed, in a format that has a form of its own for RAM.
    table: BlockTable,
    addresses: bool,
    started: bool,
    page: Vec<u8>,
    postcopy: Option<Arc<PostcopyRam>>,
    /// From `POSTCOPY_LISTEN` on: places the pages; with the number of breaks of the connection that it has seen.
    placer: Option<(Placer, u64)>,
}

impl Receiving {
    pub(super) fn new(
        memory: Arc<dyn GuestMemory>,
        settings: &Settings,
        postcopy: Option<Arc<PostcopyRam>>,
    ) -> Self {
        let addresses = settings.capabilities.has(Capability::XIgnoreShared);
        let page_size = memory.page_size();
        let dialect = Dialect {
            page_size,
            ignore_shared: addresses,
            page_size_extra: PageSizeExtra::Never,
            ..Dialect::modern()
        };
        Self {
            memory,
            parser: RamParser::new(dialect),
            blocks: Vec::new(),
            table: BlockTable::new(),
            addresses,
            started: false,
            page: vec![0; page_size.as_usize()],
            postcopy,
            placer: None,
        }
    }

    /// Whether pages may come after the guest has been started here.
    pub(super) fn has_postcopy(&self) -> bool {
        self.postcopy.as_ref().is_some_and(|ram| ram.is_advised())
    }

    /// Reads one section's payload.
    pub(super) fn payload(&mut self, input: &mut dyn SectionReader) -> Result<(), HandlerError> {
        if input.ram().is_some() {
            return self.framed(input);
        }
        self.follow_postcopy();
        let section = match self.started {
            false => RamSection::Start,
            // An END reads like a PART.
            true => RamSection::Part,
        };
        self.parser.begin_section(section, input.offset().0)?;
        let mut at_least = 1;
        loop {
            let bytes = input.fill(at_least)?;
            if bytes.len() < at_least {
                return Err(closed(input).into());
            }
            let consumed = match &mut self.placer {
                Some((placer, _)) => placer.records(&mut self.parser, bytes)?,
                None if self.started => self.records(bytes)?,
                None => 0,
            };
            if consumed > 0 {
                input.consume(consumed);
                at_least = 1;
                continue;
            }
            // A page that is placed must be there as a whole before.
            let step = match self.placer {
                Some(_) => self.parser.step(bytes)?,
                None => self.parser.step_header(bytes)?,
            };
            match step {
                Step::NeedMore { at_least: more } => at_least = more,
                Step::Event { consumed, event } => {
                    at_least = 1;
                    let page = match event {
                        Event::PageHeader(page) => Some((self.local(page.block)?, page.offset)),
                        _ => None,
                    };
                    let over = event == Event::EndOfSection;
                    self.event(&event)?;
                    input.consume(consumed);
                    if let Some((block, offset)) = page {
                        let size = self.memory.page_size().bytes();
                        input.read_into_guest(block, offset, size)?;
                        self.parser.payload_done()?;
                        self.precopied(block, offset);
                    }
                    if over {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Notices that postcopy may come, has begun, or goes on over a new connection.
    fn follow_postcopy(&mut self) {
        let Some(ram) = self.postcopy.as_ref().filter(|ram| ram.is_advised()) else {
            return;
        };
        if !self.started {
            let sizes = ram.unusual_page_sizes().into_iter().collect();
            let dialect = Dialect {
                page_size_extra: PageSizeExtra::Expect(sizes),
                ..self.parser.dialect().clone()
            };
            self.parser = RamParser::new(dialect);
        } else if ram.is_listening() {
            let breaks = ram.breaks();
            match &self.placer {
                Some((_, seen)) if *seen == breaks => return,
                Some(_) => self.parser.interrupted(),
                None => self.parser.enter_postcopy(),
            }
            let placer = Placer::new(Arc::clone(ram), self.blocks.as_slice().into());
            self.placer = Some((placer, breaks));
        }
    }

    fn precopied(&self, block: BlockId, offset: u64) {
        if let Some(ram) = &self.postcopy {
            ram.precopied(block, offset);
        }
    }

    /// Applies all whole page records at the front of `bytes`; returns how many bytes they took.
    fn records(&mut self, bytes: &[u8]) -> Result<usize, HandlerError> {
        let Self {
            parser,
            memory,
            blocks,
            page,
            postcopy,
            ..
        } = self;
        let mut records = parser.records(bytes);
        for record in &mut records {
            let (block, offset) = apply(&**memory, blocks, page, &record?)?;
            if let Some(ram) = postcopy {
                ram.precopied(block, offset);
            }
        }
        Ok(records.consumed())
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), HandlerError> {
        match event {
            Event::Block { block, .. } => {
                let Some(listed) = self.parser.blocks().get(*block).cloned() else {
                    return Err(HandlerError::refused("a RAM block without an entry"));
                };
                if self.listed(&listed)? {
                    self.parser.ignore_block(*block)?;
                }
                Ok(())
            }
            Event::BlockListEnd => {
                self.started = true;
                if let Some(ram) = &self.postcopy {
                    let form = PageForm::Records(self.parser.preempt_channel()?);
                    ram.set_preempt(form, &self.blocks);
                }
                Ok(())
            }
            Event::Record(record) => match &mut self.placer {
                Some((placer, _)) => placer.record(record),
                None => {
                    let page = apply(&*self.memory, &self.blocks, &mut self.page, record)?;
                    self.precopied(page.0, page.1);
                    Ok(())
                }
            },
            Event::BlockListStart { .. }
            | Event::PageHeader(_)
            | Event::MultifdFlush
            | Event::EndOfSection => Ok(()),
        }
    }

    /// A block of the stream's list: finds ours. Returns whether its pages do not travel.
    fn listed(&mut self, block: &RamBlock) -> Result<bool, HandlerError> {
        let local = self.memory.blocks();
        let found = (0..)
            .map(BlockId)
            .zip(&local)
            .find(|(_, own)| own.idstr == block.name);
        let Some((own, ours)) = found else {
            return Err(HandlerError::refused(format!(
                "unknown RAM block {}, this machine has {}",
                block.name,
                names(&local)
            )));
        };
        let ignored = self.addresses && ours.ignored;
        if ignored && block.address != Some(ours.address) {
            return Err(HandlerError::refused(format!(
                "RAM block {} stands at {:#x} at the source, at {:#x} here",
                block.name,
                block.address.unwrap_or_default(),
                ours.address
            )));
        }
        if block.used_length != ours.used_length {
            self.memory
                .resize(own, block.used_length)
                .map_err(|error| {
                    HandlerError::refused(format!(
                        "size mismatch of RAM block {}: {:#x} at the source, {:#x} here: {error}",
                        block.name, block.used_length, ours.used_length
                    ))
                })?;
        }
        // Entries come in the order of their numbers.
        self.blocks.push(own);
        Ok(ignored)
    }

    fn local(&self, id: BlockId) -> Result<BlockId, HandlerError> {
        local(&self.blocks, id)
    }
}

fn local(blocks: &[BlockId], id: BlockId) -> Result<BlockId, HandlerError> {
    usize::try_from(id.0)
        .ok()
        .and_then(|index| blocks.get(index).copied())
        .ok_or_else(|| HandlerError::refused("a page of a RAM block that is not listed"))
}

/// Applies a record; returns the page that it was about.
fn apply(
    memory: &dyn GuestMemory,
    blocks: &[BlockId],
    scratch: &mut [u8],
    record: &Record<'_>,
) -> Result<(BlockId, u64), HandlerError> {
    let page = record.page();
    let block = local(blocks, page.block)?;
    match record {
        Record::Page { data, .. } => memory.copy_in(block, page.offset, data)?,
        Record::Zero { .. } => {
            // Untouched memory stays unallocated.
            let length = scratch.len() as u64;
            if !memory.is_zero(block, page.offset, length) {
                memory.zero(block, page.offset, length)?;
            }
        }
        Record::Xbzrle { delta, .. } => {
            memory.copy_out(block, page.offset, scratch)?;
            xbzrle::decode(delta, scratch)
                .map_err(|error| HandlerError::refused(format!("page delta: {error}")))?;
            memory.copy_in(block, page.offset, scratch)?;
        }
        Record::Compressed { .. } => {
            return Err(HandlerError::refused("a compressed page"));
        }
    }
    Ok((block, page.offset))
}

fn names(blocks: &[GuestBlock]) -> String {
    let names: Vec<_> = blocks.iter().map(|block| block.idstr.to_string()).collect();
    names.join(", ")
}
