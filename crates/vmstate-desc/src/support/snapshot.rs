//! Conversions between runtime state and mirror, and the two phases of a restore.

use std::fmt::{Debug, Display};

use crate::snapshot::InvalidError;
use crate::snapshot::error::shown;

pub use crate::snapshot::suspend::{checked, suspend};

/// A value that can be copied out of a device.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not `Copy`, and a snapshot cannot move it out of the device",
    label = "needs a clone",
    note = "add `clone`: `#[migration_state(clone, into(…))]`"
)]
pub trait CopyOut {
    /// The copy.
    #[must_use]
    fn copy_out(&self) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Copy> CopyOut for T {
    #[inline]
    fn copy_out(&self) -> Self {
        *self
    }
}

/// The error of a conversion or a validator that refuses, with the value where that can be shown.
#[must_use]
pub fn refused(why: impl Display, shown: Option<String>) -> InvalidError {
    InvalidError::new(why.to_string()).with_text(shown)
}

/// The number of elements, for the field that counts them.
///
/// # Errors
/// If there are more than the field's type can say.
pub fn length<T: TryFrom<usize>>(len: usize) -> Result<T, InvalidError> {
    T::try_from(len)
        .map_err(|_| InvalidError::new(format!("{len} elements are more than their count can say")))
}

/// The text of a value whose type can be printed. What the derive calls as `Value(&value).shown()`: where the type is no
/// `Debug`, [`NotShown`] answers in its place.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a, T: ?Sized>(pub &'a T);

impl<T: Debug> Value<'_, T> {
    /// The text, cut where it is long.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        Some(shown(self.0))
    }
}

/// Nothing to show.
pub trait NotShown {
    /// None.
    #[must_use]
    fn shown(&self) -> Option<String> {
        None
    }
}

impl<T: ?Sized> NotShown for Value<'_, T> {}
