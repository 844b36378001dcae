//! Reading a stream.

use std::sync::Arc;

use vmstate_ber::der::DerReader;
use vmstate_ber::der::tag;
use vmstate_ber::frame::{Frame, Hello, Role, Select};
use vmstate_ber::stream::{Ahead, Parser, Step};
use vmstate_ber::types::{TypeDef, TypeIndex, TypeTable};
use vmstate_ber::{BerError, BerErrorKind, BerIn, Limits as BerLimits, decode_dynamic};
use vmstate_desc::{Limits, LoadState, load_with};
use vmstate_engine::postcopy::PreemptChannel;
use vmstate_engine::{
    ChannelEnd, ChannelError, Element, GuestMemory, HandlerError, LoadError, SectionLoad,
    SectionReader, StreamDecoder,
};
use vmstate_ram::{BlockTable, PageSize};
use vmstate_wire::stream::{SectionHeader, SectionId, SectionTable, StreamOffset};

use super::body::{DataBody, RamBody};
use super::{MAIN, URGENT, handler_error, load_error};

/// Bytes that a frame's buffer grows by.
const PIECE: usize = 64 << 10;

/// Reads the main channel of a migration as VM state over BER.
///
/// Memory is bounded by the limits: one frame, and the types.
pub struct BerDecoder {
    pub(super) parser: Parser,
    pub(super) memory: Arc<dyn GuestMemory>,
    pub(super) types: TypeTable,
    pub(super) sections: SectionTable,
    /// The frame that has been read as a whole.
    frame: Vec<u8>,
    pub(super) open: Option<Open>,
    /// Section and page size of guest RAM, once its blocks have come.
    pub(super) ram: Option<(SectionId, PageSize)>,
    /// Bytes of the configuration in several frames, of which more are to come.
    pub(super) configuration: Option<Vec<u8>>,
    /// The number of the migration.
    pub(super) session: [u8; 16],
    /// The channel that a `Hello` must begin here.
    pub(super) expected: Option<u64>,
}

/// The section that has begun.
pub(super) struct Open {
    pub(super) header: SectionHeader,
    pub(super) content: Content,
}

/// What it consists of.
pub(super) enum Content {
    /// A value; where it stands in the frame's buffer and in the stream.
    Device {
        ty: TypeIndex,
        body: std::ops::Range<usize>,
        offset: u64,
    },
    /// Bytes, the first of them, and whether more follow.
    Data { bytes: Vec<u8>, more: bool },
    /// Guest RAM; the list of blocks stands at the beginning of the first section.
    Ram(Option<Box<BlockTable>>),
    /// It has been read.
    Nothing,
}

/// What has been read.
pub(super) enum Read<'a> {
    /// A whole frame, and where it begins.
    Frame(Box<Frame<'a>>, u64),
    /// Pages, up to their content.
    Pages(OpenPages),
    /// A part of the envelope.
    Envelope,
    /// Nothing more comes.
    End,
}

/// Pages whose content follows.
pub(super) struct OpenPages {
    pub(super) block: u32,
    /// First page and number of pages.
    pub(super) runs: Vec<(u64, u64)>,
    /// Bytes of content.
    pub(super) length: u64,
    pub(super) offset: u64,
}

pub(super) fn out_of_turn(what: &'static str, offset: u64) -> BerError {
    BerErrorKind::OutOfTurn { what }.at(offset)
}

/// First page and number of pages of every run among the selected ones.
pub(super) fn runs_of(first: u64, pages: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for page in pages {
        let number = first.saturating_add(page);
        match runs.last_mut() {
            Some((start, count)) if start.saturating_add(*count) == number => *count += 1,
            _ => runs.push((number, 1)),
        }
    }
    runs
}

impl BerDecoder {
    /// A decoder at the first byte of a stream. Pages that come in a file, or with a checksum, are copied into `memory`.
    #[must_use]
    pub fn new(memory: Arc<dyn GuestMemory>, limits: BerLimits) -> Self {
        Self {
            parser: Parser::new(limits),
            memory,
            types: TypeTable::default(),
            sections: SectionTable::new(),
            frame: Vec::new(),
            open: None,
            ram: None,
            configuration: None,
            session: [0; 16],
            expected: None,
        }
    }

    /// A decoder at the first byte of the channel of requested pages of the migration `session`.
    #[must_use]
    pub fn urgent(memory: Arc<dyn GuestMemory>, session: [u8; 16]) -> Self {
        let main = Self::new(memory, BerLimits::default());
        Self { session, ..main }.on_channel(URGENT)
    }

    /// Places requested pages as they come, up to the end of their channel.
    ///
    /// # Errors
    /// [`HandlerError`].
    pub fn run_urgent(
        &mut self,
        channel: &mut PreemptChannel,
        input: &mut dyn SectionReader,
    ) -> Result<bool, HandlerError> {
        channel.run(&mut RamBody::urgent(self, input))
    }

    /// A decoder at the first byte of another channel of the same migration as this one's.
    fn on_channel(&self, number: u64) -> Self {
        let parser = Parser::new(*self.parser.limits()).without_digest();
        Self {
            parser,
            memory: Arc::clone(&self.memory),
            types: TypeTable::default(),
            sections: self.sections.clone(),
            frame: Vec::new(),
            open: None,
            ram: self.ram,
            configuration: None,
            session: self.session,
            expected: Some(number),
        }
    }

    /// Reads the first frame, which says who speaks. For a file, the digest is computed from here on.
    ///
    /// # Errors
    /// [`LoadError::Format`], [`LoadError::Channel`].
    pub fn hello(&mut self, input: &mut dyn SectionReader) -> Result<Hello, LoadError> {
        let mut buffer = Vec::new();
        loop {
            match self.read(input, &mut buffer).map_err(loading)? {
                Read::Envelope => {}
                Read::Frame(frame, offset) => match *frame {
                    Frame::Hello(hello) => {
                        if hello.role != Role::File {
                            self.parser.forget_digest();
                        }
                        self.session = hello.session;
                        return Ok(hello);
                    }
                    _ => return Err(load_error(out_of_turn("a frame before Hello", offset))),
                },
                _ => return Err(LoadError::Order("Hello")),
            }
        }
    }

    /// The type of the device whose section has begun.
    fn open_type(&self) -> Option<&TypeDef> {
        match &self.open.as_ref()?.content {
            Content::Device { ty, .. } => self.types.get(*ty).map(|ty| &**ty),
            _ => None,
        }
    }

    /// The reader of frames, where it stands.
    pub(in crate::live) const fn parser(&self) -> &Parser {
        &self.parser
    }

    /// Goes on behind what somebody else has read: with this reader, and the types that have come.
    pub(in crate::live) fn go_on(&mut self, parser: Parser, types: TypeTable) {
        self.parser = parser;
        self.types = types;
    }

    /// What is adapted of the devices that come.
    pub(in crate::live) fn adapted(&self) -> vmstate_ber::Adapted {
        self.types.adapted().clone()
    }

    /// Reads what comes next, a whole frame into `buffer`.
    pub(super) fn read<'b>(
        &mut self,
        input: &mut dyn SectionReader,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Read<'b>, HandlerError> {
        let mut at_least = 0;
        let length = loop {
            let bytes = input.fill(at_least)?;
            let available = bytes.len();
            match self.parser.look(bytes).map_err(handler_error)? {
                Ahead::End => return Ok(Read::End),
                Ahead::Whole { length } => break length,
                Ahead::NeedMore { .. } if available < at_least => {
                    let error = self.parser.finish(bytes).err();
                    return Err(match error {
                        Some(error) if available > 0 => handler_error(error),
                        _ => ChannelError::new(ChannelEnd::Closed, input.offset()).into(),
                    });
                }
                Ahead::NeedMore { min } => at_least = min,
                Ahead::Pages {
                    consumed,
                    offset,
                    pages,
                    length,
                } => {
                    let runs = match pages.select {
                        Select::Count(count) => vec![(pages.first, count)],
                        select => runs_of(pages.first, select.pages()),
                    };
                    let pages = OpenPages {
                        block: pages.block,
                        runs,
                        length,
                        offset,
                    };
                    input.consume(consumed);
                    return Ok(Read::Pages(pages));
                }
            }
        };
        // Memory grows with what comes.
        buffer.clear();
        while buffer.len() < length {
            let done = buffer.len();
            buffer.resize(length.min(done.saturating_add(PIECE)), 0);
            input.read_exact(buffer.get_mut(done..).unwrap_or_default())?;
        }
        match self.parser.next(buffer).map_err(handler_error)? {
            Step::Frame { offset, frame, .. } => Ok(Read::Frame(frame, offset)),
            Step::Consumed { .. } => Ok(Read::Envelope),
            Step::End => Ok(Read::End),
            // It was asked for all that is needed.
            Step::NeedMore { .. } => {
                let offset = self.parser.offset();
                Err(handler_error(out_of_turn("a frame without an end", offset)))
            }
        }
    }
}

pub(super) fn loading(error: HandlerError) -> LoadError {
    match error {
        HandlerError::Channel(error) => error.into(),
        HandlerError::Format(error) => LoadError::Format(error),
        other => LoadError::Format(Box::new(other)),
    }
}

impl std::fmt::Debug for BerDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BerDecoder")
            .field("parser", &self.parser)
            .finish_non_exhaustive()
    }
}

impl StreamDecoder for BerDecoder {
    fn next(&mut self, input: &mut dyn SectionReader) -> Result<Option<Element>, LoadError> {
        if self.open.is_some() {
            return Err(LoadError::Order("an element"));
        }
        let mut buffer = std::mem::take(&mut self.frame);
        let result = self.next_in(input, &mut buffer);
        self.frame = buffer;
        result
    }

    fn offset(&self) -> StreamOffset {
        StreamOffset(self.parser.offset())
    }

    fn section(&self) -> Option<&SectionHeader> {
        self.open.as_ref().map(|open| &open.header)
    }

    fn described_as(&self) -> Option<&str> {
        Some(self.open_type()?.name.as_str())
    }

    fn readable_from(&self) -> Option<u32> {
        self.open_type()?.readable_from
    }

    fn handler(
        &mut self,
        limits: Limits,
        load: &mut SectionLoad<'_>,
        input: &mut dyn SectionReader,
    ) -> Result<(), HandlerError> {
        let Some(open) = &mut self.open else {
            return Err(HandlerError::refused("no section has begun"));
        };
        let id = open.header.section_id;
        match std::mem::replace(&mut open.content, Content::Nothing) {
            Content::Ram(blocks) => {
                let page_size = self.ram.map(|(_, size)| size);
                let mut body = RamBody::new(self, input, id, blocks, page_size);
                load(&mut body)?;
                body.finish()
            }
            Content::Data { bytes, more } => {
                let mut body = DataBody::new(self, input, id, bytes, more);
                load(&mut body)?;
                body.finish()
            }
            // Described by the source, bytes for whoever loads it here.
            Content::Device { ty, body, offset } => {
                let version = self.open.as_ref().map_or(0, |o| o.header.version_id.0);
                let value = self.frame.get(body).unwrap_or_default();
                let state = decode_dynamic(&mut self.types, ty, version, value, offset, limits)?;
                let mut bytes = Vec::new();
                vmstate_wire::codec::encode(&state, &mut bytes)?;
                let mut body = DataBody::new(self, input, id, bytes, false);
                load(&mut body)?;
                body.finish()
            }
            Content::Nothing => Err(HandlerError::refused("a section is read twice")),
        }
    }

    fn device(
        &mut self,
        state: &mut dyn LoadState,
        limits: Limits,
        input: &mut dyn SectionReader,
        broken: &mut Option<HandlerError>,
    ) -> Result<(), vmstate_desc::Error> {
        let Some(open) = &mut self.open else {
            return Err(vmstate_desc::Error::format("no section has begun"));
        };
        let (id, version) = (open.header.section_id, open.header.version_id.0);
        match std::mem::replace(&mut open.content, Content::Nothing) {
            Content::Device { ty, body, offset } => {
                let value = self.frame.get(body).unwrap_or_default();
                let value = DerReader::new(value, offset)
                    .expect(tag::SEQUENCE, "a struct")
                    .map_err(BerError::into_state)?;
                let own = state.description().version_id;
                let in_force = self
                    .types
                    .get(ty)
                    .map_or(version, |ty| BerIn::version_in_force(ty, version, own));
                let mut visitor = BerIn::new(&self.types, ty, value);
                let loaded = load_with(state, in_force, &mut visitor, limits);
                let (idstr, instance) = (&open.header.idstr, open.header.instance_id.0);
                let section = format!("{idstr}#{instance}");
                self.types.adapted().add(&section, visitor.warnings());
                loaded
            }
            Content::Data { bytes, more } => {
                let mut body = DataBody::new(self, input, id, bytes, more);
                let loaded = body.decode(state, version, limits);
                *broken = body.broken.take();
                loaded?;
                if let Err(error) = body.finish() {
                    *broken = Some(error);
                }
                Ok(())
            }
            Content::Ram(_) => Err(vmstate_desc::Error::format(
                "guest RAM comes for a described device",
            )),
            Content::Nothing => Err(vmstate_desc::Error::format("a section is read twice")),
        }
    }

    fn close(&mut self, _input: &mut dyn SectionReader) -> Result<(), LoadError> {
        match self.open.take() {
            Some(_) => Ok(()),
            None => Err(LoadError::Order("the end of a section")),
        }
    }

    fn package(&mut self, content: &[u8]) -> Result<Box<dyn StreamDecoder>, LoadError> {
        let parser = self.parser.package(content).map_err(load_error)?;
        Ok(Box::new(Self {
            parser,
            // No device comes behind it.
            types: std::mem::take(&mut self.types),
            expected: None,
            ..self.on_channel(MAIN)
        }))
    }

    fn interrupted(&mut self) {
        *self = self.on_channel(MAIN);
    }
}
