//! From a type to a description.

use std::borrow::Cow;
use std::sync::Arc;

use vmstate_desc::{
    Codec, Count, CountSource, Description, Element, Field, ListKind, Pointers,
    Repeat as DescRepeat, ScalarType, Size, TreeKey, VariantCase, Variants as DescVariants,
};

use super::def::{Check, FieldDef, Kind, Nullable, Repeat, TypeDef, Variants};
use crate::error::{BerError, BerErrorKind};

/// Names of encodings that a kind alone does not tell.
pub(super) mod wire {
    use super::Repeat;

    /// A scalar with its least significant byte first.
    pub(crate) const LITTLE_ENDIAN: &str = "buffer";
    /// Bytes with a length byte before them.
    pub(crate) const CAPABILITY: &str = "capability";
    /// Bytes with a be32 length before them.
    pub(crate) const BYTE_ARRAY: &str = "GByteArray";
    /// State made for the stream.
    pub(crate) const TMP: &str = "tmp";
    /// A test without bytes.
    pub(crate) const VALIDATE: &str = "validate";
    /// What frames the elements of a list.
    pub(crate) const LIST: Repeat = Repeat::Marked {
        more: 1,
        stop: 0,
        any_nonzero: true,
    };
}

/// The description of a type that came at `offset`; `make` gives those of embedded ones.
pub(super) fn raise(
    ty: &TypeDef,
    offset: u64,
    make: &mut dyn FnMut(u32) -> Result<Arc<Description>, BerError>,
) -> Result<Description, BerError> {
    let mut fields = Vec::with_capacity(ty.fields.len());
    for def in &ty.fields {
        let refused = |what: Cow<'static, str>| {
            let name = format!("{}/{}", ty.name, def.name);
            BerErrorKind::Type { name, what }.at(offset)
        };
        let mut field = raise_field(def, make)?.map_err(|what| refused(what.into()))?;
        field.name = Cow::Owned(def.name.clone());
        field.version_id = def.since;
        field.until = def.until;
        field.ignorable = def.ignorable;
        field.default = def.default.is_some();
        field.aliases = def.aliases.iter().cloned().map(Cow::Owned).collect();
        fields.push(field);
    }
    let mut subsections = Vec::with_capacity(ty.subs.len());
    for sub in &ty.subs {
        subsections.push(make(sub.ty)?.into());
    }
    let description = Description {
        name: Cow::Owned(ty.name.clone()),
        fields: Cow::Owned(fields),
        subsections: Cow::Owned(subsections),
        readable_from: ty.readable_from,
        ..Description::new("", ty.version, ty.min_version)
    };
    match description.check_alone() {
        Ok(()) => Ok(description),
        Err(error) => Err(BerErrorKind::Type {
            name: error.path,
            what: error.rule.text().into(),
        }
        .at(offset)),
    }
}

/// The outer result is an embedded type's error, the inner one says what the field itself cannot be.
fn raise_field(
    def: &FieldDef,
    make: &mut dyn FnMut(u32) -> Result<Arc<Description>, BerError>,
) -> Result<Result<Field, &'static str>, BerError> {
    if def.kind == Kind::Computed {
        return Ok(match def.wire_name.as_deref() {
            Some(wire::VALIDATE) => Ok(Field::validator("")),
            _ => Err("a computed field has no place in QEMU's bytes"),
        });
    }
    let element = match def.kind {
        Kind::Struct => {
            let Some(id) = def.ty else {
                return Ok(Err("a struct without its type"));
            };
            let child = make(id)?;
            let key = match def.key {
                Some(key) => TreeKey::Struct(make(key)?.into()),
                None => TreeKey::Direct,
            };
            raise_struct(def, child, key)
        }
        Kind::Variant => match &def.variants {
            None => return Ok(Err("a variant without its cases")),
            Some(variants) => Ok(raise_variant(variants, make)?),
        },
        _ => raise_codec(def).map(Element::Value),
    };
    Ok(element.and_then(|element| finish(def, element)))
}

fn raise_variant(
    variants: &Variants,
    make: &mut dyn FnMut(u32) -> Result<Arc<Description>, BerError>,
) -> Result<Element, BerError> {
    let mut cases = Vec::with_capacity(variants.cases.len());
    for (value, ty) in &variants.cases {
        cases.push(VariantCase {
            value: *value,
            description: make(*ty)?.into(),
        });
    }
    Ok(Element::Variant(DescVariants {
        field: Cow::Owned(variants.field.clone()),
        cases: Cow::Owned(cases),
    }))
}

fn raise_struct(
    def: &FieldDef,
    child: Arc<Description>,
    key: TreeKey,
) -> Result<Element, &'static str> {
    let child = child.into();
    Ok(match (&def.repeat, def.wire_name.as_deref(), def.pinned) {
        (Some(Repeat::Tree), None, None) => Element::Tree { key, value: child },
        _ if key != TreeKey::Direct => return Err("a key without a tree"),
        (
            Some(Repeat::Marked {
                more,
                stop,
                any_nonzero,
            }),
            None,
            None,
        ) => {
            let kind = ListKind::Marked {
                more: *more,
                stop: *stop,
                lenient: *any_nonzero,
            };
            Element::List(kind, child)
        }
        (Some(Repeat::Prefixed(width)), None, None) => {
            Element::List(ListKind::Prefixed(*width), child)
        }
        (Some(repeat @ Repeat::Marked { .. }), name, None) => {
            let kinds = [ListKind::QTailq, ListKind::QList];
            match kinds.into_iter().find(|kind| Some(kind.name()) == name) {
                Some(kind) if *repeat == wire::LIST => Element::List(kind, child),
                _ => return Err("a list that is neither qtailq nor qlist"),
            }
        }
        (_, Some(wire::TMP), None) => Element::Tmp(child),
        (_, None, Some(version)) => Element::VersionedStruct(child, version),
        (_, None, None) => Element::Struct(child),
        _ => return Err("an unknown encoding of a struct"),
    })
}

/// Puts repetition and pointers around an element.
fn finish(def: &FieldDef, element: Element) -> Result<Field, &'static str> {
    let mut field = Field::new("", element);
    field.conditional = def.cond;
    field.object_size = def.object_size;
    field.pointers = match def.nullable {
        None => Pointers::No,
        Some(Nullable::Marker) => Pointers::MarkAbsent,
        Some(Nullable::BothMarkers) => Pointers::MarkEvery,
    };
    if def.ty.is_some() != (def.kind == Kind::Struct) {
        return Err("a type without a struct");
    }
    if def.kind != Kind::Struct && (def.key.is_some() || def.pinned.is_some()) {
        return Err("a key or a version without a struct");
    }
    if def.variants.is_some() != (def.kind == Kind::Variant) {
        return Err("cases without a variant");
    }
    let named = def.wire_name.is_some() || def.size.is_some() || def.check.is_some();
    if def.kind == Kind::Variant && named {
        return Err("an unknown encoding of a variant");
    }
    let buffer = matches!(
        field.element,
        Element::Value(Codec::Buffer(_) | Codec::Bitmap(_) | Codec::Unused(_))
    );
    if buffer && def.nullable.is_some() {
        return Err("buffers behind pointers");
    }
    let sized = matches!(
        field.element,
        Element::Value(Codec::Buffer(Size::Counted(_)) | Codec::Bitmap(Size::Counted(_)))
    );
    let uses_max = match (&def.repeat, &field.element) {
        (None, Element::Value(Codec::ByteArray { .. })) => true,
        (None, _) => false,
        (Some(Repeat::Fixed(n)), Element::Value(Codec::ByteArray { .. })) => {
            field.repeat = DescRepeat::Array(*n);
            true
        }
        (Some(Repeat::Fixed(n)), _) => {
            field.repeat = DescRepeat::Array(*n);
            false
        }
        (Some(Repeat::Counted { .. }), _) if sized => true,
        (Some(Repeat::Counted { .. }), Element::Value(Codec::ByteArray { .. })) => {
            return Err("counted byte arrays");
        }
        (Some(Repeat::Counted { .. }), _) => {
            field.repeat = DescRepeat::Counted(count_of(def)?);
            true
        }
        (Some(Repeat::Marked { .. } | Repeat::Prefixed(_)), Element::List(..))
        | (Some(Repeat::Tree), Element::Tree { .. }) => false,
        (Some(_), _) => return Err("a repetition that the kind does not allow"),
    };
    if def.max.is_some() != uses_max {
        return Err("a bound is missing, or of no use");
    }
    field.resize_max = match def.resize_max.map(u32::try_from) {
        None => None,
        Some(Ok(max)) => Some(max),
        Some(Err(_)) => return Err("more elements than 2^32 - 1"),
    };
    Ok(field)
}

fn count_of(def: &FieldDef) -> Result<Count, &'static str> {
    let Some(Repeat::Counted {
        field,
        factor,
        on_wire,
    }) = &def.repeat
    else {
        return Err("no size");
    };
    let name = Cow::Owned(field.clone());
    Ok(Count {
        source: if *on_wire {
            CountSource::Field(name)
        } else {
            CountSource::Device(name)
        },
        multiply: *factor,
        max: def.max.ok_or("a count without a bound")?,
    })
}

fn size_of(def: &FieldDef) -> Result<Size, &'static str> {
    match def.size {
        Some(size) => Ok(Size::Fixed(size)),
        None => count_of(def).map(Size::Counted),
    }
}

fn raise_codec(def: &FieldDef) -> Result<Codec, &'static str> {
    let name = def.wire_name.as_deref();
    let scalar = match (def.kind, def.size) {
        (Kind::Bool, None) => Some(ScalarType::Bool),
        (Kind::Uint, Some(1)) => Some(ScalarType::U8),
        (Kind::Uint, Some(2)) => Some(ScalarType::U16),
        (Kind::Uint, Some(4)) => Some(ScalarType::U32),
        (Kind::Uint, Some(8)) => Some(ScalarType::U64),
        (Kind::Int, Some(1)) => Some(ScalarType::I8),
        (Kind::Int, Some(2)) => Some(ScalarType::I16),
        (Kind::Int, Some(4)) => Some(ScalarType::I32),
        (Kind::Int, Some(8)) => Some(ScalarType::I64),
        (Kind::Float, Some(8)) => Some(ScalarType::F64),
        _ => None,
    };
    if let Some(ty) = scalar {
        return match (name, def.check) {
            (Some(wire::LITTLE_ENDIAN), None) => Ok(Codec::LittleEndian(ty)),
            (None, None) => plain(ty).ok_or("a float in QEMU's bytes"),
            (None, Some(Check::Equal)) => Codec::equal(ty).ok_or("a check that QEMU has not"),
            (None, Some(Check::LessOrEqual)) if ty == ScalarType::I32 => Ok(Codec::Int32Le),
            _ => Err("an unknown encoding of a number"),
        };
    }
    if def.check.is_some() {
        return Err("a check of what is no integer");
    }
    Ok(match (def.kind, name) {
        (Kind::CpuDouble, None) => Codec::CpuDouble,
        (Kind::Timer, None) => Codec::Timer,
        (Kind::Bytes, None) => Codec::Buffer(size_of(def)?),
        (Kind::Bitmap, None) => Codec::Bitmap(size_of(def)?),
        (Kind::Bytes, Some(wire::CAPABILITY)) if def.size.is_none() => Codec::Capability,
        (Kind::Bytes, Some(wire::BYTE_ARRAY)) if def.size.is_none() => Codec::ByteArray {
            max: def.max.ok_or("a byte array without a bound")?,
        },
        (Kind::Pad, None) => Codec::Unused(def.size.ok_or("a pad without a size")?),
        (Kind::Opaque, name) => Codec::Custom {
            name: Cow::Owned(name.unwrap_or_default().to_owned()),
            size: def.size,
        },
        _ => return Err("a kind or encoding that QEMU has not"),
    })
}

const fn plain(ty: ScalarType) -> Option<Codec> {
    Some(match ty {
        ScalarType::Bool => Codec::Bool,
        ScalarType::U8 => Codec::Uint8,
        ScalarType::U16 => Codec::Uint16,
        ScalarType::U32 => Codec::Uint32,
        ScalarType::U64 => Codec::Uint64,
        ScalarType::I8 => Codec::Int8,
        ScalarType::I16 => Codec::Int16,
        ScalarType::I32 => Codec::Int32,
        ScalarType::I64 => Codec::Int64,
        _ => return None,
    })
}
