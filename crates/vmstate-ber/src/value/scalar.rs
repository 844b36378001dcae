//! Scalars: one by one, and many in one octet string.

use vmstate_desc::{Error, Scalar, ScalarType, SliceMut};

use super::fit::{Family, element_size, family, incompatible};
use super::output::mask;
use super::value_tag;
use crate::der::{Tlv, tag};
use crate::error::{BerError, BerErrorKind};
use crate::types::{FieldDef, Kind};

/// The numbers that a type of so many bytes has.
fn range(signed: bool, size: usize) -> std::ops::RangeInclusive<i128> {
    let bits = u32::try_from(size.saturating_mul(8)).unwrap_or(64).min(64);
    let least = i128::MIN;
    if signed {
        let shift = 128_u32.saturating_sub(bits);
        let minimum = least.checked_shr(shift).unwrap_or(0);
        minimum..=!minimum
    } else {
        let shift = 127_u32.saturating_sub(bits);
        0..=!least.checked_shr(shift).unwrap_or(0)
    }
}

const fn is_signed(ty: ScalarType) -> bool {
    matches!(
        ty,
        ScalarType::I8 | ScalarType::I16 | ScalarType::I32 | ScalarType::I64
    )
}

/// Whether a number of this kind has a sign.
const fn has_sign(kind: Kind) -> bool {
    matches!(kind, Kind::Int | Kind::Timer)
}

/// The bits of a number in this end's type.
fn converted(value: i128, ty: ScalarType, offset: u64) -> Result<u64, Error> {
    if !range(is_signed(ty), ty.size()).contains(&value) {
        return Err(
            incompatible("E-RANGE", ty.name(), format!("{value}, which does not fit"))
                .at_offset(offset),
        );
    }
    // Two's complement: the low bits are the value's.
    let [.., a, b, c, d, e, f, g, h] = value.to_be_bytes();
    Ok(u64::from_be_bytes([a, b, c, d, e, f, g, h]) & mask(ty))
}

/// Whether a number is one that the writer's type has.
fn is_of_type(value: i128, def: &FieldDef) -> bool {
    range(has_sign(def.kind), element_size(def)).contains(&value)
}

fn wrong(value: &Tlv<'_>, expected: &'static str) -> Error {
    let found = value.tag;
    BerErrorKind::Tag { expected, found }
        .at(value.offset)
        .into_state()
}

/// The bits of an integer whose type is the same at both ends: the usual case, without wide arithmetic. `None`: it is not
/// that, or something is wrong with it.
#[inline]
fn same_integer(value: &Tlv<'_>, def: &FieldDef, ty: ScalarType) -> Option<u64> {
    let (size, signed) = (ty.size(), is_signed(ty));
    let same = match def.kind {
        Kind::Uint => !signed && !matches!(ty, ScalarType::Bool | ScalarType::F64),
        Kind::Int => signed,
        Kind::Timer => ty == ScalarType::I64,
        _ => false,
    };
    if !same || value.tag != tag::INTEGER || element_size(def) != size {
        return None;
    }
    let (first, rest) = value.content.split_first()?;
    if let Some(second) = rest.first()
        && (*first == 0 && *second < 0x80 || *first == 0xff && *second >= 0x80)
    {
        return None;
    }
    let fits = if signed {
        rest.len() < size
    } else {
        *first < 0x80 && (rest.len() < size || *first == 0 && rest.len() == size)
    };
    let start = i64::from(first.cast_signed()).cast_unsigned();
    let bits = rest
        .iter()
        .fold(start, |sum, byte| (sum << 8) | u64::from(*byte));
    fits.then_some(bits & mask(ty))
}

/// One scalar: its bits in this end's type.
#[inline]
pub(super) fn decode_scalar(value: &Tlv<'_>, def: &FieldDef, ty: ScalarType) -> Result<u64, Error> {
    match same_integer(value, def, ty) {
        Some(bits) => Ok(bits),
        None => decode_other(value, def, ty),
    }
}

#[cold]
fn decode_other(value: &Tlv<'_>, def: &FieldDef, ty: ScalarType) -> Result<u64, Error> {
    match (family(def.kind), value.tag) {
        (Family::Integer, tag::INTEGER) => {
            let number = value.integer().map_err(BerError::into_state)?;
            if !is_of_type(number, def) {
                return Err(incompatible("E-RANGE", def.describe(), number.to_string())
                    .at_offset(value.offset));
            }
            converted(number, ty, value.offset)
        }
        (Family::Bool, tag::BOOLEAN) => {
            value.boolean().map(u64::from).map_err(BerError::into_state)
        }
        (Family::Bool, value_tag::RAW) => match value.content {
            [byte @ 2..=255] => Ok(u64::from(*byte)),
            _ => Err(BerErrorKind::NotCanonical("a boolean is written as bytes")
                .at(value.offset)
                .into_state()),
        },
        (Family::Double, tag::OCTETS) => value
            .array("octets of a double")
            .map(u64::from_be_bytes)
            .map_err(BerError::into_state),
        (Family::Integer, _) => Err(wrong(value, "an integer")),
        (Family::Bool, _) => Err(wrong(value, "a boolean")),
        _ => Err(wrong(value, "an octet string")),
    }
}

/// The octets of an octet string, taken piece by piece.
#[derive(Debug, Clone)]
pub(super) struct Octets<'a> {
    rest: &'a [u8],
    offset: u64,
    /// Whose elements they are; `None`: in this end's own types.
    def: Option<&'a FieldDef>,
}

impl<'a> Octets<'a> {
    pub(super) const fn new(value: &Tlv<'a>, def: Option<&'a FieldDef>) -> Self {
        Self {
            rest: value.content,
            offset: value.content_offset(),
            def,
        }
    }

    pub(super) const fn empty(offset: u64) -> Self {
        Self {
            rest: &[],
            offset,
            def: None,
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// How many elements there are, and octets behind them.
    pub(super) fn units(&self) -> (usize, usize) {
        let size = self.def.map_or(1, element_size).max(1);
        let len = self.rest.len();
        (
            len.checked_div(size).unwrap_or(0),
            len.checked_rem(size).unwrap_or(0),
        )
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let Some((bytes, rest)) = self.rest.split_at_checked(count) else {
            let (needed, available) = (count as u64, self.rest.len() as u64);
            return Err(BerErrorKind::Truncated { needed, available }
                .at(self.offset)
                .into_state());
        };
        self.rest = rest;
        self.offset = self.offset.saturating_add(count as u64);
        Ok(bytes)
    }

    pub(super) fn raw(&mut self, out: &mut [u8]) -> Result<(), Error> {
        let bytes = self.take(out.len())?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    /// Whether elements stand here in this end's own type.
    fn is_own(&self, ty: ScalarType) -> bool {
        let Some(def) = self.def.filter(|def| family(def.kind) != Family::Other) else {
            return true;
        };
        element_size(def) == ty.size()
            && (family(def.kind) != Family::Integer || has_sign(def.kind) == is_signed(ty))
    }

    /// The next element, as bits of this end's type.
    pub(super) fn scalar(&mut self, ty: ScalarType) -> Result<u64, Error> {
        let offset = self.offset;
        if self.is_own(ty) {
            let bytes = self.take(ty.size())?;
            return Ok(number(bytes));
        }
        let Some(def) = self.def else {
            return Ok(0);
        };
        let size = element_size(def);
        let bits = number(self.take(size)?);
        if family(def.kind) != Family::Integer {
            return Ok(bits);
        }
        let value = if has_sign(def.kind) {
            let shift = 64_u32.saturating_sub(u32::try_from(size.saturating_mul(8)).unwrap_or(64));
            let high = bits.checked_shl(shift).unwrap_or(0).cast_signed();
            i128::from(high.checked_shr(shift).unwrap_or(0))
        } else {
            i128::from(bits)
        };
        converted(value, ty, offset)
    }

    pub(super) fn scalars(&mut self, mut values: SliceMut<'_>) -> Result<(), Error> {
        let ty = values.scalar_type();
        if !self.is_own(ty) {
            for index in 0..values.len() {
                let bits = self.scalar(ty)?;
                values.set(index, Scalar::from_bits(ty, bits));
            }
            return Ok(());
        }
        let bytes = self.take(values.len().saturating_mul(ty.size()))?;
        macro_rules! fill {
            ($values:expr, $ty:ident) => {{
                let (chunks, _) = bytes.as_chunks::<{ size_of::<$ty>() }>();
                for (value, chunk) in $values.iter_mut().zip(chunks) {
                    *value = $ty::from_be_bytes(*chunk);
                }
            }};
        }
        match values {
            SliceMut::Bool(values) => {
                for (value, byte) in values.iter_mut().zip(bytes) {
                    *value = *byte != 0;
                }
            }
            SliceMut::U8(values) => values.copy_from_slice(bytes),
            SliceMut::I8(values) => fill!(values, i8),
            SliceMut::U16(values) => fill!(values, u16),
            SliceMut::U32(values) => fill!(values, u32),
            SliceMut::U64(values) => fill!(values, u64),
            SliceMut::I16(values) => fill!(values, i16),
            SliceMut::I32(values) => fill!(values, i32),
            SliceMut::I64(values) => fill!(values, i64),
            SliceMut::F64(values) => fill!(values, f64),
            _ => return Err(Error::format("a scalar type that values do not have")),
        }
        Ok(())
    }
}

/// Big-endian bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range(true, 1), -128..=127);
        assert_eq!(range(false, 1), 0..=255);
        assert_eq!(range(true, 8), i64::MIN.into()..=i64::MAX.into());
        assert_eq!(range(false, 8), 0..=u64::MAX.into());
    }

    #[test]
    fn the_short_way_is_the_long_way() {
        let types = [
            (Kind::Uint, 1, ScalarType::U8),
            (Kind::Uint, 2, ScalarType::U16),
            (Kind::Uint, 4, ScalarType::U32),
            (Kind::Uint, 8, ScalarType::U64),
            (Kind::Int, 1, ScalarType::I8),
            (Kind::Int, 2, ScalarType::I16),
            (Kind::Int, 4, ScalarType::I32),
            (Kind::Int, 8, ScalarType::I64),
        ];
        let edges = [0, 1, 0x7f, 0x80, 0xff];
        // Contents of all lengths with bytes at which something changes.
        for length in 0..=10 {
            for (first, second) in edges.iter().flat_map(|a| edges.map(|b| (*a, b))) {
                let mut whole = vec![tag::INTEGER, u8::try_from(length).unwrap()];
                whole.extend(std::iter::repeat_n(0x5a, length));
                if let Some(byte) = whole.get_mut(2) {
                    *byte = first;
                }
                if let Some(byte) = whole.get_mut(3) {
                    *byte = second;
                }
                let value = crate::der::DerReader::new(&whole, 0).any().unwrap();
                for (kind, size, ty) in types {
                    let def = FieldDef {
                        size: Some(size),
                        ..FieldDef::new("n", kind)
                    };
                    let short = same_integer(&value, &def, ty);
                    let long = decode_other(&value, &def, ty).ok();
                    assert_eq!(short, long, "{whole:x?} as {ty:?}");
                }
            }
        }
    }
}
