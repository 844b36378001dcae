//! Whole streams: every byte of the main channel, out and in.

mod configuration;
mod error;
mod format;
mod incoming;
mod outgoing;
pub mod probe;
mod qemu;

pub use self::configuration::Identity;
pub use self::error::{LoadError, SaveError};
pub use self::format::{Element, Opening, SectionBody, SectionLoad, StreamDecoder, StreamEncoder};
pub(crate) use self::incoming::closed;
pub use self::incoming::{Incoming, LoadStep, Package, StateBuffer};
pub use self::outgoing::{Outgoing, PrecopyThread, ReceivedBitmaps};
