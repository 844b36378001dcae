//! What findings say about fields and elements.

use vmstate_desc::{Codec, Count, CountSource, ListKind, Pointers, Repeat, Size};

use crate::build::wire_size;
use crate::model::{Case, Element, Field, Key, Schema, TypeId};

/// Most cases of a variant that a text names.
const SHOWN: usize = 8;

/// A field for people: `uint32`, `struct nvme-sq[16]`, `256 bytes in memory, conditional`.
pub(super) fn field_text(schema: &Schema, field: &Field) -> String {
    let mut text = element_text(schema, &field.element);
    if field.pointers != Pointers::No {
        text += "*";
    }
    text += &match &field.repeat {
        Repeat::Array(n) => format!("[{n}]"),
        Repeat::Counted(count) => format!("[{}]", count_text(count)),
        _ => String::new(),
    };
    if field.must_exist {
        return "validator".to_owned();
    }
    if field.conditional {
        text += ", conditional";
    } else if field.version_id > 0 {
        text += &format!(", since version {}", field.version_id);
    }
    if let Some(until) = field.until {
        text += &format!(", until version {until}");
    }
    text
}

pub(super) fn element_text(schema: &Schema, element: &Element) -> String {
    let name = |id: &TypeId| schema.get(*id).map_or("?", |ty| &ty.name);
    match element {
        Element::Value(codec) => codec_text(codec),
        Element::Struct(id) => format!("struct {}", name(id)),
        Element::VersionedStruct(id, version) => {
            format!("struct {} at version {version}", name(id))
        }
        Element::Tmp(id) => format!("temporary {}", name(id)),
        Element::List(kind, id) => match kind {
            ListKind::Marked { more, stop, .. } => {
                format!("list of {}, marked {more:#04x} and {stop:#04x}", name(id))
            }
            ListKind::Prefixed(width) => {
                format!("list of {}, count of {width} bytes in front", name(id))
            }
            kind => format!("{} of {}", kind.name(), name(id)),
        },
        Element::Tree { key, value } => match key {
            Key::Direct => format!("gtree of {}", name(value)),
            Key::Struct(key) => format!("gtree of {} by {}", name(value), name(key)),
        },
        Element::Variant {
            discriminant,
            cases,
        } => {
            let case = |case: &Case| format!("{} {}", case.value, name(&case.ty));
            let mut shown: Vec<String> = cases.iter().take(SHOWN).map(case).collect();
            if cases.len() > SHOWN {
                shown.push("…".to_owned());
            }
            format!("by {discriminant}: {}", shown.join(", "))
        }
        Element::Memory { size, num, child } => {
            let array = num.map(|n| format!("[{n}]")).unwrap_or_default();
            match child {
                Some(id) => format!("struct {}{array}", name(id)),
                None if *size == 1 => format!("1 byte in memory{array}"),
                None => format!("{size} bytes in memory{array}"),
            }
        }
    }
}

fn codec_text(codec: &Codec) -> String {
    match codec {
        Codec::Buffer(size) => format!("buffer of {} bytes", size_text(size)),
        Codec::Bitmap(size) => format!("bitmap of {} bits", size_text(size)),
        Codec::Unused(bytes) => format!("{bytes} unused bytes"),
        Codec::LittleEndian(ty) => format!("little-endian {}", ty.name()),
        Codec::Custom { name, size } => match size {
            Some(size) => format!("{name} of {size} bytes"),
            None => name.to_string(),
        },
        codec => codec.name().to_owned(),
    }
}

fn size_text(size: &Size) -> String {
    match size {
        Size::Fixed(n) => n.to_string(),
        Size::Counted(count) => count_text(count),
        _ => "?".to_owned(),
    }
}

pub(super) fn count_text(count: &Count) -> String {
    let mut text = match &count.source {
        CountSource::Device(name) => format!("device's {name}"),
        source => source.name().to_owned(),
    };
    if count.multiply != 1 {
        text += &format!(" * {}", count.multiply);
    }
    text
}

/// Bytes that a field takes in a QEMU stream, where that is fixed and known. Of a dump's field: what it takes in memory, where
/// that can be what travels.
pub(super) fn bytes(field: &Field) -> Option<u64> {
    if field.pointers != Pointers::No {
        return None;
    }
    match &field.element {
        Element::Value(codec) => {
            let one = wire_size(codec)?;
            match &field.repeat {
                Repeat::Single => Some(one),
                // The number of a buffer's elements is one of bytes.
                Repeat::Array(n) if matches!(codec, Codec::Buffer(_)) => Some((*n).into()),
                Repeat::Array(n) => one.checked_mul((*n).into()),
                _ => None,
            }
        }
        Element::Memory {
            size,
            num,
            child: None,
        } if *size > 0 => size.checked_mul(num.map_or(1, u64::from)),
        _ => None,
    }
}
