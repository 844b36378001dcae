//! Pages by their places in files.

use std::collections::BTreeMap;
use std::sync::Arc;

use vmstate_linux::MappedFile;
use vmstate_ram::{BlockId, MemoryStore, PageSize, PageStore, RamError, RamErrorKind};

/// Places per chunk of the index.
const CHUNK: u64 = 512;
/// Bits of a place that are an offset; the file's number stands above them.
const OFFSET_BITS: u32 = 56;
/// How many bytes are read before the memory of what was read is given back.
const FORGET: u64 = 64 << 20;

/// Content of guest RAM. A page that stands in a file as it is costs eight bytes, whatever its size; all others are kept in memory.
#[derive(Debug)]
pub(super) struct PlacedStore {
    memory: MemoryStore,
    files: Vec<Arc<MappedFile>>,
    /// By block and page number: 0, or one more than file number and offset.
    places: BTreeMap<(BlockId, u64), Box<[u64]>>,
    page_size: PageSize,
    /// Bytes that the index may take.
    limit: u64,
    /// Bytes that were read from files since memory was given back.
    read: u64,
}

/// A file that pages may stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileNumber(u64);

impl PlacedStore {
    /// A store that takes up to `limit` bytes of memory for pages, and as many for the index.
    pub(super) fn new(page_size: PageSize, limit: u64) -> Self {
        Self {
            memory: MemoryStore::new(page_size, limit),
            files: Vec::new(),
            places: BTreeMap::new(),
            page_size,
            limit,
            read: 0,
        }
    }

    /// Makes a file known. Files beyond a number that no migration reaches are not.
    pub(super) fn add_file(&mut self, file: Arc<MappedFile>) -> Option<FileNumber> {
        let number = self.files.len() as u64;
        if number >= 255 {
            return None;
        }
        self.files.push(file);
        Some(FileNumber(number))
    }

    /// A page's content is that at `offset` of a file.
    pub(super) fn place(
        &mut self,
        block: BlockId,
        block_offset: u64,
        file: FileNumber,
        offset: u64,
    ) -> Result<(), RamError> {
        let page = block_offset / self.page_size.bytes();
        self.memory.clear(block, page)?;
        let key = (block, page / CHUNK);
        if !self.places.contains_key(&key) {
            let taken = (self.places.len() as u64 + 1) * CHUNK * 8;
            if taken > self.limit {
                return Err(RamErrorKind::MemoryLimit { limit: self.limit }.into());
            }
            self.places.insert(key, vec![0; within(CHUNK)].into());
        }
        if let Some(place) = self.slot(block, page) {
            *place = (file.0 << OFFSET_BITS | offset) + 1;
        }
        Ok(())
    }

    fn slot(&mut self, block: BlockId, page: u64) -> Option<&mut u64> {
        let chunk = self.places.get_mut(&(block, page / CHUNK))?;
        chunk.get_mut(within(page % CHUNK))
    }

    fn forget(&mut self, block: BlockId, page: u64) {
        if let Some(place) = self.slot(block, page) {
            *place = 0;
        }
    }
}

impl PageStore for PlacedStore {
    type Error = RamError;

    fn write(&mut self, block: BlockId, page: u64, content: &[u8]) -> Result<(), RamError> {
        self.forget(block, page);
        self.memory.write(block, page, content)
    }

    fn clear(&mut self, block: BlockId, page: u64) -> Result<(), RamError> {
        self.forget(block, page);
        self.memory.clear(block, page)
    }

    fn read(&mut self, block: BlockId, page: u64, buffer: &mut [u8]) -> Result<bool, RamError> {
        let place = self.slot(block, page).map_or(0, |place| *place);
        let Some(place) = place.checked_sub(1) else {
            return self.memory.read(block, page, buffer);
        };
        let offset = place & ((1 << OFFSET_BITS) - 1);
        let file = self.files.get(within(place >> OFFSET_BITS));
        let have = file.map_or(0, |file| file.read_at(offset, buffer));
        self.read += have as u64;
        if self.read > FORGET {
            self.read = 0;
            for file in &self.files {
                file.forget_up_to(file.len() as u64);
            }
        }
        if have < buffer.len() {
            let needed = buffer.len();
            return Err(RamErrorKind::Truncated { needed, have }.into());
        }
        Ok(true)
    }

    fn next_stored(&mut self, block: BlockId, page: u64) -> Result<Option<u64>, RamError> {
        let in_memory = self.memory.next_stored(block, page)?;
        let range = (block, page / CHUNK)..=(block, u64::MAX);
        let placed = self.places.range(range).find_map(|((_, number), chunk)| {
            let start = number * CHUNK;
            let skip = within(page.saturating_sub(start));
            let mut places = chunk.iter().enumerate().skip(skip);
            let (at, _) = places.find(|(_, place)| **place != 0)?;
            Some(start + at as u64)
        });
        Ok(match (in_memory, placed) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        })
    }
}

fn within(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_word_on_a_page_holds() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 4096]).unwrap();
        file.write_all(&[2; 4096]).unwrap();
        let map = Arc::new(MappedFile::new(&file).unwrap());
        let mut store = PlacedStore::new(PageSize::KIB4, 1 << 20);
        let number = store.add_file(map).unwrap();
        let block = BlockId(3);
        let mut page = [0; 4096];
        let mut read = |store: &mut PlacedStore, n: u64| {
            store.read(block, n, &mut page).unwrap().then_some(page[0])
        };

        store.place(block, 7 << 12, number, 4096).unwrap();
        store.place(block, 9000 << 12, number, 0).unwrap();
        assert_eq!(store.next_stored(block, 0).unwrap(), Some(7));
        assert_eq!(store.next_stored(block, 8).unwrap(), Some(9000));
        assert_eq!(store.next_stored(block, 9001).unwrap(), None);
        assert_eq!(store.next_stored(BlockId(2), 0).unwrap(), None);
        assert_eq!(
            (read(&mut store, 7), read(&mut store, 9000)),
            (Some(2), Some(1))
        );

        store.write(block, 7, &[5; 4096]).unwrap();
        assert_eq!(read(&mut store, 7), Some(5));
        store.place(block, 7 << 12, number, 0).unwrap();
        assert_eq!(read(&mut store, 7), Some(1));
        store.clear(block, 7).unwrap();
        assert_eq!(read(&mut store, 7), None);
        assert_eq!(store.next_stored(block, 0).unwrap(), Some(9000));
    }

    #[test]
    fn the_index_is_bounded_and_files_may_shrink() {
        let map = Arc::new(MappedFile::new(&tempfile::tempfile().unwrap()).unwrap());
        let mut store = PlacedStore::new(PageSize::KIB4, 8192);
        let number = store.add_file(map).unwrap();
        for chunk in 0..2 {
            store.place(BlockId(0), chunk << 21, number, 0).unwrap();
        }
        assert!(store.place(BlockId(0), 2 << 21, number, 0).is_err());
        assert!(store.read(BlockId(0), 0, &mut [0; 4096]).is_err());
    }
}
