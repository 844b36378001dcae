//! mapped-ram files: each page has a fixed place, so the stream's START section has gaps.
//!
//! Behind each entry of the setup record stand a header, the block's page bitmap, padding, and room for all pages:
//!
//! ```text
//! cstr8 name, be64 used length, [be64 address]
//! header, 28 bytes
//! bitmap                              one bit per target page: 1 = the page is in the file
//! padding up to a multiple of 1 MiB
//! pages                               used length bytes, sparse
//! ```
//!
//! A page whose bit is clear is a zero page, whatever bytes stand in its place.
//!
//! Wire: QEMU 9.0..11.1, capability `mapped-ram`.

use std::ops::Range;

use crate::bitmap::{Runs, WordOrder};
use crate::{DirtyBitmap, PageSize, RamError, RamErrorKind};

/// To what a writer aligns the pages of a block in the file, in bytes. Readers must not rely on it.
pub const PAGES_ALIGNMENT: u64 = 0x10_0000;

/// The header of a block's part of a mapped-ram file.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 4 | be | version, 1 |
/// | 4 | 8 | be | target page size |
/// | 12 | 8 | be | place of the bitmap, in bytes from the beginning of the file |
/// | 20 | 8 | be | place of the pages, likewise |
///
/// Wire: QEMU 9.0..11.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MappedRamHeader {
    /// Version of the header, at most 1.
    pub version: u32,
    /// Target page size in bytes.
    pub page_size: u64,
    /// Absolute file offset of the bitmap; 0 for an ignored block.
    pub bitmap_offset: u64,
    /// Absolute file offset of the first page; 0 for an ignored block.
    pub pages_offset: u64,
}

impl MappedRamHeader {
    /// Size of the header in bytes.
    pub const SIZE: usize = 28;

    /// Reads a header. Nothing is checked yet: see [`MappedBlock::new`].
    #[must_use]
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let [v0, v1, v2, v3, rest @ ..] = *bytes;
        let (fields, _) = rest.as_chunks::<8>();
        let field = |index: usize| {
            fields
                .get(index)
                .map_or(0, |field| u64::from_be_bytes(*field))
        };
        Self {
            version: u32::from_be_bytes([v0, v1, v2, v3]),
            page_size: field(0),
            bitmap_offset: field(1),
            pages_offset: field(2),
        }
    }

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let fields = [
            &self.version.to_be_bytes()[..],
            &self.page_size.to_be_bytes(),
            &self.bitmap_offset.to_be_bytes(),
            &self.pages_offset.to_be_bytes(),
        ];
        for (byte, field) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *byte = *field;
        }
        bytes
    }

    /// The header of a block whose pages are not in the file (capability `x-ignore-shared`).
    #[must_use]
    pub fn ignored(page_size: PageSize) -> Self {
        Self {
            version: 1,
            page_size: page_size.bytes(),
            bitmap_offset: 0,
            pages_offset: 0,
        }
    }

    /// Whether the block's pages are not in the file.
    #[must_use]
    pub fn is_ignored(&self) -> bool {
        self.bitmap_offset == 0 && self.pages_offset == 0
    }
}

/// Where bitmap and pages of one block stand in the file: checked places, all in bytes from the file's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedBlock {
    page_size: PageSize,
    bitmap: Range<u64>,
    pages: Range<u64>,
}

impl MappedBlock {
    /// Checks a header that was read. `floor` is the file offset behind the header: bitmap and pages must not begin
    /// before it. `file_length` bounds them where it is known.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::MappedVersion`], [`RamErrorKind::MappedPageSize`], or [`RamErrorKind::MappedPlace`] if a place
    /// overlaps what stands before it, leaves the file or the 63-bit range, overlaps the other one, or is not
    /// aligned to the target page size.
    pub fn new(
        header: &MappedRamHeader,
        used_length: u64,
        page_size: PageSize,
        floor: u64,
        file_length: Option<u64>,
    ) -> Result<Self, RamError> {
        if header.version > 1 {
            return Err(RamErrorKind::MappedVersion {
                found: header.version,
            }
            .into());
        }
        if header.page_size != page_size.bytes() {
            let (expected, found) = (page_size.bytes(), header.page_size);
            return Err(RamErrorKind::MappedPageSize { expected, found }.into());
        }
        let limit = file_length.unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs());
        let bitmap_size = DirtyBitmap::byte_len(page_size.pages_in(used_length));
        let bitmap = place("bitmap", header.bitmap_offset, bitmap_size, floor, limit)?;
        let pages = place("pages", header.pages_offset, used_length, floor, limit)?;
        let problem = if !page_size.is_aligned(pages.start) {
            "not aligned to the target page size"
        } else if bitmap.start < pages.end && pages.start < bitmap.end {
            "overlap the bitmap"
        } else {
            return Ok(Self {
                page_size,
                bitmap,
                pages,
            });
        };
        Err(misplaced("pages", &pages, problem))
    }

    /// Plans the places of a block whose header ends at file offset `position`: the bitmap directly behind the
    /// header, the pages at the next multiple of 1 MiB.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::MappedPlace`] if the file would become too long for 63 bits.
    pub fn plan(
        position: u64,
        used_length: u64,
        page_size: PageSize,
    ) -> Result<(MappedRamHeader, Self), RamError> {
        let bitmap_size = DirtyBitmap::byte_len(page_size.pages_in(used_length));
        let bitmap = place(
            "bitmap",
            position,
            bitmap_size,
            position,
            i64::MAX.unsigned_abs(),
        )?;
        let start = bitmap.end.next_multiple_of(PAGES_ALIGNMENT);
        let pages = place(
            "pages",
            start,
            used_length,
            position,
            i64::MAX.unsigned_abs(),
        )?;
        let header = MappedRamHeader {
            version: 1,
            page_size: page_size.bytes(),
            bitmap_offset: bitmap.start,
            pages_offset: pages.start,
        };
        Ok((
            header,
            Self {
                page_size,
                bitmap,
                pages,
            },
        ))
    }

    /// The bitmap's bytes in the file.
    #[must_use]
    pub fn bitmap(&self) -> Range<u64> {
        self.bitmap.clone()
    }

    /// The pages' bytes in the file.
    #[must_use]
    pub fn pages(&self) -> Range<u64> {
        self.pages.clone()
    }

    /// How many pages the block has.
    #[must_use]
    pub fn page_count(&self) -> u64 {
        self.page_size
            .pages_in(self.pages.end.saturating_sub(self.pages.start))
    }

    /// Where the next entry of the setup record begins: behind the pages.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.pages.end
    }

    /// Makes the bitmap from the bytes read at [`bitmap`](Self::bitmap).
    ///
    /// # Errors
    ///
    /// As [`DirtyBitmap::from_bytes`].
    pub fn read_bitmap(&self, bytes: &[u8], order: WordOrder) -> Result<DirtyBitmap, RamError> {
        DirtyBitmap::from_bytes(bytes, self.page_count(), order)
    }

    /// The pieces of the file that hold the pages of this bitmap, none longer than `longest` bytes (at least one
    /// page; QEMU reads up to 1 MiB at a time). Pages behind the block's end are left out.
    #[must_use]
    pub fn file_runs<'a>(&self, bitmap: &'a DirtyBitmap, longest: u64) -> FileRuns<'a> {
        FileRuns {
            runs: bitmap.runs(),
            pending: 0..0,
            block: self.clone(),
            longest_pages: (longest >> self.page_size.bits()).max(1),
        }
    }
}

/// A piece of a mapped-ram file that holds consecutive pages of a block. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRun {
    /// Where the piece belongs in the block.
    pub block_offset: u64,
    /// Where it stands in the file.
    pub file_offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Iterator over pieces of a mapped-ram file; see [`MappedBlock::file_runs`].
#[derive(Debug, Clone)]
pub struct FileRuns<'a> {
    runs: Runs<'a>,
    pending: Range<u64>,
    block: MappedBlock,
    longest_pages: u64,
}

impl Iterator for FileRuns<'_> {
    type Item = FileRun;

    fn next(&mut self) -> Option<FileRun> {
        if self.pending.is_empty() {
            self.pending = self.runs.next()?;
            self.pending.end = self.pending.end.min(self.block.page_count());
            if self.pending.is_empty() {
                return None;
            }
        }
        let start = self.pending.start;
        let end = self
            .pending
            .end
            .min(start.saturating_add(self.longest_pages));
        self.pending.start = end;
        // No product or sum can wrap: all pages are below the block's count and its places were checked.
        let bytes = |pages: u64| pages.saturating_mul(self.block.page_size.bytes());
        Some(FileRun {
            block_offset: bytes(start),
            file_offset: self.block.pages.start.saturating_add(bytes(start)),
            length: bytes(end.saturating_sub(start)),
        })
    }
}

fn place(
    what: &'static str,
    start: u64,
    length: u64,
    floor: u64,
    limit: u64,
) -> Result<Range<u64>, RamError> {
    let range = start..start.saturating_add(length);
    if start < floor {
        Err(misplaced(what, &range, "overlap what stands before"))
    } else if start.checked_add(length).is_none_or(|end| end > limit) {
        Err(misplaced(what, &range, "leave the file"))
    } else {
        Ok(range)
    }
}

#[cold]
fn misplaced(what: &'static str, range: &Range<u64>, problem: &'static str) -> RamError {
    RamErrorKind::MappedPlace {
        what,
        start: range.start,
        end: range.end,
        problem,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_as_qemu_does() {
        // The first block of an x86 machine with 16 MiB, header at 0x72.
        let (header, block) = MappedBlock::plan(0x8e, 0x100_0000, PageSize::KIB4).unwrap();
        assert_eq!(
            (header.bitmap_offset, header.pages_offset),
            (0x8e, 0x10_0000)
        );
        assert_eq!(
            (block.bitmap(), block.pages(), block.end()),
            (0x8e..0x28e, 0x10_0000..0x110_0000, 0x110_0000)
        );
        let bytes = header.encode();
        assert_eq!(bytes[..12], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0]);
        assert_eq!(MappedRamHeader::decode(&bytes), header);
        assert_eq!(
            MappedBlock::new(&header, 0x100_0000, PageSize::KIB4, 0x8e, Some(0x110_0000)).unwrap(),
            block
        );
        assert!(MappedBlock::plan(u64::MAX - 5, 0x1000, PageSize::KIB4).is_err());
        assert!(MappedBlock::plan(i64::MAX as u64 - 100, 0x1000, PageSize::KIB4).is_err());
    }

    #[test]
    fn refuses_bad_headers() {
        let good = MappedRamHeader {
            version: 1,
            page_size: 4096,
            bitmap_offset: 0x100,
            pages_offset: 0x1000,
        };
        let check = |header: MappedRamHeader| {
            MappedBlock::new(&header, 0x2000, PageSize::KIB4, 0x100, Some(0x3000))
                .map_err(|e| e.kind().clone())
        };
        assert!(check(good).is_ok());
        assert!(check(MappedRamHeader { version: 0, ..good }).is_ok());
        assert_eq!(
            check(MappedRamHeader { version: 2, ..good }),
            Err(RamErrorKind::MappedVersion { found: 2 })
        );
        assert_eq!(
            check(MappedRamHeader {
                page_size: 8192,
                ..good
            }),
            Err(RamErrorKind::MappedPageSize {
                expected: 4096,
                found: 8192
            })
        );
        for (header, expected) in [
            (
                MappedRamHeader {
                    bitmap_offset: 0xff,
                    ..good
                },
                "overlap what stands before",
            ),
            (
                MappedRamHeader {
                    bitmap_offset: u64::MAX,
                    ..good
                },
                "leave the file",
            ),
            (
                MappedRamHeader {
                    bitmap_offset: 0x1800,
                    ..good
                },
                "overlap the bitmap",
            ),
            (
                MappedRamHeader {
                    pages_offset: 0,
                    ..good
                },
                "overlap what stands before",
            ),
            (
                MappedRamHeader {
                    pages_offset: 0x1001,
                    ..good
                },
                "leave the file",
            ),
            (
                MappedRamHeader {
                    pages_offset: 0xf00,
                    ..good
                },
                "not aligned to the target page size",
            ),
        ] {
            match check(header) {
                Err(RamErrorKind::MappedPlace { problem, .. }) => assert_eq!(problem, expected),
                other => panic!("{header:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn runs_are_cut_and_stay_inside() {
        let (_, block) = MappedBlock::plan(0, 0x5000, PageSize::KIB4).unwrap();
        let mut bitmap = DirtyBitmap::new(5);
        bitmap.set_range(1..4);
        let runs: Vec<_> = block
            .file_runs(&bitmap, 0x2000)
            .map(|r| (r.block_offset, r.file_offset, r.length))
            .collect();
        assert_eq!(
            runs,
            [(0x1000, 0x10_1000, 0x2000), (0x3000, 0x10_3000, 0x1000)]
        );
        assert_eq!(
            block
                .file_runs(&DirtyBitmap::full(9), u64::MAX)
                .map(|r| r.length)
                .collect::<Vec<_>>(),
            [0x5000]
        );
        assert_eq!(block.file_runs(&bitmap, 0).count(), 3);
    }

    #[test]
    fn an_ignored_block_has_no_places() {
        assert!(MappedRamHeader::ignored(PageSize::KIB4).is_ignored());
    }
}
