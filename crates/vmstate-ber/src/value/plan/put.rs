//! From bytes to values.

use super::{Integer, Plan, Step};
use crate::der::{close, open, put_bool, put_int, put_null, put_octets, put_uint, tag};
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
            Self::Integers(integers) => {
                let mut rest = bytes;
                for integer in integers {
                    let word = rest.first_chunk()?;
                    put_integer(out, *integer, u64::from_be_bytes(*word));
                    rest = rest.get(usize::from(integer.size)..)?;
                }
                Some(rest)
            }
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

/// Appends the integer that `word` begins with.
#[inline]
fn put_integer(out: &mut Vec<u8>, integer: Integer, word: u64) {
    if integer.signed {
        put_int(out, tag::INTEGER, word.cast_signed() >> integer.shift());
    } else {
        put_uint(out, tag::INTEGER, word >> integer.shift());
    }
}
