//! The machine: memory, devices, and a thread for each hart.

mod control;
mod engine;
mod settings;

use std::io::Write;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use vmstate_engine::{GlobalState, RunState};

use crate::clint::Clint;
use crate::clock::Clock;
use crate::error::{GuestError, SpikeError};
use crate::hart::{Hart, Line, Resting};
use crate::htif::Htif;
use crate::memory::Memory;
use crate::recorder::Recorder;
use crate::section::Section;

use self::control::Control;
pub use self::control::{Event, Occurrence};
pub use self::settings::Config;

/// A board with its guest.
///
/// It is made stopped: with a guest in memory ([`Config::program`]), or empty, waiting for a guest that migrates to it
/// ([`Config::incoming`]). Dropping it ends its threads.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) memory: Arc<Memory>,
    pub(crate) clint: Clint,
    pub(crate) htif: Htif,
    pub(crate) clock: Clock,
    /// One for each hart; behind them, one for the recorder.
    lines: Box<[Line]>,
    recorder: Option<Arc<Recorder>>,
    global: Arc<Mutex<GlobalState>>,
    /// A hart's thread has its own while it runs.
    resting: Box<[Mutex<Resting>]>,
    throttle: AtomicU8,
    /// What is added to the clock to give the ticks of the section `timer`.
    tick_offset: AtomicI64,
    control: Control,
}

impl Shared {
    pub(crate) fn harts(&self) -> usize {
        self.resting.len()
    }

    /// The line to a hart that there is.
    pub(crate) fn line(&self, hart: usize) -> &Line {
        &self.lines[hart]
    }

    /// Tells a hart to look at its interrupts, if there is such a hart.
    pub(crate) fn wake(&self, hart: usize) {
        if let Some(line) = self.lines.get(hart) {
            line.look();
        }
    }

    pub(crate) fn throttle(&self) -> u8 {
        self.throttle.load(Ordering::Relaxed)
    }

    /// The guest ends its machine.
    pub(crate) fn guest_exit(&self, status: u64) {
        self.control
            .end(&self.lines, RunState::Shutdown, &Event::Shutdown { status });
    }

    /// The state of a hart; waits while it runs.
    pub(crate) fn resting(&self, hart: usize) -> MutexGuard<'_, Resting> {
        self.resting[hart]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ticks of the section `timer` at a time of the clock.
    pub(crate) fn ticks(&self, now: i64) -> i64 {
        now.wrapping_add(self.tick_offset.load(Ordering::Relaxed))
    }

    pub(crate) fn set_ticks(&self, ticks: i64, now: i64) {
        self.tick_offset
            .store(ticks.wrapping_sub(now), Ordering::Relaxed);
    }
}

/// What a hart's thread does.
fn hart(shared: &Shared, index: usize) {
    shared
        .line(index)
        .set_thread(vmstate_linux::thread_number());
    let mut hart = Hart::new(shared, index);
    live(shared, || {
        let result = hart.run(&mut shared.resting(index));
        if let Err(error) = result {
            shared.control.end(
                &shared.lines,
                RunState::InternalError,
                &Event::GuestFailed { error },
            );
        }
    });
}

/// What the recorder's thread does.
fn record(shared: &Shared, recorder: &Recorder) {
    live(shared, || {
        let clock = shared.clock.view();
        recorder.run(shared.line(shared.harts()), || clock.now());
    });
}

/// Runs whenever the machine is started, until it is told to stop.
fn live(shared: &Shared, mut run: impl FnMut()) {
    let mut seen = 0;
    while let Some(start) = shared.control.wait_for_start(seen) {
        seen = start;
        let _parked = Parked(shared);
        run();
    }
}

/// Says that a thread stands still, however its work has ended: nobody shall wait for one that is gone.
struct Parked<'a>(&'a Shared);

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        let Self(shared) = self;
        if thread::panicking() {
            shared.control.lose(&shared.lines);
        }
        shared.control.parked(|| shared.clock.stop());
    }
}

impl Machine {
    /// Makes a stopped machine.
    ///
    /// # Errors
    /// What is wrong with the configuration or its program, or what the host does not have.
    pub fn new(config: Config<'_>) -> Result<Self, SpikeError> {
        let harts = config.checked_harts()?;
        let ram = config.checked_ram()?;
        let host = |what| move |source| SpikeError::Host { what, source };
        let memory = Memory::new(ram).map_err(host("memory for the guest"))?;
        if config.prealloc {
            memory
                .ram
                .ram
                .populate(0, ram)
                .map_err(host("memory for the guest"))?;
        }
        let mut htif = config.htif.unwrap_or_default();
        if let Some(program) = &config.program {
            program.load(&memory)?;
            if config.htif.is_none() {
                htif = program.htif();
            }
        }
        let incoming = config.incoming;
        if !incoming {
            let entry = config.program.as_ref().map(super::Program::entry);
            let rom = crate::rom::reset_vector(entry.unwrap_or(crate::board::RAM_BASE), ram);
            // It fits: the ROM is longer.
            _ = memory.rom.ram.write(0, &rom);
            memory.rom.log.mark_range(0, rom.len() as u64);
        }
        let count = harts as usize;
        let console: Box<dyn Write + Send> =
            config.console.unwrap_or_else(|| Box::new(std::io::sink()));
        let recorder = config.recorder.map(Recorder::new).transpose();
        let recorder = recorder
            .map_err(host("memory for the recorder"))?
            .map(Arc::new);
        let workers = count + usize::from(recorder.is_some());
        let shared = Arc::new(Shared {
            memory: Arc::new(memory),
            clint: Clint::new(count),
            htif: Htif::new(htif, console),
            clock: Clock::default(),
            lines: (0..workers).map(|_| Line::default()).collect(),
            recorder: recorder.clone(),
            global: Arc::default(),
            resting: (0..harts)
                .map(|hart| Mutex::new(Resting::reset(hart.into())))
                .collect(),
            throttle: AtomicU8::new(0),
            tick_offset: AtomicI64::new(0),
            control: Control::new(incoming),
        });
        let mut machine = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        for index in 0..count {
            let shared = Arc::clone(&shared);
            machine.spawn(format!("hart {index}"), move || hart(&shared, index))?;
        }
        if let Some(recorder) = recorder {
            machine.spawn("recorder".to_owned(), move || record(&shared, &recorder))?;
        }
        Ok(machine)
    }

    fn spawn(
        &mut self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), SpikeError> {
        let thread = thread::Builder::new().name(name).spawn(work);
        let thread = thread.map_err(|source| SpikeError::Host {
            what: "thread",
            source,
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// The memory. It may be read and written at any time; code that is written while harts run is seen after their
    /// next `fence.i`, or the next start.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.shared.memory
    }

    /// The recorder, if there is one.
    #[must_use]
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.shared.recorder.as_ref()
    }

    /// Number of harts.
    #[must_use]
    pub fn harts(&self) -> usize {
        self.shared.harts()
    }

    /// What the machine is doing.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        self.shared.control.state()
    }

    /// Starts the harts, if the machine has the right to run its guest and stands still.
    ///
    /// # Errors
    /// If it has not, or the guest is over.
    pub fn resume(&self) -> Result<(), vmstate_engine::MachineError> {
        let shared = &self.shared;
        shared.control.start(&shared.lines, || shared.clock.start())
    }

    /// Stops the harts where an instruction ends, and waits until they stand still. Virtual time stands still then, too. A
    /// machine that stands still already stays as it is.
    pub fn pause(&self) {
        self.stop_with(RunState::Paused);
    }

    /// Stops, changes to `state` if the machine ran, and says what it did before.
    pub(crate) fn stop_with(&self, state: RunState) -> RunState {
        self.shared.control.stop(&self.shared.lines, state)
    }

    /// Makes harts sleep for `percent` percent of the time, at most 99; 0 ends it. QEMU: 10 ms of running to
    /// `percent / (100 - percent)` times 10 ms of sleep.
    pub fn throttle(&self, percent: u8) {
        self.shared
            .throttle
            .store(percent.min(99), Ordering::Relaxed);
    }

    /// How much harts are throttled now, in percent.
    #[must_use]
    pub fn throttled(&self) -> u8 {
        self.shared.throttle()
    }

    /// Virtual time in ns.
    #[must_use]
    pub fn virtual_time(&self) -> i64 {
        self.shared.clock.view().now()
    }

    /// Instructions that all harts have executed since the machine was made. A running hart counts now and then.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        let lines = self.shared.lines.iter();
        lines.map(Line::instructions).sum()
    }

    /// Why the guest cannot go on, if so.
    #[must_use]
    pub fn guest_error(&self) -> Option<GuestError> {
        self.shared.control.error()
    }

    /// The status with which the guest has ended, if so.
    #[must_use]
    pub fn exit_status(&self) -> Option<u64> {
        self.shared.control.status()
    }

    /// What happens to the machine from now on. Dropping the receiver ends it.
    #[must_use]
    pub fn events(&self) -> std::sync::mpsc::Receiver<Occurrence> {
        self.shared.control.listen()
    }

    /// The described sections, in the order in which QEMU sends them.
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        Section::all(&self.shared)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop_with(RunState::Shutdown);
        self.shared.control.quit();
        for thread in self.threads.drain(..) {
            // A panic of a hart has been reported by the thread itself.
            _ = thread.join();
        }
    }
}
