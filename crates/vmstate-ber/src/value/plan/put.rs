//! From bytes to values.

use super::{Integer, Plan, Step};
use crate::der::{close, open, put_bool, put_null, put_octets, tag};
use crate::value::list::RunWriter;
use crate::value::value_tag;

impl Plan {
    /// Appends the SEQUENCE of a state. `bytes` are its encoding and [`SPARE`](super::SPARE) more. `None`: there are fewer.
    pub(in crate::value) fn put(&self, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let start = open(out, tag::SEQUENCE);
        let mut rest = bytes;
        for step in &self.steps {
            rest = step.put(rest, out)?;
        }
        close(out, start);
        Some(())
    }
}

impl Step {
    /// Appends the values of the first bytes. Returns what is behind them.
    fn put<'b>(&self, bytes: &'b [u8], out: &mut Vec<u8>) -> Option<&'b [u8]> {
        match self {
            Self::Integers(integers) => put_integers(integers, bytes, out),
            Self::Bool => {
                let (byte, rest) = bytes.split_first()?;
                match byte {
                    0 | 1 => put_bool(out, tag::BOOLEAN, *byte != 0),
                    byte => out.extend_from_slice(&[value_tag::RAW, 1, *byte]),
                }
                Some(rest)
            }
            Self::Double => {
                let (double, rest) = bytes.split_at_checked(8)?;
                put_octets(out, double);
                Some(rest)
            }
            Self::Octets(size) => {
                let (octets, rest) = bytes.split_at_checked(*size)?;
                put_octets(out, octets);
                Some(rest)
            }
            Self::Pad(size) => {
                put_null(out, tag::OCTETS);
                bytes.get(*size..)
            }
            Self::Struct(plan) => {
                plan.put(bytes, out)?;
                bytes.get(plan.size..)
            }
            Self::List(count, plan) => put_list(*count, plan, bytes, out),
        }
    }
}

fn put_list<'b>(count: usize, plan: &Plan, bytes: &'b [u8], out: &mut Vec<u8>) -> Option<&'b [u8]> {
    let start = open(out, value_tag::LIST);
    let mut run = RunWriter::default();
    let mut rest = bytes;
    let mut previous = None;
    for _ in 0..count {
        let (element, after) = rest.split_at_checked(plan.size)?;
        // The same bytes are the same value.
        if previous == Some(element) {
            run.again();
        } else {
            run.begin(out.len());
            plan.put(rest, out)?;
            run.end(out);
        }
        (previous, rest) = (Some(element), after);
    }
    run.finish(out);
    close(out, start);
    Some(rest)
}

/// Octets of the longest INTEGER, header included: tag, length, a zero, 8 octets.
const LONGEST: usize = 11;

/// Appends integers, of which `bytes` are the encodings. Returns what is behind them.
fn put_integers<'b>(integers: &[Integer], bytes: &'b [u8], out: &mut Vec<u8>) -> Option<&'b [u8]> {
    let start = out.len();
    // Room for the longest, of which each takes what it needs: to ask for room each time takes longer.
    out.resize(start.checked_add(integers.len().checked_mul(LONGEST)?)?, 0);
    let mut room = out.get_mut(start..)?;
    let mut rest = bytes;
    for integer in integers {
        let word = u64::from_be_bytes(*rest.first_chunk()?);
        rest = rest.get(usize::from(integer.size)..)?;
        let length = put_integer(*integer, word, room.first_chunk_mut()?)?;
        room = room.get_mut(length..)?;
    }
    let left = room.len();
    out.truncate(out.len().saturating_sub(left));
    Some(rest)
}

/// Puts the integer that `word` begins with, and anything behind it. Returns its octets.
#[inline]
fn put_integer(integer: Integer, word: u64, room: &mut [u8; LONGEST]) -> Option<usize> {
    let extended = word.cast_signed() >> integer.shift();
    let (content, significant) = if integer.signed {
        (extended.cast_unsigned(), extended ^ (extended >> 63))
    } else {
        let value = word >> integer.shift();
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
