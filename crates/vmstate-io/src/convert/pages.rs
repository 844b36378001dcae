//! Pages in frames: runs, bitmaps, zero pages among others, in the order in which they came.

use vmstate_ber::PIECE;
use vmstate_ber::frame::{Coding, MAX_PAGES, MAX_ZERO_PAGES, RamPages, Select};

/// Pages that one bitmap can name.
const WINDOW: u64 = MAX_PAGES;
/// A run of so many zero pages gets a frame of its own.
const LONG: u64 = 64;

/// Pages of one block in ascending order, which are to become one frame.
#[derive(Debug, Default)]
pub(super) struct Pages {
    block: u32,
    first: u64,
    last: u64,
    count: u64,
    zeros: u64,
    /// Which pages from the first one on, as far as a bitmap reaches.
    present: Vec<u8>,
    /// Which of these are zero, by their order.
    zero_bits: Vec<u8>,
    data: Vec<u8>,
    named: bool,
}

fn set(bits: &mut Vec<u8>, index: u64) {
    let at = usize::try_from(index / 8).unwrap_or(usize::MAX);
    if bits.len() <= at {
        bits.resize(at + 1, 0);
    }
    if let Some(byte) = bits.get_mut(at) {
        *byte |= 1 << (index % 8);
    }
}

impl Pages {
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether another page fits in.
    pub(super) fn takes(&self, block: u32, page: u64, content: Option<&[u8]>) -> bool {
        if self.is_empty() {
            return true;
        }
        if block != self.block || page <= self.last {
            return false;
        }
        let window = page - self.first < WINDOW;
        match content {
            None if self.zeros == self.count => {
                let grows = self.is_run() && page == self.last + 1 && self.count < MAX_ZERO_PAGES;
                grows || window
            }
            None => window,
            Some(content) => {
                window
                    && self.data.len() + content.len() <= PIECE
                    && !(self.zeros == self.count && self.count >= LONG)
            }
        }
    }

    fn is_run(&self) -> bool {
        self.last - self.first + 1 == self.count
    }

    /// Adds a page, which fits in. `content`: `None` if it is zero.
    pub(super) fn add(&mut self, block: u32, page: u64, content: Option<&[u8]>, named: bool) {
        if self.is_empty() {
            self.block = block;
            self.first = page;
            self.named = named;
        }
        let place = page - self.first;
        if place < WINDOW {
            set(&mut self.present, place);
        }
        match content {
            None => {
                if self.count < WINDOW {
                    set(&mut self.zero_bits, self.count);
                }
                self.zeros += 1;
            }
            Some(content) => self.data.extend_from_slice(content),
        }
        self.last = page;
        self.count += 1;
    }

    /// The frame.
    pub(super) fn frame(&mut self) -> RamPages<'_> {
        let all_zero = self.zeros == self.count;
        let size = usize::try_from(self.count.div_ceil(8)).unwrap_or(0);
        if self.zeros > 0 && !all_zero {
            self.zero_bits.resize(size, 0);
        }
        RamPages {
            block: self.block,
            first: self.first,
            select: if self.is_run() {
                Select::Count(self.count)
            } else {
                Select::Bitmap(&self.present)
            },
            coding: if all_zero { Coding::Zero } else { Coding::Raw },
            data: (!all_zero).then_some(self.data.as_slice()),
            zeros: (self.zeros > 0 && !all_zero).then_some(self.zero_bits.as_slice()),
            named: self.named,
            checksum: false,
        }
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.zeros = 0;
        self.present.clear();
        self.zero_bits.clear();
        self.data.clear();
    }
}
