//! The sections of guest RAM: records counted or passed over, content kept where digests are wanted.

use std::sync::Arc;

use vmstate_ram::mapped_ram::MappedBlock;
use vmstate_ram::{
    BlockId, BlockTable, Dialect, Event, PageSize, RamBlock, RamError, RamErrorKind, RamImage,
    RamParser, RamSection, Record, Step, Stop, WordOrder,
};
use vmstate_wire::stream::Configuration;

use super::channels::Channels;
use super::placed::{FileNumber, PlacedStore};
use super::report::{Block, InspectError, Pages, Ram};
use super::sink::Sink;
use super::{Options, Problem};
use crate::input::Input;

/// Bytes that are read at a time where content is wanted.
const WINDOW: usize = 256 << 10;

/// Reads the sections of guest RAM.
pub(super) struct RamReader {
    parser: RamParser,
    page_size: PageSize,
    digest: bool,
    digest_length: u64,
    /// Whether the input can jump: then pages are not looked at.
    jumps: bool,
    /// The store for content, until there is an image; with the stream's own file, where it is mapped.
    store: Option<PlacedStore>,
    file: Option<FileNumber>,
    pub(super) image: Option<RamImage<PlacedStore>>,
    pub(super) pages: Vec<Pages>,
    pub(super) flushes: u64,
    /// The section has had a flush mark: the newer way of synchronising channels.
    flush_seen: bool,
}

/// What a section of RAM adds up to.
pub(super) struct RamBody {
    pub(super) length: u64,
}

pub(super) fn ram_error(section: &str) -> impl Fn(RamError) -> InspectError {
    move |error| match error.kind() {
        RamErrorKind::Truncated { .. } => InspectError::Truncated {
            inside: format!("a RAM record of section {section}"),
            offset: error.offset().unwrap_or(0),
        },
        _ => InspectError::Ram {
            section: section.to_owned(),
            error,
        },
    }
}

impl RamReader {
    pub(super) fn new(
        configuration: Option<&Configuration>,
        page_size: u64,
        input: &dyn Input,
        options: &Options,
    ) -> Result<Self, InspectError> {
        let page_size = PageSize::new(page_size).map_err(ram_error("ram/0"))?;
        let has = |name| configuration.is_some_and(|c| c.has_capability(name));
        let dialect = Dialect {
            page_size,
            ignore_shared: has("x-ignore-shared"),
            mapped_ram: has("mapped-ram"),
            file_length: input.len(),
            ..Dialect::lenient()
        };
        let mut store = PlacedStore::new(page_size, options.ram_memory);
        let file = input.file().and_then(|file| store.add_file(file));
        Ok(Self {
            parser: RamParser::new(dialect),
            page_size,
            digest: options.digest,
            digest_length: options.digest_length,
            jumps: input.len().is_some() && (!options.digest || file.is_some()),
            store: Some(store),
            file,
            image: None,
            pages: Vec::new(),
            flushes: 0,
            flush_seen: false,
        })
    }

    /// From now on [`RamReader::body`] gets a sink, which wants every record.
    pub(super) const fn follow(&mut self) {
        self.jumps = false;
    }

    pub(super) fn enter_postcopy(&mut self) {
        self.parser.enter_postcopy();
    }

    pub(super) fn preempt_parser(&self) -> Result<RamParser, RamError> {
        self.parser.preempt_channel()
    }

    pub(super) fn blocks(&self) -> &Arc<BlockTable> {
        self.parser.blocks()
    }

    pub(super) const fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Whether all page records go through [`RamReader::apply`] with their content.
    pub(super) const fn wants_content(&self) -> bool {
        self.digest
    }

    /// Reads one payload, from behind the section's header up to its footer.
    pub(super) fn body(
        &mut self,
        section: RamSection,
        name: &str,
        input: &mut dyn Input,
        channels: &mut Channels<'_, '_>,
        problems: &mut Vec<Problem>,
        mut sink: Option<&mut (dyn Sink + '_)>,
    ) -> Result<RamBody, InspectError> {
        let start = input.position();
        let ram_error = ram_error(name);
        self.parser
            .begin_section(section, start)
            .map_err(&ram_error)?;
        let mut want = 8;
        loop {
            let ended = if self.jumps {
                self.step_over(input, &mut want, name)?
            } else {
                self.step_through(input, &mut want, name, sink.as_deref_mut())?
            };
            match ended {
                Stepped::Records => {}
                Stepped::Block(block, gap) => {
                    self.pages.push(Pages::default());
                    match &mut sink {
                        Some(sink) if gap > 0 => copy_gap(gap, name, input, &mut **sink)?,
                        _ if gap > 0 => self.mapped_block(block, gap, name, input)?,
                        _ => {}
                    }
                }
                Stepped::ListEnd => {
                    if self.digest {
                        self.renew_image();
                    }
                    self.load_mapped(name, input)?;
                }
                Stepped::Flush => {
                    self.flushes += 1;
                    self.flush_seen = true;
                    channels.synchronise(self, problems)?;
                }
                Stepped::End => {
                    // Before 8.1 the end of each section is the mark.
                    if !self.flush_seen {
                        channels.synchronise(self, problems)?;
                    }
                    return Ok(RamBody {
                        length: input.position() - start,
                    });
                }
            }
        }
    }

    /// Makes the image anew for the list of blocks as it is now, around the same pages.
    fn renew_image(&mut self) {
        let store = match self.image.take() {
            Some(image) => Some(image.into_store()),
            None => self.store.take(),
        };
        let blocks = Arc::clone(self.parser.blocks());
        self.image = store.map(|store| RamImage::new(blocks, self.page_size, store));
    }

    /// One event, jumping over pages.
    fn step_over(
        &mut self,
        input: &mut dyn Input,
        want: &mut usize,
        name: &str,
    ) -> Result<Stepped, InspectError> {
        let position = input.position();
        let bytes = input.peek(*want)?;
        let have = bytes.len();
        match self.parser.step_header(bytes).map_err(ram_error(name))? {
            Step::NeedMore { at_least } => {
                self.check_more(have, *want, at_least, name)?;
                *want = at_least;
                Ok(Stepped::Records)
            }
            Step::Event { consumed, event } => {
                *want = 8;
                let (stepped, page) = match event {
                    Event::PageHeader(page) => {
                        count(&mut self.pages, page.block).normal += 1;
                        if let (Some(image), Some(file)) = (&mut self.image, self.file) {
                            let place = position + consumed as u64;
                            image
                                .store_mut()
                                .place(page.block, page.offset, file, place)
                                .map_err(ram_error(name))?;
                        }
                        (Stepped::Records, true)
                    }
                    event => (self.event(event, name, None)?, false),
                };
                let mut length = consumed as u64;
                if page {
                    self.parser.payload_done().map_err(ram_error(name))?;
                    length += self.page_size.bytes();
                }
                consume(input, length, "a page of", name)?;
                Ok(stepped)
            }
        }
    }

    /// One event or a batch of records, with content.
    fn step_through(
        &mut self,
        input: &mut dyn Input,
        want: &mut usize,
        name: &str,
        mut sink: Option<&mut (dyn Sink + '_)>,
    ) -> Result<Stepped, InspectError> {
        let blocks = Arc::clone(self.parser.blocks());
        let bytes = input.peek((*want).max(WINDOW))?;
        let have = bytes.len();
        let mut records = self.parser.records(bytes);
        let mut failed = None;
        for record in &mut records {
            let result = record.map_err(ram_error(name)).and_then(|record| {
                count_record(&mut self.pages, &record);
                if let Some(sink) = &mut sink {
                    sink.ram(&Event::Record(record), &blocks, self.page_size)?;
                }
                match &mut self.image {
                    Some(image) => image.apply(&record).map_err(ram_error(name)),
                    None => Ok(()),
                }
            });
            if let Err(error) = result {
                failed = Some(error);
                break;
            }
        }
        let (consumed, stop) = (records.consumed(), records.stop());
        if let Some(error) = failed {
            return Err(error);
        }
        match stop {
            Stop::NeedMore { at_least } => {
                let rest = have - consumed;
                input.consume(consumed as u64)?;
                if rest < at_least && consumed == 0 {
                    self.check_more(have, (*want).max(WINDOW), at_least, name)?;
                }
                *want = at_least;
                return Ok(Stepped::Records);
            }
            Stop::Other => {}
            Stop::Running | Stop::Failed => {
                input.consume(consumed as u64)?;
                return Ok(Stepped::Records);
            }
        }
        let rest = bytes.get(consumed..).unwrap_or_default();
        let left = rest.len();
        match self.parser.step(rest).map_err(ram_error(name))? {
            Step::NeedMore { at_least } => {
                input.consume(consumed as u64)?;
                if consumed == 0 {
                    self.check_more(left, (*want).max(WINDOW), at_least, name)?;
                }
                *want = at_least;
                Ok(Stepped::Records)
            }
            Step::Event {
                consumed: more,
                event,
            } => {
                *want = 8;
                let stepped = self.event(event, name, sink)?;
                consume(input, (consumed + more) as u64, "a record of", name)?;
                Ok(stepped)
            }
        }
    }

    /// An error if the input had less than was asked for: there is no more.
    fn check_more(
        &self,
        have: usize,
        asked: usize,
        needed: usize,
        name: &str,
    ) -> Result<(), InspectError> {
        if have < asked && have < needed {
            return Err(ram_error(name)(self.parser.truncated(needed, have)));
        }
        Ok(())
    }

    fn event(
        &mut self,
        event: Event<'_>,
        name: &str,
        sink: Option<&mut (dyn Sink + '_)>,
    ) -> Result<Stepped, InspectError> {
        if let Some(sink) = sink {
            sink.ram(&event, self.parser.blocks(), self.page_size)?;
        }
        Ok(match event {
            Event::BlockListStart { .. } => Stepped::Records,
            Event::Block { block, gap } => Stepped::Block(block, gap),
            Event::BlockListEnd => Stepped::ListEnd,
            Event::Record(record) => {
                count_record(&mut self.pages, &record);
                if let Some(image) = &mut self.image {
                    image.apply(&record).map_err(ram_error(name))?;
                }
                Stepped::Records
            }
            Event::PageHeader(_) => Stepped::Records,
            Event::MultifdFlush => Stepped::Flush,
            Event::EndOfSection => Stepped::End,
        })
    }

    /// Passes over the gap of a block in a mapped-ram file. In a file its pages are read when the list is complete; in a
    /// pipe they go by now: the bitmap comes first, then the pages.
    fn mapped_block(
        &mut self,
        id: BlockId,
        gap: u64,
        name: &str,
        input: &mut dyn Input,
    ) -> Result<(), InspectError> {
        let end = input.position() + gap;
        let blocks = Arc::clone(self.parser.blocks());
        let header = blocks
            .get(id)
            .and_then(|b| Some((b.mapped?, b.used_length)));
        if let (None, Some((header, used_length))) = (input.len(), header) {
            let floor = input.position();
            let mapped = MappedBlock::new(&header, used_length, self.page_size, floor, Some(end))
                .map_err(ram_error(name))?;
            self.mapped_from_pipe(id, &mapped, name, input)?;
        }
        let rest = end.saturating_sub(input.position());
        consume(input, rest, "the pages of a block of", name)
    }

    fn mapped_from_pipe(
        &mut self,
        id: BlockId,
        mapped: &MappedBlock,
        name: &str,
        input: &mut dyn Input,
    ) -> Result<(), InspectError> {
        let range = mapped.bitmap();
        let skip = range.start.saturating_sub(input.position());
        consume(input, skip, "the bitmap of a block of", name)?;
        let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let bytes = input.peek(size)?;
        let bitmap = mapped
            .read_bitmap(bytes.get(..size).unwrap_or(bytes), WordOrder::Little)
            .map_err(ram_error(name))?;
        consume(input, size as u64, "the bitmap of a block of", name)?;
        count(&mut self.pages, id).mapped = bitmap.count();
        if !self.digest {
            return Ok(());
        }
        self.renew_image();
        let Some(image) = &mut self.image else {
            return Ok(());
        };
        let page = self.page_size.as_usize();
        for run in mapped.file_runs(&bitmap, 1 << 20) {
            let skip = run.file_offset.saturating_sub(input.position());
            consume(input, skip, "the pages of a block of", name)?;
            let length = usize::try_from(run.length).unwrap_or(0);
            let bytes = input.peek(length)?;
            let bytes = bytes.get(..length).unwrap_or(bytes);
            for (i, content) in bytes.chunks_exact(page).enumerate() {
                image
                    .page(id, run.block_offset + (i * page) as u64, content)
                    .map_err(ram_error(name))?;
            }
            consume(input, run.length, "the pages of a block of", name)?;
        }
        Ok(())
    }

    /// Counts the pages of a mapped-ram file by its bitmaps, and reads them where content is wanted.
    fn load_mapped(&mut self, name: &str, input: &mut dyn Input) -> Result<(), InspectError> {
        let blocks = Arc::clone(self.parser.blocks());
        let length = input.len();
        for (id, block) in blocks.iter() {
            let Some(header) = block.mapped.filter(|h| !h.is_ignored()) else {
                continue;
            };
            let Some(length) = length else {
                // In a pipe they have gone by.
                continue;
            };
            let mapped =
                MappedBlock::new(&header, block.used_length, self.page_size, 0, Some(length))
                    .map_err(ram_error(name))?;
            let range = mapped.bitmap();
            let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let mut bytes = vec![0; size];
            let n = input.read_at(range.start, &mut bytes)?;
            bytes.truncate(n);
            let bitmap = mapped
                .read_bitmap(&bytes, WordOrder::Little)
                .map_err(ram_error(name))?;
            count(&mut self.pages, id).mapped = bitmap.count();
            let Some(image) = &mut self.image else {
                continue;
            };
            let page = self.page_size.as_usize();
            if let Some(file) = self.file {
                for run in mapped.file_runs(&bitmap, u64::MAX) {
                    for at in (0..run.length).step_by(page) {
                        image
                            .store_mut()
                            .place(id, run.block_offset + at, file, run.file_offset + at)
                            .map_err(ram_error(name))?;
                    }
                }
                continue;
            }
            let mut buffer = Vec::new();
            for run in mapped.file_runs(&bitmap, 1 << 20) {
                buffer.resize(usize::try_from(run.length).unwrap_or(0), 0);
                let n = input.read_at(run.file_offset, &mut buffer)?;
                for (i, content) in buffer
                    .get(..n)
                    .unwrap_or_default()
                    .chunks_exact(page)
                    .enumerate()
                {
                    image
                        .page(id, run.block_offset + (i * page) as u64, content)
                        .map_err(ram_error(name))?;
                }
            }
        }
        Ok(())
    }

    /// Whether pages travelled on channels that are not there. In a mapped-ram file the channels' pages are in the file.
    pub(super) fn misses_channels(&self, channels: Option<&Channels<'_, '_>>) -> bool {
        let mapped = self
            .blocks()
            .iter()
            .any(|(_, block)| block.mapped.is_some());
        self.flushes > 0 && !mapped && channels.is_none_or(|channels| !channels.has_multifd())
    }

    /// The blocks, with digests where they were asked for.
    pub(super) fn finish(mut self) -> Result<Ram, InspectError> {
        let blocks = Arc::clone(self.parser.blocks());
        let ignore_shared = self.parser.dialect().ignore_shared;
        let ram = ram_report(
            &blocks,
            &mut self.pages,
            self.image.as_mut(),
            // The first round names every page of a block that travels; the wire does not say which blocks do not.
            |block, pages| block.ignored || (ignore_shared && *pages == Pages::default()),
            (self.digest_length, self.parser.position()),
        )?;
        Ok(Ram {
            multifd_flushes: self.flushes,
            ..ram
        })
    }
}

/// The blocks with their records, and with digests where there is an image: of up to `limit` bytes, told at `position`.
pub(super) fn ram_report(
    blocks: &BlockTable,
    pages: &mut Vec<Pages>,
    mut image: Option<&mut RamImage<PlacedStore>>,
    is_ignored: impl Fn(&RamBlock, &Pages) -> bool,
    (limit, position): (u64, u64),
) -> Result<Ram, InspectError> {
    let mut ram = Ram::default();
    let mut digested = 0_u64;
    for (id, block) in blocks.iter() {
        let pages = *count(pages, id);
        ram.pages.add(&pages);
        let ignored = is_ignored(block, &pages);
        let (mut sha256, mut nonzero_pages) = (None, None);
        if let Some(image) = &mut image
            && !ignored
        {
            digested = digested.saturating_add(block.used_length);
            if digested > limit {
                return Err(InspectError::Limit {
                    what: format!("the digest of RAM block {}", block.name),
                    limit,
                    offset: position,
                });
            }
            sha256 = Some(image.digest(id).map_err(ram_error("ram/0"))?);
            nonzero_pages = Some(image.nonzero_pages(id).map_err(ram_error("ram/0"))?);
        }
        ram.blocks.push(Block {
            name: block.name.clone(),
            used_length: block.used_length,
            page_size: block.page_size,
            ignored,
            pages,
            sha256,
            nonzero_pages,
        });
    }
    Ok(ram)
}

/// What one step found.
enum Stepped {
    Records,
    Block(BlockId, u64),
    ListEnd,
    Flush,
    End,
}

/// The counters of a block.
pub(super) fn count(pages: &mut Vec<Pages>, block: BlockId) -> &mut Pages {
    let index = block.0 as usize;
    if pages.len() <= index {
        pages.resize(index + 1, Pages::default());
    }
    &mut pages[index]
}

pub(super) fn count_record(pages: &mut Vec<Pages>, record: &Record<'_>) {
    let counters = count(pages, record.page().block);
    match record {
        Record::Page { .. } => counters.normal += 1,
        Record::Zero { .. } => counters.zero += 1,
        Record::Xbzrle { .. } => counters.xbzrle += 1,
        Record::Compressed { .. } => counters.compressed += 1,
    }
}

/// Copies bitmap, padding and pages of a mapped-ram block: they stand at places that the block's header names.
fn copy_gap(
    gap: u64,
    name: &str,
    input: &mut dyn Input,
    sink: &mut dyn Sink,
) -> Result<(), InspectError> {
    let mut left = gap;
    while left > 0 {
        let bytes = input.peek(WINDOW)?;
        let n = usize::try_from(left)
            .unwrap_or(bytes.len())
            .min(bytes.len());
        sink.ram_gap(bytes.get(..n).unwrap_or_default())?;
        if n == 0 {
            return consume(input, left, "the pages of a block of", name);
        }
        consume(input, n as u64, "the pages of a block of", name)?;
        left -= n as u64;
    }
    Ok(())
}

/// Moves on, over bytes that must be there.
fn consume(
    input: &mut dyn Input,
    count: u64,
    what: &str,
    section: &str,
) -> Result<(), InspectError> {
    let moved = input.consume(count)?;
    if moved < count {
        return Err(InspectError::Truncated {
            inside: format!("{what} section {section}"),
            offset: input.position(),
        });
    }
    Ok(())
}
