//! The sections beside `cpu`.

use vmstate::{Timer, VmState};

/// Section `timer`: the machine's clocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "timer", version = 2, minimum_version = 1)]
pub struct Clocks {
    /// Ticks of the CPUs so far. Nothing that a guest on this board reads comes from it, if it is to move.
    pub cpu_ticks_offset: i64,
    #[vmstate(unused = 8)]
    #[doc(hidden)]
    pub _unused: (),
    /// Virtual time in ns while the machine is stopped.
    #[vmstate(since = 2)]
    pub cpu_clock_offset: i64,
}

/// `interrupt_request` while an interrupt is pending.
pub const INTERRUPT_HARD: u32 = 2;

/// Section `cpu_common`: what the harts of all architectures have.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu_common", version = 1)]
pub struct CpuCommon {
    /// 1 if the hart waits for an interrupt.
    pub halted: u32,
    /// [`INTERRUPT_HARD`] while `mip` has a bit; without it a waiting hart of QEMU's never wakes.
    pub interrupt_request: u32,
    /// The exception that is about to be taken.
    #[vmstate(subsection)]
    pub exception: Option<ExceptionIndex>,
    /// Whether the guest has crashed.
    #[vmstate(subsection)]
    pub crash: Option<CrashOccurred>,
}

/// Subsection `cpu_common/exception_index`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu_common/exception_index", version = 1)]
pub struct ExceptionIndex {
    /// Number of the exception, -1 for none.
    pub exception_index: i32,
}

/// Subsection `cpu_common/crash_occurred`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu_common/crash_occurred", version = 1)]
pub struct CrashOccurred {
    /// Whether the guest has crashed.
    pub crash_occurred: bool,
}

/// Section `riscv_mtimer`: the timer part of the CLINT.
///
/// Both arrays have an element for each hart; how many is not in the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "riscv_mtimer", version = 3)]
pub struct MTimer {
    /// What is added to the ticks of virtual time to give `mtime`.
    pub time_delta: u64,
    #[vmstate(skip = "number of harts, configured on both ends")]
    #[doc(hidden)]
    pub harts: u32,
    /// `mtimecmp` of each hart.
    #[vmstate(count = harts, max = 8)]
    pub timecmp: Vec<u64>,
    /// When each hart's timer is due, in ns of virtual time. QEMU arms its timers from these, not from `timecmp`.
    #[vmstate(count = harts, max = 8)]
    pub timers: Vec<Timer>,
}

impl MTimer {
    /// For so many harts, at most 8, all set to 0.
    #[must_use]
    pub fn new(harts: u32) -> Self {
        let n = harts as usize;
        Self {
            time_delta: 0,
            harts,
            timecmp: vec![0; n],
            timers: vec![Timer::default(); n],
        }
    }
}
