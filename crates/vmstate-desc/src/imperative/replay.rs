//! From a state, or from bytes, back to calls.

use std::borrow::Cow;

use super::Number;
use crate::codec::{Codec, Scalar};
use crate::description::{Description, DescriptionRef};
use crate::dynamic::{DynState, Value};
use crate::error::{Error, ErrorKind};
use crate::field::{Element, Field, ListKind, Size};
use crate::scalars::Scalars;
use crate::slice::SliceMut;
use crate::visit::{FieldCx, LoadVisitor};

/// Gives a load function what it asks for. See the [module](super).
///
/// Everything fails from the first call on that does not fit.
pub struct Replayer<'a> {
    source: Source<'a>,
}

enum Source<'a> {
    /// The state, and the number of the field that comes next.
    State(&'a DynState, usize),
    Bytes(&'a mut dyn LoadVisitor),
}

impl std::fmt::Debug for Replayer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Replayer");
        if let Source::State(state, next) = &self.source {
            debug.field("state", state).field("next", next);
        }
        debug.finish_non_exhaustive()
    }
}

/// What a call asks for.
fn wanted(name: &str, what: &str) -> String {
    format!("{name} ({what})")
}

fn unfit(asked: String, found: impl Into<Cow<'static, str>>) -> Error {
    ErrorKind::Asked {
        asked: asked.into(),
        found: found.into(),
    }
    .into()
}

impl<'a> Replayer<'a> {
    /// From a state: one that was recorded, or loaded by the description of a recorded one.
    #[must_use]
    pub const fn of_state(state: &'a DynState) -> Self {
        Self {
            source: Source::State(state, 0),
        }
    }

    /// From the bytes of a format that needs no description beforehand: QEMU's. What the calls ask for is what the bytes are; there
    /// is nothing to check them against.
    pub const fn of_bytes(visitor: &'a mut dyn LoadVisitor) -> Self {
        Self {
            source: Source::Bytes(visitor),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// Something else comes, or the input ends.
    pub fn get<T: Number>(&mut self, name: &str) -> Result<T, Error> {
        match &mut self.source {
            Source::State(state, next) => {
                let expected = wanted(name, T::CODEC.name());
                let (field, value) = take(state, next, name, &expected)?;
                let scalar = match value {
                    Value::Scalar(scalar) => Some(*scalar),
                    Value::OddBool(_) => Some(Scalar::Bool(true)),
                    _ => None,
                };
                scalar
                    .and_then(T::from_scalar)
                    .ok_or_else(|| unfit(expected, wanted(name, field.element.type_name())))
            }
            Source::Bytes(visitor) => with_field(name, Element::Value(T::CODEC), |cx| {
                visitor.field(cx, true)?;
                let ty = T::TYPE;
                let bits = visitor.scalar(cx, ty)?;
                visitor.end_field(cx)?;
                T::from_scalar(Scalar::from_bits(ty, bits))
                    .ok_or_else(|| unfit(name.to_owned(), ty.name()))
            }),
        }
    }

    /// Bytes without a length.
    ///
    /// # Errors
    /// Something else comes, or another number of bytes, or the input ends.
    pub fn get_buffer(&mut self, name: &str, into: &mut [u8]) -> Result<(), Error> {
        let expected = wanted(name, &format!("a buffer of {} bytes", into.len()));
        match &mut self.source {
            Source::State(state, next) => match take(state, next, name, &expected)? {
                (_, Value::Scalars(Scalars::U8(bytes))) if bytes.len() == into.len() => {
                    into.copy_from_slice(bytes);
                    Ok(())
                }
                (_, Value::Scalars(Scalars::U8(bytes))) => {
                    let found = format!("a buffer of {} bytes", bytes.len());
                    Err(unfit(expected, wanted(name, &found)))
                }
                (field, _) => Err(unfit(expected, wanted(name, field.element.type_name()))),
            },
            Source::Bytes(visitor) => {
                let size = u32::try_from(into.len()).unwrap_or(u32::MAX);
                let element = Element::Value(Codec::Buffer(Size::Fixed(size)));
                with_field(name, element, |mut cx| {
                    cx.count = into.len();
                    visitor.field(cx, true)?;
                    visitor.scalars(cx, SliceMut::U8(into))?;
                    visitor.end_field(cx)
                })
            }
        }
    }

    /// A length, be32, and at most `max` bytes.
    ///
    /// # Errors
    /// Something else comes, or too much, or the input ends.
    pub fn get_byte_array(&mut self, name: &str, max: u32) -> Result<Vec<u8>, Error> {
        let expected = wanted(name, "a byte array");
        match &mut self.source {
            Source::State(state, next) => match take(state, next, name, &expected)? {
                (_, Value::Bytes(bytes)) if bytes.len() <= max as usize => Ok(bytes.clone()),
                (_, Value::Bytes(bytes)) => Err(Error::new(ErrorKind::OutOfRange {
                    what: "length",
                    found: bytes.len().to_string(),
                    minimum: 0,
                    maximum: max.into(),
                })
                .in_field(name)),
                (field, _) => Err(unfit(expected, wanted(name, field.element.type_name()))),
            },
            Source::Bytes(visitor) => {
                with_field(name, Element::Value(Codec::ByteArray { max }), |cx| {
                    visitor.field(cx, true)?;
                    let length = visitor.length(cx, max as usize)?;
                    let mut bytes = vec![0; length];
                    visitor.raw(cx, &mut bytes)?;
                    visitor.end_field(cx)?;
                    Ok(bytes)
                })
            }
        }
    }

    /// A part with names of its own.
    ///
    /// # Errors
    /// Something else comes, or what `load` returns, or it leaves something over.
    pub fn part<R>(
        &mut self,
        name: &str,
        load: impl FnOnce(&mut Replayer<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        match &mut self.source {
            Source::State(state, next) => {
                let expected = wanted(name, "struct");
                match take(state, next, name, &expected)? {
                    (_, Value::Struct(part)) => {
                        let mut replayer = Replayer::of_state(part);
                        let result =
                            load(&mut replayer).and_then(|r| replayer.finish().map(|()| r));
                        result.map_err(|e| e.in_field(name))
                    }
                    (field, _) => Err(unfit(expected, wanted(name, field.element.type_name()))),
                }
            }
            Source::Bytes(visitor) => {
                load(&mut Replayer::of_bytes(&mut **visitor)).map_err(|e| e.in_field(name))
            }
        }
    }

    /// A loop of at most `max` elements, which `load` takes one by one.
    ///
    /// # Errors
    /// Something else comes, or more elements, or what `load` returns, or it leaves something of an element over.
    pub fn list(
        &mut self,
        name: &str,
        kind: ListKind,
        max: usize,
        mut load: impl FnMut(&mut Replayer<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let too_many = |found: usize| {
            Error::new(ErrorKind::OutOfRange {
                what: "count",
                found: found.to_string(),
                minimum: 0,
                maximum: max as u64,
            })
        };
        match &mut self.source {
            Source::State(state, next) => {
                let expected = wanted(name, kind.name());
                let (field, value) = take(state, next, name, &expected)?;
                let Value::List(elements) = value else {
                    return Err(unfit(expected, wanted(name, field.element.type_name())));
                };
                if elements.len() > max {
                    return Err(too_many(elements.len()).in_field(name));
                }
                for (index, element) in elements.iter().enumerate() {
                    let Value::Struct(element) = element else {
                        return Err(unfit(expected, wanted(name, field.element.type_name())));
                    };
                    let mut replayer = Replayer::of_state(element);
                    let result = load(&mut replayer).and_then(|()| replayer.finish());
                    result.map_err(|e| e.in_element(index as u64).in_field(name))?;
                }
                Ok(())
            }
            Source::Bytes(visitor) => {
                let child = DescriptionRef::from(Description::new("element", 0, 0));
                with_field(name, Element::List(kind, child), |cx| {
                    visitor.field(cx, true)?;
                    visitor.list(cx)?;
                    let mut index = 0;
                    while visitor.item(cx, index)? {
                        if index >= max {
                            return Err(too_many(index.saturating_add(1)));
                        }
                        load(&mut Replayer::of_bytes(&mut **visitor))
                            .map_err(|e| e.in_element(index as u64))?;
                        index = index.saturating_add(1);
                    }
                    visitor.end_field(cx)
                })
            }
        }
    }

    /// Whether everything of a state has been asked for. Of bytes, nobody knows how many there are.
    ///
    /// # Errors
    /// Something is left.
    pub fn finish(&self) -> Result<(), Error> {
        let Source::State(state, next) = &self.source else {
            return Ok(());
        };
        match present(state, *next) {
            None => Ok(()),
            Some((_, field, _)) => Err(unfit(
                "nothing more".to_owned(),
                wanted(&field.name, field.element.type_name()),
            )),
        }
    }
}

/// The next field that is there.
fn present(state: &DynState, next: usize) -> Option<(usize, &Field, &Value)> {
    let mut fields = state.fields().enumerate().skip(next);
    fields
        .find(|(_, (_, value))| **value != Value::Unset)
        .map(|(index, (field, value))| (index, field, value))
}

/// The next field, which must have this name.
fn take<'s>(
    state: &'s DynState,
    next: &mut usize,
    name: &str,
    expected: &str,
) -> Result<(&'s Field, &'s Value), Error> {
    match present(state, *next) {
        Some((index, field, value)) if field.name == name => {
            *next = index.saturating_add(1);
            Ok((field, value))
        }
        Some((_, field, _)) => Err(unfit(
            expected.to_owned(),
            wanted(&field.name, field.element.type_name()),
        )),
        None => Err(unfit(expected.to_owned(), "nothing more")),
    }
}

/// Calls `f` with the context of a field that stands alone.
fn with_field<R>(
    name: &str,
    element: Element,
    f: impl FnOnce(FieldCx<'_>) -> Result<R, Error>,
) -> Result<R, Error> {
    let mut field = Field::new("", element);
    field.name = Cow::Owned(name.to_owned());
    let mut description = Description::new("hand-written", 0, 0);
    description.fields = vec![field].into();
    let Some(field) = description.fields().first() else {
        return Err(unfit(name.to_owned(), "nothing"));
    };
    f(FieldCx {
        description: &description,
        index: 0,
        field,
        count: 1,
    })
    .map_err(|e| e.in_field(name))
}
