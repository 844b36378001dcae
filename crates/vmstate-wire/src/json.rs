//! The JSON dialect of the description trailer: a writer that formats exactly as QEMU does, and a
//! fast reader that keeps what ordinary JSON readers lose.
//!
//! The trailer of a stream (`vmdesc`) is one JSON object of up to some hundred kilobytes. Two things
//! set it apart from everyday JSON:
//!
//! - **Keys repeat.** A list or tree writes the keys of each element into one and the same object,
//!   so `{"a": 1, "a": 2}` is ordinary. [`Json::Object`] is therefore a list of pairs, in order.
//! - **Numbers are integers**, 64 bits wide. A fraction or an exponent is refused.
//!
//! [`JsonWriter`] writes, [`JsonReader`] pulls events out of a text, [`Json`] is the tree. For every
//! text that QEMU wrote, parsing and writing give the same bytes again.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod reader;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

use std::borrow::Cow;

pub use reader::{JsonError, JsonErrorKind, JsonEvent, JsonReader};
pub use writer::JsonWriter;

/// The nesting depth that a reader allows unless told otherwise: 64 open arrays and objects.
///
/// Trailers of real machines stay below 30.
pub const DEFAULT_MAX_DEPTH: usize = 64;

/// The largest nesting depth that can be asked for.
///
/// A tree is dropped recursively, so an unbounded depth would let a text exhaust the stack.
pub const MAX_DEPTH_LIMIT: usize = 1024;

/// A JSON value, with object members in the order of the text and repeated keys kept.
///
/// Strings without escapes borrow from the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer that fits into 64 bits signed, the only kind that QEMU writes.
    Number(i64),
    /// An integer above `i64::MAX` that fits into 64 bits unsigned.
    Unsigned(u64),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object: its members in the order of the text. A key may occur more than once.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Parses a whole text: one value, with nothing but white space around it.
    ///
    /// Nesting is bounded by [`DEFAULT_MAX_DEPTH`]. Memory use is proportional to the length of the
    /// text, at most about thirty times as much, so bound the text.
    ///
    /// # Errors
    ///
    /// [`JsonError`] with the byte offset in `text`, for anything that is not JSON, for numbers that
    /// are not 64-bit integers and for nesting that is too deep.
    pub fn parse(text: &'a [u8]) -> Result<Self, JsonError> {
        Self::parse_with_depth(text, DEFAULT_MAX_DEPTH)
    }

    /// Like [`Json::parse`], with at most `max_depth` arrays and objects open at a time, itself at
    /// most [`MAX_DEPTH_LIMIT`].
    ///
    /// # Errors
    ///
    /// As [`Json::parse`].
    pub fn parse_with_depth(text: &'a [u8], max_depth: usize) -> Result<Self, JsonError> {
        tree::parse(text, max_depth, usize::MAX).map(|(json, _)| json)
    }

    /// Like [`Json::parse_with_depth`], into a tree of at most `memory` bytes. Returns how many it takes, too; strings with
    /// escapes, which are no longer than the text, come on top.
    ///
    /// # Errors
    ///
    /// As [`Json::parse`], and [`JsonErrorKind::TooLarge`].
    pub fn parse_within(
        text: &'a [u8],
        max_depth: usize,
        memory: usize,
    ) -> Result<(Self, usize), JsonError> {
        tree::parse(text, max_depth, memory)
    }

    /// Writes the value, in QEMU's compact form.
    pub fn write(&self, writer: &mut JsonWriter) {
        match self {
            Self::Null => writer.null(),
            Self::Bool(value) => writer.bool(*value),
            Self::Number(value) => writer.i64(*value),
            Self::Unsigned(value) => writer.u64(*value),
            Self::String(text) => writer.string(text),
            Self::Array(items) => {
                writer.begin_array();
                for item in items {
                    item.write(writer);
                }
                writer.end_array();
            }
            Self::Object(members) => {
                writer.begin_object();
                for (key, value) in members {
                    writer.key(key);
                    value.write(writer);
                }
                writer.end_object();
            }
        }
    }

    /// The value as text in QEMU's compact form.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut writer = JsonWriter::new();
        self.write(&mut writer);
        writer.into_string()
    }

    /// The first member of this object whose key is `key`; none if this is not an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_object()?
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// The members, if this is an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&[(Cow<'a, str>, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The items, if this is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is one within 64 bits signed.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(value) => Some(*value),
            _ => None,
        }
    }

    /// The number, if this is one and not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(value) => u64::try_from(*value).ok(),
            Self::Unsigned(value) => Some(*value),
            _ => None,
        }
    }
}
