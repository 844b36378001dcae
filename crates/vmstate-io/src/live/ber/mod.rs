//! VM state over BER as the format of a live migration: frames of `vmstate-ber` under the engine's streams.
//!
//! ```text
//! source       Hello ─▶ ◀─ Hello, Verdict    Phase setup, Machine, TypeDef…, RamBlocks, RamPages…, DeviceState…, End
//! destination                                Reply…, End
//! ```
//!
//! Pages of a running guest go from where they are to where they belong. A file gets a digest instead, which wants bytes that stand
//! still: there, pages are copied.

mod answers;
mod body;
mod decoder;
mod element;
mod encoder;
mod handshake;
mod pages;
mod section;

pub(super) use self::answers::{Replies, ReplyWriter, Said};
pub use self::decoder::BerDecoder;
pub use self::encoder::BerEncoder;
pub(super) use self::handshake::{check, is_channel, of_channel, of_file};
pub(super) use self::section::PageChannel;

use vmstate_ber::BerError;
use vmstate_engine::{HandlerError, LoadError, SaveError};

/// Name, instance id and version of the section of guest RAM, which frames of pages do not say.
const RAM: (&str, u32, u32) = ("ram", 0, vmstate_engine::RAM_VERSION);

/// Number of the main channel when it replaces one that has broken.
pub(super) const MAIN: u64 = 0;
/// Number of the channel of requested pages.
pub(super) const URGENT: u64 = 1;

/// Why a connection does not go on.
const OTHER: &str = "a channel of another migration, or another channel of this one";

fn handler_error(error: BerError) -> HandlerError {
    HandlerError::Format(Box::new(error))
}

fn load_error(error: BerError) -> LoadError {
    LoadError::Format(Box::new(error))
}

fn save_error(error: BerError) -> SaveError {
    SaveError::Format(Box::new(error))
}
