//! Which pages were written: marked by harts, collected by the sender.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence};

use rustix::thread::{MembarrierCommand, membarrier};

/// A bitmap that many threads mark and one collects, by software.
///
/// One bit stands for one page, one bit of a summary for 64 pages. Marking a page that is marked already is two loads and
/// no store, so a hart can afford it after every store it makes, migration or not; there is nothing to switch on.
/// Collecting looks at the summary, one bit for each 256 KiB of memory at 4 KiB a page, and at what is dirty.
///
/// # The rule
///
/// Write first, mark then. Every page whose mark [`collect`](Self::collect) takes must be read after it; what is written
/// later is marked again. A hart that has written but not yet marked is not seen: stop the harts where one instruction ends
/// before the last collection.
///
/// Between a store and the look at the mark, processors let the look go first; another barrier for every store would be
/// dear. So the collector makes all threads of the process pass a barrier instead, with the system call `membarrier`.
/// Where the kernel has none, [`mark`](Self::mark) has the barrier.
///
/// ```
/// use vmstate_linux::DirtyLog;
///
/// let log = DirtyLog::new(64 << 30, 4096);
/// log.mark(0x5123);
/// log.mark_range(0x1_0000_0000, 8192);
/// let mut pages = Vec::new();
/// let marked = log.collect(|word, bits| pages.push((word, bits)));
/// assert_eq!((marked, pages), (3, vec![(0, 1 << 5), (0x4000, 3)]));
/// assert_eq!(log.collect(|_, _| ()), 0);
/// ```
#[derive(Debug)]
pub struct DirtyLog {
    /// Bit i is page i mod 64 of word i div 64.
    words: Box<[AtomicU64]>,
    /// Bit i is set soon after word i became other than 0.
    summary: Box<[AtomicU64]>,
    shift: u32,
    pages: u64,
    /// The kernel has no barrier for us, so every mark makes one.
    fences: AtomicBool,
}

impl DirtyLog {
    /// A log of `len` bytes of memory, all clean, in pages of `page_size` bytes: a power of two, else the next higher one.
    #[must_use]
    pub fn new(len: u64, page_size: u64) -> Self {
        let shift = page_size.next_power_of_two().trailing_zeros();
        let pages = len.div_ceil(1 << shift);
        let words = zeros(pages.div_ceil(64));
        Self {
            summary: zeros(words.len().div_ceil(64) as u64),
            words,
            shift,
            pages,
            fences: AtomicBool::new(
                membarrier(MembarrierCommand::RegisterPrivateExpedited).is_err(),
            ),
        }
    }

    /// Bytes of a page.
    #[must_use]
    pub const fn page_size(&self) -> u64 {
        1 << self.shift
    }

    /// Number of pages.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Marks the page of a byte that was just written. Does nothing beyond the end.
    #[inline]
    pub fn mark(&self, offset: u64) {
        let page = offset >> self.shift;
        let Ok(index) = usize::try_from(page / 64) else {
            return;
        };
        // The compiler must not let the look at the mark go before the store.
        compiler_fence(Ordering::SeqCst);
        if self.fences.load(Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        }
        if let Some(word) = self.words.get(index)
            && word.load(Ordering::Relaxed) & bit(page) == 0
        {
            self.set(index, word, bit(page));
        }
    }

    /// Marks the pages of a range that was just written. What lies beyond the end is left out.
    pub fn mark_range(&self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        let mut page = offset >> self.shift;
        let end = (offset.saturating_add(len - 1) >> self.shift)
            .saturating_add(1)
            .min(self.pages);
        fence(Ordering::SeqCst);
        while page < end {
            let next = (page / 64 + 1) * 64;
            let mask = u64::MAX << (page % 64);
            let mask = if next > end {
                mask & (bit(end) - 1)
            } else {
                mask
            };
            if let Some((index, word)) = usize::try_from(page / 64)
                .ok()
                .and_then(|index| Some((index, self.words.get(index)?)))
            {
                self.set(index, word, mask);
            }
            page = next;
        }
    }

    /// Takes all marks: calls `with(word, bits)` for each word in which some are set, in ascending order. Bit i of word w
    /// is page 64 w + i. Returns the number of marks.
    ///
    /// When it returns, all that was written before a mark was taken can be read.
    pub fn collect(&self, mut with: impl FnMut(usize, u64)) -> u64 {
        let mut marked = 0;
        for (group, (summary, words)) in self.summary.iter().zip(self.words.chunks(64)).enumerate()
        {
            if summary.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // The summary is cleared before the words are: whoever sets a word from 0 after that sets it again.
            let mut rest = summary.swap(0, Ordering::SeqCst);
            while rest != 0 {
                let place = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let bits = words
                    .get(place)
                    .map_or(0, |word| word.swap(0, Ordering::SeqCst));
                if bits != 0 {
                    marked += u64::from(bits.count_ones());
                    with(group * 64 + place, bits);
                }
            }
        }
        if marked > 0 && !self.fences.load(Ordering::Relaxed) {
            // Whoever saw a mark that is taken now made its store before; this makes the store visible.
            if membarrier(MembarrierCommand::PrivateExpedited).is_err() {
                // It was there when the log was made. Without it nobody knows which stores are hidden, so all pages
                // come once more, after marks that make their own barriers.
                self.fences.store(true, Ordering::SeqCst);
                self.mark_range(0, u64::MAX);
            }
        }
        fence(Ordering::SeqCst);
        marked
    }

    /// As [`collect`](Self::collect), into a bitmap of the same form, to which the marks are added. Words that `bitmap` does
    /// not have are taken and dropped.
    pub fn collect_into(&self, bitmap: &mut [u64]) -> u64 {
        self.collect(|index, bits| {
            if let Some(word) = bitmap.get_mut(index) {
                *word |= bits;
            }
        })
    }

    #[cold]
    fn set(&self, index: usize, word: &AtomicU64, mask: u64) {
        if word.fetch_or(mask, Ordering::SeqCst) == 0
            && let Some(summary) = self.summary.get(index / 64)
        {
            summary.fetch_or(bit(index as u64), Ordering::SeqCst);
        }
    }
}

const fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

fn zeros(n: u64) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(test)]
mod tests;
