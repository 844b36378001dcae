//! Lists: elements one behind the other, equal neighbours as runs.

use crate::der::{DerReader, Tlv, header, put_tlv, put_uint, tag};
use crate::error::{BerError, BerErrorKind};
use crate::limits::MAX_ELEMENTS;

use super::same::is_same;
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
            && let Some((before, now)) = out.split_at_checked(item)
            && let Some(before) = before.get(start..start.saturating_add(size))
            && is_same(before, now)
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

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.settle(out);
    }

    /// The equals before, of which one stands at the end of `out`, become a run or so many elements.
    fn settle(&mut self, out: &mut Vec<u8>) {
        if let Some((start, _)) = self.previous.take() {
            repeat(out, start, self.count);
        }
    }
}

/// The element that stands from `start` on becomes `count` of them: a run, or one behind the other.
pub(super) fn repeat(out: &mut Vec<u8>, start: usize, count: u64) {
    if count < 2 {
        return;
    }
    let value = out.get(start..).unwrap_or_default().to_vec();
    if is_shorter(count, value.len()) {
        out.truncate(start);
        let mut content = Vec::with_capacity(value.len().saturating_add(12));
        put_uint(&mut content, tag::INTEGER, count);
        content.extend_from_slice(&value);
        put_tlv(out, value_tag::RUN, &content);
    } else {
        for _ in 1..count {
            out.extend_from_slice(&value);
        }
    }
}

/// The elements of a list, runs expanded. Refuses what a writer would have written in another way.
#[derive(Debug, Clone)]
pub(super) struct ListReader<'a> {
    rest: DerReader<'a>,
    /// The element that came last, none before the first one; how many more equals follow.
    last: DerReader<'a>,
    repeat: u64,
    /// Equals up to now that stand there one by one; 0 behind a run.
    singles: u64,
    total: u64,
}

impl<'a> ListReader<'a> {
    pub(super) const fn new(list: &Tlv<'a>) -> Self {
        Self::of(list.reader())
    }

    /// The elements at which a reader stands.
    pub(super) const fn of(elements: DerReader<'a>) -> Self {
        Self {
            rest: elements,
            last: DerReader::new(&[], 0),
            repeat: 0,
            singles: 0,
            total: 0,
        }
    }

    pub(super) const fn offset(&self) -> u64 {
        self.rest.offset()
    }

    /// Bytes of the list that are left.
    pub(super) const fn left(&self) -> usize {
        self.rest.rest().len()
    }

    /// Whether no element is left.
    pub(super) const fn is_over(&self) -> bool {
        self.repeat == 0 && self.rest.is_empty()
    }

    /// How many elements are left. It takes as long as the list is, not as many elements as there are: a run is one step.
    pub(super) fn count(mut self) -> Result<u64, BerError> {
        let mut count = 0_u64;
        while self.next()?.is_some() {
            count = count.saturating_add(1).saturating_add(self.repeat);
            self.repeat = 0;
        }
        Ok(count)
    }

    /// Whether the next element is absent. `None`: there is none.
    pub(super) fn is_nil(&self) -> Option<bool> {
        if self.repeat > 0 {
            return self.last.peek().map(|tag| tag == value_tag::NIL);
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
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Tlv<'a>>, BerError> {
        if let Some(tag) = self.rest.peek()
            && let Some(value) = self.next_usual(tag)
        {
            return Ok(Some(value));
        }
        self.next_of_any_kind()
    }

    fn last(&self) -> Result<Tlv<'a>, BerError> {
        let mut last = self.last;
        last.any()
    }

    /// The next element, in the usual case: it stands alone, is another one than that before it, and has this identifier octet.
    /// `None`: it is not that, and nothing has happened.
    #[inline(always)]
    pub(super) fn next_usual(&mut self, tag: u8) -> Option<Tlv<'a>> {
        let rest = self.rest.rest();
        let (size, length) = match rest {
            [found, length @ ..=0x7f, ..] if *found == tag => (2, usize::from(*length)),
            _ => long_header(rest, tag)?,
        };
        let (whole, behind) = rest.split_at_checked(size.wrapping_add(length))?;
        let content = whole.get(size..)?;
        if self.repeat > 0
            || tag & 0x1f == 0x1f
            || matches!(tag, 0 | value_tag::RUN)
            || self.total >= MAX_ELEMENTS
            || is_same(self.last.rest(), whole)
        {
            return None;
        }
        let offset = self.rest.offset();
        self.rest.go_on(behind);
        self.last = DerReader::new(whole, offset);
        self.singles = 1;
        self.total = self.total.wrapping_add(1);
        Some(Tlv {
            tag,
            content,
            whole,
            offset,
        })
    }

    /// As [`ListReader::next`], in every case.
    pub(super) fn next_of_any_kind(&mut self) -> Result<Option<Tlv<'a>>, BerError> {
        if self.repeat > 0 {
            self.repeat = self.repeat.saturating_sub(1);
            return self.last().map(Some);
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
        if is_same(self.last.rest(), value.whole) {
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
        self.last = DerReader::new(value.whole, value.offset);
        self.repeat = count.saturating_sub(1);
        Ok(Some(value))
    }

    fn not_canonical(&self, tlv: &Tlv<'_>) -> BerError {
        BerErrorKind::NotCanonical("equal elements of a list are not written as they must be")
            .at(tlv.offset)
    }
}

/// Bytes of a header with this identifier octet, and of the content.
fn long_header(bytes: &[u8], tag: u8) -> Option<(usize, usize)> {
    let header = header(bytes).ok()??;
    (header.tag == tag).then_some((header.size, header.length))
}
