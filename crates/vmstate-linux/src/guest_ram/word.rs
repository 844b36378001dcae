//! The integers that guest RAM is accessed in.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// An unsigned integer of 1, 2, 4 or 8 bytes, little-endian in memory. Nothing else implements it.
pub trait Word: sealed::Sealed + Copy + Eq {}

pub(super) mod sealed {
    pub trait Sealed: Sized + Copy {
        const SIZE: usize;

        /// Loads a word.
        ///
        /// # Safety
        /// `from` is aligned to the word's size, points to `SIZE` bytes of live memory that all others access
        /// atomically, or leave to the kernel, for the length of the call.
        unsafe fn load(from: *mut u8) -> Self;

        /// Stores a word.
        ///
        /// # Safety
        /// As for `load`.
        unsafe fn store(to: *mut u8, value: Self);

        /// Stores `new` if the word is `current`; sequentially consistent.
        ///
        /// # Safety
        /// As for `load`.
        unsafe fn compare_exchange(at: *mut u8, current: Self, new: Self) -> Result<Self, Self>;

        /// The word of which these are the first bytes, the others being 0.
        fn from_bytes(bytes: impl Iterator<Item = u8>) -> Self;

        fn byte(self, index: usize) -> u8;
    }
}

macro_rules! words {
    ($($word:ty: $atomic:ty),*) => {$(
        impl Word for $word {}

        impl sealed::Sealed for $word {
            const SIZE: usize = size_of::<$word>();

            #[inline]
            unsafe fn load(from: *mut u8) -> Self {
                // SAFETY: the caller's promise is what `from_ptr` asks for.
                let atomic = unsafe { <$atomic>::from_ptr(from.cast()) };
                Self::from_le(atomic.load(Ordering::Relaxed))
            }

            #[inline]
            unsafe fn store(to: *mut u8, value: Self) {
                // SAFETY: the caller's promise is what `from_ptr` asks for.
                let atomic = unsafe { <$atomic>::from_ptr(to.cast()) };
                atomic.store(value.to_le(), Ordering::Relaxed);
            }

            #[inline]
            unsafe fn compare_exchange(at: *mut u8, current: Self, new: Self) -> Result<Self, Self> {
                // SAFETY: the caller's promise is what `from_ptr` asks for.
                let atomic = unsafe { <$atomic>::from_ptr(at.cast()) };
                atomic
                    .compare_exchange(current.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst)
                    .map(Self::from_le)
                    .map_err(Self::from_le)
            }

            fn from_bytes(bytes: impl Iterator<Item = u8>) -> Self {
                let mut all = [0; size_of::<$word>()];
                for (to, byte) in all.iter_mut().zip(bytes) {
                    *to = byte;
                }
                Self::from_le_bytes(all)
            }

            fn byte(self, index: usize) -> u8 {
                self.to_le_bytes().get(index).copied().unwrap_or(0)
            }
        }
    )*};
}

words!(u8: AtomicU8, u16: AtomicU16, u32: AtomicU32, u64: AtomicU64);
