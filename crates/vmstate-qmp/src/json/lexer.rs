//! Bytes to tokens.

use super::Position;

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    /// As it stands in the input, quotes included.
    pub(super) text: Vec<u8>,
    /// Its first byte.
    pub(super) at: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    BeginObject,
    EndObject,
    BeginArray,
    EndArray,
    Comma,
    Colon,
    String,
    Number,
    Keyword,
    /// Bytes that are none of these.
    Stray,
    /// A token that is longer than any may be. Its text is empty.
    TooLong,
}

/// What one byte did.
pub(super) struct Read {
    /// Whether it was used. If not, it comes again.
    pub(super) consumed: bool,
    /// The token that it ended.
    pub(super) token: Option<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// In a string that ends with this quote.
    String(u8),
    /// Behind a backslash in it.
    Escape(u8),
    Keyword,
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// Behind bytes that are no token, up to punctuation or a control character.
    Recovery,
}

#[derive(Debug)]
pub(super) struct Lexer {
    state: State,
    text: Vec<u8>,
    at: Position,
    start: Position,
    limit: usize,
}

impl Lexer {
    pub(super) const fn new(limit: usize) -> Self {
        let begin = Position { line: 1, column: 1 };
        Self {
            state: State::Start,
            text: Vec::new(),
            at: begin,
            start: begin,
            limit,
        }
    }

    pub(super) fn next(&mut self, byte: u8) -> Read {
        use State::{
            Digits, Escape, Exponent, ExponentDigits, ExponentSign, Fraction, Keyword, Minus,
            Point, Recovery, Start, String, Zero,
        };
        match (self.state, byte) {
            (Recovery, 0x20..=0xfd) if punctuation(byte).is_none() => self.skip(byte),
            // 0xff alone is what a client sends to get out of anything.
            (Recovery, 0xfe..) => self.skip(byte),
            (Start | Recovery, _) => self.start(byte),

            (String(quote), _) if byte == quote => self.end(byte, TokenKind::String),
            (String(quote), b'\\') => self.go_on(byte, Escape(quote)),
            (String(quote) | Escape(quote), 0x20..=0xfd) => self.go_on(byte, String(quote)),

            (Keyword, b'a'..=b'z') => self.go_on(byte, Keyword),
            (Keyword, _) => self.ended(TokenKind::Keyword),

            (Minus, b'0') => self.go_on(byte, Zero),
            (Minus, b'1'..=b'9') | (Digits, b'0'..=b'9') => self.go_on(byte, Digits),
            (Zero | Digits, b'.') => self.go_on(byte, Point),
            (Zero | Digits | Fraction, b'e' | b'E') => self.go_on(byte, Exponent),
            (Point | Fraction, b'0'..=b'9') => self.go_on(byte, Fraction),
            (Exponent, b'+' | b'-') => self.go_on(byte, ExponentSign),
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => {
                self.go_on(byte, ExponentDigits)
            }
            (Zero, b'0'..=b'9') => self.end(byte, TokenKind::Stray),
            (Zero | Digits | Fraction | ExponentDigits, _) => self.ended(TokenKind::Number),

            (String(_) | Escape(_) | Minus | Point | Exponent | ExponentSign, _) => {
                self.end(byte, TokenKind::Stray)
            }
        }
    }

    /// A byte between tokens.
    fn start(&mut self, byte: u8) -> Read {
        self.state = State::Start;
        self.start = self.at;
        if let Some(kind) = punctuation(byte) {
            return self.end(byte, kind);
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => self.skip(byte),
            b'"' | b'\'' => self.go_on(byte, State::String(byte)),
            b'-' => self.go_on(byte, State::Minus),
            b'0' => self.go_on(byte, State::Zero),
            b'1'..=b'9' => self.go_on(byte, State::Digits),
            b'a'..=b'z' => self.go_on(byte, State::Keyword),
            _ => self.end(byte, TokenKind::Stray),
        }
    }

    /// The byte is part of no token.
    fn skip(&mut self, byte: u8) -> Read {
        self.advance(byte);
        Read {
            consumed: true,
            token: None,
        }
    }

    /// The byte is part of a token that may go on.
    fn go_on(&mut self, byte: u8, state: State) -> Read {
        self.advance(byte);
        if self.text.len() >= self.limit {
            self.text = Vec::new();
            return self.token(TokenKind::TooLong, true);
        }
        self.text.push(byte);
        self.state = state;
        Read {
            consumed: true,
            token: None,
        }
    }

    /// The byte is the last of a token.
    fn end(&mut self, byte: u8, kind: TokenKind) -> Read {
        self.advance(byte);
        self.text.push(byte);
        self.token(kind, true)
    }

    /// The byte before was the last of a token.
    fn ended(&mut self, kind: TokenKind) -> Read {
        self.token(kind, false)
    }

    fn token(&mut self, kind: TokenKind, consumed: bool) -> Read {
        self.state = match kind {
            TokenKind::Stray | TokenKind::TooLong => State::Recovery,
            _ => State::Start,
        };
        Read {
            consumed,
            token: Some(Token {
                kind,
                text: std::mem::take(&mut self.text),
                at: self.start,
            }),
        }
    }

    fn advance(&mut self, byte: u8) {
        if byte == b'\n' {
            self.at.line = self.at.line.saturating_add(1);
            self.at.column = 1;
        } else {
            self.at.column = self.at.column.saturating_add(1);
        }
    }
}

const fn punctuation(byte: u8) -> Option<TokenKind> {
    match byte {
        b'{' => Some(TokenKind::BeginObject),
        b'}' => Some(TokenKind::EndObject),
        b'[' => Some(TokenKind::BeginArray),
        b']' => Some(TokenKind::EndArray),
        b',' => Some(TokenKind::Comma),
        b':' => Some(TokenKind::Colon),
        _ => None,
    }
}
