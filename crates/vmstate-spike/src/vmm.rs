//! The machine as a migrator takes it.

use std::sync::Arc;

use vmstate_engine::{Identity, RegistryError};
use vmstate_io::live::{MappedMemory, Vmm};
use vmstate_linux::GuestRam;
use vmstate_ram::BlockId;

use crate::board::MACHINE;
use crate::machine::Machine;
use crate::memory::Memory;

impl MappedMemory for Memory {
    fn mapping(&self, block: BlockId) -> Option<&GuestRam> {
        let blocks = self.blocks();
        let block = blocks.get(usize::try_from(block.0).ok()?).copied();
        block.map(|block| &block.ram)
    }
}

impl Machine {
    /// The machine for a [`Migrator`](vmstate_io::live::Migrator). `incoming` says that it waits for its guest, `autostart` that
    /// a guest that arrives running goes on at once.
    ///
    /// # Errors
    /// As [`Machine::registry`].
    pub fn vmm(self: &Arc<Self>, incoming: bool, autostart: bool) -> Result<Vmm, RegistryError> {
        let (registry, ram) = self.registry_with_counters()?;
        let arrived = Arc::clone(self);
        Ok(Vmm {
            machine: self.clone(),
            memory: self.memory().clone(),
            registry,
            ram,
            identity: Identity::new(MACHINE).with_arch("riscv64"),
            big_lock: Arc::default(),
            arrived: Box::new(move || arrived.global_state()),
            incoming,
            autostart,
        })
    }
}
