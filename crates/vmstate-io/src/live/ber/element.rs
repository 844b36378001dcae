//! What the frames between sections mean.

use vmstate_ber::frame::{
    Command as CommandFrame, DeviceState, Frame, FrameKind, Hello, Machine, Mark, Opaque,
    OpaqueKind, PhaseName, RamBlocks, SectionData, Status,
};
use vmstate_ber::{BerError, BerErrorKind};
use vmstate_desc::Limits;
use vmstate_engine::{Element, LoadError, SectionReader};
use vmstate_ram::{BlockName, BlockTable, PageSize, RamBlock, RamError};
use vmstate_wire::stream::{
    Command, CommandId, IdStr, InstanceId, SectionHeader, SectionId, SectionKind, StreamError,
    StreamErrorKind, StreamOffset, VersionId,
};

use super::decoder::{BerDecoder, Content, Open, Read, loading, out_of_turn};
use super::{OTHER, RAM, is_channel, load_error};
use crate::convert::configuration;

/// Most sections of a stream.
const SECTIONS: usize = 65_536;
/// Most bytes of a package.
const PACKAGE: u32 = 128 << 20;
/// Most bytes of a configuration.
const CONFIGURATION: usize = 1 << 20;

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> LoadError {
    LoadError::Format(Box::new(error))
}

/// Guest RAM in a frame is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{source} (byte {offset:#x}, frame {kind} at {offset:#x})")]
struct Ram {
    source: RamError,
    kind: FrameKind,
    offset: u64,
}

/// The source ended the stream in a way that means that there is no guest in it.
#[derive(Debug, thiserror::Error)]
#[error("the source has given the migration up: {0}")]
struct GivenUp(String);

impl BerDecoder {
    pub(super) fn next_in(
        &mut self,
        input: &mut dyn SectionReader,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Element>, LoadError> {
        let mut ended = false;
        loop {
            match self.read(input, buffer).map_err(loading)? {
                Read::End => return Ok(None),
                // The last two octets: only now the stream is one.
                Read::Envelope if ended => return Ok(Some(Element::Eof)),
                Read::Envelope => {}
                Read::Pages(pages) => {
                    let what = "pages outside of any part of guest RAM";
                    return Err(load_error(out_of_turn(what, pages.offset)));
                }
                Read::Frame(frame, offset) => {
                    ended = matches!(&*frame, Frame::End(_));
                    if let Some(element) = self.element(*frame, offset)? {
                        return Ok(Some(element));
                    }
                }
            }
        }
    }

    /// Hears whether a connection is the channel that is expected.
    pub(super) fn begins(&mut self, hello: &Hello, offset: u64) -> Result<(), BerError> {
        match self.expected.take() {
            Some(number) if is_channel(hello, self.session, number) => Ok(()),
            _ => Err(out_of_turn(OTHER, offset)),
        }
    }

    /// What a frame means between sections; `None` if the engine need not know.
    fn element(&mut self, frame: Frame<'_>, offset: u64) -> Result<Option<Element>, LoadError> {
        let goes_on =
            matches!(&frame, Frame::Opaque(piece) if piece.what == OpaqueKind::Configuration);
        if self.configuration.is_some() && !goes_on {
            let what = "the machine's configuration does not go on";
            return Err(load_error(out_of_turn(what, offset)));
        }
        Ok(match frame {
            Frame::Hello(hello) => {
                self.begins(&hello, offset).map_err(load_error)?;
                None
            }
            Frame::TypeDef(ty) => {
                let mut content = Vec::new();
                Frame::TypeDef(ty.clone()).encode(&mut content);
                let limits = self.parser.limits();
                let added = self.types.insert(ty, content.len() as u64, offset, limits);
                added.map_err(load_error)?;
                None
            }
            Frame::Phase(phase) => match phase.name {
                PhaseName::Setup => Some(Element::Header),
                _ => None,
            },
            Frame::Machine(machine) => Some(self.machine(&machine)?),
            Frame::Device(device) => Some(self.device_begins(&device, offset)?),
            Frame::SectionData(data) => Some(self.data_begins(&data)?),
            Frame::RamBlocks(blocks) => Some(self.ram_begins(&blocks, offset)?),
            Frame::RamMark(mark) => {
                let kind = match mark.mark {
                    Mark::Part => SectionKind::Part,
                    Mark::End => SectionKind::End,
                    Mark::Flush | Mark::Close => {
                        let what = "the end of a part of guest RAM that has not begun";
                        return Err(load_error(out_of_turn(what, offset)));
                    }
                };
                let id = SectionId(mark.section_id);
                if self.ram.is_none_or(|(ram, _)| ram != id) {
                    let what = "guest RAM before its blocks";
                    return Err(load_error(out_of_turn(what, offset)));
                }
                let header = self.known(kind, id)?;
                Some(self.begin(header, Content::Ram(None)))
            }
            Frame::Command(command) => Some(command_of(&command, offset)?),
            Frame::Opaque(opaque) => self.opaque(&opaque, offset)?,
            Frame::End(end) => match end.status {
                Status::Complete => None,
                _ => {
                    let why = end.finding.map(|f| f.text.unwrap_or(f.rule));
                    let why = why.unwrap_or_else(|| "it does not say why".to_owned());
                    return Err(refused(GivenUp(why)));
                }
            },
            Frame::Note(_) | Frame::Checkpoint(_) | Frame::Unknown { .. } => None,
            other => {
                let found = other.tag();
                let error = BerErrorKind::Critical { found }.at(offset);
                return Err(load_error(error.in_frame(FrameKind(found), offset)));
            }
        })
    }

    fn begin(&mut self, header: SectionHeader, content: Content) -> Element {
        self.open = Some(Open { header, content });
        Element::Section
    }

    /// The header of a further piece of a section.
    fn known(&self, kind: SectionKind, id: SectionId) -> Result<SectionHeader, LoadError> {
        self.sections
            .look_up(kind, id)
            .map_err(|kind| self.wire_error(kind))
    }

    fn define(
        &mut self,
        kind: SectionKind,
        id: u32,
        (idstr, instance, version): (&str, u32, u32),
    ) -> Result<SectionHeader, LoadError> {
        let header = SectionHeader {
            kind,
            section_id: SectionId(id),
            idstr: IdStr::new(idstr).map_err(refused)?,
            instance_id: InstanceId(instance),
            version_id: VersionId(version),
        };
        self.sections
            .define(&header, SECTIONS)
            .map_err(|kind| self.wire_error(kind))?;
        Ok(header)
    }

    fn wire_error(&self, kind: StreamErrorKind) -> LoadError {
        StreamError::new(kind, StreamOffset(self.parser.offset())).into()
    }

    fn device_begins(
        &mut self,
        device: &DeviceState<'_>,
        offset: u64,
    ) -> Result<Element, LoadError> {
        let ty = self.types.by_id(device.ty, offset).map_err(load_error)?;
        let owner = (device.idstr, device.instance, device.version);
        let header = self.define(SectionKind::Full, device.section_id, owner)?;
        let start = device.body_offset.saturating_sub(offset);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let content = Content::Device {
            ty,
            body: start..start.saturating_add(device.body.len()),
            offset: device.body_offset,
        };
        Ok(self.begin(header, content))
    }

    fn data_begins(&mut self, data: &SectionData<'_>) -> Result<Element, LoadError> {
        let kind = kind_of(data);
        let header = match data.owner {
            Some(owner) => self.define(kind, data.section_id, owner)?,
            None => self.known(kind, SectionId(data.section_id))?,
        };
        let content = Content::Data {
            bytes: data.data.to_vec(),
            more: data.more,
        };
        Ok(self.begin(header, content))
    }

    fn ram_begins(&mut self, frame: &RamBlocks, offset: u64) -> Result<Element, LoadError> {
        let failed = |source| {
            refused(Ram {
                source,
                kind: FrameKind(vmstate_ber::frame::frame_tag::RAM_BLOCKS),
                offset,
            })
        };
        if self.ram.is_some() {
            let what = "the blocks of guest RAM come twice";
            return Err(load_error(out_of_turn(what, offset)));
        }
        let page_size = PageSize::from_bits(frame.page_bits).map_err(failed)?;
        let mut table = BlockTable::new();
        for block in &frame.blocks {
            let name = BlockName::new(block.idstr.as_bytes()).map_err(failed)?;
            let mut listed = RamBlock::new(name, block.length);
            listed.page_size = block.page_size;
            listed.address = block.addr;
            let id = table.push(listed, page_size).map_err(failed)?;
            if id.0 != block.id {
                let what = "blocks of guest RAM are not numbered in order";
                return Err(load_error(out_of_turn(what, offset)));
            }
        }
        if table.total() != frame.total {
            let what = "the blocks of guest RAM have another length in all";
            return Err(load_error(out_of_turn(what, offset)));
        }
        let header = self.define(SectionKind::Start, frame.section_id, RAM)?;
        self.ram = Some((header.section_id, page_size));
        Ok(self.begin(header, Content::Ram(Some(Box::new(table)))))
    }

    fn machine(&mut self, machine: &Machine<'_>) -> Result<Element, LoadError> {
        let offset = machine.body_offset;
        let ty = self.types.by_id(machine.ty, offset).map_err(load_error)?;
        let version = self.types.get(ty).map_or(0, |ty| ty.version);
        let limits = Limits {
            memory: CONFIGURATION as u64,
            ..Limits::default()
        };
        let state =
            vmstate_ber::decode_dynamic(&mut self.types, ty, version, machine.body, offset, limits)
                .map_err(refused)?;
        let mut bytes = Vec::new();
        vmstate_wire::codec::encode(&state, &mut bytes).map_err(refused)?;
        configuration_of(&bytes, offset)
    }

    /// What `convert` carries verbatim.
    fn opaque(&mut self, frame: &Opaque<'_>, offset: u64) -> Result<Option<Element>, LoadError> {
        match frame.what {
            // For whoever makes a QEMU stream of it again.
            OpaqueKind::Vmdesc | OpaqueKind::Trailer => return Ok(None),
            OpaqueKind::Configuration => {}
            OpaqueKind::Stream => {
                let what = "bytes of a QEMU stream, which nobody here reads";
                return Err(load_error(out_of_turn(what, offset)));
            }
        }
        let mut bytes = self.configuration.take().unwrap_or_default();
        let found = bytes.len().saturating_add(frame.data.len());
        if found > CONFIGURATION {
            let error = BerErrorKind::Limit {
                what: "bytes of the configuration",
                found: found as u64,
                limit: CONFIGURATION as u64,
            };
            return Err(load_error(error.at(offset)));
        }
        bytes.extend_from_slice(frame.data);
        if frame.more {
            self.configuration = Some(bytes);
            return Ok(None);
        }
        configuration_of(&bytes, offset).map(Some)
    }
}

/// Which piece of its section a frame belongs to.
pub(super) fn kind_of(data: &SectionData<'_>) -> SectionKind {
    use vmstate_ber::frame::Part;
    match data.part {
        Part::Start => SectionKind::Start,
        Part::Part => SectionKind::Part,
        Part::End => SectionKind::End,
        Part::Full => SectionKind::Full,
    }
}

fn configuration_of(bytes: &[u8], offset: u64) -> Result<Element, LoadError> {
    match configuration::parse(bytes) {
        Some(configuration) => Ok(Element::Configuration(configuration)),
        None => {
            let what = "the machine's state is no configuration section";
            Err(load_error(out_of_turn(what, offset)))
        }
    }
}

fn command_of(frame: &CommandFrame<'_>, offset: u64) -> Result<Element, LoadError> {
    match Command::decode(CommandId(frame.command), frame.data) {
        Ok(Command::Packaged { length }) if length > PACKAGE => {
            let limit = PACKAGE;
            let kind = StreamErrorKind::PackageTooLong { length, limit };
            Err(StreamError::new(kind, StreamOffset(offset)).into())
        }
        Ok(Command::Packaged { length }) => Ok(Element::Package { length }),
        Ok(command) => Ok(Element::Command(command)),
        Err(kind) => Err(StreamError::new(kind, StreamOffset(offset)).into()),
    }
}
