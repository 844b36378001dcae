//! From values to bytes.

use super::{Integer, Plan, SPARE, Step};
use crate::der::{Tlv, header, tag};
use crate::value::list::ListReader;
use crate::value::value_tag;

/// Where the bytes of a state are put, one behind the other.
struct Place<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl Place<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at.checked_add(bytes.len())?;
        self.bytes.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    /// An integer of so many octets, if it needs as many and fits.
    #[inline]
    fn integer(&mut self, value: i64, length: u8, integer: Integer) -> Option<()> {
        let significant = value ^ (value >> 63);
        let bits = 65_u32.saturating_sub(significant.leading_zeros());
        // One bit more for a sign that is not there.
        let room = u32::from(integer.size)
            .saturating_mul(8)
            .saturating_add(u32::from(!integer.signed));
        let negative = value < 0 && !integer.signed;
        if bits.div_ceil(8) != u32::from(length) || bits > room || negative {
            return None;
        }
        let word = (value.cast_unsigned() << integer.shift()).to_be_bytes();
        let place = self.bytes.get_mut(self.at..)?.first_chunk_mut()?;
        *place = word;
        self.at = self.at.checked_add(integer.size.into())?;
        Some(())
    }

    /// The last `size` bytes once more.
    fn again(&mut self, size: usize) -> Option<()> {
        let start = self.at.checked_sub(size)?;
        let end = self.at.checked_add(size)?;
        if end > self.bytes.len() {
            return None;
        }
        self.bytes.copy_within(start..self.at, self.at);
        self.at = end;
        Some(())
    }
}

impl Plan {
    /// Makes a state's bytes of its value, with [`SPARE`] more behind them. `None`: the value is not as usual; then `out` holds
    /// anything.
    pub(in crate::value) fn get(&self, value: &Tlv<'_>, out: &mut Vec<u8>) -> Option<()> {
        out.clear();
        out.resize(self.size.checked_add(SPARE)?, 0);
        let mut place = Place { bytes: out, at: 0 };
        self.fill(value, &mut place)?;
        (place.at == self.size).then_some(())
    }

    fn fill(&self, value: &Tlv<'_>, place: &mut Place<'_>) -> Option<()> {
        if value.tag != tag::SEQUENCE {
            return None;
        }
        let mut rest = value.content;
        for step in &self.steps {
            rest = step.get(rest, place)?;
        }
        // Subsections, or a surplus.
        rest.is_empty().then_some(())
    }
}

impl Step {
    /// Puts the bytes of the first values. Returns what is behind them.
    fn get<'v>(&self, values: &'v [u8], place: &mut Place<'_>) -> Option<&'v [u8]> {
        match self {
            Self::Integers(integers) => {
                let mut rest = values;
                for integer in integers {
                    rest = get_integer(rest, *integer, place)?;
                }
                Some(rest)
            }
            Self::Bool => {
                let (value, rest) = values.split_first_chunk::<3>()?;
                let byte = match value {
                    [tag::BOOLEAN, 1, 0xff] => 1,
                    [tag::BOOLEAN, 1, 0] => 0,
                    _ => return None,
                };
                place.put(&[byte])?;
                Some(rest)
            }
            Self::Double => octets(values, 8, place),
            Self::Octets(size) => octets(values, *size, place),
            Self::Pad(size) => {
                let (value, rest) = values.split_first_chunk::<2>()?;
                if *value != [tag::OCTETS, 0] {
                    return None;
                }
                // The place has been zero from the beginning, or was touched behind what was meant.
                let end = place.at.checked_add(*size)?;
                place.bytes.get_mut(place.at..end)?.fill(0);
                place.at = end;
                Some(rest)
            }
            Self::Struct(plan) => {
                let (value, rest) = any(values)?;
                plan.fill(&value, place)?;
                Some(rest)
            }
            Self::List(count, plan) => {
                let (value, rest) = any(values)?;
                get_list(*count, plan, &value, place)?;
                Some(rest)
            }
        }
    }
}

/// The first value. What it stands at is nobody's concern: errors are the walk's.
fn any(values: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let header = header(values).ok()??;
    let (whole, rest) = values.split_at_checked(header.size.checked_add(header.length)?)?;
    let content = whole.get(header.size..)?;
    let tlv = Tlv {
        tag: header.tag,
        content,
        whole,
        offset: 0,
    };
    Some((tlv, rest))
}

fn octets<'v>(values: &'v [u8], size: usize, place: &mut Place<'_>) -> Option<&'v [u8]> {
    let (value, rest) = any(values)?;
    if value.tag != tag::OCTETS || value.content.len() != size {
        return None;
    }
    place.put(value.content)?;
    Some(rest)
}

fn get_list(count: usize, plan: &Plan, value: &Tlv<'_>, place: &mut Place<'_>) -> Option<()> {
    if value.tag != value_tag::LIST {
        return None;
    }
    let mut list = ListReader::new(value);
    let mut previous: Option<Tlv<'_>> = None;
    for _ in 0..count {
        let element = list.next().ok()??;
        // Elements of a run are one value.
        if previous.is_some_and(|previous| std::ptr::eq(previous.whole, element.whole)) {
            place.again(plan.size)?;
        } else {
            plan.fill(&element, place)?;
        }
        previous = Some(element);
    }
    list.is_over().then_some(())
}

/// Puts the bytes of an integer and, behind them, some that are written over. Returns what is behind its value.
#[inline]
fn get_integer<'v>(values: &'v [u8], integer: Integer, place: &mut Place<'_>) -> Option<&'v [u8]> {
    // In one piece with what stands behind, where there is enough.
    if let Some([tag::INTEGER, length @ 1..=8, word @ ..]) = values.first_chunk::<10>() {
        let shift = 8_u32.saturating_sub(u32::from(*length)).saturating_mul(8) & 63;
        let value = i64::from_be_bytes(*word) >> shift;
        place.integer(value, *length, integer)?;
        return values.get(usize::from(*length).checked_add(2)?..);
    }
    let [tag::INTEGER, length @ 1..=9, content @ ..] = values else {
        return None;
    };
    let (content, rest) = content.split_at_checked((*length).into())?;
    if let [0, content @ ..] = content
        && let Ok(content) = <&[u8; 8]>::try_from(content)
    {
        // 64 bits without a sign, of which the first is set.
        let [first, ..] = content;
        let fits = *first >= 0x80 && !integer.signed && integer.size == 8;
        return if fits {
            place.put(content).map(|()| rest)
        } else {
            None
        };
    }
    if *length == 9 {
        return None;
    }
    let first = i64::from(content.first()?.cast_signed());
    let others = content.get(1..)?.iter();
    let value = others.fold(first, |sum, byte| (sum << 8) | i64::from(*byte));
    place.integer(value, *length, integer)?;
    Some(rest)
}
