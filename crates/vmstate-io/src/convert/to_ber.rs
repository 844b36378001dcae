//! Writing BER.

mod ram;
mod sections;

use std::io::Write;
use std::sync::Arc;

use vmstate_ber::frame::{
    Capability, Command as CommandFrame, Frame, Hello, Level, Note, Opaque, OpaqueKind, Phase,
    PhaseName, Status,
};
use vmstate_ber::stream::Writer;
use vmstate_ber::types::TypeTable;
use vmstate_ber::{AnyValue, PIECE};
use vmstate_desc::DynState;
use vmstate_ram::{BlockTable, PageSize};
use vmstate_wire::stream::{Command, Event, SectionHeader, SectionKind, write};
use vmstate_wire::vmdesc::{Device, Trailer, Vmdesc, VmdescDialect};

use super::pages::Pages;
use super::report::{ConvertError, Summary};
use super::{configuration, refused};
use crate::inspect::{InspectError, Sink};
use ram::Ram;
use sections::{Body, Waiting};

/// Names of notes about the QEMU stream.
pub(crate) mod note {
    /// Sections end with a footer: a boolean, true if it is not said.
    pub(crate) const FOOTERS: &str = "qemu.footers";
    /// The release whose form the trailing description has, if values give it again: a text. Another text takes it back.
    pub(crate) const VMDESC: &str = "qemu.vmdesc";
    /// The text that takes a release back: values give no description.
    pub(crate) const NO_VMDESC: &str = "none";
    /// The page size that the trailing description names: an integer.
    pub(crate) const PAGE_SIZE: &str = "qemu.page-size";
}

/// Release by which a form of the trailing description is named.
pub(crate) const fn dialect_name(dialect: VmdescDialect) -> &'static str {
    match dialect {
        VmdescDialect::V7_2 => "7.2",
        VmdescDialect::V10_0 => "10.0",
        _ => "11.1",
    }
}

/// Version of QEMU's section of guest RAM.
pub(super) const RAM_VERSION: u32 = 4;

/// Writes the elements of a stream as frames.
pub(super) struct BerSink<'w> {
    out: &'w mut dyn Write,
    writer: Writer,
    buffer: Vec<u8>,
    memory: u64,
    summary: Summary,
    /// The section that is open.
    body: Body,
    header: Option<SectionHeader>,
    /// Guest RAM in frames of its own, as long as these can say what comes.
    ram: Ram,
    pages: Pages,
    /// What the trailer would be.
    vmdesc: Option<Vmdesc>,
    /// The trailer as it comes.
    trailer: Vec<u8>,
    in_trailer: bool,
    /// It has been said that there is one which values give, and it has not come.
    promised: bool,
    footers: bool,
    phase: Option<PhaseName>,
    /// Sections of a pipe that wait for the trailer.
    waiting: Option<Waiting>,
}

impl<'w> BerSink<'w> {
    pub(super) fn new(out: &'w mut dyn Write, memory: u64) -> Result<Self, ConvertError> {
        let required = |name: &str| Capability {
            name: name.to_owned(),
            level: Level::Required,
            params: Vec::new(),
        };
        let mut buffer = Vec::new();
        let names = [
            "frame-crc",
            "opaque-sections",
            "qemu-commands",
            "ram-bitmap",
            "typedefs",
        ];
        let hello = Hello::of_file(
            concat!("vmstate ", env!("CARGO_PKG_VERSION")),
            names.map(required).into(),
        );
        let writer = Writer::with_types(&hello, TypeTable::inferred(), &mut buffer);
        let mut sink = Self {
            out,
            writer,
            buffer,
            memory,
            summary: Summary::default(),
            body: Body::Empty,
            header: None,
            ram: Ram::None,
            pages: Pages::default(),
            vmdesc: None,
            trailer: Vec::new(),
            in_trailer: false,
            promised: false,
            footers: true,
            phase: None,
            waiting: Some(Waiting::default()),
        };
        sink.flush()?;
        Ok(sink)
    }

    /// The stream comes from a file, whose trailer is known beforehand.
    pub(super) fn reads_file(&mut self, file: bool) {
        self.waiting = (!file).then(Waiting::default);
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.summary.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), InspectError> {
        self.writer.frame(frame, &mut self.buffer);
        self.flush().map_err(InspectError::Write)
    }

    fn note(&mut self, name: &str, value: AnyValue) -> Result<(), InspectError> {
        let name = name.to_owned();
        self.frame(&Frame::Note(Note { name, value }))
    }

    fn enter(&mut self, name: PhaseName) -> Result<(), InspectError> {
        if self.phase == Some(name) {
            return Ok(());
        }
        self.phase = Some(name);
        self.frame(&Frame::Phase(Phase::new(name)))
    }

    fn carry(&mut self, what: OpaqueKind, bytes: &[u8]) -> Result<(), InspectError> {
        let mut pieces = bytes.chunks(PIECE).peekable();
        if pieces.peek().is_none() {
            return Ok(());
        }
        while let Some(data) = pieces.next() {
            let more = pieces.peek().is_some();
            self.frame(&Frame::Opaque(Opaque { what, more, data }))?;
        }
        Ok(())
    }

    fn begin_trailer(&mut self, trailer: Option<&Trailer<'_>>) {
        let Some(trailer) = trailer else {
            return;
        };
        let page_size = trailer
            .page_size()
            .and_then(|size| u32::try_from(size).ok());
        self.vmdesc = page_size.map(|size| Vmdesc::new(trailer.dialect(), size));
    }

    fn configuration(
        &mut self,
        body: &[u8],
        trailer: Option<&Trailer<'_>>,
    ) -> Result<(), InspectError> {
        if let Some(state) = configuration::state_of(body, trailer) {
            if let (Some(vmdesc), true) = (
                &mut self.vmdesc,
                trailer.is_some_and(|trailer| trailer.configuration().is_some()),
            ) {
                vmdesc.configuration(&state, &mut Vec::new())?;
            }
            if self.writer.machine(&state, &mut self.buffer).is_ok() {
                return self.flush().map_err(InspectError::Write);
            }
        }
        self.carry(OpaqueKind::Configuration, body)
    }

    /// The trailer stands among bytes that are carried as they are, or nowhere: the reader must not make one.
    fn take_back(&mut self) -> Result<(), InspectError> {
        if std::mem::take(&mut self.promised) {
            self.vmdesc = None;
            self.note(note::VMDESC, AnyValue::text(note::NO_VMDESC))?;
        }
        Ok(())
    }

    fn end_trailer(&mut self) -> Result<(), InspectError> {
        self.promised = false;
        let text = std::mem::take(&mut self.trailer);
        self.decode_waiting(&text)?;
        self.in_trailer = false;
        let same = self
            .vmdesc
            .take()
            .is_some_and(|vmdesc| vmdesc.finish().as_bytes() == text);
        if same {
            return Ok(());
        }
        self.summary.trailer_carried = true;
        if text.is_empty() {
            // One that says nothing is there all the same.
            return self.frame(&Frame::Opaque(Opaque {
                what: OpaqueKind::Vmdesc,
                more: false,
                data: &[],
            }));
        }
        self.carry(OpaqueKind::Vmdesc, &text)
    }

    pub(super) fn finish(mut self) -> Result<Summary, ConvertError> {
        self.decode_waiting(&[])?;
        self.take_back()?;
        self.writer.end(Status::Complete, &mut self.buffer);
        self.flush()?;
        self.out.flush()?;
        Ok(self.summary)
    }
}

impl Sink for BerSink<'_> {
    fn event(
        &mut self,
        event: &Event<'_>,
        trailer: Option<&Trailer<'_>>,
    ) -> Result<(), InspectError> {
        match event {
            Event::Header => {
                self.enter(PhaseName::Setup)?;
                self.begin_trailer(trailer);
                if let Some(vmdesc) = &self.vmdesc {
                    let dialect = AnyValue::text(dialect_name(vmdesc.dialect()));
                    let size = trailer.and_then(Trailer::page_size).unwrap_or(4096);
                    let size = i64::try_from(size).unwrap_or(i64::MAX);
                    self.note(note::VMDESC, dialect)?;
                    self.note(note::PAGE_SIZE, AnyValue::int(size))?;
                    self.promised = true;
                }
                Ok(())
            }
            Event::Configuration(configuration) => {
                let mut bytes = Vec::new();
                write::put_configuration(&mut bytes, configuration);
                self.configuration(bytes.get(1..).unwrap_or_default(), trailer)
            }
            Event::Section(header) => self.open(header),
            Event::SectionClosed { footer, .. } => self.close(*footer),
            Event::Command(_) | Event::PackageBegin { .. } => {
                self.release("a command follows, before the trailer")?;
                let command = match event {
                    Event::Command(command) => command.clone(),
                    Event::PackageBegin { length } => Command::Packaged { length: *length },
                    _ => return Ok(()),
                };
                let mut bytes = Vec::new();
                write::put_command(&mut bytes, &command).map_err(refused)?;
                self.frame(&Frame::Command(CommandFrame {
                    command: command.id().0,
                    data: bytes.get(5..).unwrap_or_default(),
                    checksum: true,
                }))
            }
            Event::PackageTail(bytes) => self.carry(OpaqueKind::Stream, bytes),
            Event::Eof => match &mut self.waiting {
                Some(waiting) => {
                    waiting.ended = true;
                    Ok(())
                }
                None => self.enter(PhaseName::Complete),
            },
            Event::TrailerBegin { .. } => {
                self.in_trailer = true;
                Ok(())
            }
            Event::TrailerChunk(bytes) => {
                self.trailer.extend_from_slice(bytes);
                Ok(())
            }
            Event::TrailerEnd => self.end_trailer(),
            _ => Ok(()),
        }
    }

    fn device(
        &mut self,
        header: &SectionHeader,
        state: &DynState,
        payload: &[u8],
        entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        match self.encode(header, state, payload, entry) {
            Ok(body) => self.body = body,
            Err(reason) => {
                let opaque = entry.and_then(Device::opaque_size);
                match (&mut self.vmdesc, header.idstr.as_str(), opaque) {
                    (Some(vmdesc), Some(idstr), Some(size)) => {
                        vmdesc.opaque_device(idstr, header.instance_id.0, size);
                    }
                    _ => self.vmdesc = None,
                }
                self.note_carried(header, payload.len() as u64, &reason);
                self.body = Body::Bytes(payload.to_vec());
            }
        }
        Ok(())
    }

    fn opaque(
        &mut self,
        header: &SectionHeader,
        bytes: &[u8],
        entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        if entry.is_some() {
            self.vmdesc = None;
        }
        let waits = header.kind == SectionKind::Full && self.waiting.is_some();
        if header.kind.names_owner() && !waits {
            let reason = match entry {
                Some(_) => "its description does not fit",
                None => "nothing describes it",
            };
            self.note_carried(header, bytes.len() as u64, reason);
        }
        self.piece(bytes)
    }

    fn bytes(&mut self, _header: &SectionHeader, bytes: &[u8]) -> Result<(), InspectError> {
        self.piece(bytes)
    }

    fn ram(
        &mut self,
        event: &vmstate_ram::Event<'_>,
        blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        self.ram_event(event, blocks, page_size)
    }

    fn ram_gap(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.piece(bytes)
    }

    fn verbatim(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        // Behind the end everything is a trailer.
        let ended = self
            .waiting
            .as_ref()
            .map_or(self.phase == Some(PhaseName::Complete), |waiting| {
                waiting.ended
            });
        self.decode_waiting(&[])?;
        let what = if ended {
            self.take_back()?;
            OpaqueKind::Trailer
        } else {
            OpaqueKind::Stream
        };
        self.carry(what, bytes)
    }
}
