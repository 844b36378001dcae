//! Live migration: channels that never block for ever, guest memory, and the threads that drive the engine's machines.
//!
//! A VMM describes itself as a [`Vmm`] and gets a [`Migrator`], which takes the commands.

mod ber;
mod commands;
mod connect;
mod link;
mod memory;
mod migrator;
mod monitor;
mod reader;
mod stop;
#[cfg(test)]
mod tests;
mod writer;

pub use crate::descriptors::{DescriptorError, Descriptors};
pub use ber::{BerDecoder, BerEncoder};
pub use commands::add_negotiation_commands;
pub use connect::{ConnectError, Listener, connect_to};
pub use link::{Link, LinkKind};
pub use memory::{Block, MappedMemory, MarkedLog, Memory};
pub use migrator::{
    Deadlines, MigrateError, MigrationEvent, MigrationInProgress, Migrator, Negotiated, Vmm,
};
pub use monitor::{Monitor, RunControl};
pub use reader::StreamReader;
pub use stop::Stop;
pub use vmstate_qmp::address::MigrationAddress;
pub use writer::{Counters, StreamWriter};
