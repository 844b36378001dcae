//! Reading BER.

mod ram;

use vmstate_ber::BerErrorKind;
use vmstate_ber::frame::{
    DeviceState, Frame, Hello, Level, Machine, Note, Opaque, OpaqueKind, Part, PhaseName, Role,
    SectionData, Status,
};
use vmstate_ber::stream::{Parser, Step};
use vmstate_ber::types::TypeTable;
use vmstate_desc::{DynState, Limits};
use vmstate_wire::stream::{
    Command, CommandId, Event, IdStr, InstanceId, SectionHeader, SectionId, SectionKind, VersionId,
};
use vmstate_wire::vmdesc::VmdescDialect;

use super::report::ConvertError;
use super::to_ber::{dialect_name, note};
use super::{Options, configuration, helpers};
use crate::input::Input;
use crate::inspect::{InspectError, Sink};
use ram::Ram;

/// Capabilities without which a stream cannot be read, and which this reader has.
pub(crate) const KNOWN: &[&str] = &[
    "frame-crc",
    "opaque-sections",
    "qemu-commands",
    "ram-bitmap",
    "stream-digest",
    "typedefs",
];

/// What a source needs beyond that of a destination that answers it, and that changes nothing about frames; or what becomes of them is
/// told.
const LIVE: &[&str] = &[
    "channels",
    "postcopy",
    "qemu:dirty-bitmaps",
    "qemu:postcopy-preempt",
    "qemu:postcopy-ram",
    "qemu:switchover-ack",
    "qemu:x-ignore-shared",
    "qemu:xbzrle",
    "return-path",
];

/// Why the recording of a migration in postcopy is not converted.
const LIVE_PACKAGE: &str = "a package of a live migration, whose length is that of its frames (inspect and verify read it; to convert, \
    let the source write QEMU's stream with x-peer=qemu, or let it write to a file)";

/// Reads frames and gives the elements of a stream.
pub(super) struct BerSource {
    parser: Parser,
    types: TypeTable,
    memory: u64,
    footers: bool,
    /// A section in several frames, of which more are to come.
    open: Option<OpenSection>,
    /// The trailing description, or the configuration, in several frames, of which more are to come.
    joined: Option<(OpaqueKind, Vec<u8>)>,
    ram: Option<Ram>,
    dialect: Option<VmdescDialect>,
    /// The trailing description is to be made from values, and has not been yet.
    describes: bool,
    /// Who wrote it.
    role: Role,
    /// It is to become another stream.
    converts: bool,
}

struct OpenSection {
    header: SectionHeader,
    bytes: Vec<u8>,
}

fn no_place(what: impl Into<String>, offset: u64) -> ConvertError {
    ConvertError::NoPlace {
        what: what.into(),
        offset,
    }
}

fn out_of_turn(what: &'static str, offset: u64) -> ConvertError {
    BerErrorKind::OutOfTurn { what }.at(offset).into()
}

impl BerSource {
    pub(super) fn new(options: &Options) -> Self {
        // A quarter each for a frame, for its value, for what the value needs beforehand, and for types.
        let memory = options.reading.memory / 4;
        let limits = vmstate_ber::Limits::default();
        let fields = usize::try_from(memory / 1024).unwrap_or(usize::MAX);
        let limits = vmstate_ber::Limits {
            state: limits.state.min(memory),
            handshake: limits.handshake.min(memory / 16),
            types_content: limits.types_content.min(memory / 8),
            types: limits.types.min(fields),
            all_fields: limits.all_fields.min(fields),
            ..limits
        };
        Self {
            parser: Parser::new(limits).at_offset(options.reading.start),
            types: TypeTable::default(),
            memory,
            footers: true,
            open: None,
            joined: None,
            ram: None,
            dialect: None,
            describes: false,
            role: Role::File,
            converts: true,
        }
    }

    /// The same, of which no other stream is made.
    pub(super) fn looks_only(mut self) -> Self {
        self.converts = false;
        self
    }

    pub(super) fn run(
        mut self,
        input: &mut dyn Input,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        let mut want = 1;
        loop {
            let bytes = input.peek(want)?;
            let have = bytes.len();
            let (consumed, frame) = match self.parser.next(bytes)? {
                Step::NeedMore { min } => {
                    if have < want || have >= min {
                        self.parser.finish(bytes)?;
                        return Ok(());
                    }
                    want = min;
                    continue;
                }
                Step::Consumed { consumed } => (consumed, None),
                Step::Frame {
                    consumed,
                    offset,
                    frame,
                } => (consumed, Some((frame, offset))),
                Step::End => break,
            };
            if let Some((frame, offset)) = frame {
                sink.frame(offset, consumed as u64);
                self.frame(*frame, offset, consumed as u64, sink)?;
            }
            input.consume(consumed as u64)?;
            want = 1;
        }
        if input.peek(1)?.is_empty() {
            return Ok(());
        }
        Err(out_of_turn(
            "bytes follow the end of the stream",
            self.parser.offset(),
        ))
    }

    fn frame(
        &mut self,
        frame: Frame<'_>,
        offset: u64,
        length: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        if self.open.is_some() && !matches!(frame, Frame::SectionData(_)) {
            return Err(out_of_turn("a section's bytes do not go on", offset));
        }
        if let Some((kind, _)) = &self.joined
            && !matches!(&frame, Frame::Opaque(piece) if piece.what == *kind)
        {
            return Err(out_of_turn("bytes of the stream do not go on", offset));
        }
        match frame {
            Frame::Hello(hello) => self.hello(&hello, offset, sink)?,
            Frame::TypeDef(ty) => {
                if ty.flags.inferred {
                    sink.inferred_types();
                }
                self.types
                    .insert(ty, length, offset, self.parser.limits())?;
            }
            Frame::Note(note) => self.note(&note, sink),
            Frame::Phase(phase) => match phase.name {
                PhaseName::Setup => sink.event(&Event::Header, None)?,
                PhaseName::Complete => sink.event(&Event::Eof, None)?,
                _ => {}
            },
            Frame::Machine(machine) => self.machine(&machine, sink)?,
            Frame::Device(device) => self.device(&device, sink)?,
            Frame::SectionData(data) => self.section_data(&data, offset, sink)?,
            Frame::RamBlocks(blocks) => self.ram_blocks(&blocks, offset, sink)?,
            Frame::RamMark(mark) => self.ram_mark(mark, offset, sink)?,
            Frame::RamPages(pages) => self.ram_pages(&pages, offset, sink)?,
            Frame::Command(command) => {
                let id = CommandId(command.command);
                let event = match Command::decode(id, command.data) {
                    Ok(Command::Packaged { .. }) if self.converts && self.role == Role::Source => {
                        return Err(no_place(LIVE_PACKAGE, offset));
                    }
                    Ok(Command::Packaged { length }) => Event::PackageBegin { length },
                    Ok(command) => Event::Command(command),
                    Err(error) => return Err(no_place(error.to_string(), offset)),
                };
                sink.event(&event, None)?;
            }
            Frame::Opaque(opaque) => self.opaque(&opaque, offset, sink)?,
            Frame::End(end) if end.status != Status::Complete => {
                return Err(no_place("its writer gave the stream up", offset));
            }
            Frame::End(_) => self.finish_trailer(sink)?,
            Frame::Checkpoint(_) | Frame::Unknown { .. } => {}
            frame => {
                let kind = vmstate_ber::frame::FrameKind(frame.tag());
                return Err(no_place(
                    format!("a frame {kind}, for which a QEMU stream has no place"),
                    offset,
                ));
            }
        }
        Ok(())
    }

    fn hello(
        &mut self,
        hello: &Hello,
        offset: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        self.role = hello.role;
        if hello.role == Role::Destination {
            let what = "the answers of a destination, which hold nothing of a guest: take what its source has sent";
            return Err(no_place(what, offset));
        }
        if let (Role::Channel, number) = (hello.role, hello.channel.unwrap_or_default()) {
            let what = format!(
                "channel {number} of a migration, whose pages belong to blocks that another channel has named: take what came first"
            );
            return Err(no_place(what, offset));
        }
        check_hello(hello, offset)?;
        if hello.capabilities.iter().any(|one| one.name == "channels") {
            let text =
                "pages that were requested came over a channel of their own, and are not in here";
            sink.warn(text.to_owned());
        }
        Ok(())
    }

    fn note(&mut self, note: &Note, sink: &mut dyn Sink) {
        match note.name.as_str() {
            note::FOOTERS => self.footers = note.value.as_bool().unwrap_or(true),
            note::VMDESC => {
                self.dialect = VmdescDialect::ALL
                    .into_iter()
                    .find(|dialect| note.value.as_text() == Some(dialect_name(*dialect)));
                self.describes &= self.dialect.is_some();
            }
            note::PAGE_SIZE => {
                let size = note
                    .value
                    .as_int()
                    .and_then(|size| u32::try_from(size).ok());
                if let (Some(dialect), Some(size)) = (self.dialect, size) {
                    sink.describes(dialect, size);
                    self.describes = true;
                }
            }
            _ => {}
        }
    }

    fn state(
        &mut self,
        ty: u32,
        version: Option<u32>,
        body: &[u8],
        offset: u64,
    ) -> Result<DynState, ConvertError> {
        let ty = self.types.by_id(ty, offset)?;
        let own = self.types.get(ty).map_or(0, |ty| ty.version);
        let limits = Limits {
            memory: self.memory,
            ..Limits::default()
        };
        let version = version.unwrap_or(own);
        vmstate_ber::decode_dynamic(&mut self.types, ty, version, body, offset, limits)
            .map_err(|error| vmstate_ber::BerError::from(error).into())
    }

    fn machine(&mut self, machine: &Machine<'_>, sink: &mut dyn Sink) -> Result<(), ConvertError> {
        let state = self.state(machine.ty, None, machine.body, machine.body_offset)?;
        let mut body = Vec::new();
        vmstate_wire::codec::encode(&state, &mut body).map_err(InspectError::from)?;
        let Some(configuration) = configuration::parse(&body) else {
            let what = "the machine's state is no configuration section";
            return Err(no_place(what, machine.body_offset));
        };
        sink.configuration(&state, &Event::Configuration(configuration))?;
        Ok(())
    }

    fn closed(&self, header: &SectionHeader, sink: &mut dyn Sink) -> Result<(), ConvertError> {
        let event = Event::SectionClosed {
            section_id: header.section_id,
            body_length: 0,
            footer: self.footers,
        };
        Ok(sink.event(&event, None)?)
    }

    fn device(
        &mut self,
        device: &DeviceState<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        let state = self
            .state(
                device.ty,
                Some(device.version),
                device.body,
                device.body_offset,
            )
            .map_err(|error| match error {
                ConvertError::Ber(error) => error.in_section(device.idstr, device.instance).into(),
                error => error,
            })?;
        let state = helpers::as_in_qemu(state, self.memory).map_err(InspectError::from)?;
        let owner = (device.idstr, device.instance, device.version);
        let header = header_of(
            SectionKind::Full,
            device.section_id,
            owner,
            device.body_offset,
        )?;
        sink.event(&Event::Section(header.clone()), None)?;
        sink.device(&header, &state, &[], None)?;
        self.closed(&header, sink)
    }

    fn section_data(
        &mut self,
        frame: &SectionData<'_>,
        offset: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        let kind = match frame.part {
            Part::Start => SectionKind::Start,
            Part::Part => SectionKind::Part,
            Part::End => SectionKind::End,
            Part::Full => SectionKind::Full,
        };
        // A part's header on the wire has no name; any will do.
        let owner = frame.owner.unwrap_or(("-", 0, 0));
        let header = header_of(kind, frame.section_id, owner, offset)?;
        let mut open = match self.open.take() {
            Some(open) if open.header == header => open,
            Some(_) => return Err(out_of_turn("a section's bytes do not go on", offset)),
            None => {
                sink.event(&Event::Section(header.clone()), None)?;
                OpenSection {
                    header,
                    bytes: Vec::new(),
                }
            }
        };
        if kind == SectionKind::Full {
            self.keep(&mut open.bytes, frame.data, offset)?;
        } else {
            sink.bytes(&open.header, frame.data)?;
        }
        if frame.more {
            self.open = Some(open);
            return Ok(());
        }
        if kind == SectionKind::Full {
            sink.opaque(&open.header, &open.bytes, None)?;
        }
        self.closed(&open.header, sink)
    }

    /// Keeps bytes whose end must be known before they can go on.
    fn keep(&self, kept: &mut Vec<u8>, bytes: &[u8], offset: u64) -> Result<(), ConvertError> {
        let found = kept.len().saturating_add(bytes.len()) as u64;
        if found > self.memory {
            let limit = self.memory;
            let what = "bytes of one section in several frames";
            return Err(BerErrorKind::Limit { what, found, limit }.at(offset).into());
        }
        kept.extend_from_slice(bytes);
        Ok(())
    }

    fn opaque(
        &mut self,
        frame: &Opaque<'_>,
        offset: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        if matches!(frame.what, OpaqueKind::Stream | OpaqueKind::Trailer) {
            if frame.what == OpaqueKind::Trailer {
                self.finish_trailer(sink)?;
            }
            return Ok(sink.verbatim(frame.data)?);
        }
        // A piece of another kind has been refused.
        let mut bytes = self
            .joined
            .take()
            .map(|(_, bytes)| bytes)
            .unwrap_or_default();
        self.keep(&mut bytes, frame.data, offset)?;
        if frame.more {
            self.joined = Some((frame.what, bytes));
            return Ok(());
        }
        if frame.what == OpaqueKind::Configuration {
            match configuration::parse(&bytes) {
                Some(configuration) => {
                    sink.event(&Event::Configuration(configuration), None)?;
                }
                None => {
                    sink.verbatim(&[7])?;
                    sink.verbatim(&bytes)?;
                }
            }
            return Ok(());
        }
        self.describes = false;
        let length = u32::try_from(bytes.len())
            .map_err(|_| no_place("a description of more than 4 GiB", offset))?;
        sink.event(&Event::TrailerBegin { length }, None)?;
        sink.event(&Event::TrailerChunk(&bytes), None)?;
        sink.event(&Event::TrailerEnd, None)?;
        Ok(())
    }

    /// Makes the trailing description from values, where none came.
    fn finish_trailer(&mut self, sink: &mut dyn Sink) -> Result<(), ConvertError> {
        if std::mem::take(&mut self.describes) {
            sink.event(&Event::TrailerEnd, None)?;
        }
        Ok(())
    }
}

fn check_hello(hello: &Hello, offset: u64) -> Result<(), ConvertError> {
    if !hello.versions.contains(&1) {
        return Err(no_place("no version of the protocol that is known", offset));
    }
    let known =
        |name: &str| KNOWN.contains(&name) || (hello.role == Role::Source && LIVE.contains(&name));
    let unknown = hello
        .capabilities
        .iter()
        .find(|capability| capability.level == Level::Required && !known(&capability.name));
    match unknown {
        None => Ok(()),
        Some(capability) => Err(no_place(
            format!(
                "capability {}, which is required and not known",
                capability.name
            ),
            offset,
        )),
    }
}

fn header_of(
    kind: SectionKind,
    section_id: u32,
    (idstr, instance, version): (&str, u32, u32),
    offset: u64,
) -> Result<SectionHeader, ConvertError> {
    Ok(SectionHeader {
        kind,
        section_id: SectionId(section_id),
        idstr: IdStr::new(idstr).map_err(|e| no_place(e.to_string(), offset))?,
        instance_id: InstanceId(instance),
        version_id: VersionId(version),
    })
}
