//! The source's cache of what the destination has.

use super::encode::{Encoding, encode};
use crate::{PageSize, RamError, RamErrorKind};

/// An entry is replaced by another page's only if its age is at least this many rounds.
const RESTING_ROUNDS: u64 = 2;

/// The source's cache of page contents that the destination has, direct mapped.
///
/// Invariant: what the cache holds for a page is exactly what the destination has. So the content given to
/// [`encode_page`](Self::encode_page) must be a copy that no longer changes, and what the outcome says must be sent.
///
/// Policy as in stock QEMU: a page's slot is its number modulo the number of slots; an entry of another page is
/// replaced only if that entry was not used for two rounds. A source starts to use the cache after the first
/// complete round over RAM; before that pages are sent normally and not cached.
///
/// Memory is taken page by page as entries come, up to the size.
#[derive(Debug)]
pub struct XbzrleCache {
    page_size: PageSize,
    slots: Vec<Slot>,
    zeros: Box<[u8]>,
    counters: CacheCounters,
}

#[derive(Debug, Default)]
struct Slot {
    address: u64,
    /// The round in which the entry was made or last hit.
    age: u64,
    /// Empty: the slot is free.
    content: Box<[u8]>,
}

/// What to send for a page.
#[derive(Debug, PartialEq, Eq)]
pub enum CacheOutcome<'a> {
    /// An XBZRLE record with the delta of so many bytes that was appended to the buffer.
    Delta(usize),
    /// Nothing: the destination has this content.
    Unchanged,
    /// A normal page with this content, which is now in the cache.
    Cached(&'a [u8]),
    /// A normal page; it was not put into the cache.
    NotCached,
}

/// What the cache has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounters {
    /// Pages that were in the cache.
    pub hits: u64,
    /// Pages that were not.
    pub misses: u64,
    /// Hits whose delta would have been longer than a page.
    pub overflows: u64,
    /// Bytes of all deltas.
    pub delta_bytes: u64,
}

impl XbzrleCache {
    /// Makes a cache of so many bytes of page content (stock default: 64 MiB).
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::CacheSize`] unless `size` is a power of two of at least one page.
    pub fn new(size: u64, page_size: PageSize) -> Result<Self, RamError> {
        let slots = usize::try_from(size >> page_size.bits()).unwrap_or(0);
        if !size.is_power_of_two() || slots == 0 {
            return Err(RamErrorKind::CacheSize {
                found: size,
                page_size,
            }
            .into());
        }
        let slots = std::iter::repeat_with(Slot::default).take(slots).collect();
        let zeros = vec![0; page_size.as_usize()].into();
        Ok(Self {
            page_size,
            slots,
            zeros,
            counters: CacheCounters::default(),
        })
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> CacheCounters {
        self.counters
    }

    /// Changes the size, keeping the entries that still have a slot. Where two want the same, the younger stays.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); then nothing has changed.
    pub fn resize(&mut self, size: u64) -> Result<(), RamError> {
        let mut other = Self::new(size, self.page_size)?;
        for slot in self.slots.drain(..) {
            if !slot.content.is_empty()
                && let Some(place) = other.slot(slot.address)
                && (place.content.is_empty() || place.age < slot.age)
            {
                *place = slot;
            }
        }
        self.slots = other.slots;
        Ok(())
    }

    /// Decides how to send a page that is not zero.
    ///
    /// `address` is the page's address in bytes in a space where all blocks lie one behind the other; `round` the
    /// count of bitmap synchronisations; `content` a copy of the page. A delta is appended to `out`. In the last
    /// stage, with the guest stopped, the cache is only looked at: nothing of it will be used again.
    pub fn encode_page<'a>(
        &'a mut self,
        address: u64,
        round: u64,
        content: &'a [u8],
        last_stage: bool,
        out: &mut Vec<u8>,
    ) -> CacheOutcome<'a> {
        let page_len = self.page_size.as_usize();
        let index = self.index(address);
        let Self {
            slots, counters, ..
        } = self;
        let Some(slot) = slots.get_mut(index).filter(|_| content.len() == page_len) else {
            return CacheOutcome::NotCached;
        };
        if slot.holds(address) {
            counters.hits = counters.hits.saturating_add(1);
            slot.age = round;
            match encode(&slot.content, content, out, page_len) {
                Encoding::Encoded(length) => {
                    counters.delta_bytes = counters.delta_bytes.saturating_add(length as u64);
                    if !last_stage {
                        slot.content.copy_from_slice(content);
                    }
                    CacheOutcome::Delta(length)
                }
                Encoding::Unchanged => CacheOutcome::Unchanged,
                Encoding::Overflow => {
                    counters.overflows = counters.overflows.saturating_add(1);
                    if last_stage {
                        CacheOutcome::NotCached
                    } else {
                        slot.content.copy_from_slice(content);
                        CacheOutcome::Cached(&slot.content)
                    }
                }
            }
        } else {
            counters.misses = counters.misses.saturating_add(1);
            if !last_stage && slot.put(address, round, content) {
                CacheOutcome::Cached(&slot.content)
            } else {
                CacheOutcome::NotCached
            }
        }
    }

    /// Notes that a page is sent as zero page.
    pub fn zero_page(&mut self, address: u64, round: u64) {
        let index = self.index(address);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.put(address, round, &self.zeros);
        }
    }

    /// Whether the cache holds content for this page.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.slots
            .get(self.index(address))
            .is_some_and(|slot| slot.holds(address))
    }

    fn slot(&mut self, address: u64) -> Option<&mut Slot> {
        let index = self.index(address);
        self.slots.get_mut(index)
    }

    fn index(&self, address: u64) -> usize {
        // The number of slots is a power of two, so the modulo is a mask.
        let mask = (self.slots.len() as u64).saturating_sub(1);
        usize::try_from((address >> self.page_size.bits()) & mask).unwrap_or(usize::MAX)
    }
}

impl Slot {
    fn holds(&self, address: u64) -> bool {
        self.address == address && !self.content.is_empty()
    }

    /// Stores the content, unless another page's entry is too young to go.
    fn put(&mut self, address: u64, round: u64, content: &[u8]) -> bool {
        if self.content.len() == content.len() {
            if self.address != address && self.age.saturating_add(RESTING_ROUNDS) > round {
                return false;
            }
            self.content.copy_from_slice(content);
        } else {
            self.content = content.into();
        }
        (self.address, self.age) = (address, round);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn page(byte: u8) -> Vec<u8> {
        vec![byte; 4096]
    }

    #[test]
    fn size_must_be_a_power_of_two_of_at_least_a_page() {
        for (size, good) in [
            (0, false),
            (2048, false),
            (4096, true),
            (12288, false),
            (16384, true),
        ] {
            assert_eq!(
                XbzrleCache::new(size, PageSize::KIB4).is_ok(),
                good,
                "{size}"
            );
        }
    }

    #[test]
    fn miss_then_hit_then_unchanged() {
        let mut cache = XbzrleCache::new(4 * PAGE, PageSize::KIB4).unwrap();
        let mut out = Vec::new();
        let first = page(1);
        assert_eq!(
            cache.encode_page(0, 2, &first, false, &mut out),
            CacheOutcome::Cached(&first)
        );
        let mut second = first.clone();
        second[10] = 7;
        assert_eq!(
            cache.encode_page(0, 3, &second, false, &mut out),
            CacheOutcome::Delta(3)
        );
        assert_eq!(out, [10, 1, 7]);
        assert_eq!(
            cache.encode_page(0, 3, &second, false, &mut out),
            CacheOutcome::Unchanged
        );
        let third = page(9);
        assert_eq!(
            cache.encode_page(0, 3, &third, false, &mut out),
            CacheOutcome::Cached(&third)
        );
        assert_eq!(
            cache.counters(),
            CacheCounters {
                hits: 3,
                misses: 1,
                overflows: 1,
                delta_bytes: 3
            }
        );
    }

    #[test]
    fn a_young_entry_of_another_page_stays() {
        let mut cache = XbzrleCache::new(PAGE, PageSize::KIB4).unwrap();
        let mut out = Vec::new();
        let content = page(1);
        cache.encode_page(0, 2, &content, false, &mut out);
        assert_eq!(
            cache.encode_page(PAGE, 3, &content, false, &mut out),
            CacheOutcome::NotCached
        );
        assert!(cache.contains(0));
        assert_eq!(
            cache.encode_page(PAGE, 4, &content, false, &mut out),
            CacheOutcome::Cached(&content)
        );
        assert!(!cache.contains(0) && cache.contains(PAGE));
    }

    #[test]
    fn the_last_stage_changes_nothing() {
        let mut cache = XbzrleCache::new(4 * PAGE, PageSize::KIB4).unwrap();
        let mut out = Vec::new();
        let (one, two) = (page(1), page(2));
        assert_eq!(
            cache.encode_page(0, 9, &one, true, &mut out),
            CacheOutcome::NotCached
        );
        cache.encode_page(0, 9, &one, false, &mut out);
        assert_eq!(
            cache.encode_page(0, 9, &two, true, &mut out),
            CacheOutcome::NotCached
        );
        assert_eq!(
            cache.encode_page(0, 9, &one, false, &mut out),
            CacheOutcome::Unchanged
        );
    }

    #[test]
    fn zero_pages_are_noted() {
        let mut cache = XbzrleCache::new(4 * PAGE, PageSize::KIB4).unwrap();
        let mut out = Vec::new();
        cache.encode_page(0, 2, &page(5), false, &mut out);
        cache.zero_page(0, 2);
        assert_eq!(
            cache.encode_page(0, 3, &page(0), false, &mut out),
            CacheOutcome::Unchanged
        );
    }

    #[test]
    fn resizing_keeps_what_fits() {
        let mut cache = XbzrleCache::new(4 * PAGE, PageSize::KIB4).unwrap();
        let mut out = Vec::new();
        for (number, round) in [(0, 1), (1, 5), (2, 3)] {
            cache.encode_page(number * PAGE, round, &page(1), false, &mut out);
        }
        assert!(cache.resize(3).is_err());
        cache.resize(2 * PAGE).unwrap();
        assert_eq!(
            [0, 1, 2].map(|number| cache.contains(number * PAGE)),
            [false, true, true]
        );
        assert_eq!(
            cache.encode_page(0, 9, &page(1)[1..], false, &mut out),
            CacheOutcome::NotCached
        );
    }
}
