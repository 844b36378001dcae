//! Values whose type both ends know to be the same: read without a look at names, kinds and ranges of types.
//!
//! `None` is never an error. It means that the value is not as usual, which is left to those who have the words for it.

use std::sync::atomic::{AtomicBool, Ordering};

use vmstate_desc::{Description, Element, Field, Pointers, Repeat, ScalarType};

use super::fit::element_size;
use super::plan::{self, Plan};
use super::same::is_same;
use crate::der::tag;
use crate::types::{FieldDef, Kind, TypeDef, TypeIndex, TypeTable};

/// An integer's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Integer {
    /// Bytes: 1, 2, 4 or 8.
    size: u8,
    signed: bool,
    /// The least number.
    least: i64,
    /// How far the greatest number is above it. Also the bits that the numbers have. Those of 64 bits without a sign go up to what
    /// needs no ninth octet.
    span: u64,
}

impl Integer {
    /// `None`: not an integer.
    #[inline]
    pub(super) const fn of(ty: ScalarType) -> Option<&'static Self> {
        Some(match ty {
            ScalarType::U8 => &const { Self::new(1, false) },
            ScalarType::U16 => &const { Self::new(2, false) },
            ScalarType::U32 => &const { Self::new(4, false) },
            ScalarType::U64 => &const { Self::new(8, false) },
            ScalarType::I8 => &const { Self::new(1, true) },
            ScalarType::I16 => &const { Self::new(2, true) },
            ScalarType::I32 => &const { Self::new(4, true) },
            ScalarType::I64 => &const { Self::new(8, true) },
            _ => return None,
        })
    }

    const fn new(size: u8, signed: bool) -> Self {
        let surplus = 64_u32.saturating_sub((size as u32).saturating_mul(8));
        let (least, span) = match (signed, size) {
            (true, _) => (i64::MIN >> surplus, u64::MAX >> surplus),
            (false, 8) => (0, u64::MAX >> 1),
            (false, _) => (0, u64::MAX >> surplus),
        };
        Self {
            size,
            signed,
            least,
            span,
        }
    }

    /// Bytes: 1, 2, 4 or 8.
    #[inline]
    pub(super) const fn size(&self) -> usize {
        self.size as usize
    }

    /// Whether there is a sign.
    #[inline]
    pub(super) const fn is_signed(&self) -> bool {
        self.signed
    }

    /// By how many bits a word of 64 is longer.
    #[inline]
    pub(super) const fn surplus(&self) -> u32 {
        64_u32.wrapping_sub((self.size as u32).wrapping_mul(8)) & 63
    }

    /// The bits of the INTEGER at the front of `bytes`, and what is behind it.
    #[inline(always)]
    pub(super) fn take<'v>(&self, bytes: &'v [u8]) -> Option<(u64, &'v [u8])> {
        // In one piece with what stands behind, where there is enough.
        let Some([tag::INTEGER, length @ 1..=8, word @ ..]) = bytes.first_chunk::<10>() else {
            return self.take_other(bytes);
        };
        let rest = bytes.get(usize::from(*length).wrapping_add(2)..)?;
        let bits = self.bits(i64::from_be_bytes(*word), *length)?;
        Some((bits, rest))
    }

    /// The bits of a number that is the first `length` octets of `word`: 1 to 8.
    #[inline(always)]
    fn bits(&self, word: i64, length: u8) -> Option<u64> {
        let value = word >> (64_u32.wrapping_sub(u32::from(length).wrapping_mul(8)) & 63);
        // The first octet must not repeat the sign of the second one.
        let first = word >> 55;
        let is_minimal = length == 1 || first.wrapping_add(1).cast_unsigned() > 1;
        let above = value.wrapping_sub(self.least).cast_unsigned();
        (is_minimal && above <= self.span).then_some(value.cast_unsigned() & self.span)
    }

    /// As [`Integer::take`], near the end of all values, and for nine octets.
    #[inline(never)]
    fn take_other<'v>(&self, bytes: &'v [u8]) -> Option<(u64, &'v [u8])> {
        let [tag::INTEGER, length @ 1..=9, content @ ..] = bytes else {
            return None;
        };
        let (content, rest) = content.split_at_checked((*length).into())?;
        if let [0, content @ ..] = content
            && let Ok(content) = <&[u8; 8]>::try_from(content)
        {
            // 64 bits without a sign, of which the first is set.
            let [first, ..] = content;
            let fits = *first >= 0x80 && !self.signed && self.size == 8;
            return fits.then_some((u64::from_be_bytes(*content), rest));
        }
        let bits = self.bits(word(content)?, *length)?;
        Some((bits, rest))
    }
}

/// Up to 8 octets as the first ones of a word. In two pieces that may overlap: faster than one after the other.
#[inline]
fn word(octets: &[u8]) -> Option<i64> {
    let bits = |count: usize| u32::try_from(count.wrapping_mul(8)).unwrap_or(0);
    let length = octets.len();
    let number = match length {
        4..=8 => {
            let high = u64::from(u32::from_be_bytes(*octets.first_chunk()?));
            let low = u64::from(u32::from_be_bytes(*octets.last_chunk()?));
            high << (bits(length.wrapping_sub(4)) & 63) | low
        }
        2..4 => {
            let high = u64::from(u16::from_be_bytes(*octets.first_chunk()?));
            let low = u64::from(u16::from_be_bytes(*octets.last_chunk()?));
            high << (bits(length.wrapping_sub(2)) & 63) | low
        }
        1 => u64::from(*octets.first()?),
        _ => return None,
    };
    let surplus = bits(8_usize.wrapping_sub(length)) & 63;
    Some((number << surplus).cast_signed())
}

/// A field that has the same type at both ends.
#[derive(Debug)]
pub(crate) enum Known {
    Integer(&'static Integer),
    Bool,
    Double,
    /// One struct that may be plain.
    Struct(Embedded),
    /// It is not that.
    No,
}

/// A struct for which there is a plan.
#[derive(Debug)]
pub(crate) struct Embedded {
    ty: TypeIndex,
    /// It has been walked nevertheless: it has a hook, say, of which its description does not tell.
    walked: AtomicBool,
}

impl Embedded {
    fn of(types: &TypeTable, def: &FieldDef, field: &Field, version: u32) -> Option<Self> {
        let Element::Struct(child) = &field.element else {
            return None;
        };
        // Of a description that was made of a type that came, nobody here has said how large it may be.
        child.as_static()?;
        let single = field.repeat == Repeat::Single && field.resize_max.is_none();
        if !single || !plan::is_always_there(field, version) || !plan::says(def, field) {
            return None;
        }
        let ty = types.find(def.ty?)?;
        types.plan_for_loading(ty, child)?;
        Some(Self {
            ty,
            walked: AtomicBool::new(false),
        })
    }

    /// The plan, of which `field` is the one that this was made of.
    #[inline]
    pub(super) fn plan<'t>(&self, types: &'t TypeTable, field: &Field) -> Option<&'t Plan> {
        if self.walked.load(Ordering::Relaxed) {
            return None;
        }
        types.plan_for_loading(self.ty, field.element.child()?)
    }

    /// It has been walked nevertheless, and will be.
    pub(super) fn walk(&self) {
        self.walked.store(true, Ordering::Relaxed);
    }
}

impl Known {
    #[inline]
    pub(super) fn of(def: &FieldDef, field: &Field) -> Self {
        let Element::Value(codec) = &field.element else {
            return Self::No;
        };
        let single = field.repeat == Repeat::Single
            && field.pointers == Pointers::No
            && def.repeat.is_none()
            && def.nullable.is_none();
        let Some(ty) = codec.scalar_type().filter(|_| single) else {
            return Self::No;
        };
        match (def.kind, Integer::of(ty)) {
            (Kind::Uint | Kind::Int | Kind::Timer, Some(integer))
                if integer.signed == (def.kind != Kind::Uint)
                    && integer.size() == element_size(def) =>
            {
                Self::Integer(integer)
            }
            (Kind::Bool, None) if ty == ScalarType::Bool => Self::Bool,
            (Kind::Float | Kind::CpuDouble, None) if ty == ScalarType::F64 => Self::Double,
            _ => Self::No,
        }
    }

    /// The bits of the value at the front of `bytes`, and what is behind it.
    #[inline(always)]
    pub(super) fn take<'v>(&self, bytes: &'v [u8]) -> Option<(u64, &'v [u8])> {
        if let Self::Integer(integer) = self {
            return integer.take(bytes);
        }
        self.take_other(bytes)
    }

    fn take_other<'v>(&self, bytes: &'v [u8]) -> Option<(u64, &'v [u8])> {
        match self {
            Self::Bool => match bytes {
                [tag::BOOLEAN, 1, 0, rest @ ..] => Some((0, rest)),
                [tag::BOOLEAN, 1, 0xff, rest @ ..] => Some((1, rest)),
                _ => None,
            },
            Self::Double => match bytes.split_first_chunk::<10>()? {
                ([tag::OCTETS, 8, double @ ..], rest) => Some((u64::from_be_bytes(*double), rest)),
                _ => None,
            },
            Self::Integer(_) | Self::Struct(_) | Self::No => None,
        }
    }
}

/// What each field is, if the writer's fields have the names of this end's, in the same order. None if they do not.
pub(super) fn known_fields(types: &TypeTable, ty: &TypeDef, d: &Description) -> Box<[Known]> {
    if ty.fields.len() != d.fields().len() {
        return Box::default();
    }
    let mut all = Vec::with_capacity(ty.fields.len());
    for (def, field) in ty.fields.iter().zip(d.fields()) {
        if !is_same(def.name.as_bytes(), field.name.as_bytes()) {
            return Box::default();
        }
        all.push(match Known::of(def, field) {
            Known::No => {
                Embedded::of(types, def, field, d.version_id).map_or(Known::No, Known::Struct)
            }
            known => known,
        });
    }
    all.into_boxed_slice()
}
