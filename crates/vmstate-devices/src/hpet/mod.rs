//! High precision event timer: a worked example of runtime state that is taken out of its locks to travel.
//!
//! The other devices of this crate hold what travels. This one is alive: threads read its counter and wait for its timers
//! while a snapshot is taken. The bytes are those of section `hpet` of QEMU 7.2 to 11.1.
//!
//! ```text
//!  Hpet ── Arc ──▶ Migratable<Mutex<Registers>>        travels as section `hpet`
//!   │                 ├ config, status, counter
//!   │                 ├ timers: [TimerRegisters]  ◀──┐ registers of the children, in their parent's lock
//!   │                 │    └ alarm ── Arc ──▶ Alarm  │ ◀┐
//!   │                 └ rtc_level, offset            │  │ subsections `hpet/rtc_irq_level`, `hpet/offset`
//!   └ timers ───▶ HpetTimer ─────────────────────────┴──┘
//! ```
//!
//! Three things that a device's author meets sooner or later, and where they are here:
//!
//! | need | QEMU | here |
//! |---|---|---|
//! | a timer's registers live in the block's lock, its deadline in a lock of its own | mirrors and conversions by hand for each timer | the block's mirror owns them; the deadline's `Arc` is followed |
//! | a subsection is about a value inside of the locked struct | a shadow field outside, copied in hooks | the subsection is declared on the struct |
//! | after loading, interrupt lines follow from status and all timers, and an old stream has no offset | `post_load` of the device | `restored`: the last step of the restore, under the lock |
//!
//! And one more: the counter that is sent is computed when the snapshot is taken (`snapshot_with`), so saving changes nothing.

mod registers;
mod timer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstate_desc::snapshot::Migratable;

pub use registers::{HpetOffset, HpetOffsetMigration, HpetState, Registers};
pub use timer::{Alarm, HpetTimer, HpetTimerState, TimerRegisters};

/// Length of one tick of the counter, in ns.
pub const TICK_NS: u64 = 10;

/// Most timers of a block, as QEMU has them.
pub const MAX_TIMERS: usize = 32;

/// The guest's clock.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Nanoseconds that the guest has seen pass.
    fn now(&self) -> i64;
}

/// A block of timers.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicI64, Ordering};
/// use vmstate_desc::snapshot::ToMigrationState;
/// use vmstate_devices::hpet::{Clock, Hpet};
///
/// #[derive(Debug, Default)]
/// struct TestClock(AtomicI64);
///
/// impl Clock for TestClock {
///     fn now(&self) -> i64 {
///         self.0.load(Ordering::Relaxed)
///     }
/// }
///
/// let clock = Arc::new(TestClock::default());
/// let hpet = Hpet::new(3, clock.clone());
/// hpet.enable(true);
/// clock.0.store(1_000, Ordering::Relaxed);
/// assert_eq!(hpet.counter(), 100);
///
/// let mirror = hpet.state().to_migration_state()?;
/// assert_eq!((mirror.counter, mirror.timers.len()), (100, 3));
/// # Ok::<(), vmstate_desc::snapshot::InvalidError>(())
/// ```
#[derive(Debug)]
pub struct Hpet {
    block: Arc<Migratable<Mutex<Registers>>>,
    timers: Vec<HpetTimer>,
}

impl Hpet {
    /// A block of `timers` timers after reset, at most [`MAX_TIMERS`].
    #[must_use]
    pub fn new(timers: usize, clock: Arc<dyn Clock>) -> Self {
        let registers = Registers::new(timers.min(MAX_TIMERS), clock);
        let alarms = registers.alarms();
        let block = Arc::new(Migratable::new(Mutex::new(registers)));
        let timer = |(number, alarm)| HpetTimer::new(number, &block, alarm);
        let timers = alarms.into_iter().enumerate().map(timer).collect();
        Self { block, timers }
    }

    /// What travels: section `hpet`. Saves and loads through a shared reference.
    #[must_use]
    pub fn state(&self) -> Arc<Migratable<Mutex<Registers>>> {
        Arc::clone(&self.block)
    }

    /// The timers.
    #[must_use]
    pub fn timers(&self) -> &[HpetTimer] {
        &self.timers
    }

    /// Starts or stops the counter.
    pub fn enable(&self, on: bool) {
        lock(&self.block).enable(on);
    }

    /// The counter, in ticks.
    #[must_use]
    pub fn counter(&self) -> u64 {
        lock(&self.block).counter()
    }

    /// Interrupt lines that are held.
    #[must_use]
    pub fn lines(&self) -> u32 {
        lock(&self.block).lines()
    }
}

/// The guest goes on with what a thread has left that panicked; a migration does not.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
