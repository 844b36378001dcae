//! Slices of scalars: arrays travel in one call.

use crate::codec::{Scalar, ScalarType};

/// Elements of a scalar array, borrowed for saving.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Slice<'a> {
    /// `bool`
    Bool(&'a [bool]),
    /// `u8`
    U8(&'a [u8]),
    /// `u16`
    U16(&'a [u16]),
    /// `u32`
    U32(&'a [u32]),
    /// `u64`
    U64(&'a [u64]),
    /// `i8`
    I8(&'a [i8]),
    /// `i16`
    I16(&'a [i16]),
    /// `i32`
    I32(&'a [i32]),
    /// `i64`
    I64(&'a [i64]),
    /// `f64`
    F64(&'a [f64]),
}

/// Elements of a scalar array, borrowed for loading.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum SliceMut<'a> {
    /// `bool`
    Bool(&'a mut [bool]),
    /// `u8`
    U8(&'a mut [u8]),
    /// `u16`
    U16(&'a mut [u16]),
    /// `u32`
    U32(&'a mut [u32]),
    /// `u64`
    U64(&'a mut [u64]),
    /// `i8`
    I8(&'a mut [i8]),
    /// `i16`
    I16(&'a mut [i16]),
    /// `i32`
    I32(&'a mut [i32]),
    /// `i64`
    I64(&'a mut [i64]),
    /// `f64`
    F64(&'a mut [f64]),
}

macro_rules! each {
    ($self:expr, $v:ident => $body:expr) => {
        match $self {
            Self::Bool($v) => $body,
            Self::U8($v) => $body,
            Self::U16($v) => $body,
            Self::U32($v) => $body,
            Self::U64($v) => $body,
            Self::I8($v) => $body,
            Self::I16($v) => $body,
            Self::I32($v) => $body,
            Self::I64($v) => $body,
            Self::F64($v) => $body,
        }
    };
}

/// What both directions can tell.
macro_rules! readable {
    ($slice:ident: $($variant:ident)*) => {
        impl $slice<'_> {
            /// Number of elements.
            #[must_use]
            pub const fn len(&self) -> usize {
                each!(self, v => v.len())
            }

            /// Whether there are none.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Type of the elements.
            #[must_use]
            pub const fn scalar_type(&self) -> ScalarType {
                match self {
                    $(Self::$variant(_) => ScalarType::$variant,)*
                }
            }

            /// The element at `index`.
            #[must_use]
            pub fn get(&self, index: usize) -> Option<Scalar> {
                match self {
                    $(Self::$variant(values) => values.get(index).copied().map(Scalar::$variant),)*
                }
            }
        }
    };
}

readable!(Slice: Bool U8 U16 U32 U64 I8 I16 I32 I64 F64);
readable!(SliceMut: Bool U8 U16 U32 U64 I8 I16 I32 I64 F64);

impl SliceMut<'_> {
    /// Stores `value` at `index`. A value of another type, or an index beyond the end, changes nothing.
    pub fn set(&mut self, index: usize, value: Scalar) {
        macro_rules! set {
            ($($variant:ident)*) => {
                match (self, value) {
                    $((Self::$variant(values), Scalar::$variant(value)) => {
                        if let Some(slot) = values.get_mut(index) {
                            *slot = value;
                        }
                    })*
                    _ => {}
                }
            };
        }
        set!(Bool U8 U16 U32 U64 I8 I16 I32 I64 F64);
    }
}
