//! Arrays of scalars that own their elements.

use crate::codec::{Scalar, ScalarType};
use crate::slice::{Slice, SliceMut};

/// Elements of a scalar array.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Scalars {
    /// `bool`
    Bool(Vec<bool>),
    /// `u8`
    U8(Vec<u8>),
    /// `u16`
    U16(Vec<u16>),
    /// `u32`
    U32(Vec<u32>),
    /// `u64`
    U64(Vec<u64>),
    /// `i8`
    I8(Vec<i8>),
    /// `i16`
    I16(Vec<i16>),
    /// `i32`
    I32(Vec<i32>),
    /// `i64`
    I64(Vec<i64>),
    /// `f64`
    F64(Vec<f64>),
}

impl Scalars {
    /// None of this type.
    #[must_use]
    pub const fn new(ty: ScalarType) -> Self {
        match ty {
            ScalarType::Bool => Self::Bool(Vec::new()),
            ScalarType::U8 => Self::U8(Vec::new()),
            ScalarType::U16 => Self::U16(Vec::new()),
            ScalarType::U32 => Self::U32(Vec::new()),
            ScalarType::U64 => Self::U64(Vec::new()),
            ScalarType::I8 => Self::I8(Vec::new()),
            ScalarType::I16 => Self::I16(Vec::new()),
            ScalarType::I32 => Self::I32(Vec::new()),
            ScalarType::I64 => Self::I64(Vec::new()),
            ScalarType::F64 => Self::F64(Vec::new()),
        }
    }

    /// All elements.
    #[must_use]
    pub const fn as_slice(&self) -> Slice<'_> {
        match self {
            Self::Bool(v) => Slice::Bool(v.as_slice()),
            Self::U8(v) => Slice::U8(v.as_slice()),
            Self::U16(v) => Slice::U16(v.as_slice()),
            Self::U32(v) => Slice::U32(v.as_slice()),
            Self::U64(v) => Slice::U64(v.as_slice()),
            Self::I8(v) => Slice::I8(v.as_slice()),
            Self::I16(v) => Slice::I16(v.as_slice()),
            Self::I32(v) => Slice::I32(v.as_slice()),
            Self::I64(v) => Slice::I64(v.as_slice()),
            Self::F64(v) => Slice::F64(v.as_slice()),
        }
    }

    /// Type of the elements.
    #[must_use]
    pub const fn scalar_type(&self) -> ScalarType {
        self.as_slice().scalar_type()
    }

    /// Number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Scalar> {
        self.as_slice().get(index)
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Scalar> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// Appends a value; one of another type changes nothing.
    pub fn push(&mut self, value: Scalar) {
        match (self, value) {
            (Self::Bool(v), Scalar::Bool(x)) => v.push(x),
            (Self::U8(v), Scalar::U8(x)) => v.push(x),
            (Self::U16(v), Scalar::U16(x)) => v.push(x),
            (Self::U32(v), Scalar::U32(x)) => v.push(x),
            (Self::U64(v), Scalar::U64(x)) => v.push(x),
            (Self::I8(v), Scalar::I8(x)) => v.push(x),
            (Self::I16(v), Scalar::I16(x)) => v.push(x),
            (Self::I32(v), Scalar::I32(x)) => v.push(x),
            (Self::I64(v), Scalar::I64(x)) => v.push(x),
            (Self::F64(v), Scalar::F64(x)) => v.push(x),
            _ => {}
        }
    }

    /// Appends `n` zeros and lends them.
    pub(crate) fn grow(&mut self, n: usize) -> SliceMut<'_> {
        macro_rules! grown {
            ($($variant:ident),*) => {
                match self {
                    $(Self::$variant(v) => {
                        let start = v.len();
                        v.resize(start + n, Default::default());
                        SliceMut::$variant(v.get_mut(start..).unwrap_or_default())
                    })*
                }
            };
        }
        grown!(Bool, U8, U16, U32, U64, I8, I16, I32, I64, F64)
    }
}
