//! Values of any type, kept as they are.

use super::value_tag;
use crate::der::{DerReader, Tlv, put_bool, put_int, put_octets, put_text, tag};
use crate::error::{BerError, BerErrorKind};
use crate::limits::MAX_DEPTH;

/// A value whose type nothing tells: of a note, of a parameter. Canonical, as it came.
///
/// ```
/// use vmstate_ber::AnyValue;
/// let value = AnyValue::text("v11.1");
/// assert_eq!(value.as_bytes(), b"\x0c\x05v11.1");
/// assert_eq!(value.as_text(), Some("v11.1"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyValue(Vec<u8>);

impl AnyValue {
    /// A `UTF8String`.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let mut out = Vec::new();
        put_text(&mut out, text);
        Self(out)
    }

    /// A BOOLEAN.
    #[must_use]
    pub fn boolean(value: bool) -> Self {
        let mut out = Vec::new();
        put_bool(&mut out, tag::BOOLEAN, value);
        Self(out)
    }

    /// NULL: of something that is not told.
    #[must_use]
    pub fn absent() -> Self {
        Self(vec![tag::NULL, 0])
    }

    /// An INTEGER.
    #[must_use]
    pub fn int(value: i64) -> Self {
        let mut out = Vec::new();
        put_int(&mut out, tag::INTEGER, value);
        Self(out)
    }

    /// An OCTET STRING.
    #[must_use]
    pub fn octets(bytes: &[u8]) -> Self {
        let mut out = Vec::new();
        put_octets(&mut out, bytes);
        Self(out)
    }

    /// The octets: identifier, length, content.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn content(&self, tag: u8) -> Option<Tlv<'_>> {
        let tlv = DerReader::new(&self.0, 0).any().ok()?;
        (tlv.tag == tag).then_some(tlv)
    }

    /// The text of a `UTF8String`.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        self.content(tag::TEXT)?.text().ok()
    }

    /// The value of a BOOLEAN.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        self.content(tag::BOOLEAN)?.boolean().ok()
    }

    /// The value of an INTEGER.
    #[must_use]
    pub fn as_int(&self) -> Option<i128> {
        self.content(tag::INTEGER)?.integer().ok()
    }

    /// The bytes of an OCTET STRING.
    #[must_use]
    pub fn as_octets(&self) -> Option<&[u8]> {
        self.content(tag::OCTETS).map(|tlv| tlv.content)
    }

    /// Reads the next value.
    ///
    /// # Errors
    /// What is not a canonical value, or nested too deep.
    pub fn decode(reader: &mut DerReader<'_>) -> Result<Self, BerError> {
        let tlv = reader.any()?;
        check(&tlv, 0)?;
        Ok(Self(tlv.whole.to_vec()))
    }
}

/// Checks that a value is canonical, whatever its type.
fn check(tlv: &Tlv<'_>, depth: u32) -> Result<(), BerError> {
    if depth > MAX_DEPTH {
        return Err(BerErrorKind::Limit {
            what: "depth of a value",
            found: depth.into(),
            limit: MAX_DEPTH.into(),
        }
        .at(tlv.offset));
    }
    let all = |mut reader: DerReader<'_>| {
        while !reader.is_empty() {
            check(&reader.any()?, depth.saturating_add(1))?;
        }
        Ok(())
    };
    match tlv.tag {
        tag::NULL | value_tag::NIL => tlv.null(),
        tag::BOOLEAN => tlv.boolean().map(drop),
        tag::INTEGER => tlv.integer().map(drop),
        tag::OCTETS | value_tag::RAW => Ok(()),
        tag::TEXT => tlv.text().map(drop),
        tag::SEQUENCE | value_tag::LIST => all(tlv.reader()),
        value_tag::SUB | value_tag::TYPED => {
            let mut reader = tlv.reader();
            reader.uint32("type of a struct")?;
            reader.uint32("version of a struct")?;
            all(reader.nested(tag::SEQUENCE, "a struct")?)?;
            reader.finish()
        }
        value_tag::BLOB => {
            let mut reader = tlv.reader();
            reader.uint32("number of a blob")?;
            reader.uint("length of a blob", u64::MAX)?;
            reader.finish()
        }
        value_tag::RUN => {
            let mut reader = tlv.reader();
            reader.uint("elements of a run", u64::MAX)?;
            check(&reader.any()?, depth.saturating_add(1))?;
            reader.finish()
        }
        found => Err(BerErrorKind::Tag {
            expected: "a value",
            found,
        }
        .at(tlv.offset)),
    }
}
