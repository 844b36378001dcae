//! The walk over a stream's elements.

use std::collections::HashMap;

use vmstate_ram::dirty_bitmap::ChunkParser;
use vmstate_schema::Origin;
use vmstate_wire::stream::{
    Command, Event, IdStr, InstanceId, ParserOptions, SectionHeader, SectionId, SectionKind, Step,
    StreamOffset, StreamParser,
};
use vmstate_wire::vmdesc::Trailer;

use super::Options;
use super::channels::Channels;
use super::conclude::conclude;
use super::ram::RamReader;
use super::report::{
    Analysis, CommandAt, Content, InspectError, Kind, Problem, Report, Section, TrailerAt,
};
use super::sink::Sink;
use crate::input::Input;

/// Walks `input`; `text` is its trailer with its offset, where that was found beforehand.
pub(super) fn walk(
    input: &mut dyn Input,
    channels: &mut [Box<dyn Input + '_>],
    text: Option<(u64, Vec<u8>)>,
    options: &Options,
    sink: Option<&mut (dyn Sink + '_)>,
) -> Analysis {
    let parsed = text
        .as_ref()
        .map(|(offset, text)| (*offset, Trailer::parse_within(text, options.memory / 2)));
    let (trailer, failure) = match parsed {
        None => (None, None),
        Some((_, Ok(trailer))) => (Some(trailer), None),
        Some((offset, Err(error))) => (None, Some(InspectError::Trailer { error, offset })),
    };
    let described = BUFFERS.min(options.memory / 16)
        + text.as_ref().map_or(0, |(_, text)| text.len() as u64)
        + trailer.as_ref().map_or(0, Trailer::memory);
    let parser = ParserOptions {
        limits: options.stream_limits(),
        ..ParserOptions::default()
    };
    let mut walk = Walk {
        input,
        options,
        trailer: trailer.as_ref(),
        parser: StreamParser::new(parser).at_offset(StreamOffset(options.start)),
        report: Report {
            page_size: options.page_size.unwrap_or(4096),
            origin: Origin::Trailer,
            ..Report::default()
        },
        by_id: HashMap::new(),
        ram: None,
        memory: options.memory.saturating_sub(described),
        late_trailer: Vec::new(),
        dirty_bitmaps: ChunkParser::new(),
        headers: Vec::new(),
        namesakes: HashMap::new(),
        inputs: Some(channels),
        channels: None,
        sink,
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
        memory,
        ..
    } = walk;
    if result.is_ok() {
        result = conclude(
            &mut report,
            trailer.as_ref(),
            &late_trailer,
            &headers,
            options,
            memory,
        );
    }
    for section in &mut report.sections {
        if !options.keep.wants(&section.idstr) && !matches!(section.content, Content::Ram) {
            section.content = Content::Left;
        }
    }
    Analysis {
        report,
        failure: result.err(),
    }
}

pub(super) struct Walk<'a, 'c, 'i, 't, 's> {
    pub(super) input: &'a mut dyn Input,
    pub(super) options: &'a Options,
    /// The trailer, found beforehand.
    pub(super) trailer: Option<&'a Trailer<'t>>,
    pub(super) parser: StreamParser,
    pub(super) report: Report,
    /// Which entry of the report an iterative section's id belongs to.
    pub(super) by_id: HashMap<SectionId, usize>,
    pub(super) ram: Option<RamReader>,
    /// Bytes of device state that may still be kept.
    pub(super) memory: u64,
    /// The trailer's text, collected on the way where it was not found beforehand.
    pub(super) late_trailer: Vec<u8>,
    pub(super) dirty_bitmaps: ChunkParser,
    /// The headers of the report's sections.
    pub(super) headers: Vec<SectionHeader>,
    /// How many sections of each identity came so far.
    pub(super) namesakes: HashMap<(IdStr, InstanceId), usize>,
    pub(super) inputs: Option<&'c mut [Box<dyn Input + 'i>]>,
    pub(super) channels: Option<Channels<'c, 'i>>,
    /// Gets everything.
    pub(super) sink: Option<&'a mut (dyn Sink + 's)>,
}

/// The warning about channels that were not given.
const MISSING_CHANNELS: &str = "pages travelled on multifd channels that were not given, so RAM is incomplete and has no digests: give \
                                the files of the channels behind that of the stream";

/// Bytes of memory for windows on the input and the like, which all of [`Options::memory`] has to cover.
const BUFFERS: u64 = 1 << 20;

/// How much more memory than its elements a list may take while it grows.
const GROWTH: usize = 3;

/// What an event asks for once its bytes are consumed.
enum After {
    Nothing,
    Section(SectionHeader),
}

impl Walk<'_, '_, '_, '_, '_> {
    fn run(&mut self) -> Result<(), InspectError> {
        super::pass_over(self.input, self.options)?;
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
                    let upgrades = matches!(event, Event::Command(Command::Upgrade));
                    let kept = kept_of(&event, self.trailer.is_some());
                    if let Some(sink) = &mut self.sink {
                        sink.event(&event, self.trailer)?;
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
                    if upgrades {
                        let offset = self.parser.offset().0;
                        return Err(InspectError::Upgraded { offset });
                    }
                    if let Some((what, bytes)) = kept {
                        self.spend(bytes as u64, || what.to_owned(), offset)?;
                    }
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
                let identity = (header.idstr.clone(), header.instance_id);
                *self.namesakes.entry(identity).or_default() += 1;
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

/// What an event leaves in the report, and the bytes of memory that it takes there.
fn kept_of(event: &Event<'_>, has_trailer: bool) -> Option<(&'static str, usize)> {
    match event {
        Event::Command(_) | Event::PackageBegin { .. } => {
            Some(("the list of commands", GROWTH * size_of::<CommandAt>()))
        }
        Event::Section(header) if header.kind.names_owner() => {
            Some(("the list of sections", GROWTH * size_of::<Section>()))
        }
        Event::TrailerChunk(bytes) if !has_trailer => {
            Some(("the description trailer", bytes.len()))
        }
        _ => None,
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
