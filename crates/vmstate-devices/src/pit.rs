//! 8254 programmable interval timer.

use vmstate_derive::VmState;

/// Oscillations per second of the counters' clock.
pub const FREQUENCY: u32 = 1_193_182;

/// Section `i8254`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "i8254", version = 3, minimum_version = 2)]
pub struct Pit {
    /// Not 0 if another timer has taken over channel 0's interrupt.
    #[vmstate(name = "channels[0].irq_disabled", since = 3, default = 0)]
    pub interrupt_disabled: u32,
    /// The three channels: interrupt, memory refresh, speaker.
    #[vmstate(since = 2)]
    pub channels: [PitChannel; 3],
    /// When channel 0's output changes next, in ns of the guest's clock; -1 if never. Said twice: also in the channel.
    #[vmstate(name = "channels[0].next_transition_time")]
    pub next_interrupt: i64,
}

/// One of the three counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "pit channel", version = 2, minimum_version = 2)]
pub struct PitChannel {
    /// Oscillations that are counted down: 1 to 65536.
    pub count: i32,
    /// The counter as it was when the guest latched it.
    pub latched_count: u16,
    /// How many bytes of the latched counter wait to be read.
    pub count_latched: u8,
    /// Not 0 if a latched status waits to be read.
    pub status_latched: u8,
    /// The latched status.
    pub status: u8,
    /// Which byte is read next.
    pub read_state: u8,
    /// Which byte is written next.
    pub write_state: u8,
    /// The low byte, until the high byte is written.
    pub write_latch: u8,
    /// Which bytes are accessed: 1 low, 2 high, 3 low then high.
    #[vmstate(name = "rw_mode")]
    pub access: u8,
    /// Counting mode, 0 to 5.
    pub mode: u8,
    /// Not 0 to count in decimal.
    pub bcd: u8,
    /// The gate input.
    pub gate: u8,
    /// When the count was loaded, in ns of the guest's clock.
    pub count_load_time: i64,
    /// When the output changes next, in ns of the guest's clock; -1 if never.
    pub next_transition_time: i64,
}

impl PitChannel {
    /// Nanoseconds that one round takes.
    #[must_use]
    pub fn round_ns(&self) -> u64 {
        let count = u64::from(self.count.unsigned_abs());
        count * 1_000_000_000 / u64::from(FREQUENCY)
    }
}
