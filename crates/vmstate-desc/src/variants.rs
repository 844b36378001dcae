//! Variants: one of several descriptions, chosen by an earlier field.

use std::borrow::Cow;

use crate::description::DescriptionRef;
use crate::error::{Error, ErrorKind};
use crate::state::{LoadField, SaveField, SaveState};

/// Most cases of a variant.
pub const MAX_CASES: usize = 4096;

/// How many values of cases an error lists.
const LISTED: usize = 8;

/// What a variant can be, and what decides about it.
///
/// On QEMU's wire there is nothing but the state of the chosen case: no marker. The discriminant is an integer that stands
/// before it in the same description, and is there whenever the variant is.
///
/// ```
/// use vmstate_desc::{Codec, Description, Element, Field, VariantCase, Variants};
///
/// static LINE: Description =
///     Description::new("line", 1, 1).with_fields(const { &[Field::value("level", Codec::Bool)] });
/// static MESSAGE: Description = Description::new("message", 1, 1)
///     .with_fields(const { &[Field::value("address", Codec::Uint64), Field::value("data", Codec::Uint32)] });
/// static CASES: [VariantCase; 2] = [VariantCase::new(0, &LINE), VariantCase::new(3, &MESSAGE)];
/// static ROUTE: Description = Description::new("route", 1, 1).with_fields(
///     const {
///         &[
///             Field::value("kind", Codec::Uint32),
///             Field::new("target", Element::Variant(Variants::new("kind", &CASES))),
///         ]
///     },
/// );
/// assert!(ROUTE.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Variants {
    /// Name of the discriminant: an earlier integer field of the same description.
    pub field: Cow<'static, str>,
    /// The cases, in ascending order of their values. At most [`MAX_CASES`].
    pub cases: Cow<'static, [VariantCase]>,
}

/// One case of a variant.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantCase {
    /// Value of the discriminant.
    pub value: i64,
    /// What follows then.
    pub description: DescriptionRef,
}

impl VariantCase {
    /// What follows if the discriminant has this value.
    #[must_use]
    pub const fn new(value: i64, description: &'static crate::Description) -> Self {
        Self {
            value,
            description: DescriptionRef::Static(description),
        }
    }
}

impl Variants {
    /// These cases, in ascending order, chosen by the field with this name.
    #[must_use]
    pub const fn new(field: &'static str, cases: &'static [VariantCase]) -> Self {
        Self {
            field: Cow::Borrowed(field),
            cases: Cow::Borrowed(cases),
        }
    }

    /// The cases, also in constants.
    #[must_use]
    pub const fn cases(&self) -> &[VariantCase] {
        match &self.cases {
            Cow::Borrowed(cases) => cases,
            Cow::Owned(cases) => cases.as_slice(),
        }
    }

    /// What follows if the discriminant has this value.
    #[must_use]
    pub fn case(&self, value: i64) -> Option<&DescriptionRef> {
        let cases = self.cases();
        let at = cases.binary_search_by_key(&value, |case| case.value).ok()?;
        cases.get(at).map(|case| &case.description)
    }

    /// The case that `state` has chosen for field number `index`, which is this variant.
    pub(crate) fn chosen<S: SaveState + ?Sized>(
        &self,
        state: &S,
        index: usize,
    ) -> Result<(i64, &DescriptionRef), Error> {
        let Some(value) = state.count(index) else {
            return Err(ErrorKind::Accessor {
                expected: "the value of a discriminant".into(),
                found: "none".into(),
            }
            .into());
        };
        match self.case(value) {
            Some(case) => Ok((value, case)),
            None => Err(self.unknown(value)),
        }
    }

    /// Refuses a state that is not of this case.
    pub(crate) fn expect(
        &self,
        value: i64,
        case: &DescriptionRef,
        found: &DescriptionRef,
    ) -> Result<(), Error> {
        if case == found {
            return Ok(());
        }
        let mut shown = found.name.to_string();
        if case.name == found.name {
            shown.push_str(" of another shape");
        }
        Err(ErrorKind::WrongCase {
            discriminant: self.field.to_string(),
            value,
            expected: case.name.to_string(),
            found: shown,
        }
        .into())
    }

    fn unknown(&self, found: i64) -> Error {
        let mut known: Vec<String> = self
            .cases()
            .iter()
            .take(LISTED)
            .map(|case| case.value.to_string())
            .collect();
        if self.cases().len() > LISTED {
            known.push("…".to_owned());
        }
        ErrorKind::UnknownCase {
            discriminant: self.field.to_string(),
            found,
            known: known.join(", "),
        }
        .into()
    }
}

/// A type that can be a variant: an enum of which each variant has the state of one case.
///
/// Written by `#[derive(VmState)]` for an enum whose variants have a `case`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no cases",
    label = "not a variant",
    note = "derive `VmState` for an enum whose variants are `#[vmstate(case = 1)] Name(State)`"
)]
pub trait VariantValue {
    /// The cases, in ascending order of their values.
    const CASES: &'static [VariantCase];

    /// Gives the state to `sink`.
    ///
    /// # Errors
    /// What `sink` returns; also if the state is not of the case that the discriminant names.
    fn save_case(&self, sink: &mut dyn SaveField) -> Result<(), Error>;

    /// Takes the state of case [`LoadField::case`] from `source`: in place, if there is one of this case.
    ///
    /// # Errors
    /// What `source` returns.
    fn load_case(&mut self, source: &mut dyn LoadField) -> Result<(), Error>;
}

impl<T: VariantValue> VariantValue for Box<T> {
    const CASES: &'static [VariantCase] = T::CASES;

    fn save_case(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        T::save_case(self, sink)
    }

    fn load_case(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        T::load_case(self, source)
    }
}
