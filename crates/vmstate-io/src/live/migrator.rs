//! Moving one machine: commands, threads, and the engine's two machines in their locks.

mod answers;
mod arriving;
mod incoming;
mod negotiate;
mod outgoing;
mod panics;
mod postcopy;
mod sections;
mod worker;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmstate_ber::Adapted;
use vmstate_engine::destination::{self, Destination, IncomingError, PostcopyCommandError};
use vmstate_engine::source::{self, CommandError, Gauge, Source};
use vmstate_engine::{
    Bql, Capability, Identity, Machine, MigrationInfo, MigrationStatus, Peer, RamCounters,
    Registry, RunState, Settings,
};
use vmstate_qmp::address::MigrationAddress;

use self::incoming::Service;
use self::panics::caught;
use self::worker::when_told;
use super::connect::{ConnectError, Listener};
use super::link::{Link, LinkKind};
use super::memory::MappedMemory;
use super::stop::Stop;
use super::writer::Counters;
use crate::descriptors::Descriptors;

pub use negotiate::Negotiated;
pub use sections::MigrationInProgress;

/// Default of [`Deadlines::connect`].
const CONNECT: Duration = Duration::from_secs(10);
/// Default of [`Deadlines::silence`].
const SILENCE: Duration = Duration::from_secs(60);
/// How long a command waits for the worker of a migration that is over.
const CLEARING_UP: Duration = Duration::from_secs(10);

/// How long to wait for the other end, where it should do something.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Until a connection is made.
    pub connect: Duration,
    /// While the source has something to send and the destination takes none of it. Waiting for a decision, for the
    /// destination's last word, or because of the bandwidth limit is no silence. Also while the guest stands still and the destination
    /// has not confirmed that it has loaded everything.
    pub silence: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: CONNECT,
            silence: SILENCE,
        }
    }
}

/// A VMM, as a [`Migrator`] needs it.
pub struct Vmm {
    /// Starts and stops the guest.
    pub machine: Arc<dyn Machine>,
    /// Where pages come from and go to: the same blocks as those of the RAM handler in the registry.
    pub memory: Arc<dyn MappedMemory>,
    /// All sections.
    pub registry: Registry,
    /// The RAM handler's counts, for statistics.
    pub ram: RamCounters,
    /// What the configuration section says.
    pub identity: Identity,
    /// The lock under which devices are saved and loaded.
    pub big_lock: Arc<Mutex<()>>,
    /// What the machine did at the source, once its `globalstate` has been loaded.
    pub arrived: Box<dyn Fn() -> Option<RunState> + Send + Sync>,
    /// The machine waits for its guest.
    pub incoming: bool,
    /// Start a guest that arrives running; not with `-S`.
    pub autostart: bool,
}

impl fmt::Debug for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmm")
            .field("machine", &self.machine.name())
            .field("registry", &self.registry)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What a [`Migrator`] tells its observer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MigrationEvent {
    /// The outgoing migration's status changed. QEMU: `MIGRATION`.
    Source(MigrationStatus),
    /// The incoming migration's status changed. QEMU: `MIGRATION`.
    Destination(MigrationStatus),
    /// A round over memory begins. QEMU: `MIGRATION_PASS`.
    Pass(u64),
    /// The incoming migration is over, and everything of it has been let go of: `None`, or why it failed.
    Arrived(Option<String>),
    /// The outgoing migration is over, and everything of it has been let go of.
    Departed(MigrationStatus),
}

type Observer = Box<dyn Fn(&MigrationEvent) + Send + Sync>;

/// A command was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// By the source's state.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// By the destination's state.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// By a section of the machine.
    #[error("{section}: {reason}")]
    Prepare {
        /// Name and instance id.
        section: String,
        /// Its reason.
        reason: String,
    },
    /// A postcopy migration was told to do what it cannot do now.
    #[error(transparent)]
    Postcopy(#[from] PostcopyCommandError),
    /// The address is none to listen on.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The address can be connected to once only, and a capability needs more channels.
    #[error("Migration requires multi-channel URIs (e.g. tcp)")]
    OneChannel,
    /// A paused postcopy cannot go on without the destination's answers.
    #[error(
        "Unable to open return-path for postcopy: it needs a connection that carries answers, such as tcp: or unix:"
    )]
    OneWay,
    /// A section's preparation has panicked.
    #[error("{0}")]
    Panicked(String),
    /// The operating system has no thread or descriptor left.
    #[error("cannot begin to migrate: {0}")]
    Io(#[from] std::io::Error),
}

/// Migrates a machine, in both directions. Clones share it.
///
/// Commands come from any thread and return at once; what comes of them is told to the observer and by
/// [`info`](Self::info).
#[derive(Clone)]
pub struct Migrator(Arc<Shared>);

struct Shared {
    machine: Arc<dyn Machine>,
    memory: Arc<dyn MappedMemory>,
    registry: Mutex<Registry>,
    ram: RamCounters,
    identity: Identity,
    big_lock: Arc<Mutex<()>>,
    arrived: Box<dyn Fn() -> Option<RunState> + Send + Sync>,
    autostart: Mutex<bool>,
    deadlines: Deadlines,
    settings: Mutex<Settings>,
    descriptors: Descriptors,
    /// Locked after the settings, where both are.
    source: Mutex<Outward>,
    /// Something happened to the source.
    wake: Condvar,
    destination: Mutex<Inward>,
    /// Something happened to the destination.
    arrivals: Condvar,
    /// What came of the last negotiation.
    negotiated: Mutex<Option<Negotiated>>,
    /// What the last incoming migration's devices had too much or too little of.
    adapted: Mutex<Adapted>,
    observer: Observer,
    origin: Instant,
}

/// The source, and what belongs to its migration.
struct Outward {
    source: Source,
    stop: Stop,
    /// Where the channels go.
    address: Option<MigrationAddress>,
    link: Option<Link>,
    /// What the last migration's channel is, or was.
    kind: Option<LinkKind>,
    /// The channel of requested pages.
    urgent: Option<Link>,
    counters: Arc<Counters>,
}

/// The destination, and what belongs to its migration.
struct Inward {
    destination: Destination,
    stop: Stop,
    address: Option<MigrationAddress>,
    /// Where the source of a paused postcopy is to come again.
    listener: Option<Listener>,
    /// If the source may switch to postcopy.
    service: Option<Arc<Service>>,
}

impl fmt::Debug for Migrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrator")
            .field("machine", &self.0.machine.name())
            .finish_non_exhaustive()
    }
}

/// Takes a lock. What a thread did before it panicked is judged by the state itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Migrator {
    /// A migrator for this machine. `observer` is called from any thread, while nothing is locked that the migrator's
    /// methods need.
    ///
    /// # Errors
    /// If the process has too many descriptors.
    pub fn new(
        vmm: Vmm,
        deadlines: Deadlines,
        observer: impl Fn(&MigrationEvent) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            machine: vmm.machine,
            memory: vmm.memory,
            registry: Mutex::new(vmm.registry),
            ram: vmm.ram,
            identity: vmm.identity,
            big_lock: vmm.big_lock,
            arrived: vmm.arrived,
            autostart: Mutex::new(vmm.autostart),
            deadlines,
            settings: Mutex::new(Settings::default()),
            descriptors: Descriptors::default(),
            source: Mutex::new(Outward {
                source: Source::new(),
                stop: Stop::new()?,
                address: None,
                link: None,
                kind: None,
                urgent: None,
                counters: Arc::default(),
            }),
            wake: Condvar::new(),
            destination: Mutex::new(Inward {
                destination: Destination::new(vmm.incoming),
                stop: Stop::new()?,
                address: None,
                listener: None,
                service: None,
            }),
            arrivals: Condvar::new(),
            negotiated: Mutex::new(None),
            adapted: Mutex::default(),
            observer: Box::new(observer),
            origin: Instant::now(),
        })))
    }

    /// The settings for the next migration, and the parameters of the present one.
    #[must_use]
    pub fn settings(&self) -> Settings {
        lock(&self.0.settings).clone()
    }

    /// Changes the settings with `change`, all or nothing. Parameters act on a running migration, too.
    ///
    /// # Errors
    /// What `change` returns; the settings are as they were then.
    pub fn change_settings<E>(
        &self,
        change: impl FnOnce(&mut Settings) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut settings = lock(&self.0.settings);
        let mut changed = settings.clone();
        change(&mut changed)?;
        settings.clone_from(&changed);
        // The settings stay locked, so that of two changes the later one counts for the running migration, too.
        let mut outward = lock(&self.0.source);
        outward.source.set_parameters(changed.parameters);
        drop(outward);
        drop(settings);
        self.0.wake.notify_all();
        Ok(())
    }

    /// Descriptors that `fd:NAME` takes: a monitor's server fills it.
    #[must_use]
    pub fn descriptors(&self) -> &Descriptors {
        &self.0.descriptors
    }

    /// Whether the guest has gone into a file, and nowhere else as far as anybody here knows: it may go on here, while the file
    /// is not used.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        let outward = self.cleared_up();
        !outward.source.is_unknown()
            && outward.source.can_resume_here()
            && outward.kind == Some(LinkKind::File)
    }

    /// The source, after the worker of a migration whose end has been told is back, too: whoever has seen `completed` may ask for
    /// the next thing at once.
    fn cleared_up(&self) -> MutexGuard<'_, Outward> {
        let deadline = Instant::now() + CLEARING_UP;
        let mut outward = lock(&self.0.source);
        while outward.source.is_clearing_up() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.0.wake.wait_timeout(outward, left);
            outward = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        outward
    }

    /// Waits for the worker of a guest that has arrived: it may still be reading what a slow source sends behind the guest.
    fn settle(&self) {
        let deadline = Instant::now() + CLEARING_UP;
        let mut inward = lock(&self.0.destination);
        while inward.destination.is_clearing_up() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.0.arrivals.wait_timeout(inward, left);
            inward = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether a migration is under way, in either direction, so that capabilities must not change. Waiting for one is not: what
    /// is set then still counts, as in QEMU.
    #[must_use]
    pub fn is_running(&self) -> bool {
        lock(&self.0.source).source.status().is_running() || self.is_arriving()
    }

    fn is_arriving(&self) -> bool {
        let status = lock(&self.0.destination).destination.status();
        status == MigrationStatus::Active || status.is_postcopy()
    }

    /// Whether a guest that arrives running is started. A `cont` or `stop` before it has arrived changes that.
    pub fn set_autostart(&self, autostart: bool) {
        *lock(&self.0.autostart) = autostart;
    }

    /// Begins to migrate to `address`: the command `migrate`.
    ///
    /// # Errors
    /// [`MigrateError`]; nothing has happened then. What fails later is told by [`info`](Self::info).
    pub fn migrate(&self, address: MigrationAddress) -> Result<(), MigrateError> {
        self.supports(&address)?;
        let shared = &self.0;
        self.settle();
        let running = self.cleared_up().source.status().is_running();
        if running || self.is_arriving() {
            // The registry may be in use for long.
            return Err(CommandError::InProgress.into());
        }
        let blockers = lock(&shared.registry).blockers();
        let stop = Stop::new()?;
        let worker = Arc::clone(shared);
        let begin = when_told("migration", move |address| outgoing::run(&worker, &address))?;
        {
            // As in `change_settings`: what is changed from here on reaches the migration.
            let held = lock(&shared.settings);
            let settings = held.clone();
            let mut outward = lock(&shared.source);
            let now = shared.now();
            let state = shared.machine.run_state();
            // One of ours never starts a guest that it has refused.
            let ours = settings.parameters.x_peer == Peer::Vmstate;
            outward
                .source
                .migrate(now, settings, state, &blockers, ours)?;
            outward.stop = stop;
            outward.address = Some(address.clone());
            outward.link = None;
            outward.kind = None;
            outward.urgent = None;
            outward.counters = Arc::default();
        }
        *lock(&shared.negotiated) = None;
        *lock(&shared.adapted) = Adapted::default();
        let prepared = shared.prepare();
        // The rest of a refused migration is cleaned up by the same thread.
        begin(address);
        shared.tell_source();
        prepared
    }

    /// Gives the outgoing migration up: the command `migrate_cancel`.
    ///
    /// # Errors
    /// [`CommandError::TooLate`].
    pub fn cancel(&self) -> Result<(), CommandError> {
        self.command(Source::cancel)
    }

    /// Goes on after `pre-switchover`: the command `migrate-continue`.
    ///
    /// # Errors
    /// [`CommandError::NotInState`].
    pub fn proceed(&self, state: MigrationStatus) -> Result<(), CommandError> {
        self.command(|source, now| source.proceed(now, state))
    }

    /// Runs the guest here again, when nobody knows whether it runs at the destination. Whoever says so knows that it does not.
    ///
    /// # Errors
    /// [`CommandError::Known`].
    pub fn resume_here(&self) -> Result<(), CommandError> {
        self.decide(Source::resume_here)
    }

    /// Gives the guest up, when nobody here knows whether it runs at the destination. Whoever says so knows that it does.
    ///
    /// # Errors
    /// [`CommandError::Known`].
    pub fn give_up(&self) -> Result<(), CommandError> {
        self.decide(Source::give_up)
    }

    /// A decision begins new work, for which there is no thread any more, unless postcopy is paused.
    fn decide(
        &self,
        command: impl FnOnce(&mut Source, Duration) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let mut outward = self.cleared_up();
        let now = self.0.now();
        let paused = outward.source.phase() == source::Phase::Paused;
        let result = command(&mut outward.source, now);
        drop(outward);
        self.0.tell_source();
        result?;
        if !paused {
            outgoing::finish(&self.0);
        }
        Ok(())
    }

    fn command(
        &self,
        command: impl FnOnce(&mut Source, Duration) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let now = self.0.now();
        let result = command(&mut lock(&self.0.source).source, now);
        self.0.tell_source();
        result
    }

    /// Begins to wait for a guest at `address`: the command `migrate-incoming`. Returns where it listens.
    ///
    /// # Errors
    /// [`MigrateError`]; another attempt may be made then.
    pub fn incoming(&self, address: &MigrationAddress) -> Result<MigrationAddress, MigrateError> {
        let shared = &self.0;
        let stop = Stop::new()?;
        {
            let mut inward = lock(&shared.destination);
            if inward.destination.phase() != destination::Phase::Idle {
                // The reason is the destination's.
                inward.destination.incoming()?;
            }
        }
        // Looking up a name may take long, and nobody else is to wait for it.
        let listener = Listener::new(address, &shared.descriptors, &stop)?;
        let worker = Arc::clone(shared);
        let begin = when_told("incoming", move |listener| incoming::run(&worker, listener))?;
        {
            let mut inward = lock(&shared.destination);
            inward.destination.incoming()?;
            inward.stop = stop;
            inward.address = Some(listener.address().clone());
            *lock(&shared.negotiated) = None;
            *lock(&shared.adapted) = Adapted::default();
        }
        let shown = listener.address().clone();
        begin(listener);
        shared.tell_destination();
        Ok(shown)
    }

    /// Gives up waiting for a guest that has not arrived.
    pub fn abandon(&self, reason: &str) {
        lock(&self.0.destination).destination.abandon(reason);
        self.0.tell_destination();
    }

    /// What `query-migrate` says: of the outgoing migration if there was one, else of the incoming one.
    #[must_use]
    pub fn info(&self) -> MigrationInfo {
        let shared = &self.0;
        let totals = shared.ram.totals();
        // A worker may hold the registry for a while; what blocked before still does. While a guest arrives, a device's lock may
        // be held by whoever waits for RAM.
        let blockers = match self.is_arriving() {
            true => Ok(Vec::new()),
            false => shared.registry.try_lock().map(|r| r.blockers()),
        };
        let outward = lock(&shared.source);
        if outward.source.status() != MigrationStatus::None {
            let gauge = shared.gauge(&outward.counters);
            return outward
                .source
                .info(shared.now(), gauge, &totals, blockers.unwrap_or_default());
        }
        drop(outward);
        let measures = self.settings().capabilities;
        let inward = lock(&shared.destination);
        let status = inward.destination.status();
        // As QEMU, at the end only.
        let blocktime =
            measures.has(Capability::PostcopyBlocktime) && status == MigrationStatus::Completed;
        MigrationInfo {
            status: (status != MigrationStatus::None).then_some(status),
            error_desc: inward.destination.error().map(str::to_owned),
            blocked_reasons: blockers.unwrap_or_default(),
            postcopy: inward.service.as_ref().map(|s| s.info(blocktime)),
            ..MigrationInfo::default()
        }
    }

    /// Where the machine listens for its guest.
    #[must_use]
    pub fn listening(&self) -> Option<MigrationAddress> {
        lock(&self.0.destination).address.clone()
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn gauge(&self, counters: &Counters) -> Gauge {
        Gauge {
            transferred: counters.bytes(),
            pages: counters.pages(),
            running: self.machine.run_state().is_live(),
            urgent: self.ram.requests().is_urgent(),
        }
    }

    fn bql(&self) -> Bql<'_> {
        Bql::lock(&self.big_lock)
    }

    /// Does the part of `migrate` whose failure is the command's error.
    fn prepare(&self) -> Result<(), MigrateError> {
        let mut outward = lock(&self.source);
        let gauge = self.gauge(&outward.counters);
        let work = outward.source.work(self.now(), gauge);
        drop(outward);
        if work != source::Work::Prepare {
            return Ok(());
        }
        let bql = self.bql();
        let result = match caught(|| lock(&self.registry).save_prepare(&bql)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err((section, error))) => Err(MigrateError::Prepare {
                section,
                reason: error.to_string(),
            }),
            Err(panic) => Err(MigrateError::Panicked(panic)),
        };
        drop(bql);
        let outcome = match &result {
            Ok(()) => source::Outcome::Done,
            Err(error) => source::Outcome::Failed(error.to_string()),
        };
        // The work was ours, so its outcome fits.
        let _ = lock(&self.source).source.done(self.now(), outcome, gauge);
        result
    }

    /// Tells the observer. If that panics, the migration goes on.
    fn tell(&self, event: &MigrationEvent) {
        let _ = caught(|| (self.observer)(event));
    }

    /// Acts on what the source has to say, and wakes its worker.
    fn tell_source(&self) {
        loop {
            let mut outward = lock(&self.source);
            let notice = outward.source.notice();
            let (stop, link) = (outward.stop.clone(), outward.link.clone());
            let urgent = outward.urgent.clone();
            drop(outward);
            match notice {
                None => break,
                Some(source::Notice::Status(status)) => {
                    self.tell(&MigrationEvent::Source(status));
                }
                Some(source::Notice::Pass(pass)) => self.tell(&MigrationEvent::Pass(pass)),
                Some(source::Notice::ShutDown) => {
                    stop.stop();
                    for link in link.iter().chain(&urgent) {
                        link.finish();
                    }
                }
                Some(source::Notice::Throttle(percent)) => self.machine.throttle(percent),
            }
        }
        self.wake.notify_all();
    }

    /// Acts on what the destination has to say.
    fn tell_destination(&self) {
        loop {
            let mut inward = lock(&self.destination);
            let notice = inward.destination.notice();
            let stop = inward.stop.clone();
            drop(inward);
            match notice {
                None => break,
                Some(destination::Notice::Status(status)) => {
                    self.tell(&MigrationEvent::Destination(status));
                }
                Some(destination::Notice::ShutDown) => stop.stop(),
            }
        }
        self.arrivals.notify_all();
    }
}
