//! Lists: elements one behind the other, equal neighbours as runs.

use crate::der::{DerReader, Tlv, put_tlv, put_uint, tag};
use crate::error::{BerError, BerErrorKind};
use crate::limits::MAX_ELEMENTS;

use super::value_tag;

/// Whether a run of `count` elements of `length` bytes is shorter than its elements.
fn is_shorter(count: u64, length: usize) -> bool {
    let content = integer_size(count).saturating_add(length);
    let run = header_size(content).saturating_add(content);
    (run as u64) < count.saturating_mul(length as u64)
}

/// Bytes of an INTEGER, header included.
const fn integer_size(value: u64) -> usize {
    // One bit for the sign.
    let bits = 65_u32.saturating_sub(value.leading_zeros());
    (bits.div_ceil(8) as usize).saturating_add(2)
}

const fn header_size(content: usize) -> usize {
    match content {
        0..=0x7f => 2,
        0x80..=0xff => 3,
        0x100..=0xffff => 4,
        0x1_0000..=0xff_ffff => 5,
        _ => 6,
    }
}

/// Replaces equal elements by runs while a list is written.
#[derive(Debug, Default)]
pub(super) struct RunWriter {
    /// Where the element begins that is being written.
    item: usize,
    /// Where the element before begins, and how long it is. It stands there once for all of its equals.
    previous: Option<(usize, usize)>,
    /// How many equals there are.
    count: u64,
}

impl RunWriter {
    pub(super) const fn begin(&mut self, at: usize) {
        self.item = at;
    }

    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        let item = self.item;
        let length = out.len().saturating_sub(item);
        if let Some((start, size)) = self.previous
            && size == length
            && out.get(start..start.saturating_add(size)) == out.get(item..)
        {
            out.truncate(item);
            self.count = self.count.saturating_add(1);
            return;
        }
        if self.count > 1 {
            // The new element stands aside while those before it get their final form.
            let new = out.get(item..).unwrap_or_default().to_vec();
            out.truncate(item);
            self.settle(out);
            self.item = out.len();
            out.extend_from_slice(&new);
        }
        self.previous = Some((self.item, length));
        self.count = 1;
    }

    /// Another element like the one that ended last.
    pub(super) const fn again(&mut self) {
        self.count = self.count.saturating_add(1);
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.settle(out);
    }

    /// The equals before, of which one stands at the end of `out`, become a run or so many elements.
    fn settle(&mut self, out: &mut Vec<u8>) {
        let Some((start, length)) = self.previous.take() else {
            return;
        };
        if self.count < 2 {
            return;
        }
        let value = out.get(start..).unwrap_or_default().to_vec();
        if is_shorter(self.count, length) {
            out.truncate(start);
            let mut content = Vec::with_capacity(length.saturating_add(12));
            put_uint(&mut content, tag::INTEGER, self.count);
            content.extend_from_slice(&value);
            put_tlv(out, value_tag::RUN, &content);
        } else {
            for _ in 1..self.count {
                out.extend_from_slice(&value);
            }
        }
    }
}

/// The elements of a list, runs expanded. Refuses what a writer would have written in another way.
#[derive(Debug, Clone)]
pub(super) struct ListReader<'a> {
    rest: DerReader<'a>,
    /// The element that came last, and how many more equals follow.
    last: Option<Tlv<'a>>,
    repeat: u64,
    /// Equals up to now that stand there one by one; 0 behind a run.
    singles: u64,
    total: u64,
}

impl<'a> ListReader<'a> {
    pub(super) const fn new(list: &Tlv<'a>) -> Self {
        Self {
            rest: list.reader(),
            last: None,
            repeat: 0,
            singles: 0,
            total: 0,
        }
    }

    pub(super) const fn offset(&self) -> u64 {
        self.rest.offset()
    }

    /// Whether no element is left.
    pub(super) const fn is_over(&self) -> bool {
        self.repeat == 0 && self.rest.is_empty()
    }

    /// Whether the next element is absent. `None`: there is none.
    pub(super) fn is_nil(&self) -> Option<bool> {
        if self.repeat > 0 {
            return self.last.map(|tlv| tlv.tag == value_tag::NIL);
        }
        let tag = match self.rest.peek()? {
            value_tag::RUN => {
                let mut run = self.rest;
                let mut run = run.any().ok()?.reader();
                run.any().ok()?;
                run.peek()?
            }
            tag => tag,
        };
        Some(tag == value_tag::NIL)
    }

    /// The next element.
    pub(super) fn next(&mut self) -> Result<Option<Tlv<'a>>, BerError> {
        if self.repeat > 0 {
            self.repeat = self.repeat.saturating_sub(1);
            return Ok(self.last);
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tlv = self.rest.any()?;
        let (value, count) = if tlv.tag == value_tag::RUN {
            let mut run = tlv.reader();
            let count = run.uint("elements of a run", MAX_ELEMENTS)?;
            let value = run.any()?;
            run.finish()?;
            if value.tag == value_tag::RUN || !is_shorter(count, value.whole.len()) {
                return Err(self.not_canonical(&tlv));
            }
            (value, count)
        } else {
            (tlv, 1)
        };
        let same = self.last.is_some_and(|last| last.whole == value.whole);
        if same {
            // All equal neighbours are one run, where that is shorter.
            let before = self.singles;
            let all = before.saturating_add(1);
            if before == 0 || count > 1 || is_shorter(all, value.whole.len()) {
                return Err(self.not_canonical(&tlv));
            }
            self.singles = all;
        } else {
            self.singles = u64::from(count == 1);
        }
        self.total = self.total.saturating_add(count);
        if self.total > MAX_ELEMENTS {
            return Err(BerErrorKind::Limit {
                what: "elements of a list",
                found: self.total,
                limit: MAX_ELEMENTS,
            }
            .at(tlv.offset));
        }
        self.last = Some(value);
        self.repeat = count.saturating_sub(1);
        Ok(Some(value))
    }

    fn not_canonical(&self, tlv: &Tlv<'_>) -> BerError {
        BerErrorKind::NotCanonical("equal elements of a list are not written as they must be")
            .at(tlv.offset)
    }
}
