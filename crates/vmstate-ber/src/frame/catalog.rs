//! The catalog: which sections a source has.

use sha2::{Digest as _, Sha256};

use super::handshake::choice;
use crate::der::{DerReader, close, open, put_text, put_tlv, put_uint, tag};
use crate::error::{BerError, BerErrorKind};

use tag::primitive;

/// A section to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Id string.
    pub idstr: String,
    /// Instance id.
    pub instance: u32,
    /// Version.
    pub version: u32,
    /// Whether it will come.
    pub presence: Presence,
    /// Closure digest of its type, if it has one.
    pub type_digest: Option<[u8; 32]>,
}

/// Whether a section comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Presence {
    /// It does.
    Always = 0,
    /// It may.
    Maybe = 1,
    /// In pieces.
    Iterative = 2,
    /// As bytes.
    Opaque = 3,
}

impl CatalogEntry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, tag::SEQUENCE);
        put_text(out, &self.idstr);
        put_uint(out, tag::INTEGER, self.instance.into());
        put_uint(out, tag::INTEGER, self.version.into());
        if self.presence != Presence::Always {
            put_uint(out, primitive(0), (self.presence as u8).into());
        }
        if let Some(digest) = &self.type_digest {
            put_tlv(out, primitive(1), digest);
        }
        close(out, start);
    }

    pub(super) fn decode(mut reader: DerReader<'_>) -> Result<Self, BerError> {
        use Presence::{Always, Iterative, Maybe, Opaque};
        let idstr = reader.name("id string of a section")?.to_owned();
        let instance = reader.uint32("instance id of a section")?;
        let version = reader.uint32("version of a section")?;
        let presence = match reader.optional(primitive(0))? {
            Some(tlv) => match choice(&tlv, "presence", &[Always, Maybe, Iterative, Opaque])? {
                Always => {
                    let what = "a member is written although it has its default";
                    return Err(BerErrorKind::NotCanonical(what).at(tlv.offset));
                }
                presence => presence,
            },
            None => Always,
        };
        let type_digest = match reader.optional(primitive(1))? {
            Some(tlv) => Some(tlv.array("octets of a digest")?),
            None => None,
        };
        reader.finish()?;
        Ok(Self {
            idstr,
            instance,
            version,
            presence,
            type_digest,
        })
    }
}

/// The digest by which two ends see that they have the same sections of the same types: SHA-256 of the catalog, sorted by id string and
/// instance id, as a SEQUENCE of entries.
///
/// ```
/// use vmstate_ber::frame::{CatalogEntry, Presence, manifest};
/// let rtc = CatalogEntry {
///     idstr: "rtc".to_owned(),
///     instance: 0,
///     version: 1,
///     presence: Presence::Always,
///     type_digest: Some([7; 32]),
/// };
/// let other = CatalogEntry { version: 2, ..rtc.clone() };
/// assert_ne!(manifest(&[rtc]), manifest(&[other]));
/// ```
#[must_use]
pub fn manifest(catalog: &[CatalogEntry]) -> [u8; 32] {
    let mut bytes = Vec::new();
    let start = open(&mut bytes, tag::SEQUENCE);
    for entry in catalog {
        entry.encode(&mut bytes);
    }
    close(&mut bytes, start);
    Sha256::digest(&bytes).into()
}
