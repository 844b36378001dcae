//! Reading JSON: a pull parser.

use std::borrow::Cow;

use thiserror::Error;

use super::MAX_DEPTH_LIMIT;

/// A JSON text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{kind} (at byte {offset} of the JSON text)")]
pub struct JsonError {
    /// Where in the text, counted in bytes from its start.
    pub offset: usize,
    /// What was wrong.
    pub kind: JsonErrorKind,
}

/// What was wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// The text ended too early.
    #[error("text ends where {expected} is expected")]
    UnexpectedEnd {
        /// What should have come.
        expected: &'static str,
    },
    /// Another byte than one that may stand here.
    #[error("expected {expected}, found byte {found:#04x}")]
    Unexpected {
        /// What should have come.
        expected: &'static str,
        /// The byte that came.
        found: u8,
    },
    /// Too many arrays and objects inside each other.
    #[error("nesting exceeds {limit} levels")]
    TooDeep {
        /// The bound.
        limit: usize,
    },
    /// The tree of the text would take more memory than allowed.
    #[error("its tree would need more than the limit of {limit} bytes of memory")]
    TooLarge {
        /// The bound in bytes.
        limit: usize,
    },
    /// A number with a fraction or an exponent.
    #[error("number is not an integer")]
    NotAnInteger,
    /// A number that does not fit into 64 bits.
    #[error("number does not fit into 64 bits")]
    NumberRange,
    /// A backslash followed by something that is no escape.
    #[error("unknown escape in a string")]
    BadEscape,
}

/// One piece of a JSON text, as pulled by [`JsonReader::next_event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonEvent<'a> {
    /// `{`.
    BeginObject,
    /// `}`.
    EndObject,
    /// `[`.
    BeginArray,
    /// `]`.
    EndArray,
    /// The key of an object's member; the member's value comes next.
    Key(Cow<'a, str>),
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number within 64 bits signed.
    Number(i64),
    /// A number above `i64::MAX` within 64 bits unsigned.
    Unsigned(u64),
    /// A string, unescaped.
    String(Cow<'a, str>),
}

/// Pulls events out of a JSON text, without building anything.
///
/// Escaped lone surrogates and malformed UTF-8 are read as U+FFFD. Strings without escapes borrow
/// from the text.
#[derive(Debug, Clone)]
pub struct JsonReader<'a> {
    bytes: &'a [u8],
    /// The same text, if it is UTF-8 as a whole: pieces of it need no further check.
    text: Option<&'a str>,
    at: usize,
    /// For each open container, whether it is an object.
    open: Vec<bool>,
    expect: Expect,
    pub(super) max_depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    FirstItem,
    FirstKey,
    Separator,
}

impl<'a> JsonReader<'a> {
    /// A reader of `text` that allows `max_depth` open arrays and objects, at most
    /// [`MAX_DEPTH_LIMIT`].
    #[must_use]
    pub fn new(text: &'a [u8], max_depth: usize) -> Self {
        Self {
            bytes: text,
            text: std::str::from_utf8(text).ok(),
            at: 0,
            open: Vec::new(),
            expect: Expect::Value,
            max_depth: max_depth.min(MAX_DEPTH_LIMIT),
        }
    }

    /// How many bytes of the text have been read.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The next event; none at the end of the text, after one whole value.
    ///
    /// # Errors
    ///
    /// [`JsonError`] for anything that is not JSON or exceeds a bound.
    pub fn next_event(&mut self) -> Result<Option<JsonEvent<'a>>, JsonError> {
        let first = self.skip_space();
        match self.expect {
            Expect::Value => self.value(first).map(Some),
            Expect::FirstItem if first == Some(b']') => Ok(Some(self.close())),
            Expect::FirstItem => self.value(first).map(Some),
            Expect::FirstKey if first == Some(b'}') => Ok(Some(self.close())),
            Expect::FirstKey => self.key(first).map(Some),
            Expect::Separator => self.after_value(first),
        }
    }

    #[inline]
    fn after_value(&mut self, first: Option<u8>) -> Result<Option<JsonEvent<'a>>, JsonError> {
        let Some(&object) = self.open.last() else {
            return match first {
                None => Ok(None),
                Some(found) => Err(self.unexpected("the end of the text", Some(found))),
            };
        };
        match (object, first) {
            (true, Some(b',')) => {
                self.advance();
                let first = self.skip_space();
                self.key(first).map(Some)
            }
            (false, Some(b',')) => {
                self.advance();
                let first = self.skip_space();
                self.value(first).map(Some)
            }
            (true, Some(b'}')) | (false, Some(b']')) => Ok(Some(self.close())),
            (true, other) => Err(self.unexpected("',' or '}'", other)),
            (false, other) => Err(self.unexpected("',' or ']'", other)),
        }
    }

    #[inline]
    fn key(&mut self, first: Option<u8>) -> Result<JsonEvent<'a>, JsonError> {
        if first != Some(b'"') {
            return Err(self.unexpected("a key", first));
        }
        let key = self.string()?;
        match self.skip_space() {
            Some(b':') => self.advance(),
            other => return Err(self.unexpected("':'", other)),
        }
        self.expect = Expect::Value;
        Ok(JsonEvent::Key(key))
    }

    #[inline]
    fn value(&mut self, first: Option<u8>) -> Result<JsonEvent<'a>, JsonError> {
        let event = match first {
            Some(b'"') => JsonEvent::String(self.string()?),
            Some(b'{') => return self.open(true),
            Some(b'[') => return self.open(false),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word(b"true", "'true'", JsonEvent::Bool(true))?,
            Some(b'f') => self.word(b"false", "'false'", JsonEvent::Bool(false))?,
            Some(b'n') => self.word(b"null", "'null'", JsonEvent::Null)?,
            other => return Err(self.unexpected("a value", other)),
        };
        self.expect = Expect::Separator;
        Ok(event)
    }

    fn open(&mut self, object: bool) -> Result<JsonEvent<'a>, JsonError> {
        if self.open.len() >= self.max_depth {
            return Err(self.error(JsonErrorKind::TooDeep {
                limit: self.max_depth,
            }));
        }
        self.advance();
        self.open.push(object);
        if object {
            self.expect = Expect::FirstKey;
            Ok(JsonEvent::BeginObject)
        } else {
            self.expect = Expect::FirstItem;
            Ok(JsonEvent::BeginArray)
        }
    }

    fn close(&mut self) -> JsonEvent<'a> {
        self.advance();
        self.expect = Expect::Separator;
        if self.open.pop() == Some(true) {
            JsonEvent::EndObject
        } else {
            JsonEvent::EndArray
        }
    }

    pub(super) fn word(
        &mut self,
        word: &[u8],
        expected: &'static str,
        event: JsonEvent<'a>,
    ) -> Result<JsonEvent<'a>, JsonError> {
        for byte in word {
            let found = self.peek();
            if found != Some(*byte) {
                return Err(self.unexpected(expected, found));
            }
            self.advance();
        }
        Ok(event)
    }

    #[inline]
    pub(super) fn number(&mut self) -> Result<JsonEvent<'a>, JsonError> {
        let start = self.at;
        let out_of_range = JsonError {
            offset: start,
            kind: JsonErrorKind::NumberRange,
        };
        let negative = self.peek() == Some(b'-');
        if negative {
            self.advance();
        }
        let first_digit = self.at;
        let rest = self.bytes.get(first_digit..).unwrap_or(&[]);
        let digits = rest
            .iter()
            .map_while(|byte| byte.is_ascii_digit().then_some(u64::from(byte & 0x0f)));
        let mut value = 0_u64;
        let mut length = 0_usize;
        for digit in digits {
            // Eighteen digits cannot overflow.
            value = if length < 18 {
                value.wrapping_mul(10).wrapping_add(digit)
            } else {
                value
                    .checked_mul(10)
                    .and_then(|tens| tens.checked_add(digit))
                    .ok_or(out_of_range)?
            };
            length = length.saturating_add(1);
        }
        self.at = first_digit.saturating_add(length);
        if length == 0 {
            return Err(self.unexpected("a digit", self.peek()));
        }
        if length > 1 && rest.first() == Some(&b'0') {
            return Err(JsonError {
                offset: first_digit,
                kind: JsonErrorKind::Unexpected {
                    expected: "a number without leading zeros",
                    found: b'0',
                },
            });
        }
        if let Some(b'.' | b'e' | b'E') = self.peek() {
            return Err(JsonError {
                offset: start,
                kind: JsonErrorKind::NotAnInteger,
            });
        }
        if negative {
            0_i64
                .checked_sub_unsigned(value)
                .map(JsonEvent::Number)
                .ok_or(out_of_range)
        } else {
            Ok(i64::try_from(value).map_or(JsonEvent::Unsigned(value), JsonEvent::Number))
        }
    }

    /// Reads a string whose opening quote is the next byte.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.advance();
        let run = self.plain_run();
        if self.peek() == Some(b'"') {
            self.advance();
            return Ok(run);
        }
        self.string_with_escapes(run.into_owned())
    }

    #[cold]
    fn string_with_escapes(&mut self, mut text: String) -> Result<Cow<'a, str>, JsonError> {
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.advance();
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => text.push(self.escape()?),
                other => return Err(self.unexpected("the rest of a string", other)),
            }
            text.push_str(&self.plain_run());
        }
    }

    /// Takes the characters up to the next quote, backslash, control character or end.
    #[inline]
    fn plain_run(&mut self) -> Cow<'a, str> {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or(&[]);
        let length = plain_length(rest);
        let end = start.saturating_add(length);
        self.at = end;
        match self.text {
            Some(text) => Cow::Borrowed(text.get(start..end).unwrap_or("")),
            None => String::from_utf8_lossy(rest.get(..length).unwrap_or(&[])),
        }
    }

    /// Reads one escape, whose backslash is the next byte.
    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.advance();
        let Some(letter) = self.peek() else {
            return Err(self.unexpected("an escape", None));
        };
        self.advance();
        let bad = JsonError {
            offset: start,
            kind: JsonErrorKind::BadEscape,
        };
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.four_digits().ok_or(bad)?;
                if (0xd800..0xdc00).contains(&high) {
                    self.low_surrogate(high)
                } else {
                    char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
            }
            _ => return Err(bad),
        })
    }

    /// Joins `high` with the low surrogate that follows; if none follows, nothing is taken.
    fn low_surrogate(&mut self, high: u32) -> char {
        let back = self.at;
        if self.bytes.get(back..).and_then(|rest| rest.get(..2)) == Some(b"\\u") {
            self.at = back.saturating_add(2);
            if let Some(low @ 0xdc00..0xe000) = self.four_digits() {
                let point = 0x1_0000_u32.wrapping_add(((high & 0x3ff) << 10) | (low & 0x3ff));
                return char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER);
            }
        }
        self.at = back;
        char::REPLACEMENT_CHARACTER
    }

    fn four_digits(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for _ in 0..4 {
            let digit = char::from(self.peek()?).to_digit(16)?;
            value = (value << 4) | digit;
            self.advance();
        }
        Some(value)
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub(super) fn advance(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    #[inline]
    pub(super) fn skip_space(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.advance(),
                other => return other,
            }
        }
    }

    pub(super) fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError {
            offset: self.at,
            kind,
        }
    }

    pub(super) fn unexpected(&self, expected: &'static str, found: Option<u8>) -> JsonError {
        self.error(match found {
            None => JsonErrorKind::UnexpectedEnd { expected },
            Some(found) => JsonErrorKind::Unexpected { expected, found },
        })
    }
}

/// Length of the run up to the first quote, backslash or control character.
#[inline]
fn plain_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0x00..=0x1f))
        .unwrap_or(bytes.len())
}
