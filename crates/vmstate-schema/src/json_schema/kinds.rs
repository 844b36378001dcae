//! JSON Schema of single fields.

use serde_json::{Value, json};
use vmstate_desc::{Codec, Pointers, Repeat, ScalarType, Size};

use super::{Audience, Definitions, one_or_any};
use crate::model::{Element, Field, Origin};
use crate::value::{MAX_SAFE, RAW};

/// Pairs of hex digits: `bytes` of them, or any number.
pub(super) fn hex(bytes: Option<u64>) -> Value {
    let mut value = json!({
        "type": "string",
        "pattern": "^([0-9a-f]{2})*$",
        "contentEncoding": "base16",
    });
    if let (Some(bytes), Some(members)) = (bytes, value.as_object_mut()) {
        let digits = json!(bytes.saturating_mul(2));
        members.insert("minLength".to_owned(), digits.clone());
        members.insert("maxLength".to_owned(), digits);
    }
    value
}

fn hex_up_to(bytes: u64) -> Value {
    let mut value = hex(None);
    if let Some(members) = value.as_object_mut() {
        members.insert("maxLength".to_owned(), json!(bytes.saturating_mul(2)));
    }
    value
}

fn raw(bytes: Option<u64>) -> Value {
    json!({
        "type": "object",
        "properties": {RAW: hex(bytes)},
        "required": [RAW],
        "additionalProperties": false,
    })
}

/// 64 bits.
pub(super) fn unsigned64(audience: Audience) -> Value {
    match audience {
        Audience::Writer => json!({"type": "string", "pattern": "^0x[0-9a-f]{16}$"}),
        Audience::Reader => json!({"anyOf": [
            {"type": "string", "pattern": "^0x[0-9a-f]{1,16}$"},
            {"type": "integer", "minimum": 0, "maximum": MAX_SAFE},
        ]}),
    }
}

fn signed64(audience: Audience) -> Value {
    let text = json!({"type": "string", "pattern": "^(0|-?[1-9][0-9]{0,18})$"});
    match audience {
        Audience::Writer => text,
        Audience::Reader => json!({"anyOf": [
            text,
            {"type": "integer", "minimum": -(MAX_SAFE.cast_signed()), "maximum": MAX_SAFE},
        ]}),
    }
}

fn integer(low: i64, high: u64) -> Value {
    json!({"type": "integer", "minimum": low, "maximum": high})
}

impl Definitions<'_> {
    /// A field's value.
    pub(super) fn field(&mut self, field: &Field) -> Value {
        if let Element::Memory { size, child, .. } = field.element {
            let child = child.map(|ty| self.embedded(ty, &[], None));
            return unknown(size, child);
        }
        let pointers = field.pointers != Pointers::No;
        match &field.element {
            Element::Value(codec @ (Codec::Buffer(size) | Codec::Bitmap(size))) if !pointers => {
                let units = |n: u64| match codec {
                    Codec::Bitmap(_) if field.repeat == Repeat::Single => n.div_ceil(64) * 8,
                    Codec::Bitmap(_) => n * 8,
                    _ => n,
                };
                match (&field.repeat, size) {
                    (Repeat::Array(n), _) | (Repeat::Single, Size::Fixed(n)) => {
                        hex(Some(units((*n).into())))
                    }
                    (Repeat::Counted(count), _) | (_, Size::Counted(count)) => {
                        hex_up_to(units(count.max.into()))
                    }
                    _ => hex(None),
                }
            }
            // What a device writes by itself may be more than bytes.
            Element::Value(Codec::Custom { size, .. })
                if !pointers && self.schema.origin != Origin::Trailer =>
            {
                let bytes = size.map(u64::from);
                json!({"anyOf": [hex(bytes.filter(|_| field.repeat == Repeat::Single)), {"type": "array"}]})
            }
            Element::List(_, ty) => {
                json!({"type": "array", "items": self.embedded(*ty, &field.variants, None)})
            }
            Element::Tree { key, value } => {
                json!({"type": "array", "items": self.node(*key, *value, &field.variants)})
            }
            _ => self.repeated(field, pointers),
        }
    }

    fn repeated(&mut self, field: &Field, pointers: bool) -> Value {
        let mut item = self.element(field);
        if pointers {
            item = json!({"anyOf": [{"type": "null"}, item]});
        }
        let mut value = match &field.repeat {
            Repeat::Array(n) => {
                json!({"type": "array", "minItems": n, "maxItems": n})
            }
            Repeat::Counted(count) => json!({"type": "array", "maxItems": count.max}),
            _ => return item,
        };
        if let Some(members) = value.as_object_mut() {
            members.insert("items".to_owned(), item);
        }
        value
    }

    /// One element.
    fn element(&mut self, field: &Field) -> Value {
        match &field.element {
            Element::Value(codec) => self.value(codec),
            Element::VersionedStruct(ty, version) => {
                self.embedded(*ty, &field.variants, Some(*version))
            }
            Element::Struct(ty)
            | Element::Tmp(ty)
            | Element::List(_, ty)
            | Element::Tree { value: ty, .. } => self.embedded(*ty, &field.variants, None),
            Element::Variant { cases, .. } => self.cases(cases),
            Element::Memory { .. } => json!({}),
        }
    }

    fn value(&self, codec: &Codec) -> Value {
        if *codec == Codec::Bool {
            let plain = json!({"type": "boolean"});
            // What was decoded from a stream keeps the byte that it came as.
            return if self.schema.origin == Origin::Trailer {
                one_or_any(vec![plain, raw(Some(1))])
            } else {
                plain
            };
        }
        match codec.scalar_type() {
            Some(ScalarType::Bool) => json!({"type": "boolean"}),
            Some(ScalarType::U8) => integer(0, u8::MAX.into()),
            Some(ScalarType::U16) => integer(0, u16::MAX.into()),
            Some(ScalarType::U32) => integer(0, u32::MAX.into()),
            Some(ScalarType::I8) => integer(i8::MIN.into(), 0x7f),
            Some(ScalarType::I16) => integer(i16::MIN.into(), 0x7fff),
            Some(ScalarType::I32) => integer(i32::MIN.into(), 0x7fff_ffff),
            Some(ScalarType::I64) => signed64(self.audience),
            Some(_) => unsigned64(self.audience),
            None => match codec {
                Codec::Capability => {
                    one_or_any(vec![json!({"type": "string", "maxLength": 255}), raw(None)])
                }
                Codec::ByteArray { max } => hex_up_to((*max).into()),
                Codec::Custom { size, .. } => hex(size.map(u64::from)),
                Codec::Buffer(Size::Fixed(n)) => hex(Some((*n).into())),
                _ => hex(None),
            },
        }
    }
}

/// Of a dump: neither the type nor the number of elements is known for sure.
fn unknown(size: u64, child: Option<Value>) -> Value {
    match child {
        Some(child) => json!({"anyOf": [
            child,
            {"type": "array", "items": {"anyOf": [{"type": "null"}, child]}},
        ]}),
        None => json!({ "x-vmstate-bytes-in-memory": size }),
    }
}
