//! What a reader of the `ram` section must know beforehand: the wire does not say it.

use std::collections::BTreeMap;

use crate::{BlockName, PageSize};

/// The dialect of a `ram` section: everything that the bytes themselves do not tell.
///
/// A stream says some of it elsewhere: the configuration section lists the capabilities `x-ignore-shared` and
/// `mapped-ram`, and on Arm the target page size. The rest follows from the release that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// The target page size.
    pub page_size: PageSize,
    /// Capability `x-ignore-shared`: each block in the setup record carries its guest physical address.
    pub ignore_shared: bool,
    /// Capability `mapped-ram`: each block carries a 28-byte header and is followed by its bitmap and pages; the
    /// sections hold no page records.
    pub mapped_ram: bool,
    /// Which blocks carry their page size (capability `postcopy-ram`).
    pub page_size_extra: PageSizeExtra,
    /// Whether `COMPRESS_PAGE` records are known (capability `compress`, until QEMU 9.0).
    pub compressed_pages: bool,
    /// Whether `MULTIFD_FLUSH` is known (since QEMU 8.1).
    pub multifd_flush: bool,
    /// Whether a zero page's fill byte may differ from 0. QEMU 7.2 fills the page with whatever byte comes; newer
    /// releases refuse it.
    pub any_fill_byte: bool,
    /// The most blocks that a setup record may list.
    pub max_blocks: usize,
    /// Where the stream begins in its file, in bytes (the `offset=` of a `file:` URI). The places in mapped-ram
    /// headers are absolute in the file.
    pub stream_base: u64,
    /// The length of the file in bytes, where it is known: places in mapped-ram headers must lie inside.
    pub file_length: Option<u64>,
}

impl Dialect {
    /// What QEMU 9.1 and later read with no capability set; the default.
    #[must_use]
    pub fn modern() -> Self {
        Self {
            page_size: PageSize::KIB4,
            ignore_shared: false,
            mapped_ram: false,
            page_size_extra: PageSizeExtra::Infer,
            compressed_pages: false,
            multifd_flush: true,
            any_fill_byte: false,
            max_blocks: 16_384,
            stream_base: 0,
            file_length: None,
        }
    }

    /// What QEMU 7.2 reads with no capability set.
    #[must_use]
    pub fn qemu_7_2() -> Self {
        Self {
            compressed_pages: true,
            multifd_flush: false,
            any_fill_byte: true,
            ..Self::modern()
        }
    }

    /// Everything that any of the supported releases reads: for tools that look at streams of unknown origin.
    #[must_use]
    pub fn lenient() -> Self {
        Self {
            compressed_pages: true,
            any_fill_byte: true,
            ..Self::modern()
        }
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::modern()
    }
}

/// Which entries of the setup record carry the page size of the block's memory.
///
/// With the capability `postcopy-ram` a source adds a big-endian 64-bit page size to each block whose page size
/// differs from the usual one of **its host**, which no reader can know from the stream.
///
/// Wire: QEMU 7.2..11.1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PageSizeExtra {
    /// No entry has one. Right for a destination without `postcopy-ram`.
    Never,
    /// Find out from the bytes. This is exact, not a guess: a page size is a power of two below 2^56 and not below
    /// the target page size, so its first byte is 0, which no further entry begins with (a block name is never
    /// empty), and its low bits are 0, which no record word has. Not used together with `ignore_shared` or
    /// `mapped_ram` (those capabilities exclude postcopy): then it means `Never`.
    #[default]
    Infer,
    /// Exactly these blocks have one, with exactly this value in bytes. Right for a destination with
    /// `postcopy-ram` that has received `POSTCOPY_ADVISE`: its own blocks whose page size is not the usual one.
    Expect(BTreeMap<BlockName, u64>),
}
