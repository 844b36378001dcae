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

/// One scalar: its bits in this end's type.
#[cold]
pub(super) fn decode_scalar(value: &Tlv<'_>, def: &FieldDef, ty: ScalarType) -> Result<u64, Error> {
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
    use vmstate_desc::{Codec, Field};

    use super::*;
    use crate::value::known::Known;

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
            (Kind::Uint, 1, Codec::Uint8),
            (Kind::Uint, 2, Codec::Uint16),
            (Kind::Uint, 4, Codec::Uint32),
            (Kind::Uint, 8, Codec::Uint64),
            (Kind::Int, 1, Codec::Int8),
            (Kind::Int, 2, Codec::Int16),
            (Kind::Int, 4, Codec::Int32),
            (Kind::Int, 8, Codec::Int64),
            (Kind::Timer, 8, Codec::Timer),
            (Kind::Bool, 1, Codec::Bool),
            (Kind::CpuDouble, 8, Codec::CpuDouble),
        ];
        let edges = [0, 1, 0x7f, 0x80, 0xff];
        let tags = [tag::INTEGER, tag::BOOLEAN, tag::OCTETS];
        // Contents of all lengths with bytes at which something changes, and with as much behind them as there may be.
        for (length, behind) in (0..=10).flat_map(|a| (0..10).map(move |b| (a, b))) {
            for (first, second) in edges.iter().flat_map(|a| edges.map(|b| (*a, b))) {
                for tag in tags {
                    let mut bytes = vec![tag, u8::try_from(length).unwrap()];
                    bytes.extend([first, second].iter().take(length));
                    bytes.resize(length + 2, 0x5a);
                    let whole = bytes.len();
                    bytes.resize(whole + behind, 0xff);
                    let value = crate::der::DerReader::new(&bytes, 0).any().unwrap();
                    for (kind, size, codec) in &types {
                        let def = FieldDef {
                            size: Some(*size),
                            ..FieldDef::new("n", *kind)
                        };
                        let ty = codec.scalar_type().unwrap();
                        let known = Known::of(&def, &Field::value("n", codec.clone()));
                        let short = known.take(&bytes);
                        let long = decode_scalar(&value, &def, ty).ok();
                        assert_eq!(short.map(|(bits, _)| bits), long, "{value:x?} as {codec:?}");
                        assert!(short.is_none_or(|(_, rest)| rest.len() == behind));
                    }
                }
            }
        }
    }

    #[test]
    fn what_differs_goes_the_long_way() {
        let u16 = |kind, size| FieldDef {
            size: Some(size),
            ..FieldDef::new("n", kind)
        };
        let field = Field::value("n", Codec::Uint16);
        let is_known = |def| !matches!(Known::of(&def, &field), Known::No);
        assert!(is_known(u16(Kind::Uint, 2)));
        for def in [
            u16(Kind::Uint, 4),
            u16(Kind::Int, 2),
            u16(Kind::Timer, 2),
            u16(Kind::Bool, 2),
            FieldDef {
                repeat: Some(crate::types::Repeat::Fixed(1)),
                ..u16(Kind::Uint, 2)
            },
        ] {
            assert!(!is_known(def));
        }
    }
}
