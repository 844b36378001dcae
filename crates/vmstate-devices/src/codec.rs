//! Numbers within custom codecs.

use vmstate_desc::{Error, LoadField, SaveField, Scalar};

/// An integer that a custom codec sends big-endian.
pub(crate) trait Word: Sized {
    /// As a scalar.
    fn scalar(self) -> Scalar;
    /// From a scalar of the same type.
    fn from_scalar(scalar: Scalar) -> Option<Self>;
    /// Any value: says the type.
    const ZERO: Self;
}

macro_rules! word {
    ($($ty:ident $variant:ident,)*) => {$(
        impl Word for $ty {
            const ZERO: Self = 0;

            fn scalar(self) -> Scalar {
                Scalar::$variant(self)
            }

            fn from_scalar(scalar: Scalar) -> Option<Self> {
                match scalar {
                    Scalar::$variant(value) => Some(value),
                    _ => None,
                }
            }
        }
    )*};
}

word! {
    u8 U8,
    u16 U16,
    u32 U32,
    u64 U64,
}

/// Saves one number.
pub(crate) fn put<T: Word>(sink: &mut dyn SaveField, value: T) -> Result<(), Error> {
    sink.scalar(value.scalar())
}

/// Loads one number; `name` is for errors.
pub(crate) fn get<T: Word>(source: &mut dyn LoadField, name: &str) -> Result<T, Error> {
    source
        .scalar(Some(T::ZERO.scalar()))
        .and_then(|scalar| {
            T::from_scalar(scalar)
                .ok_or_else(|| source.refuse("custom", "a number of another type".into()))
        })
        .map_err(|e| e.in_field(name))
}
