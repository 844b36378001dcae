//! Writing JSON piece by piece.

use std::io::{self, Write};

/// Bytes that are collected before they are written.
const CHUNK: usize = 128 << 10;

/// A writer of JSON that sets commas by itself. The first error of the output ends everything, and is told at the end.
#[derive(Debug)]
pub struct JsonOut<W: Write> {
    out: W,
    buffer: Vec<u8>,
    /// Nothing that wants a comma behind it has been written.
    fresh: bool,
    /// The next value begins a line.
    line: bool,
    error: Option<io::Error>,
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl<W: Write> JsonOut<W> {
    /// A writer to `out`. Needs no further buffer.
    pub fn new(out: W) -> Self {
        Self {
            out,
            buffer: Vec::with_capacity(CHUNK + (CHUNK >> 2)),
            fresh: true,
            line: false,
            error: None,
        }
    }

    /// Ends the text with a line feed and writes what is left.
    ///
    /// # Errors
    /// The first error of the output.
    pub fn finish(mut self) -> io::Result<()> {
        self.buffer.push(b'\n');
        self.flush();
        match self.error {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    fn flush(&mut self) {
        if self.error.is_none()
            && let Err(error) = self.out.write_all(&self.buffer)
        {
            self.error = Some(error);
        }
        self.buffer.clear();
    }

    fn before(&mut self) {
        if !self.fresh {
            self.buffer.push(b',');
        }
        if self.line {
            self.buffer.push(b'\n');
            self.line = false;
        }
        self.fresh = false;
    }

    /// The next member or element begins a line.
    pub fn line(&mut self) {
        self.line = true;
    }

    /// Opens an object.
    pub fn open_object(&mut self) {
        self.before();
        self.buffer.push(b'{');
        self.fresh = true;
    }

    /// Closes an object.
    pub fn close_object(&mut self) {
        self.close(b'}');
    }

    /// Opens an array.
    pub fn open_array(&mut self) {
        self.before();
        self.buffer.push(b'[');
        self.fresh = true;
    }

    /// Closes an array.
    pub fn close_array(&mut self) {
        self.close(b']');
    }

    fn close(&mut self, mark: u8) {
        if self.line {
            self.buffer.push(b'\n');
            self.line = false;
        }
        self.buffer.push(mark);
        self.fresh = false;
        if self.buffer.len() >= CHUNK {
            self.flush();
        }
    }

    /// A member's key.
    pub fn key(&mut self, key: &str) {
        self.before();
        self.quoted(key.as_bytes());
        self.buffer.push(b':');
        self.fresh = true;
    }

    /// A string.
    pub fn string(&mut self, text: &str) {
        self.before();
        self.quoted(text.as_bytes());
    }

    fn quoted(&mut self, text: &[u8]) {
        self.buffer.push(b'"');
        let mut from = 0;
        for (i, byte) in text.iter().enumerate() {
            if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            self.buffer
                .extend_from_slice(text.get(from..i).unwrap_or_default());
            from = i + 1;
            match byte {
                b'"' | b'\\' => self.buffer.extend_from_slice(&[b'\\', *byte]),
                b'\n' => self.buffer.extend_from_slice(b"\\n"),
                byte => {
                    self.buffer.extend_from_slice(b"\\u00");
                    self.nibbles(*byte);
                }
            }
        }
        self.buffer
            .extend_from_slice(text.get(from..).unwrap_or_default());
        self.buffer.push(b'"');
    }

    fn nibbles(&mut self, byte: u8) {
        let pair = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
        self.buffer.extend_from_slice(&pair);
    }

    /// Bytes as a string of lower-case hex digits.
    pub fn hex(&mut self, bytes: &[u8]) {
        self.before();
        self.buffer.push(b'"');
        for piece in bytes.chunks(CHUNK / 2) {
            self.buffer.reserve(piece.len() * 2 + 1);
            for byte in piece {
                self.nibbles(*byte);
            }
            if self.buffer.len() >= CHUNK {
                self.flush();
            }
        }
        self.buffer.push(b'"');
    }

    /// An unsigned integer.
    pub fn unsigned(&mut self, value: u64) {
        self.before();
        self.digits(value);
    }

    /// A signed integer.
    pub fn signed(&mut self, value: i64) {
        self.before();
        if value < 0 {
            self.buffer.push(b'-');
        }
        self.digits(value.unsigned_abs());
    }

    fn digits(&mut self, mut value: u64) {
        if value < 10 {
            self.buffer.push(b'0' + u8::try_from(value).unwrap_or(0));
            return;
        }
        let mut digits = [0_u8; 20];
        let mut start = digits.len();
        while value > 0 && start > 0 {
            start -= 1;
            digits[start] = b'0' + u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
        }
        self.buffer
            .extend_from_slice(digits.get(start..).unwrap_or_default());
        if self.buffer.len() >= CHUNK {
            self.flush();
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, value: bool) {
        self.before();
        self.buffer
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// `null`.
    pub fn null(&mut self) {
        self.before();
        self.buffer.extend_from_slice(b"null");
    }

    /// An unsigned integer, or `null`.
    pub fn optional(&mut self, value: Option<u64>) {
        match value {
            Some(value) => self.unsigned(value),
            None => self.null(),
        }
    }

    /// A member that is an unsigned integer.
    pub fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.unsigned(value);
    }

    /// A member that is a string.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.string(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut JsonOut<&mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        let mut out = JsonOut::new(&mut bytes);
        write(&mut out);
        out.finish().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn commas_and_lines() {
        let text = written(|out| {
            out.open_object();
            out.number("a", 1);
            out.key("b");
            out.open_array();
            out.line();
            out.signed(-5);
            out.line();
            out.open_array();
            out.close_array();
            out.line();
            out.close_array();
            out.key("c");
            out.null();
            out.close_object();
        });
        assert_eq!(text, "{\"a\":1,\"b\":[\n-5,\n[]\n],\"c\":null}\n");
    }

    #[test]
    fn values_are_exact() {
        for value in [0, 9, 10, 99, 100, 12345, u64::MAX] {
            assert_eq!(written(|out| out.unsigned(value)), format!("{value}\n"));
        }
        for value in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(written(|out| out.signed(value)), format!("{value}\n"));
        }
        assert_eq!(written(|out| out.hex(&[0, 0xa5, 0xff])), "\"00a5ff\"\n");
        let long = vec![0xab; CHUNK * 2 + 3];
        assert_eq!(written(|out| out.hex(&long)).len(), long.len() * 2 + 3);
    }

    #[test]
    fn strings_are_escaped() {
        for text in ["", "plain", "a\"b\\c", "\n\t\u{1}\u{7f}", "ü…\u{2028}"] {
            let json = written(|out| out.string(text));
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn the_first_error_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = JsonOut::new(Full);
        out.hex(&vec![0; CHUNK]);
        out.null();
        assert_eq!(out.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
