//! Where the pages of a [`RamImage`](crate::RamImage) live.

use std::collections::BTreeMap;

use crate::{BlockId, PageSize, RamError, RamErrorKind};

/// Storage for pages that are not zero. A page that was never written, or was cleared, is a zero page.
///
/// Pages are named by block and page number (offset divided by the target page size). The caller keeps page numbers
/// inside their blocks, and buffers one target page long.
pub trait PageStore {
    /// Why the storage fails.
    type Error: From<RamError>;

    /// Stores a page's content.
    ///
    /// # Errors
    ///
    /// Whatever the storage runs into, such as its limit.
    fn write(&mut self, block: BlockId, page: u64, content: &[u8]) -> Result<(), Self::Error>;

    /// Makes a page a zero page.
    ///
    /// # Errors
    ///
    /// Whatever the storage runs into.
    fn clear(&mut self, block: BlockId, page: u64) -> Result<(), Self::Error>;

    /// Copies a page's content to the buffer and returns true; or, for a zero page, leaves the buffer alone and
    /// returns false.
    ///
    /// # Errors
    ///
    /// Whatever the storage runs into.
    fn read(&mut self, block: BlockId, page: u64, buffer: &mut [u8]) -> Result<bool, Self::Error>;

    /// The first page from this one on that is not known to be a zero page.
    ///
    /// # Errors
    ///
    /// Whatever the storage runs into.
    fn next_stored(&mut self, block: BlockId, page: u64) -> Result<Option<u64>, Self::Error>;
}

/// Pages per index chunk.
const CHUNK: u64 = CHUNK_LEN as u64;
const CHUNK_LEN: usize = 512;
/// Pages per slab.
const SLAB: usize = 64;
/// An index entry of a zero page.
const NONE: u32 = u32::MAX;

/// A [`PageStore`] in memory, up to a limit.
///
/// Memory is taken in slabs as pages come, and an index only where pages are; so a block that claims to be huge and
/// has few pages costs little. The space of cleared pages is used again.
#[derive(Debug)]
pub struct MemoryStore {
    page_size: PageSize,
    limit: u64,
    used: u64,
    slabs: Vec<Box<[u8]>>,
    /// Slots that were given back.
    free: Vec<u32>,
    /// The first slot that was never used.
    fresh: u32,
    index: BTreeMap<(BlockId, u64), Box<Chunk>>,
}

#[derive(Debug)]
struct Chunk {
    slots: [u32; CHUNK_LEN],
}

impl MemoryStore {
    /// Makes a store that takes up to `limit` bytes of memory for pages and index.
    #[must_use]
    pub fn new(page_size: PageSize, limit: u64) -> Self {
        Self {
            page_size,
            limit,
            used: 0,
            slabs: Vec::new(),
            free: Vec::new(),
            fresh: 0,
            index: BTreeMap::new(),
        }
    }

    /// How many bytes of memory pages and index take now.
    #[must_use]
    pub fn memory_used(&self) -> u64 {
        self.used
    }

    fn slot_of(&self, block: BlockId, page: u64) -> Option<u32> {
        let chunk = self.index.get(&(block, page / CHUNK))?;
        chunk
            .slots
            .get(within(page))
            .copied()
            .filter(|slot| *slot != NONE)
    }

    fn content(&mut self, slot: u32) -> Option<&mut [u8]> {
        let slot = slot as usize;
        let start = (slot % SLAB).saturating_mul(self.page_size.as_usize());
        let end = start.saturating_add(self.page_size.as_usize());
        self.slabs.get_mut(slot / SLAB)?.get_mut(start..end)
    }

    /// Takes memory into account.
    fn charge(&mut self, bytes: usize) -> Result<(), RamError> {
        let used = self.used.saturating_add(bytes as u64);
        if used > self.limit {
            return Err(RamErrorKind::MemoryLimit { limit: self.limit }.into());
        }
        self.used = used;
        Ok(())
    }

    /// A slot that is not in use.
    fn new_slot(&mut self) -> Result<u32, RamError> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        let slot = self.fresh;
        if slot as usize / SLAB >= self.slabs.len() {
            let bytes = self.page_size.as_usize().saturating_mul(SLAB);
            self.charge(bytes)?;
            self.slabs.push(vec![0; bytes].into());
        }
        self.fresh = slot
            .checked_add(1)
            .filter(|next| *next != NONE)
            .ok_or(RamErrorKind::MemoryLimit { limit: self.limit })?;
        Ok(slot)
    }

    /// The slot of a page, made if there is none.
    fn claim(&mut self, block: BlockId, page: u64) -> Result<u32, RamError> {
        if let Some(slot) = self.slot_of(block, page) {
            return Ok(slot);
        }
        let key = (block, page / CHUNK);
        if !self.index.contains_key(&key) {
            self.charge(size_of::<Chunk>())?;
            self.index.insert(
                key,
                Box::new(Chunk {
                    slots: [NONE; CHUNK_LEN],
                }),
            );
        }
        let slot = self.new_slot()?;
        if let Some(entry) = self
            .index
            .get_mut(&key)
            .and_then(|chunk| chunk.slots.get_mut(within(page)))
        {
            *entry = slot;
        }
        Ok(slot)
    }
}

impl PageStore for MemoryStore {
    type Error = RamError;

    fn write(&mut self, block: BlockId, page: u64, content: &[u8]) -> Result<(), RamError> {
        let slot = self.claim(block, page)?;
        let page_len = self.page_size.as_usize();
        match self.content(slot) {
            Some(target) if content.len() == target.len() => {
                target.copy_from_slice(content);
                Ok(())
            }
            _ => Err(RamErrorKind::BufferLength {
                expected: page_len,
                found: content.len(),
            }
            .into()),
        }
    }

    fn clear(&mut self, block: BlockId, page: u64) -> Result<(), RamError> {
        if let Some(chunk) = self.index.get_mut(&(block, page / CHUNK))
            && let Some(entry) = chunk.slots.get_mut(within(page))
            && *entry != NONE
        {
            self.free.push(*entry);
            *entry = NONE;
        }
        Ok(())
    }

    fn read(&mut self, block: BlockId, page: u64, buffer: &mut [u8]) -> Result<bool, RamError> {
        let Some(slot) = self.slot_of(block, page) else {
            return Ok(false);
        };
        match self.content(slot) {
            Some(content) if content.len() == buffer.len() => {
                buffer.copy_from_slice(content);
                Ok(true)
            }
            _ => {
                let expected = self.page_size.as_usize();
                Err(RamErrorKind::BufferLength {
                    expected,
                    found: buffer.len(),
                }
                .into())
            }
        }
    }

    fn next_stored(&mut self, block: BlockId, page: u64) -> Result<Option<u64>, RamError> {
        let from = (block, page / CHUNK);
        let to = (block, u64::MAX);
        for ((_, number), chunk) in self.index.range(from..=to) {
            let start = number.saturating_mul(CHUNK);
            let skip = usize::try_from(page.saturating_sub(start)).unwrap_or(usize::MAX);
            let found = chunk
                .slots
                .iter()
                .enumerate()
                .skip(skip)
                .find(|(_, slot)| **slot != NONE);
            if let Some((place, _)) = found {
                return Ok(Some(start.saturating_add(place as u64)));
            }
        }
        Ok(None)
    }
}

fn within(page: u64) -> usize {
    usize::try_from(page % CHUNK).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: BlockId = BlockId(1);

    fn page(byte: u8) -> Vec<u8> {
        vec![byte; 4096]
    }

    #[test]
    fn holds_what_was_written() {
        let mut store = MemoryStore::new(PageSize::KIB4, 1 << 20);
        let mut buffer = page(0xee);
        assert!(!store.read(B, 7, &mut buffer).unwrap());
        assert_eq!(buffer, page(0xee));
        for (number, byte) in [(7, 1), (u64::MAX, 2), (7, 3)] {
            store.write(B, number, &page(byte)).unwrap();
        }
        assert!(store.read(B, 7, &mut buffer).unwrap());
        assert_eq!(buffer, page(3));
        assert!(store.read(B, u64::MAX, &mut buffer).unwrap());
        assert_eq!(buffer, page(2));
        assert!(!store.read(BlockId(0), 7, &mut buffer).unwrap());
        store.clear(B, 7).unwrap();
        store.clear(B, 8).unwrap();
        assert!(!store.read(B, 7, &mut buffer).unwrap());
        assert!(store.write(B, 7, &[0; 5]).is_err());
        assert!(store.read(B, u64::MAX, &mut [0; 5]).is_err());
    }

    #[test]
    fn walks_over_stored_pages() {
        let mut store = MemoryStore::new(PageSize::KIB4, 1 << 20);
        for number in [3, 511, 512, 5000] {
            store.write(B, number, &page(1)).unwrap();
        }
        store.write(BlockId(2), 6000, &page(1)).unwrap();
        store.clear(B, 512).unwrap();
        let mut seen = Vec::new();
        let mut next = 0;
        while let Some(number) = store.next_stored(B, next).unwrap() {
            seen.push(number);
            next = number + 1;
        }
        assert_eq!(seen, [3, 511, 5000]);
    }

    #[test]
    fn the_limit_holds_and_cleared_space_is_used_again() {
        let slab = 64 * 4096 + size_of::<Chunk>() as u64;
        let mut store = MemoryStore::new(PageSize::KIB4, slab);
        for number in 0..64 {
            store.write(B, number, &page(1)).unwrap();
        }
        assert_eq!(store.memory_used(), slab);
        assert_eq!(
            store.write(B, 64, &page(1)).unwrap_err().kind(),
            &RamErrorKind::MemoryLimit { limit: slab }
        );
        store.write(B, 5, &page(2)).unwrap();
        store.clear(B, 5).unwrap();
        store.write(B, 64, &page(3)).unwrap();
        assert!(store.write(B, 5, &page(1)).is_err());
        assert_eq!(store.memory_used(), slab);
    }
}
