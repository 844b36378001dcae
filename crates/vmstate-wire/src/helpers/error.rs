//! What is wrong with a blob.

use std::fmt;

/// What is wrong, without the place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlobErrorKind {
    /// More elements than there can be helpers.
    Count {
        /// Elements announced.
        found: u32,
        /// Most that there can be.
        most: u32,
    },
    /// An id of no bytes where one should be. QEMU counts a helper that could not be saved, and leaves its element out: what is
    /// read then is the padding.
    Lost {
        /// Elements announced.
        announced: u32,
        /// Elements that are there.
        found: u32,
    },
    /// An id that is empty or longer than 255 bytes.
    IdLength {
        /// Its bytes.
        found: u64,
    },
    /// A state of more than 1 MiB.
    StateLength {
        /// Whose it is.
        id: Vec<u8>,
        /// Its bytes.
        found: u64,
    },
    /// An id that nobody has.
    Unknown {
        /// The id.
        id: Vec<u8>,
    },
    /// The same id once more.
    Duplicate {
        /// The id.
        id: Vec<u8>,
    },
    /// The blob is over before its elements are.
    End {
        /// What was being read.
        inside: &'static str,
        /// Bytes that are missing.
        missing: u64,
    },
    /// More bytes than a stream can announce.
    TooLarge,
}

impl fmt::Display for BlobErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { found, most } => write!(
                f,
                "{found} elements are announced, but at most {most} helpers can be there"
            ),
            Self::Lost { announced, found } => write!(
                f,
                "the source counted {announced} helpers but wrote {found}: saving a helper failed there, see its log"
            ),
            Self::IdLength { found } => write!(f, "an id of {found} bytes, must be 1 to 255"),
            Self::StateLength { id, found } => write!(
                f,
                "the state of '{}' has {found} bytes, more than 1 MiB",
                id.escape_ascii()
            ),
            Self::Unknown { id } => write!(
                f,
                "no helper has the id '{}', whose state has come",
                id.escape_ascii()
            ),
            Self::Duplicate { id } => write!(f, "id '{}' occurs twice", id.escape_ascii()),
            Self::End { inside, missing } => {
                write!(
                    f,
                    "the blob ends inside {inside}: {missing} bytes are missing"
                )
            }
            Self::TooLarge => f.write_str("the states of all helpers have more than 1 GiB"),
        }
    }
}

/// What is wrong with a blob, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobError {
    kind: BlobErrorKind,
    /// From the beginning of the blob.
    offset: u64,
    element: Option<u32>,
}

impl BlobError {
    pub(super) fn new(kind: BlobErrorKind, offset: u64) -> Self {
        Self {
            kind,
            offset,
            element: None,
        }
    }

    pub(super) fn in_element(mut self, index: u32) -> Self {
        self.element = Some(index);
        self
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> &BlobErrorKind {
        &self.kind
    }

    /// Where, in bytes from the beginning of the blob.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            offset,
            element,
        } = self;
        match element {
            Some(index) => write!(f, "{kind} (element {index}, blob offset {offset})"),
            None => write!(f, "{kind} (blob offset {offset})"),
        }
    }
}

impl std::error::Error for BlobError {}
