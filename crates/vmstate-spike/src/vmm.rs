//! The machine as a migrator takes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstate::{DescriptionRef, Error, LoadState, SaveState};
use vmstate_engine::{
    Bql, DescribedDevice, Device, DirtyLog, DirtySink, GlobalState, GuestBlock, GuestMemory,
    Identity, MachineError, MemoryError, RAM_VERSION, RamHandler, Registry, RegistryError,
    RunState, RunToken, StoppedGuest,
};
use vmstate_io::live::{MappedMemory, Vmm};
use vmstate_linux::GuestRam;
use vmstate_ram::{BlockId, PageSize};
use vmstate_wire::stream::InstanceId;

use crate::board::MACHINE;
use crate::machine::Machine;
use crate::section::Section;

/// The migration's own section, written when the guest is stopped.
type Global = Arc<Mutex<GlobalState>>;

fn lock(global: &Global) -> MutexGuard<'_, GlobalState> {
    global.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine that writes down what it was doing when it is stopped.
struct Noted {
    machine: Arc<Machine>,
    global: Global,
}

impl vmstate_engine::Machine for Noted {
    fn name(&self) -> &str {
        MACHINE
    }

    fn run_state(&self) -> RunState {
        self.machine.run_state()
    }

    fn stop(&self, bql: &Bql<'_>, state: RunState) -> Result<StoppedGuest, MachineError> {
        let guest = vmstate_engine::Machine::stop(&*self.machine, bql, state)?;
        lock(&self.global).set(guest.was, false);
        Ok(guest)
    }

    fn start(&self, bql: &Bql<'_>, token: RunToken, state: RunState) {
        vmstate_engine::Machine::start(&*self.machine, bql, token, state);
    }

    fn migrated(&self, bql: &Bql<'_>) {
        vmstate_engine::Machine::migrated(&*self.machine, bql);
    }

    fn throttle(&self, percent: u8) {
        self.machine.throttle(percent);
    }
}

/// The machine's memory, kept by whoever uses it.
struct Board(Arc<Machine>);

impl GuestMemory for Board {
    fn page_size(&self) -> PageSize {
        self.0.memory().page_size()
    }

    fn blocks(&self) -> Vec<GuestBlock> {
        GuestMemory::blocks(self.0.memory())
    }

    fn used_length(&self, block: BlockId) -> u64 {
        self.0.memory().used_length(block)
    }

    fn is_zero(&self, block: BlockId, offset: u64, length: u64) -> bool {
        self.0.memory().is_zero(block, offset, length)
    }

    fn copy_out(&self, block: BlockId, offset: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        self.0.memory().copy_out(block, offset, out)
    }

    fn copy_in(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.0.memory().copy_in(block, offset, data)
    }

    fn zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        self.0.memory().zero(block, offset, length)
    }
}

impl MappedMemory for Board {
    fn mapping(&self, block: BlockId) -> Option<&GuestRam> {
        let blocks = self.0.memory().blocks();
        let block = blocks.get(usize::try_from(block.0).ok()?).copied();
        block.map(|block| &block.ram)
    }
}

impl DirtyLog for Board {
    fn start(&mut self) -> Result<(), MemoryError> {
        self.0.memory().dirty_log().start()
    }

    fn sync(&mut self, dirty: &mut DirtySink<'_>) -> Result<(), MemoryError> {
        self.0.memory().dirty_log().sync(dirty)
    }

    fn stop(&mut self) {
        self.0.memory().dirty_log().stop();
    }
}

impl DescribedDevice for Section {
    fn description(&self) -> DescriptionRef {
        self.description()
    }

    fn save(
        &self,
        _bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.save(visit)
    }

    fn load(
        &mut self,
        _bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        Section::load(self, visit)
    }
}

impl Machine {
    /// Everything that migrates of this machine, with QEMU's sections in QEMU's order, for a
    /// [`Migrator`](vmstate_io::live::Migrator). `incoming` says that it waits for its guest, `autostart` that a guest that arrives
    /// running goes on at once.
    ///
    /// # Errors
    /// If two sections had one name, which they have not.
    pub fn vmm(self: &Arc<Self>, incoming: bool, autostart: bool) -> Result<Vmm, RegistryError> {
        let global = Global::default();
        let memory = Arc::new(Board(Arc::clone(self)));
        let ram = RamHandler::new(memory.clone(), Box::new(Board(Arc::clone(self))));
        let counters = ram.counters();
        let mut registry = Registry::new();
        registry.register_savevm_live("ram", InstanceId(0), RAM_VERSION, Box::new(ram))?;
        for section in self.sections() {
            let instance = InstanceId(section.instance_id());
            registry.register_device(Device::new(section).instance(instance))?;
        }
        registry.register_device(Device::new(Arc::clone(&global)).instance(InstanceId(0)))?;
        let machine = Noted {
            machine: Arc::clone(self),
            global: Arc::clone(&global),
        };
        Ok(Vmm {
            machine: Arc::new(machine),
            memory,
            registry,
            ram: counters,
            identity: Identity::new(MACHINE),
            big_lock: Arc::default(),
            arrived: Box::new(move || lock(&global).run_state()),
            incoming,
            autostart,
        })
    }
}
