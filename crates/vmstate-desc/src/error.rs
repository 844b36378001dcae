//! Errors that know where they are: section, field path, byte offset, expected and found.

use std::borrow::Cow;
use std::fmt;

/// Why a device refuses: the text of a hook, a validator or a conversion.
///
/// Hooks return it; the engine turns it into an [`Error`] with field path and byte offset.
///
/// ```
/// use vmstate_desc::Reason;
/// let r: Reason = "queue size is not a power of two".into();
/// assert_eq!(r.to_string(), "queue size is not a power of two");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(Cow<'static, str>);

impl Reason {
    /// A reason with this text: lower case, no full stop, values included.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reason {}

impl From<&'static str> for Reason {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

/// What went wrong, without the place. See [`Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is over before the value is complete.
    #[error("stream ends inside {inside}: {needed} bytes needed, {available} left")]
    UnexpectedEnd {
        /// What was being read: a codec's name, `marker`, `subsection header`.
        inside: Cow<'static, str>,
        /// Bytes that the value needs.
        needed: u64,
        /// Bytes that are left.
        available: u64,
    },
    /// A version outside of what this end can load.
    #[error("version {found} of {name} is not loadable: this end knows {minimum}..={current}")]
    Version {
        /// Name of the description.
        name: String,
        /// The version that came.
        found: u32,
        /// Lowest version that can be loaded.
        minimum: u32,
        /// Highest version that can be loaded.
        current: u32,
    },
    /// A value that must equal the target's own does not.
    #[error("must equal the destination's value {expected}, found {found}")]
    NotEqual {
        /// The target's own value.
        expected: String,
        /// The value in the stream.
        found: String,
    },
    /// A value outside of its bounds.
    #[error("{what} {found} is outside of {minimum}..={maximum}")]
    OutOfRange {
        /// `count`, `size`, `value`.
        what: &'static str,
        /// The value that came.
        found: String,
        /// Lowest legal value.
        minimum: i64,
        /// Highest legal value.
        maximum: u64,
    },
    /// The number of elements does not agree with the count field.
    #[error("has {found} elements, but {field} says {expected}")]
    CountMismatch {
        /// The count field.
        field: String,
        /// What the count field says.
        expected: u64,
        /// Elements that are there.
        found: u64,
    },
    /// The marker before an element of an array of pointers is neither `0` nor `1`.
    #[error("marker {found:#04x} is neither {expected}")]
    Marker {
        /// The markers that are legal here, for people.
        expected: &'static str,
        /// The byte that came.
        found: u8,
    },
    /// A present element where the other end has a hole, or the reverse.
    #[error("{expected} expected, found {found}")]
    Hole {
        /// What this end has in the slot.
        expected: &'static str,
        /// What the stream or the device has.
        found: &'static str,
    },
    /// A tree announces another number of nodes than it has.
    #[error("tree announces {announced} nodes, but has {found}")]
    TreeCount {
        /// Number in front of the nodes.
        announced: u64,
        /// Number of nodes that came, or one more than announced.
        found: u64,
    },
    /// A subsection with the owner's prefix that the owner does not declare.
    #[error("subsection {found} does not exist in {owner} (known: {known})")]
    UnknownSubsection {
        /// Name of the owning description.
        owner: String,
        /// Name in the stream.
        found: String,
        /// Names that the owner declares.
        known: String,
    },
    /// A discriminant's value for which a variant has no case.
    #[error("{discriminant} is {found}, for which there is no case (known: {known})")]
    UnknownCase {
        /// Name of the discriminant.
        discriminant: String,
        /// Its value.
        found: i64,
        /// Values that have cases.
        known: String,
    },
    /// A variant's state is not that of the case which the discriminant names.
    #[error("{discriminant} is {value}, so {expected} is expected, found {found}")]
    WrongCase {
        /// Name of the discriminant.
        discriminant: String,
        /// Its value.
        value: i64,
        /// The case's description.
        expected: String,
        /// What the device or the stream has.
        found: String,
    },
    /// A field that must exist does not pass its test.
    #[error("validation failed")]
    MustExist,
    /// The device refused: a hook, a validator, a conversion.
    #[error("{hook} refused: {reason}")]
    Refused {
        /// `pre_save`, `post_load`, `validate`, …
        hook: &'static str,
        /// The device's reason.
        reason: Reason,
    },
    /// A snapshot could not be taken, or a loaded one not be put back.
    #[error("{hook} refused{}{}: {reason}", if value.is_some() { " " } else { "" }, value.as_deref().unwrap_or_default())]
    Invalid {
        /// `snapshot` or `restore`.
        hook: &'static str,
        /// The value that is refused, where there is one.
        value: Option<String>,
        /// The device's reason.
        reason: Reason,
    },
    /// Descriptions are nested deeper than the limit.
    #[error("descriptions are nested deeper than {limit}")]
    TooDeep {
        /// The limit.
        limit: u32,
    },
    /// The stream asks for more memory than the limit allows.
    #[error("{requested} bytes more would exceed the memory limit of {limit} bytes")]
    Memory {
        /// Bytes asked for.
        requested: u64,
        /// The limit in force.
        limit: u64,
    },
    /// The source's type and this end's do not fit, where a format tells.
    #[error("expected {expected}, found {found} [{rule}]")]
    Incompatible {
        /// The rule that forbids it, such as `E-UNKNOWN`.
        rule: &'static str,
        /// What this end has.
        expected: Cow<'static, str>,
        /// What the source has.
        found: Cow<'static, str>,
    },
    /// A device that can not be migrated.
    #[error("state blocked by non-migratable device {name}")]
    Unmigratable {
        /// Name of the description.
        name: String,
    },
    /// The accessor offers something else than the description says: a mistake in a hand-written implementation.
    #[error("accessor and description disagree: {expected} described, {found} given")]
    Accessor {
        /// What the description says.
        expected: Cow<'static, str>,
        /// What the accessor offered or asked for.
        found: Cow<'static, str>,
    },
    /// Hand-written code asks for something else than comes next.
    #[error("the code asks for {asked}, and {found} comes next")]
    Asked {
        /// Name and type that it asks for.
        asked: Cow<'static, str>,
        /// Name and type of what there is.
        found: Cow<'static, str>,
    },
    /// A format's own error, in words.
    #[error("{0}")]
    Format(Cow<'static, str>),
}

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Segment {
    /// A description: the root, or a subsection.
    Description(String),
    /// A field.
    Field(String),
    /// An element of an array or list, from 0.
    Index(u64),
}

/// Where in a device: `nvme/sq[3]/tail`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath {
    /// Innermost first, since segments are added on the way out.
    reversed: Vec<Segment>,
}

impl FieldPath {
    /// The steps, outermost first.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.reversed.iter().rev()
    }

    /// Adds a step further out.
    pub(crate) fn push_outer(&mut self, segment: Segment) {
        self.reversed.push(segment);
    }

    /// Whether there are no steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reversed.is_empty()
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for segment in self.segments() {
            match segment {
                Segment::Description(name) | Segment::Field(name) => {
                    if !first {
                        f.write_str("/")?;
                    }
                    f.write_str(name)?;
                }
                Segment::Index(i) => write!(f, "[{i}]")?,
            }
            first = false;
        }
        Ok(())
    }
}

/// An error of the traversal or of a format: what, and where.
///
/// One word wide, so that the success path stays cheap; the path is collected on the way out.
///
/// ```
/// use vmstate_desc::{Error, ErrorKind};
/// let e = Error::new(ErrorKind::MustExist)
///     .at_offset(0x2a)
///     .in_field("tail")
///     .in_element(3)
///     .in_field("sq")
///     .in_description("nvme")
///     .in_section("0000:00:04.0/nvme");
/// assert_eq!(
///     e.to_string(),
///     "nvme/sq[3]/tail: validation failed (byte 0x2a, section 0000:00:04.0/nvme)"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    path: FieldPath,
    offset: Option<u64>,
    section: Option<String>,
}

impl Error {
    /// An error without a place yet.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            path: FieldPath::default(),
            offset: None,
            section: None,
        }))
    }

    /// An error of a format, in words.
    #[must_use]
    pub fn format(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Format(text.into()))
    }

    /// A refusal by the device.
    #[must_use]
    pub fn refused(hook: &'static str, reason: Reason) -> Self {
        Self::new(ErrorKind::Refused { hook, reason })
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Where in the device.
    #[must_use]
    pub fn path(&self) -> &FieldPath {
        &self.0.path
    }

    /// Byte offset of the value, from the beginning of what the format was given, where known.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Id string of the section, where known.
    #[must_use]
    pub fn section(&self) -> Option<&str> {
        self.0.section.as_deref()
    }

    /// The same error with a byte offset, unless it has one.
    #[must_use]
    pub fn at_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// The same error with its byte offset moved by `base`: for a format that was given a part of a stream.
    #[must_use]
    pub fn offset_by(mut self, base: u64) -> Self {
        if let Some(offset) = &mut self.0.offset {
            *offset = offset.saturating_add(base);
        }
        self
    }

    /// The same error with a section's id string, unless it has one.
    #[must_use]
    pub fn in_section(mut self, idstr: impl Into<String>) -> Self {
        self.0.section.get_or_insert_with(|| idstr.into());
        self
    }

    /// The same error, one field further out.
    #[must_use]
    pub fn in_field(self, name: &str) -> Self {
        self.push(Segment::Field(name.to_owned()))
    }

    /// The same error, one element further out.
    #[must_use]
    pub fn in_element(self, index: u64) -> Self {
        self.push(Segment::Index(index))
    }

    /// The same error, one description further out.
    #[must_use]
    pub fn in_description(self, name: &str) -> Self {
        self.push(Segment::Description(name.to_owned()))
    }

    /// The same error inside of `path`, which is further out.
    pub(crate) fn inside(mut self, path: FieldPath) -> Self {
        self.0.path.reversed.extend(path.reversed);
        self
    }

    fn push(mut self, segment: Segment) -> Self {
        self.0.path.push_outer(segment);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if !inner.path.is_empty() {
            write!(f, "{}: ", inner.path)?;
        }
        write!(f, "{}", inner.kind)?;
        match (inner.offset, &inner.section) {
            (Some(offset), Some(section)) => {
                write!(f, " (byte {offset:#x}, section {section})")
            }
            (Some(offset), None) => write!(f, " (byte {offset:#x})"),
            (None, Some(section)) => write!(f, " (section {section})"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}
