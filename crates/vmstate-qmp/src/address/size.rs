//! Sizes as QEMU's command line has them: `4096`, `0x1000`, `4k`, `1.5M`.

/// Bytes. Suffixes (`B`, `K`, `M`, `G`, `T`, `P`, `E`, in either case) are powers of 1024. A hexadecimal number has none.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        return plain.then(|| u64::from_str_radix(digits, 16).ok())?;
    }
    let (number, unit) = match text.char_indices().next_back()? {
        (at, last) if last.is_ascii_alphabetic() => (text.get(..at)?, unit(last)?),
        _ => (text, 1),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (number, ""),
    };
    let bytes = u128::from(digits(whole)?) * unit;
    if fraction.is_empty() {
        return (number == whole).then(|| u64::try_from(bytes).ok())?;
    }
    // Of a part of a byte nothing is left. More digits than these do not matter to 2^60.
    let fraction = fraction.get(..fraction.len().min(18))?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(digits(fraction)?) * unit / scale;
    u64::try_from(bytes + part).ok()
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

fn unit(letter: char) -> Option<u128> {
    let power = "BKMGTPE".find(letter.to_ascii_uppercase())?;
    1_u128.checked_shl(10 * u32::try_from(power).ok()?)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("7B", 7),
            ("1.5M", 1_572_864),
            ("0.0001k", 0),
            ("15E", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for wrong in [
            "",
            "k",
            "-1",
            "+1",
            "1q",
            "0x",
            "0x1k",
            "1.",
            ".5",
            "1.x",
            "16E",
            " 1",
            "1e3",
            "é",
            "18446744073709551616",
        ] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }
}
