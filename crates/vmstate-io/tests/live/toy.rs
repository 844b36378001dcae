//! A machine of two blocks and one device, whose guest counts in its memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmstate_derive::VmState;
use vmstate_desc::{DescriptionRef, Error, LoadState, Reason, SaveState, VmState as _};
use vmstate_engine::{
    Bql, DescribedDevice, Device, GlobalState, Identity, Machine, MachineError, MigrationStatus,
    RAM_VERSION, RamHandler, Registry, RunState, RunToken, StoppedGuest,
};
use vmstate_io::live::{Block, Deadlines, Memory, MigrationEvent, Migrator, Vmm};
use vmstate_linux::GuestRam;
use vmstate_ram::{BlockName, PageSize};
use vmstate_wire::stream::InstanceId;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pages that the guest writes, round and round.
const RING: u64 = 512;

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "counter", version = 1)]
pub(crate) struct Counter {
    pub(crate) count: u64,
    pub(crate) label: u32,
}

/// How many guests run now, over all machines of one test.
#[derive(Debug, Default)]
pub(crate) struct Census {
    running: AtomicU64,
    most: AtomicU64,
}

impl Census {
    fn begins(&self) {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn ends(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn running(&self) -> u64 {
        self.running.load(Ordering::SeqCst)
    }

    /// The most that ever ran at once.
    pub(crate) fn most(&self) -> u64 {
        self.most.load(Ordering::SeqCst)
    }
}

pub(crate) struct Board {
    ram: Block,
    device: Arc<Mutex<Counter>>,
    global: Arc<Mutex<GlobalState>>,
    census: Arc<Census>,
    state: Mutex<(RunState, Option<RunToken>)>,
    guest: Mutex<Option<JoinHandle<()>>>,
    stop: Arc<AtomicBool>,
    pub(crate) throttled: AtomicU64,
}

impl Board {
    fn run(&self) {
        let (ram, device) = (self.ram.clone(), Arc::clone(&self.device));
        let stop = Arc::clone(&self.stop);
        stop.store(false, Ordering::SeqCst);
        self.census.begins();
        let guest = std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let mut device = device.lock().unwrap();
                for _ in 0..8 {
                    let offset = (device.count + 1) % RING * 4096;
                    let old = ram.ram.load::<u64>(offset).unwrap();
                    if stop.load(Ordering::SeqCst) {
                        // A guest that is lost does not look at what it has got.
                        break;
                    }
                    device.count += 1;
                    // What was written a round ago must still be there.
                    let expected = device.count.saturating_sub(RING);
                    assert!(old == expected, "page {offset:#x}: {old}, not {expected}");
                    ram.ram.store(offset, device.count);
                    ram.marks.mark(offset);
                }
                drop(device);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        *self.guest.lock().unwrap() = Some(guest);
    }

    /// The memory that the guest writes.
    pub(crate) fn memory(&self) -> &GuestRam {
        &self.ram.ram
    }

    /// Writes pages that the guest does not.
    pub(crate) fn fill(&self, pages: u64) {
        for page in RING..RING + pages {
            self.ram.ram.store(page * 4096, page);
            self.ram.marks.mark(page * 4096);
        }
    }

    /// Finds them.
    pub(crate) fn check(&self, pages: u64) {
        for page in RING..RING + pages {
            assert_eq!(self.ram.ram.load(page * 4096), Some(page));
        }
    }

    /// What the pages that the guest writes hold, in one number. Waits for those that have not come.
    fn sum(&self) -> u64 {
        let pages = 0..RING;
        let values = pages.map(|page| self.ram.ram.load::<u64>(page * 4096).unwrap());
        values.fold(0, |sum, value| sum.wrapping_mul(31).wrapping_add(value))
    }

    /// Whether the guest's thread has come to its end.
    pub(crate) fn is_still(&self) -> bool {
        let guest = self.guest.lock().unwrap();
        guest.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn halt(&self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(guest) = self.guest.lock().unwrap().take() {
            guest.join().expect("the guest is well");
            self.census.ends();
        }
    }
}

impl Machine for Board {
    fn name(&self) -> &str {
        "toy"
    }

    fn run_state(&self) -> RunState {
        self.state.lock().unwrap().0
    }

    fn stop(&self, _bql: &Bql<'_>, state: RunState) -> Result<StoppedGuest, MachineError> {
        self.halt();
        let mut now = self.state.lock().unwrap();
        let Some(token) = now.1.take() else {
            return Err(MachineError::new("stop the guest", "it is not here"));
        };
        let was = std::mem::replace(&mut now.0, state);
        self.global.lock().unwrap().set(was, false);
        Ok(StoppedGuest { was, token })
    }

    fn start(&self, _bql: &Bql<'_>, token: RunToken, state: RunState) {
        let mut now = self.state.lock().unwrap();
        *now = (state, Some(token));
        drop(now);
        if state.is_live() {
            self.run();
        }
    }

    fn migrated(&self, _bql: &Bql<'_>) {
        self.state.lock().unwrap().0 = RunState::PostMigrate;
    }

    fn lost(&self) {
        self.stop.store(true, Ordering::SeqCst);
        *self.state.lock().unwrap() = (RunState::InternalError, None);
    }

    fn throttle(&self, percent: u8) {
        self.throttled.store(percent.into(), Ordering::SeqCst);
    }
}

/// A device that looks at guest memory while it is being loaded, as one does whose rings are there.
pub(crate) struct Looker(pub(crate) Arc<Board>);

#[derive(Debug, Default, VmState)]
#[vmstate(name = "looker", version = 1)]
struct Seen {
    sum: u64,
}

impl DescribedDevice for Looker {
    fn description(&self) -> DescriptionRef {
        DescriptionRef::Static(Seen::DESCRIPTION)
    }

    fn save(
        &self,
        _bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        visit(&Seen { sum: self.0.sum() })
    }

    fn load(
        &mut self,
        _bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut seen = Seen::default();
        visit(&mut seen)?;
        match self.0.sum() {
            sum if sum == seen.sum => Ok(()),
            _ => Err(Error::refused(
                "post_load",
                Reason::new("the rings are torn"),
            )),
        }
    }
}

/// A machine and what moves it.
pub(crate) struct Toy {
    pub(crate) board: Arc<Board>,
    pub(crate) migrator: Migrator,
    pub(crate) events: Receiver<MigrationEvent>,
    seen: Mutex<Vec<MigrationEvent>>,
}

impl Toy {
    pub(crate) fn new(incoming: bool, census: &Arc<Census>) -> Self {
        Self::with(incoming, census, Deadlines::default(), 16 << 20)
    }

    pub(crate) fn with(
        incoming: bool,
        census: &Arc<Census>,
        deadlines: Deadlines,
        ram: u64,
    ) -> Self {
        let mut memory = Memory::new(PageSize::KIB4);
        let ram = memory
            .add(BlockName::new(b"toy.ram").unwrap(), ram)
            .unwrap();
        memory
            .add(BlockName::new(b"toy.rom").unwrap(), 8192)
            .unwrap();
        let memory = Arc::new(memory);
        let device = Arc::new(Mutex::new(Counter::default()));
        let global = Arc::new(Mutex::new(GlobalState::default()));
        let mut registry = Registry::new();
        let handler = RamHandler::new(memory.clone(), Box::new(memory.dirty_log()));
        let counters = handler.counters();
        registry
            .register_savevm_live("ram", InstanceId(0), RAM_VERSION, Box::new(handler))
            .unwrap();
        registry
            .register_device(Device::new(Arc::clone(&device)))
            .unwrap();
        registry
            .register_device(Device::new(Arc::clone(&global)))
            .unwrap();
        let (state, token) = match incoming {
            true => (RunState::InMigrate, None),
            false => (RunState::Paused, Some(RunToken::new_guest())),
        };
        let board = Arc::new(Board {
            ram,
            device,
            global: Arc::clone(&global),
            census: Arc::clone(census),
            state: Mutex::new((state, token)),
            guest: Mutex::new(None),
            stop: Arc::default(),
            throttled: AtomicU64::new(0),
        });
        let vmm = Vmm {
            machine: board.clone(),
            memory,
            registry,
            ram: counters,
            identity: Identity::new("toy"),
            big_lock: Arc::default(),
            arrived: Box::new(move || global.lock().unwrap().run_state()),
            incoming,
            autostart: true,
        };
        let (sender, events) = channel();
        let observer = Mutex::new(sender);
        let migrator = Migrator::new(vmm, deadlines, move |event| {
            // The test may be over.
            let _ = observer.lock().unwrap().send(event.clone());
        })
        .unwrap();
        Self {
            board,
            migrator,
            events,
            seen: Mutex::new(Vec::new()),
        }
    }

    /// Lets the guest run, which must be here and stopped.
    pub(crate) fn boot(&self) {
        let mut state = self.board.state.lock().unwrap();
        state.0 = RunState::Running;
        drop(state);
        self.board.run();
    }

    pub(crate) fn count(&self) -> u64 {
        self.board.device.lock().unwrap().count
    }

    /// Waits for an event that `is` knows, and returns it.
    pub(crate) fn wait(&self, is: impl Fn(&MigrationEvent) -> bool) -> MigrationEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| {
                panic!("no such event; {:?} {:?}", self.seen, self.migrator.info())
            });
            self.seen.lock().unwrap().push(event.clone());
            if is(&event) {
                return event;
            }
        }
    }

    /// Waits for the end of the outgoing migration.
    pub(crate) fn departed(&self) -> MigrationStatus {
        match self.wait(|event| matches!(event, MigrationEvent::Departed(_))) {
            MigrationEvent::Departed(status) => status,
            _ => unreachable!(),
        }
    }

    /// Waits for the end of the incoming one.
    pub(crate) fn arrived(&self) -> Option<String> {
        match self.wait(|event| matches!(event, MigrationEvent::Arrived(_))) {
            MigrationEvent::Arrived(failure) => failure,
            _ => unreachable!(),
        }
    }

    /// All statuses of the last migration.
    pub(crate) fn statuses(&self) -> Vec<MigrationStatus> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let status = |event: &MigrationEvent| match event {
            MigrationEvent::Source(status) | MigrationEvent::Destination(status) => Some(*status),
            _ => None,
        };
        seen.iter().filter_map(status).collect()
    }

    /// Waits until the guest has gone on by so many steps.
    pub(crate) fn goes_on(&self, steps: u64) {
        let (from, deadline) = (self.count(), Instant::now() + PATIENCE);
        while self.count() < from + steps {
            assert!(Instant::now() < deadline, "the guest does not go on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.board.halt();
    }
}
