//! A machine, its memory, and channels between two of them, all in memory.

mod channel;
mod grinder;
mod machine;
mod memory;

pub(crate) use channel::{Bytes, Recorder};
pub(crate) use grinder::{Grinder, Mill};
pub(crate) use machine::{Toy, identity};
pub(crate) use memory::{TestLog, TestMemory};

pub(crate) const PAGE: u64 = 4096;
