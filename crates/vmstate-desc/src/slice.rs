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

impl Slice<'_> {
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
            Self::Bool(_) => ScalarType::Bool,
            Self::U8(_) => ScalarType::U8,
            Self::U16(_) => ScalarType::U16,
            Self::U32(_) => ScalarType::U32,
            Self::U64(_) => ScalarType::U64,
            Self::I8(_) => ScalarType::I8,
            Self::I16(_) => ScalarType::I16,
            Self::I32(_) => ScalarType::I32,
            Self::I64(_) => ScalarType::I64,
            Self::F64(_) => ScalarType::F64,
        }
    }

    /// The element at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Scalar> {
        match self {
            Self::Bool(values) => values.get(index).copied().map(Scalar::Bool),
            Self::U8(values) => values.get(index).copied().map(Scalar::U8),
            Self::U16(values) => values.get(index).copied().map(Scalar::U16),
            Self::U32(values) => values.get(index).copied().map(Scalar::U32),
            Self::U64(values) => values.get(index).copied().map(Scalar::U64),
            Self::I8(values) => values.get(index).copied().map(Scalar::I8),
            Self::I16(values) => values.get(index).copied().map(Scalar::I16),
            Self::I32(values) => values.get(index).copied().map(Scalar::I32),
            Self::I64(values) => values.get(index).copied().map(Scalar::I64),
            Self::F64(values) => values.get(index).copied().map(Scalar::F64),
        }
    }
}

impl SliceMut<'_> {
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
            Self::Bool(_) => ScalarType::Bool,
            Self::U8(_) => ScalarType::U8,
            Self::U16(_) => ScalarType::U16,
            Self::U32(_) => ScalarType::U32,
            Self::U64(_) => ScalarType::U64,
            Self::I8(_) => ScalarType::I8,
            Self::I16(_) => ScalarType::I16,
            Self::I32(_) => ScalarType::I32,
            Self::I64(_) => ScalarType::I64,
            Self::F64(_) => ScalarType::F64,
        }
    }

    /// The element at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Scalar> {
        match self {
            Self::Bool(values) => values.get(index).copied().map(Scalar::Bool),
            Self::U8(values) => values.get(index).copied().map(Scalar::U8),
            Self::U16(values) => values.get(index).copied().map(Scalar::U16),
            Self::U32(values) => values.get(index).copied().map(Scalar::U32),
            Self::U64(values) => values.get(index).copied().map(Scalar::U64),
            Self::I8(values) => values.get(index).copied().map(Scalar::I8),
            Self::I16(values) => values.get(index).copied().map(Scalar::I16),
            Self::I32(values) => values.get(index).copied().map(Scalar::I32),
            Self::I64(values) => values.get(index).copied().map(Scalar::I64),
            Self::F64(values) => values.get(index).copied().map(Scalar::F64),
        }
    }

    /// Stores `value` at `index`. A value of another type, or an index beyond the end, changes nothing.
    pub fn set(&mut self, index: usize, value: Scalar) {
        match (self, value) {
            (Self::Bool(values), Scalar::Bool(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            (Self::U8(values), Scalar::U8(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            (Self::U16(values), Scalar::U16(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            (Self::U32(values), Scalar::U32(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            (Self::U64(values), Scalar::U64(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            (Self::I8(values), Scalar::I8(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            (Self::I16(values), Scalar::I16(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            (Self::I32(values), Scalar::I32(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            (Self::I64(values), Scalar::I64(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            (Self::F64(values), Scalar::F64(value)) => {
                if let Some(slot) = values.get_mut(index) {
                    *slot = value;
                }
            }
            _ => {}
        }
    }
}
