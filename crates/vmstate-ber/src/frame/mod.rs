//! Frames: what a stream consists of.

mod catalog;
mod counts;
mod device;
mod handshake;
mod plain;
mod ram;

use std::fmt;

pub use catalog::{CatalogEntry, Presence, manifest};
pub use counts::{FieldCount, SectionCounts};
pub use device::{DeviceState, Machine, Part, SectionData};
pub use handshake::{
    Capability, Decision, Finding, Hello, Level, Limit, MachineId, Param, Role, Severity, Verdict,
};
pub use plain::{
    Blob, Checkpoint, Command, End, Note, Opaque, OpaqueKind, Phase, PhaseName, Reply, Status,
};
pub use ram::{
    Coding, MAX_PAGES, MAX_ZERO_PAGES, Mark, RamBlock, RamBlocks, RamMark, RamPages, Select,
};

use crate::der::{DerReader, Tlv, put_tlv, tag};
use crate::error::{BerError, BerErrorKind};
use crate::limits::Limits;
use crate::types::TypeDef;

/// Identifier octets of frames.
pub mod frame_tag {
    /// The envelope, of indefinite length.
    pub const STREAM: u8 = 0x60;
    /// [`Hello`](super::Hello)
    pub const HELLO: u8 = 0x61;
    /// [`Verdict`](super::Verdict)
    pub const VERDICT: u8 = 0x62;
    /// [`TypeDef`](crate::types::TypeDef)
    pub const TYPE_DEF: u8 = 0x63;
    /// [`Machine`](super::Machine)
    pub const MACHINE: u8 = 0x64;
    /// [`Phase`](super::Phase)
    pub const PHASE: u8 = 0x65;
    /// [`SectionData`](super::SectionData)
    pub const SECTION_DATA: u8 = 0x66;
    /// [`RamMark`](super::RamMark)
    pub const RAM_MARK: u8 = 0x67;
    /// [`DeviceState`](super::DeviceState)
    pub const DEVICE: u8 = 0x68;
    /// [`Blob`](super::Blob)
    pub const BLOB: u8 = 0x69;
    /// [`RamBlocks`](super::RamBlocks)
    pub const RAM_BLOCKS: u8 = 0x6a;
    /// [`RamPages`](super::RamPages)
    pub const RAM_PAGES: u8 = 0x6b;
    /// [`Command`](super::Command)
    pub const COMMAND: u8 = 0x6c;
    /// [`Reply`](super::Reply)
    pub const REPLY: u8 = 0x6d;
    /// [`Opaque`](super::Opaque)
    pub const OPAQUE: u8 = 0x6e;
    /// [`Checkpoint`](super::Checkpoint)
    pub const CHECKPOINT: u8 = 0x6f;
    /// [`End`](super::End)
    pub const END: u8 = 0x70;
    /// [`Note`](super::Note)
    pub const NOTE: u8 = 0x78;
}

/// Which frame, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameKind(pub u8);

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            frame_tag::HELLO => "Hello",
            frame_tag::VERDICT => "Verdict",
            frame_tag::TYPE_DEF => "TypeDef",
            frame_tag::MACHINE => "Machine",
            frame_tag::PHASE => "Phase",
            frame_tag::SECTION_DATA => "SectionData",
            frame_tag::RAM_MARK => "RamMark",
            frame_tag::DEVICE => "DeviceState",
            frame_tag::BLOB => "Blob",
            frame_tag::RAM_BLOCKS => "RamBlocks",
            frame_tag::RAM_PAGES => "RamPages",
            frame_tag::COMMAND => "Command",
            frame_tag::REPLY => "Reply",
            frame_tag::OPAQUE => "Opaque",
            frame_tag::CHECKPOINT => "Checkpoint",
            frame_tag::END => "End",
            frame_tag::NOTE => "Note",
            found => return write!(f, "{found:#04x}"),
        })
    }
}

impl FrameKind {
    /// Most bytes of content that such a frame may have. `None`: no such frame is known, and it must not be ignored.
    #[must_use]
    pub const fn limit(self, limits: &Limits) -> Option<u64> {
        Some(match self.0 {
            frame_tag::HELLO | frame_tag::VERDICT => limits.handshake,
            frame_tag::TYPE_DEF => limits.type_content,
            frame_tag::MACHINE | frame_tag::DEVICE | frame_tag::RAM_BLOCKS => limits.state,
            frame_tag::PHASE..=frame_tag::END
            | frame_tag::NOTE
            // Frames of later revisions that may be ignored.
            | 0x79..=0x7d => limits.piece,
            _ => return None,
        })
    }
}

/// One frame. Bytes in bulk are borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// Who speaks.
    Hello(Hello),
    /// What the destination says to it.
    Verdict(Verdict),
    /// A type.
    TypeDef(TypeDef),
    /// The configuration section.
    Machine(Machine<'a>),
    /// A phase begins.
    Phase(Phase),
    /// Bytes of a section without a description, or of an iterative one.
    SectionData(SectionData<'a>),
    /// A place between pages.
    RamMark(RamMark),
    /// A device's state.
    Device(DeviceState<'a>),
    /// A piece of a large value.
    Blob(Blob<'a>),
    /// The blocks of guest RAM.
    RamBlocks(RamBlocks),
    /// Pages of guest RAM.
    RamPages(RamPages<'a>),
    /// A command of a QEMU stream.
    Command(Command<'a>),
    /// A message of a QEMU return path.
    Reply(Reply<'a>),
    /// Bytes of a QEMU stream that nothing else can say.
    Opaque(Opaque<'a>),
    /// A name and a value.
    Note(Note),
    /// A digest on the way.
    Checkpoint(Checkpoint),
    /// The end.
    End(End),
    /// A frame of a later revision, which may be ignored.
    Unknown {
        /// The identifier octet.
        tag: u8,
        /// The content.
        content: &'a [u8],
    },
}

impl<'a> Frame<'a> {
    /// The frame's identifier octet.
    #[must_use]
    pub const fn tag(&self) -> u8 {
        match self {
            Self::Hello(_) => frame_tag::HELLO,
            Self::Verdict(_) => frame_tag::VERDICT,
            Self::TypeDef(_) => frame_tag::TYPE_DEF,
            Self::Machine(_) => frame_tag::MACHINE,
            Self::Phase(_) => frame_tag::PHASE,
            Self::SectionData(_) => frame_tag::SECTION_DATA,
            Self::RamMark(_) => frame_tag::RAM_MARK,
            Self::Device(_) => frame_tag::DEVICE,
            Self::Blob(_) => frame_tag::BLOB,
            Self::RamBlocks(_) => frame_tag::RAM_BLOCKS,
            Self::RamPages(_) => frame_tag::RAM_PAGES,
            Self::Command(_) => frame_tag::COMMAND,
            Self::Reply(_) => frame_tag::REPLY,
            Self::Opaque(_) => frame_tag::OPAQUE,
            Self::Note(_) => frame_tag::NOTE,
            Self::Checkpoint(_) => frame_tag::CHECKPOINT,
            Self::End(_) => frame_tag::END,
            Self::Unknown { tag, .. } => *tag,
        }
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(frame) => frame.encode(out),
            Self::Verdict(frame) => frame.encode(out),
            Self::TypeDef(frame) => frame.encode(out),
            Self::Machine(frame) => frame.encode(out),
            Self::Phase(frame) => frame.encode(out),
            Self::SectionData(frame) => frame.encode(out),
            Self::RamMark(frame) => frame.encode(out),
            Self::Device(frame) => frame.encode(out),
            Self::Blob(frame) => frame.encode(out),
            Self::RamBlocks(frame) => frame.encode(out),
            Self::RamPages(frame) => frame.encode(out),
            Self::Command(frame) => frame.encode(out),
            Self::Reply(frame) => frame.encode(out),
            Self::Opaque(frame) => frame.encode(out),
            Self::Note(frame) => frame.encode(out),
            Self::Checkpoint(frame) => frame.encode(out),
            Self::End(frame) => frame.encode(out),
            Self::Unknown { tag, content } => put_tlv(out, *tag, content),
        }
    }

    /// Understands a frame.
    ///
    /// # Errors
    /// Whatever is not one, with the frame and the byte offset.
    pub fn decode(tlv: &Tlv<'a>, limits: &Limits) -> Result<Self, BerError> {
        Self::decode_content(tlv, limits)
            .map_err(|error| error.in_frame(FrameKind(tlv.tag), tlv.offset))
    }

    fn decode_content(tlv: &Tlv<'a>, limits: &Limits) -> Result<Self, BerError> {
        let r = Members::new(tlv);
        Ok(match tlv.tag {
            frame_tag::HELLO => Self::Hello(Hello::decode(r)?),
            frame_tag::VERDICT => Self::Verdict(Verdict::decode(r)?),
            frame_tag::TYPE_DEF => Self::TypeDef(TypeDef::decode(tlv.reader(), limits)?),
            frame_tag::MACHINE => Self::Machine(Machine::decode(r)?),
            frame_tag::PHASE => Self::Phase(Phase::decode(r)?),
            frame_tag::SECTION_DATA => Self::SectionData(SectionData::decode(r)?),
            frame_tag::RAM_MARK => Self::RamMark(RamMark::decode(r)?),
            frame_tag::DEVICE => Self::Device(DeviceState::decode(r)?),
            frame_tag::BLOB => Self::Blob(Blob::decode(r)?),
            frame_tag::RAM_BLOCKS => Self::RamBlocks(RamBlocks::decode(r)?),
            frame_tag::RAM_PAGES => Self::RamPages(RamPages::decode(r)?),
            frame_tag::COMMAND => Self::Command(Command::decode(r)?),
            frame_tag::REPLY => Self::Reply(Reply::decode(r)?),
            frame_tag::OPAQUE => Self::Opaque(Opaque::decode(r)?),
            frame_tag::NOTE => Self::Note(Note::decode(r)?),
            frame_tag::CHECKPOINT => Self::Checkpoint(Checkpoint::decode(r)?),
            frame_tag::END => Self::End(End::decode(r)?),
            0x79..=0x7d => Self::Unknown {
                tag: tlv.tag,
                content: tlv.content,
            },
            found => return Err(BerErrorKind::Critical { found }.at(tlv.offset)),
        })
    }
}

/// The members of a frame, of which the last may be a checksum.
#[derive(Debug, Clone, Copy)]
struct Members<'a> {
    reader: DerReader<'a>,
    content: &'a [u8],
    start: u64,
}

impl<'a> Members<'a> {
    const fn new(tlv: &Tlv<'a>) -> Self {
        Self {
            reader: tlv.reader(),
            content: tlv.content,
            start: tlv.content_offset(),
        }
    }

    /// The checksum, of everything before it, which must be there.
    fn checksum(&mut self) -> Result<(), BerError> {
        if self.optional_checksum()? {
            return Ok(());
        }
        Err(BerErrorKind::Missing("the checksum").at(self.reader.offset()))
    }

    /// The checksum, if there is one.
    fn optional_checksum(&mut self) -> Result<bool, BerError> {
        let at = self.reader.offset();
        let Some(tlv) = self.reader.optional(CHECKSUM)? else {
            return Ok(false);
        };
        let found = u32::from_be_bytes(tlv.array("octets of a checksum")?);
        let covered = usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let computed = crc32fast::hash(self.content.get(..covered).unwrap_or_default());
        if found != computed {
            return Err(BerErrorKind::Checksum { found, computed }.at(at));
        }
        Ok(true)
    }

    fn finish(mut self) -> Result<(), BerError> {
        finish_members(&mut self.reader)
    }
}

const CHECKSUM: u8 = tag::primitive(15);

/// Appends the checksum of a frame's content that begins at `start`.
fn put_checksum(out: &mut Vec<u8>, start: usize) {
    let sum = crc32fast::hash(out.get(start..).unwrap_or_default());
    put_tlv(out, CHECKSUM, &sum.to_be_bytes());
}

/// Members of a later revision: those that may be ignored are, all others are refused.
pub(crate) fn finish_members(reader: &mut DerReader<'_>) -> Result<(), BerError> {
    while let Some(found) = reader.peek() {
        let ignorable = found & 0xc0 == 0x80 && (16..=29).contains(&(found & 0x1f));
        if !ignorable {
            return Err(BerErrorKind::Critical { found }.at(reader.offset()));
        }
        reader.any()?;
    }
    Ok(())
}
