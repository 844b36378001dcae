//! 16550 UART.

use vmstate_derive::VmState;
use vmstate_desc::Timer;

use crate::fifo::Fifo8;

/// Bytes that each of the two queues holds.
pub const QUEUE: usize = 16;

/// The clock behind the divider runs at this many hertz, on a PC.
pub const PC_CLOCK: u32 = 1_843_200;

/// The UART itself: registers as the guest sees them, and what is under way.
///
/// What came as an optional part is written again; a default has none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial", version = 3, minimum_version = 2)]
pub struct Uart {
    /// Divider of the clock; the baud rate is clock / (16 · divider).
    #[vmstate(since = 2)]
    pub divider: u16,
    /// Receive buffer: the byte that came last without queues.
    #[vmstate(name = "rbr")]
    pub receive_buffer: u8,
    /// Interrupt enable register.
    #[vmstate(name = "ier")]
    pub interrupt_enable: u8,
    /// Interrupt identification register.
    #[vmstate(name = "iir")]
    pub interrupt_id: u8,
    /// Line control register.
    #[vmstate(name = "lcr")]
    pub line_control: u8,
    /// Modem control register.
    #[vmstate(name = "mcr")]
    pub modem_control: u8,
    /// Line status register.
    #[vmstate(name = "lsr")]
    pub line_status: u8,
    /// Modem status register.
    #[vmstate(name = "msr")]
    pub modem_status: u8,
    /// Scratch register.
    #[vmstate(name = "scr")]
    pub scratch: u8,
    /// Queue control register.
    #[vmstate(name = "fcr_vmstate", since = 3, default = 0)]
    pub fifo_control: u8,
    /// The transmitter wants an interrupt.
    #[vmstate(subsection)]
    pub transmit_interrupt: Option<TransmitInterrupt>,
    /// A byte is being sent.
    #[vmstate(subsection)]
    pub transmitting: Option<Transmitting>,
    /// The receive queue, if it is not empty.
    #[vmstate(subsection)]
    pub receive_queue: Option<ReceiveQueue>,
    /// The transmit queue, if it is not empty.
    #[vmstate(subsection)]
    pub transmit_queue: Option<TransmitQueue>,
    /// The timer of the receive queue, if it runs.
    #[vmstate(subsection)]
    pub receive_timeout: Option<ReceiveTimeout>,
    /// The receive queue has waited too long and wants an interrupt.
    #[vmstate(subsection)]
    pub timeout_interrupt: Option<TimeoutInterrupt>,
    /// Polling of the host's modem lines.
    #[vmstate(subsection)]
    pub polling: Option<Polling>,
}

impl Uart {
    /// Bits per second with a clock of `clock` hertz; none while the divider is 0.
    #[must_use]
    pub fn baud_rate(&self, clock: u32) -> Option<u32> {
        (clock / 16).checked_div(u32::from(self.divider))
    }
}

/// Subsection `serial/thr_ipending`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial/thr_ipending", version = 1, minimum_version = 1)]
pub struct TransmitInterrupt {
    /// 1 if the transmitter's interrupt is pending.
    #[vmstate(name = "thr_ipending")]
    pub pending: i32,
}

/// Subsection `serial/tsr`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial/tsr", version = 1, minimum_version = 1)]
pub struct Transmitting {
    /// How often the backend has refused the byte.
    #[vmstate(name = "tsr_retry")]
    pub retries: u32,
    /// Transmit holding register.
    #[vmstate(name = "thr")]
    pub holding: u8,
    /// Transmit shift register.
    #[vmstate(name = "tsr")]
    pub shift: u8,
}

/// Subsection `serial/recv_fifo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial/recv_fifo", version = 1, minimum_version = 1)]
pub struct ReceiveQueue {
    /// Bytes that the guest has not read.
    #[vmstate(name = "recv_fifo", since = 1)]
    pub queue: Fifo8<QUEUE>,
}

/// Subsection `serial/xmit_fifo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial/xmit_fifo", version = 1, minimum_version = 1)]
pub struct TransmitQueue {
    /// Bytes that have not been sent.
    #[vmstate(name = "xmit_fifo", since = 1)]
    pub queue: Fifo8<QUEUE>,
}

/// Subsection `serial/fifo_timeout_timer`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial/fifo_timeout_timer", version = 1, minimum_version = 1)]
pub struct ReceiveTimeout {
    /// When the receive queue has waited long enough, in ns of the guest's clock.
    #[vmstate(name = "fifo_timeout_timer")]
    pub deadline: Timer,
}

/// Subsection `serial/timeout_ipending`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial/timeout_ipending", version = 1, minimum_version = 1)]
pub struct TimeoutInterrupt {
    /// 1 if the interrupt is pending.
    #[vmstate(name = "timeout_ipending")]
    pub pending: i32,
}

/// Subsection `serial/poll`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial/poll", version = 1, minimum_version = 1)]
pub struct Polling {
    /// Whether the modem lines are polled: -1 never, 0 not now, 1 yes.
    #[vmstate(name = "poll_msl")]
    pub mode: i32,
    /// When they are polled next, in ns of the guest's clock.
    #[vmstate(name = "modem_status_poll")]
    pub next: Timer,
}

/// Section `serial` of a UART on the ISA bus.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial", version = 3, minimum_version = 2)]
pub struct IsaSerial {
    /// The UART.
    #[vmstate(name = "state")]
    pub uart: Uart,
}

/// Section `serial` of a memory-mapped UART, as boards have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "serial", version = 3, minimum_version = 2)]
pub struct MemorySerial {
    /// The UART.
    #[vmstate(name = "serial")]
    pub uart: Uart,
}
