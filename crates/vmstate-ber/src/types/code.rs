//! `TypeDef` frames in octets.

use vmstate_desc::{MAX_ALIASES, MAX_CASES};

use super::def::{Check, FieldDef, Kind, Nullable, Repeat, SubDef, TypeDef, TypeFlags, Variants};
use crate::der::{
    DerReader, Tlv, close, open, put_bool, put_enumerated, put_int, put_null, put_text, put_tlv,
    put_uint, tag,
};
use crate::error::{BerError, BerErrorKind};
use crate::frame::{finish_members, frame_tag};
use crate::limits::Limits;
use crate::value::AnyValue;

use tag::{constructed, primitive};

impl TypeDef {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_as(self.id, &|id| id, out);
    }

    /// Appends the frame with other numbers.
    pub(super) fn encode_as(&self, id: u32, renumber: &dyn Fn(u32) -> u32, out: &mut Vec<u8>) {
        let frame = open(out, frame_tag::TYPE_DEF);
        put_uint(out, tag::INTEGER, id.into());
        put_text(out, &self.name);
        put_uint(out, tag::INTEGER, self.version.into());
        put_uint(out, tag::INTEGER, self.min_version.into());
        let fields = open(out, tag::SEQUENCE);
        for field in &self.fields {
            field.encode(renumber, out);
        }
        close(out, fields);
        if !self.subs.is_empty() {
            let subs = open(out, constructed(0));
            for sub in &self.subs {
                let start = open(out, tag::SEQUENCE);
                put_uint(out, tag::INTEGER, renumber(sub.ty).into());
                if sub.ignorable {
                    put_bool(out, tag::BOOLEAN, true);
                }
                close(out, start);
            }
            close(out, subs);
        }
        if self.flags != TypeFlags::default() {
            put_uint(out, primitive(1), self.flags.bits());
        }
        put_optional(out, 2, self.readable_from);
        close(out, frame);
    }

    /// Reads a frame's content.
    ///
    /// # Errors
    /// Whatever is not one, or exceeds a limit.
    pub fn decode(mut reader: DerReader<'_>, limits: &Limits) -> Result<Self, BerError> {
        let at = reader.offset();
        let id = reader.uint32("number of a type")?;
        if id == 0 {
            return Err(BerErrorKind::Range {
                what: "number of a type",
                found: 0,
                minimum: 1,
                maximum: u32::MAX.into(),
            }
            .at(at));
        }
        let name = reader.name("name of a type")?.to_owned();
        let version = reader.uint32("version of a type")?;
        let min_version = reader.uint32("minimum version of a type")?;
        let mut list = reader.nested(tag::SEQUENCE, "fields of a type")?;
        let (mut fields, mut aliases) = (Vec::new(), 0_usize);
        while !list.is_empty() {
            bounded(
                "fields of a type",
                fields.len(),
                limits.fields,
                list.offset(),
            )?;
            let at = list.offset();
            let field = FieldDef::decode(list.nested(tag::SEQUENCE, "a field")?)?;
            aliases = aliases.saturating_add(field.aliases.len());
            bounded(
                "older names of all fields of a type",
                aliases.saturating_sub(1),
                MAX_ALIASES,
                at,
            )?;
            fields.push(field);
        }
        let mut subs = Vec::new();
        if let Some(tlv) = reader.optional(constructed(0))? {
            let mut list = some_of(&tlv)?;
            while !list.is_empty() {
                bounded(
                    "subsections of a type",
                    subs.len(),
                    limits.fields,
                    list.offset(),
                )?;
                let mut sub = list.nested(tag::SEQUENCE, "a subsection")?;
                let ty = sub.uint32("type of a subsection")?;
                let ignorable = match sub.optional(tag::BOOLEAN)? {
                    Some(tlv) => tlv.present()?,
                    None => false,
                };
                sub.finish()?;
                subs.push(SubDef { ty, ignorable });
            }
        }
        let flags = match reader.optional(primitive(1))? {
            Some(tlv) => match tlv.uint("flags of a type", 3)? {
                0 => return Err(default_written(&tlv)),
                bits => TypeFlags::from_bits(bits),
            },
            None => TypeFlags::default(),
        };
        let readable_from = optional_u32(&mut reader, 2)?;
        finish_members(&mut reader)?;
        Ok(Self {
            id,
            name,
            version,
            min_version,
            fields,
            subs,
            flags,
            readable_from,
        })
    }
}

fn bounded(what: &'static str, have: usize, limit: usize, offset: u64) -> Result<(), BerError> {
    if have < limit {
        return Ok(());
    }
    Err(BerErrorKind::Limit {
        what,
        found: (have as u64).saturating_add(1),
        limit: limit as u64,
    }
    .at(offset))
}

/// The elements of an optional list, which is left out when it is empty.
fn some_of<'a>(tlv: &Tlv<'a>) -> Result<DerReader<'a>, BerError> {
    if tlv.content.is_empty() {
        return Err(default_written(tlv));
    }
    Ok(tlv.reader())
}

fn default_written(tlv: &Tlv<'_>) -> BerError {
    BerErrorKind::NotCanonical("a member is written although it has its default").at(tlv.offset)
}

fn put_optional(out: &mut Vec<u8>, number: u8, value: Option<u32>) {
    if let Some(value) = value {
        put_uint(out, primitive(number), value.into());
    }
}

fn optional_u32(reader: &mut DerReader<'_>, number: u8) -> Result<Option<u32>, BerError> {
    match reader.optional(primitive(number))? {
        Some(tlv) => tlv.uint32("member of a field").map(Some),
        None => Ok(None),
    }
}

fn optional_flag(reader: &mut DerReader<'_>, number: u8) -> Result<bool, BerError> {
    match reader.optional(primitive(number))? {
        Some(tlv) => tlv.present(),
        None => Ok(false),
    }
}

impl FieldDef {
    fn encode(&self, renumber: &dyn Fn(u32) -> u32, out: &mut Vec<u8>) {
        let start = open(out, tag::SEQUENCE);
        put_text(out, &self.name);
        put_enumerated(out, self.kind.number());
        put_optional(out, 0, self.size);
        put_optional(out, 1, self.ty.map(renumber));
        if let Some(repeat) = &self.repeat {
            let at = open(out, constructed(2));
            repeat.encode(out);
            close(out, at);
        }
        if let Some(nullable) = self.nullable {
            put_uint(
                out,
                primitive(3),
                (nullable == Nullable::BothMarkers).into(),
            );
        }
        put_optional(out, 4, Some(self.since).filter(|since| *since > 0));
        for (number, flag) in [(5, self.cond), (6, self.ignorable)] {
            if flag {
                put_bool(out, primitive(number), true);
            }
        }
        if let Some(check) = self.check {
            put_uint(out, primitive(7), (check == Check::LessOrEqual).into());
        }
        if let Some(name) = &self.wire_name {
            put_tlv(out, primitive(8), name.as_bytes());
        }
        if let Some(value) = &self.default {
            put_tlv(out, constructed(9), value.as_bytes());
        }
        if !self.aliases.is_empty() {
            let at = open(out, constructed(10));
            for name in &self.aliases {
                put_text(out, name);
            }
            close(out, at);
        }
        if let Some(max) = self.resize_max {
            put_uint(out, primitive(11), max);
        }
        if let Some(variants) = &self.variants {
            let at = open(out, constructed(12));
            put_text(out, &variants.field);
            let cases = open(out, tag::SEQUENCE);
            for (value, ty) in &variants.cases {
                let case = open(out, tag::SEQUENCE);
                put_int(out, tag::INTEGER, *value);
                put_uint(out, tag::INTEGER, renumber(*ty).into());
                close(out, case);
            }
            close(out, cases);
            close(out, at);
        }
        put_optional(out, 13, self.max);
        put_optional(out, 14, self.pinned);
        put_optional(out, 15, self.key.map(renumber));
        put_optional(out, 16, self.until);
        put_optional(out, 17, self.object_size);
        close(out, start);
    }

    fn decode(mut reader: DerReader<'_>) -> Result<Self, BerError> {
        let name = reader.name("name of a field")?;
        let at = reader.offset();
        let number = reader.enumerated("kind of a field")?;
        let Some(kind) = Kind::ALL.get(usize::from(number)) else {
            return Err(BerErrorKind::Choice {
                what: "kind of a field",
                found: number.into(),
            }
            .at(at));
        };
        let mut field = Self::new(name, *kind);
        let r = &mut reader;
        field.size = optional_u32(r, 0)?;
        field.ty = optional_u32(r, 1)?;
        if let Some(tlv) = r.optional(constructed(2))? {
            let mut inner = tlv.reader();
            field.repeat = Some(Repeat::decode(&mut inner)?);
            inner.finish()?;
        }
        if let Some(tlv) = r.optional(primitive(3))? {
            field.nullable = Some(match tlv.uint("nullable", 1)? {
                0 => Nullable::Marker,
                _ => Nullable::BothMarkers,
            });
        }
        if let Some(tlv) = r.optional(primitive(4))? {
            field.since = match tlv.uint32("first version of a field")? {
                0 => return Err(default_written(&tlv)),
                since => since,
            };
        }
        field.cond = optional_flag(r, 5)?;
        field.ignorable = optional_flag(r, 6)?;
        if let Some(tlv) = r.optional(primitive(7))? {
            field.check = Some(match tlv.uint("check", 1)? {
                0 => Check::Equal,
                _ => Check::LessOrEqual,
            });
        }
        if let Some(tlv) = r.optional(primitive(8))? {
            field.wire_name = Some(tlv.name("name of an encoding")?.to_owned());
        }
        if let Some(tlv) = r.optional(constructed(9))? {
            let mut inner = tlv.reader();
            field.default = Some(AnyValue::decode(&mut inner)?);
            inner.finish()?;
        }
        if let Some(tlv) = r.optional(constructed(10))? {
            let mut list = some_of(&tlv)?;
            while !list.is_empty() {
                bounded(
                    "older names of a field",
                    field.aliases.len(),
                    64,
                    list.offset(),
                )?;
                field
                    .aliases
                    .push(list.name("older name of a field")?.to_owned());
            }
        }
        if let Some(tlv) = r.optional(primitive(11))? {
            field.resize_max = Some(tlv.uint("largest number of elements", u64::MAX)?);
        }
        if let Some(tlv) = r.optional(constructed(12))? {
            field.variants = Some(Variants::decode(tlv.reader())?);
        }
        field.max = optional_u32(r, 13)?;
        field.pinned = optional_u32(r, 14)?;
        field.key = optional_u32(r, 15)?;
        field.until = optional_u32(r, 16)?;
        field.object_size = optional_u32(r, 17)?;
        finish_members(r)?;
        Ok(field)
    }
}

impl Variants {
    fn decode(mut reader: DerReader<'_>) -> Result<Self, BerError> {
        let field = reader.name("name of a discriminant")?.to_owned();
        let mut list = reader.nested(tag::SEQUENCE, "cases")?;
        let mut cases = Vec::new();
        while !list.is_empty() {
            bounded("cases of a field", cases.len(), MAX_CASES, list.offset())?;
            let mut case = list.nested(tag::SEQUENCE, "a case")?;
            let tlv = case.expect(tag::INTEGER, "value of a discriminant")?;
            let found = tlv.integer()?;
            let value = i64::try_from(found).map_err(|_| {
                BerErrorKind::Range {
                    what: "value of a discriminant",
                    found,
                    minimum: i64::MIN.into(),
                    maximum: i64::MAX.into(),
                }
                .at(tlv.offset)
            })?;
            cases.push((value, case.uint32("type of a case")?));
            case.finish()?;
        }
        reader.finish()?;
        Ok(Self { field, cases })
    }
}

impl Repeat {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Fixed(n) => put_uint(out, primitive(0), (*n).into()),
            Self::Counted {
                field,
                factor,
                on_wire,
            } => {
                let at = open(out, constructed(1));
                put_text(out, field);
                if *factor != 1 {
                    put_uint(out, tag::INTEGER, (*factor).into());
                }
                if !on_wire {
                    put_bool(out, tag::BOOLEAN, false);
                }
                close(out, at);
            }
            Self::Prefixed(width) => put_uint(out, primitive(2), (*width).into()),
            Self::Marked {
                more,
                stop,
                any_nonzero,
            } => {
                let at = open(out, constructed(3));
                put_uint(out, tag::INTEGER, (*more).into());
                put_uint(out, tag::INTEGER, (*stop).into());
                if *any_nonzero {
                    put_bool(out, tag::BOOLEAN, true);
                }
                close(out, at);
            }
            Self::Tree => put_null(out, primitive(4)),
        }
    }

    fn decode(reader: &mut DerReader<'_>) -> Result<Self, BerError> {
        let tlv = reader.any()?;
        let mut inner = tlv.reader();
        Ok(match tlv.tag {
            0x80 => Self::Fixed(tlv.uint32("number of elements")?),
            0xa1 => {
                let field = inner.name("name of a counter")?.to_owned();
                let factor = match inner.optional(tag::INTEGER)? {
                    Some(tlv) => match tlv.uint32("factor of a counter")? {
                        1 => return Err(default_written(&tlv)),
                        factor => factor,
                    },
                    None => 1,
                };
                let on_wire = match inner.optional(tag::BOOLEAN)? {
                    Some(tlv) if tlv.boolean()? => return Err(default_written(&tlv)),
                    Some(_) => false,
                    None => true,
                };
                inner.finish()?;
                Self::Counted {
                    field,
                    factor,
                    on_wire,
                }
            }
            0x82 => Self::Prefixed(byte(tlv.uint("width of a count", 8)?)),
            0xa3 => {
                let more = byte(inner.uint("marker", 255)?);
                let stop = byte(inner.uint("marker", 255)?);
                let any_nonzero = match inner.optional(tag::BOOLEAN)? {
                    Some(tlv) => tlv.present()?,
                    None => false,
                };
                inner.finish()?;
                Self::Marked {
                    more,
                    stop,
                    any_nonzero,
                }
            }
            0x84 => {
                tlv.null()?;
                Self::Tree
            }
            found => {
                return Err(BerErrorKind::Tag {
                    expected: "a repetition",
                    found,
                }
                .at(tlv.offset));
            }
        })
    }
}

fn byte(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}
