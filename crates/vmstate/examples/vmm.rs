//! A machine of one's own that migrates: guest RAM, two devices, a guest that runs, and nothing but this crate.
//!
//! The "guest" is a thread that counts in its memory. A real one would be a vCPU, and [`Memory`] the VMM's own.

#![expect(
    clippy::unwrap_used,
    reason = "a lock is poisoned only after another panic"
)]

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use vmstate::VmState;
use vmstate::engine::{
    Bql, Device, GlobalState, Identity, Machine, MachineError, RAM_VERSION, RamHandler, Registry,
    RunState, RunToken, StoppedGuest,
};
use vmstate::live::{Block, Deadlines, Memory, MigrationAddress, MigrationEvent, Migrator, Vmm};
use vmstate::ram::{BlockName, PageSize};
use vmstate::wire::stream::InstanceId;

/// A device: what the derive makes of it is QEMU's bytes.
#[derive(Debug, Default, VmState)]
#[vmstate(name = "tiny-timer", version = 1)]
struct Timer {
    ticks: u64,
    armed: bool,
}

/// Another one, with a queue.
#[derive(Debug, Default, VmState)]
#[vmstate(name = "tiny-console", version = 1)]
struct Console {
    length: u8,
    #[vmstate(count = length, max = 16)]
    waiting: Vec<u8>,
}

struct Board {
    ram: Block,
    timer: Arc<Mutex<Timer>>,
    /// Tells the destination whether the guest ran.
    global: Arc<Mutex<GlobalState>>,
    state: Mutex<(RunState, Option<RunToken>)>,
    halt: Arc<AtomicBool>,
    guest: Mutex<Option<JoinHandle<()>>>,
}

impl Board {
    fn run(&self) {
        self.halt.store(false, Ordering::Relaxed);
        let (halt, ram, timer) = (self.halt.clone(), self.ram.clone(), self.timer.clone());
        *self.guest.lock().unwrap() = Some(std::thread::spawn(move || {
            while !halt.load(Ordering::Relaxed) {
                let mut timer = timer.lock().unwrap();
                timer.ticks += 1;
                let offset = timer.ticks % 256 * 4096;
                ram.ram.store(offset, timer.ticks);
                // After each store: what a migration sends again.
                ram.marks.mark(offset);
                drop(timer);
                std::thread::sleep(Duration::from_micros(100));
            }
        }));
    }
}

/// What a migration asks of a VMM.
impl Machine for Board {
    fn name(&self) -> &str {
        "tiny"
    }

    fn run_state(&self) -> RunState {
        self.state.lock().unwrap().0
    }

    fn stop(&self, _: &Bql<'_>, state: RunState) -> Result<StoppedGuest, MachineError> {
        self.halt.store(true, Ordering::Relaxed);
        if let Some(guest) = self.guest.lock().unwrap().take() {
            guest
                .join()
                .map_err(|_| MachineError::new("stop the guest", "it panicked"))?;
        }
        let mut now = self.state.lock().unwrap();
        let none = || MachineError::new("stop the guest", "it is not here");
        let token = now.1.take().ok_or_else(none)?;
        let was = std::mem::replace(&mut now.0, state);
        self.global.lock().unwrap().set(was, false);
        Ok(StoppedGuest { was, token })
    }

    fn start(&self, _: &Bql<'_>, token: RunToken, state: RunState) {
        *self.state.lock().unwrap() = (state, Some(token));
        if state.is_live() {
            self.run();
        }
    }

    fn migrated(&self, _: &Bql<'_>) {
        self.state.lock().unwrap().0 = RunState::PostMigrate;
    }

    fn lost(&self) {
        self.halt.store(true, Ordering::Relaxed);
        *self.state.lock().unwrap() = (RunState::InternalError, None);
    }

    fn throttle(&self, _percent: u8) {}
}

type Tiny = (
    Arc<Board>,
    Arc<Mutex<Console>>,
    Migrator,
    Receiver<MigrationEvent>,
);

fn tiny(incoming: bool) -> Result<Tiny, Box<dyn Error>> {
    let mut memory = Memory::new(PageSize::KIB4);
    let ram = memory.add(BlockName::new(b"tiny.ram")?, 16 << 20)?;
    let memory = Arc::new(memory);
    let (timer, console) = (Arc::default(), Arc::<Mutex<Console>>::default());
    let global = Arc::<Mutex<GlobalState>>::default();

    let mut registry = Registry::new();
    let handler = RamHandler::new(memory.clone(), Box::new(memory.dirty_log()));
    let counters = handler.counters();
    registry.register_savevm_live("ram", InstanceId(0), RAM_VERSION, Box::new(handler))?;
    registry.register_device(Device::new(Arc::clone(&timer)))?;
    registry.register_device(Device::new(console.clone()).at_path("slot.1"))?;
    registry.register_device(Device::new(global.clone()))?;

    let state = match incoming {
        true => (RunState::InMigrate, None),
        false => (RunState::Paused, Some(RunToken::new_guest())),
    };
    let board = Arc::new(Board {
        ram,
        timer,
        global: global.clone(),
        state: Mutex::new(state),
        halt: Arc::default(),
        guest: Mutex::default(),
    });
    let vmm = Vmm {
        machine: board.clone(),
        memory,
        registry,
        ram: counters,
        identity: Identity::new("tiny"),
        big_lock: Arc::default(),
        arrived: Box::new(move || global.lock().unwrap().run_state()),
        incoming,
        autostart: true,
    };
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let migrator = Migrator::new(vmm, Deadlines::default(), move |event| {
        let _ = sender.lock().unwrap().send(event.clone());
    })?;
    Ok((board, console, migrator, events))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (source, console, out, departures) = tiny(false)?;
    let (destination, arrived_console, back, arrivals) = tiny(true)?;
    *console.lock().unwrap() = Console {
        length: 2,
        waiting: b"hi".to_vec(),
    };
    source.state.lock().unwrap().0 = RunState::Running;
    source.run();
    std::thread::sleep(Duration::from_millis(50));

    let dir = tempfile::tempdir()?;
    let place = MigrationAddress::unix(dir.path().join("s").display().to_string());
    back.incoming(&place)?;
    out.migrate(place)?;
    let failure = arrivals.iter().find_map(|event| match event {
        MigrationEvent::Arrived(failure) => Some(failure),
        _ => None,
    });
    assert_eq!(failure, Some(None), "{:?}", out.info());
    departures
        .iter()
        .find(|event| matches!(event, MigrationEvent::Departed(_)));

    let left = source.timer.lock().unwrap().ticks;
    std::thread::sleep(Duration::from_millis(50));
    let now = destination.timer.lock().unwrap().ticks;
    assert!(now > left && source.run_state() == RunState::PostMigrate);
    assert_eq!(arrived_console.lock().unwrap().waiting, b"hi");
    println!(
        "the guest left after {left} ticks and is at {now}: {:?}",
        out.info().downtime
    );
    destination.stop(&Bql::holding(()), RunState::Paused)?;
    Ok(())
}

#[test]
fn it_migrates() {
    main().unwrap();
}
