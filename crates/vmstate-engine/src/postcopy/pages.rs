//! A set of pages that several threads change at once.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use vmstate_ram::DirtyBitmap;

/// One bit for each page. All operations on one set and another are seen in one order by all threads.
#[derive(Debug)]
pub(super) struct PageSet {
    words: Box<[AtomicU64]>,
    pages: u64,
}

impl PageSet {
    /// None of so many pages.
    pub(super) fn new(pages: u64) -> Self {
        let words = (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { words, pages }
    }

    fn place(&self, page: u64) -> Option<(&AtomicU64, u64)> {
        let index = usize::try_from(page / 64).ok()?;
        let word = self.words.get(index).filter(|_| page < self.pages)?;
        Some((word, 1 << (page % 64)))
    }

    /// Puts a page in; `false` if it was there, or does not exist.
    pub(super) fn insert(&self, page: u64) -> bool {
        self.place(page)
            .is_some_and(|(word, bit)| word.fetch_or(bit, Ordering::SeqCst) & bit == 0)
    }

    /// Takes a page out; `false` if it was not there.
    pub(super) fn remove(&self, page: u64) -> bool {
        self.place(page)
            .is_some_and(|(word, bit)| word.fetch_and(!bit, Ordering::SeqCst) & bit != 0)
    }

    pub(super) fn contains(&self, page: u64) -> bool {
        self.place(page)
            .is_some_and(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
    }

    pub(super) fn clear(&self, pages: Range<u64>) {
        for page in pages {
            self.remove(page);
        }
    }

    /// Takes out all of a group of `size` adjacent pages of which one is not there.
    pub(super) fn keep_whole(&self, size: u64) {
        if size <= 1 {
            return;
        }
        let groups = self.pages.div_ceil(size);
        for group in 0..groups {
            let start = group.saturating_mul(size);
            let pages = start..start.saturating_add(size).min(self.pages);
            if !pages.clone().all(|page| self.contains(page)) {
                self.clear(pages);
            }
        }
    }

    /// The set as it is now.
    pub(super) fn bitmap(&self) -> DirtyBitmap {
        let words: Vec<_> = self
            .words
            .iter()
            .map(|w| w.load(Ordering::SeqCst))
            .collect();
        let mut bitmap = DirtyBitmap::new(self.pages);
        bitmap.merge_words(0, &words);
        bitmap
    }

    /// The pages that are not in it.
    pub(super) fn missing(&self) -> DirtyBitmap {
        let mut bitmap = self.bitmap();
        bitmap.invert();
        bitmap
    }
}
