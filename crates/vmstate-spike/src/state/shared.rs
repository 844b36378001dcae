//! The sections beside `cpu`.

use vmstate::{Reason, Timer, VmState};

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

/// Section `globalstate`: what the source's machine was doing.
#[derive(Debug, Clone, PartialEq, Eq, VmState)]
#[vmstate(name = "globalstate", version = 1, post_load = Self::check)]
pub struct GlobalState {
    /// Length of the name with its terminating zero.
    pub size: u32,
    /// Name of the run state, ended by a zero.
    #[vmstate(buffer)]
    pub runstate: [u8; 32],
    /// 1: the next byte means something.
    pub has_vm_was_suspended: u8,
    /// 1 if the guest was suspended before the machine was stopped.
    pub vm_was_suspended: u8,
    /// Nothing. Carried.
    #[vmstate(buffer)]
    pub unused: [u8; 66],
}

impl Default for GlobalState {
    fn default() -> Self {
        Self {
            size: 1,
            runstate: [0; 32],
            has_vm_was_suspended: 1,
            vm_was_suspended: 0,
            unused: [0; 66],
        }
    }
}

impl GlobalState {
    /// The section for this run state; its name is cut after 31 bytes.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut state = Self::default();
        let room = state.runstate.len() - 1;
        for (to, byte) in state.runstate.iter_mut().zip(name.bytes().take(room)) {
            *to = byte;
            state.size += 1;
        }
        state
    }

    /// Name of the run state; none if it has no end or is no text.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let end = self.runstate.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(self.runstate.get(..end)?).ok()
    }

    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        match self.name() {
            Some(_) => Ok(()),
            None => Err("the run state's name has no end, or is no text".into()),
        }
    }
}
