//! Refusals of the forward path, with the place where they happened.

use std::fmt;

use thiserror::Error;

use super::command::CommandId;
use super::types::{FILE_MAGIC, SectionId, SectionKind, SectionName, StreamOffset, write_lossy};

/// A stream was refused: what was wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    offset: StreamOffset,
    kind: StreamErrorKind,
}

impl StreamError {
    /// An error of `kind` at `offset`.
    #[must_use]
    pub fn new(kind: StreamErrorKind, offset: StreamOffset) -> Self {
        Self(Box::new(Inner { offset, kind }))
    }

    /// What was wrong.
    #[must_use]
    pub fn kind(&self) -> &StreamErrorKind {
        &self.0.kind
    }

    /// Where: the first byte that is wrong, or the end of a stream that ended too early.
    #[must_use]
    pub fn offset(&self) -> StreamOffset {
        self.0.offset
    }

    /// Who is at fault.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.0.kind.blame()
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.0.kind, self.0.offset)
    }
}

impl std::error::Error for StreamError {}

/// Who is at fault for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The bytes are not a migration stream, or a damaged one.
    Malformed,
    /// Legal bytes at a place where they are not.
    PeerMisbehaved,
    /// A stream of a dialect or release that this reader was not set up for.
    Incompatible,
    /// A bound of the reader's own was exceeded.
    Limit,
    /// The calling code broke the parser's contract.
    Misuse,
}

/// What was wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StreamErrorKind {
    /// The input ended where more had to come.
    #[error("stream ends {place}")]
    UnexpectedEnd {
        /// What was being read.
        place: Place,
    },

    /// The first four bytes are not the file magic.
    #[error(
        "not a migration stream: expected the magic {expected:#010x}, found {found:#010x}",
        expected = FILE_MAGIC
    )]
    BadMagic {
        /// The first four bytes, big-endian.
        found: u32,
    },
    /// Format version 2, which no QEMU of the last decade writes.
    #[error("stream format version 2 is obsolete, only version 3 can be read")]
    ObsoleteVersion,
    /// A format version other than 2 and 3.
    #[error("stream format version {found} is unknown, only version 3 can be read")]
    UnsupportedVersion {
        /// The version of the header.
        found: u32,
    },

    /// The dialect has a configuration section, the stream has not.
    #[error("expected the configuration section (0x07) after the header, found {found:#04x}")]
    MissingConfiguration {
        /// The byte after the header.
        found: u8,
    },
    /// A machine name of no bytes.
    #[error("machine name in the configuration section is empty")]
    EmptyMachineName,
    /// A machine name longer than the bound.
    #[error("machine name has {length} bytes, at most {limit} are allowed")]
    MachineNameTooLong {
        /// Announced length in bytes.
        length: u32,
        /// The bound.
        limit: u32,
    },
    /// A subsection of the configuration that nobody has defined.
    #[error("unknown subsection \"{}\" in the configuration section", Lossy(name))]
    UnknownConfigurationSubsection {
        /// Its name.
        name: Vec<u8>,
    },
    /// A subsection of the configuration in another version than 1.
    #[error("subsection {name} has version {found}, only version 1 is known")]
    ConfigurationSubsectionVersion {
        /// Its name.
        name: &'static str,
        /// The version of the stream.
        found: u32,
    },
    /// More capability names than the bound.
    #[error("configuration lists {count} capabilities, at most {limit} are allowed")]
    TooManyCapabilities {
        /// Announced count.
        count: u32,
        /// The bound.
        limit: u32,
    },

    /// A type byte that does not exist.
    #[error("unknown element type {found:#04x}")]
    UnknownElement {
        /// The byte.
        found: u8,
    },
    /// 0x05 where an element should begin.
    #[error("subsection mark (0x05) outside of a section{}", after(previous))]
    StraySubsection {
        /// The section before it.
        previous: Option<SectionName>,
    },
    /// 0x06 before the end-of-stream mark.
    #[error(
        "description trailer (0x06) before the end-of-stream mark{}",
        after(previous)
    )]
    StrayTrailer {
        /// The section before it.
        previous: Option<SectionName>,
    },
    /// 0x07 anywhere but after the header, or in a dialect without configuration.
    #[error("configuration section (0x07) at an unexpected place")]
    StrayConfiguration,
    /// 0x7e where an element should begin.
    #[error(
        "section footer (0x7e) where an element should begin{}",
        after(previous)
    )]
    StrayFooter {
        /// The section before it.
        previous: Option<SectionName>,
    },

    /// A START or FULL without a name.
    #[error("section {section_id} has an empty idstr")]
    EmptyIdStr {
        /// The section's id.
        section_id: SectionId,
    },
    /// A PART or END whose id no START or FULL has defined.
    #[error("{kind} of section {section_id}, which was never started")]
    UnknownSection {
        /// PART or END.
        kind: SectionKind,
        /// The id.
        section_id: SectionId,
    },
    /// A START or FULL that gives an id to a second owner.
    #[error("section id is already that of {known}, now used for {found}")]
    SectionRedefined {
        /// The section as known.
        known: Box<SectionName>,
        /// The section as it came.
        found: Box<SectionName>,
    },
    /// More sections than the bound.
    #[error("stream has more than {limit} sections")]
    TooManySections {
        /// The bound.
        limit: usize,
    },
    /// A body is not followed by the mark of a footer.
    #[error(
        "body of section {section} is not followed by a footer: expected 0x7e, found {found:#04x}"
    )]
    FooterMark {
        /// The section whose body ended here.
        section: SectionName,
        /// The byte in place of the mark.
        found: u8,
    },
    /// A footer with the id of another section.
    #[error("footer of section {section} carries id {}", named(found, found_name.as_deref()))]
    FooterId {
        /// The section whose body ended here.
        section: SectionName,
        /// The id in the footer.
        found: SectionId,
        /// The section of that id, if there is one.
        found_name: Option<Box<SectionName>>,
    },

    /// A command number that does not exist.
    #[error("unknown command {id}", id = id.0)]
    UnknownCommand {
        /// The number.
        id: CommandId,
    },
    /// A command whose payload has the wrong length.
    #[error("command {command} has {found} bytes of payload, expected {expected}")]
    CommandLength {
        /// The command.
        command: CommandId,
        /// What would be right.
        expected: &'static str,
        /// Length of the payload in bytes.
        found: u16,
    },
    /// A byte in a command's payload that has to have a certain value.
    #[error("command {command}: {field} is {found}, expected 0")]
    CommandField {
        /// The command.
        command: CommandId,
        /// Which byte.
        field: &'static str,
        /// Its value.
        found: u8,
    },
    /// A block name in a command that is empty or does not fit its payload.
    #[error("command {command}: block name of {found} bytes does not fit the payload")]
    CommandBlockName {
        /// The command.
        command: CommandId,
        /// The length byte.
        found: u8,
    },

    /// A package larger than the bound.
    #[error("package has {length} bytes, at most {limit} are allowed")]
    PackageTooLong {
        /// Announced length in bytes.
        length: u32,
        /// The bound.
        limit: u32,
    },
    /// A command in a package that reads its payload from the main channel.
    #[error("command {command} cannot stand inside a package")]
    CommandInPackage {
        /// The command.
        command: CommandId,
    },
    /// An end-of-stream mark inside a package.
    #[error("end-of-stream mark inside a package")]
    EofInPackage,
    /// An element that goes on beyond the end of its package.
    #[error("package ends at byte {end} {place}")]
    PackageOverrun {
        /// Where the package ends.
        end: StreamOffset,
        /// What was being read.
        place: Place,
    },

    /// Something else than the trailer after the end-of-stream mark, where it is required.
    #[error(
        "expected the description trailer (0x06) after the end-of-stream mark, found {found:#04x}"
    )]
    MissingTrailer {
        /// The byte found.
        found: u8,
    },
    /// A trailer longer than the bound.
    #[error("description trailer has {length} bytes, at most {limit} are allowed")]
    TrailerTooLong {
        /// Announced length in bytes.
        length: u32,
        /// The bound.
        limit: u32,
    },

    /// The caller reported bytes of a body while there was none.
    #[error("no section body is being read")]
    NotInBody,
    /// The caller asked to take a package that had not just begun.
    #[error("no package has just begun")]
    NotAtPackage,
}

impl StreamErrorKind {
    /// Who is at fault.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::ObsoleteVersion
            | Self::UnsupportedVersion { .. }
            | Self::MissingConfiguration { .. }
            | Self::UnknownConfigurationSubsection { .. }
            | Self::ConfigurationSubsectionVersion { .. }
            | Self::UnknownCommand { .. }
            | Self::MissingTrailer { .. } => Blame::Incompatible,
            Self::StraySubsection { .. }
            | Self::StrayTrailer { .. }
            | Self::StrayConfiguration
            | Self::StrayFooter { .. }
            | Self::UnknownSection { .. }
            | Self::SectionRedefined { .. }
            | Self::CommandInPackage { .. }
            | Self::EofInPackage => Blame::PeerMisbehaved,
            Self::MachineNameTooLong { .. }
            | Self::TooManyCapabilities { .. }
            | Self::TooManySections { .. }
            | Self::PackageTooLong { .. }
            | Self::TrailerTooLong { .. } => Blame::Limit,
            Self::NotInBody | Self::NotAtPackage => Blame::Misuse,
            _ => Blame::Malformed,
        }
    }
}

/// What was being read when a stream or a package ended; completes "stream ends ...".
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The eight bytes of the file header.
    FileHeader,
    /// The configuration section.
    Configuration,
    /// Between two elements, where another element or the end-of-stream mark belongs.
    BetweenElements,
    /// A section's header; its id, if that much had come.
    SectionHeader(Option<SectionId>),
    /// A section's body.
    Body(SectionName),
    /// A section's footer, or the place where it belongs.
    Footer(SectionName),
    /// A command; its number, if that much had come.
    Command(Option<CommandId>),
    /// A package, between its elements or behind its last one.
    Package,
    /// Behind the end-of-stream mark, where the trailer is required.
    BeforeTrailer,
    /// The type byte and length of the trailer.
    TrailerHeader,
    /// The text of the trailer.
    Trailer {
        /// Bytes that are there.
        have: u32,
        /// Bytes that were announced.
        length: u32,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileHeader => f.write_str("inside the file header"),
            Self::Configuration => f.write_str("inside the configuration section"),
            Self::BetweenElements => {
                f.write_str("inside the list of sections, before the end-of-stream mark")
            }
            Self::SectionHeader(None) => f.write_str("inside the header of a section"),
            Self::SectionHeader(Some(id)) => write!(f, "inside the header of section {id}"),
            Self::Body(name) => write!(f, "inside the body of section {name}"),
            Self::Footer(name) => write!(f, "inside the footer of section {name}"),
            Self::Command(None) => f.write_str("inside a command"),
            Self::Command(Some(id)) => write!(f, "inside the command {id}"),
            Self::Package => f.write_str("inside a package"),
            Self::BeforeTrailer => f.write_str("before the description trailer"),
            Self::TrailerHeader => f.write_str("inside the header of the description trailer"),
            Self::Trailer { have, length } => write!(
                f,
                "inside the description trailer ({have} of {length} bytes)"
            ),
        }
    }
}

struct Lossy<'a>(&'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lossy(f, self.0)
    }
}

fn after(previous: &Option<SectionName>) -> String {
    previous
        .as_ref()
        .map_or_else(String::new, |name| format!(", after section {name}"))
}

fn named(id: &SectionId, name: Option<&SectionName>) -> String {
    name.map_or_else(|| format!("{id} (no such section)"), ToString::to_string)
}
