//! What a hart's loads and stores reach.

use vmstate_linux::{DirtyLog, GuestRam, Word};

use crate::board::{PAGE, RAM_BASE, ROM_BASE, ROM_LEN};
use crate::clint::{Clint, Concerns};
use crate::clock::View;
use crate::htif::{Htif, Request};
use crate::memory::Memory;

/// What a load or store did beside its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing is there.
    Fault,
    /// Something that other harts must look at.
    Wake(Concerns),
    /// The guest asks its machine for something.
    Htif(Request),
}

/// Access to memory and devices for one hart while it runs.
#[derive(Clone, Copy)]
pub(crate) struct Bus<'a> {
    ram: &'a GuestRam,
    log: &'a DirtyLog,
    rom: &'a GuestRam,
    clint: &'a Clint,
    htif: &'a Htif,
    /// Where HTIF is, from the beginning of RAM on.
    htif_start: u64,
    htif_len: u64,
    pub(crate) clock: View,
}

impl<'a> Bus<'a> {
    pub(crate) fn new(memory: &'a Memory, clint: &'a Clint, htif: &'a Htif, clock: View) -> Self {
        Self {
            ram: &memory.ram.ram,
            log: &memory.ram.log,
            rom: &memory.rom.ram,
            clint,
            htif,
            htif_start: htif.addresses().start().wrapping_sub(RAM_BASE),
            htif_len: htif.addresses().len(),
            clock,
        }
    }

    /// What instructions can be fetched from.
    #[inline]
    pub(crate) fn code(&self, address: u64) -> Option<(&'a GuestRam, u64)> {
        match address.wrapping_sub(RAM_BASE) {
            offset if offset < self.ram.len() => Some((self.ram, offset)),
            _ => {
                let offset = address.checked_sub(ROM_BASE)?;
                (offset < ROM_LEN).then_some((self.rom, offset))
            }
        }
    }

    /// Loads a word.
    #[inline]
    pub(crate) fn load<T: Value>(&self, address: u64) -> Result<T, Effect> {
        let offset = address.wrapping_sub(RAM_BASE);
        if offset.wrapping_sub(self.htif_start) < self.htif_len {
            return Ok(T::truncate(self.htif.read(address, T::BYTES)));
        }
        match self.ram.load(offset) {
            Some(value) => Ok(value),
            None => self.load_elsewhere(address),
        }
    }

    /// Stores a word, and marks its page.
    #[inline]
    pub(crate) fn store<T: Value>(&self, address: u64, value: T) -> Result<(), Effect> {
        let offset = address.wrapping_sub(RAM_BASE);
        if offset.wrapping_sub(self.htif_start) < self.htif_len {
            return match self.htif.write(address, T::BYTES, value.widen()) {
                Request::Nothing => Ok(()),
                request => Err(Effect::Htif(request)),
            };
        }
        if !self.ram.store(offset, value) {
            return self.store_elsewhere(address, value);
        }
        self.log.mark(offset);
        if offset % PAGE > PAGE - T::BYTES {
            // It reaches into the next page.
            self.log.mark(offset + T::BYTES - 1);
        }
        Ok(())
    }

    /// Changes an aligned word of RAM with nothing in between, and returns what it was. None: there is no RAM.
    #[inline]
    pub(crate) fn update<T: Value>(&self, address: u64, change: impl Fn(T) -> T) -> Option<T> {
        let offset = self.plain_ram(address)?;
        let old = self.ram.update(offset, change)?;
        self.log.mark(offset);
        Some(old)
    }

    /// Stores to an aligned word of RAM if it still is what it was; says whether it did. None: there is no RAM.
    pub(crate) fn store_if<T: Value>(&self, address: u64, was: T, value: T) -> Option<bool> {
        let offset = self.plain_ram(address)?;
        let stored = self.ram.compare_exchange(offset, was, value)?.is_ok();
        if stored {
            self.log.mark(offset);
        }
        Some(stored)
    }

    fn plain_ram(&self, address: u64) -> Option<u64> {
        let offset = address.wrapping_sub(RAM_BASE);
        (offset.wrapping_sub(self.htif_start) >= self.htif_len).then_some(offset)
    }

    #[cold]
    fn load_elsewhere<T: Value>(&self, address: u64) -> Result<T, Effect> {
        if Clint::covers(address) && address.is_multiple_of(T::BYTES) {
            let value = self.clint.read(address, T::BYTES, self.clock.now());
            return Ok(T::truncate(value));
        }
        let offset = address.checked_sub(ROM_BASE).ok_or(Effect::Fault)?;
        self.rom.load(offset).ok_or(Effect::Fault)
    }

    #[cold]
    fn store_elsewhere<T: Value>(&self, address: u64, value: T) -> Result<(), Effect> {
        if Clint::covers(address) && address.is_multiple_of(T::BYTES) {
            let value = value.widen();
            let concerns = self.clint.write(address, T::BYTES, value, self.clock.now());
            return Err(Effect::Wake(concerns));
        }
        // Stores to the boot ROM go nowhere.
        match address.checked_sub(ROM_BASE) {
            Some(offset) if offset <= ROM_LEN - T::BYTES => Ok(()),
            _ => Err(Effect::Fault),
        }
    }
}

/// A word that travels between a register and memory.
pub(crate) trait Value: Word {
    const BYTES: u64;
    fn truncate(value: u64) -> Self;
    fn widen(self) -> u64;
}

macro_rules! values {
    ($($word:ty),*) => {$(
        impl Value for $word {
            const BYTES: u64 = size_of::<$word>() as u64;

            #[inline]
            #[allow(clippy::cast_possible_truncation, trivial_numeric_casts, reason = "that is what it is for")]
            fn truncate(value: u64) -> Self {
                value as $word
            }

            #[inline]
            fn widen(self) -> u64 {
                self.into()
            }
        }
    )*};
}

values!(u8, u16, u32, u64);
