//! Numbers that a stream does not say: how many elements fields have by the source's configuration.

use super::handshake::{list, some};
use crate::der::{DerReader, Tlv, close, open, put_text, put_uint, tag};
use crate::error::{BerError, BerErrorKind};

/// The numbers of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionCounts {
    /// Id string.
    pub idstr: String,
    /// Instance id.
    pub instance: u32,
    /// At least one, sorted by path.
    pub counts: Vec<FieldCount>,
}

/// How many elements a field has, which its device counts by its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldCount {
    /// Names of embedding structures and of the field, with dots between them; 1 to 255 octets.
    pub path: String,
    /// Elements of an array, octets of a buffer, bits of a bitmap.
    pub number: u32,
}

/// As `counts` of a Hello, whose identifier is `identifier`.
pub(super) fn encode(all: &[SectionCounts], identifier: u8, out: &mut Vec<u8>) {
    let start = open(out, identifier);
    for section in all {
        let at = open(out, tag::SEQUENCE);
        put_text(out, &section.idstr);
        put_uint(out, tag::INTEGER, section.instance.into());
        let counts = open(out, tag::SEQUENCE);
        for count in &section.counts {
            let at = open(out, tag::SEQUENCE);
            put_text(out, &count.path);
            put_uint(out, tag::INTEGER, count.number.into());
            close(out, at);
        }
        close(out, counts);
        close(out, at);
    }
    close(out, start);
}

pub(super) fn decode(tlv: &Tlv<'_>) -> Result<Vec<SectionCounts>, BerError> {
    let all = list(some(tlv)?, |reader| {
        section(reader.nested(tag::SEQUENCE, "numbers of a section")?)
    })?;
    let key = |one: &SectionCounts| (one.idstr.clone(), one.instance);
    match all.is_sorted_by(|a, b| key(a) < key(b)) {
        true => Ok(all),
        false => Err(
            BerErrorKind::NotCanonical("numbers of sections are not sorted by section")
                .at(tlv.offset),
        ),
    }
}

fn section(mut reader: DerReader<'_>) -> Result<SectionCounts, BerError> {
    let idstr = reader.name("id string of a section")?.to_owned();
    let instance = reader.uint32("instance id of a section")?;
    let tlv = reader.expect(tag::SEQUENCE, "numbers of a section")?;
    let counts = list(some(&tlv)?, |reader| {
        let mut inner = reader.nested(tag::SEQUENCE, "a number")?;
        let path = inner.name("path of a number")?.to_owned();
        let number = inner.uint32("a number of elements")?;
        inner.finish()?;
        Ok(FieldCount { path, number })
    })?;
    if !counts.is_sorted_by(|a, b| a.path < b.path) {
        return Err(BerErrorKind::NotCanonical("numbers are not sorted by path").at(tlv.offset));
    }
    reader.finish()?;
    Ok(SectionCounts {
        idstr,
        instance,
        counts,
    })
}
