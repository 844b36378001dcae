//! A whole stream at once: saves a machine that stands still to a file, or loads one.
//!
//! The form is that of QEMU's migration to a file (`migrate file:…`), so either side loads what the other has saved. It
//! is also the shortest example of how to drive the engine.
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
//! assert_eq!(stream::load(&destination, &*file)?, Some(RunState::Running));
//! assert_eq!(destination.virtual_time(), source.virtual_time());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod channel;

use std::io::{Read, Write};

use vmstate_engine::{
    Bql, Identity, Incoming, LoadError, LoadStep, Outgoing, Progress, Registry, RegistryError,
    RunState, SaveError, Settings,
};

use self::channel::{Input, Output};
use crate::Machine;
use crate::board::MACHINE;

/// A stream cannot be written, or is none for this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// It is none for this machine.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The machine's sections are not to be had.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Writes the stream of a machine that stands still; `was` is what its destination shall do. (A machine that runs gives a
/// stream that nobody should load.)
///
/// # Errors
/// [`FileError::Save`].
pub fn save(machine: &Machine, was: RunState, to: impl Write) -> Result<(), FileError> {
    machine.set_global_state(was);
    let mut registry = machine.registry()?;
    let bql = Bql::holding(());
    let mut out = Output::new(machine, to);
    let saved = write(&bql, &mut registry, &mut out);
    registry.save_cleanup(&bql);
    Ok(saved?)
}

fn write<W: Write>(
    bql: &Bql<'_>,
    registry: &mut Registry,
    out: &mut Output<'_, W>,
) -> Result<(), SaveError> {
    let mut stream = Outgoing::new(Settings::default(), Identity::new(MACHINE), false);
    stream.begin(out)?;
    stream.setup(bql, registry, out)?;
    while stream.iterate(registry, out)? == Progress::More {}
    stream.complete(bql, registry, out)?;
    stream.commit(out)?;
    stream.trailer(out)
}

/// Loads a whole stream into a machine that stands still, and says what the source was doing, if the stream says it: start
/// the machine if that is live.
///
/// # Errors
/// [`FileError::Load`]. The machine is then half loaded and must not run.
pub fn load(machine: &Machine, from: impl Read) -> Result<Option<RunState>, FileError> {
    let mut registry = machine.registry()?;
    let bql = Bql::holding(());
    let mut input = Input::new(machine, from);
    let loaded = read(&bql, &mut registry, &mut input);
    registry.load_cleanup(&bql);
    loaded?;
    Ok(machine.global_state())
}

fn read<R: Read>(
    bql: &Bql<'_>,
    registry: &mut Registry,
    input: &mut Input<'_, R>,
) -> Result<(), LoadError> {
    let mut stream = Incoming::new(Settings::default(), Identity::new(MACHINE));
    stream.begin(input)?;
    stream.setup(bql, registry)?;
    loop {
        match stream.next(input)? {
            LoadStep::Section => stream.section(Some(bql), registry, input)?,
            LoadStep::SwitchoverStart => stream.switchover_start(Some(bql), registry)?,
            // There is no way back from a file.
            LoadStep::OpenReturnPath | LoadStep::Send(_) => {}
            LoadStep::Eof => return stream.trailer(input),
            // Without a way back, a stream that goes on in postcopy has been refused.
            _ => return Err(LoadError::Order("postcopy")),
        }
    }
}
