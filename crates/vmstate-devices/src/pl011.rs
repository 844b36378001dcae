//! Arm `PrimeCell` PL011 UART.

use vmstate_derive::VmState;
use vmstate_desc::Reason;

use crate::clock::Clock;

/// Entries of the receive queue.
pub const QUEUE: usize = 16;

/// Section `pl011`.
///
/// Until 7.2 QEMU sent a copy of the data register first, later four unused bytes; set [`Pl011::has_read_buffer`] to describe it
/// as 7.2 does. The bytes have the same size, so each loads what the other wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "pl011", version = 2, minimum_version = 2, post_load = Self::check)]
pub struct Pl011 {
    /// Whether [`Pl011::read_buffer`] travels: QEMU 7.2 and earlier.
    #[vmstate(skip = "part of the description")]
    pub has_read_buffer: bool,
    /// The data register as it was read last.
    #[vmstate(name = "readbuff", exists = Self::sends_read_buffer)]
    pub read_buffer: u32,
    #[vmstate(unused = 4, exists = Self::sends_no_read_buffer)]
    #[doc(hidden)]
    pub _no_read_buffer: (),
    /// Flag register.
    pub flags: u32,
    /// Line control register.
    #[vmstate(name = "lcr")]
    pub line_control: u32,
    /// Receive status register.
    #[vmstate(name = "rsr")]
    pub receive_status: u32,
    /// Control register.
    #[vmstate(name = "cr")]
    pub control: u32,
    /// DMA control register.
    #[vmstate(name = "dmacr")]
    pub dma_control: u32,
    /// Enabled interrupts.
    #[vmstate(name = "int_enabled")]
    pub interrupts_enabled: u32,
    /// Pending interrupts.
    #[vmstate(name = "int_level")]
    pub interrupts_pending: u32,
    /// Receive queue: the byte, and status bits above it.
    #[vmstate(name = "read_fifo")]
    pub receive_queue: [u32; QUEUE],
    /// Low-power counter register.
    #[vmstate(name = "ilpr")]
    pub low_power_counter: u32,
    /// Integer part of the baud rate's divisor.
    #[vmstate(name = "ibrd")]
    pub baud_integer: u32,
    /// Fraction of the baud rate's divisor, in 1/64.
    #[vmstate(name = "fbrd")]
    pub baud_fraction: u32,
    /// Interrupt levels of the queues.
    #[vmstate(name = "ifl")]
    pub interrupt_levels: u32,
    /// Position of the oldest entry of the receive queue.
    #[vmstate(name = "read_pos")]
    pub receive_position: i32,
    /// Entries in the receive queue.
    #[vmstate(name = "read_count")]
    pub receive_count: i32,
    /// Entries from which on an interrupt is wanted.
    #[vmstate(name = "read_trigger")]
    pub receive_trigger: i32,
    /// The clock input. Older machine types do not send it.
    #[vmstate(subsection)]
    pub clock: Option<Pl011Clock>,
}

/// Subsection `pl011/clock`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "pl011/clock", version = 1, minimum_version = 1)]
pub struct Pl011Clock {
    /// The clock input.
    #[vmstate(name = "clk")]
    pub input: Clock,
}

impl Pl011 {
    fn sends_read_buffer(&self, _version: u32) -> bool {
        self.has_read_buffer
    }

    fn sends_no_read_buffer(&self, _version: u32) -> bool {
        !self.has_read_buffer
    }

    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        let fits = |value: i32, max: usize| usize::try_from(value).is_ok_and(|value| value <= max);
        if !fits(self.receive_position, QUEUE - 1) {
            return Err(
                format!("read_pos {} is outside of the queue", self.receive_position).into(),
            );
        }
        if !fits(self.receive_count, QUEUE) {
            return Err(format!("read_count {} is more than the queue", self.receive_count).into());
        }
        Ok(())
    }
}
