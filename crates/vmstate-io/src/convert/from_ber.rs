//! Reading BER.

use std::sync::Arc;

use vmstate_ber::BerErrorKind;
use vmstate_ber::frame::{
    Coding, DeviceState, Frame, Hello, Level, Machine, Mark, Note, Opaque, OpaqueKind, Part,
    PhaseName, RamBlocks, RamMark, RamPages, SectionData, Status,
};
use vmstate_ber::stream::{Parser, Step};
use vmstate_ber::types::TypeTable;
use vmstate_desc::{DynState, Limits};
use vmstate_ram::{BlockId, BlockName, BlockTable, PageRef, PageSize, RamBlock, RamError, Record};
use vmstate_wire::stream::{
    Command, CommandId, Event, IdStr, InstanceId, SectionHeader, SectionId, SectionKind, VersionId,
};
use vmstate_wire::vmdesc::VmdescDialect;

use super::report::ConvertError;
use super::to_ber::{RAM_VERSION, dialect_name, note};
use super::{Options, configuration};
use crate::input::Input;
use crate::inspect::{InspectError, Sink};

/// Capabilities without which a stream cannot be read, and which this reader has.
const KNOWN: &[&str] = &[
    "frame-crc",
    "opaque-sections",
    "qemu-commands",
    "ram-bitmap",
    "stream-digest",
    "typedefs",
];

/// Reads frames and gives the elements of a stream.
pub(super) struct BerSource {
    parser: Parser,
    types: TypeTable,
    memory: u64,
    footers: bool,
    /// A section in several frames, of which more are to come.
    open: Option<OpenSection>,
    /// The trailing description, or the configuration, in several frames.
    bytes: Vec<u8>,
    ram: Option<Ram>,
    dialect: Option<VmdescDialect>,
    /// The trailing description is to be made from values, and has not been yet.
    describes: bool,
}

struct OpenSection {
    header: SectionHeader,
    bytes: Vec<u8>,
}

struct Ram {
    section_id: u32,
    blocks: Arc<BlockTable>,
    page_size: PageSize,
    /// Block of the page before.
    current: Option<BlockId>,
    /// A section is open.
    open: bool,
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

fn ram_error(offset: u64) -> impl Fn(RamError) -> ConvertError {
    move |error| no_place(format!("guest RAM: {error}"), offset)
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
            parser: Parser::new(limits),
            types: TypeTable::default(),
            memory,
            footers: true,
            open: None,
            bytes: Vec::new(),
            ram: None,
            dialect: None,
            describes: false,
        }
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
        if !self.bytes.is_empty() && !matches!(frame, Frame::Opaque(_)) {
            return Err(out_of_turn("bytes of the stream do not go on", offset));
        }
        match frame {
            Frame::Hello(hello) => check_hello(&hello, offset)?,
            Frame::TypeDef(ty) => {
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

    fn note(&mut self, note: &Note, sink: &mut dyn Sink) {
        match note.name.as_str() {
            note::FOOTERS => self.footers = note.value.as_bool().unwrap_or(true),
            note::VMDESC => {
                self.dialect = VmdescDialect::ALL
                    .into_iter()
                    .find(|dialect| note.value.as_text() == Some(dialect_name(*dialect)));
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
        let mut bytes = std::mem::take(&mut self.bytes);
        self.keep(&mut bytes, frame.data, offset)?;
        if frame.more {
            self.bytes = bytes;
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

    fn ram_blocks(
        &mut self,
        frame: &RamBlocks,
        offset: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        let error = ram_error(offset);
        if self.ram.is_some() {
            return Err(out_of_turn("the blocks of guest RAM come twice", offset));
        }
        let page_size = PageSize::from_bits(frame.page_bits).map_err(&error)?;
        let mut table = BlockTable::new();
        for block in &frame.blocks {
            let name = BlockName::new(block.idstr.as_bytes()).map_err(&error)?;
            let mut listed = RamBlock::new(name, block.length);
            listed.page_size = block.page_size;
            listed.address = block.addr;
            let id = table.push(listed, page_size).map_err(&error)?;
            if id.0 != block.id {
                return Err(no_place(
                    "blocks of guest RAM are not numbered in order",
                    offset,
                ));
            }
        }
        if table.total() != frame.total {
            return Err(no_place(
                format!(
                    "blocks of {} bytes in all, which are said to have {}",
                    table.total(),
                    frame.total
                ),
                offset,
            ));
        }
        let blocks = Arc::new(table);
        let header = ram_header(SectionKind::Start, frame.section_id, offset)?;
        sink.event(&Event::Section(header), None)?;
        let start = vmstate_ram::Event::BlockListStart { total: frame.total };
        let ids = blocks.iter().map(|(block, _)| block);
        let events = ids.map(|block| vmstate_ram::Event::Block { block, gap: 0 });
        let end = vmstate_ram::Event::BlockListEnd;
        for event in std::iter::once(start).chain(events).chain([end]) {
            sink.ram(&event, &blocks, page_size)?;
        }
        self.ram = Some(Ram {
            section_id: frame.section_id,
            blocks,
            page_size,
            current: None,
            open: true,
        });
        Ok(())
    }

    fn ram_mark(
        &mut self,
        frame: RamMark,
        offset: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        let Some(ram) = self
            .ram
            .as_mut()
            .filter(|ram| ram.section_id == frame.section_id)
        else {
            return Err(out_of_turn("guest RAM before its blocks", offset));
        };
        let begins = matches!(frame.mark, Mark::Part | Mark::End);
        if ram.open == begins {
            return Err(out_of_turn(
                "parts of guest RAM do not alternate with their ends",
                offset,
            ));
        }
        let kind = if frame.mark == Mark::End {
            SectionKind::End
        } else {
            SectionKind::Part
        };
        let header = ram_header(kind, frame.section_id, offset)?;
        match frame.mark {
            Mark::Part | Mark::End => {
                ram.open = true;
                sink.event(&Event::Section(header), None)?;
            }
            Mark::Flush => {
                sink.ram(
                    &vmstate_ram::Event::MultifdFlush,
                    &ram.blocks,
                    ram.page_size,
                )?;
            }
            Mark::Close => {
                ram.open = false;
                sink.ram(
                    &vmstate_ram::Event::EndOfSection,
                    &ram.blocks,
                    ram.page_size,
                )?;
                self.closed(&header, sink)?;
            }
        }
        Ok(())
    }

    fn ram_pages(
        &mut self,
        frame: &RamPages<'_>,
        offset: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), ConvertError> {
        let Some(ram) = self.ram.as_mut().filter(|ram| ram.open) else {
            return Err(out_of_turn(
                "pages outside of any part of guest RAM",
                offset,
            ));
        };
        let block = BlockId(frame.block);
        let size = ram.page_size;
        let mut content = frame.data.unwrap_or_default();
        for (index, page) in (0_u64..).zip(frame.select.pages()) {
            let number = frame.first.saturating_add(page);
            let place = number.saturating_mul(size.bytes());
            ram.blocks
                .check_page(block, place, size)
                .map_err(ram_error(offset))?;
            let page = PageRef {
                block,
                offset: place,
                named: ram.current != Some(block) || (index == 0 && frame.named),
            };
            ram.current = Some(block);
            let record = match frame.coding {
                Coding::Raw | Coding::Zero if frame.is_zero(index) => {
                    Record::Zero { page, fill: 0 }
                }
                Coding::Raw => {
                    let Some((data, rest)) = content.split_at_checked(size.as_usize()) else {
                        return Err(no_place("fewer pages than are announced", offset));
                    };
                    content = rest;
                    Record::Page { page, data }
                }
                Coding::Fill => Record::Zero {
                    page,
                    fill: content.first().copied().unwrap_or(0),
                },
                Coding::Xbzrle => Record::Xbzrle {
                    page,
                    delta: content,
                },
                Coding::Zlib => Record::Compressed {
                    page,
                    data: content,
                },
                _ => {
                    return Err(no_place(
                        "pages in a coding that a QEMU stream has not",
                        offset,
                    ));
                }
            };
            sink.ram(&vmstate_ram::Event::Record(record), &ram.blocks, size)?;
        }
        if frame.coding == Coding::Raw && !content.is_empty() {
            return Err(no_place("more pages than are announced", offset));
        }
        Ok(())
    }
}

fn check_hello(hello: &Hello, offset: u64) -> Result<(), ConvertError> {
    if !hello.versions.contains(&1) {
        return Err(no_place("no version of the protocol that is known", offset));
    }
    let unknown = hello.capabilities.iter().find(|capability| {
        capability.level == Level::Required && !KNOWN.contains(&capability.name.as_str())
    });
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

fn ram_header(
    kind: SectionKind,
    section_id: u32,
    offset: u64,
) -> Result<SectionHeader, ConvertError> {
    header_of(kind, section_id, ("ram", 0, RAM_VERSION), offset)
}
