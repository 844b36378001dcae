//! From values to bytes.
//!
//! Values are read at the front of all that is left of the outermost one, and not of what encloses them: a number is then read in
//! one piece with what stands behind it. What encloses values is over if as much is left as its length says.

use super::{Plan, SPARE, Step};
use crate::der::{DerReader, header, tag};
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

    /// The first numbers of `values`, each with some bytes behind it that are written over. Returns the steps behind them, and what is
    /// left of the values.
    fn integers<'s, 'v>(
        &mut self,
        mut steps: &'s [Step],
        values: &'v [u8],
    ) -> Option<(&'s [Step], &'v [u8])> {
        let mut place = self.bytes.get_mut(self.at..)?;
        let before = place.len();
        let mut rest = values;
        while let [Step::Integer(integer), behind @ ..] = steps {
            let (bits, after) = integer.take(rest)?;
            *place.first_chunk_mut()? = (bits << integer.surplus()).to_be_bytes();
            place = place.get_mut(integer.size()..)?;
            (steps, rest) = (behind, after);
        }
        self.at = self.at.checked_add(before.checked_sub(place.len())?)?;
        Some((steps, rest))
    }
}

impl Plan {
    /// Makes a state's bytes of its value, the first of `values`, with [`SPARE`] more behind them. Returns what is behind the value.
    /// `None`: it is not as usual; then `out` holds anything.
    pub(in crate::value) fn get<'v>(
        &self,
        values: &'v [u8],
        out: &mut Vec<u8>,
    ) -> Option<&'v [u8]> {
        out.clear();
        out.resize(self.size.checked_add(SPARE)?, 0);
        let mut place = Place { bytes: out, at: 0 };
        let rest = self.fill(values, &mut place)?;
        (place.at == self.size).then_some(rest)
    }

    /// Puts the bytes of the struct at the front of `values`. Returns what is behind it.
    fn fill<'v>(&self, values: &'v [u8], place: &mut Place<'_>) -> Option<&'v [u8]> {
        let (mut rest, _, left) = open(values, tag::SEQUENCE)?;
        let mut steps = self.steps.as_slice();
        while let [step, behind @ ..] = steps {
            (steps, rest) = match step {
                Step::Integer(_) => place.integers(steps, rest)?,
                step => (behind, step.get(rest, place)?),
            };
        }
        // Otherwise: subsections, a surplus, or a value that is longer than what encloses it.
        (rest.len() == left).then_some(rest)
    }
}

impl Step {
    /// Puts the bytes of the first values. Returns what is behind them.
    #[inline]
    fn get<'v>(&self, values: &'v [u8], place: &mut Place<'_>) -> Option<&'v [u8]> {
        match self {
            Self::Integer(_) => None,
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
            Self::Struct(plan) => plan.fill(values, place),
            Self::List(list) => get_list(list.0, &list.1, values, place),
        }
    }
}

/// What stands behind the header of the first value, the value's content, and how much is left behind the value.
fn open(values: &[u8], tag: u8) -> Option<(&[u8], &[u8], usize)> {
    let (size, length) = match values {
        [found, length @ ..=0x7f, ..] if *found == tag => (2, usize::from(*length)),
        _ => {
            let header = header(values).ok()??;
            if header.tag != tag {
                return None;
            }
            (header.size, header.length)
        }
    };
    let rest = values.get(size..)?;
    Some((rest, rest.get(..length)?, rest.len().checked_sub(length)?))
}

fn octets<'v>(values: &'v [u8], size: usize, place: &mut Place<'_>) -> Option<&'v [u8]> {
    let (rest, content, _) = open(values, tag::OCTETS)?;
    if content.len() != size {
        return None;
    }
    place.put(content)?;
    rest.get(size..)
}

fn get_list<'v>(
    count: usize,
    plan: &Plan,
    values: &'v [u8],
    place: &mut Place<'_>,
) -> Option<&'v [u8]> {
    let (rest, content, left) = open(values, value_tag::LIST)?;
    let mut list = ListReader::of(DerReader::new(content, 0));
    let mut previous = None;
    for _ in 0..count {
        let at = content.len().checked_sub(list.left())?;
        let (at, size) = match list.next_usual(tag::SEQUENCE) {
            Some(element) => (at, element.whole.len()),
            None => {
                // Errors are the walk's: what matters of the offset is the place in the list.
                let element = list.next().ok()??;
                (usize::try_from(element.offset).ok()?, element.whole.len())
            }
        };
        // Elements of a run are one value.
        if previous == Some(at) {
            place.again(plan.size)?;
        } else {
            let behind = plan.fill(rest.get(at..)?, place)?;
            let taken = rest.len().checked_sub(at)?.checked_sub(behind.len())?;
            if taken != size {
                return None;
            }
        }
        previous = Some(at);
    }
    if !list.is_over() {
        return None;
    }
    rest.get(rest.len().checked_sub(left)?..)
}
