//! The walk over a stream's elements.

use std::collections::HashMap;

use vmstate_desc::DynState;
use vmstate_ram::RamSection;
use vmstate_ram::dirty_bitmap::{Body as ChunkBody, Chunk, ChunkEvent, ChunkParser, StartFlags};
use vmstate_wire::stream::{
    BodyEnd, BodyEndScanner, Command, Configuration, Event, InferContext, ParserOptions, Presence,
    SectionHeader, SectionId, SectionKind, Step, StreamOffset, StreamParser,
};
use vmstate_wire::vmdesc::Trailer;

use super::Options;
use super::channels::Channels;
use super::device::{self, Surroundings};
use super::ram::{RamReader, ram_error};
use super::report::{
    Analysis, BitmapChunk, BitmapChunkBody, CommandAt, Content, InspectError, Kind, Problem,
    Report, Section, TrailerAt,
};
use super::rewrite::{Rewriter, Summary};
use crate::input::Input;

/// Walks `input`; `text` is its trailer with its offset, where that was found beforehand.
pub(super) fn walk(
    input: &mut dyn Input,
    channels: &mut [Box<dyn Input + '_>],
    text: Option<(u64, Vec<u8>)>,
    options: &Options,
    out: Option<&mut dyn std::io::Write>,
) -> (Analysis, Summary) {
    let parsed = text
        .as_ref()
        .map(|(offset, text)| (*offset, Trailer::parse(text)));
    let (trailer, failure) = match parsed {
        None => (None, None),
        Some((_, Ok(trailer))) => (Some(trailer), None),
        Some((offset, Err(error))) => (None, Some(InspectError::Trailer { error, offset })),
    };
    let mut walk = Walk {
        input,
        options,
        trailer: trailer.as_ref(),
        parser: StreamParser::new(ParserOptions::default()).at_offset(StreamOffset(options.start)),
        report: Report {
            page_size: options.page_size.unwrap_or(4096),
            ..Report::default()
        },
        by_id: HashMap::new(),
        ram: None,
        memory: options.memory,
        late_trailer: Vec::new(),
        dirty_bitmaps: ChunkParser::new(),
        headers: Vec::new(),
        inputs: Some(channels),
        channels: None,
        rewriter: out.map(|out| Rewriter::new(out, trailer.as_ref())),
    };
    let mut result = walk.run();
    let end = match &result {
        Ok(()) => walk.parser.offset().0,
        // As far as anything could be read.
        Err(_) => walk.parser.offset().0.max(walk.input.position()),
    };
    walk.report.length = end.saturating_sub(options.start);
    if result.is_ok()
        && let Some(failure) = failure
    {
        result = Err(failure);
    }
    let finished = walk.finish_ram(result.is_ok());
    result = result.and(finished);
    let Walk {
        mut report,
        late_trailer,
        headers,
        rewriter,
        ..
    } = walk;
    let summary = rewriter.map_or_else(Summary::default, |r| r.summary);
    if result.is_ok() {
        result = conclude(
            &mut report,
            trailer.as_ref(),
            &late_trailer,
            &headers,
            options,
        );
    }
    for section in &mut report.sections {
        if !options.keep.wants(&section.idstr) && !matches!(section.content, Content::Ram) {
            section.content = Content::Left;
        }
    }
    let analysis = Analysis {
        report,
        failure: result.err(),
    };
    (analysis, summary)
}

struct Walk<'a, 'c, 'i, 't> {
    input: &'a mut dyn Input,
    options: &'a Options,
    /// The trailer, found beforehand.
    trailer: Option<&'a Trailer<'t>>,
    parser: StreamParser,
    report: Report,
    /// Which entry of the report an iterative section's id belongs to.
    by_id: HashMap<SectionId, usize>,
    ram: Option<RamReader>,
    /// Bytes of device state that may still be kept.
    memory: u64,
    /// The trailer's text, collected on the way where it was not found beforehand.
    late_trailer: Vec<u8>,
    dirty_bitmaps: ChunkParser,
    /// The headers of the report's sections.
    headers: Vec<SectionHeader>,
    inputs: Option<&'c mut [Box<dyn Input + 'i>]>,
    channels: Option<Channels<'c, 'i>>,
    /// Writes everything again.
    rewriter: Option<Rewriter<'a, 't>>,
}

/// The warning about channels that were not given.
const MISSING_CHANNELS: &str = "pages travelled on multifd channels that were not given, so RAM is incomplete and has no digests: give \
                                the files of the channels behind that of the stream";

/// What an event asks for once its bytes are consumed.
enum After {
    Nothing,
    Section(SectionHeader),
}

impl Walk<'_, '_, '_, '_> {
    fn run(&mut self) -> Result<(), InspectError> {
        let skipped = self.input.consume(self.options.start)?;
        if skipped < self.options.start {
            return Err(InspectError::Truncated {
                inside: "what stands before the stream".to_owned(),
                offset: skipped,
            });
        }
        let mut want = 1;
        loop {
            let bytes = self.input.peek(want)?;
            let have = bytes.len();
            let offset = self.parser.offset().0;
            let packaged = self.parser.package_remaining().is_some();
            match self.parser.next(bytes)? {
                Step::NeedMore { min } => {
                    if have < want || have >= min {
                        // There is no more.
                        let rest = self.input.peek(want)?;
                        self.parser.finish(rest)?;
                        break;
                    }
                    want = min;
                }
                Step::Event { consumed, event } => {
                    if let Some(rewriter) = &mut self.rewriter {
                        rewriter.event(&event)?;
                    }
                    let after = note(
                        &mut self.report,
                        &mut self.late_trailer,
                        self.trailer,
                        event,
                        offset,
                        packaged,
                    );
                    self.input.consume(consumed as u64)?;
                    want = 1;
                    match after {
                        After::Nothing => {}
                        After::Section(header) => self.section(&header, offset)?,
                    }
                    self.after_command();
                }
                Step::InBody => want = 1,
                Step::End => break,
            }
        }
        let end = self.parser.offset().0;
        if let Some(length) = self.input.len()
            && length > end
        {
            self.report.problems.push(Problem {
                offset: Some(end),
                text: format!(
                    "{} bytes behind the end of the stream belong to nothing",
                    length - end
                ),
            });
        } else if self.input.len().is_none() && !self.input.peek(1)?.is_empty() {
            self.report.problems.push(Problem {
                offset: Some(end),
                text: "bytes behind the end of the stream belong to nothing".to_owned(),
            });
        }
        Ok(())
    }

    /// Postcopy changes what the records of RAM may be.
    fn after_command(&mut self) {
        if self.parser.is_postcopy()
            && let Some(ram) = &mut self.ram
        {
            ram.enter_postcopy();
        }
    }

    fn section(&mut self, header: &SectionHeader, offset: u64) -> Result<(), InspectError> {
        let index = match header.kind {
            SectionKind::Start | SectionKind::Full => {
                self.report.sections.push(Section {
                    section_id: header.section_id.0,
                    idstr: header.idstr.to_string(),
                    instance_id: header.instance_id.0,
                    version_id: header.version_id.0,
                    kind: if header.kind == SectionKind::Full {
                        Kind::Full
                    } else {
                        Kind::Iterative
                    },
                    offset,
                    payload_offset: self.input.position(),
                    length: 0,
                    parts: 0,
                    inferred: false,
                    content: Content::Left,
                });
                self.headers.push(header.clone());
                let index = self.report.sections.len() - 1;
                self.by_id.insert(header.section_id, index);
                index
            }
            SectionKind::Part | SectionKind::End => {
                // The parser has refused ids that were never started.
                match self.by_id.get(&header.section_id) {
                    Some(index) => *index,
                    None => return Ok(()),
                }
            }
        };
        let start = self.input.position();
        let body = self.body(header);
        if body.is_err()
            && let Some(section) = self.report.sections.get_mut(index)
        {
            section.length += self.input.position().saturating_sub(start);
            section.parts += 1;
        }
        let body = body?;
        self.parser.body_done(body.unreported)?;
        if let Some(section) = self.report.sections.get_mut(index) {
            section.length += body.length;
            section.parts += 1;
            section.inferred |= body.inferred;
            section.content.append(body.content);
        }
        Ok(())
    }

    fn body(&mut self, header: &SectionHeader) -> Result<Body, InspectError> {
        if header.idstr.as_bytes() == b"ram" && header.instance_id.0 == 0 {
            return self.ram_body(header);
        }
        if header.idstr.as_bytes() == b"dirty-bitmap" && header.instance_id.0 == 0 {
            return self.dirty_bitmap_body(header);
        }
        if header.idstr.as_bytes() == b"spapr/htab" && header.instance_id.0 == 0 {
            return self.hash_table_body(header);
        }
        let device = self.trailer.and_then(|t| {
            let idstr = header.idstr.as_str()?;
            let instance_id = header.instance_id.0;
            // The section itself is in the report already.
            let before = namesakes(&self.report.sections, idstr, instance_id).saturating_sub(1);
            t.device_after(idstr, instance_id, before)
        });
        if let (Some(device), Some(trailer)) = (device, self.trailer) {
            return self.described_body(header, device, trailer);
        }
        self.inferred_body(header)
    }

    fn ram_body(&mut self, header: &SectionHeader) -> Result<Body, InspectError> {
        let name = header.name().to_string();
        if self.ram.is_none() {
            let page_size = self.settle_page_size();
            let configuration = self.report.configuration.as_ref();
            self.ram = Some(RamReader::new(
                configuration,
                page_size,
                self.input,
                self.options,
            )?);
        }
        let Some(ram) = &mut self.ram else {
            return Ok(Body::default());
        };
        if let Some(inputs) = self.inputs.take() {
            self.channels = Some(Channels::open(inputs, ram.page_size())?);
        }
        let Some(channels) = &mut self.channels else {
            return Ok(Body::default());
        };
        let kind = match header.kind {
            SectionKind::Start | SectionKind::Full => RamSection::Start,
            SectionKind::Part => RamSection::Part,
            SectionKind::End => RamSection::End,
        };
        if self.rewriter.is_some() && header.kind == SectionKind::Start {
            ram.rewrite();
        }
        let out = self.rewriter.as_mut().map(Rewriter::out);
        let body = ram.body(
            kind,
            &name,
            self.input,
            channels,
            &mut self.report.problems,
            out,
        )?;
        Ok(Body {
            length: body.length,
            unreported: body.length,
            inferred: false,
            content: Content::Ram,
        })
    }

    /// The target page size: what the caller says, else the trailer, else the configuration.
    fn settle_page_size(&mut self) -> u64 {
        let configured = self
            .report
            .configuration
            .as_ref()
            .and_then(Configuration::target_page_bits)
            .and_then(|bits| 1_u64.checked_shl(bits));
        let size = self
            .options
            .page_size
            .or_else(|| self.trailer.and_then(Trailer::page_size))
            .or(configured)
            .unwrap_or(4096);
        self.report.page_size = size;
        size
    }

    fn dirty_bitmap_body(&mut self, header: &SectionHeader) -> Result<Body, InspectError> {
        let start = self.input.position();
        let name = header.name().to_string();
        let error = ram_error(&name);
        self.dirty_bitmaps.begin_section(start);
        let mut chunks = Vec::new();
        let mut want = 1;
        loop {
            let bytes = self.input.peek(want)?;
            let have = bytes.len();
            match self.dirty_bitmaps.step(bytes).map_err(&error)? {
                vmstate_ram::Step::NeedMore { at_least } => {
                    if have < want || have >= at_least {
                        return Err(InspectError::Truncated {
                            inside: format!("a chunk of section {name}"),
                            offset: start + have as u64,
                        });
                    }
                    want = at_least;
                }
                vmstate_ram::Step::Event { consumed, event } => {
                    want = 1;
                    let ended = matches!(event, ChunkEvent::EndOfSection);
                    if let ChunkEvent::Chunk(chunk) = &event {
                        chunks.push(bitmap_chunk(chunk));
                        if let Some(rewriter) = &mut self.rewriter {
                            rewriter.dirty_bitmap_chunk(chunk, &name)?;
                        }
                    }
                    if let (true, Some(rewriter)) = (ended, &mut self.rewriter) {
                        rewriter.dirty_bitmap_end(&event)?;
                    }
                    self.input.consume(consumed as u64)?;
                    if ended {
                        break;
                    }
                }
            }
        }
        let length = self.input.position() - start;
        self.spend(length, header, start)?;
        Ok(Body {
            length,
            unreported: length,
            inferred: false,
            content: Content::DirtyBitmaps(chunks),
        })
    }

    /// The hash page table of a `pseries` machine. Its end shows in the content: machines up to 2.3 write no footers, and
    /// what it holds looks like anything.
    ///
    /// | size | order | meaning |
    /// |---|---|---|
    /// | 4 | be | in START: log2 of the table's size; -1 without a table; 0 in PART and END, entries follow |
    /// | 4 | be | index of the first entry |
    /// | 2 | be | n, valid entries |
    /// | 2 | be | invalid entries behind them |
    /// | 16 n | | valid entries; then the next index; all three 0 at the end |
    ///
    /// Wire: QEMU 7.2 to 11.1, section `spapr/htab`.
    fn hash_table_body(&mut self, header: &SectionHeader) -> Result<Body, InspectError> {
        let offset = self.input.position();
        let wanted = self.options.keep.wants(&header.idstr.to_string());
        let mut content = (wanted || self.rewriter.is_some()).then(Vec::new);
        let first = self.take(4, header, &mut content)?;
        if first == [0; 4] {
            loop {
                let entry = self.take(8, header, &mut content)?;
                let valid = match entry.first_chunk::<6>() {
                    Some([_, _, _, _, high, low]) => u16::from_be_bytes([*high, *low]),
                    None => 0,
                };
                if entry == [0; 8] {
                    break;
                }
                self.take(16 * usize::from(valid), header, &mut content)?;
            }
        }
        if let (Some(rewriter), Some(content)) = (&mut self.rewriter, &content) {
            rewriter.opaque(content)?;
        }
        let length = self.input.position() - offset;
        Ok(Body {
            length,
            unreported: length,
            inferred: false,
            content: content
                .filter(|_| wanted)
                .map_or(Content::Left, Content::Opaque),
        })
    }

    /// Moves over bytes that must be there, and keeps them where they are wanted.
    fn take(
        &mut self,
        count: usize,
        header: &SectionHeader,
        content: &mut Option<Vec<u8>>,
    ) -> Result<Vec<u8>, InspectError> {
        let offset = self.input.position();
        if content.is_some() {
            self.spend(count as u64, header, offset)?;
        }
        let bytes = self.input.peek(count)?;
        let Some(bytes) = bytes.get(..count).map(<[u8]>::to_vec) else {
            return Err(InspectError::Truncated {
                inside: format!("an entry of section {}", header.name()),
                offset: offset + bytes.len() as u64,
            });
        };
        if let Some(content) = content {
            content.extend_from_slice(&bytes);
        }
        self.input.consume(count as u64)?;
        Ok(bytes)
    }

    fn described_body(
        &mut self,
        header: &SectionHeader,
        device: &vmstate_wire::vmdesc::Device<'_>,
        trailer: &Trailer<'_>,
    ) -> Result<Body, InspectError> {
        let offset = self.input.position();
        let around = Surroundings {
            section_id: header.section_id,
            footers: self.parser.footers(),
            sections: self.parser.sections(),
            trailer,
            room: self.parser.package_remaining(),
        };
        let decoded = match device::decode(self.input, device, &around, self.options.memory) {
            Ok(decoded) => decoded,
            Err(InspectError::Device(error)) if device.may_leave_holes_open() => {
                return self.misdescribed_body(header, device, &error);
            }
            Err(error) => return Err(error),
        };
        let used = decoded.used;
        if self.options.verify {
            let payload = self.input.peek(used)?;
            device::verify(
                header,
                payload.get(..used).unwrap_or_default(),
                offset,
                &decoded.state,
                device,
                trailer,
                &mut self.report.problems,
            );
        }
        if let Some(rewriter) = &mut self.rewriter {
            rewriter.device(device, &decoded.state)?;
        }
        self.input.consume(used as u64)?;
        self.spend(used as u64, header, offset)?;
        let content = if self.options.keep.wants(&header.idstr.to_string()) {
            Content::Described(Box::new(decoded.state))
        } else {
            Content::Left
        };
        Ok(Body {
            length: used as u64,
            unreported: used as u64,
            inferred: false,
            content,
        })
    }

    /// A body that its description does not fit, in a way that is known of QEMU's descriptions.
    fn misdescribed_body(
        &mut self,
        header: &SectionHeader,
        device: &vmstate_wire::vmdesc::Device<'_>,
        error: &vmstate_desc::Error,
    ) -> Result<Body, InspectError> {
        let body = self.inferred_body(header)?;
        self.report.warnings.push(format!(
            "section {}: kept as bytes, since QEMU's trailer does not say which pointers of an array are absent ({error})",
            header.name()
        ));
        if let Some(rewriter) = &mut self.rewriter {
            rewriter.carry(device);
        }
        Ok(body)
    }

    /// A body whose end is found by its footer. Its bytes are kept: a trailer may still come.
    fn inferred_body(&mut self, header: &SectionHeader) -> Result<Body, InspectError> {
        let offset = self.input.position();
        let room = self.parser.package_remaining();
        let mut scanner = BodyEndScanner::new();
        let mut want = 64 << 10;
        let length = loop {
            let bytes = self.input.peek(want)?;
            let at_end = bytes.len() < want;
            let (bytes, at_end) = match room {
                Some(room) if room <= bytes.len() as u64 => (
                    bytes
                        .get(..usize::try_from(room).unwrap_or(0))
                        .unwrap_or(bytes),
                    true,
                ),
                _ => (bytes, at_end),
            };
            let context = InferContext {
                section_id: header.section_id,
                sections: self.parser.sections(),
                footers: self.parser.footers() != Presence::Absent,
                package: room.is_some(),
            };
            match scanner.scan(bytes, &context, at_end) {
                BodyEnd::Inferred(end) => break end.length,
                BodyEnd::NeedMore { min } if !at_end => {
                    want = min.max(want.saturating_mul(2));
                    if want as u64 > self.options.memory {
                        return Err(InspectError::Limit {
                            what: format!("section {} without a description", header.name()),
                            limit: self.options.memory,
                            offset,
                        });
                    }
                }
                _ => {
                    return Err(InspectError::Truncated {
                        inside: format!(
                            "section {}: neither its footer nor a description tells where it ends",
                            header.name()
                        ),
                        offset: offset + bytes.len() as u64,
                    });
                }
            }
        };
        self.spend(length as u64, header, offset)?;
        let bytes = self.input.peek(length)?;
        let bytes = bytes.get(..length).unwrap_or_default().to_vec();
        if let Some(rewriter) = &mut self.rewriter {
            rewriter.opaque(&bytes)?;
        }
        self.input.consume(length as u64)?;
        Ok(Body {
            length: length as u64,
            unreported: length as u64,
            inferred: true,
            content: Content::Opaque(bytes),
        })
    }

    fn spend(
        &mut self,
        bytes: u64,
        header: &SectionHeader,
        offset: u64,
    ) -> Result<(), InspectError> {
        match self.memory.checked_sub(bytes) {
            Some(left) => {
                self.memory = left;
                Ok(())
            }
            None => Err(InspectError::Limit {
                what: format!("device state up to section {}", header.name()),
                limit: self.options.memory,
                offset,
            }),
        }
    }

    /// Reports RAM. Where the walk ended early, as far as it came: without the rest of the channels, and without digests.
    fn finish_ram(&mut self, complete: bool) -> Result<(), InspectError> {
        let Some(mut ram) = self.ram.take() else {
            return Ok(());
        };
        let mut result = Ok(());
        if ram.misses_channels(self.channels.as_ref()) {
            self.report.warnings.push(MISSING_CHANNELS.to_owned());
            ram.image = None;
        }
        if let (true, Some(channels)) = (complete, self.channels.take()) {
            match channels.finish(&mut ram, &mut self.report.problems) {
                Ok(channels) => self.report.channels = channels,
                Err(e) => result = Err(e),
            }
        }
        if !complete || result.is_err() {
            ram.image = None;
        }
        self.report.ram = ram.finish()?;
        result
    }
}

/// The payload of one piece of a section.
struct Body {
    length: u64,
    /// Bytes that the stream's parser does not know of yet.
    unreported: u64,
    inferred: bool,
    content: Content,
}

impl Default for Body {
    fn default() -> Self {
        Self {
            length: 0,
            unreported: 0,
            inferred: false,
            content: Content::Left,
        }
    }
}

impl Content {
    /// Adds what a further piece of the section brought.
    fn append(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Left, more) => *self = more,
            (Self::Opaque(bytes), Self::Opaque(more)) => bytes.extend(more),
            (Self::DirtyBitmaps(chunks), Self::DirtyBitmaps(more)) => chunks.extend(more),
            _ => {}
        }
    }
}

fn bitmap_chunk(chunk: &Chunk<'_>) -> BitmapChunk {
    BitmapChunk {
        node: String::from_utf8_lossy(chunk.node).into_owned(),
        bitmap: String::from_utf8_lossy(chunk.bitmap).into_owned(),
        body: match chunk.body {
            ChunkBody::Start { granularity, flags } => BitmapChunkBody::Start {
                granularity,
                enabled: flags.contains(StartFlags::ENABLED),
                persistent: flags.contains(StartFlags::PERSISTENT),
            },
            ChunkBody::Bits {
                first_sector,
                sectors,
                data,
            } => BitmapChunkBody::Bits {
                first_sector,
                sectors,
                data: data.map(<[u8]>::to_vec),
            },
            ChunkBody::Complete => BitmapChunkBody::Complete,
        },
    }
}

/// Writes an event into the report.
fn note(
    report: &mut Report,
    late_trailer: &mut Vec<u8>,
    trailer: Option<&Trailer<'_>>,
    event: Event<'_>,
    offset: u64,
    packaged: bool,
) -> After {
    match event {
        Event::Configuration(configuration) => report.configuration = Some(configuration),
        Event::Warning(warning) => report.warnings.push(warning.to_string()),
        Event::Section(header) => return After::Section(header),
        Event::Command(command) => report.commands.push(CommandAt {
            offset,
            command,
            packaged,
        }),
        Event::PackageBegin { length } => report.commands.push(CommandAt {
            offset,
            command: Command::Packaged { length },
            packaged,
        }),
        Event::PackageTail(bytes) => report.warnings.push(format!(
            "{} bytes of a package behind POSTCOPY_RUN mean nothing (byte {offset:#x})",
            bytes.len()
        )),
        Event::TrailerBegin { length } => {
            report.trailer = Some(TrailerAt {
                offset,
                length: length.into(),
                dialect: vmstate_wire::vmdesc::VmdescDialect::V11_1,
                devices: 0,
            });
        }
        Event::TrailerChunk(bytes) if trailer.is_none() => late_trailer.extend_from_slice(bytes),
        _ => {}
    }
    After::Nothing
}

/// What can be said only at the end: sections that waited for the trailer, devices without a section.
fn conclude(
    report: &mut Report,
    trailer: Option<&Trailer<'_>>,
    late: &[u8],
    headers: &[SectionHeader],
    options: &Options,
) -> Result<(), InspectError> {
    let parsed;
    let trailer = match (trailer, report.trailer) {
        (Some(trailer), _) => Some(trailer),
        (None, Some(at)) if !late.is_empty() => {
            parsed = Trailer::parse(late).map_err(|error| InspectError::Trailer {
                error,
                offset: at.offset,
            })?;
            decode_kept(report, &parsed, headers, options)?;
            Some(&parsed)
        }
        _ => None,
    };
    if let Some(dump) = &options.describe {
        for section in &mut report.sections {
            if let Content::Opaque(bytes) = &section.content
                && let Some(state) = dump.decode(&section.idstr, section.version_id, bytes)
            {
                section.content = Content::Dumped(Box::new(state));
            }
        }
    }
    let Some(trailer) = trailer else {
        return Ok(());
    };
    if let Some(at) = &mut report.trailer {
        at.dialect = trailer.dialect();
        at.devices = trailer.devices().len();
    }
    if let Some(size) = trailer.page_size()
        && report.ram.blocks.is_empty()
    {
        report.page_size = size;
    }
    if let Some(size) = trailer.page_size()
        && size != report.page_size
        && !report.ram.blocks.is_empty()
    {
        report.problems.push(Problem {
            offset: None,
            text: format!(
                "the trailer says that target pages have {size} bytes, but {} were assumed: give the page size",
                report.page_size
            ),
        });
    }
    for device in trailer.devices() {
        let came = report
            .sections
            .iter()
            .any(|s| s.instance_id == device.instance_id() && s.idstr == device.idstr());
        if !came {
            report.problems.push(Problem {
                offset: None,
                text: format!(
                    "the trailer describes {}/{}, but no such section came",
                    device.idstr(),
                    device.instance_id()
                ),
            });
        }
    }
    Ok(())
}

/// How many of `sections` have this identity.
fn namesakes(sections: &[Section], idstr: &str, instance_id: u32) -> usize {
    sections
        .iter()
        .filter(|s| s.instance_id == instance_id && s.idstr == idstr)
        .count()
}

/// Decodes sections that were kept until the trailer came.
fn decode_kept(
    report: &mut Report,
    trailer: &Trailer<'_>,
    headers: &[SectionHeader],
    options: &Options,
) -> Result<(), InspectError> {
    for index in 0..report.sections.len() {
        let (earlier, rest) = report.sections.split_at_mut(index);
        let (Some(section), Some(header)) = (rest.first_mut(), headers.get(index)) else {
            continue;
        };
        let Content::Opaque(bytes) = &section.content else {
            continue;
        };
        let before = namesakes(earlier, &section.idstr, section.instance_id);
        let Some(device) = trailer.device_after(&section.idstr, section.instance_id, before) else {
            continue;
        };
        let offset = section.payload_offset;
        let limits = vmstate_desc::Limits {
            memory: options.memory,
            ..vmstate_desc::Limits::default()
        };
        let decoded = match device.decode(bytes, offset, false, limits, &|rest| rest.is_empty()) {
            Ok(decoded) => decoded,
            Err(error) if device.may_leave_holes_open() => {
                report.warnings.push(format!(
                    "section {}: kept as bytes, since QEMU's trailer does not say which pointers of an array are absent ({error})",
                    header.name()
                ));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if options.verify {
            device::verify(
                header,
                bytes,
                offset,
                &decoded.state,
                device,
                trailer,
                &mut report.problems,
            );
        }
        section.inferred = false;
        section.content = Content::Described(Box::<DynState>::new(decoded.state));
    }
    Ok(())
}
