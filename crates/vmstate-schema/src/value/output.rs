//! State to JSON.

use serde_json::{Map, Value};
use vmstate_desc::{
    Codec, Description, Element, Error, FieldCx, Gate, Pointers, Repeat, Role, SaveState,
    SaveVisitor, Scalar, ScalarType, save_with,
};
// The engine's own slice type, under which arrays come.
use vmstate_desc::Slice;

use super::keys::field_keys;
use super::text::{hex, hex64};
use super::{RAW, SUBSECTIONS, TYPE, VERSION};

/// The JSON value of a state, in the form of [the module's table](super).
///
/// # Errors
/// What the device refuses.
pub fn to_json(state: &dyn SaveState) -> Result<Value, Error> {
    let mut out = JsonOut::default();
    save_with(state, &mut out)?;
    Ok(out.finish())
}

/// The visitor that makes a JSON value.
#[derive(Debug, Default)]
pub struct JsonOut {
    frames: Vec<Frame>,
    result: Value,
}

/// What is open.
#[derive(Debug)]
enum Frame {
    Object {
        keys: Vec<String>,
        members: Map<String, Value>,
        subsections: Map<String, Value>,
    },
    Field {
        items: Vec<Item>,
        /// The key of the tree's node that comes next.
        key: Option<Value>,
        /// Bytes that come next begin an element of their own.
        fresh: bool,
    },
}

#[derive(Debug)]
enum Item {
    Json(Value),
    Bytes(Vec<u8>),
}

impl Item {
    fn into_json(self) -> Value {
        match self {
            Self::Json(value) => value,
            Self::Bytes(bytes) => hex(&bytes).into(),
        }
    }
}

fn misplaced() -> Error {
    Error::format("a value outside of any field")
}

/// Bytes that stand for themselves.
fn raw(bytes: &[u8]) -> Value {
    Value::Object(Map::from_iter([(RAW.to_owned(), hex(bytes).into())]))
}

/// One scalar of a field.
fn scalar(codec: Option<&Codec>, ty: ScalarType, bits: u64) -> Value {
    let value = Scalar::from_bits(ty, bits);
    match value {
        Scalar::U8(byte) if codec == Some(&Codec::Bool) => match byte {
            0 | 1 => (byte == 1).into(),
            odd => raw(&[odd]),
        },
        Scalar::Bool(value) => value.into(),
        Scalar::U64(_) | Scalar::F64(_) => hex64(bits).into(),
        Scalar::I64(value) => value.to_string().into(),
        value => match value.as_i128().map(i64::try_from) {
            Some(Ok(value)) => value.into(),
            _ => hex64(bits).into(),
        },
    }
}

impl JsonOut {
    /// The value, when the walk is over.
    #[must_use]
    pub fn finish(self) -> Value {
        self.result
    }

    fn items(&mut self) -> Result<&mut Vec<Item>, Error> {
        match self.frames.last_mut() {
            Some(Frame::Field { items, .. }) => Ok(items),
            _ => Err(misplaced()),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), Error> {
        self.items()?.push(Item::Json(value));
        Ok(())
    }

    /// Appends bytes to those that came last, unless an element begins with them.
    fn bytes(&mut self, more: impl IntoIterator<Item = u8>) -> Result<(), Error> {
        let Some(Frame::Field { items, fresh, .. }) = self.frames.last_mut() else {
            return Err(misplaced());
        };
        match items.last_mut() {
            Some(Item::Bytes(bytes)) if !*fresh => bytes.extend(more),
            _ => items.push(Item::Bytes(more.into_iter().collect())),
        }
        *fresh = false;
        Ok(())
    }
}

/// The codec of a field with one.
fn codec<'a>(cx: &FieldCx<'a>) -> Option<&'a Codec> {
    match &cx.field.element {
        Element::Value(codec) => Some(codec),
        _ => None,
    }
}

impl SaveVisitor for JsonOut {
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<(), Error> {
        let mut members = Map::new();
        if matches!(role, Role::Case { .. }) {
            members.insert(TYPE.to_owned(), d.name.as_ref().into());
        }
        if matches!(role, Role::Subsection | Role::Case { .. }) {
            members.insert(VERSION.to_owned(), version.into());
        }
        self.frames.push(Frame::Object {
            keys: field_keys(d),
            members,
            subsections: Map::new(),
        });
        Ok(())
    }

    fn end(&mut self, d: &Description, role: Role<'_>) -> Result<(), Error> {
        let Some(Frame::Object {
            mut members,
            subsections,
            ..
        }) = self.frames.pop()
        else {
            return Err(misplaced());
        };
        if !subsections.is_empty() {
            members.insert(SUBSECTIONS.to_owned(), Value::Object(subsections));
        }
        let value = Value::Object(members);
        match (role, self.frames.last_mut()) {
            (Role::Top, _) => self.result = value,
            (Role::Subsection, Some(Frame::Object { subsections, .. })) => {
                if subsections.insert(d.name.to_string(), value).is_some() {
                    return Err(Error::format(format!("two subsections {}", d.name)));
                }
            }
            (Role::Key { .. }, Some(Frame::Field { key, .. })) => *key = Some(value),
            (_, Some(Frame::Field { items, key, .. })) => {
                let value = match key.take() {
                    Some(key) => Value::Object(Map::from_iter([
                        ("key".to_owned(), key),
                        ("value".to_owned(), value),
                    ])),
                    None => value,
                };
                items.push(Item::Json(value));
            }
            _ => return Err(misplaced()),
        }
        Ok(())
    }

    fn field(&mut self, _cx: FieldCx<'_>) -> Result<Gate, Error> {
        self.frames.push(Frame::Field {
            items: Vec::new(),
            key: None,
            fresh: true,
        });
        Ok(Gate::Visit)
    }

    fn end_field(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        let Some(Frame::Field { items, .. }) = self.frames.pop() else {
            return Err(misplaced());
        };
        let Some(value) = field_value(&cx, items) else {
            return Ok(());
        };
        match self.frames.last_mut() {
            Some(Frame::Object { keys, members, .. }) => {
                let key = keys.get(cx.index).ok_or_else(misplaced)?;
                members.insert(key.clone(), value);
                Ok(())
            }
            _ => Err(misplaced()),
        }
    }

    fn slot(&mut self, _cx: FieldCx<'_>, _index: usize, present: bool) -> Result<(), Error> {
        if let Some(Frame::Field { fresh, .. }) = self.frames.last_mut() {
            *fresh = true;
        }
        if present {
            return Ok(());
        }
        self.push(Value::Null)
    }

    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType, bits: u64) -> Result<(), Error> {
        match codec(&cx) {
            Some(Codec::Buffer(_)) => self.bytes(bits.to_le_bytes().into_iter().take(1)),
            Some(Codec::Bitmap(_)) => self.bytes(bits.to_be_bytes()),
            codec => self.push(scalar(codec, ty, bits)),
        }
    }

    fn scalars(&mut self, cx: FieldCx<'_>, values: Slice<'_>) -> Result<(), Error> {
        match (codec(&cx), values) {
            (Some(Codec::Buffer(_)), Slice::U8(bytes)) => self.bytes(bytes.iter().copied()),
            (Some(Codec::Bitmap(_)), Slice::U64(words)) => {
                self.bytes(words.iter().flat_map(|word| word.to_be_bytes()))
            }
            (codec, values) => {
                let items = self.items()?;
                items.reserve(values.len());
                for index in 0..values.len() {
                    let Some(value) = values.get(index) else {
                        break;
                    };
                    let json = scalar(codec, value.scalar_type(), value.to_bits());
                    items.push(Item::Json(json));
                }
                Ok(())
            }
        }
    }

    fn unused(&mut self, _cx: FieldCx<'_>, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &[u8]) -> Result<(), Error> {
        match codec(&cx) {
            Some(Codec::Capability) => self.push(match std::str::from_utf8(bytes) {
                Ok(text) => text.into(),
                Err(_) => raw(bytes),
            }),
            Some(Codec::ByteArray { .. }) => self.push(hex(bytes).into()),
            _ => self.bytes(bytes.iter().copied()),
        }
    }

    fn list(&mut self, _cx: FieldCx<'_>, _len: usize) -> Result<(), Error> {
        Ok(())
    }

    fn item(&mut self, _cx: FieldCx<'_>, _index: usize) -> Result<(), Error> {
        Ok(())
    }

    fn end_list(&mut self, _cx: FieldCx<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn direct_key(&mut self, _cx: FieldCx<'_>, value: u64) -> Result<(), Error> {
        match self.frames.last_mut() {
            Some(Frame::Field { key, .. }) => {
                *key = Some(hex64(value).into());
                Ok(())
            }
            _ => Err(misplaced()),
        }
    }
}

/// The value of a field whose elements are complete.
fn field_value(cx: &FieldCx<'_>, mut items: Vec<Item>) -> Option<Value> {
    let array = |items: Vec<Item>| Value::Array(items.into_iter().map(Item::into_json).collect());
    let single = cx.field.repeat == Repeat::Single;
    match &cx.field.element {
        Element::Value(Codec::Unused(_)) => return None,
        // Their count is in bytes and words: they are one string, however they are repeated.
        Element::Value(Codec::Buffer(_) | Codec::Bitmap(_))
            if cx.field.pointers == Pointers::No =>
        {
            return Some(items.pop().map_or_else(|| "".into(), Item::into_json));
        }
        Element::Value(Codec::Custom { size, .. }) if cx.field.pointers == Pointers::No => {
            return Some(match (items.as_slice(), size) {
                ([], _) if single => "".into(),
                ([Item::Bytes(bytes)], Some(size)) if !single && *size > 0 => bytes
                    .chunks(usize::try_from(*size).unwrap_or(usize::MAX))
                    .map(|element| Value::from(hex(element)))
                    .collect(),
                ([Item::Bytes(bytes)], _) if single => hex(bytes).into(),
                _ => array(items),
            });
        }
        Element::List(..) | Element::Tree { .. } => return Some(array(items)),
        _ => {}
    }
    if single {
        items.pop().map(Item::into_json)
    } else {
        Some(array(items))
    }
}
