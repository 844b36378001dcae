//! Tokens to values.

use serde_json::{Map, Number, Value};

use super::lexer::{Token, TokenKind};
use super::string::unquoted;
use super::{JsonError, JsonErrorKind, JsonLimits};

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    /// The first element of an array, or its end.
    ElementOrEnd,
    /// The first member of an object, or its end.
    KeyOrEnd,
    Key,
    Colon,
    /// A comma, or the end of what is open.
    More,
}

/// An array or object that is not complete.
#[derive(Debug)]
enum Open {
    Array(Vec<Value>),
    /// With the name of the member that is being read.
    Object(Map<String, Value>, String),
}

#[derive(Debug)]
pub(super) struct Parser {
    limits: JsonLimits,
    open: Vec<Open>,
    expect: Expect,
    braces: Balance,
    brackets: Balance,
    bytes: usize,
    tokens: usize,
    /// Something was wrong: nothing counts until the braces and brackets of the text are balanced again.
    skipping: bool,
}

/// How many are open. Below zero: more were closed than opened.
type Balance = i64;

impl Parser {
    pub(super) fn new(limits: JsonLimits) -> Self {
        Self {
            limits: JsonLimits {
                depth: limits.depth.min(JsonLimits::MAX_DEPTH),
                ..limits
            },
            open: Vec::new(),
            expect: Expect::Value,
            braces: 0,
            brackets: 0,
            bytes: 0,
            tokens: 0,
            skipping: false,
        }
    }

    pub(super) fn next(&mut self, token: &Token) -> Option<Result<Value, JsonError>> {
        match token.kind {
            TokenKind::Stray => {
                self.restart();
                let kind = JsonErrorKind::Stray(lossy(&token.text));
                return Some(Err(JsonError::new(kind, token.at)));
            }
            TokenKind::BeginObject => self.braces += 1,
            TokenKind::EndObject => self.braces -= 1,
            TokenKind::BeginArray => self.brackets += 1,
            TokenKind::EndArray => self.brackets -= 1,
            _ => {}
        }
        let result = if self.skipping {
            None
        } else {
            self.count(token)
                .and_then(|()| self.read(token))
                .transpose()
        };
        if let Some(Err(_)) = result {
            self.skipping = true;
            // The parts go now: what is skipped may be long.
            self.open = Vec::new();
        }
        let (braces, brackets) = (self.braces, self.brackets);
        if braces < 0 || brackets < 0 || (braces == 0 && brackets == 0) {
            self.restart();
        }
        result.map(|result| result.map_err(|kind| JsonError::new(kind, token.at)))
    }

    fn restart(&mut self) {
        self.open = Vec::new();
        self.expect = Expect::Value;
        (self.braces, self.brackets) = (0, 0);
        (self.bytes, self.tokens) = (0, 0);
        self.skipping = false;
    }

    fn count(&mut self, token: &Token) -> Result<(), JsonErrorKind> {
        if token.kind == TokenKind::TooLong {
            return Err(JsonErrorKind::TooLong);
        }
        self.bytes = self.bytes.saturating_add(token.text.len());
        self.tokens = self.tokens.saturating_add(1);
        if self.bytes > self.limits.bytes {
            Err(JsonErrorKind::TooLong)
        } else if self.tokens > self.limits.tokens {
            Err(JsonErrorKind::TooMany)
        } else {
            Ok(())
        }
    }

    fn read(&mut self, token: &Token) -> Result<Option<Value>, JsonErrorKind> {
        match (self.expect, token.kind) {
            (Expect::ElementOrEnd, TokenKind::EndArray)
            | (Expect::KeyOrEnd, TokenKind::EndObject) => self.close(),
            (Expect::Value | Expect::ElementOrEnd, _) => self.value(token),
            (Expect::Key | Expect::KeyOrEnd, TokenKind::String) => {
                let name = unquoted(&token.text)?;
                if let Some(Open::Object(_, key)) = self.open.last_mut() {
                    *key = name;
                }
                self.expect = Expect::Colon;
                Ok(None)
            }
            (Expect::Key | Expect::KeyOrEnd, _) => Err(JsonErrorKind::ExpectingKey),
            (Expect::Colon, TokenKind::Colon) => {
                self.expect = Expect::Value;
                Ok(None)
            }
            (Expect::Colon, _) => Err(JsonErrorKind::ExpectingColon),
            (Expect::More, kind) => match (self.open.last(), kind) {
                (Some(Open::Array(_)), TokenKind::Comma) => {
                    self.expect = Expect::Value;
                    Ok(None)
                }
                (Some(Open::Object(..)), TokenKind::Comma) => {
                    self.expect = Expect::Key;
                    Ok(None)
                }
                (Some(Open::Array(_)), TokenKind::EndArray)
                | (Some(Open::Object(..)), TokenKind::EndObject) => self.close(),
                (Some(Open::Object(..)), _) => Err(JsonErrorKind::ExpectingObjectEnd),
                _ => Err(JsonErrorKind::ExpectingArrayEnd),
            },
        }
    }

    /// The beginning of a value.
    fn value(&mut self, token: &Token) -> Result<Option<Value>, JsonErrorKind> {
        let value = match token.kind {
            TokenKind::BeginArray => {
                return self.begin(Open::Array(Vec::new()), Expect::ElementOrEnd);
            }
            TokenKind::BeginObject => {
                let object = Open::Object(Map::new(), String::new());
                return self.begin(object, Expect::KeyOrEnd);
            }
            TokenKind::String => Value::String(unquoted(&token.text)?),
            TokenKind::Number => number(&token.text)?,
            TokenKind::Keyword => match token.text.as_slice() {
                b"true" => Value::Bool(true),
                b"false" => Value::Bool(false),
                b"null" => Value::Null,
                other => return Err(JsonErrorKind::Keyword(lossy(other))),
            },
            _ => return Err(JsonErrorKind::ExpectingValue),
        };
        self.complete(value)
    }

    fn begin(&mut self, open: Open, expect: Expect) -> Result<Option<Value>, JsonErrorKind> {
        if self.open.len() >= self.limits.depth {
            return Err(JsonErrorKind::TooDeep);
        }
        self.open.push(open);
        self.expect = expect;
        Ok(None)
    }

    fn close(&mut self) -> Result<Option<Value>, JsonErrorKind> {
        match self.open.pop() {
            Some(Open::Array(elements)) => self.complete(Value::Array(elements)),
            Some(Open::Object(members, _)) => self.complete(Value::Object(members)),
            None => Err(JsonErrorKind::ExpectingValue),
        }
    }

    /// A value is whole: it goes to what it is part of, or is the result.
    fn complete(&mut self, value: Value) -> Result<Option<Value>, JsonErrorKind> {
        match self.open.last_mut() {
            None => return Ok(Some(value)),
            Some(Open::Array(elements)) => elements.push(value),
            Some(Open::Object(members, key)) => {
                if members.contains_key(key) {
                    return Err(JsonErrorKind::DuplicateKey);
                }
                members.insert(std::mem::take(key), value);
            }
        }
        self.expect = Expect::More;
        Ok(None)
    }
}

/// A whole number if it fits into 64 bits, else the nearest floating-point number.
fn number(token: &[u8]) -> Result<Value, JsonErrorKind> {
    let text = std::str::from_utf8(token).unwrap_or_default();
    let whole = text.parse::<i64>().map(Number::from);
    let number = whole
        .or_else(|_| text.parse::<u64>().map(Number::from))
        .ok()
        .or_else(|| text.parse().ok().and_then(Number::from_f64));
    // QEMU takes what is too large for infinity, and then writes what is no JSON.
    number
        .map(Value::Number)
        .ok_or_else(|| JsonErrorKind::Stray(text.to_owned()))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
