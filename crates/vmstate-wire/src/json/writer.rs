//! Writing JSON the way QEMU does: compact, pure ASCII.

/// A JSON writer whose output equals that of QEMU's, byte for byte.
///
/// | what | form |
/// |---|---|
/// | between members or items | `, ` |
/// | between key and value | `: ` |
/// | empty containers | `{}`, `[]` |
/// | `"`, `\` | escaped with a backslash; `/` is not escaped |
/// | backspace, form feed, newline, carriage return, tab | `\b` `\f` `\n` `\r` `\t` |
/// | other characters below U+0020, and all from U+007F up | `\uXXXX`, upper-case digits; beyond U+FFFF a surrogate pair |
/// | malformed UTF-8 | `\uFFFD`, once for each malformed sequence |
/// | noncharacters such as U+FFFE | `\uFFFD` |
///
/// The writer sets separators by itself. It does not check that `begin` and `end` calls match or
/// that keys stand where keys belong: the caller's control flow does.
///
/// ```
/// use vmstate_wire::json::JsonWriter;
///
/// let mut writer = JsonWriter::new();
/// writer.begin_object();
/// writer.key("name");
/// writer.string("timer");
/// writer.key("fields");
/// writer.begin_array();
/// writer.end_array();
/// writer.end_object();
/// assert_eq!(writer.into_string(), r#"{"name": "timer", "fields": []}"#);
/// ```
///
/// Wire: output of stock QEMU 7.2, 10.0 and 11.1 (trailers in `vectors/streams`; malformed UTF-8
/// measured on the 7.2.22 storage daemon).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonWriter {
    out: Vec<u8>,
    /// A separator is due before the next key or item.
    comma: bool,
}

impl JsonWriter {
    /// A writer with nothing written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that appends to `out`.
    #[must_use]
    pub fn appending(out: Vec<u8>) -> Self {
        Self { out, comma: false }
    }

    /// What has been written, and what the buffer held before.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// What has been written, as text. The writer's own output is ASCII; if a buffer given to
    /// [`JsonWriter::appending`] was not UTF-8, its malformed parts are replaced.
    #[must_use]
    pub fn into_string(self) -> String {
        String::from_utf8(self.out)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// The bytes written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    /// Opens an object: `{`.
    pub fn begin_object(&mut self) {
        self.separate();
        self.out.push(b'{');
        self.comma = false;
    }

    /// Closes an object: `}`.
    pub fn end_object(&mut self) {
        self.out.push(b'}');
        self.comma = true;
    }

    /// Opens an array: `[`.
    pub fn begin_array(&mut self) {
        self.separate();
        self.out.push(b'[');
        self.comma = false;
    }

    /// Closes an array: `]`.
    pub fn end_array(&mut self) {
        self.out.push(b']');
        self.comma = true;
    }

    /// Writes a key; its value must be written next.
    pub fn key(&mut self, key: &str) {
        self.key_bytes(key.as_bytes());
    }

    /// Writes a key given as bytes, which need not be UTF-8.
    pub fn key_bytes(&mut self, key: &[u8]) {
        self.separate();
        self.quote(key);
        self.out.extend_from_slice(b": ");
        self.comma = false;
    }

    /// Writes a string.
    pub fn string(&mut self, text: &str) {
        self.string_bytes(text.as_bytes());
    }

    /// Writes a string given as bytes, which need not be UTF-8.
    pub fn string_bytes(&mut self, text: &[u8]) {
        self.separate();
        self.quote(text);
        self.comma = true;
    }

    /// Writes a signed number.
    pub fn i64(&mut self, value: i64) {
        self.separate();
        if value < 0 {
            self.out.push(b'-');
        }
        self.digits(value.unsigned_abs());
        self.comma = true;
    }

    /// Writes an unsigned number.
    ///
    /// QEMU's trailer has signed numbers only: to match it above `i64::MAX`, convert first.
    pub fn u64(&mut self, value: u64) {
        self.separate();
        self.digits(value);
        self.comma = true;
    }

    /// Writes `true` or `false`.
    pub fn bool(&mut self, value: bool) {
        self.separate();
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
        self.comma = true;
    }

    /// Writes `null`.
    pub fn null(&mut self) {
        self.separate();
        self.out.extend_from_slice(b"null");
        self.comma = true;
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.extend_from_slice(b", ");
        }
    }

    fn digits(&mut self, mut value: u64) {
        let mut buffer = [b'0'; 20];
        let mut used = 0_usize;
        for slot in buffer.iter_mut().rev() {
            let digit = value.checked_rem(10).unwrap_or(0);
            // A remainder of ten is a single digit.
            *slot = b'0'.wrapping_add(u8::try_from(digit).unwrap_or(0));
            value = value.checked_div(10).unwrap_or(0);
            used = used.wrapping_add(1);
            if value == 0 {
                break;
            }
        }
        let start = buffer.len().saturating_sub(used);
        self.out
            .extend_from_slice(buffer.get(start..).unwrap_or(&[]));
    }

    fn quote(&mut self, text: &[u8]) {
        self.out.push(b'"');
        let mut rest = text;
        loop {
            let plain = rest.iter().position(|byte| !is_plain(*byte));
            let Some((run, tail)) = plain.and_then(|at| rest.split_at_checked(at)) else {
                self.out.extend_from_slice(rest);
                break;
            };
            self.out.extend_from_slice(run);
            rest = self.escape_first(tail);
        }
        self.out.push(b'"');
    }

    /// Writes the first character of `text` escaped, and returns what follows it.
    fn escape_first<'t>(&mut self, text: &'t [u8]) -> &'t [u8] {
        let Some((&first, tail)) = text.split_first() else {
            return text;
        };
        let short = match first {
            b'"' => b'"',
            b'\\' => b'\\',
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x00..=0x7f => {
                self.unicode_escape(u16::from(first));
                return tail;
            }
            _ => {
                let (point, length) = decode_lenient(text);
                let point = point.unwrap_or(char::REPLACEMENT_CHARACTER);
                let mut units = [0_u16; 2];
                for unit in point.encode_utf16(&mut units) {
                    self.unicode_escape(*unit);
                }
                return text.get(length..).unwrap_or(&[]);
            }
        };
        self.out.extend_from_slice(&[b'\\', short]);
        tail
    }

    fn unicode_escape(&mut self, unit: u16) {
        self.out.extend_from_slice(b"\\u");
        for shift in [12_u32, 8, 4, 0] {
            let nibble = (unit >> shift) & 0xf;
            let digit = char::from_digit(u32::from(nibble), 16).unwrap_or('0');
            self.out
                .push(u8::try_from(digit.to_ascii_uppercase()).unwrap_or(b'0'));
        }
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

/// Decodes the sequence at the start of `text`, whose first byte is 0x80 or above: its character,
/// or none if it is malformed or a noncharacter, and the number of bytes that it takes up, which is
/// at least one.
///
/// A lead byte announces 2 to 6 bytes; the sequence ends early at the first byte that is not a
/// continuation. Surrogates, overlong forms and numbers beyond Unicode are malformed as a whole.
/// The one exception is `C0 80`, which stands for U+0000.
fn decode_lenient(text: &[u8]) -> (Option<char>, usize) {
    let Some((&lead, tail)) = text.split_first() else {
        return (None, 1);
    };
    let (wanted, lead_bits, smallest) = match lead {
        0xc0..=0xdf => (1_usize, lead & 0x1f, 0x80_u32),
        0xe0..=0xef => (2, lead & 0x0f, 0x800),
        0xf0..=0xf7 => (3, lead & 0x07, 0x1_0000),
        0xf8..=0xfb => (4, lead & 0x03, 0x20_0000),
        0xfc..=0xfd => (5, lead & 0x01, 0x400_0000),
        _ => return (None, 1),
    };
    let mut point = u32::from(lead_bits);
    let mut found = 0_usize;
    for byte in tail.iter().take(wanted) {
        if byte & 0xc0 != 0x80 {
            break;
        }
        point = (point << 6) | u32::from(byte & 0x3f);
        found = found.wrapping_add(1);
    }
    let length = found.wrapping_add(1);
    let overlong = point < smallest && !(lead == 0xc0 && point == 0);
    let noncharacter = (0xfdd0..=0xfdef).contains(&point) || point & 0xfffe == 0xfffe;
    if found < wanted || overlong || noncharacter {
        return (None, length);
    }
    (char::from_u32(point), length)
}
