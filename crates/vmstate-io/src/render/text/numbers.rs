//! Numbers and bytes as a person reads them.

use std::fmt;

use vmstate_desc::{Codec, Element, Field, Scalar};

/// A size in bytes with a binary unit: `16.0 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "bytes";
    for next in units {
        if tenths < 10_240 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = next;
    }
    if unit == "bytes" {
        return format!("{bytes} bytes");
    }
    if tenths % 10 == 0 {
        return format!("{} {unit}", tenths / 10);
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// The scalar of a field: a timer as a time, all others as [`scalar`].
pub(crate) fn scalar_of(field: &Field, value: Scalar) -> String {
    match (&field.element, value) {
        (Element::Value(Codec::Timer), Scalar::I64(expiry)) => timer(expiry),
        _ => scalar(value),
    }
}

/// An integer in hex, as wide as its type, and in decimal where that is short or the integer is negative.
pub(crate) fn scalar(value: Scalar) -> String {
    match value {
        Scalar::Bool(v) => v.to_string(),
        Scalar::F64(v) => format!("0x{:016x} ({v:?})", v.to_bits()),
        value => {
            let hex = bare(value);
            match value.as_i128() {
                Some(decimal) if decimal < 1 << 32 && decimal > -(1 << 63) => {
                    format!("{hex} ({decimal})")
                }
                _ => hex,
            }
        }
    }
}

/// An integer in hex, as wide as its type; booleans and doubles as such.
pub(super) fn bare(value: Scalar) -> String {
    let wide = value.scalar_type().size() * 2 + 2;
    match value {
        Scalar::Bool(v) => v.to_string(),
        Scalar::F64(v) => format!("{v:?}"),
        value => format!("{:#0wide$x}", value.to_bits() & mask(value)),
    }
}

fn mask(value: Scalar) -> u64 {
    match value.scalar_type().size() {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// A timer's expiry.
fn timer(expiry: i64) -> String {
    if expiry == -1 {
        return "not armed".to_owned();
    }
    let sign = if expiry < 0 { '-' } else { '+' };
    let nanoseconds = expiry.unsigned_abs();
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    format!("{sign}{seconds}.{:06}s ({expiry} ns)", rest / 1000)
}

/// The first bytes of a buffer, with its text where it has some.
pub(crate) struct Excerpt<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) most: usize,
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, most } = *self;
        write!(f, "[{} bytes]", bytes.len())?;
        let Some(first) = bytes.first() else {
            return Ok(());
        };
        if bytes.len() > 4 && bytes.iter().all(|b| b == first) {
            return write!(f, " all {first:02x}");
        }
        for byte in bytes.iter().take(most) {
            write!(f, " {byte:02x}")?;
        }
        if bytes.len() > most {
            f.write_str(" …")?;
        }
        if let Some(text) = text_of(bytes) {
            write!(f, "  \"{text}\"")?;
        }
        Ok(())
    }
}

/// The text of a buffer that holds printable ASCII, zeros behind it aside.
fn text_of(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().rposition(|b| *b != 0)? + 1;
    let text = bytes.get(..end)?;
    let printable = text.iter().all(|b| (0x20..0x7f).contains(b));
    (end > 2 && end <= 64 && printable)
        .then(|| std::str::from_utf8(text).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_the_width_of_their_type() {
        assert_eq!(scalar(Scalar::U8(5)), "0x05 (5)");
        assert_eq!(scalar(Scalar::U32(42)), "0x0000002a (42)");
        assert_eq!(scalar(Scalar::I32(-2)), "0xfffffffe (-2)");
        assert_eq!(scalar(Scalar::U64(u64::MAX)), "0xffffffffffffffff");
        assert_eq!(scalar(Scalar::I64(-1)), "0xffffffffffffffff (-1)");
        assert_eq!(scalar(Scalar::U16(0xffff)), "0xffff (65535)");
        assert_eq!(scalar(Scalar::Bool(true)), "true");
        assert_eq!(scalar(Scalar::F64(1.5)), "0x3ff8000000000000 (1.5)");
    }

    #[test]
    fn timers_are_times() {
        let field = Field::value("t", Codec::Timer);
        assert_eq!(scalar_of(&field, Scalar::I64(-1)), "not armed");
        assert_eq!(
            scalar_of(&field, Scalar::I64(1_234_567_000)),
            "+1.234567s (1234567000 ns)"
        );
        assert_eq!(scalar_of(&field, Scalar::I64(-5)), "-0.000000s (-5 ns)");
    }

    #[test]
    fn sizes_are_rounded_to_a_tenth() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (16 << 20, "16 MiB"),
            (1_615_251_680, "1.5 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn buffers_show_their_beginning_and_their_text() {
        let excerpt = |bytes| Excerpt { bytes, most: 8 }.to_string();
        assert_eq!(
            excerpt(b"running\0\0"),
            "[9 bytes] 72 75 6e 6e 69 6e 67 00 …  \"running\""
        );
        assert_eq!(excerpt(&[0; 256]), "[256 bytes] all 00");
        assert_eq!(excerpt(&[1, 2]), "[2 bytes] 01 02");
        assert_eq!(excerpt(&[]), "[0 bytes]");
    }
}
