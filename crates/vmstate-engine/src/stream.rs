//! Whole streams: every byte of the main channel, out and in.

mod configuration;
mod error;
mod incoming;
mod outgoing;

pub use self::configuration::Identity;
pub use self::error::{LoadError, SaveError};
pub(crate) use self::incoming::closed;
pub use self::incoming::{Incoming, LoadStep, Package, StateBuffer};
pub use self::outgoing::{Outgoing, PrecopyThread};
