//! A whole stream at once: saves a machine that stands still to a file, or loads one.
//!
//! The form is that of QEMU's migration to a file (`migrate file:…`), so either side loads what the other has saved.
//!
//! ```
//! use vmstate_engine::RunState;
//! use vmstate_spike::{Config, Machine, Program, guests, stream};
//!
//! let program = Some(Program::parse(guests::COUNTER)?);
//! let source = Machine::new(Config { program, ..Config::default() })?;
//! source.resume()?;
//! source.pause();
//! let mut file = Vec::new();
//! stream::save(&source, RunState::Running, &mut file)?;
//!
//! let destination = Machine::new(Config { incoming: true, ..Config::default() })?;
//! assert_eq!(stream::load(&destination, &file)?, RunState::Running);
//! assert_eq!(destination.virtual_time(), source.virtual_time());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod load;
mod save;

use std::io;

use vmstate::VmState;
use vmstate::wire::stream as wire;
use vmstate_ram::RamError;

pub use self::load::load;
pub use self::save::save;

/// A stream cannot be written, or is none for this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The framing is wrong.
    #[error(transparent)]
    Framing(#[from] wire::StreamError),
    /// RAM records are wrong.
    #[error("section ram: {0}")]
    Ram(#[from] RamError),
    /// A section refuses, or is wrong.
    #[error(transparent)]
    Device(#[from] vmstate::Error),
    /// A name or length that does not fit into its place.
    #[error("a part of the stream is too long")]
    TooLong,
    /// The output fails.
    #[error("the stream cannot be written: {0}")]
    Output(#[from] io::Error),
    /// Another machine.
    #[error("the stream is of machine {0}, not spike")]
    Machine(String),
    /// A section that the board does not have.
    #[error("section {name}/{instance_id} version {version} is none of this board's")]
    Section {
        /// Its name.
        name: String,
        /// Which one of that name.
        instance_id: u32,
        /// Its version.
        version: u32,
    },
    /// A RAM block that this machine does not have, or has in another size.
    #[error("RAM block {name} of {found:#x} bytes; here it has {expected:#x}")]
    Block {
        /// Its name.
        name: String,
        /// Bytes in the stream.
        found: u64,
        /// Bytes here; 0 if there is no such block.
        expected: u64,
    },
    /// Something that a stream in a file cannot have.
    #[error("{0} has no place in a file")]
    Foreign(&'static str),
    /// A run state that there is not.
    #[error("the run state {0:?} is unknown")]
    RunState(String),
    /// A section that must be there is not.
    #[error("the stream has no section {0}")]
    Missing(String),
}

/// What the trailer says of the configuration section.
#[derive(Debug, Default, VmState)]
#[vmstate(name = "configuration", version = 1)]
struct Described {
    len: u32,
    #[vmstate(buffer, count = len, max = 255)]
    name: Vec<u8>,
}
