//! A toy machine: two blocks of RAM, two described devices, a live device that is not RAM, and the section
//! `globalstate`.

use std::sync::{Arc, Mutex};

use vmstate_derive::VmState;
use vmstate_engine::{
    ANY_INSTANCE, Bql, Device, GlobalState, Identity, Machine, MachineError, RAM_VERSION,
    RamCounters, RamHandler, Registry, RunState, RunToken, StoppedGuest,
};
use vmstate_wire::stream::InstanceId;

use super::{Grinder, Mill, PAGE, TestLog, TestMemory};

/// A device of plain values.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "uart", version = 3, minimum_version = 2)]
pub(crate) struct Uart {
    pub(crate) divider: u16,
    #[vmstate(buffer)]
    pub(crate) fifo: [u8; 16],
}

/// A device with an optional part.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "tick", version = 1, minimum_version = 1)]
pub(crate) struct Tick {
    pub(crate) count: u64,
    #[vmstate(subsection)]
    pub(crate) alarm: Option<Alarm>,
}

/// `tick/alarm`
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "tick/alarm", version = 1, minimum_version = 1)]
pub(crate) struct Alarm {
    pub(crate) at: u64,
}

/// The machine, and its guest as long as it is here.
pub(crate) struct Toy {
    pub(crate) memory: Arc<TestMemory>,
    pub(crate) uart: Arc<Mutex<Uart>>,
    pub(crate) tick: Arc<Mutex<Tick>>,
    pub(crate) mill: Arc<Mutex<Mill>>,
    pub(crate) global: Arc<Mutex<GlobalState>>,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) counters: RamCounters,
    state: Mutex<(RunState, Option<RunToken>)>,
    pub(crate) throttled: Mutex<Vec<u8>>,
}

/// Pages of the block that a larger machine has beside the others.
pub(crate) const MORE: u64 = 160;

pub(crate) fn identity() -> Identity {
    Identity::new("toy")
}

impl Toy {
    /// With the right to run its guest, or waiting for one.
    pub(crate) fn new(guest: Option<RunToken>) -> Self {
        Self::of(guest, &[("toy.ram", 70), ("toy.rom", 3)])
    }

    /// One with more memory, which its guest does not write to.
    pub(crate) fn larger(guest: Option<RunToken>) -> Self {
        let toy = Self::of(
            guest,
            &[("toy.ram", 70), ("toy.rom", 3), ("toy.more", MORE)],
        );
        if toy.runs() {
            for (page, byte) in (0..MORE).zip((1..=251).cycle()) {
                toy.memory.fill(2, page, byte);
            }
        }
        toy
    }

    fn of(guest: Option<RunToken>, blocks: &[(&str, u64)]) -> Self {
        let memory = TestMemory::new(blocks);
        let ram = RamHandler::new(memory.clone(), Box::new(TestLog(memory.clone())));
        let counters = ram.counters();
        let (uart, tick) = (Arc::<Mutex<Uart>>::default(), Arc::<Mutex<Tick>>::default());
        let (mill, global) = (Mill::new(40), Arc::<Mutex<GlobalState>>::default());
        let mut registry = Registry::new();
        registry.register_device(Device::new(tick.clone())).unwrap();
        registry
            .register_savevm_live("ram", InstanceId(0), RAM_VERSION, Box::new(ram))
            .unwrap();
        registry
            .register_device(Device::new(uart.clone()).at_path("bus.0"))
            .unwrap();
        registry
            .register_savevm_live(
                "mill",
                ANY_INSTANCE,
                1,
                Box::new(Grinder::new(mill.clone())),
            )
            .unwrap();
        registry
            .register_device(Device::new(global.clone()))
            .unwrap();
        let state = match guest {
            Some(_) => RunState::Running,
            None => RunState::InMigrate,
        };
        Self {
            memory,
            uart,
            tick,
            mill,
            global,
            registry: Mutex::new(registry),
            counters,
            state: Mutex::new((state, guest)),
            throttled: Mutex::new(Vec::new()),
        }
    }

    /// Whether the guest runs here.
    pub(crate) fn runs(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.0.is_live() && state.1.is_some()
    }

    /// The guest does a little, if it runs here.
    pub(crate) fn step(&self) {
        if !self.runs() {
            return;
        }
        let mut tick = self.tick.lock().unwrap();
        tick.count += 1;
        let count = tick.count;
        if count.is_multiple_of(5) {
            tick.alarm = Some(Alarm { at: count + 5 });
        }
        self.uart.lock().unwrap().fifo[(count % 16) as usize] = (count & 0xff) as u8;
        self.mill
            .lock()
            .unwrap()
            .turn(usize::try_from(count).unwrap());
        let page = count.wrapping_mul(31) % 70;
        self.memory
            .write(0, page * PAGE + (count * 8) % 4000, &count.to_be_bytes());
    }

    /// Everything that the guest could see.
    pub(crate) fn content(&self) -> (Vec<Vec<u8>>, Uart, Tick, Vec<u8>) {
        (
            self.memory.content(),
            self.uart.lock().unwrap().clone(),
            self.tick.lock().unwrap().clone(),
            self.mill.lock().unwrap().state.clone(),
        )
    }
}

impl Machine for Toy {
    fn name(&self) -> &str {
        "toy"
    }

    fn run_state(&self) -> RunState {
        self.state.lock().unwrap().0
    }

    fn stop(&self, _bql: &Bql<'_>, to: RunState) -> Result<StoppedGuest, MachineError> {
        let mut state = self.state.lock().unwrap();
        let Some(token) = state.1.take() else {
            return Err(MachineError::new("stop the guest", "it is not here"));
        };
        let was = std::mem::replace(&mut state.0, to);
        self.global.lock().unwrap().set(was, false);
        Ok(StoppedGuest { was, token })
    }

    fn start(&self, _bql: &Bql<'_>, token: RunToken, to: RunState) {
        let mut state = self.state.lock().unwrap();
        assert!(state.1.replace(token).is_none(), "two rights for one guest");
        state.0 = to;
    }

    fn migrated(&self, _bql: &Bql<'_>) {
        let mut state = self.state.lock().unwrap();
        assert!(state.1.is_none(), "gave up a guest that it may run");
        state.0 = RunState::PostMigrate;
    }

    fn lost(&self) {
        *self.state.lock().unwrap() = (RunState::InternalError, None);
    }

    fn throttle(&self, percent: u8) {
        self.throttled.lock().unwrap().push(percent);
    }
}
