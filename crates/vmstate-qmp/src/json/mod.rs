//! A stream of JSON values, one after the other, that comes in pieces of any size.
//!
//! The grammar is that of QEMU's monitor: strings may also stand between single quotes, no separator is needed between
//! values, a character that starts nothing ends what was begun, and reading goes on behind it. What is refused gets the
//! text of QEMU 11.1, with line and column.

mod error;
mod lexer;
mod parser;
mod string;

use serde_json::Value;

pub use error::{JsonError, JsonErrorKind, Position};

use lexer::Lexer;
use parser::Parser;

/// What one value may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Bytes of the text of one value.
    pub bytes: usize,
    /// Brackets and braces within each other. At most [`JsonLimits::MAX_DEPTH`] count.
    pub depth: usize,
    /// Tokens of one value: numbers, strings, punctuation.
    pub tokens: usize,
}

impl JsonLimits {
    /// Deeper than this nothing may be, as in QEMU.
    pub const MAX_DEPTH: usize = 1024;

    /// What a server takes from its clients: 1 MiB.
    pub const COMMAND: Self = Self {
        bytes: 1 << 20,
        depth: Self::MAX_DEPTH,
        tokens: 1 << 18,
    };

    /// What a client takes from its server, whose description of itself is long: 16 MiB.
    pub const REPLY: Self = Self {
        bytes: 16 << 20,
        depth: Self::MAX_DEPTH,
        tokens: 2 << 20,
    };
}

/// Cuts JSON values out of bytes.
///
/// ```
/// use vmstate_qmp::json::{JsonLimits, JsonStream};
///
/// let mut stream = JsonStream::new(JsonLimits::COMMAND);
/// assert!(stream.take(&mut &b"{'a': [1"[..]).is_none());
/// let mut rest = &b",2]} true\n"[..];
/// let first = stream.take(&mut rest).unwrap().unwrap();
/// assert_eq!(first, serde_json::json!({"a": [1, 2]}));
/// assert_eq!(stream.take(&mut rest).unwrap().unwrap(), true);
/// assert!(stream.take(&mut rest).is_none() && rest.is_empty());
/// ```
#[derive(Debug)]
pub struct JsonStream {
    lexer: Lexer,
    parser: Parser,
}

impl JsonStream {
    /// A stream at its beginning.
    #[must_use]
    pub fn new(limits: JsonLimits) -> Self {
        Self {
            lexer: Lexer::new(limits.bytes),
            parser: Parser::new(limits),
        }
    }

    /// Takes bytes off the front of `input` up to the end of a value or up to an error. Without either, all of them are
    /// taken and `None` is the result. After an error reading goes on: call again.
    ///
    /// # Errors
    /// The inner result: text that is no JSON, and a value above the limits.
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Result<Value, JsonError>> {
        while let Some((&byte, rest)) = input.split_first() {
            let read = self.lexer.next(byte);
            if read.consumed {
                *input = rest;
            }
            let Some(token) = read.token else { continue };
            let result = self.parser.next(&token);
            if result.is_some() {
                return result;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
