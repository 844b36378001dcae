//! Errors that know where they are: frame, byte offset, expected and found.

use std::borrow::Cow;
use std::fmt;

use crate::frame::FrameKind;

/// What went wrong, without the place. See [`BerError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BerErrorKind {
    /// A value is longer than what encloses it, or something is missing at its end.
    #[error("{needed} bytes needed, {available} left in what encloses them")]
    Truncated {
        /// Bytes that the value needs.
        needed: u64,
        /// Bytes that are left.
        available: u64,
    },
    /// Not the first bytes of a stream of this protocol.
    #[error("not a stream of vmstate-ber/1: its first bytes are {found:02x?}")]
    Magic {
        /// What stands there.
        found: Vec<u8>,
    },
    /// An indefinite length inside a frame; only the outer envelope has one.
    #[error("indefinite length inside a frame")]
    Indefinite,
    /// End-of-contents octets inside a frame, or with content.
    #[error("end-of-contents where none can be")]
    EndOfContents,
    /// A length of more than four octets, or the reserved one.
    #[error("length octet {found:#04x} is not allowed: at most four octets follow")]
    LengthForm {
        /// The first length octet.
        found: u8,
    },
    /// A tag number above 30, which takes several identifier octets.
    #[error("identifier octet {found:#04x} begins a tag number above 30")]
    HighTag {
        /// The identifier octet.
        found: u8,
    },
    /// Not the one encoding that DER allows.
    #[error("not canonical: {0}")]
    NotCanonical(&'static str),
    /// Another type than expected.
    #[error("{expected} expected, found identifier octet {found:#04x}")]
    Tag {
        /// What is expected.
        expected: &'static str,
        /// The identifier octet that came.
        found: u8,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A number outside of its range.
    #[error("{what} {found} is outside of {minimum}..={maximum}")]
    Range {
        /// What is out of range.
        what: &'static str,
        /// The number.
        found: i128,
        /// Lowest legal number.
        minimum: i128,
        /// Highest legal number.
        maximum: i128,
    },
    /// A number that names none of the choices.
    #[error("{found} is no {what}")]
    Choice {
        /// What is chosen.
        what: &'static str,
        /// The number.
        found: i128,
    },
    /// Something is left over behind the last member.
    #[error("{count} bytes are left over")]
    Surplus {
        /// How many.
        count: u64,
    },
    /// A member or frame of a later revision, which must not be ignored.
    #[error("identifier octet {found:#04x} is not known and must not be ignored")]
    Critical {
        /// The identifier octet.
        found: u8,
    },
    /// The checksum is wrong: the frame was damaged.
    #[error("checksum {found:#010x} does not fit the content, which has {computed:#010x}")]
    Checksum {
        /// As it came.
        found: u32,
        /// As the content has it.
        computed: u32,
    },
    /// The digest of the stream is wrong: it was damaged.
    #[error("the digest of the stream does not fit its content")]
    Digest,
    /// Something that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A limit of this end.
    #[error("{what}: {found} exceeds the limit of {limit}")]
    Limit {
        /// What is too large or too many.
        what: &'static str,
        /// How large.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A frame where it must not be.
    #[error("{what}")]
    OutOfTurn {
        /// What is wrong.
        what: &'static str,
    },
    /// A number in the frame `End` that does not fit the stream.
    #[error("the stream has {found} {what}, its last frame says {expected}")]
    EndMismatch {
        /// `frames` or `octets`.
        what: &'static str,
        /// What the frame says.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A type that no frame has defined.
    #[error("type {id} is not defined")]
    UnknownType {
        /// The number.
        id: u32,
    },
    /// A type's number that is defined already.
    #[error("type {id} is defined twice")]
    DuplicateType {
        /// The number.
        id: u32,
    },
    /// Types that contain themselves.
    #[error("type {id} ({name}) contains itself")]
    CircularType {
        /// The number of a type on the circle.
        id: u32,
        /// Its name.
        name: String,
    },
    /// A type that breaks a rule of descriptions, or says what no description of ours can say.
    #[error("type {name}: {what}")]
    Type {
        /// Type, and field.
        name: String,
        /// What is wrong.
        what: Cow<'static, str>,
    },
    /// A device's state is wrong: with the path of the field.
    #[error("{0}")]
    State(vmstate_desc::Error),
}

/// An error of the format: what, and where.
///
/// ```
/// use vmstate_ber::BerErrorKind;
/// let error = BerErrorKind::Indefinite.at(0x2a);
/// assert_eq!(error.to_string(), "indefinite length inside a frame (byte 0x2a)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BerError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: BerErrorKind,
    offset: u64,
    frame: Option<(FrameKind, u64)>,
    section: Option<String>,
}

impl BerErrorKind {
    /// The error at this byte of the stream.
    #[must_use]
    pub fn at(self, offset: u64) -> BerError {
        BerError(Box::new(Inner {
            kind: self,
            offset,
            frame: None,
            section: None,
        }))
    }
}

impl BerError {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &BerErrorKind {
        &self.0.kind
    }

    /// Byte offset in the stream.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// The frame, and the byte offset at which it begins.
    #[must_use]
    pub fn frame(&self) -> Option<(FrameKind, u64)> {
        self.0.frame
    }

    /// Name and instance id of the section, where the error is in a device's state.
    #[must_use]
    pub fn section(&self) -> Option<&str> {
        self.0.section.as_deref()
    }

    /// The same error in this frame, unless it has one.
    #[must_use]
    pub fn in_frame(mut self, kind: FrameKind, offset: u64) -> Self {
        self.0.frame.get_or_insert((kind, offset));
        self
    }

    /// The same error in this section, unless it has one.
    #[must_use]
    pub fn in_section(mut self, idstr: &str, instance: u32) -> Self {
        self.0
            .section
            .get_or_insert_with(|| format!("{idstr}/{instance}"));
        self
    }

    /// The same error as one of a device's state.
    #[must_use]
    pub fn into_state(self) -> vmstate_desc::Error {
        match self.0.kind {
            BerErrorKind::State(error) => error,
            kind => vmstate_desc::Error::format(kind.to_string()).at_offset(self.0.offset),
        }
    }
}

impl fmt::Display for BerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(section) = &inner.section {
            write!(f, "section {section}: ")?;
        }
        write!(f, "{}", inner.kind)?;
        // An error of a device's state has its own place, unless it is one of the device alone.
        let placed = matches!(&inner.kind, BerErrorKind::State(e) if e.offset().is_some());
        match (placed, inner.frame) {
            (true, None) => Ok(()),
            (true, Some((kind, offset))) => write!(f, " (frame {kind} at {offset:#x})"),
            (false, None) => write!(f, " (byte {:#x})", inner.offset),
            (false, Some((kind, offset))) => {
                write!(
                    f,
                    " (byte {:#x}, frame {kind} at {offset:#x})",
                    inner.offset
                )
            }
        }
    }
}

impl std::error::Error for BerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            BerErrorKind::State(error) => Some(error),
            _ => None,
        }
    }
}

impl From<vmstate_desc::Error> for BerError {
    fn from(error: vmstate_desc::Error) -> Self {
        let offset = error.offset().unwrap_or(0);
        BerErrorKind::State(error).at(offset)
    }
}
