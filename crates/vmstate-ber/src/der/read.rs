//! Reading: a cursor over bytes whose place in the stream is known.

use super::tag;
use crate::error::{BerError, BerErrorKind};

/// Identifier and length octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The identifier octet.
    pub tag: u8,
    /// Identifier and length octets, in bytes: 2 to 6.
    pub size: usize,
    /// Length of the content in bytes.
    pub length: usize,
}

/// Reads identifier and length octets from the front of `bytes`. `None`: there are not enough of them.
///
/// # Errors
/// Whatever is not a tag number up to 30 with a definite, minimal length of at most four further octets.
pub fn header(bytes: &[u8]) -> Result<Option<Header>, BerErrorKind> {
    let Some((&tag, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if tag & 0x1f == 0x1f {
        return Err(BerErrorKind::HighTag { found: tag });
    }
    let Some((&first, rest)) = rest.split_first() else {
        return Ok(None);
    };
    if first < 0x80 {
        if tag == 0 {
            return Err(BerErrorKind::EndOfContents);
        }
        let length = usize::from(first);
        return Ok(Some(Header {
            tag,
            size: 2,
            length,
        }));
    }
    let octets = usize::from(first & 0x7f);
    match octets {
        0 => return Err(BerErrorKind::Indefinite),
        1..=4 => {}
        _ => return Err(BerErrorKind::LengthForm { found: first }),
    }
    let Some(bytes) = rest.get(..octets) else {
        return Ok(None);
    };
    let length = bytes
        .iter()
        .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let shortest = match length {
        0..=0x7f => 0,
        0x80..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xff_ffff => 3,
        _ => 4,
    };
    if octets != shortest {
        return Err(BerErrorKind::NotCanonical(
            "a length takes more octets than needed",
        ));
    }
    if tag == 0 {
        return Err(BerErrorKind::EndOfContents);
    }
    let length = usize::try_from(length).map_err(|_| BerErrorKind::LengthForm { found: first })?;
    Ok(Some(Header {
        tag,
        size: octets.saturating_add(2),
        length,
    }))
}

/// One value with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// The identifier octet.
    pub tag: u8,
    /// The content.
    pub content: &'a [u8],
    /// All octets: identifier, length, content.
    pub whole: &'a [u8],
    /// Where the identifier octet stands in the stream.
    pub offset: u64,
}

/// A cursor over values that stand one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct DerReader<'a> {
    rest: &'a [u8],
    /// Where the last byte ends in the stream: it stays while `rest` shrinks.
    end: u64,
}

impl<'a> DerReader<'a> {
    /// A reader of `bytes`, which begin at `offset` in the stream.
    #[must_use]
    pub const fn new(bytes: &'a [u8], offset: u64) -> Self {
        Self {
            rest: bytes,
            end: offset.wrapping_add(bytes.len() as u64),
        }
    }

    /// Where the next value stands.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.end.wrapping_sub(self.rest.len() as u64)
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The identifier octet of the next value.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next value, of any type.
    ///
    /// # Errors
    /// What [`header`] refuses, and a value that is longer than what encloses it.
    #[inline]
    pub fn any(&mut self) -> Result<Tlv<'a>, BerError> {
        let short = |needed: usize| {
            BerErrorKind::Truncated {
                needed: needed as u64,
                available: self.rest.len() as u64,
            }
            .at(self.offset())
        };
        // The usual case first: one length octet.
        let (tag, size, length) = match self.rest {
            [tag, length @ ..=0x7f, ..] if *tag != 0 && *tag & 0x1f != 0x1f => {
                (*tag, 2, usize::from(*length))
            }
            bytes => match header(bytes).map_err(|kind| kind.at(self.offset()))? {
                Some(header) => (header.tag, header.size, header.length),
                None => return Err(short(self.rest.len().saturating_add(1))),
            },
        };
        let end = size.saturating_add(length);
        let (Some(whole), Some(content)) = (self.rest.get(..end), self.rest.get(size..end)) else {
            return Err(short(end));
        };
        let tlv = Tlv {
            tag,
            content,
            whole,
            offset: self.offset(),
        };
        self.rest = self.rest.get(end..).unwrap_or_default();
        Ok(tlv)
    }

    /// Goes on at `rest`, which is what is behind some of the values.
    pub(crate) const fn go_on(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }

    /// The next value, which must have this identifier octet.
    ///
    /// # Errors
    /// As [`DerReader::any`]; another identifier octet; no value.
    pub fn expect(&mut self, tag: u8, what: &'static str) -> Result<Tlv<'a>, BerError> {
        match self.peek() {
            Some(found) if found == tag => self.any(),
            Some(found) => Err(BerErrorKind::Tag {
                expected: what,
                found,
            }
            .at(self.offset())),
            None => Err(BerErrorKind::Missing(what).at(self.offset())),
        }
    }

    /// The next value if it has this identifier octet.
    ///
    /// # Errors
    /// As [`DerReader::any`].
    pub fn optional(&mut self, tag: u8) -> Result<Option<Tlv<'a>>, BerError> {
        if self.peek() == Some(tag) {
            self.any().map(Some)
        } else {
            Ok(None)
        }
    }

    /// A reader of the next value's content; it must have this identifier octet.
    ///
    /// # Errors
    /// As [`DerReader::expect`].
    pub fn nested(&mut self, tag: u8, what: &'static str) -> Result<Self, BerError> {
        self.expect(tag, what).map(|tlv| tlv.reader())
    }

    /// An INTEGER from 0 to `maximum`.
    ///
    /// # Errors
    /// As [`DerReader::expect`], and [`Tlv::uint`].
    pub fn uint(&mut self, what: &'static str, maximum: u64) -> Result<u64, BerError> {
        self.expect(tag::INTEGER, what)?.uint(what, maximum)
    }

    /// An INTEGER of 32 bits, unsigned.
    ///
    /// # Errors
    /// As [`DerReader::uint`].
    pub fn uint32(&mut self, what: &'static str) -> Result<u32, BerError> {
        self.expect(tag::INTEGER, what)?.uint32(what)
    }

    /// A name: 1 to 255 bytes of UTF-8.
    ///
    /// # Errors
    /// As [`DerReader::expect`], and [`Tlv::name`].
    pub fn name(&mut self, what: &'static str) -> Result<&'a str, BerError> {
        self.expect(tag::TEXT, what)?.name(what)
    }

    /// The number of an ENUMERATED.
    ///
    /// # Errors
    /// As [`DerReader::expect`], and a number that is not minimal or not in `0..=255`.
    pub fn enumerated(&mut self, what: &'static str) -> Result<u8, BerError> {
        self.expect(tag::ENUMERATED, what)?.enumerated(what)
    }

    /// Refuses whatever is left.
    ///
    /// # Errors
    /// If something is.
    pub fn finish(&self) -> Result<(), BerError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let count = self.rest.len() as u64;
        Err(BerErrorKind::Surplus { count }.at(self.offset()))
    }
}

impl<'a> Tlv<'a> {
    /// Where the content begins in the stream.
    #[must_use]
    pub const fn content_offset(&self) -> u64 {
        let header = self.whole.len().saturating_sub(self.content.len());
        self.offset.saturating_add(header as u64)
    }

    /// A reader of the content.
    #[must_use]
    pub const fn reader(&self) -> DerReader<'a> {
        DerReader::new(self.content, self.content_offset())
    }

    /// The content as an integer, whatever the tag: from -2^63 to 2^64 - 1.
    ///
    /// # Errors
    /// No octet, too many, or more than needed.
    #[inline]
    pub fn integer(&self) -> Result<i128, BerError> {
        let wrong = |what| Err(BerErrorKind::NotCanonical(what).at(self.offset));
        let value = match self.content {
            [] => return wrong("an integer without octets"),
            [byte] => i128::from(byte.cast_signed()),
            [0, second, ..] if *second < 0x80 => {
                return wrong("an integer takes more octets than needed");
            }
            [0xff, second, ..] if *second >= 0x80 => {
                return wrong("an integer takes more octets than needed");
            }
            [first, rest @ ..] if rest.len() <= 8 => rest
                .iter()
                .fold(i128::from(first.cast_signed()), |sum, byte| {
                    (sum << 8) | i128::from(*byte)
                }),
            _ => {
                return Err(BerErrorKind::Limit {
                    what: "octets of an integer",
                    found: self.content.len() as u64,
                    limit: 9,
                }
                .at(self.offset));
            }
        };
        let range = i128::from(i64::MIN)..=i128::from(u64::MAX);
        if range.contains(&value) {
            return Ok(value);
        }
        Err(BerErrorKind::Range {
            what: "integer",
            found: value,
            minimum: *range.start(),
            maximum: *range.end(),
        }
        .at(self.offset))
    }

    /// The content as an integer from 0 to `maximum`, whatever the tag.
    ///
    /// # Errors
    /// As [`Tlv::integer`], and a number out of range.
    pub fn uint(&self, what: &'static str, maximum: u64) -> Result<u64, BerError> {
        let value = self.integer()?;
        match u64::try_from(value) {
            Ok(number) if number <= maximum => Ok(number),
            _ => Err(BerErrorKind::Range {
                what,
                found: value,
                minimum: 0,
                maximum: maximum.into(),
            }
            .at(self.offset)),
        }
    }

    /// The content as an unsigned integer of 32 bits, whatever the tag.
    ///
    /// # Errors
    /// As [`Tlv::uint`].
    pub fn uint32(&self, what: &'static str) -> Result<u32, BerError> {
        let value = self.uint(what, u32::MAX.into())?;
        Ok(u32::try_from(value).unwrap_or(u32::MAX))
    }

    /// The content as the number of an ENUMERATED, whatever the tag.
    ///
    /// # Errors
    /// As [`Tlv::integer`], and a number that no choice here has.
    pub fn enumerated(&self, what: &'static str) -> Result<u8, BerError> {
        let found = self.integer()?;
        u8::try_from(found).map_err(|_| BerErrorKind::Choice { what, found }.at(self.offset))
    }

    /// The content as a BOOLEAN, whatever the tag.
    ///
    /// # Errors
    /// Anything but one octet `ff` or `00`.
    #[inline]
    pub fn boolean(&self) -> Result<bool, BerError> {
        match self.content {
            [0] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(BerErrorKind::NotCanonical("a boolean is neither 00 nor ff").at(self.offset)),
        }
    }

    /// Whether a member that is true by being there is so.
    ///
    /// # Errors
    /// A false one, which must be left out.
    pub fn present(&self) -> Result<bool, BerError> {
        if self.boolean()? {
            return Ok(true);
        }
        Err(
            BerErrorKind::NotCanonical("a member is written although it has its default")
                .at(self.offset),
        )
    }

    /// Checks a NULL.
    ///
    /// # Errors
    /// If it has content.
    pub fn null(&self) -> Result<(), BerError> {
        if self.content.is_empty() {
            return Ok(());
        }
        Err(BerErrorKind::NotCanonical("a null has content").at(self.offset))
    }

    /// The content as text, whatever the tag.
    ///
    /// # Errors
    /// Bytes that are not UTF-8.
    pub fn text(&self) -> Result<&'a str, BerError> {
        str::from_utf8(self.content).map_err(|_| BerErrorKind::Utf8.at(self.offset))
    }

    /// The content as a name of 1 to 255 bytes, whatever the tag.
    ///
    /// # Errors
    /// As [`Tlv::text`], and another length.
    pub fn name(&self, what: &'static str) -> Result<&'a str, BerError> {
        let text = self.text()?;
        if (1..=255).contains(&text.len()) {
            return Ok(text);
        }
        Err(BerErrorKind::Range {
            what,
            found: i128::try_from(text.len()).unwrap_or(i128::MAX),
            minimum: 1,
            maximum: 255,
        }
        .at(self.offset))
    }

    /// The content as an array of exactly `N` bytes, whatever the tag.
    ///
    /// # Errors
    /// Another length.
    pub fn array<const N: usize>(&self, what: &'static str) -> Result<[u8; N], BerError> {
        <[u8; N]>::try_from(self.content).map_err(|_| {
            let length = i128::try_from(N).unwrap_or(i128::MAX);
            BerErrorKind::Range {
                what,
                found: i128::try_from(self.content.len()).unwrap_or(i128::MAX),
                minimum: length,
                maximum: length,
            }
            .at(self.offset)
        })
    }
}
