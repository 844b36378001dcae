//! From calls to a state with a description.

use std::borrow::Cow;

use super::Number;
use crate::check::DescriptionError;
use crate::codec::{Codec, Scalar};
use crate::description::{Description, DescriptionRef};
use crate::dynamic::{DynState, Value};
use crate::field::{Element, Field, ListKind, Size};
use crate::scalars::Scalars;

/// The calls of a run make no description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A struct has two fields of one name.
    #[error("{path}: put twice")]
    Twice {
        /// The field.
        path: String,
    },
    /// The elements of a list have their fields in different orders.
    #[error("{path}: put in another order than in an earlier element")]
    Order {
        /// The field.
        path: String,
    },
    /// A field is something else in another element of the list.
    #[error("{path}: is {now}, and was {before} in an earlier element")]
    Changed {
        /// The field.
        path: String,
        /// What it was at first.
        before: String,
        /// What it is now.
        now: String,
    },
    /// A buffer of 4 GiB and more.
    #[error("{path}: a buffer of {bytes} bytes")]
    TooLong {
        /// The field.
        path: String,
        /// Its length.
        bytes: usize,
    },
    /// A name, say, that is none.
    #[error(transparent)]
    Description(#[from] DescriptionError),
}

/// Takes what a save function puts. See the [module](super).
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    calls: Vec<(String, Call)>,
}

#[derive(Debug, Clone)]
enum Call {
    Number(Codec, Scalar),
    Buffer(Vec<u8>),
    ByteArray(Vec<u8>),
    Struct(Recorder),
    List(ListKind, Vec<Recorder>),
}

impl Recorder {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A number.
    pub fn put<T: Number>(&mut self, name: &str, value: T) {
        self.call(name, Call::Number(T::CODEC, value.to_scalar()));
    }

    /// Bytes without a length, of which there are always as many.
    pub fn put_buffer(&mut self, name: &str, bytes: &[u8]) {
        self.call(name, Call::Buffer(bytes.to_vec()));
    }

    /// A length, be32, and bytes.
    pub fn put_byte_array(&mut self, name: &str, bytes: &[u8]) {
        self.call(name, Call::ByteArray(bytes.to_vec()));
    }

    /// A part with names of its own: no bytes beside those of its members.
    pub fn part(&mut self, name: &str, save: impl FnOnce(&mut Self)) {
        let mut part = Self::new();
        save(&mut part);
        self.call(name, Call::Struct(part));
    }

    /// A loop.
    pub fn list<T>(
        &mut self,
        name: &str,
        kind: ListKind,
        elements: impl IntoIterator<Item = T>,
        mut save: impl FnMut(&mut Self, T),
    ) {
        let elements = elements.into_iter().map(|element| {
            let mut part = Self::new();
            save(&mut part, element);
            part
        });
        let elements = elements.collect();
        self.call(name, Call::List(kind, elements));
    }

    fn call(&mut self, name: &str, call: Call) {
        self.calls.push((name.to_owned(), call));
    }

    /// Everything that was put, with a description of this name and version. Members of a list's elements that are not in all
    /// of them are conditional.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn finish(self, name: &str, version_id: u32) -> Result<DynState, RecordError> {
        let mut shape = Shape::default();
        shape.merge(&self, name)?;
        let description = shape.description(name, version_id);
        description.check()?;
        Ok(state(self, &description.into()))
    }
}

/// What several runs of the same code have put.
#[derive(Debug, Default)]
struct Shape {
    fields: Vec<(String, Kind, usize)>,
    runs: usize,
}

#[derive(Debug)]
enum Kind {
    Number(Codec),
    Buffer(u32),
    ByteArray,
    Struct(Shape),
    List(ListKind, Shape),
}

impl Kind {
    fn text(&self) -> String {
        match self {
            Self::Number(codec) => codec.name().to_owned(),
            Self::Buffer(bytes) => format!("a buffer of {bytes} bytes"),
            Self::ByteArray => "a byte array".to_owned(),
            Self::Struct(_) => "a part".to_owned(),
            Self::List(kind, _) => format!("a {}", kind.name()),
        }
    }
}

impl Shape {
    fn merge(&mut self, run: &Recorder, path: &str) -> Result<(), RecordError> {
        self.runs = self.runs.saturating_add(1);
        let mut next = 0;
        for (name, call) in &run.calls {
            let path = format!("{path}/{name}");
            let at = self.fields.iter().position(|(known, ..)| known == name);
            let at = match at {
                Some(at) if at >= next => at,
                // Behind `next` it was put before: by this run, or by an earlier one in another order.
                Some(_) if run.calls.iter().filter(|(other, _)| other == name).count() > 1 => {
                    return Err(RecordError::Twice { path });
                }
                Some(_) => return Err(RecordError::Order { path }),
                None => {
                    let field = (name.clone(), first(call, &path)?, 0);
                    self.fields.insert(next, field);
                    next
                }
            };
            if let Some((_, kind, seen)) = self.fields.get_mut(at) {
                again(kind, call, &path)?;
                *seen = seen.saturating_add(1);
            }
            next = at.saturating_add(1);
        }
        Ok(())
    }

    fn description(&self, name: &str, version_id: u32) -> Description {
        let fields = self.fields.iter().map(|(name, kind, seen)| {
            let child = |shape: &Self| DescriptionRef::from(shape.description(name, version_id));
            let element = match kind {
                Kind::Number(codec) => Element::Value(codec.clone()),
                Kind::Buffer(bytes) => Element::Value(Codec::Buffer(Size::Fixed(*bytes))),
                Kind::ByteArray => Element::Value(Codec::ByteArray { max: u32::MAX }),
                Kind::Struct(shape) => Element::Struct(child(shape)),
                Kind::List(kind, shape) => Element::List(*kind, child(shape)),
            };
            let mut field = Field::new("", element);
            field.name = Cow::Owned(name.clone());
            // Elements of a list are loaded at the field's version.
            if matches!(kind, Kind::List(..)) {
                field.version_id = version_id;
            }
            field.conditional = *seen < self.runs;
            field
        });
        let mut description = Description::new("", version_id, version_id);
        description.name = Cow::Owned(name.to_owned());
        description.fields = fields.collect();
        description
    }
}

/// What a call says before anything is known.
fn first(call: &Call, path: &str) -> Result<Kind, RecordError> {
    Ok(match call {
        Call::Number(codec, _) => Kind::Number(codec.clone()),
        Call::Buffer(bytes) => {
            Kind::Buffer(
                u32::try_from(bytes.len()).map_err(|_| RecordError::TooLong {
                    path: path.to_owned(),
                    bytes: bytes.len(),
                })?,
            )
        }
        Call::ByteArray(_) => Kind::ByteArray,
        Call::Struct(_) => Kind::Struct(Shape::default()),
        Call::List(kind, _) => Kind::List(*kind, Shape::default()),
    })
}

/// What it adds to what is known.
fn again(kind: &mut Kind, call: &Call, path: &str) -> Result<(), RecordError> {
    match (&mut *kind, call) {
        (Kind::Number(known), Call::Number(codec, _)) if known == codec => Ok(()),
        (Kind::Buffer(known), Call::Buffer(bytes)) if u32::try_from(bytes.len()) == Ok(*known) => {
            Ok(())
        }
        (Kind::ByteArray, Call::ByteArray(_)) => Ok(()),
        (Kind::Struct(shape), Call::Struct(part)) => shape.merge(part, path),
        (Kind::List(known, shape), Call::List(kind, elements)) if known == kind => {
            for (index, element) in elements.iter().enumerate() {
                shape.merge(element, &format!("{path}[{index}]"))?;
            }
            Ok(())
        }
        _ => Err(RecordError::Changed {
            path: path.to_owned(),
            before: kind.text(),
            now: first(call, path)?.text(),
        }),
    }
}

/// The values of a run, for a description that it belongs to.
fn state(run: Recorder, description: &DescriptionRef) -> DynState {
    let mut state = DynState::new(description.clone());
    for (name, call) in run.calls {
        let child = || {
            let index = description.field_index(&name)?;
            description.fields().get(index)?.element.child().cloned()
        };
        let value = match (call, child()) {
            (Call::Number(_, scalar), _) => Value::Scalar(scalar),
            (Call::Buffer(bytes), _) => Value::Scalars(Scalars::U8(bytes)),
            (Call::ByteArray(bytes), _) => Value::Bytes(bytes),
            (Call::Struct(part), Some(child)) => self::state(part, &child).into(),
            (Call::List(_, elements), Some(child)) => {
                let elements = elements.into_iter();
                Value::List(
                    elements
                        .map(|run| self::state(run, &child).into())
                        .collect(),
                )
            }
            // They have a description, which has just been made.
            (Call::Struct(_) | Call::List(..), None) => Value::Unset,
        };
        state.set(&name, value);
    }
    state
}
