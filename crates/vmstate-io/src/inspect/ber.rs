//! Streams of VM state over BER: read to their end, with all their checksums, counters and digests.

use std::collections::HashMap;
use std::sync::Arc;

use vmstate_desc::DynState;
use vmstate_ram::dirty_bitmap::{ChunkEvent, ChunkParser};
use vmstate_ram::{BlockTable, PageRef, PageSize, RamImage, Record, Step};
use vmstate_schema::Origin;
use vmstate_wire::stream::{Command, Event, SectionHeader, SectionId, SectionKind};
use vmstate_wire::vmdesc::{Device, Trailer, VmdescDialect};

use super::bodies::bitmap_chunk;
use super::conclude::conclude;
use super::placed::PlacedStore;
use super::ram::{count, count_record, ram_error, ram_report};
use super::report::{
    Analysis, CommandAt, Content, InspectError, Kind, Pages, Ram, Report, Section, TrailerAt,
};
use super::sink::Sink;
use super::{Options, mapped_again};
use crate::convert::{ConvertError, read_ber};
use crate::input::Input;

/// Reads a stream to its end, or to the first thing that is wrong.
pub(super) fn analyze(input: &mut dyn Input, options: &Options) -> Analysis {
    let mut collector = Collector::new(options);
    let result = read_ber(input, options, &mut collector);
    let ram = collector.ram_section.filter(|_| result.is_ok());
    let mut analysis = collector.finish(result, input.position());
    if let Some(section) = ram
        && analysis.failure.is_none()
    {
        bytes_of_ram(input, options, section, &mut analysis);
    }
    analysis
}

/// Looks into guest RAM that travels as the bytes of a QEMU stream, where that is possible.
fn bytes_of_ram(input: &mut dyn Input, options: &Options, section: usize, analysis: &mut Analysis) {
    let report = &mut analysis.report;
    match mapped_again::look(input, options, report.page_size) {
        Ok(Some(ram)) => {
            report.ram = ram;
            if let Some(section) = report.sections.get_mut(section) {
                section.content = Content::Ram;
            }
        }
        Ok(None) => report.warnings.push(
            "guest RAM travels as the bytes of a QEMU stream, and is not looked into: that takes a file, in which they can be read again"
                .to_owned(),
        ),
        Err(error) => analysis.failure = Some(error),
    }
}

/// Collects what a stream holds.
struct Collector<'o> {
    options: &'o Options,
    report: Report,
    /// Bytes of memory for contents that are kept.
    memory: u64,
    /// Place of the frame that is being read, and its length until a section has claimed it.
    frame: (u64, u64),
    /// Which entry of the report a section's id belongs to.
    by_id: HashMap<SectionId, usize>,
    /// The entry whose frames come.
    open: Option<usize>,
    /// The headers of the report's sections.
    headers: Vec<SectionHeader>,
    ram: Option<Guest>,
    /// Dirty bitmaps: the section that is open, and what tells its chunks.
    bitmaps: (Vec<u8>, ChunkParser),
    /// The text of a trailer that travels as such.
    trailer: Vec<u8>,
    /// The entry of guest RAM that travels as the bytes of a QEMU stream.
    ram_section: Option<usize>,
    /// A package has begun.
    package: bool,
    flushes: u64,
}

/// Guest RAM.
struct Guest {
    blocks: Arc<BlockTable>,
    pages: Vec<Pages>,
    image: Option<RamImage<PlacedStore>>,
}

impl<'o> Collector<'o> {
    fn new(options: &'o Options) -> Self {
        Self {
            options,
            report: Report {
                page_size: options.page_size.unwrap_or(4096),
                is_ber: true,
                origin: Origin::Descriptions,
                ..Report::default()
            },
            memory: options.memory / 4,
            frame: (0, 0),
            by_id: HashMap::new(),
            open: None,
            headers: Vec::new(),
            ram: None,
            bitmaps: (Vec::new(), ChunkParser::new()),
            trailer: Vec::new(),
            ram_section: None,
            package: false,
            flushes: 0,
        }
    }

    fn finish(mut self, result: Result<(), ConvertError>, end: u64) -> Analysis {
        let mut result = result.map_err(InspectError::from);
        self.report.length = end.saturating_sub(self.options.start);
        if let Some(mut guest) = self.ram.take() {
            if result.is_err() {
                guest.image = None;
            }
            let blocks = Arc::clone(&guest.blocks);
            let limit = self.options.digest_length;
            let finished = ram_report(
                &blocks,
                &mut guest.pages,
                guest.image.as_mut(),
                |_, _| false,
                (limit, end),
            );
            match finished {
                Ok(ram) => {
                    self.report.ram = Ram {
                        multifd_flushes: self.flushes,
                        ..ram
                    };
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        if result.is_ok() {
            result = conclude(
                &mut self.report,
                None,
                &self.trailer,
                &self.headers,
                self.options,
                self.memory,
            );
        }
        for section in &mut self.report.sections {
            if !self.options.keep.wants(&section.idstr) && !matches!(section.content, Content::Ram)
            {
                section.content = Content::Left;
            }
        }
        Analysis {
            report: self.report,
            failure: result.err(),
        }
    }

    fn spend(&mut self, bytes: u64, what: impl FnOnce() -> String) -> Result<(), InspectError> {
        match self.memory.checked_sub(bytes) {
            Some(left) => {
                self.memory = left;
                Ok(())
            }
            None => Err(InspectError::Limit {
                what: what(),
                limit: self.options.memory,
                offset: self.frame.0,
            }),
        }
    }

    fn begin(&mut self, header: &SectionHeader) -> Result<(), InspectError> {
        let kind = match header.kind {
            SectionKind::Full => Some(Kind::Full),
            SectionKind::Start => Some(Kind::Iterative),
            SectionKind::Part | SectionKind::End => None,
        };
        match kind {
            Some(kind) => {
                let bytes = size_of::<Section>() as u64;
                self.spend(bytes, || "the list of sections".to_owned())?;
                self.open = Some(self.report.sections.len());
                self.by_id
                    .insert(header.section_id, self.report.sections.len());
                self.report.sections.push(Section {
                    section_id: header.section_id.0,
                    idstr: header.idstr.to_string(),
                    instance_id: header.instance_id.0,
                    version_id: header.version_id.0,
                    kind,
                    offset: self.frame.0,
                    payload_offset: self.frame.0,
                    length: 0,
                    parts: 0,
                    inferred: false,
                    content: Content::Left,
                });
                self.headers.push(header.clone());
            }
            None => self.open = self.by_id.get(&header.section_id).copied(),
        }
        if let Some(section) = self.opened() {
            section.parts += 1;
        }
        self.claim();
        Ok(())
    }

    /// The frame belongs to the open section, and to no other.
    fn claim(&mut self) {
        let length = std::mem::take(&mut self.frame.1);
        if let Some(section) = self.opened() {
            section.length += length;
        }
    }

    fn opened(&mut self) -> Option<&mut Section> {
        self.report.sections.get_mut(self.open?)
    }

    /// Puts what the open section holds into the report.
    fn content(&mut self, content: Content) {
        if let Some(section) = self.opened() {
            section.inferred |= matches!(content, Content::Opaque(_));
            section.content.append(content);
        }
    }

    fn wants(&self, header: &SectionHeader) -> bool {
        self.options.keep.wants(&header.idstr.to_string())
    }

    /// The blocks of guest RAM are known.
    fn begin_ram(&mut self, blocks: &Arc<BlockTable>, page_size: PageSize) {
        self.report.page_size = page_size.bytes();
        let image = self.options.digest.then(|| {
            let store = PlacedStore::new(page_size, self.options.ram_memory);
            RamImage::new(Arc::clone(blocks), page_size, store)
        });
        self.ram = Some(Guest {
            blocks: Arc::clone(blocks),
            pages: Vec::new(),
            image,
        });
        self.content(Content::Ram);
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), InspectError> {
        let Some(guest) = &mut self.ram else {
            return Ok(());
        };
        count_record(&mut guest.pages, record);
        match &mut guest.image {
            Some(image) => image.apply(record).map_err(ram_error("ram/0")),
            None => Ok(()),
        }
    }

    /// What a section of dirty bitmaps holds.
    fn end_bitmaps(&mut self) -> Result<(), InspectError> {
        let (bytes, parser) = &mut self.bitmaps;
        if bytes.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(bytes);
        let error = ram_error("dirty-bitmap/0");
        parser.begin_section(self.frame.0);
        let mut chunks = Vec::new();
        let mut rest = bytes.as_slice();
        while let Step::Event { consumed, event } = parser.step(rest).map_err(&error)? {
            rest = rest.get(consumed..).unwrap_or_default();
            match event {
                ChunkEvent::Chunk(chunk) => chunks.push(bitmap_chunk(&chunk)),
                ChunkEvent::EndOfSection => {
                    self.content(Content::DirtyBitmaps(chunks));
                    return Ok(());
                }
            }
        }
        Err(InspectError::Truncated {
            inside: "a chunk of section dirty-bitmap/0".to_owned(),
            offset: self.frame.0,
        })
    }

    fn command(&mut self, command: Command) -> Result<(), InspectError> {
        self.spend(size_of::<CommandAt>() as u64, || {
            "the list of commands".to_owned()
        })?;
        let packaged = self.package;
        self.package |= matches!(command, Command::Packaged { .. });
        self.report.commands.push(CommandAt {
            offset: self.frame.0,
            command,
            packaged,
        });
        Ok(())
    }
}

impl Sink for Collector<'_> {
    fn frame(&mut self, offset: u64, length: u64) {
        self.frame = (offset, length);
    }

    fn warn(&mut self, text: String) {
        self.report.warnings.push(text);
    }

    fn inferred_types(&mut self) {
        self.report.origin = Origin::Trailer;
    }

    fn describes(&mut self, _dialect: VmdescDialect, page_size: u32) {
        if self.ram.is_none() && self.options.page_size.is_none() {
            self.report.page_size = page_size.into();
        }
    }

    fn event(
        &mut self,
        event: &Event<'_>,
        _trailer: Option<&Trailer<'_>>,
    ) -> Result<(), InspectError> {
        match event {
            Event::Configuration(configuration) => {
                self.report.configuration = Some(configuration.clone());
            }
            Event::Section(header) => self.begin(header)?,
            Event::SectionClosed { .. } => {
                self.claim();
                self.end_bitmaps()?;
                self.open = None;
            }
            Event::Command(command) => self.command(command.clone())?,
            Event::PackageBegin { length } => {
                self.command(Command::Packaged { length: *length })?;
            }
            Event::TrailerBegin { length } => {
                self.report.trailer = Some(TrailerAt {
                    offset: self.frame.0,
                    length: (*length).into(),
                    dialect: VmdescDialect::V11_1,
                    devices: 0,
                });
            }
            Event::TrailerChunk(text) => {
                self.spend(text.len() as u64, || "the description trailer".to_owned())?;
                self.trailer.extend_from_slice(text);
            }
            _ => {}
        }
        Ok(())
    }

    fn device(
        &mut self,
        header: &SectionHeader,
        state: &DynState,
        _payload: &[u8],
        _entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        if self.wants(header) {
            let memory = state.memory() as u64;
            self.spend(memory, || up_to(header))?;
            self.content(Content::Described(Box::new(state.clone())));
        }
        Ok(())
    }

    fn opaque(
        &mut self,
        header: &SectionHeader,
        bytes: &[u8],
        _entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        self.bytes(header, bytes)
    }

    fn bytes(&mut self, header: &SectionHeader, bytes: &[u8]) -> Result<(), InspectError> {
        self.claim();
        // Guest RAM in a form that frames do not have: mapped, or in blocks with odd names.
        if header.idstr.as_bytes() == b"ram" {
            if header.kind == SectionKind::Start {
                self.ram_section = self.ram_section.or(self.open);
            }
            return Ok(());
        }
        // What is not asked for may still be described by a trailer that comes.
        self.spend(bytes.len() as u64, || up_to(header))?;
        if is_bitmaps(header) {
            self.bitmaps.0.extend_from_slice(bytes);
            return Ok(());
        }
        self.content(Content::Opaque(bytes.to_vec()));
        Ok(())
    }

    fn ram(
        &mut self,
        event: &vmstate_ram::Event<'_>,
        blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        self.claim();
        match event {
            vmstate_ram::Event::BlockListEnd => self.begin_ram(blocks, page_size),
            vmstate_ram::Event::Record(record) => self.record(record)?,
            vmstate_ram::Event::MultifdFlush => self.flushes += 1,
            _ => {}
        }
        Ok(())
    }

    /// A run stays a run: it takes no longer than what it says does.
    fn ram_filled(
        &mut self,
        first: PageRef,
        pages: u64,
        fill: u8,
        _blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        self.claim();
        let Some(guest) = &mut self.ram else {
            return Ok(());
        };
        let PageRef { block, offset, .. } = first;
        let counters = count(&mut guest.pages, block);
        counters.zero = counters.zero.saturating_add(pages);
        let Some(image) = &mut guest.image else {
            return Ok(());
        };
        let size = page_size.bytes();
        if fill == 0 {
            let length = pages.saturating_mul(size);
            return image
                .discard(block, offset, length)
                .map_err(ram_error("ram/0"));
        }
        for number in 0..pages {
            let offset = offset.saturating_add(number.saturating_mul(size));
            image
                .fill(block, offset, fill)
                .map_err(ram_error("ram/0"))?;
        }
        Ok(())
    }

    fn ram_gap(&mut self, _bytes: &[u8]) -> Result<(), InspectError> {
        Ok(())
    }

    fn verbatim(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        let length = bytes.len();
        self.report.warnings.push(format!(
            "{length} bytes of a QEMU stream are carried as they are, and not looked into (byte {:#x})",
            self.frame.0
        ));
        Ok(())
    }
}

fn is_bitmaps(header: &SectionHeader) -> bool {
    header.kind != SectionKind::Full && header.idstr.as_bytes() == b"dirty-bitmap"
}

fn up_to(header: &SectionHeader) -> String {
    format!("device state up to section {}", header.name())
}
