//! From a description to a type.

use vmstate_desc::{
    Codec, Count, CountSource, Description, Element, Field, ListKind, Pointers,
    Repeat as DescRepeat, ScalarType, Size, TreeKey, ValueCheck,
};

use super::def::{Check, FieldDef, Kind, Nullable, Repeat, SubDef, TypeDef, TypeFlags, Variants};
use super::raise::wire;
use crate::error::{BerError, BerErrorKind};
use crate::value::AnyValue;

/// The type of a description; `add` gives the numbers of embedded ones.
pub(super) fn lower(
    d: &Description,
    add: &mut dyn FnMut(&Description) -> Result<u32, BerError>,
) -> Result<TypeDef, BerError> {
    if d.name().is_empty() || d.name().len() > 255 {
        return Err(refused(d, None, "a name must have 1 to 255 bytes"));
    }
    let mut fields = Vec::with_capacity(d.fields().len());
    for field in d.fields() {
        if field.name.is_empty() || field.name.len() > 255 {
            return Err(refused(d, Some(field), "a name must have 1 to 255 bytes"));
        }
        fields.push(lower_field(d, field, add)?);
    }
    let mut subs = Vec::with_capacity(d.subsections().len());
    for sub in d.subsections() {
        subs.push(SubDef {
            ty: add(sub)?,
            ignorable: false,
        });
    }
    Ok(TypeDef {
        id: 0,
        name: d.name().to_owned(),
        version: d.version_id,
        min_version: d.minimum_version_id,
        fields,
        subs,
        flags: TypeFlags::default(),
        readable_from: d.readable_from,
    })
}

fn refused(d: &Description, field: Option<&Field>, what: &'static str) -> BerError {
    let name = match field {
        Some(field) => format!("{}/{}", d.name, field.name),
        None => d.name.to_string(),
    };
    BerErrorKind::Type {
        name,
        what: what.into(),
    }
    .at(0)
}

fn lower_field(
    d: &Description,
    field: &Field,
    add: &mut dyn FnMut(&Description) -> Result<u32, BerError>,
) -> Result<FieldDef, BerError> {
    let mut def = FieldDef::new(&*field.name, Kind::Struct);
    def.since = field.version_id;
    def.until = field.until;
    def.cond = field.conditional;
    def.ignorable = field.ignorable;
    def.default = field.default.then(AnyValue::absent);
    def.aliases = field.aliases.iter().map(ToString::to_string).collect();
    def.object_size = field.object_size;
    def.resize_max = field.resize_max.map(u64::from);
    if field.must_exist {
        def.kind = Kind::Computed;
        def.wire_name = Some(wire::VALIDATE.to_owned());
        return Ok(def);
    }
    match &field.element {
        Element::Value(codec) => lower_codec(&mut def, codec),
        Element::Struct(child) => def.ty = Some(add(child)?),
        Element::VersionedStruct(child, version) => {
            def.ty = Some(add(child)?);
            def.pinned = Some(*version);
        }
        Element::Tmp(child) => {
            def.ty = Some(add(child)?);
            def.wire_name = Some(wire::TMP.to_owned());
        }
        Element::List(kind, child) => {
            def.ty = Some(add(child)?);
            def.repeat = Some(match *kind {
                ListKind::Marked {
                    more,
                    stop,
                    lenient,
                } => Repeat::Marked {
                    more,
                    stop,
                    any_nonzero: lenient,
                },
                ListKind::Prefixed(width) => Repeat::Prefixed(width),
                // Two names for the same bytes.
                kind => {
                    def.wire_name = Some(kind.name().to_owned());
                    wire::LIST
                }
            });
        }
        Element::Tree { key, value } => {
            if let TreeKey::Struct(key) = key {
                def.key = Some(add(key)?);
            }
            def.ty = Some(add(value)?);
            def.repeat = Some(Repeat::Tree);
        }
        Element::Variant(variants) => {
            def.kind = Kind::Variant;
            let mut cases = Vec::with_capacity(variants.cases().len());
            for case in variants.cases() {
                cases.push((case.value, add(&case.description)?));
            }
            def.variants = Some(Variants {
                field: variants.field.to_string(),
                cases,
            });
        }
        _ => return Err(refused(d, Some(field), "an element that no type can say")),
    }
    let repeat = match &field.repeat {
        DescRepeat::Single => None,
        DescRepeat::Array(n) => Some(Repeat::Fixed(*n)),
        DescRepeat::Counted(count) => Some(counted(&mut def, count)),
        _ => return Err(refused(d, Some(field), "a repetition that no type can say")),
    };
    if repeat.is_some() {
        if def.repeat.is_some() {
            return Err(refused(d, Some(field), "two repetitions"));
        }
        def.repeat = repeat;
    }
    def.nullable = match field.pointers {
        Pointers::No => None,
        Pointers::MarkAbsent => Some(Nullable::Marker),
        Pointers::MarkEvery => Some(Nullable::BothMarkers),
        _ => return Err(refused(d, Some(field), "pointers that no type can say")),
    };
    if def.nullable.is_some()
        && matches!(
            field.element,
            Element::Value(Codec::Buffer(_) | Codec::Bitmap(_) | Codec::Unused(_))
        )
    {
        return Err(refused(d, Some(field), "buffers behind pointers"));
    }
    Ok(def)
}

fn counted(def: &mut FieldDef, count: &Count) -> Repeat {
    def.max = Some(count.max);
    Repeat::Counted {
        field: count.source.name().to_owned(),
        factor: count.multiply,
        on_wire: matches!(count.source, CountSource::Field(_)),
    }
}

fn lower_codec(def: &mut FieldDef, codec: &Codec) {
    def.kind = kind_of(codec);
    let ty = codec.scalar_type();
    def.size = match def.kind {
        Kind::Uint | Kind::Int | Kind::Float => ty.and_then(|ty| u32::try_from(ty.size()).ok()),
        _ => None,
    };
    def.check = match codec.value_check() {
        ValueCheck::Equal => Some(Check::Equal),
        ValueCheck::LessOrEqual => Some(Check::LessOrEqual),
        _ => None,
    };
    match codec {
        Codec::LittleEndian(_) => def.wire_name = Some(wire::LITTLE_ENDIAN.to_owned()),
        Codec::Capability => def.wire_name = Some(wire::CAPABILITY.to_owned()),
        Codec::ByteArray { max } => {
            def.wire_name = Some(wire::BYTE_ARRAY.to_owned());
            def.max = Some(*max);
        }
        Codec::Custom { name, size } => {
            def.wire_name = Some(name.to_string()).filter(|name| !name.is_empty());
            def.size = *size;
        }
        Codec::Unused(size) => def.size = Some(*size),
        Codec::Buffer(size) | Codec::Bitmap(size) => match size {
            Size::Fixed(size) => def.size = Some(*size),
            Size::Counted(count) => def.repeat = Some(counted(def, count)),
            _ => {}
        },
        _ => {}
    }
}

/// The kind of a codec's elements.
pub(crate) const fn kind_of(codec: &Codec) -> Kind {
    match codec {
        Codec::CpuDouble => Kind::CpuDouble,
        Codec::Timer => Kind::Timer,
        Codec::Buffer(_) | Codec::Capability | Codec::ByteArray { .. } => Kind::Bytes,
        Codec::Unused(_) => Kind::Pad,
        Codec::Bitmap(_) => Kind::Bitmap,
        codec => match codec.scalar_type() {
            Some(ScalarType::Bool) => Kind::Bool,
            Some(ScalarType::U8 | ScalarType::U16 | ScalarType::U32 | ScalarType::U64) => {
                Kind::Uint
            }
            Some(ScalarType::F64) => Kind::Float,
            Some(_) => Kind::Int,
            None => Kind::Opaque,
        },
    }
}
