//! Frames of sections: devices, the configuration, bytes without a description.

use super::{Members, finish_members, frame_tag, put_checksum};
use crate::der::{close, open, put_bool, put_enumerated, put_text, put_tlv, put_uint, tag};
use crate::error::{BerError, BerErrorKind};

use tag::primitive;

/// A device's state: one section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState<'a> {
    /// The stream's number for the section.
    pub section_id: u32,
    /// Id string.
    pub idstr: &'a str,
    /// Instance id.
    pub instance: u32,
    /// Version of the section.
    pub version: u32,
    /// Number of its type.
    pub ty: u32,
    /// The value, a SEQUENCE with identifier and length.
    pub body: &'a [u8],
    /// Where the value stands in the stream; not part of the frame.
    pub body_offset: u64,
    /// Sent during setup, before guest RAM.
    pub early: bool,
}

impl<'a> DeviceState<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::DEVICE);
        put_uint(out, tag::INTEGER, self.section_id.into());
        put_text(out, self.idstr);
        put_uint(out, tag::INTEGER, self.instance.into());
        put_uint(out, tag::INTEGER, self.version.into());
        put_uint(out, tag::INTEGER, self.ty.into());
        out.extend_from_slice(self.body);
        if self.early {
            put_bool(out, primitive(0), true);
        }
        put_checksum(out, start);
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'a>) -> Result<Self, BerError> {
        let r = &mut m.reader;
        let section_id = r.uint32("number of a section")?;
        let idstr = r.name("id string of a section")?;
        let instance = r.uint32("instance id of a section")?;
        let version = r.uint32("version of a section")?;
        let ty = r.uint32("type of a section")?;
        let body = r.expect(tag::SEQUENCE, "state")?;
        let early = match r.optional(primitive(0))? {
            Some(tlv) => tlv.present()?,
            None => false,
        };
        m.checksum()?;
        m.finish()?;
        Ok(Self {
            section_id,
            idstr,
            instance,
            version,
            ty,
            body: body.whole,
            body_offset: body.offset,
            early,
        })
    }
}

/// The machine: QEMU's configuration section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine<'a> {
    /// Number of its type.
    pub ty: u32,
    /// The value, a SEQUENCE with identifier and length.
    pub body: &'a [u8],
    /// Where the value stands in the stream; not part of the frame.
    pub body_offset: u64,
}

impl<'a> Machine<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::MACHINE);
        put_uint(out, tag::INTEGER, self.ty.into());
        out.extend_from_slice(self.body);
        put_checksum(out, start);
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'a>) -> Result<Self, BerError> {
        let ty = m.reader.uint32("type of the machine")?;
        let body = m.reader.expect(tag::SEQUENCE, "state")?;
        m.checksum()?;
        m.finish()?;
        Ok(Self {
            ty,
            body: body.whole,
            body_offset: body.offset,
        })
    }
}

/// Which piece of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first of an iterative one.
    Start,
    /// A further one.
    Part,
    /// The last one.
    End,
    /// All of it.
    Full,
}

impl Part {
    const ALL: [Self; 4] = [Self::Start, Self::Part, Self::End, Self::Full];

    /// The number, which is that of QEMU's section headers.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Start => 1,
            Self::Part => 2,
            Self::End => 3,
            Self::Full => 4,
        }
    }

    /// Whether the frame names the section's owner.
    #[must_use]
    pub const fn names_owner(self) -> bool {
        matches!(self, Self::Start | Self::Full)
    }
}

/// Bytes between a QEMU section's header and its footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionData<'a> {
    /// The stream's number for the section.
    pub section_id: u32,
    /// Which piece.
    pub part: Part,
    /// Whose: id string, instance id, version. Exactly for [`Part::Start`] and [`Part::Full`].
    pub owner: Option<(&'a str, u32, u32)>,
    /// Another chunk of this piece follows.
    pub more: bool,
    /// The bytes.
    pub data: &'a [u8],
}

impl<'a> SectionData<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::SECTION_DATA);
        put_uint(out, tag::INTEGER, self.section_id.into());
        put_enumerated(out, self.part.number());
        if let Some((idstr, instance, version)) = self.owner {
            put_tlv(out, primitive(0), idstr.as_bytes());
            put_uint(out, primitive(1), instance.into());
            put_uint(out, primitive(2), version.into());
        }
        if self.more {
            put_bool(out, primitive(3), true);
        }
        put_tlv(out, primitive(4), self.data);
        put_checksum(out, start);
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'a>) -> Result<Self, BerError> {
        let r = &mut m.reader;
        let section_id = r.uint32("number of a section")?;
        let at = r.offset();
        let number = r.enumerated("part of a section")?;
        let Some(part) = Part::ALL.into_iter().find(|part| part.number() == number) else {
            return Err(BerErrorKind::Choice {
                what: "part of a section",
                found: number.into(),
            }
            .at(at));
        };
        let owner = match r.optional(primitive(0))? {
            Some(name) => {
                let name = name.name("id string of a section")?;
                let instance = r.expect(primitive(1), "instance id of a section")?;
                let instance = instance.uint32("instance id of a section")?;
                let version = r.expect(primitive(2), "version of a section")?;
                Some((name, instance, version.uint32("version of a section")?))
            }
            None => None,
        };
        if owner.is_some() != part.names_owner() {
            return Err(BerErrorKind::OutOfTurn {
                what: "a section is named where it must not be, or not where it must",
            }
            .at(at));
        }
        let more = match r.optional(primitive(3))? {
            Some(tlv) => tlv.present()?,
            None => false,
        };
        let data = r.expect(primitive(4), "bytes of a section")?.content;
        m.checksum()?;
        finish_members(&mut m.reader)?;
        Ok(Self {
            section_id,
            part,
            owner,
            more,
            data,
        })
    }
}
