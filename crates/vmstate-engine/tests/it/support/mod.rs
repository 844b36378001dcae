//! A machine, its memory, and channels between two of them, all in memory.

mod channel;
mod grinder;
mod late;
mod machine;
mod memory;
mod pair;

pub(crate) use channel::{Bytes, Pipe, Recorder};
pub(crate) use grinder::{Grinder, Mill};
pub(crate) use late::{Break, Format, LatePair};
pub(crate) use machine::{Toy, identity};
pub(crate) use memory::{TestLog, TestMemory};
pub(crate) use pair::{Fault, Pair};

pub(crate) const PAGE: u64 = 4096;
