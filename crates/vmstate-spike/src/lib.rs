#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod board;
mod clint;
mod clock;
mod error;
pub mod guests;
mod hart;
mod htif;
mod machine;
mod memory;
mod program;
mod recorder;
mod rom;
mod section;
pub mod state;
pub mod stream;
mod vmm;

pub use self::error::{GuestError, ProgramError, SpikeError};
pub use self::htif::HtifAddresses;
pub use self::machine::{Config, Event, Machine, Occurrence};
pub use self::memory::{Block, Dirty, Memory};
pub use self::program::Program;
pub use self::recorder::{Recorder, RecorderConfig, WrongEntry};
pub use self::section::Section;
