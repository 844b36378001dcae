//! JSON to state.

use serde_json::{Map, Value};
use vmstate_desc::{
    Codec, Description, Element, Error, ErrorKind, FieldCx, Gate, Limits, LoadState, LoadVisitor,
    Pointers, Repeat, Role, Scalar, ScalarType, SliceMut, Slot, load_with,
};

use super::keys::field_keys;
use super::text::{decimal, parse_hex, parse_hex64};
use super::{MAX_SAFE, RAW, SUBSECTIONS, TYPE, VERSION};

/// Loads a state from its JSON value. `version` is the one that it was saved with.
///
/// A key that no field has, a missing key of a field that must be there, and a value of another kind are errors. A conditional
/// field that is not in the JSON stays as it is.
///
/// # Errors
/// As [`vmstate_desc::load`], with the path of the field.
pub fn from_json(
    state: &mut dyn LoadState,
    version: u32,
    json: &Value,
    limits: Limits,
) -> Result<(), Error> {
    load_with(state, version, &mut JsonIn::new(json), limits)
}

/// The visitor that reads a JSON value.
#[derive(Debug)]
pub struct JsonIn<'j> {
    root: &'j Value,
    frames: Vec<Frame<'j>>,
}

#[derive(Debug)]
enum Frame<'j> {
    Object {
        keys: Vec<String>,
        members: &'j Map<String, Value>,
        /// Members that were asked for.
        used: usize,
        subsections: Option<&'j Map<String, Value>>,
        /// Subsections that were asked for.
        next: usize,
    },
    Field {
        items: Items<'j>,
        at: usize,
        /// Bytes of the item that was read last, and how many of them were taken.
        bytes: Vec<u8>,
        taken: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Items<'j> {
    One(&'j Value),
    Many(&'j [Value]),
}

impl<'j> Items<'j> {
    fn get(self, index: usize) -> Option<&'j Value> {
        match self {
            Self::One(value) => (index == 0).then_some(value),
            Self::Many(values) => values.get(index),
        }
    }

    const fn len(self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(values) => values.len(),
        }
    }
}

fn misplaced() -> Error {
    Error::format("a value outside of any field")
}

/// A value for messages.
fn shown(json: &Value) -> String {
    const MOST: usize = 40;
    match json {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(MOST) {
                Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
                None => text,
            }
        }
    }
}

fn expected(what: &str, found: &Value) -> Error {
    Error::format(format!("{what} expected, found {}", shown(found)))
}

/// The bytes of `{"$raw": …}`.
fn raw(json: &Value) -> Option<Vec<u8>> {
    let members = json.as_object().filter(|members| members.len() == 1)?;
    parse_hex(members.get(RAW)?.as_str()?)
}

fn scalar(codec: Option<&Codec>, ty: ScalarType, json: &Value) -> Result<u64, Error> {
    if ty == ScalarType::Bool || (codec == Some(&Codec::Bool) && ty == ScalarType::U8) {
        return match (json.as_bool(), raw(json).as_deref()) {
            (Some(value), _) => Ok(value.into()),
            (None, Some(&[byte])) if ty == ScalarType::U8 => Ok(byte.into()),
            _ => Err(expected("true or false", json)),
        };
    }
    match ty {
        ScalarType::U64 | ScalarType::F64 => match json {
            Value::String(text) => parse_hex64(text),
            other => other.as_u64().filter(|value| *value <= MAX_SAFE),
        }
        .ok_or_else(|| expected("\"0x\" and 16 hex digits", json)),
        ScalarType::I64 => match json {
            Value::String(text) => decimal(text),
            other => other
                .as_i64()
                .filter(|value| value.unsigned_abs() <= MAX_SAFE),
        }
        .map(i64::cast_unsigned)
        .ok_or_else(|| expected("a decimal number as a string", json)),
        ty => {
            let value = json.as_i64().ok_or_else(|| expected("an integer", json))?;
            let bits = value.cast_unsigned();
            let fits = Scalar::from_bits(ty, bits).as_i128() == Some(value.into());
            // Only the low bytes are the value.
            let low = Scalar::from_bits(ty, bits).to_bits();
            fits.then_some(low)
                .ok_or_else(|| expected(&format!("a value of type {}", ty.name()), json))
        }
    }
}

impl<'j> JsonIn<'j> {
    /// Reads from this value.
    #[must_use]
    pub const fn new(root: &'j Value) -> Self {
        Self {
            root,
            frames: Vec::new(),
        }
    }

    /// The item that comes next, without going past it.
    fn peek(&self) -> Result<&'j Value, Error> {
        match self.frames.last() {
            Some(Frame::Field { items, at, .. }) => items
                .get(*at)
                .ok_or_else(|| Error::format(format!("{} elements are too few", items.len()))),
            _ => Err(misplaced()),
        }
    }

    /// Whether no item comes next.
    fn is_at_end(&self) -> bool {
        matches!(self.frames.last(), Some(Frame::Field { items, at, .. }) if *at >= items.len())
    }

    fn next(&mut self) -> Result<&'j Value, Error> {
        let item = self.peek()?;
        if let Some(Frame::Field { at, .. }) = self.frames.last_mut() {
            *at += 1;
        }
        Ok(item)
    }

    /// Makes the next item's bytes those that are taken from.
    fn open_bytes(&mut self, cx: &FieldCx<'_>) -> Result<usize, Error> {
        let item = self.next()?;
        let found = match (item, codec(cx)) {
            (Value::String(text), Some(Codec::Capability)) => Some(text.clone().into_bytes()),
            (Value::String(text), _) => parse_hex(text),
            (item, Some(Codec::Capability)) => raw(item),
            _ => None,
        };
        let found = found.ok_or_else(|| expected("a string of hex digits", item))?;
        let len = found.len();
        if let Some(Frame::Field { bytes, taken, .. }) = self.frames.last_mut() {
            (*bytes, *taken) = (found, 0);
        }
        Ok(len)
    }

    /// Fills `out` with bytes of as many items as it takes.
    fn take_bytes(&mut self, cx: &FieldCx<'_>, mut out: &mut [u8]) -> Result<(), Error> {
        while !out.is_empty() {
            let Some(Frame::Field { bytes, taken, .. }) = self.frames.last_mut() else {
                return Err(misplaced());
            };
            let rest = bytes.get(*taken..).unwrap_or_default();
            let n = rest.len().min(out.len());
            if n == 0 {
                if self.is_at_end() {
                    let needed = out.len();
                    return Err(Error::format(format!("{needed} bytes more expected")));
                }
                self.open_bytes(cx)?;
                continue;
            }
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(rest.get(..n).unwrap_or_default());
            *taken += n;
            out = later;
        }
        Ok(())
    }
}

fn codec<'a>(cx: &FieldCx<'a>) -> Option<&'a Codec> {
    match &cx.field.element {
        Element::Value(codec) => Some(codec),
        _ => None,
    }
}

/// The version of a variant's case, which must be the one that the discriminant names.
fn case_version(
    members: &Map<String, Value>,
    d: &Description,
    cx: FieldCx<'_>,
    value: i64,
) -> Result<u32, Error> {
    let found = members.get(TYPE).unwrap_or(&Value::Null);
    if found.as_str() != Some(&*d.name) {
        let discriminant = match &cx.field.element {
            Element::Variant(variants) => variants.field.to_string(),
            _ => String::new(),
        };
        return Err(ErrorKind::WrongCase {
            discriminant,
            value,
            expected: d.name.to_string(),
            found: found
                .as_str()
                .map_or_else(|| shown(found), ToOwned::to_owned),
        }
        .into());
    }
    let version = members.get(VERSION).unwrap_or(&Value::Null);
    let number = version.as_u64().and_then(|n| u32::try_from(n).ok());
    number.ok_or_else(|| expected("a version of the case", version))
}

/// Whether a field is one string of bytes, however it is repeated.
fn is_block(cx: &FieldCx<'_>) -> bool {
    cx.field.pointers == Pointers::No
        && matches!(codec(cx), Some(Codec::Buffer(_) | Codec::Bitmap(_)))
}

impl<'j> LoadVisitor for JsonIn<'j> {
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<u32, Error> {
        let json = match role {
            Role::Top => self.root,
            Role::Subsection => match self.frames.last() {
                Some(Frame::Object {
                    subsections: Some(subsections),
                    next,
                    ..
                }) => next
                    .checked_sub(1)
                    .and_then(|i| subsections.values().nth(i))
                    .ok_or_else(misplaced)?,
                _ => return Err(misplaced()),
            },
            Role::Key { .. } => self.peek()?.get("key").ok_or_else(misplaced)?,
            Role::Element { cx, .. } if matches!(cx.field.element, Element::Tree { .. }) => {
                self.next()?.get("value").ok_or_else(misplaced)?
            }
            _ => self.next()?,
        };
        let members = json
            .as_object()
            .ok_or_else(|| expected("an object", json))?;
        let subsections = match members.get(SUBSECTIONS) {
            None => None,
            Some(json) => Some(
                json.as_object()
                    .ok_or_else(|| expected("an object", json))?,
            ),
        };
        let mut own = usize::from(subsections.is_some())
            + usize::from(matches!(role, Role::Subsection) && members.contains_key(VERSION));
        let mut version = version;
        if let Role::Case { cx, value } = role {
            version = case_version(members, d, cx, value)?;
            own += 2;
        }
        self.frames.push(Frame::Object {
            keys: field_keys(d),
            members,
            used: own,
            subsections,
            next: 0,
        });
        Ok(version)
    }

    fn end(&mut self, _d: &Description, _role: Role<'_>) -> Result<(), Error> {
        let Some(Frame::Object {
            keys,
            members,
            used,
            ..
        }) = self.frames.pop()
        else {
            return Err(misplaced());
        };
        if used == members.len() {
            return Ok(());
        }
        let known = |key: &String| key.starts_with('$') || keys.contains(key);
        let name = members.keys().find(|key| !known(key));
        let name = name.or_else(|| members.keys().next_back());
        let name = name.map_or("?", String::as_str);
        Err(Error::format(format!("there is no field {name:?} here")))
    }

    fn field(&mut self, cx: FieldCx<'_>, exists: bool) -> Result<Gate, Error> {
        let unused = matches!(codec(&cx), Some(Codec::Unused(_)));
        let Some(Frame::Object {
            keys,
            members,
            used,
            ..
        }) = self.frames.last_mut()
        else {
            return Err(misplaced());
        };
        let found = keys.get(cx.index).and_then(|key| members.get(key));
        let json = match (exists, found) {
            (false, None) => return Ok(Gate::Skip),
            (false, Some(_)) => {
                return Err(Error::format("the field is there, although it should not"));
            }
            (true, _) if unused => &Value::Null,
            (true, Some(json)) => {
                *used += 1;
                json
            }
            (true, None) if cx.field.conditional => return Ok(Gate::Skip),
            (true, None) => return Err(Error::format("the field is missing")),
        };
        let is_list = matches!(cx.field.element, Element::List(..) | Element::Tree { .. });
        let custom = matches!(codec(&cx), Some(Codec::Custom { .. }));
        let several = is_list || (cx.field.repeat != Repeat::Single && !is_block(&cx));
        let items = match json {
            _ if unused => Items::Many(&[]),
            Value::Array(values) if several || custom => Items::Many(values),
            json if several && !custom => return Err(expected("an array", json)),
            json => Items::One(json),
        };
        if several && !is_list && !custom && items.len() != cx.count {
            return Err(ErrorKind::CountMismatch {
                field: cx
                    .field
                    .count()
                    .map_or("its description", |c| c.source.name())
                    .to_owned(),
                expected: cx.count as u64,
                found: items.len() as u64,
            }
            .into());
        }
        self.frames.push(Frame::Field {
            items,
            at: 0,
            bytes: Vec::new(),
            taken: 0,
        });
        Ok(Gate::Visit)
    }

    fn end_field(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        // An empty block is never asked for.
        if is_block(&cx) && cx.count == 0 {
            self.open_bytes(&cx)?;
        }
        let Some(Frame::Field {
            items,
            at,
            bytes,
            taken,
        }) = self.frames.pop()
        else {
            return Err(misplaced());
        };
        if taken < bytes.len() {
            let more = bytes.len() - taken;
            return Err(Error::format(format!("{more} bytes too many")));
        }
        // Nothing asks for a custom codec's bytes if there are none.
        let empty = |i: usize| items.get(i).is_some_and(|json| json.as_str() == Some(""));
        if (at..items.len()).any(|i| !empty(i)) {
            let more = items.len() - at;
            return Err(Error::format(format!("{more} elements too many")));
        }
        Ok(())
    }

    fn slot(&mut self, cx: FieldCx<'_>, _index: usize, occupied: bool) -> Result<Slot, Error> {
        let absent = self.peek()?.is_null();
        let hole = |expected, found| Err(ErrorKind::Hole { expected, found }.into());
        match (cx.field.pointers, absent) {
            (Pointers::MarkAbsent, true) if occupied => hole("an element", "none"),
            (Pointers::MarkAbsent, false) if !occupied => hole("none", "an element"),
            (_, true) => {
                self.next()?;
                Ok(Slot::Absent)
            }
            (Pointers::MarkEvery, false) => Ok(Slot::New),
            (_, false) => Ok(Slot::InPlace),
        }
    }

    fn scalar(&mut self, cx: FieldCx<'_>, ty: ScalarType) -> Result<u64, Error> {
        match codec(&cx) {
            Some(Codec::Buffer(_)) => {
                let mut byte = [0];
                self.take_bytes(&cx, &mut byte)?;
                Ok(u8::from_be_bytes(byte).into())
            }
            Some(Codec::Bitmap(_)) => {
                let mut word = [0; 8];
                self.take_bytes(&cx, &mut word)?;
                Ok(u64::from_be_bytes(word))
            }
            codec => scalar(codec, ty, self.next()?),
        }
    }

    fn scalars(&mut self, cx: FieldCx<'_>, mut values: SliceMut<'_>) -> Result<(), Error> {
        if let (Some(Codec::Buffer(_)), SliceMut::U8(bytes)) = (codec(&cx), &mut values) {
            return self.take_bytes(&cx, bytes);
        }
        let ty = values.scalar_type();
        for index in 0..values.len() {
            let bits = self
                .scalar(cx, ty)
                .map_err(|e| e.in_element(index as u64))?;
            values.set(index, Scalar::from_bits(ty, bits));
        }
        Ok(())
    }

    fn unused(&mut self, _cx: FieldCx<'_>, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    fn raw(&mut self, cx: FieldCx<'_>, bytes: &mut [u8]) -> Result<(), Error> {
        self.take_bytes(&cx, bytes)
    }

    fn length(&mut self, cx: FieldCx<'_>, max: usize) -> Result<usize, Error> {
        let len = self.open_bytes(&cx)?;
        if len > max {
            return Err(ErrorKind::OutOfRange {
                what: "length",
                found: len.to_string(),
                minimum: 0,
                maximum: max as u64,
            }
            .into());
        }
        Ok(len)
    }

    fn list(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        if !matches!(cx.field.element, Element::Tree { .. }) {
            return Ok(());
        }
        let Some(Frame::Field { items, .. }) = self.frames.last() else {
            return Err(misplaced());
        };
        for index in 0..items.len() {
            let node = items.get(index).and_then(Value::as_object);
            let fits = node.is_some_and(|members| {
                members.len() == 2 && members.contains_key("key") && members.contains_key("value")
            });
            if !fits {
                let e = Error::format("an object with \"key\" and \"value\" expected");
                return Err(e.in_element(index as u64));
            }
        }
        Ok(())
    }

    fn item(&mut self, _cx: FieldCx<'_>, index: usize) -> Result<bool, Error> {
        match self.frames.last() {
            Some(Frame::Field { items, .. }) => Ok(index < items.len()),
            _ => Err(misplaced()),
        }
    }

    fn direct_key(&mut self, _cx: FieldCx<'_>) -> Result<u64, Error> {
        let json = self.peek()?.get("key").ok_or_else(misplaced)?;
        scalar(None, ScalarType::U64, json)
    }

    fn next_subsection(&mut self, owner: &Description) -> Result<Option<(usize, u32)>, Error> {
        let Some(Frame::Object {
            subsections: Some(subsections),
            next,
            ..
        }) = self.frames.last_mut()
        else {
            return Ok(None);
        };
        let Some((name, json)) = subsections.iter().nth(*next) else {
            return Ok(None);
        };
        *next += 1;
        let known = owner.subsections();
        let Some(index) = known.iter().position(|sub| sub.name == name.as_str()) else {
            let names: Vec<_> = known.iter().map(|sub| sub.name()).collect();
            return Err(ErrorKind::UnknownSubsection {
                owner: owner.name.to_string(),
                found: name.clone(),
                known: if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                },
            }
            .into());
        };
        let version = json
            .get(VERSION)
            .and_then(Value::as_u64)
            .and_then(|version| u32::try_from(version).ok())
            .ok_or_else(|| Error::format(format!("subsection {name}: no member \"{VERSION}\"")))?;
        Ok(Some((index, version)))
    }
}
