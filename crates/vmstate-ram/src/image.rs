//! A guest's memory as a stream leaves it, built up record by record.

use std::sync::Arc;

#[cfg(feature = "zlib")]
use crate::codec::deflate;
use crate::multifd::Method;
use crate::record::Record;
use crate::store::{MemoryStore, PageStore};
use crate::{
    BlockId, BlockTable, DirtyBitmap, PageSize, RamError, RamErrorKind, is_zero_page, xbzrle,
};

/// A sink for pages of any kind, with the content of all blocks behind it. Tools use it to look at the memory that a
/// stream carries; it is no place for a running guest.
///
/// Zero pages cost nothing, however large a block claims to be.
///
/// ```
/// use std::sync::Arc;
/// use vmstate_ram::{BlockName, BlockTable, MemoryStore, PageSize, RamBlock, RamImage};
///
/// let mut blocks = BlockTable::new();
/// let ram = blocks.push(RamBlock::new(BlockName::new(b"ram")?, 0x3000), PageSize::KIB4)?;
/// let store = MemoryStore::new(PageSize::KIB4, 1 << 20);
/// let mut image = RamImage::new(Arc::new(blocks), PageSize::KIB4, store);
/// image.page(ram, 0x1000, &[7; 4096])?;
/// let mut bytes = [0; 3];
/// image.read(ram, 0xfff, &mut bytes)?;
/// assert_eq!(bytes, [0, 7, 7]);
/// # Ok::<(), vmstate_ram::RamError>(())
/// ```
#[derive(Debug)]
pub struct RamImage<S = MemoryStore> {
    blocks: Arc<BlockTable>,
    page_size: PageSize,
    store: S,
    scratch: Box<[u8]>,
    #[cfg(feature = "zlib")]
    inflater: deflate::Inflater,
}

impl<S: PageStore> RamImage<S> {
    /// Makes an image in which all memory is zero.
    #[must_use]
    pub fn new(blocks: Arc<BlockTable>, page_size: PageSize, store: S) -> Self {
        Self {
            blocks,
            page_size,
            store,
            scratch: vec![0; page_size.as_usize()].into(),
            #[cfg(feature = "zlib")]
            inflater: deflate::Inflater::new(true),
        }
    }

    /// The blocks.
    #[must_use]
    pub fn blocks(&self) -> &Arc<BlockTable> {
        &self.blocks
    }

    /// The storage, for what goes into it by other ways than a page's content.
    #[must_use]
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the storage back.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }

    /// Applies a page record.
    ///
    /// # Errors
    ///
    /// As the method for that record; [`RamErrorKind::MethodNotBuilt`] for a compressed page without the feature
    /// `zlib`.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<(), S::Error> {
        let page = record.page();
        match *record {
            Record::Page { data, .. } => self.page(page.block, page.offset, data),
            Record::Zero { fill, .. } => self.fill(page.block, page.offset, fill),
            Record::Xbzrle { delta, .. } => self.xbzrle(page.block, page.offset, delta),
            Record::Compressed { data, .. } => self.compressed(page.block, page.offset, data),
        }
    }

    /// Sets a page's content.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`]; [`RamErrorKind::BufferLength`] unless `content` is one page; and the storage's.
    pub fn page(&mut self, block: BlockId, offset: u64, content: &[u8]) -> Result<(), S::Error> {
        let page = self.number(block, offset)?;
        let expected = self.page_size.as_usize();
        if content.len() != expected {
            return Err(RamError::from(RamErrorKind::BufferLength {
                expected,
                found: content.len(),
            })
            .into());
        }
        if is_zero_page(content) {
            self.store.clear(block, page)
        } else {
            self.store.write(block, page, content)
        }
    }

    /// Fills a page with one byte.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`], and the storage's.
    pub fn fill(&mut self, block: BlockId, offset: u64, byte: u8) -> Result<(), S::Error> {
        let page = self.number(block, offset)?;
        if byte == 0 {
            return self.store.clear(block, page);
        }
        self.scratch.fill(byte);
        self.store.write(block, page, &self.scratch)
    }

    /// Applies an XBZRLE delta to a page.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`]; [`RamErrorKind::Xbzrle`]; and the storage's.
    pub fn xbzrle(&mut self, block: BlockId, offset: u64, delta: &[u8]) -> Result<(), S::Error> {
        let page = self.number(block, offset)?;
        if !self.store.read(block, page, &mut self.scratch)? {
            self.scratch.fill(0);
        }
        xbzrle::decode(delta, &mut self.scratch)
            .map_err(|error| self.in_block(block, RamErrorKind::Xbzrle(error)))?;
        self.put_scratch(block, page)
    }

    /// Sets a page to what a zlib stream gives.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`]; [`RamErrorKind::Inflate`] unless the stream gives exactly one page;
    /// [`RamErrorKind::MethodNotBuilt`] without the feature `zlib`; and the storage's.
    pub fn compressed(&mut self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), S::Error> {
        let page = self.number(block, offset)?;
        self.inflate_scratch(data)
            .map_err(|kind| self.in_block(block, kind))?;
        self.put_scratch(block, page)
    }

    /// Makes a range of a block zero, as a postcopy discard does. Whole pages only; what reaches behind the block's
    /// end is left out.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`] for the first page; [`RamErrorKind::Unaligned`] for a length that is not a
    /// multiple of the page size; and the storage's.
    pub fn discard(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), S::Error> {
        if length == 0 {
            return Ok(());
        }
        let mut page = self.number(block, offset)?;
        if !self.page_size.is_aligned(length) {
            let kind = RamErrorKind::Unaligned {
                offset: length,
                page_size: self.page_size,
            };
            return Err(self.in_block(block, kind).into());
        }
        let end = page.saturating_add(length >> self.page_size.bits());
        while let Some(stored) = self
            .store
            .next_stored(block, page)?
            .filter(|stored| *stored < end)
        {
            self.store.clear(block, stored)?;
            page = stored.saturating_add(1);
        }
        Ok(())
    }

    /// Copies bytes of a block, from any offset.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`] for every page that the range touches, and the storage's.
    pub fn read(&mut self, block: BlockId, offset: u64, buffer: &mut [u8]) -> Result<(), S::Error> {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let start = at & !self.page_size.flag_mask();
            let page = self.number(block, start)?;
            if !self.store.read(block, page, &mut self.scratch)? {
                self.scratch.fill(0);
            }
            let skip = usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
            let source = self.scratch.get(skip..).unwrap_or_default();
            let count = source.len().min(rest.len());
            let (target, behind) = rest.split_at_mut_checked(count).unwrap_or_default();
            target.copy_from_slice(source.get(..count).unwrap_or_default());
            rest = behind;
            at = at.saturating_add(count as u64);
        }
        Ok(())
    }

    /// How many pages of a block are not zero.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::UnknownBlockId`], and the storage's.
    pub fn nonzero_pages(&mut self, block: BlockId) -> Result<u64, S::Error> {
        let (mut count, mut page) = (0_u64, 0);
        self.block_pages(block)?;
        while let Some(stored) = self.store.next_stored(block, page)? {
            // A page that a delta or another writer made zero may still be stored.
            if self.store.read(block, stored, &mut self.scratch)? && !is_zero_page(&self.scratch) {
                count = count.saturating_add(1);
            }
            page = stored.saturating_add(1);
        }
        Ok(count)
    }

    /// A bitmap of a block's pages that are stored, hence perhaps not zero. Takes memory by the block's claimed
    /// length, so that is bounded by `limit` pages.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::UnknownBlockId`], [`RamErrorKind::BitmapLimit`], and the storage's.
    pub fn stored_pages(&mut self, block: BlockId, limit: u64) -> Result<DirtyBitmap, S::Error> {
        let pages = self.block_pages(block)?;
        if pages > limit {
            return Err(RamError::from(RamErrorKind::BitmapLimit {
                found: pages,
                limit,
            })
            .into());
        }
        let mut bitmap = DirtyBitmap::new(pages);
        let mut page = 0;
        while let Some(stored) = self.store.next_stored(block, page)? {
            bitmap.set(stored);
            page = stored.saturating_add(1);
        }
        Ok(bitmap)
    }

    /// SHA-256 over all bytes of a block, `used_length` of them. Needs no memory but the storage's.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::UnknownBlockId`], and the storage's.
    #[cfg(feature = "digest")]
    pub fn digest(&mut self, block: BlockId) -> Result<[u8; 32], S::Error> {
        use sha2::{Digest, Sha256};

        let zeros = vec![0; 64 << 10];
        let pages = self.block_pages(block)?;
        let mut hash = Sha256::new();
        let mut page = 0;
        while page < pages {
            let stored = self
                .store
                .next_stored(block, page)?
                .unwrap_or(pages)
                .min(pages);
            let mut gap = stored
                .saturating_sub(page)
                .saturating_mul(self.page_size.bytes());
            while gap > 0 {
                let piece = usize::try_from(gap).unwrap_or(usize::MAX).min(zeros.len());
                hash.update(zeros.get(..piece).unwrap_or_default());
                gap = gap.saturating_sub(piece as u64);
            }
            if stored < pages {
                if !self.store.read(block, stored, &mut self.scratch)? {
                    self.scratch.fill(0);
                }
                hash.update(&self.scratch);
            }
            page = stored.saturating_add(1);
        }
        Ok(hash.finalize().into())
    }

    /// Decompresses a page into the scratch page.
    #[cfg(feature = "zlib")]
    fn inflate_scratch(&mut self, data: &[u8]) -> Result<(), RamErrorKind> {
        let method = Method::Zlib;
        self.inflater
            .one(data, &mut self.scratch)
            .map_err(|what| RamErrorKind::Inflate { method, what })
    }

    #[cfg(not(feature = "zlib"))]
    #[expect(clippy::unused_self, reason = "with the feature it has a use")]
    fn inflate_scratch(&mut self, _: &[u8]) -> Result<(), RamErrorKind> {
        Err(RamErrorKind::MethodNotBuilt {
            method: Method::Zlib,
        })
    }

    /// Stores the scratch page.
    fn put_scratch(&mut self, block: BlockId, page: u64) -> Result<(), S::Error> {
        if is_zero_page(&self.scratch) {
            self.store.clear(block, page)
        } else {
            self.store.write(block, page, &self.scratch)
        }
    }

    /// The number of a page that lies inside its block.
    fn number(&self, block: BlockId, offset: u64) -> Result<u64, RamError> {
        self.blocks.check_page(block, offset, self.page_size)?;
        Ok(offset >> self.page_size.bits())
    }

    fn block_pages(&self, id: BlockId) -> Result<u64, RamError> {
        match self.blocks.get(id) {
            Some(block) => Ok(self.page_size.pages_in(block.used_length)),
            None => Err(RamErrorKind::UnknownBlockId { id: id.0 }.into()),
        }
    }

    #[cold]
    fn in_block(&self, id: BlockId, kind: RamErrorKind) -> RamError {
        let error = RamError::from(kind);
        match self.blocks.get(id) {
            Some(block) => error.in_block(&block.name),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockName, PageRef, RamBlock};

    const A: BlockId = BlockId(0);

    fn image() -> RamImage {
        let mut blocks = BlockTable::new();
        for (name, length) in [("a", 0x4000), ("huge", 1 << 50)] {
            blocks
                .push(
                    RamBlock::new(BlockName::new(name.as_bytes()).unwrap(), length),
                    PageSize::KIB4,
                )
                .unwrap();
        }
        RamImage::new(
            Arc::new(blocks),
            PageSize::KIB4,
            MemoryStore::new(PageSize::KIB4, 1 << 20),
        )
    }

    fn content(image: &mut RamImage) -> Vec<u8> {
        let mut bytes = vec![0xee; 0x4000];
        image.read(A, 0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn applies_every_record() {
        let mut image = image();
        let page = |offset| PageRef {
            block: A,
            offset,
            named: false,
        };
        let data = [3; 4096];
        let mut expected = vec![0; 0x4000];
        image
            .apply(&Record::Page {
                page: page(0x1000),
                data: &data,
            })
            .unwrap();
        expected[0x1000..0x2000].fill(3);
        image
            .apply(&Record::Zero {
                page: page(0x2000),
                fill: 9,
            })
            .unwrap();
        expected[0x2000..0x3000].fill(9);
        image
            .apply(&Record::Xbzrle {
                page: page(0x1000),
                delta: &[1, 2, 5, 5],
            })
            .unwrap();
        expected[0x1001..0x1003].fill(5);
        image
            .apply(&Record::Xbzrle {
                page: page(0x3000),
                delta: &[0, 1, 4],
            })
            .unwrap();
        expected[0x3000] = 4;
        assert_eq!(content(&mut image), expected);
        assert_eq!(image.nonzero_pages(A).unwrap(), 3);
        assert_eq!(
            image.stored_pages(A, 4).unwrap().runs().collect::<Vec<_>>(),
            [1..4]
        );
        image
            .apply(&Record::Zero {
                page: page(0x1000),
                fill: 0,
            })
            .unwrap();
        image.page(A, 0x2000, &[0; 4096]).unwrap();
        image.xbzrle(A, 0x3000, &[0, 1, 0]).unwrap();
        assert_eq!(image.nonzero_pages(A).unwrap(), 0);
        assert_eq!(content(&mut image), vec![0; 0x4000]);
    }

    #[cfg(feature = "zlib")]
    #[test]
    fn inflates_compressed_pages() {
        let mut image = image();
        let mut data = Vec::new();
        deflate::Deflater::new(6, true)
            .one(&[8; 4096], &mut data)
            .unwrap();
        image.compressed(A, 0, &data).unwrap();
        assert_eq!(content(&mut image)[..0x1000], [8; 4096]);
        for bad in [&data[..data.len() - 1], &[&data[..], &[0]].concat()] {
            let error = image.compressed(A, 0, bad).unwrap_err();
            assert!(
                matches!(error.kind(), RamErrorKind::Inflate { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut image = image();
        assert!(image.page(A, 0x4000, &[0; 4096]).is_err());
        assert!(image.page(A, 0x10, &[0; 4096]).is_err());
        assert!(image.page(A, 0, &[0; 4095]).is_err());
        assert!(image.fill(BlockId(2), 0, 0).is_err());
        assert!(image.read(A, 0x3fff, &mut [0; 2]).is_err());
        assert!(image.discard(A, 0, 100).is_err());
        let error = image.xbzrle(A, 0, &[1]).unwrap_err();
        assert_eq!(error.to_string(), "block a: XBZRLE delta cannot be applied");
        assert!(std::error::Error::source(&error).is_some());
        assert!(image.nonzero_pages(BlockId(2)).is_err());
        assert!(image.stored_pages(BlockId(1), 1 << 20).is_err());
    }

    #[test]
    fn discards_ranges() {
        let mut image = image();
        for offset in [0, 0x1000, 0x2000, 0x3000] {
            image.fill(A, offset, 1).unwrap();
        }
        image.discard(A, 0x1000, 0x2000).unwrap();
        image.discard(A, 0x1000, 0).unwrap();
        assert_eq!(
            image.stored_pages(A, 4).unwrap().runs().collect::<Vec<_>>(),
            [0..1, 3..4]
        );
        image.discard(A, 0x3000, 1 << 40).unwrap();
        assert_eq!(image.nonzero_pages(A).unwrap(), 1);
    }

    #[test]
    fn a_huge_block_costs_only_its_pages() {
        let mut image = image();
        image.fill(BlockId(1), (1 << 50) - 0x1000, 1).unwrap();
        assert_eq!(image.nonzero_pages(BlockId(1)).unwrap(), 1);
        assert!(image.into_store().memory_used() < 300_000);
    }

    #[cfg(feature = "digest")]
    #[test]
    fn digests_all_bytes() {
        use sha2::{Digest, Sha256};
        let mut image = image();
        image.fill(A, 0x2000, 7).unwrap();
        let bytes = content(&mut image);
        assert_eq!(image.digest(A).unwrap()[..], Sha256::digest(bytes)[..]);
        assert!(image.digest(BlockId(2)).is_err());
    }
}
