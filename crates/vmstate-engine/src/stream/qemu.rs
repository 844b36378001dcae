//! QEMU's stream.

use vmstate_desc::{Limits, LoadState, SaveState};
use vmstate_wire::codec::{ByteSource, MAX_FILL, decode_from};
use vmstate_wire::stream::{
    Command, Event, ParserOptions, SectionHeader, SectionKind, Step, StreamOffset, StreamParser,
    write,
};
use vmstate_wire::vmdesc::Vmdesc;

use super::error::{LoadError, SaveError};
use super::format::{Element, Opening, SectionBody, SectionLoad, StreamDecoder, StreamEncoder};
use crate::channel::{ChannelError, ChannelWriter, SectionReader};
use crate::handlers::HandlerError;
use crate::settings::Settings;

/// Writes QEMU's stream, and its trailer.
#[derive(Debug)]
pub(super) struct QemuEncoder {
    /// The trailer, as far as it has come; none if there is to be none.
    vmdesc: Option<Vmdesc>,
    footers: bool,
}

impl QemuEncoder {
    /// In the dialect of the settings, for a machine with this target page size in bytes.
    pub(super) fn new(settings: &Settings, page_size: u64) -> Self {
        let page_size = u32::try_from(page_size).unwrap_or(u32::MAX);
        let vmdesc =
            (!settings.dialect.suppress_vmdesc).then(|| Vmdesc::new(settings.vmdesc, page_size));
        Self {
            vmdesc,
            footers: settings.dialect.section_footer,
        }
    }

    fn footer(&self, header: &SectionHeader, out: &mut Vec<u8>) {
        if self.footers {
            write::put_footer(out, header.section_id);
        }
    }
}

impl StreamEncoder for QemuEncoder {
    fn begin(&mut self, opening: Option<&Opening>, out: &mut Vec<u8>) -> Result<(), SaveError> {
        write::put_header(out);
        if let Some(opening) = opening {
            write::put_configuration(out, &opening.configuration);
            if let Some(vmdesc) = &mut self.vmdesc {
                vmdesc
                    .configuration(&opening.state, &mut Vec::new())
                    .map_err(SaveError::Configuration)?;
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &Command, out: &mut Vec<u8>) -> Result<(), SaveError> {
        Ok(write::put_command(out, command)?)
    }

    fn section(
        &mut self,
        header: &SectionHeader,
        body: &mut SectionBody<'_>,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), HandlerError> {
        let mut bytes = Vec::with_capacity(300);
        write::put_section_header(&mut bytes, header);
        out.bytes(&bytes)?;
        let before = out.position().0;
        body(out)?;
        let size = out.position().0.saturating_sub(before);
        if let (SectionKind::Full, Some(vmdesc)) = (header.kind, &mut self.vmdesc) {
            vmdesc.opaque_device(&header.idstr.to_string(), header.instance_id.0, size);
        }
        bytes.clear();
        self.footer(header, &mut bytes);
        if !bytes.is_empty() {
            out.bytes(&bytes)?;
        }
        Ok(())
    }

    fn device(
        &mut self,
        header: &SectionHeader,
        _early: bool,
        state: &dyn SaveState,
        out: &mut Vec<u8>,
    ) -> Result<(), vmstate_desc::Error> {
        write::put_section_header(out, header);
        match &mut self.vmdesc {
            Some(vmdesc) => {
                let idstr = header.idstr.to_string();
                vmdesc.device(&idstr, header.instance_id.0, state, out)?;
            }
            None => vmstate_wire::codec::encode(state, out)?,
        }
        self.footer(header, out);
        Ok(())
    }

    fn commit(&mut self, out: &mut Vec<u8>) {
        write::put_eof(out);
    }

    fn trailer(&mut self, out: &mut Vec<u8>) -> Result<(), SaveError> {
        if let Some(vmdesc) = self.vmdesc.take() {
            write::put_trailer(out, vmdesc.finish().as_bytes())?;
        }
        Ok(())
    }

    fn package(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), SaveError> {
        self.vmdesc = None;
        Ok(write::put_packaged(out, content)?)
    }
}

/// Reads QEMU's stream.
#[derive(Debug)]
pub(super) struct QemuDecoder {
    options: ParserOptions,
    parser: StreamParser,
    /// Nothing has been read.
    fresh: bool,
    /// Where the body of the open section begins.
    body: StreamOffset,
}

impl QemuDecoder {
    /// In the dialect of the settings.
    pub(super) fn new(settings: &Settings) -> Self {
        let options = ParserOptions::from_dialect(&settings.dialect);
        Self {
            parser: StreamParser::new(options),
            options,
            fresh: true,
            body: StreamOffset(0),
        }
    }

    /// The next event, in a form that does not borrow the input; none when the stream is complete.
    fn event(&mut self, input: &mut dyn SectionReader) -> Result<Option<Found>, LoadError> {
        let mut at_least = 0;
        loop {
            let bytes = input.fill(at_least)?;
            let over = bytes.len() < at_least;
            match self.parser.next(bytes)? {
                Step::Event { consumed, event } => {
                    let event = Found::from(event);
                    input.consume(consumed);
                    return Ok(Some(event));
                }
                Step::NeedMore { .. } if over => {
                    let complete = self.parser.finish(bytes);
                    return match complete {
                        Ok(()) => Ok(None),
                        Err(error) => Err(error.into()),
                    };
                }
                Step::NeedMore { min } => at_least = min,
                Step::InBody => return Err(LoadError::Order("an element")),
                Step::End => return Ok(None),
            }
        }
    }
}

impl StreamDecoder for QemuDecoder {
    fn next(&mut self, input: &mut dyn SectionReader) -> Result<Option<Element>, LoadError> {
        if self.fresh {
            self.fresh = false;
            self.parser = self.parser.clone().at_offset(input.offset());
        }
        let element = match self.event(input)? {
            Some(Found::Element(element)) => element,
            Some(Found::Closed) => return Err(LoadError::Order("an element")),
            None => return Ok(None),
        };
        if element == Element::Section {
            self.body = input.offset();
        }
        Ok(Some(element))
    }

    fn offset(&self) -> StreamOffset {
        self.parser.offset()
    }

    fn section(&self) -> Option<&SectionHeader> {
        self.parser.current_section()
    }

    fn handler(
        &mut self,
        _limits: Limits,
        load: &mut SectionLoad<'_>,
        input: &mut dyn SectionReader,
    ) -> Result<(), HandlerError> {
        load(input)
    }

    fn device(
        &mut self,
        state: &mut dyn LoadState,
        limits: Limits,
        input: &mut dyn SectionReader,
        broken: &mut Option<HandlerError>,
    ) -> Result<(), vmstate_desc::Error> {
        let version = self.section().map_or(0, |header| header.version_id.0);
        let mut source = Source {
            input,
            broken: None,
        };
        let loaded = decode_from(state, version, &mut source, limits);
        *broken = source.broken.map(HandlerError::Channel);
        loaded
    }

    fn close(&mut self, input: &mut dyn SectionReader) -> Result<(), LoadError> {
        let length = input.offset().0.saturating_sub(self.body.0);
        self.parser.body_done(length)?;
        // The footer belongs to the section: nothing behind it may have to come first.
        match self.event(input)? {
            Some(Found::Closed) => Ok(()),
            _ => Err(LoadError::Order("what follows a section")),
        }
    }

    fn package(&mut self, _content: &[u8]) -> Result<Box<dyn StreamDecoder>, LoadError> {
        Ok(Box::new(Self {
            options: self.options,
            parser: self.parser.take_package()?,
            fresh: false,
            body: StreamOffset(0),
        }))
    }

    fn interrupted(&mut self) {
        let sections = self.parser.sections().clone();
        self.parser = StreamParser::resumed(self.options, sections);
    }
}

/// What the parser found, as far as it matters here.
enum Found {
    Element(Element),
    /// The end of a section, with its footer if the dialect has one.
    Closed,
}

impl From<Event<'_>> for Found {
    fn from(event: Event<'_>) -> Self {
        Self::Element(match event {
            Event::SectionClosed { .. } => return Self::Closed,
            Event::Header => Element::Header,
            Event::Configuration(configuration) => Element::Configuration(configuration),
            Event::Section(_) => Element::Section,
            Event::Command(command) => Element::Command(command),
            Event::PackageBegin { length } => Element::Package { length },
            Event::Eof => Element::Eof,
            _ => Element::Other,
        })
    }
}

/// A channel as the decoder of devices wants it.
struct Source<'a> {
    input: &'a mut dyn SectionReader,
    /// Why the channel broke, if it did: the decoder's error would only have its text.
    broken: Option<ChannelError>,
}

impl ByteSource for Source<'_> {
    fn fill(&mut self, at_least: usize) -> Result<&[u8], vmstate_desc::Error> {
        let Self { input, broken } = self;
        match input.fill(at_least.min(MAX_FILL)) {
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                let text = error.to_string();
                broken.get_or_insert(error);
                Err(vmstate_desc::Error::format(text))
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
    }

    fn offset(&self) -> u64 {
        self.input.offset().0
    }
}
