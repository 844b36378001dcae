//! A machine, its memory, and channels between two of them, all in memory.

mod channel;
mod grinder;
mod late;
mod machine;
mod memory;
mod pair;
mod urgent;

pub(crate) use channel::{Bytes, Pipe, Recorder};
pub(crate) use grinder::{Grinder, Mill};
pub(crate) use late::{Break, Format, LatePair};
pub(crate) use machine::{MORE, Toy, identity};
pub(crate) use memory::{TestLog, TestMemory};
pub(crate) use pair::{Fault, Pair};
pub(crate) use urgent::Urgent;

pub(crate) const PAGE: u64 = 4096;
