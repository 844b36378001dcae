//! From bytes to values.

use super::room::Room;
use super::{Integer, Plan, Step};
use crate::der::tag;
use crate::value::list::repeat;
use crate::value::same::is_same;
use crate::value::value_tag;

impl Plan {
    /// Appends the SEQUENCE of a state. `bytes` are its encoding and [`SPARE`](super::SPARE) more. `None`: there are fewer.
    pub(in crate::value) fn put(&self, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut room = Room::behind(out);
        self.put_into(bytes, &mut room)?;
        room.close();
        Some(())
    }

    fn put_into(&self, bytes: &[u8], room: &mut Room<'_>) -> Option<()> {
        let start = room.open_value(tag::SEQUENCE)?;
        let mut rest = bytes;
        let mut steps = self.steps.as_slice();
        while let [step, behind @ ..] = steps {
            (steps, rest) = match step {
                Step::Integer(_) => put_integers(steps, rest, room)?,
                step => (behind, step.put(rest, room)?),
            };
        }
        room.close_value(start)
    }
}

impl Step {
    /// Appends the values of the first bytes. Returns what is behind them.
    #[inline]
    fn put<'b>(&self, bytes: &'b [u8], room: &mut Room<'_>) -> Option<&'b [u8]> {
        match self {
            Self::Integer(_) => None,
            Self::Bool => {
                let (byte, rest) = bytes.split_first()?;
                match byte {
                    0 => room.put(&[tag::BOOLEAN, 1, 0])?,
                    1 => room.put(&[tag::BOOLEAN, 1, 0xff])?,
                    byte => room.put(&[value_tag::RAW, 1, *byte])?,
                }
                Some(rest)
            }
            Self::Double => put_octets(8, bytes, room),
            Self::Octets(size) => put_octets(*size, bytes, room),
            Self::Pad(size) => {
                room.put(&[tag::OCTETS, 0])?;
                bytes.get(*size..)
            }
            Self::Struct(plan) => {
                plan.put_into(bytes, room)?;
                bytes.get(plan.size..)
            }
            Self::List(list) => put_list(list.0, &list.1, bytes, room),
        }
    }
}

fn put_octets<'b>(size: usize, bytes: &'b [u8], room: &mut Room<'_>) -> Option<&'b [u8]> {
    let (octets, rest) = bytes.split_at_checked(size)?;
    let start = room.open_value(tag::OCTETS)?;
    room.put(octets)?;
    room.close_value(start)?;
    Some(rest)
}

fn put_list<'b>(
    count: usize,
    plan: &Plan,
    bytes: &'b [u8],
    room: &mut Room<'_>,
) -> Option<&'b [u8]> {
    let start = room.open_value(value_tag::LIST)?;
    let mut rest = bytes;
    let mut left = count;
    while left > 0 {
        let (element, after) = rest.split_at_checked(plan.size)?;
        let item = room.end();
        plan.put_into(rest, room)?;
        (left, rest) = (left.checked_sub(1)?, after);
        // The same bytes are the same value, others another one.
        let mut equals = 1_u64;
        while left > 0
            && let Some((next, after)) = rest.split_at_checked(plan.size)
            && is_same(element, next)
        {
            equals = equals.checked_add(1)?;
            (left, rest) = (left.checked_sub(1)?, after);
        }
        if equals > 1 {
            room.lend(|out| repeat(out, item, equals));
        }
    }
    room.close_value(start)?;
    Some(rest)
}

/// Octets of the longest INTEGER, header included: tag, length, a zero, 8 octets.
const LONGEST: usize = 11;

/// Appends the first integers, of which `bytes` are the encodings. Returns the steps behind them, and what is left of the bytes.
fn put_integers<'s, 'b>(
    mut steps: &'s [Step],
    bytes: &'b [u8],
    room: &mut Room<'_>,
) -> Option<(&'s [Step], &'b [u8])> {
    let mut place = room.ahead(steps.len().checked_mul(LONGEST)?)?;
    let before = place.len();
    let mut rest = bytes;
    while let [Step::Integer(integer), behind @ ..] = steps {
        let word = u64::from_be_bytes(*rest.first_chunk()?);
        rest = rest.get(integer.size()..)?;
        let length = put_integer(integer, word, place.first_chunk_mut()?)?;
        place = place.get_mut(length..)?;
        steps = behind;
    }
    let used = before.checked_sub(place.len())?;
    room.take(used);
    Some((steps, rest))
}

/// Puts the integer that `word` begins with, and anything behind it. Returns its octets.
#[inline]
fn put_integer(integer: &Integer, word: u64, room: &mut [u8; LONGEST]) -> Option<usize> {
    let extended = word.cast_signed() >> integer.surplus();
    let (content, significant) = if integer.is_signed() {
        (extended.cast_unsigned(), extended ^ (extended >> 63))
    } else {
        let value = word >> integer.surplus();
        (value, value.cast_signed())
    };
    let bits = 64_u32.saturating_sub(significant.leading_zeros());
    let (header, octets) = room.split_first_chunk_mut()?;
    if bits == 64 {
        // A zero keeps the set top bit from being a sign.
        *header = [tag::INTEGER, 9];
        let (zero, octets) = octets.split_first_mut()?;
        *zero = 0;
        *octets.first_chunk_mut()? = content.to_be_bytes();
        return Some(LONGEST);
    }
    let more = bits / 8;
    let shift = 7_u32.saturating_sub(more).saturating_mul(8) & 63;
    let length = u8::try_from(more).unwrap_or(7).saturating_add(1);
    *header = [tag::INTEGER, length];
    // All that there may be in one piece: to ask how much it is takes longer.
    *octets.first_chunk_mut()? = (content << shift).to_be_bytes();
    Some(usize::from(length).saturating_add(2))
}
