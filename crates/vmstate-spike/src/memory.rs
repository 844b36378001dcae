//! The board's memory: two blocks, each with its dirty log.

mod engine;

use std::io;

use vmstate_linux::{DirtyLog, GuestRam};

use crate::board::{PAGE, RAM_BASE, RAM_BLOCK, ROM_BASE, ROM_BLOCK, ROM_LEN};

pub use self::engine::Dirty;

/// A block of guest memory.
#[derive(Debug)]
pub struct Block {
    /// Name in a stream.
    pub idstr: &'static str,
    /// Guest physical address.
    pub address: u64,
    /// The memory.
    pub ram: GuestRam,
    /// What was written to it. Always on.
    pub log: DirtyLog,
}

impl Block {
    fn new(idstr: &'static str, address: u64, len: u64) -> io::Result<Self> {
        Ok(Self {
            idstr,
            address,
            ram: GuestRam::new(len)?,
            log: DirtyLog::new(len, PAGE),
        })
    }
}

/// All memory of a machine, in the order in which QEMU sends it.
#[derive(Debug)]
pub struct Memory {
    /// RAM.
    pub ram: Block,
    /// The boot ROM.
    pub rom: Block,
}

impl Memory {
    pub(crate) fn new(len: u64) -> io::Result<Self> {
        Ok(Self {
            ram: Block::new(RAM_BLOCK, RAM_BASE, len)?,
            rom: Block::new(ROM_BLOCK, ROM_BASE, ROM_LEN)?,
        })
    }

    /// The blocks; their places are their numbers for an engine.
    #[must_use]
    pub fn blocks(&self) -> [&Block; 2] {
        [&self.ram, &self.rom]
    }

    /// The block with this name.
    #[must_use]
    pub fn block(&self, idstr: &str) -> Option<&Block> {
        self.blocks().into_iter().find(|block| block.idstr == idstr)
    }
}
