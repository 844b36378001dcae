//! The pages that are left, and the order in which they go.

use std::collections::VecDeque;

use vmstate_ram::{BlockId, BlockName, PageSize};

use super::super::dirty::DirtyPages;
use super::PageRequestError;

/// A block of memory that its guest has left behind.
#[derive(Debug)]
pub(in crate::ram) struct LeftBlock {
    pub(in crate::ram) id: BlockId,
    pub(in crate::ram) name: BlockName,
    pub(in crate::ram) used_length: u64,
    /// Bytes of a page of the memory behind it: what travels at once.
    pub(in crate::ram) page_size: u64,
    /// Target pages to send. Of a page of the memory behind them, all or none.
    pub(in crate::ram) dirty: DirtyPages,
}

impl LeftBlock {
    /// Marks all target pages of a page dirty if one of them is.
    pub(in crate::ram) fn whole_pages(&mut self, target: PageSize) {
        let each = self.page_size.checked_div(target.bytes()).unwrap_or(1);
        if each <= 1 {
            return;
        }
        let mut from = 0;
        while let Some(page) = self.next_dirty(from) {
            let first = page.saturating_sub(page.checked_rem(each).unwrap_or(0));
            let end = first.saturating_add(each);
            self.dirty.set_range(first..end);
            from = end;
        }
    }

    /// The first dirty page from this one on.
    fn next_dirty(&self, from: u64) -> Option<u64> {
        let index = from / 64;
        let here = self.dirty.word(index) & (u64::MAX << (from % 64));
        let (index, bits) = match here {
            0 => self.dirty.next_word(index.saturating_add(1))?,
            bits => (index, bits),
        };
        Some(
            index
                .saturating_mul(64)
                .saturating_add(bits.trailing_zeros().into()),
        )
    }

    /// Calls `run` with the first page and the number of pages of each run of dirty ones.
    pub(in crate::ram) fn runs<E>(
        &self,
        mut run: impl FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut open: Option<(u64, u64)> = None;
        let mut from = 0;
        while let Some((index, bits)) = self.dirty.next_word(from) {
            from = index.saturating_add(1);
            let mut left = bits;
            while left != 0 {
                let start = left.trailing_zeros();
                let length = (left >> start).trailing_ones();
                left &= u64::MAX
                    .checked_shl(start.saturating_add(length))
                    .unwrap_or(0);
                let first = index.saturating_mul(64).saturating_add(start.into());
                open = match open {
                    Some((begin, pages)) if begin.saturating_add(pages) == first => {
                        Some((begin, pages.saturating_add(length.into())))
                    }
                    done => {
                        if let Some((begin, pages)) = done {
                            run(begin, pages)?;
                        }
                        Some((first, length.into()))
                    }
                };
            }
        }
        match open {
            Some((begin, pages)) => run(begin, pages),
            None => Ok(()),
        }
    }
}

/// Pages that one sender has taken, so that no other sends them: dirty bits of adjacent words.
#[derive(Debug)]
pub(in crate::ram) struct Claim {
    pub(in crate::ram) id: BlockId,
    first_word: u64,
    bits: Vec<u64>,
}

impl Claim {
    /// Word numbers and bits.
    pub(in crate::ram) fn words(&self) -> impl Iterator<Item = (u64, u64)> {
        (self.first_word..).zip(self.bits.iter().copied())
    }

    fn pages(&self) -> u64 {
        self.bits.iter().fold(0, |sum: u64, bits| {
            sum.saturating_add(bits.count_ones().into())
        })
    }
}

/// Everything that is left.
#[derive(Debug)]
pub(in crate::ram) struct Left {
    target: PageSize,
    blocks: Vec<LeftBlock>,
    /// Requests: number of the block in `blocks`, first target page.
    queue: VecDeque<(usize, u64)>,
    /// Whether a target page is the first of one in the queue.
    queued: Vec<DirtyPages>,
    /// The block that was named last.
    named: Option<usize>,
    /// Where the next look begins: block, and target page.
    at: (usize, u64),
    /// Pages that are being written to a channel of their own.
    under_way: u64,
}

impl Left {
    pub(in crate::ram) fn new(target: PageSize, blocks: Vec<LeftBlock>) -> Self {
        let queued = blocks
            .iter()
            .map(|block| DirtyPages::new(block.dirty.pages()))
            .collect();
        Self {
            target,
            blocks,
            queue: VecDeque::new(),
            queued,
            named: None,
            at: (0, 0),
            under_way: 0,
        }
    }

    /// After a broken connection: exactly these pages are left, block by block.
    pub(in crate::ram) fn begin_again(&mut self, dirty: Vec<DirtyPages>) {
        for (block, dirty) in self.blocks.iter_mut().zip(dirty) {
            block.dirty = dirty;
            block.whole_pages(self.target);
        }
        let blocks = std::mem::take(&mut self.blocks);
        *self = Self::new(self.target, blocks);
    }

    pub(super) fn request(
        &mut self,
        name: Option<&BlockName>,
        start: u64,
        length: u64,
    ) -> Result<(), PageRequestError> {
        if let Some(name) = name {
            let found = self.blocks.iter().position(|block| &block.name == name);
            self.named = Some(found.ok_or_else(|| PageRequestError::UnknownBlock(name.clone()))?);
        }
        let number = self.named.ok_or(PageRequestError::NoBlock)?;
        let (Some(block), Some(queued)) = (self.blocks.get(number), self.queued.get_mut(number))
        else {
            return Err(PageRequestError::NoBlock);
        };
        let size = block.page_size.max(1);
        let whole = |bytes: u64| bytes.checked_rem(size) == Some(0);
        let end = start
            .checked_add(length)
            .filter(|end| *end <= block.used_length);
        let (true, true, Some(end)) = (whole(start) && length > 0, whole(length), end) else {
            return Err(PageRequestError::Range {
                block: block.name.clone(),
                start,
                length,
                used: block.used_length,
                page_size: size,
            });
        };
        let step = size.checked_div(self.target.bytes()).unwrap_or(1).max(1);
        let mut page = start.checked_div(self.target.bytes()).unwrap_or(0);
        let last = end.checked_div(self.target.bytes()).unwrap_or(0);
        while page < last {
            // What is not left has been sent.
            if block.dirty.contains(page) && !queued.contains(page) {
                queued.set_range(page..page.saturating_add(1));
                self.queue.push_back((number, page));
            }
            page = page.saturating_add(step);
        }
        Ok(())
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes the page that has been asked for first. What comes next by itself then are its neighbours.
    pub(super) fn claim_requested(&mut self) -> Option<Claim> {
        while let Some((number, page)) = self.queue.pop_front() {
            if let Some(queued) = self.queued.get_mut(number) {
                queued.clear_bits(page / 64, 1 << (page % 64));
            }
            let block = self.blocks.get_mut(number)?;
            if !block.dirty.contains(page) {
                continue;
            }
            self.at = (number, page);
            let each = block
                .page_size
                .checked_div(self.target.bytes())
                .unwrap_or(1);
            let claim = match each {
                0..64 => {
                    let mask = (1_u64 << each).wrapping_sub(1);
                    take(block, page / 64, 1, mask << (page % 64))
                }
                each => take(block, page / 64, each / 64, u64::MAX),
            };
            return Some(claim);
        }
        None
    }

    /// Takes the next pages: up to `most` adjacent ones, of 64 at most, or one page of the memory behind them where that is larger.
    /// Goes round all blocks.
    pub(super) fn claim_next(&mut self, most: u32) -> Option<Claim> {
        let (start, from) = self.at;
        let count = self.blocks.len();
        for step in 0..=count {
            let number = start.saturating_add(step).checked_rem(count)?;
            let from = if step == 0 { from } else { 0 };
            let block = self.blocks.get_mut(number)?;
            let Some(page) = block.next_dirty(from) else {
                continue;
            };
            let each = block
                .page_size
                .checked_div(self.target.bytes())
                .unwrap_or(1)
                .max(1);
            // Of a page of the memory behind them all are dirty or none: this is its first one, unless the look began inside.
            let first = page.saturating_sub(page.checked_rem(each).unwrap_or(0));
            let claim = if each < 64 {
                let pages = each.max(most.into()).min(64);
                let pages = pages.saturating_sub(pages.checked_rem(each).unwrap_or(0));
                let mask = u64::MAX >> 64_u64.saturating_sub(pages);
                // No further than this word.
                let next_word = (first / 64).saturating_add(1).saturating_mul(64);
                self.at = (number, first.saturating_add(pages).min(next_word));
                take(block, first / 64, 1, mask << (first % 64))
            } else {
                self.at = (number, first.saturating_add(each));
                take(block, first / 64, each / 64, u64::MAX)
            };
            return Some(claim);
        }
        None
    }

    /// Pages of a claim are being written to a channel of their own.
    pub(super) fn under_way(&mut self, claim: &Claim) {
        self.under_way = self.under_way.saturating_add(claim.pages());
    }

    /// They have been given to it.
    pub(super) fn delivered(&mut self, claim: &Claim) {
        self.under_way = self.under_way.saturating_sub(claim.pages());
    }

    /// Bytes that are left or under way.
    pub(super) fn remaining(&self) -> u64 {
        let left = self.blocks.iter().fold(self.under_way, |sum, block| {
            sum.saturating_add(block.dirty.count())
        });
        left.saturating_mul(self.target.bytes())
    }
}

/// Takes the dirty pages of some words, of each word those in `mask`.
fn take(block: &mut LeftBlock, first_word: u64, words: u64, mask: u64) -> Claim {
    let bits = (first_word..first_word.saturating_add(words))
        .map(|index| {
            let bits = block.dirty.word(index) & mask;
            block.dirty.clear_bits(index, bits);
            bits
        })
        .collect();
    Claim {
        id: block.id,
        first_word,
        bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn name(name: &str) -> BlockName {
        BlockName::new(name.as_bytes()).unwrap()
    }

    fn block(number: u32, pages: u64, page_size: u64) -> LeftBlock {
        LeftBlock {
            id: BlockId(number),
            name: name(&format!("block{number}")),
            used_length: pages * PAGE,
            page_size,
            dirty: DirtyPages::new(pages),
        }
    }

    fn left(blocks: Vec<LeftBlock>) -> Left {
        Left::new(PageSize::KIB4, blocks)
    }

    fn pages(claim: &Claim) -> Vec<u64> {
        claim
            .words()
            .flat_map(|(index, bits)| {
                (0..64)
                    .filter(move |bit| bits >> bit & 1 == 1)
                    .map(move |bit| index * 64 + bit)
            })
            .collect()
    }

    #[test]
    fn requested_pages_first_then_their_neighbours() {
        let mut one = block(0, 256, PAGE);
        one.dirty.set_range(0..256);
        let mut left = left(vec![one, block(1, 10, PAGE)]);
        let ram = name("block0");
        left.request(Some(&ram), 200 * PAGE, PAGE).unwrap();
        left.request(None, 130 * PAGE, 2 * PAGE).unwrap();
        assert_eq!(pages(&left.claim_requested().unwrap()), [200]);
        assert_eq!(pages(&left.claim_requested().unwrap()), [130]);
        assert_eq!(pages(&left.claim_requested().unwrap()), [131]);
        assert!(left.claim_requested().is_none());
        let mut next = |most| left.claim_next(most).map(|claim| pages(&claim));
        // Those behind it, in pieces that end with a word of 64 at the latest.
        assert_eq!(next(64), Some((132..192).collect()));
        assert_eq!(next(16), Some((192..208).filter(|p| *p != 200).collect()));
        assert_eq!(next(16), Some((208..224).collect()));
        assert_eq!(next(64), Some((224..256).collect()));
        assert_eq!(next(64), Some((0..64).collect()));
        assert_eq!(next(1), Some(vec![64]));
        assert_eq!(next(0), Some(vec![65]));
        assert_eq!(next(64), Some((66..128).collect()));
        assert_eq!(next(1000), Some(vec![128, 129]));
        assert_eq!(next(64), None);
        assert_eq!(left.remaining(), 0);
        // What has been sent is not sent again.
        left.request(None, 130 * PAGE, PAGE).unwrap();
        assert!(!left.is_waiting());
    }

    #[test]
    fn a_million_requests_are_one() {
        let mut one = block(0, 70, PAGE);
        one.dirty.set_range(0..70);
        let mut left = left(vec![one]);
        let ram = name("block0");
        for _ in 0..1_000_000 {
            left.request(Some(&ram), 3 * PAGE, PAGE).unwrap();
        }
        assert_eq!(left.queue.len(), 1);
        assert_eq!(pages(&left.claim_requested().unwrap()), [3]);
        assert!(!left.is_waiting());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut left = left(vec![block(0, 4, PAGE), block(1, 1024, 512 * PAGE)]);
        let (ram, huge) = (name("block0"), name("block1"));
        assert_eq!(left.request(None, 0, PAGE), Err(PageRequestError::NoBlock));
        let unknown = name("other");
        assert_eq!(
            left.request(Some(&unknown), 0, PAGE),
            Err(PageRequestError::UnknownBlock(unknown))
        );
        for (block, start, length) in [
            (&ram, 0, 0),
            (&ram, 1, PAGE),
            (&ram, 0, PAGE + 1),
            (&ram, 0, 5 * PAGE),
            (&ram, 4 * PAGE, PAGE),
            (&ram, u64::MAX - PAGE + 1, PAGE),
            (&ram, PAGE, u64::MAX),
            (&huge, 0, PAGE),
            (&huge, PAGE, 512 * PAGE),
            (&huge, 1024 * PAGE, 512 * PAGE),
        ] {
            let refused = left.request(Some(block), start, length);
            assert!(
                matches!(refused, Err(PageRequestError::Range { .. })),
                "{block} {start:#x} {length:#x}: {refused:?}"
            );
        }
        assert!(!left.is_waiting());
    }

    #[test]
    fn large_pages_travel_whole() {
        let mut huge = block(0, 2048, 512 * PAGE);
        huge.dirty.set_range(600..601);
        huge.dirty.set_range(2047..2048);
        huge.whole_pages(PageSize::KIB4);
        assert_eq!(huge.dirty.count(), 1024);
        let mut runs = Vec::new();
        huge.runs(|first, pages| {
            runs.push((first, pages));
            Ok::<_, ()>(())
        })
        .unwrap();
        assert_eq!(runs, [(512, 512), (1536, 512)]);
        let mut left = left(vec![huge]);
        left.request(Some(&name("block0")), 1536 * PAGE, 512 * PAGE)
            .unwrap();
        let claim = left.claim_requested().unwrap();
        assert_eq!(pages(&claim), (1536..2048).collect::<Vec<_>>());
        left.under_way(&claim);
        assert_eq!(left.remaining(), 1024 * PAGE);
        left.delivered(&claim);
        assert_eq!(
            pages(&left.claim_next(16).unwrap()),
            (512..1024).collect::<Vec<_>>()
        );
        assert_eq!(left.remaining(), 0);
    }

    #[test]
    fn pages_of_sixteen_are_taken_whole() {
        let mut block = block(0, 128, 16 * PAGE);
        block.dirty.set_range(100..101);
        block.whole_pages(PageSize::KIB4);
        let mut left = left(vec![block]);
        left.request(Some(&name("block0")), 96 * PAGE, 16 * PAGE)
            .unwrap();
        assert_eq!(
            pages(&left.claim_requested().unwrap()),
            (96..112).collect::<Vec<_>>()
        );
        let mut block = self::block(0, 128, 16 * PAGE);
        block.dirty.set_range(16..128);
        let mut left = self::left(vec![block]);
        // A look that begins inside of one takes all of it.
        left.at = (0, 40);
        let mut next = |most| left.claim_next(most).map(|claim| pages(&claim));
        assert_eq!(next(1), Some((32..48).collect()));
        assert_eq!(next(32), Some((48..64).collect()));
        assert_eq!(next(40), Some((64..96).collect()));
    }

    #[test]
    fn runs_cross_words() {
        let mut block = block(0, 300, PAGE);
        for range in [0..1, 60..200, 299..300] {
            block.dirty.set_range(range);
        }
        let mut runs = Vec::new();
        block
            .runs(|first, pages| {
                runs.push((first, pages));
                Ok::<_, ()>(())
            })
            .unwrap();
        assert_eq!(runs, [(0, 1), (60, 140), (299, 1)]);
        block.runs(|_, _| Err("full")).unwrap_err();
    }
}
