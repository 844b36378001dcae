//! Guest memory over anonymous mappings, for the engine.

use std::io;
use std::sync::Arc;

use vmstate_engine::{DirtyLog, DirtySink, GuestBlock, GuestMemory, MemoryError};
use vmstate_linux::{DirtyLog as Marks, GuestRam, OutOfBounds};
use vmstate_ram::{BlockId, BlockName, PageSize};

/// Guest memory that channels can send from and receive into directly.
pub trait MappedMemory: GuestMemory {
    /// The mapping behind a block; none if there is no such block.
    fn mapping(&self, block: BlockId) -> Option<&GuestRam>;
}

/// One block: memory, and the record of what the guest writes.
#[derive(Debug, Clone)]
pub struct Block {
    /// Name, length and place.
    pub description: GuestBlock,
    /// The memory.
    pub ram: Arc<GuestRam>,
    /// What the guest has written. Harts mark it after each store.
    pub marks: Arc<Marks>,
}

/// The blocks of a machine's guest memory, in the order in which they migrate.
///
/// ```
/// use vmstate_engine::GuestMemory as _;
/// use vmstate_io::live::Memory;
/// use vmstate_ram::{BlockId, BlockName, PageSize};
///
/// let mut memory = Memory::new(PageSize::KIB4);
/// let block = memory.add(BlockName::new(b"board.ram")?, 16 << 20)?;
/// block.ram.store(0x1000, 7_u64);
/// block.marks.mark(0x1000);
/// assert!(!memory.is_zero(BlockId(0), 0x1000, 4096));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Memory {
    page_size: PageSize,
    blocks: Vec<Block>,
}

impl Memory {
    /// No blocks, with this target page size.
    #[must_use]
    pub const fn new(page_size: PageSize) -> Self {
        Self {
            page_size,
            blocks: Vec::new(),
        }
    }

    /// Maps a block of `length` bytes, all zero, and adds it.
    ///
    /// # Errors
    /// If the length is 0, no multiple of the host's page size, or more than the address space holds.
    pub fn add(&mut self, idstr: BlockName, length: u64) -> io::Result<Block> {
        let block = Block {
            description: GuestBlock::new(idstr, length),
            ram: Arc::new(GuestRam::new(length)?),
            marks: Arc::new(Marks::new(length, self.page_size.bytes())),
        };
        self.push(block.clone());
        Ok(block)
    }

    /// Adds a block that exists already.
    pub fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }

    /// The block of this number.
    #[must_use]
    pub fn block(&self, block: BlockId) -> Option<&Block> {
        self.blocks.get(usize::try_from(block.0).ok()?)
    }

    /// A dirty log of all blocks, for one migration at a time.
    #[must_use]
    pub fn dirty_log(&self) -> MarkedLog {
        MarkedLog {
            marks: self.blocks.iter().map(|b| Arc::clone(&b.marks)).collect(),
        }
    }

    fn ram(&self, block: BlockId, offset: u64, length: u64) -> Result<&GuestRam, MemoryError> {
        match self.block(block) {
            Some(block) => Ok(&block.ram),
            None => Err(MemoryError::OutOfRange {
                block: block.0,
                offset,
                length,
            }),
        }
    }
}

fn outside(block: BlockId) -> impl Fn(OutOfBounds) -> MemoryError {
    move |error| MemoryError::OutOfRange {
        block: block.0,
        offset: error.offset,
        length: error.len,
    }
}

impl GuestMemory for Memory {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn blocks(&self) -> Vec<GuestBlock> {
        self.blocks.iter().map(|b| b.description.clone()).collect()
    }

    fn used_length(&self, block: BlockId) -> u64 {
        self.block(block).map_or(0, |b| b.description.used_length)
    }

    fn is_zero(&self, block: BlockId, offset: u64, length: u64) -> bool {
        self.block(block)
            .is_some_and(|b| b.ram.is_zero(offset, length).unwrap_or(false))
    }

    fn copy_out(&self, block: BlockId, offset: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let ram = self.ram(block, offset, out.len() as u64)?;
        ram.read(offset, out).map_err(outside(block))
    }

    fn copy_in(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        let ram = self.ram(block, offset, data.len() as u64)?;
        ram.write(offset, data).map_err(outside(block))
    }

    fn zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        let ram = self.ram(block, offset, length)?;
        // Reading an untouched page takes no memory, writing it does.
        if ram.is_zero(offset, length).map_err(outside(block))? {
            return Ok(());
        }
        ram.fill(offset, length, 0).map_err(outside(block))
    }
}

impl MappedMemory for Memory {
    fn mapping(&self, block: BlockId) -> Option<&GuestRam> {
        self.block(block).map(|block| &*block.ram)
    }
}

/// The marks of all blocks of a [`Memory`].
#[derive(Debug)]
pub struct MarkedLog {
    marks: Vec<Arc<Marks>>,
}

impl DirtyLog for MarkedLog {
    fn start(&mut self) -> Result<(), MemoryError> {
        // Harts mark at all times. What was marked before means nothing: every page counts as dirty at first.
        for marks in &self.marks {
            marks.collect(|_, _| ());
        }
        Ok(())
    }

    fn sync(&mut self, dirty: &mut DirtySink<'_>) -> Result<(), MemoryError> {
        for (number, marks) in (0..).zip(&self.marks) {
            marks.collect(|word, bits| dirty.words(BlockId(number), word as u64, &[bits]));
        }
        Ok(())
    }

    fn stop(&mut self) {}
}
