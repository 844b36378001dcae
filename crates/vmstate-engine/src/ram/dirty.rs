//! Dirty pages of one block, with a summary so that finding them costs what is dirty.

use std::ops::Range;

/// One bit per target page of a block: the pages to send.
///
/// Above the bits stands one summary bit for each 64-bit word that is not 0. Walking the dirty pages skips 4096 clean
/// ones at a time: 64 GiB of clean memory are 4096 words to look at, 2 MiB less than the bits themselves. The number
/// of dirty pages is kept.
///
/// Pages behind the end are always clean; setting one does nothing.
///
/// ```
/// use vmstate_engine::DirtyPages;
///
/// let mut dirty = DirtyPages::new(1 << 24);
/// dirty.set_range(70..72);
/// assert_eq!((dirty.count(), dirty.next_word(0)), (2, Some((1, 0b1100_0000))));
/// dirty.clear_bits(1, 0b0100_0000);
/// assert_eq!((dirty.count(), dirty.contains(70), dirty.contains(71)), (1, false, true));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirtyPages {
    words: Vec<u64>,
    /// Bit i mod 64 of word i div 64: `words[i]` is not 0.
    summary: Vec<u64>,
    pages: u64,
    count: u64,
}

impl DirtyPages {
    /// All pages clean. Takes one byte of memory for eight pages.
    #[must_use]
    pub fn new(pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            words: vec![0; words],
            summary: vec![0; words.div_ceil(64)],
            pages,
            count: 0,
        }
    }

    /// All pages dirty.
    #[must_use]
    pub fn full(pages: u64) -> Self {
        let mut dirty = Self::new(pages);
        dirty.set_range(0..pages);
        dirty
    }

    /// Number of pages, dirty or not.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Number of dirty pages.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the page is dirty.
    #[must_use]
    pub fn contains(&self, page: u64) -> bool {
        self.word(page / 64) & (1 << (page % 64)) != 0
    }

    /// The bits of pages `64 * index` and up, lowest first.
    #[must_use]
    #[inline]
    pub fn word(&self, index: u64) -> u64 {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get(index).copied())
            .unwrap_or(0)
    }

    /// The first word from this one on with a dirty page: its index and bits.
    #[must_use]
    #[inline]
    pub fn next_word(&self, from: u64) -> Option<(u64, u64)> {
        let here = self.word(from);
        if here != 0 {
            return Some((from, here));
        }
        let mut at = usize::try_from(from / 64).ok()?;
        let mut seen = self.summary.get(at)? & (u64::MAX << (from % 64));
        while seen == 0 {
            at = at.checked_add(1)?;
            seen = *self.summary.get(at)?;
        }
        let index = (at as u64)
            .saturating_mul(64)
            .saturating_add(seen.trailing_zeros().into());
        Some((index, self.word(index)))
    }

    /// Marks the pages of one word dirty; returns how many were clean before.
    #[inline]
    pub fn merge_word(&mut self, index: u64, bits: u64) -> u64 {
        let bits = bits & self.mask_of(index);
        let Some(word) = usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get_mut(index))
        else {
            return 0;
        };
        let newly = u64::from((bits & !*word).count_ones());
        if newly != 0 {
            *word |= bits;
            self.count = self.count.saturating_add(newly);
            self.summarize(index, true);
        }
        newly
    }

    /// Marks a range of pages dirty; returns how many were clean before.
    pub fn set_range(&mut self, pages: Range<u64>) -> u64 {
        let end = pages.end.min(self.pages);
        let mut newly: u64 = 0;
        let mut page = pages.start;
        while page < end {
            let index = page / 64;
            let next = index.saturating_add(1).saturating_mul(64).min(end);
            let length = next.saturating_sub(page);
            let bits = (u64::MAX >> 64_u64.saturating_sub(length).min(63)) << (page % 64);
            newly = newly.saturating_add(self.merge_word(index, bits));
            page = next;
        }
        newly
    }

    /// Marks pages of one word clean.
    #[inline]
    pub fn clear_bits(&mut self, index: u64, bits: u64) {
        let Some(word) = usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get_mut(index))
        else {
            return;
        };
        let gone = u64::from((*word & bits).count_ones());
        *word &= !bits;
        let empty = *word == 0;
        self.count = self.count.saturating_sub(gone);
        if empty {
            self.summarize(index, false);
        }
    }

    /// The bits of word `index` that stand for pages.
    fn mask_of(&self, index: u64) -> u64 {
        let left = self.pages.saturating_sub(index.saturating_mul(64));
        match left {
            0 => 0,
            1..64 => (1_u64 << left).wrapping_sub(1),
            _ => u64::MAX,
        }
    }

    fn summarize(&mut self, index: u64, any: bool) {
        let Some(summary) = usize::try_from(index / 64)
            .ok()
            .and_then(|at| self.summary.get_mut(at))
        else {
            return;
        };
        let bit = 1 << (index % 64);
        if any {
            *summary |= bit;
        } else {
            *summary &= !bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dirty pages, found by way of the summary.
    fn walk(dirty: &DirtyPages) -> Vec<u64> {
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some((index, bits)) = dirty.next_word(from) {
            found.extend(
                (0..64)
                    .filter(|b| bits >> b & 1 == 1)
                    .map(|b| index * 64 + b),
            );
            from = index + 1;
        }
        found
    }

    #[test]
    fn ranges_of_every_length_and_place() {
        for pages in [1, 63, 64, 65, 128, 5000] {
            for (start, end) in [
                (0, 1),
                (0, 64),
                (1, 63),
                (63, 65),
                (60, 200),
                (0, 5000),
                (4999, 6000),
            ] {
                let mut dirty = DirtyPages::new(pages);
                let expected: Vec<_> = (start..end.min(pages)).collect();
                assert_eq!(dirty.set_range(start..end), expected.len() as u64);
                assert_eq!(dirty.set_range(start..end), 0);
                assert_eq!(walk(&dirty), expected, "{pages} {start}..{end}");
                assert_eq!(dirty.count(), expected.len() as u64);
                for page in &expected {
                    assert!(dirty.contains(*page));
                    dirty.clear_bits(page / 64, 1 << (page % 64));
                }
                assert_eq!((walk(&dirty), dirty.count()), (vec![], 0));
                assert_eq!(dirty, DirtyPages::new(pages));
            }
        }
    }

    #[test]
    fn words_are_merged_within_the_end() {
        let mut dirty = DirtyPages::new(70);
        assert_eq!(dirty.merge_word(1, u64::MAX), 6);
        assert_eq!(dirty.merge_word(2, u64::MAX), 0);
        assert_eq!(dirty.merge_word(u64::MAX, u64::MAX), 0);
        assert_eq!(dirty.merge_word(1, 1), 0);
        assert_eq!(dirty.merge_word(0, 1 << 63), 1);
        assert_eq!(walk(&dirty), [63, 64, 65, 66, 67, 68, 69]);
        assert_eq!(dirty.count(), 7);
    }

    #[test]
    fn the_search_starts_inside_a_summary_word() {
        let mut dirty = DirtyPages::full(64 * 64 * 3);
        assert_eq!(dirty.next_word(65), Some((65, u64::MAX)));
        dirty.clear_bits(65, u64::MAX);
        assert_eq!(dirty.next_word(65), Some((66, u64::MAX)));
        assert_eq!(dirty.next_word(191), Some((191, u64::MAX)));
        assert_eq!(dirty.next_word(192), None);
        assert_eq!(dirty.next_word(u64::MAX), None);
    }
}
