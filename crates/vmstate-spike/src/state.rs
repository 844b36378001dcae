//! The board's sections, declared with QEMU's names and types.
//!
//! (`globalstate` is `vmstate_engine::GlobalState`.) Each is a plain struct that travels: threads and devices copy to and from it while the guest stands still.

mod cpu;
mod extensions;
mod priorities;
mod shared;

pub use self::cpu::{Counter, Cpu, MACHINE_MODE, NO_RESERVATION};
pub use self::extensions::{
    ControlTransferRecords, Debug, EnvironmentConfig, Hypervisor, LandingPad, Pmp, PmpEntry,
    SecurityConfig, ShadowStack, StateEnable, SupervisorTimers, Vector,
};
pub use self::shared::{Clocks, CpuCommon, CrashOccurred, ExceptionIndex, INTERRUPT_HARD, MTimer};
