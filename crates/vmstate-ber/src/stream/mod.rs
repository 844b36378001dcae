//! Whole streams: the envelope of indefinite length with its frames, in pieces of any size.

mod ahead;
mod parser;
mod writer;

pub use ahead::Ahead;
pub use parser::{Parser, Step};
pub use writer::{Section, Writer};

/// The first octets of every stream: the envelope, and the protocol's name and version.
///
/// | offset | size | meaning |
/// |---|---|---|
/// | 0 | 2 | `60 80`: \[APPLICATION 0\], indefinite length |
/// | 2 | 2 | `0c 0d`: `UTF8String` of 13 octets |
/// | 4 | 13 | `vmstate-ber/1` |
pub const MAGIC: [u8; 17] = *b"\x60\x80\x0c\x0dvmstate-ber/1";

/// The last octets: end of contents.
pub const END_OF_CONTENTS: [u8; 2] = [0, 0];

/// Whether bytes begin a stream of this protocol, as far as they go.
#[must_use]
pub fn is_stream(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().zip(MAGIC).all(|(a, b)| *a == b)
}
