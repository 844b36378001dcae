//! Cases of variants.

use std::marker::PhantomData;

use crate::description::{Description, DescriptionRef};
use crate::error::{Error, Reason};
use crate::field::Element;
use crate::state::{LoadField, LoadState, SaveField, SaveState};
use crate::value::FieldValue;
use crate::variants::VariantCase;

struct Of<T>(PhantomData<T>);

impl<T: FieldValue> Of<T> {
    /// By reference, since constants cannot drop an element.
    const ELEMENT: &'static Element = &T::ELEMENT;
}

/// The case with the state of `T`.
///
/// # Panics
/// If `T` is not an embedded state.
#[must_use]
pub const fn case<T: FieldValue>(value: i64) -> VariantCase {
    match Of::<T>::ELEMENT {
        Element::Struct(DescriptionRef::Static(description)) => {
            VariantCase::new(value, description)
        }
        _ => panic!("a case has the state of a type that derives VmState"),
    }
}

/// A number that can choose a case. Those that do not fit become `i64::MAX`, which no case has.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot choose a case",
    label = "not an integer",
    note = "a discriminant is an integer field, or an enum with `#[vmstate(repr = u8)]`"
)]
pub trait ToDiscriminant {
    /// The number.
    fn to_discriminant(&self) -> i64;
}

macro_rules! to_discriminant {
    ($($ty:ident)*) => {$(
        impl ToDiscriminant for $ty {
            fn to_discriminant(&self) -> i64 {
                i64::try_from(*self).unwrap_or(i64::MAX)
            }
        }
    )*};
}

to_discriminant!(u8 u16 u32 u64 i8 i16 i32 i64);

/// The state of a case that has none: a description without fields.
#[derive(Debug, Clone, Copy)]
pub struct Nothing(pub &'static Description);

impl SaveState for Nothing {
    fn description(&self) -> DescriptionRef {
        DescriptionRef::Static(self.0)
    }

    fn save_field(&self, field: usize, _sink: &mut dyn SaveField) -> Result<(), Error> {
        Err(super::access::no_field(field))
    }
}

impl LoadState for Nothing {
    fn load_field(&mut self, field: usize, _source: &mut dyn LoadField) -> Result<(), Error> {
        Err(super::access::no_field(field))
    }
}

/// The error of a case that the type does not have.
pub fn no_case(source: &dyn LoadField) -> Error {
    let text = match source.case() {
        Some(value) => format!("there is no case {value}"),
        None => "the field is not a variant".to_owned(),
    };
    source.refuse("variant", Reason::new(text))
}
