//! The block's registers.

use std::convert::Infallible;
use std::sync::Arc;

use vmstate_derive::ToMigrationState;
use vmstate_desc::{Reason, Timer};

use super::timer::{Alarm, TimerRegisters};
use super::{Clock, TICK_NS, lock};

/// Configuration: the counter counts.
const ENABLE: u64 = 1;

/// Section `hpet`.
#[derive(Debug, ToMigrationState)]
#[migration_state(rename = HpetState, name = "hpet", version = 2, minimum_version = 2)]
#[migration_state(snapshot_with = Self::count, validate = Self::check, restored = Self::settle)]
#[migration_state(subsection(
    name = "hpet/rtc_irq_level",
    version = 1,
    minimum_version = 1,
    needed = |state: &Self| state.rtc_level != 0,
    fields(rtc_level),
))]
pub struct Registers {
    /// General configuration.
    pub config: u64,
    /// Timers whose interrupt is pending.
    #[migration_state(name = "isr")]
    pub status: u64,
    /// The counter, in ticks, as it was when it stood last.
    #[migration_state(name = "hpet_counter")]
    pub counter: u64,
    /// Registers of the timers, in the lock of their parent.
    #[migration_state(name = "timer", max = 32, len(num_timers_save: u8))]
    pub timers: Vec<TimerRegisters>,
    /// Level of the real-time clock's interrupt, where this device delivers it.
    #[migration_state(name = "rtc_irq_level", default = 0)]
    pub rtc_level: u8,
    /// How far the counter is ahead of the clock, while it counts.
    #[migration_state(subsection)]
    pub offset: Option<HpetOffset>,
    /// Interrupt lines that are held: follow from status and timers.
    #[migration_state(omit(rebuild = Self::held))]
    lines: u32,
    #[migration_state(omit = "the machine's")]
    clock: Arc<dyn Clock>,
}

/// Subsection `hpet/offset`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ToMigrationState)]
#[migration_state(name = "hpet/offset", version = 1, minimum_version = 1)]
pub struct HpetOffset {
    /// In ns; wraps.
    #[migration_state(name = "hpet_offset")]
    pub ns: u64,
}

impl Registers {
    pub(super) fn new(timers: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            config: 0,
            status: 0,
            counter: 0,
            timers: (0..=u8::MAX)
                .take(timers)
                .map(TimerRegisters::new)
                .collect(),
            rtc_level: 0,
            offset: None,
            lines: 0,
            clock,
        }
    }

    pub(super) fn alarms(&self) -> Vec<Arc<Alarm>> {
        self.timers
            .iter()
            .map(|timer| Arc::clone(&timer.alarm))
            .collect()
    }

    fn now(&self) -> u64 {
        self.clock.now().cast_unsigned()
    }

    /// The counter, in ticks.
    #[must_use]
    pub fn counter(&self) -> u64 {
        match self.offset {
            Some(offset) => self.now().wrapping_add(offset.ns) / TICK_NS,
            None => self.counter,
        }
    }

    /// Interrupt lines that are held.
    #[must_use]
    pub const fn lines(&self) -> u32 {
        self.lines
    }

    /// Starts or stops the counter, and with it all timers.
    pub fn enable(&mut self, on: bool) {
        self.counter = self.counter();
        if on {
            self.config |= ENABLE;
            self.offset = Some(self.offset_of_counter());
        } else {
            self.config &= !ENABLE;
            self.offset = None;
        }
        self.arm();
    }

    /// The offset with which the counter goes on from where it stood.
    fn offset_of_counter(&self) -> HpetOffset {
        HpetOffset {
            ns: self.counter.wrapping_mul(TICK_NS).wrapping_sub(self.now()),
        }
    }

    /// Sets the deadlines of all timers.
    fn arm(&self) {
        for timer in &self.timers {
            let deadline = self
                .offset
                .and_then(|offset| timer.deadline(self.counter(), offset.ns));
            *lock(&timer.alarm) = Timer(deadline);
        }
    }

    /// Timer `number` has reached its comparator.
    pub(super) fn fire(&mut self, number: usize) {
        let Some(timer) = self.timers.get_mut(number) else {
            return;
        };
        if timer.is_level_triggered() {
            self.status |= 1 << number;
        }
        timer.advance();
        self.lines = self.held();
        self.arm();
    }

    /// Programs timer `number`.
    pub(super) fn program(&mut self, number: usize, config: u64, comparator: u64, period: u64) {
        if let Some(timer) = self.timers.get_mut(number) {
            timer.program(config, comparator, period);
        }
        self.arm();
    }

    /// The guest has seen these interrupts.
    pub fn acknowledge(&mut self, timers: u64) {
        self.status &= !timers;
        self.lines = self.held();
    }

    /// What status and timers say about the lines.
    fn held(&self) -> u32 {
        self.timers
            .iter()
            .filter(|timer| self.status >> timer.number & 1 == 1 && timer.is_level_triggered())
            .fold(0, |lines, timer| lines | 1 << timer.line())
    }

    /// A snapshot has the counter of now.
    fn count(&self, into: &mut HpetState) -> Result<(), Infallible> {
        into.counter = self.counter();
        Ok(())
    }

    /// The other end has the same timers.
    fn check(from: &HpetState, registers: &Self) -> Result<(), Reason> {
        let (theirs, ours) = (from.timers.len(), registers.timers.len());
        if theirs != ours {
            return Err(format!("{theirs} timers came, and this machine has {ours}").into());
        }
        Ok(())
    }

    /// Streams of old machine types do not say the offset: the counter then goes on from where it stood.
    fn settle(&mut self, _version: u32) {
        self.offset = match (self.config & ENABLE, self.offset) {
            (0, _) => None,
            (_, Some(offset)) => Some(offset),
            (_, None) => Some(self.offset_of_counter()),
        };
    }
}
