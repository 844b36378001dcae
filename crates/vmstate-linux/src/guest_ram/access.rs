//! What a hart does to memory.

use super::word::sealed::Sealed;
use super::{GuestRam, Word};

impl GuestRam {
    /// Loads a word. An aligned one is read at once; another is put together from bytes. Nothing if it is not wholly
    /// inside.
    #[must_use]
    #[inline]
    pub fn load<T: Word>(&self, offset: u64) -> Option<T> {
        let at = self.word_at::<T>(offset)?;
        if !at.is_multiple_of(T::SIZE) {
            return Some(self.load_bytes(at));
        }
        // SAFETY: `at` is a multiple of the size and the mapping begins at a page, so the address is aligned; the word is
        // inside the mapping, which lives as long as `self` and is accessed only atomically or by the kernel.
        Some(unsafe { T::load(self.at(at)) })
    }

    /// Stores a word; one that is not aligned goes byte by byte. Returns false, and changes nothing, if it is not
    /// wholly inside.
    #[inline]
    pub fn store<T: Word>(&self, offset: u64, value: T) -> bool {
        let Some(at) = self.word_at::<T>(offset) else {
            return false;
        };
        if at.is_multiple_of(T::SIZE) {
            // SAFETY: as in `load`.
            unsafe { T::store(self.at(at), value) };
        } else {
            self.store_bytes(at, value);
        }
        true
    }

    /// Changes an aligned word with nothing coming in between, and returns what it was. `change` may be called more than
    /// once. Nothing if the word is not aligned or not inside. Sequentially consistent.
    #[inline]
    pub fn update<T: Word>(&self, offset: u64, change: impl Fn(T) -> T) -> Option<T> {
        let mut old = self.load(offset)?;
        loop {
            match self.compare_exchange(offset, old, change(old))? {
                Ok(old) => return Some(old),
                Err(found) => old = found,
            }
        }
    }

    /// Stores `new` to an aligned word if it is `current`: `Ok` with what it was, or `Err` with what it is instead.
    /// Nothing if the word is not aligned or not inside. Sequentially consistent.
    #[inline]
    pub fn compare_exchange<T: Word>(
        &self,
        offset: u64,
        current: T,
        new: T,
    ) -> Option<Result<T, T>> {
        let at = self.word_at::<T>(offset)?;
        if !at.is_multiple_of(T::SIZE) {
            return None;
        }
        // SAFETY: as in `load`.
        Some(unsafe { T::compare_exchange(self.at(at), current, new) })
    }

    /// Where the word is, if all of it is inside.
    #[inline]
    fn word_at<T: Word>(&self, offset: u64) -> Option<usize> {
        let at = usize::try_from(offset).ok()?;
        // The memory is at least a page long.
        (at <= self.len - T::SIZE).then_some(at)
    }

    #[cold]
    fn load_bytes<T: Word>(&self, at: usize) -> T {
        T::from_bytes((at..at + T::SIZE).map(|at| {
            // SAFETY: as in `load`; bytes are always aligned, and the caller checked the range.
            unsafe { u8::load(self.at(at)) }
        }))
    }

    #[cold]
    fn store_bytes<T: Word>(&self, at: usize, value: T) {
        for index in 0..T::SIZE {
            // SAFETY: as in `load`; bytes are always aligned, and the caller checked the range.
            unsafe { u8::store(self.at(at + index), value.byte(index)) };
        }
    }
}
