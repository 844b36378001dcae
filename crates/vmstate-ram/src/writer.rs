//! Writing the payload of `ram` sections.

use std::sync::Arc;

use crate::parser::compressed_limit;
use crate::record::{Event, Record};
use crate::{BlockId, BlockTable, PageSize, RamBlock, RamError, RamErrorKind, RamFlags};

/// Writes the records of `ram` sections, byte for byte as QEMU does, by appending to a buffer.
///
/// It remembers which block the last page record was in, to leave the name out (`CONTINUE`). That memory belongs to
/// one channel and lives across sections; a source calls [`forget`](Self::forget) when postcopy starts, after a
/// recovery, and when the list of blocks changes.
///
/// For pages in large amounts write only [`page_header`](Self::page_header) and let the driver send the page from
/// where it is, with a vectored write.
///
/// Every method that can fail leaves buffer and memory unchanged when it does.
///
/// Wire: QEMU 7.2..11.1; the bytes of each record are at [`Record`].
///
/// ```
/// use std::sync::Arc;
/// use vmstate_ram::{BlockName, BlockTable, PageSize, RamBlock, RamWriter};
///
/// let mut blocks = BlockTable::new();
/// let ram = blocks.push(RamBlock::new(BlockName::new(b"ram")?, 0x2000), PageSize::KIB4)?;
/// let mut writer = RamWriter::new(PageSize::KIB4, Arc::new(blocks));
/// let mut out = Vec::new();
/// writer.zero_page(ram, 0, &mut out)?;
/// writer.zero_page(ram, 0x1000, &mut out)?;
/// writer.end_of_section(&mut out);
/// assert_eq!(out, *b"\0\0\0\0\0\0\0\x02\x03ram\0\
///                    \0\0\0\0\0\0\x10\x22\0\
///                    \0\0\0\0\0\0\0\x10");
/// # Ok::<(), vmstate_ram::RamError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RamWriter {
    page_size: PageSize,
    blocks: Arc<BlockTable>,
    current: Option<BlockId>,
}

impl RamWriter {
    /// Makes a writer for one channel.
    #[must_use]
    pub fn new(page_size: PageSize, blocks: Arc<BlockTable>) -> Self {
        Self {
            page_size,
            blocks,
            current: None,
        }
    }

    /// The blocks.
    #[must_use]
    pub fn blocks(&self) -> &Arc<BlockTable> {
        &self.blocks
    }

    /// Forgets the block of the last page record: the next one is named.
    pub fn forget(&mut self) {
        self.current = None;
    }

    /// Appends the whole setup record of a stream without mapped-ram: the total and all blocks with their extras.
    /// [`multifd_flush`](Self::multifd_flush) (with multifd) and [`end_of_section`](Self::end_of_section) follow.
    pub fn setup(&self, out: &mut Vec<u8>) {
        self.setup_word(out);
        for (_, block) in self.blocks.iter() {
            put_block(block, out);
        }
    }

    /// Appends the first word of the setup record. With mapped-ram, [`block`](Self::block)s follow one by one, and
    /// the driver leaves the gap behind each.
    pub fn setup_word(&self, out: &mut Vec<u8>) {
        put_word(self.blocks.total(), RamFlags::MEM_SIZE, out);
    }

    /// Appends one entry of the setup record.
    ///
    /// # Errors
    ///
    /// [`RamErrorKind::UnknownBlockId`] if there is no such block.
    pub fn block(&self, id: BlockId, out: &mut Vec<u8>) -> Result<(), RamError> {
        let Some(block) = self.blocks.get(id) else {
            return Err(RamErrorKind::UnknownBlockId { id: id.0 }.into());
        };
        put_block(block, out);
        Ok(())
    }

    /// Appends word and name of a normal page. Exactly one target page of content must follow on the wire.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`].
    pub fn page_header(
        &mut self,
        id: BlockId,
        offset: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        self.head(RamFlags::PAGE, id, offset, out)
    }

    /// Appends the words of `pages` adjacent normal pages from `offset` on, for a driver that puts each in front of its
    /// page. They are words without a name, so the page record before must have been in the same block: `false`, and nothing
    /// appended, if it was not. Costs less per page than [`page_header`](Self::page_header).
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`], for the first page and the last.
    pub fn page_words(
        &self,
        id: BlockId,
        offset: u64,
        pages: usize,
        words: &mut Vec<[u8; 8]>,
    ) -> Result<bool, RamError> {
        if self.current != Some(id) || pages == 0 {
            return Ok(false);
        }
        let size = self.page_size.bytes();
        let last = (pages as u64).wrapping_sub(1).saturating_mul(size);
        self.blocks.check_page(id, offset, self.page_size)?;
        self.blocks
            .check_page(id, offset.saturating_add(last), self.page_size)?;
        let flags = (RamFlags::PAGE | RamFlags::CONTINUE).bits();
        words.extend((0..pages as u64).map(|page| {
            // Inside the block, as the last page is.
            let at = offset.wrapping_add(page.wrapping_mul(size));
            (at | flags).to_be_bytes()
        }));
        Ok(true)
    }

    /// Appends a normal page with its content.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`]; [`RamErrorKind::BufferLength`] unless `data` is one target page.
    pub fn page(
        &mut self,
        id: BlockId,
        offset: u64,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        if data.len() != self.page_size.as_usize() {
            let (expected, found) = (self.page_size.as_usize(), data.len());
            return Err(RamErrorKind::BufferLength { expected, found }.into());
        }
        self.page_header(id, offset, out)?;
        out.extend_from_slice(data);
        Ok(())
    }

    /// Appends a zero page.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`].
    pub fn zero_page(
        &mut self,
        id: BlockId,
        offset: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        self.filled_page(id, offset, 0, out)
    }

    /// Appends a page that is filled with one byte. Stock QEMU writes no byte but 0, and since 10.0 reads no other.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`].
    pub fn filled_page(
        &mut self,
        id: BlockId,
        offset: u64,
        fill: u8,
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        self.head(RamFlags::ZERO, id, offset, out)?;
        out.push(fill);
        Ok(())
    }

    /// Appends an XBZRLE record with this delta.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`]; [`RamErrorKind::XbzrleLength`] if the delta is longer than a target page.
    pub fn xbzrle_page(
        &mut self,
        id: BlockId,
        offset: u64,
        delta: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        let too_long = || {
            let (found, limit) = (delta.len() as u64, self.page_size.bytes());
            RamError::from(RamErrorKind::XbzrleLength { found, limit })
        };
        // A delta of 65536 bytes would fit into the largest page, but its length does not fit into the record.
        let length = u16::try_from(delta.len()).map_err(|_| too_long())?;
        if delta.len() > self.page_size.as_usize() {
            return Err(too_long());
        }
        self.head(RamFlags::XBZRLE, id, offset, out)?;
        out.push(1);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(delta);
        Ok(())
    }

    /// Appends a page as zlib stream, for destinations up to QEMU 9.0 with capability `compress`.
    ///
    /// # Errors
    ///
    /// As [`BlockTable::check_page`]; [`RamErrorKind::CompressedLength`] if the stream is empty or longer than
    /// zlib makes of any page.
    pub fn compressed_page(
        &mut self,
        id: BlockId,
        offset: u64,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        let limit = compressed_limit(self.page_size.bytes());
        let length = match u32::try_from(data.len()) {
            Ok(length) if length > 0 && u64::from(length) <= limit => length,
            _ => {
                return Err(RamErrorKind::CompressedLength {
                    found: data.len() as u64,
                    limit,
                }
                .into());
            }
        };
        self.head(RamFlags::COMPRESS_PAGE, id, offset, out)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(data);
        Ok(())
    }

    /// Appends the synchronisation mark for the multifd channels (since QEMU 8.1).
    pub fn multifd_flush(&self, out: &mut Vec<u8>) {
        put_word(0, RamFlags::MULTIFD_FLUSH, out);
    }

    /// Appends the end of a section's payload.
    pub fn end_of_section(&self, out: &mut Vec<u8>) {
        put_word(0, RamFlags::EOS, out);
    }

    /// Appends a record as it was parsed: with the block's name exactly if it had one.
    ///
    /// # Errors
    ///
    /// As the method for that record.
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), RamError> {
        let page = record.page();
        self.follow(page.block, page.named);
        match *record {
            Record::Page { page, data } => self.page(page.block, page.offset, data, out),
            Record::Zero { page, fill } => self.filled_page(page.block, page.offset, fill, out),
            Record::Xbzrle { page, delta } => self.xbzrle_page(page.block, page.offset, delta, out),
            Record::Compressed { page, data } => {
                self.compressed_page(page.block, page.offset, data, out)
            }
        }
    }

    /// Appends whatever a parser yielded, so that all events of a section together give its bytes again. The gaps of
    /// a mapped-ram file and the payload behind [`Event::PageHeader`] are the driver's to copy.
    ///
    /// # Errors
    ///
    /// As the method for that record.
    pub fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), RamError> {
        match *event {
            Event::BlockListStart { total } => put_word(total, RamFlags::MEM_SIZE, out),
            Event::Block { block, .. } => return self.block(block, out),
            Event::BlockListEnd => {}
            Event::Record(ref record) => return self.record(record, out),
            Event::PageHeader(page) => {
                self.follow(page.block, page.named);
                return self.page_header(page.block, page.offset, out);
            }
            Event::MultifdFlush => self.multifd_flush(out),
            Event::EndOfSection => self.end_of_section(out),
        }
        Ok(())
    }

    /// Takes over a changed table; the memory of the last block stays.
    pub fn set_blocks(&mut self, blocks: Arc<BlockTable>) {
        self.blocks = blocks;
    }

    /// Sets the memory so that the next record is named or not, as it was in the stream that is being rewritten.
    fn follow(&mut self, block: BlockId, named: bool) {
        self.current = (!named).then_some(block);
    }

    fn head(
        &mut self,
        record: RamFlags,
        id: BlockId,
        offset: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), RamError> {
        let block = self.blocks.check_page(id, offset, self.page_size)?;
        if self.current == Some(id) {
            put_word(offset, record | RamFlags::CONTINUE, out);
        } else {
            put_word(offset, record, out);
            block.name.put(out);
            self.current = Some(id);
        }
        Ok(())
    }
}

fn put_word(offset: u64, flags: RamFlags, out: &mut Vec<u8>) {
    out.extend_from_slice(&(offset | flags.bits()).to_be_bytes());
}

fn put_block(block: &RamBlock, out: &mut Vec<u8>) {
    block.name.put(out);
    out.extend_from_slice(&block.used_length.to_be_bytes());
    for extra in [block.page_size, block.address].into_iter().flatten() {
        out.extend_from_slice(&extra.to_be_bytes());
    }
    if let Some(header) = &block.mapped {
        out.extend_from_slice(&header.encode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockName;

    fn writer() -> (RamWriter, BlockId, BlockId) {
        let mut blocks = BlockTable::new();
        let mut push = |name: &[u8], length| {
            blocks
                .push(
                    RamBlock::new(BlockName::new(name).unwrap(), length),
                    PageSize::KIB4,
                )
                .unwrap()
        };
        let (a, b) = (push(b"a", 0x3000), push(b"b", 0x1000));
        (RamWriter::new(PageSize::KIB4, Arc::new(blocks)), a, b)
    }

    #[test]
    fn names_only_when_the_block_changes() {
        let (mut writer, a, b) = writer();
        let mut words = Vec::new();
        for (id, offset) in [(a, 0), (a, 0x1000), (b, 0), (a, 0x2000)] {
            let mut out = Vec::new();
            writer.page_header(id, offset, &mut out).unwrap();
            words.push((out[7], out.len()));
        }
        assert_eq!(words, [(0x08, 10), (0x28, 8), (0x08, 10), (0x08, 10)]);
        writer.forget();
        let mut out = Vec::new();
        writer.zero_page(a, 0, &mut out).unwrap();
        assert_eq!(out, [0, 0, 0, 0, 0, 0, 0, 2, 1, b'a', 0]);
    }

    #[test]
    fn words_of_a_run_are_those_of_its_pages() {
        let (mut writer, a, b) = writer();
        let mut words = Vec::new();
        assert!(!writer.page_words(a, 0, 3, &mut words).unwrap());
        writer.page_header(a, 0, &mut Vec::new()).unwrap();
        assert!(!writer.page_words(b, 0, 1, &mut words).unwrap());
        assert!(!writer.page_words(a, 0, 0, &mut words).unwrap());
        assert!(writer.page_words(a, 0, 4, &mut words).is_err());
        assert!(writer.page_words(a, 0x10, 1, &mut words).is_err());
        assert!(writer.page_words(a, 0, usize::MAX, &mut words).is_err());
        assert!(words.is_empty());
        assert!(writer.page_words(a, 0x1000, 2, &mut words).unwrap());
        let mut expected = Vec::new();
        for offset in [0x1000, 0x2000] {
            writer.page_header(a, offset, &mut expected).unwrap();
        }
        assert_eq!(words.concat(), expected);
    }

    #[test]
    fn setup_lists_blocks_and_extras() {
        let mut blocks = BlockTable::new();
        let mut block = RamBlock::new(BlockName::new(b"x").unwrap(), 0x1000);
        block.page_size = Some(0x20_0000);
        blocks.push(block, PageSize::KIB4).unwrap();
        let mut out = Vec::new();
        RamWriter::new(PageSize::KIB4, Arc::new(blocks)).setup(&mut out);
        assert_eq!(
            out,
            *b"\0\0\0\0\0\0\x10\x04\x01x\0\0\0\0\0\0\x10\0\0\0\0\0\0\x20\0\0"
        );
    }

    #[test]
    fn a_refusal_appends_nothing_and_remembers_nothing() {
        let (mut writer, a, b) = writer();
        let mut out = Vec::new();
        writer.zero_page(a, 0, &mut out).unwrap();
        let before = out.clone();
        let long = [0; 4110];
        assert!(writer.page(b, 0, &long, &mut out).is_err());
        assert!(writer.page(b, 0x1000, &long[..4096], &mut out).is_err());
        assert!(writer.page_header(b, 0x10, &mut out).is_err());
        assert!(writer.xbzrle_page(b, 0, &long[..4097], &mut out).is_err());
        assert!(writer.compressed_page(b, 0, &[], &mut out).is_err());
        assert!(writer.compressed_page(b, 0, &[0; 4111], &mut out).is_err());
        assert!(writer.block(BlockId(2), &mut out).is_err());
        assert_eq!(out, before);
        writer.compressed_page(a, 0, &long, &mut out).unwrap();
        assert_eq!(out[before.len()..][6..12], [1, 0x20, 0, 0, 0x10, 0x0e]);
    }
}
