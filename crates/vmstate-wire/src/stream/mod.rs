//! The framing of a migration stream: reading and writing everything around the bodies of sections.
//!
//! ```text
//! stream        := header [configuration] element* eof [trailer]
//! element       := section | command
//! section       := START | PART | END | FULL, each: header, body, [footer]
//! ```
//!
//! A section has no length: only who understands its body knows where it ends. So the parser hands
//! over to its caller at each body and takes over again behind it.
//!
//! | to | use |
//! |---|---|
//! | read a stream | [`StreamParser`], told what to expect by [`ParserOptions`] |
//! | write a stream | the functions of [`write`](mod@write) |
//! | get past a body that one cannot decode | [`infer_body_end`], [`BodyEndScanner`] |
//! | find the description trailer of a file | [`find_trailer`] |
//! | read and write messages to the source | [`ReturnPathParser`], [`put_message`], [`put_bitmap`] |
//! | speak as an older machine type does | [`Dialect`] |
//!
//! Nothing here does I/O or keeps input, no length taken from the stream decides how much memory is
//! used before it is checked against a bound, and no bytes whatsoever make it panic.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod command;
mod configuration;
mod error;
mod event;
mod infer;
mod options;
mod parser;
mod return_path;
mod sections;
mod take;
#[cfg(test)]
mod tests;
mod trailer;
mod types;
#[cfg(test)]
pub(crate) mod vectors;
pub mod write;

pub use command::{Command, CommandId, DiscardRange, PostcopyAdvise};
pub use configuration::{Capability, Configuration, ConfigurationSubsection, MachineName};
pub use error::{Blame, Place, StreamError, StreamErrorKind};
pub use event::{Event, Step, Warning};
pub use infer::{BodyEnd, BodyEndScanner, Evidence, InferContext, InferredEnd, infer_body_end};
pub use options::{Dialect, Limits, ParserOptions, Presence, ZeroPageDetection};
pub use parser::StreamParser;
pub use return_path::{
    BITMAP_END, MAX_MESSAGE, ReturnEvent, ReturnMessage, ReturnMessageId, ReturnPathError,
    ReturnPathErrorKind, ReturnPathParser, ReturnPlace, ReturnStep, put_bitmap, put_message,
};
pub use sections::SectionTable;
pub use trailer::{FIRST_TAIL, TrailerPosition, TrailerSearch, find_trailer, find_trailer_within};
pub use types::{
    BlockName, FILE_MAGIC, FILE_VERSION, IdStr, InstanceId, NameLengthError, OBSOLETE_FILE_VERSION,
    SectionHeader, SectionId, SectionKind, SectionName, StreamOffset, VersionId,
};
