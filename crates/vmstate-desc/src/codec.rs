//! Codecs: how one element is encoded. QEMU calls this `VMStateInfo`.

use std::borrow::Cow;
use std::fmt;

use crate::field::Size;

/// A scalar's type in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScalarType {
    /// `bool`
    Bool,
    /// `u8`
    U8,
    /// `u16`
    U16,
    /// `u32`
    U32,
    /// `u64`
    U64,
    /// `i8`
    I8,
    /// `i16`
    I16,
    /// `i32`
    I32,
    /// `i64`
    I64,
    /// `f64`
    F64,
}

impl ScalarType {
    /// Bytes that a value of this type takes in every stream.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The Rust type's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// One scalar value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Scalar {
    /// `bool`
    Bool(bool),
    /// `u8`
    U8(u8),
    /// `u16`
    U16(u16),
    /// `u32`
    U32(u32),
    /// `u64`
    U64(u64),
    /// `i8`
    I8(i8),
    /// `i16`
    I16(i16),
    /// `i32`
    I32(i32),
    /// `i64`, also the deadline of a timer in nanoseconds
    I64(i64),
    /// `f64`
    F64(f64),
}

impl Scalar {
    /// The value's type.
    #[must_use]
    pub const fn scalar_type(self) -> ScalarType {
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

    /// The value's bits, two's complement, in the low [`ScalarType::size`] bytes; a bool is 0 or 1.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::Bool(v) => v as u64,
            Self::U8(v) => v as u64,
            Self::U16(v) => v as u64,
            Self::U32(v) => v as u64,
            Self::U64(v) => v,
            Self::I8(v) => v.cast_unsigned() as u64,
            Self::I16(v) => v.cast_unsigned() as u64,
            Self::I32(v) => v.cast_unsigned() as u64,
            Self::I64(v) => v.cast_unsigned(),
            Self::F64(v) => v.to_bits(),
        }
    }

    /// The value of type `ty` with these bits. Any non-zero byte is true.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low bytes are the value"
    )]
    pub const fn from_bits(ty: ScalarType, bits: u64) -> Self {
        match ty {
            ScalarType::Bool => Self::Bool(bits as u8 != 0),
            ScalarType::U8 => Self::U8(bits as u8),
            ScalarType::U16 => Self::U16(bits as u16),
            ScalarType::U32 => Self::U32(bits as u32),
            ScalarType::U64 => Self::U64(bits),
            ScalarType::I8 => Self::I8(bits as i8),
            ScalarType::I16 => Self::I16(bits as i16),
            ScalarType::I32 => Self::I32(bits as i32),
            ScalarType::I64 => Self::I64(bits.cast_signed()),
            ScalarType::F64 => Self::F64(f64::from_bits(bits)),
        }
    }

    /// The value as an integer, if it is one (or a bool).
    #[must_use]
    pub const fn as_i128(self) -> Option<i128> {
        Some(match self {
            Self::Bool(v) => v as i128,
            Self::U8(v) => v as i128,
            Self::U16(v) => v as i128,
            Self::U32(v) => v as i128,
            Self::U64(v) => v as i128,
            Self::I8(v) => v as i128,
            Self::I16(v) => v as i128,
            Self::I32(v) => v as i128,
            Self::I64(v) => v as i128,
            Self::F64(_) => return None,
        })
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(v) => v.fmt(f),
            Self::U8(v) => v.fmt(f),
            Self::U16(v) => v.fmt(f),
            Self::U32(v) => v.fmt(f),
            Self::U64(v) => v.fmt(f),
            Self::I8(v) => v.fmt(f),
            Self::I16(v) => v.fmt(f),
            Self::I32(v) => v.fmt(f),
            Self::I64(v) => v.fmt(f),
            Self::F64(v) => v.fmt(f),
        }
    }
}

/// How one element of a field is encoded.
///
/// The names in [`Codec::name`] are those that QEMU writes into the JSON trailer.
///
/// Wire: QEMU 7.2 to 11.1, `migration/vmstate-types.c`; all integers are big-endian two's complement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// One byte, 0 or 1; any non-zero byte loads as true.
    Bool,
    /// One byte, signed.
    Int8,
    /// be16, signed.
    Int16,
    /// be32, signed.
    Int32,
    /// be64, signed.
    Int64,
    /// One byte.
    Uint8,
    /// be16.
    Uint16,
    /// be32.
    Uint32,
    /// be64.
    Uint64,
    /// One byte that must equal the destination's value.
    Uint8Equal,
    /// be16 that must equal the destination's value.
    Uint16Equal,
    /// Signed be32 that must equal the destination's value.
    Int32Equal,
    /// be32 that must equal the destination's value.
    Uint32Equal,
    /// be64 that must equal the destination's value. QEMU calls it `int64 equal`, though it is unsigned.
    Uint64Equal,
    /// Signed be32; loads if `0 <= value <= the destination's value`, which it then replaces. (`le` is "less or equal".)
    Int32Le,
    /// A scalar in little-endian byte order: for formats that QEMU keeps as raw buffers, and called `buffer` like them.
    LittleEndian(ScalarType),
    /// be64 of the bits of an IEEE double, `CPU_Double_U`.
    CpuDouble,
    /// be64: expiry in nanoseconds on the timer's clock, -1 when not armed.
    Timer,
    /// A length byte, then that many bytes: name of a migration capability.
    Capability,
    /// Raw bytes. The count of a field with this codec is in bytes.
    Buffer(Size),
    /// Bytes that are zero when saved and ignored when loaded: so many per element.
    Unused(u32),
    /// Words of 64 bits, each be64, bit 0 least significant. The size is in bits.
    Bitmap(Size),
    /// be32 length, then that many bytes (QEMU 11.1, `GByteArray`).
    ByteArray {
        /// Most bytes that are accepted.
        max: u32,
    },
    /// A device's own codec: what it writes is known to the accessor alone.
    Custom {
        /// Name in the JSON trailer.
        name: Cow<'static, str>,
        /// Size in bytes where it is fixed.
        size: Option<u32>,
    },
}

impl Codec {
    /// The name in the JSON trailer.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Uint8Equal => "uint8 equal",
            Self::Uint16Equal => "uint16 equal",
            Self::Int32Equal => "int32 equal",
            Self::Uint32Equal => "uint32 equal",
            Self::Uint64Equal => "int64 equal",
            Self::Int32Le => "int32 le",
            Self::CpuDouble => "CPU_Double_U",
            Self::Timer => "timer",
            Self::Capability => "capability",
            Self::Buffer(_) | Self::LittleEndian(_) => "buffer",
            Self::Unused(_) => "unused_buffer",
            Self::Bitmap(_) => "bitmap",
            Self::ByteArray { .. } => "GByteArray",
            Self::Custom { name, .. } => name,
        }
    }

    /// A device's own codec, also in constants.
    #[must_use]
    pub const fn custom(name: &'static str, size: Option<u32>) -> Self {
        Self::Custom {
            name: Cow::Borrowed(name),
            size,
        }
    }

    /// The scalar codec with this name in a JSON trailer, if there is one.
    #[must_use]
    pub fn scalar_by_name(name: &str) -> Option<Self> {
        Some(match name {
            "bool" => Self::Bool,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "uint8" => Self::Uint8,
            "uint16" => Self::Uint16,
            "uint32" => Self::Uint32,
            "uint64" => Self::Uint64,
            "uint8 equal" => Self::Uint8Equal,
            "uint16 equal" => Self::Uint16Equal,
            "int32 equal" => Self::Int32Equal,
            "uint32 equal" => Self::Uint32Equal,
            "int64 equal" => Self::Uint64Equal,
            "int32 le" => Self::Int32Le,
            "CPU_Double_U" => Self::CpuDouble,
            "timer" => Self::Timer,
            _ => return None,
        })
    }

    /// The type in memory of a scalar codec; `None` for blocks, bitmaps and custom codecs.
    #[must_use]
    pub const fn scalar_type(&self) -> Option<ScalarType> {
        Some(match self {
            Self::Bool => ScalarType::Bool,
            Self::Int8 => ScalarType::I8,
            Self::Int16 => ScalarType::I16,
            Self::Int32 | Self::Int32Equal | Self::Int32Le => ScalarType::I32,
            Self::Int64 | Self::Timer => ScalarType::I64,
            Self::Uint8 | Self::Uint8Equal => ScalarType::U8,
            Self::Uint16 | Self::Uint16Equal => ScalarType::U16,
            Self::Uint32 | Self::Uint32Equal => ScalarType::U32,
            Self::Uint64 | Self::Uint64Equal => ScalarType::U64,
            Self::LittleEndian(ty) => *ty,
            Self::CpuDouble => ScalarType::F64,
            _ => return None,
        })
    }

    /// Whether values travel in big-endian order (all scalars but [`Codec::LittleEndian`]).
    #[must_use]
    pub const fn is_big_endian(&self) -> bool {
        !matches!(self, Self::LittleEndian(_))
    }

    /// The check that loading applies to a scalar.
    #[must_use]
    pub const fn value_check(&self) -> ValueCheck {
        match self {
            Self::Uint8Equal
            | Self::Uint16Equal
            | Self::Int32Equal
            | Self::Uint32Equal
            | Self::Uint64Equal => ValueCheck::Equal,
            Self::Int32Le => ValueCheck::LessOrEqual,
            _ => ValueCheck::None,
        }
    }

    /// The codec that checks for equality with the destination's value, if there is one for this type.
    #[must_use]
    pub const fn equal(ty: ScalarType) -> Option<Self> {
        Some(match ty {
            ScalarType::U8 => Self::Uint8Equal,
            ScalarType::U16 => Self::Uint16Equal,
            ScalarType::I32 => Self::Int32Equal,
            ScalarType::U32 => Self::Uint32Equal,
            ScalarType::U64 => Self::Uint64Equal,
            _ => return None,
        })
    }
}

/// What loading checks about a scalar before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueCheck {
    /// Nothing.
    None,
    /// Must equal the destination's value, which stays.
    Equal,
    /// Between 0 and the destination's value, inclusive.
    LessOrEqual,
}
