//! Bitmaps over the pages of one block.

use std::ops::Range;

use crate::{RamError, RamErrorKind};

/// One bit per target page of a block: the pages to send (again), or the pages that were received.
///
/// Bits are kept in 64-bit words; bit i is bit i mod 64 of word i div 64, and bits behind the end are always 0. A
/// page number behind the end is never an error: it counts as clear, and setting it does nothing.
///
/// ```
/// use vmstate_ram::DirtyBitmap;
///
/// let mut dirty = DirtyBitmap::new(1000);
/// dirty.set_range(60..130);
/// dirty.set(999);
/// assert_eq!(dirty.runs().collect::<Vec<_>>(), [60..130, 999..1000]);
/// assert_eq!(dirty.count(), 71);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirtyBitmap {
    words: Vec<u64>,
    pages: u64,
}

impl DirtyBitmap {
    /// Makes a bitmap with all bits clear. Takes one byte of memory for eight pages: bound the number first where
    /// it comes from a peer.
    #[must_use]
    pub fn new(pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            words: vec![0; words],
            pages,
        }
    }

    /// Makes a bitmap with all bits set.
    #[must_use]
    pub fn full(pages: u64) -> Self {
        let mut bitmap = Self::new(pages);
        bitmap.set_all();
        bitmap
    }

    /// The number of pages, set or not.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The words, lowest pages first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Whether the page's bit is set.
    #[must_use]
    #[inline]
    pub fn contains(&self, page: u64) -> bool {
        self.words
            .get(word_of(page))
            .is_some_and(|word| word & bit_of(page) != 0)
    }

    /// Sets the page's bit; returns whether that changed it.
    #[inline]
    pub fn set(&mut self, page: u64) -> bool {
        if page >= self.pages {
            return false;
        }
        let Some(word) = self.words.get_mut(word_of(page)) else {
            return false;
        };
        let changed = *word & bit_of(page) == 0;
        *word |= bit_of(page);
        changed
    }

    /// Clears the page's bit; returns whether that changed it.
    #[inline]
    pub fn clear(&mut self, page: u64) -> bool {
        let Some(word) = self.words.get_mut(word_of(page)) else {
            return false;
        };
        let changed = *word & bit_of(page) != 0;
        *word &= !bit_of(page);
        changed
    }

    /// Sets a range of pages.
    pub fn set_range(&mut self, pages: Range<u64>) {
        self.for_words(pages, |word, mask| *word |= mask);
    }

    /// Clears a range of pages.
    pub fn clear_range(&mut self, pages: Range<u64>) {
        self.for_words(pages, |word, mask| *word &= !mask);
    }

    /// Sets every page.
    pub fn set_all(&mut self) {
        self.words.fill(u64::MAX);
        self.trim();
    }

    /// Clears every page.
    pub fn clear_all(&mut self) {
        self.words.fill(0);
    }

    /// Turns every bit over: the pages to send again are those that were not received.
    pub fn invert(&mut self) {
        for word in &mut self.words {
            *word = !*word;
        }
        self.trim();
    }

    /// Sets every page that is set in `other`.
    pub fn union_with(&mut self, other: &Self) {
        self.merge_words(0, &other.words);
    }

    /// Sets the pages of words in this bitmap's form (a chunk of a hypervisor's dirty log), the first of which
    /// stands for pages `64 * first_word` and up.
    pub fn merge_words(&mut self, first_word: usize, words: &[u64]) {
        let own = self.words.get_mut(first_word..).unwrap_or_default();
        for (own, word) in own.iter_mut().zip(words) {
            *own |= word;
        }
        self.trim();
    }

    /// How many pages are set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().fold(0, |sum: u64, word| {
            sum.wrapping_add(word.count_ones().into())
        })
    }

    /// Whether no page is set.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The first set page from this one on.
    #[must_use]
    pub fn next_set(&self, from: u64) -> Option<u64> {
        self.find(from, 0)
    }

    /// The first clear page from this one on; the number of pages if there is none.
    #[must_use]
    pub fn next_clear(&self, from: u64) -> u64 {
        self.find(from, u64::MAX)
            .map_or(self.pages, |page| page.min(self.pages))
    }

    /// The runs of set pages, in ascending order, each as long as possible.
    #[must_use]
    pub fn runs(&self) -> Runs<'_> {
        self.runs_from(0)
    }

    /// The runs of set pages from this page on.
    #[must_use]
    pub fn runs_from(&self, page: u64) -> Runs<'_> {
        Runs {
            bitmap: self,
            next: page,
        }
    }

    /// The first bit from `from` on that is set after each word was xor-ed with `flip`.
    fn find(&self, from: u64, flip: u64) -> Option<u64> {
        let mut index = word_of(from);
        let mut ignore = bit_of(from).wrapping_sub(1);
        loop {
            let word = (self.words.get(index)? ^ flip) & !ignore;
            if word != 0 {
                return Some(
                    (index as u64)
                        .wrapping_mul(64)
                        .wrapping_add(word.trailing_zeros().into()),
                );
            }
            ignore = 0;
            index = index.wrapping_add(1);
        }
    }

    /// Calls `change` with each word that the range touches and the mask of the touched bits.
    fn for_words(&mut self, pages: Range<u64>, change: impl Fn(&mut u64, u64)) {
        let (start, end) = (pages.start, pages.end.min(self.pages));
        if start >= end {
            return;
        }
        let (first, last) = (word_of(start), word_of(end.wrapping_sub(1)));
        let head = !bit_of(start).wrapping_sub(1);
        let tail = u64::MAX >> (end.wrapping_neg() % 64);
        let Some(words) = self.words.get_mut(first..=last) else {
            return;
        };
        match words {
            [only] => change(only, head & tail),
            [begin, middle @ .., finish] => {
                change(begin, head);
                for word in middle {
                    change(word, u64::MAX);
                }
                change(finish, tail);
            }
            [] => {}
        }
    }

    /// Clears the bits behind the end.
    fn trim(&mut self) {
        if !self.pages.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= bit_of(self.pages).wrapping_sub(1);
        }
    }
}

/// The byte order of the words of a bitmap in a file.
///
/// mapped-ram bitmaps are arrays of 64-bit words in the byte order of the host that wrote them. (A 32-bit
/// little-endian host writes the same bytes as a 64-bit one.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum WordOrder {
    /// Bit i is bit i mod 8 of byte i div 8.
    #[default]
    Little,
    /// As written by a 64-bit big-endian host.
    Big,
}

impl DirtyBitmap {
    /// The size in bytes of the bitmap of so many pages, in whole 64-bit words.
    #[must_use]
    pub fn byte_len(pages: u64) -> u64 {
        pages.div_ceil(64).saturating_mul(8)
    }

    /// Makes a bitmap from its bytes.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::BitmapSize`] unless there are exactly
    /// [`byte_len`](Self::byte_len) bytes;
    /// [`RamErrorKind::BitmapTail`] if a bit behind the end is set.
    pub fn from_bytes(bytes: &[u8], pages: u64, order: WordOrder) -> Result<Self, RamError> {
        let expected = Self::byte_len(pages);
        if bytes.len() as u64 != expected {
            return Err(RamErrorKind::BitmapSize {
                expected,
                found: bytes.len() as u64,
            }
            .into());
        }
        let (chunks, _) = bytes.as_chunks::<8>();
        let words: Vec<u64> = match order {
            WordOrder::Little => chunks
                .iter()
                .map(|chunk| u64::from_le_bytes(*chunk))
                .collect(),
            WordOrder::Big => chunks
                .iter()
                .map(|chunk| u64::from_be_bytes(*chunk))
                .collect(),
        };
        let bitmap = Self { words, pages };
        match bitmap.next_set(pages) {
            Some(page) => Err(RamErrorKind::BitmapTail { page }.into()),
            None => Ok(bitmap),
        }
    }

    /// Appends the bytes of the bitmap.
    pub fn put_bytes(&self, order: WordOrder, out: &mut Vec<u8>) {
        for word in &self.words {
            out.extend_from_slice(&match order {
                WordOrder::Little => word.to_le_bytes(),
                WordOrder::Big => word.to_be_bytes(),
            });
        }
    }
}

/// Iterator over runs of set pages; see [`DirtyBitmap::runs`].
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    bitmap: &'a DirtyBitmap,
    next: u64,
}

impl Iterator for Runs<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let start = self.bitmap.next_set(self.next)?;
        let end = self.bitmap.next_clear(start);
        self.next = end;
        Some(start..end)
    }
}

#[inline]
fn word_of(page: u64) -> usize {
    usize::try_from(page / 64).unwrap_or(usize::MAX)
}

#[inline]
fn bit_of(page: u64) -> u64 {
    1 << (page % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_behind_the_end_are_clear_and_stay_so() {
        let mut bitmap = DirtyBitmap::new(70);
        assert!(!bitmap.set(70) && !bitmap.set(u64::MAX) && !bitmap.clear(u64::MAX));
        bitmap.set_range(69..u64::MAX);
        bitmap.merge_words(1, &[u64::MAX, 1]);
        assert_eq!(bitmap.runs().collect::<Vec<_>>(), [64..70]);
        bitmap.invert();
        assert_eq!(bitmap.runs().collect::<Vec<_>>(), [0..64]);
        assert!(!bitmap.contains(u64::MAX));
        assert_eq!(bitmap.next_clear(70), 70);
    }

    #[test]
    fn set_and_clear_tell_whether_they_changed_anything() {
        let mut bitmap = DirtyBitmap::new(65);
        assert!(bitmap.set(64) && !bitmap.set(64) && bitmap.contains(64));
        assert!(bitmap.clear(64) && !bitmap.clear(64) && bitmap.is_clear());
        assert_eq!(DirtyBitmap::full(65).count(), 65);
        assert_eq!(DirtyBitmap::full(0).runs().count(), 0);
    }

    #[test]
    fn bytes_in_both_orders() {
        let mut bitmap = DirtyBitmap::new(66);
        bitmap.set(1);
        bitmap.set(65);
        let mut bytes = Vec::new();
        bitmap.put_bytes(WordOrder::Little, &mut bytes);
        assert_eq!(bytes, [2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            DirtyBitmap::from_bytes(&bytes, 66, WordOrder::Little).unwrap(),
            bitmap
        );
        bytes.clear();
        bitmap.put_bytes(WordOrder::Big, &mut bytes);
        assert_eq!(
            DirtyBitmap::from_bytes(&bytes, 66, WordOrder::Big).unwrap(),
            bitmap
        );
        let kind = |bytes: &[u8], pages| {
            DirtyBitmap::from_bytes(bytes, pages, WordOrder::Big)
                .unwrap_err()
                .kind()
                .clone()
        };
        assert_eq!(kind(&bytes, 65), RamErrorKind::BitmapTail { page: 65 });
        assert_eq!(
            kind(&bytes[1..], 66),
            RamErrorKind::BitmapSize {
                expected: 16,
                found: 15
            }
        );
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(
            pages in 0_u64..300,
            changes in prop::collection::vec((any::<bool>(), 0_u64..310, 0_u64..150), 0..20),
        ) {
            let mut bitmap = DirtyBitmap::new(pages);
            let mut model = BTreeSet::new();
            for (set, start, length) in changes {
                let range = start..start + length;
                if set {
                    bitmap.set_range(range.clone());
                    model.extend(range.filter(|page| *page < pages));
                } else {
                    bitmap.clear_range(range.clone());
                    model.retain(|page| !range.contains(page));
                }
            }
            prop_assert_eq!(bitmap.count(), model.len() as u64);
            prop_assert_eq!(bitmap.runs().flatten().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            for (run, next) in bitmap.runs().zip(bitmap.runs().skip(1)) {
                prop_assert!(run.end < next.start);
            }
            for page in 0..pages {
                prop_assert_eq!(bitmap.contains(page), model.contains(&page));
            }
        }
    }
}
