//! Conversions between runtime state and mirror, and the two phases of a restore.

use std::fmt::{Debug, Display};

use crate::error::Reason;
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

/// Why a conversion or a validator refuses: anything that can be printed.
#[must_use]
pub fn reason(error: impl Display) -> Reason {
    Reason::new(error.to_string())
}

/// Converts a value that is copied, or says which one cannot be converted.
///
/// # Errors
/// The conversion's, as text.
pub fn try_convert<F, T, E: Display>(
    value: F,
    shown: Option<String>,
    convert: impl FnOnce(F) -> Result<T, E>,
) -> Result<T, InvalidError> {
    convert(value).map_err(|e| InvalidError::new(reason(e)).with_text(shown))
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
