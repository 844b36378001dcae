//! Values of fields that are more than a call of [`FieldValue`].

use crate::error::{Error, ErrorKind, Reason};
use crate::state::{LoadField, SaveField, Tmp};
use crate::value::FieldValue;

/// A number that can count elements. Those that do not fit become `i64::MAX`, which no bound allows.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot count elements",
    label = "not an integer",
    note = "a count is a `u8`, `u16`, `u32` or `i32` field; `count_with` may return any integer"
)]
pub trait ToCount: Copy {
    /// The number.
    fn to_count(self) -> i64;
}

macro_rules! to_count {
    ($($ty:ident)*) => {$(
        impl ToCount for $ty {
            fn to_count(self) -> i64 {
                i64::try_from(self).unwrap_or(i64::MAX)
            }
        }
    )*};
}

to_count!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize);

/// Saves `values[from..to]`.
///
/// # Errors
/// What `sink` returns.
pub fn save_range<T: FieldValue>(
    values: &[T],
    from: usize,
    to: usize,
    sink: &mut dyn SaveField,
) -> Result<(), Error> {
    T::save_all(values.get(from..to).unwrap_or_default(), sink)
}

/// Loads `values[from..to]`.
///
/// # Errors
/// What `source` returns.
pub fn load_range<T: FieldValue>(
    values: &mut [T],
    from: usize,
    to: usize,
    source: &mut dyn LoadField,
) -> Result<(), Error> {
    T::load_all(values.get_mut(from..to).unwrap_or_default(), source)
}

/// Most bytes that are taken before they have arrived.
const CHUNK: usize = 4096;

/// Loads bytes whose length the stream has announced.
///
/// # Errors
/// What `source` returns.
pub fn load_bytes(bytes: &mut Vec<u8>, source: &mut dyn LoadField) -> Result<(), Error> {
    bytes.clear();
    let len = source.count();
    while bytes.len() < len {
        let start = bytes.len();
        let n = (len - start).min(CHUNK);
        source.reserve(n)?;
        bytes.resize(start + n, 0);
        source.raw(bytes.get_mut(start..).unwrap_or_default())?;
    }
    Ok(())
}

/// Saves a temporary that is made from `parent`.
///
/// # Errors
/// What `sink` returns, and the temporary's refusal.
pub fn save_tmp<T: Tmp<P>, P>(parent: &P, sink: &mut dyn SaveField) -> Result<(), Error> {
    let tmp = T::capture(parent).map_err(|reason| Error::refused("tmp", reason))?;
    sink.child(&tmp)
}

/// Loads a temporary and writes it back into `parent`.
///
/// # Errors
/// What `source` returns, and the temporary's refusal.
pub fn load_tmp<T: Tmp<P>, P>(parent: &mut P, source: &mut dyn LoadField) -> Result<(), Error> {
    let mut tmp = T::default();
    source.child(&mut tmp)?;
    tmp.apply(parent)
        .map_err(|reason| source.refuse_field("tmp", reason))
}

/// The error of a value that no variant of an enum has.
pub fn unknown_value(
    found: impl std::fmt::Display,
    known: &'static str,
    source: &dyn LoadField,
) -> Error {
    source.refuse(
        "repr",
        Reason::new(format!("{found} is none of the known values {known}")),
    )
}

/// The error of an accessor that is asked for a field that it does not have.
#[must_use]
pub fn no_field(field: usize) -> Error {
    ErrorKind::Accessor {
        expected: "a field with a value".into(),
        found: format!("field number {field}").into(),
    }
    .into()
}
