//! The hot loop: page records out of one buffer.

use super::{RamParser, State};
use crate::record::{Event, Record, Step};
use crate::{BlockId, PageRef, RamError, RamFlags};

const NEXT_PAGE: u64 = RamFlags::PAGE.union(RamFlags::CONTINUE).bits();
const NEXT_ZERO: u64 = RamFlags::ZERO.union(RamFlags::CONTINUE).bits();

/// Why [`Records`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It has not ended yet.
    Running,
    /// The next record is not complete: call again with at least this many bytes, starting with the first that was
    /// not consumed.
    NeedMore {
        /// Length of the next input, in bytes.
        at_least: usize,
    },
    /// The next record is not a page (or no record can come now): go on with [`RamParser::step`].
    Other,
    /// An error was returned.
    Failed,
}

/// Iterator over the whole page records at the front of a buffer; see [`RamParser::records`].
///
/// It allocates nothing and copies nothing. The parser is up to date at any time, so the iterator may be dropped
/// early.
#[derive(Debug)]
pub struct Records<'p, 'a> {
    parser: &'p mut RamParser,
    rest: &'a [u8],
    consumed: usize,
    stop: Stop,
    // Copies out of the parser, for the loop.
    page_len: usize,
    mask: u64,
    block: BlockId,
    /// Offsets at which the loop may take the short way: below the used length; 0 when there is none.
    limit: u64,
}

impl<'p, 'a> Records<'p, 'a> {
    pub(super) fn new(parser: &'p mut RamParser, input: &'a [u8]) -> Self {
        let stop = if parser.state == State::Records {
            Stop::Running
        } else {
            Stop::Other
        };
        let page_size = parser.dialect.page_size;
        let mut records = Self {
            parser,
            rest: input,
            consumed: 0,
            stop,
            page_len: page_size.as_usize(),
            mask: page_size.flag_mask(),
            block: BlockId(0),
            limit: 0,
        };
        records.reload();
        records
    }

    /// How many bytes of the input the records so far took.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// Why the iterator has ended.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop
    }

    /// Copies what the short way needs to know about the current block.
    fn reload(&mut self) {
        let short = RamFlags::PAGE | RamFlags::ZERO;
        match self.parser.current {
            Some(current) if self.stop == Stop::Running && self.parser.allowed.contains(short) => {
                (self.block, self.limit) = (current.id, current.limit);
            }
            _ => self.limit = 0,
        }
    }

    #[inline]
    fn took(&mut self, count: usize, rest: &'a [u8]) {
        self.consumed = self.consumed.wrapping_add(count);
        self.parser.pass(count);
        self.rest = rest;
    }

    /// Everything but the next page of the same block.
    #[cold]
    #[inline(never)]
    fn next_other(&mut self) -> Option<Result<Record<'a>, RamError>> {
        if self.stop != Stop::Running {
            return None;
        }
        let Some(head) = self.rest.first_chunk() else {
            self.stop = Stop::NeedMore { at_least: 8 };
            self.limit = 0;
            return None;
        };
        let flags = RamFlags::from_bits_retain(u64::from_be_bytes(*head) & self.mask);
        if flags == RamFlags::EOS || flags == RamFlags::MULTIFD_FLUSH {
            self.stop = Stop::Other;
            self.limit = 0;
            return None;
        }
        match self.parser.step(self.rest) {
            Ok(Step::Event {
                consumed,
                event: Event::Record(record),
            }) => {
                self.consumed = self.consumed.wrapping_add(consumed);
                self.rest = self.rest.get(consumed..).unwrap_or_default();
                self.reload();
                Some(Ok(record))
            }
            Ok(Step::NeedMore { at_least }) => {
                self.stop = Stop::NeedMore { at_least };
                self.limit = 0;
                None
            }
            // `step` in this state yields nothing else: the bare words were sorted out above.
            Ok(Step::Event { .. }) => {
                self.stop = Stop::Other;
                self.limit = 0;
                None
            }
            Err(error) => {
                self.stop = Stop::Failed;
                self.limit = 0;
                Some(Err(error))
            }
        }
    }
}

impl<'a> Iterator for Records<'_, 'a> {
    type Item = Result<Record<'a>, RamError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some((head, rest)) = self.rest.split_first_chunk() {
            let word = u64::from_be_bytes(*head);
            let offset = word & !self.mask;
            if offset < self.limit {
                let page = PageRef {
                    block: self.block,
                    offset,
                    named: false,
                };
                match word & self.mask {
                    NEXT_PAGE => {
                        if let Some((data, rest)) = rest.split_at_checked(self.page_len) {
                            self.took(self.page_len.wrapping_add(8), rest);
                            return Some(Ok(Record::Page { page, data }));
                        }
                    }
                    NEXT_ZERO => {
                        if let Some((&0, rest)) = rest.split_first() {
                            self.took(9, rest);
                            return Some(Ok(Record::Zero { page, fill: 0 }));
                        }
                    }
                    _ => {}
                }
            }
        }
        self.next_other()
    }
}

impl std::iter::FusedIterator for Records<'_, '_> {}
