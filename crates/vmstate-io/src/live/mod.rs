//! What a live migration runs on: channels that never block for ever, and guest memory.

mod connect;
mod link;
mod memory;
mod reader;
mod stop;
#[cfg(test)]
mod tests;
mod writer;

pub use connect::{ConnectError, Listener, connect_to};
pub use link::{Link, LinkKind};
pub use memory::{Block, MarkedLog, Memory};
pub use reader::StreamReader;
pub use stop::Stop;
pub use writer::{Counters, StreamWriter};
