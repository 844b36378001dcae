//! The text between quotes.

use super::JsonErrorKind;

/// The characters of a string token, whose quotes are its first and last byte.
pub(super) fn unquoted(token: &[u8]) -> Result<String, JsonErrorKind> {
    let end = token.len().saturating_sub(1);
    let body = token.get(1..end).unwrap_or_default();
    if !body.contains(&b'\\') {
        let text = std::str::from_utf8(body).map_err(|_| JsonErrorKind::Utf8)?;
        return checked(text).map(str::to_owned);
    }
    let mut text = String::with_capacity(body.len());
    let mut at = 1;
    while at < end {
        let rest = token.get(at..end).unwrap_or_default();
        let plain = rest.iter().position(|b| *b == b'\\').unwrap_or(rest.len());
        let piece = rest.get(..plain).unwrap_or_default();
        text.push_str(checked(
            std::str::from_utf8(piece).map_err(|_| JsonErrorKind::Utf8)?,
        )?);
        at += plain;
        let Some(&escape) = token.get(at + 1).filter(|_| at < end) else {
            break;
        };
        at += 2;
        text.push(match escape {
            b'"' | b'\'' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (character, length) = unicode(token, at)?;
                at += length;
                character
            }
            _ => return Err(JsonErrorKind::Escape),
        });
    }
    Ok(text)
}

/// Without what Unicode says is no character.
fn checked(text: &str) -> Result<&str, JsonErrorKind> {
    if text.chars().any(is_noncharacter) {
        return Err(JsonErrorKind::Utf8);
    }
    Ok(text)
}

const fn is_noncharacter(c: char) -> bool {
    let code = c as u32;
    code & 0xfffe == 0xfffe || (code >= 0xfdd0 && code <= 0xfdef)
}

/// The character that the digits from `at` on stand for, and how many bytes they are: four, or ten for two halves.
fn unicode(token: &[u8], at: usize) -> Result<(char, usize), JsonErrorKind> {
    let shown = |length: usize| {
        let end = token.len().min(at + length);
        let digits = token.get(at..end).unwrap_or_default();
        JsonErrorKind::Character(format!("\\u{}", String::from_utf8_lossy(digits)))
    };
    let first = hex(token, at).ok_or_else(|| shown(4))?;
    let second = match token.get(at + 4..at + 6) {
        Some(b"\\u") if (0xd800..0xdc00).contains(&first) => hex(token, at + 6),
        _ => None,
    };
    let (code, length) = match second {
        Some(low) if (0xdc00..0xe000).contains(&low) => {
            (0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00), 10)
        }
        _ => (first, 4),
    };
    let character = char::from_u32(code).filter(|c| !is_noncharacter(*c));
    Ok((character.ok_or_else(|| shown(length))?, length))
}

fn hex(token: &[u8], at: usize) -> Option<u32> {
    let digits = token.get(at..at.checked_add(4)?)?;
    digits.iter().try_fold(0, |number, digit| {
        Some(number << 4 | char::from(*digit).to_digit(16)?)
    })
}
