//! One timer of the block.

use std::sync::{Arc, Mutex};

use vmstate_derive::ToMigrationState;
use vmstate_desc::Timer;
use vmstate_desc::snapshot::Migratable;

use super::registers::Registers;
use super::{TICK_NS, lock};

/// Interrupt is level-triggered.
const LEVEL: u64 = 1 << 1;
/// Interrupts are enabled.
const INTERRUPTS: u64 = 1 << 2;
/// Fires again and again.
const PERIODIC: u64 = 1 << 3;
/// Counts 32 bits only.
const SHORT: u64 = 1 << 8;
/// Where the interrupt line is.
const LINE_SHIFT: u64 = 9;
const LINE_MASK: u64 = 0x1f;

/// When a timer fires next, in ns of the guest's clock. Has a lock of its own: whoever waits for it does not need the block's.
pub type Alarm = Mutex<Timer>;

/// Registers of a timer. They live in the block, under its lock.
#[derive(Debug, Default, ToMigrationState)]
#[migration_state(rename = HpetTimerState, name = "hpet_timer", version = 1, minimum_version = 1)]
pub struct TimerRegisters {
    /// Number in the block.
    #[migration_state(name = "tn", validate = Self::check_number)]
    pub number: u8,
    /// Configuration and capabilities.
    pub config: u64,
    /// The timer fires when the counter reaches it.
    #[migration_state(name = "cmp")]
    pub comparator: u64,
    /// Where an interrupt goes that is a message.
    #[migration_state(name = "fsb")]
    pub route: u64,
    /// Ticks between two interrupts of a periodic timer.
    pub period: u64,
    /// Not 0 if the timer also fires when the counter wraps.
    #[migration_state(name = "wrap_flag")]
    pub wraps: u8,
    /// The deadline, shared with the timer's [`HpetTimer`].
    #[migration_state(name = "qemu_timer")]
    pub alarm: Arc<Alarm>,
}

impl TimerRegisters {
    /// After reset: may be periodic, has 64 bits.
    pub(super) fn new(number: u8) -> Self {
        Self {
            number,
            config: 0x30,
            comparator: u64::MAX,
            ..Self::default()
        }
    }

    fn check_number(number: &u8, timer: &Self) -> Result<(), &'static str> {
        if *number == timer.number {
            Ok(())
        } else {
            Err("another timer's number stands in this place")
        }
    }

    pub(super) const fn is_level_triggered(&self) -> bool {
        self.config & LEVEL != 0
    }

    pub(super) const fn line(&self) -> u32 {
        (self.config >> LINE_SHIFT & LINE_MASK) as u32
    }

    /// When the counter reaches the comparator, in ns of the clock; none if nobody wants to know.
    pub(super) fn deadline(&self, counter: u64, offset: u64) -> Option<i64> {
        if self.config & INTERRUPTS == 0 {
            return None;
        }
        let mut ticks = self.comparator.wrapping_sub(counter);
        if self.config & SHORT != 0 {
            ticks &= u64::from(u32::MAX);
        }
        let target = counter.wrapping_add(ticks).wrapping_mul(TICK_NS);
        Some(target.wrapping_sub(offset).cast_signed())
    }

    pub(super) fn program(&mut self, config: u64, comparator: u64, period: u64) {
        (self.config, self.comparator, self.period) = (config, comparator, period);
    }

    /// After it has fired: a periodic one is due again, another one has had its turn.
    pub(super) fn advance(&mut self) {
        if self.config & PERIODIC != 0 {
            self.comparator = self.comparator.wrapping_add(self.period);
        } else {
            self.config &= !INTERRUPTS;
        }
    }
}

/// A timer: its registers are the block's, its alarm is its own.
#[derive(Debug)]
pub struct HpetTimer {
    number: usize,
    block: Arc<Migratable<Mutex<Registers>>>,
    alarm: Arc<Alarm>,
}

impl HpetTimer {
    pub(super) fn new(
        number: usize,
        block: &Arc<Migratable<Mutex<Registers>>>,
        alarm: Arc<Alarm>,
    ) -> Self {
        Self {
            number,
            block: Arc::clone(block),
            alarm,
        }
    }

    /// When it fires next, in ns of the guest's clock.
    #[must_use]
    pub fn deadline(&self) -> Option<i64> {
        lock(&self.alarm).0
    }

    /// Programs it: configuration, comparator and period, in ticks.
    pub fn program(&self, config: u64, comparator: u64, period: u64) {
        lock(&self.block).program(self.number, config, comparator, period);
    }

    /// It has reached its deadline.
    pub fn fire(&self) {
        lock(&self.block).fire(self.number);
    }
}
