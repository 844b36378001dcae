//! What a stream parser reports.

use super::command::Command;
use super::configuration::Configuration;
use super::types::{SectionHeader, SectionId};

/// What [`StreamParser::next`](super::StreamParser::next) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing can be said before there are at least `min` bytes of input, counted from the first
    /// one that has not been consumed. If there are no more, call
    /// [`StreamParser::finish`](super::StreamParser::finish).
    NeedMore {
        /// Bytes needed, in all.
        min: usize,
    },
    /// Something was read: drop `consumed` bytes from the front of the input.
    Event {
        /// How many bytes the event took.
        consumed: usize,
        /// What it was.
        event: Event<'a>,
    },
    /// The body of a section comes next, or goes on: the caller reads it and says so with
    /// [`StreamParser::body_done`](super::StreamParser::body_done).
    InBody,
    /// The stream, or the package, is complete. Bytes that follow do not belong to it.
    End,
}

/// One piece of a stream.
///
/// A stream is reported as `Header`, `Configuration`, then `Section` … `SectionClosed` and `Command`
/// in any order, `Eof`, and `TrailerBegin`, `TrailerChunk` …, `TrailerEnd`. `PackageBegin` and
/// `PackageEnd` enclose the elements of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The file header: magic and version are right.
    Header,
    /// The configuration section.
    Configuration(Configuration),
    /// Something odd that stock QEMU accepts, or half accepts.
    Warning(Warning),
    /// The header of a section, of any kind; its body comes next. For PART and END, owner and
    /// version are those of the id's last START or FULL.
    Section(SectionHeader),
    /// The end of a section; its footer, if the stream has footers, was right.
    SectionClosed {
        /// The section's id.
        section_id: SectionId,
        /// Length of the body in bytes, as the caller reported it.
        body_length: u64,
        /// Whether there was a footer.
        footer: bool,
    },
    /// A command, except PACKAGED.
    Command(Command),
    /// The command PACKAGED: the elements up to `PackageEnd` are those of the package. See
    /// [`StreamParser::take_package`](super::StreamParser::take_package) for another way.
    PackageBegin {
        /// Length of the package in bytes.
        length: u32,
    },
    /// Bytes of a package behind `POSTCOPY_RUN`, which mean nothing. May come in several pieces.
    PackageTail(&'a [u8]),
    /// The end of a package.
    PackageEnd,
    /// The end-of-stream mark.
    Eof,
    /// The description trailer begins.
    TrailerBegin {
        /// Length of its text in bytes.
        length: u32,
    },
    /// A piece of the trailer's text, never empty.
    TrailerChunk(&'a [u8]),
    /// The trailer is complete.
    TrailerEnd,
}

/// Something odd in a stream that is no reason to refuse it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// An iterative section has id 0. A stock destination takes its PART and END sections for those
    /// of whichever device it has not loaded yet. Reported once per stream, before the section.
    #[error("iterative section {idstr}/{instance_id} has id 0, stock QEMU cannot load its later pieces",
        idstr = .0.idstr, instance_id = .0.instance_id)]
    SectionIdZero(SectionHeader),
    /// The byte behind the end-of-stream mark does not begin a trailer. The parser stops before it.
    #[error(
        "byte {found:#04x} behind the end-of-stream mark is not the description trailer (0x06)"
    )]
    NotATrailer {
        /// The byte.
        found: u8,
    },
}
