//! What is wrong with a text, and where.

use std::fmt;

use thiserror::Error;

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the line since the stream began, from 1.
    pub line: u64,
    /// Number of the byte in the line, from 1.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A text that is no JSON, or too much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    kind: JsonErrorKind,
    at: Position,
}

impl JsonError {
    pub(super) const fn new(kind: JsonErrorKind, at: Position) -> Self {
        Self { kind, at }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> &JsonErrorKind {
        &self.kind
    }

    /// Where the wrong token begins.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.at
    }
}

/// The text of QEMU 11.1. What is above a limit has no place.
impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            JsonErrorKind::TooLong | JsonErrorKind::TooDeep | JsonErrorKind::TooMany => {
                write!(f, "{}", self.kind)
            }
            _ => write!(f, "{}: JSON parse error, {}", self.at, self.kind),
        }
    }
}

impl std::error::Error for JsonError {}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// Bytes that are no token.
    #[error("stray '{0}'")]
    Stray(String),
    /// A word that is not `true`, `false` or `null`.
    #[error("invalid keyword '{0}'")]
    Keyword(String),
    /// A value should stand here.
    #[error("expecting value")]
    ExpectingValue,
    /// A member's name should stand here.
    #[error("expecting key")]
    ExpectingKey,
    /// A colon should stand here.
    #[error("expecting ':'")]
    ExpectingColon,
    /// An object should go on or end here.
    #[error("expected ',' or '}}'")]
    ExpectingObjectEnd,
    /// An array should go on or end here.
    #[error("expected ',' or ']'")]
    ExpectingArrayEnd,
    /// A member that the object has already.
    #[error("duplicate key")]
    DuplicateKey,
    /// A backslash before a character that it does not go with.
    #[error("invalid escape sequence in string")]
    Escape,
    /// An escape that stands for no character.
    #[error("{0} is not a valid Unicode character")]
    Character(String),
    /// A string that is not UTF-8.
    #[error("invalid UTF-8 sequence in string")]
    Utf8,
    /// Longer than [`JsonLimits::bytes`](super::JsonLimits::bytes).
    #[error("JSON token size limit exceeded")]
    TooLong,
    /// Deeper than [`JsonLimits::depth`](super::JsonLimits::depth).
    #[error("JSON nesting depth limit exceeded")]
    TooDeep,
    /// More than [`JsonLimits::tokens`](super::JsonLimits::tokens).
    #[error("JSON token count limit exceeded")]
    TooMany,
}
