//! Target pages: their size, and the reference to one page in one block.

use std::fmt;

use crate::{BlockId, RamError, RamErrorKind};

/// The size of a target page in bytes: a power of two from 256 bytes to 64 KiB.
///
/// It is QEMU's page size for the guest architecture, whatever page size the guest itself uses: 4 KiB for most; 256
/// bytes for avr in QEMU 7.2. On Arm it depends on the machine: 4 KiB for `virt` since 2.8 and for `sbsa-ref`, where
/// `configuration/target-page-bits` says so; 1 KiB where that subsection is absent, as for nearly all other boards.
/// A stream's description trailer says it for every machine.
///
/// The lower bound comes from the record word, whose low bits are flags: with 256 bytes the two highest of the ten
/// flags do not fit there and cannot be used. The upper one comes from the 16-bit length of an XBZRLE record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// 4096 bytes, the target page of nearly every machine.
    pub const KIB4: Self = Self(4096);

    /// Makes a page size from its value in bytes.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::PageSize`] unless `bytes` is a power of two from 256 to 65536.
    pub fn new(bytes: u64) -> Result<Self, RamError> {
        match u32::try_from(bytes) {
            Ok(size) if size.is_power_of_two() && (1 << 8..=1 << 16).contains(&size) => {
                Ok(Self(size))
            }
            _ => Err(RamErrorKind::PageSize { found: bytes }.into()),
        }
    }

    /// Makes a page size from the number of address bits inside a page, as the configuration section carries it.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::PageSize`] unless `bits` is from 8 to 16.
    pub fn from_bits(bits: u32) -> Result<Self, RamError> {
        Self::new(1_u64.checked_shl(bits).unwrap_or(0))
    }

    /// The size in bytes.
    #[must_use]
    #[inline]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// The size in bytes, as a length in memory.
    #[must_use]
    #[inline]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// The number of address bits inside a page.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0.trailing_zeros()
    }

    /// The bits of a record word that hold flags.
    #[must_use]
    #[inline]
    pub const fn flag_mask(self) -> u64 {
        (self.0 as u64).wrapping_sub(1)
    }

    /// Whether `offset` is the start of a page.
    #[must_use]
    #[inline]
    pub const fn is_aligned(self, offset: u64) -> bool {
        offset & self.flag_mask() == 0
    }

    /// The number of whole or partial pages in `length` bytes.
    #[must_use]
    pub const fn pages_in(self, length: u64) -> u64 {
        length.div_ceil(self.0 as u64)
    }

    /// How many pages one multifd packet can hold: 512 KiB worth.
    #[must_use]
    pub const fn pages_per_packet(self) -> u32 {
        (512 << 10_u32) >> self.bits()
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self::KIB4
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One page of one block, as a record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRef {
    /// The block, an index into the parser's [`BlockTable`](crate::BlockTable).
    pub block: BlockId,
    /// Offset of the page inside the block, in bytes; a multiple of the target page size, inside the used length.
    pub offset: u64,
    /// Whether the record spelled the block's name out instead of carrying `CONTINUE`. A source may name a block
    /// again although it did not change, so rewriting a stream byte for byte needs this.
    pub named: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_powers_of_two_between_the_bounds() {
        for (bytes, good) in [
            (128, false),
            (256, true),
            (1024, true),
            (4096, true),
            (4097, false),
            (65536, true),
            (131_072, false),
            (0, false),
        ] {
            assert_eq!(PageSize::new(bytes).is_ok(), good, "{bytes}");
        }
        assert_eq!(PageSize::from_bits(12).unwrap(), PageSize::KIB4);
        for bits in [7, 17, 64, u32::MAX] {
            assert!(PageSize::from_bits(bits).is_err(), "{bits}");
        }
    }

    #[test]
    fn derives_masks_and_counts() {
        let page = PageSize::KIB4;
        assert_eq!(
            (page.bits(), page.flag_mask(), page.pages_per_packet()),
            (12, 0xfff, 128)
        );
        assert_eq!(
            (page.pages_in(0), page.pages_in(1), page.pages_in(8192)),
            (0, 1, 2)
        );
        assert!(page.is_aligned(0x3000) && !page.is_aligned(0x3001));
    }
}
