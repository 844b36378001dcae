//! Guest RAM as one handler among others.

mod counters;
mod dirty;

pub use self::counters::{RamCounters, RamTotals};
pub use self::dirty::DirtyPages;
