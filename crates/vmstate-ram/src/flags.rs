//! The flags in the low bits of a record's 64-bit word.

use std::fmt;

bitflags::bitflags! {
    /// The flags of a RAM record's word.
    ///
    /// Every record begins with one big-endian 64-bit word: `offset | flags`. The offset is a multiple of the
    /// target page size, so its low bits are free for the flags.
    ///
    /// | value | name | what follows the word |
    /// |---|---|---|
    /// | 0x001 | `FULL` | obsolete, refused |
    /// | 0x002 | `ZERO` | block name (unless `CONTINUE`), one fill byte |
    /// | 0x004 | `MEM_SIZE` | the block list; the offset part is the total size in bytes |
    /// | 0x008 | `PAGE` | block name (unless `CONTINUE`), one target page |
    /// | 0x010 | `EOS` | nothing: the section's payload ends here |
    /// | 0x020 | `CONTINUE` | modifier: no block name, same block as the page record before |
    /// | 0x040 | `XBZRLE` | block name (unless `CONTINUE`), a delta |
    /// | 0x080 | `HOOK` | RDMA only, refused |
    /// | 0x100 | `COMPRESS_PAGE` | block name (unless `CONTINUE`), 32-bit length, zlib data; until QEMU 9.0 |
    /// | 0x200 | `MULTIFD_FLUSH` | nothing; since QEMU 8.1 |
    ///
    /// Wire: QEMU 7.2..11.1, `docs/devel/migration`, RAM stream.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct RamFlags: u64 {
        /// Obsolete, never sent by a supported release.
        const FULL = 0x001;
        /// A page whose bytes are all equal to the byte that follows (in practice 0).
        const ZERO = 0x002;
        /// The block list of the START section.
        const MEM_SIZE = 0x004;
        /// A page with its bytes.
        const PAGE = 0x008;
        /// End of the section's payload.
        const EOS = 0x010;
        /// Modifier of a page record: the block is that of the page record before.
        const CONTINUE = 0x020;
        /// A page as delta against its present content.
        const XBZRLE = 0x040;
        /// RDMA control, never valid in a byte stream that this crate reads.
        const HOOK = 0x080;
        /// A page compressed with zlib, capability `compress`, removed in QEMU 9.1.
        const COMPRESS_PAGE = 0x100;
        /// Synchronisation mark for the multifd channels.
        const MULTIFD_FLUSH = 0x200;
    }
}

impl RamFlags {
    /// The records that name a page, hence may carry [`RamFlags::CONTINUE`].
    pub const PAGE_RECORDS: Self = Self::ZERO
        .union(Self::PAGE)
        .union(Self::XBZRLE)
        .union(Self::COMPRESS_PAGE);
}

impl fmt::Display for RamFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("0");
        }
        bitflags::parser::to_writer(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_wire() {
        let values: Vec<u64> = RamFlags::all().iter().map(|flag| flag.bits()).collect();
        assert_eq!(
            values,
            [0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x200]
        );
    }

    #[test]
    fn displays_names() {
        assert_eq!(
            (RamFlags::PAGE | RamFlags::CONTINUE).to_string(),
            "PAGE | CONTINUE"
        );
        assert_eq!(RamFlags::empty().to_string(), "0");
        assert_eq!(
            RamFlags::from_bits_retain(0x402).to_string(),
            "ZERO | 0x400"
        );
    }
}
