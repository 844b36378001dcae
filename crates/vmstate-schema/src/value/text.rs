//! Numbers and bytes as strings.

use std::fmt::Write as _;

/// 64 bits: `0x` and 16 lower-case hex digits.
#[must_use]
pub fn hex64(bits: u64) -> String {
    format!("{bits:#018x}")
}

/// Bytes: two lower-case hex digits each.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes of a string of lower-case hex digits, two each.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    digits
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// The 64 bits of `0x` and 1 to 16 lower-case hex digits.
pub(super) fn parse_hex64(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let fits = (1..=16).contains(&digits.len())
        && digits
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// A decimal integer without a plus sign and without leading zeros.
#[must_use]
pub fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = digits == "0" && !text.starts_with('-')
        || digits.starts_with(|c: char| matches!(c, '1'..='9'))
            && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits() {
        assert_eq!(hex(&[0, 0xa5, 0xff]), "00a5ff");
        assert_eq!(parse_hex("00a5ff"), Some(vec![0, 0xa5, 0xff]));
        assert_eq!(parse_hex(""), Some(vec![]));
        for wrong in ["0", "0A", "0x00", " 0", "zz"] {
            assert_eq!(parse_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sixty_four_bits() {
        for value in [0, 1, u64::MAX] {
            assert_eq!(parse_hex64(&hex64(value)), Some(value));
        }
        assert_eq!(parse_hex64("0x1f"), Some(0x1f));
        for wrong in ["", "0x", "1f", "0x1F", "0x00000000000000000", "0x+1"] {
            assert_eq!(parse_hex64(wrong), None, "{wrong}");
        }
        for value in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(decimal(&value.to_string()), Some(value));
        }
        for wrong in ["", "-", "-0", "01", "+1", "1.0", "9223372036854775808"] {
            assert_eq!(decimal(wrong), None, "{wrong}");
        }
    }
}
