//! Small frames.

use super::handshake::Finding;
use super::{Members, frame_tag, put_checksum};
use crate::der::{
    DerReader, close, open, put_bool, put_enumerated, put_octets, put_text, put_tlv, put_uint, tag,
};
use crate::error::{BerError, BerErrorKind};
use crate::value::AnyValue;

use tag::{constructed, primitive};

/// Looks a choice up by its number.
fn choice<T: Copy>(
    reader: &mut DerReader<'_>,
    what: &'static str,
    all: &[T],
) -> Result<T, BerError> {
    let at = reader.offset();
    let number = reader.enumerated(what)?;
    all.get(usize::from(number)).copied().ok_or_else(|| {
        let found = number.into();
        BerErrorKind::Choice { what, found }.at(at)
    })
}

/// A phase of the migration begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Which.
    pub name: PhaseName,
    /// How often, for [`PhaseName::Iterate`].
    pub round: Option<u64>,
}

/// The phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PhaseName {
    /// Types, machine, blocks.
    Setup = 0,
    /// Pages while the guest runs.
    Iterate = 1,
    /// The guest stands still.
    Switchover = 2,
    /// Everything has been sent: QEMU's end-of-stream mark.
    Complete = 3,
    /// The guest runs at the destination.
    Postcopy = 4,
}

impl Phase {
    /// This phase, without a number.
    #[must_use]
    pub const fn new(name: PhaseName) -> Self {
        Self { name, round: None }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::PHASE);
        put_enumerated(out, self.name as u8);
        if let Some(round) = self.round {
            put_uint(out, primitive(0), round);
        }
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'_>) -> Result<Self, BerError> {
        use PhaseName::{Complete, Iterate, Postcopy, Setup, Switchover};
        let all = [Setup, Iterate, Switchover, Complete, Postcopy];
        let name = choice(&mut m.reader, "phase", &all)?;
        let round = match m.reader.optional(primitive(0))? {
            Some(tlv) => Some(tlv.uint("number of a round", u64::MAX)?),
            None => None,
        };
        m.finish()?;
        Ok(Self { name, round })
    }
}

/// A piece of a value that is too large for its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob<'a> {
    /// Number of the blob.
    pub blob: u32,
    /// Where the piece belongs, in bytes.
    pub offset: u64,
    /// The piece.
    pub data: &'a [u8],
}

impl<'a> Blob<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::BLOB);
        put_uint(out, tag::INTEGER, self.blob.into());
        put_uint(out, tag::INTEGER, self.offset);
        put_octets(out, self.data);
        put_checksum(out, start);
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'a>) -> Result<Self, BerError> {
        let blob = m.reader.uint32("number of a blob")?;
        let offset = m.reader.uint("offset in a blob", u64::MAX)?;
        let data = m.reader.expect(tag::OCTETS, "bytes of a blob")?.content;
        m.checksum()?;
        m.finish()?;
        Ok(Self { blob, offset, data })
    }
}

/// A command of a QEMU stream, carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command<'a> {
    /// Its number.
    pub command: u16,
    /// Its payload.
    pub data: &'a [u8],
    /// Whether a checksum is written.
    pub checksum: bool,
}

impl<'a> Command<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::COMMAND);
        put_uint(out, tag::INTEGER, self.command.into());
        put_octets(out, self.data);
        if self.checksum {
            put_checksum(out, start);
        }
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'a>) -> Result<Self, BerError> {
        let command = m.reader.uint("number of a command", u16::MAX.into())?;
        let data = m
            .reader
            .expect(tag::OCTETS, "payload of a command")?
            .content;
        let checksum = m.optional_checksum()?;
        m.finish()?;
        Ok(Self {
            command: u16::try_from(command).unwrap_or(u16::MAX),
            data,
            checksum,
        })
    }
}

/// A message of a QEMU return path, carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Its number.
    pub message: u16,
    /// Its payload.
    pub data: &'a [u8],
}

impl<'a> Reply<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::REPLY);
        put_uint(out, tag::INTEGER, self.message.into());
        put_octets(out, self.data);
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'a>) -> Result<Self, BerError> {
        let message = m.reader.uint("number of a message", u16::MAX.into())?;
        let data = m
            .reader
            .expect(tag::OCTETS, "payload of a message")?
            .content;
        m.finish()?;
        Ok(Self {
            message: u16::try_from(message).unwrap_or(u16::MAX),
            data,
        })
    }
}

/// Bytes of a QEMU stream, carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque<'a> {
    /// What they are.
    pub what: OpaqueKind,
    /// More of it follows.
    pub more: bool,
    /// The bytes.
    pub data: &'a [u8],
}

/// What the bytes of an [`Opaque`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OpaqueKind {
    /// The configuration section, from behind its type byte.
    Configuration = 0,
    /// Everything behind the end-of-stream mark.
    Trailer = 1,
    /// The text of the trailing description.
    Vmdesc = 2,
    /// What stands in the stream at this place.
    Stream = 3,
}

impl<'a> Opaque<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::OPAQUE);
        put_enumerated(out, self.what as u8);
        if self.more {
            put_bool(out, primitive(0), true);
        }
        put_tlv(out, primitive(1), self.data);
        put_checksum(out, start);
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'a>) -> Result<Self, BerError> {
        use OpaqueKind::{Configuration, Stream, Trailer, Vmdesc};
        let all = [Configuration, Trailer, Vmdesc, Stream];
        let what = choice(&mut m.reader, "kind of bytes", &all)?;
        let more = match m.reader.optional(primitive(0))? {
            Some(tlv) => tlv.present()?,
            None => false,
        };
        let data = m.reader.expect(primitive(1), "bytes")?.content;
        m.checksum()?;
        m.finish()?;
        Ok(Self { what, more, data })
    }
}

/// A name and a value, for people and tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The name.
    pub name: String,
    /// The value.
    pub value: AnyValue,
}

impl Note {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::NOTE);
        put_text(out, &self.name);
        out.extend_from_slice(self.value.as_bytes());
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'_>) -> Result<Self, BerError> {
        let name = m.reader.name("name of a note")?.to_owned();
        let value = AnyValue::decode(&mut m.reader)?;
        m.finish()?;
        Ok(Self { name, value })
    }
}

/// Counters and digest, on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Frames until here, this one included.
    pub frames: u64,
    /// Octets before this frame.
    pub octets: u64,
    /// SHA-256 of the octets before this frame.
    pub digest: Option<[u8; 32]>,
}

fn put_digest(out: &mut Vec<u8>, digest: Option<&[u8; 32]>) {
    if let Some(digest) = digest {
        put_tlv(out, primitive(0), digest);
    }
}

fn digest(reader: &mut DerReader<'_>) -> Result<Option<[u8; 32]>, BerError> {
    match reader.optional(primitive(0))? {
        Some(tlv) => tlv.array("octets of a digest").map(Some),
        None => Ok(None),
    }
}

impl Checkpoint {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::CHECKPOINT);
        put_uint(out, tag::INTEGER, self.frames);
        put_uint(out, tag::INTEGER, self.octets);
        put_digest(out, self.digest.as_ref());
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'_>) -> Result<Self, BerError> {
        let frames = m.reader.uint("number of frames", u64::MAX)?;
        let octets = m.reader.uint("number of octets", u64::MAX)?;
        let digest = digest(&mut m.reader)?;
        m.finish()?;
        Ok(Self {
            frames,
            octets,
            digest,
        })
    }
}

/// The last frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Frames of the stream, this one included.
    pub frames: u64,
    /// Octets before this frame.
    pub octets: u64,
    /// How it went.
    pub status: Status,
    /// SHA-256 of the octets before this frame.
    pub digest: Option<[u8; 32]>,
    /// Why it went wrong.
    pub finding: Option<Finding>,
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Everything is there.
    Complete = 0,
    /// Somebody did not want it any more.
    Cancelled = 1,
    /// Something went wrong.
    Failed = 2,
}

impl End {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = open(out, frame_tag::END);
        put_uint(out, tag::INTEGER, self.frames);
        put_uint(out, tag::INTEGER, self.octets);
        put_enumerated(out, self.status as u8);
        put_digest(out, self.digest.as_ref());
        if let Some(finding) = &self.finding {
            finding.encode_as(constructed(1), out);
        }
        close(out, start);
    }

    pub(super) fn decode(mut m: Members<'_>) -> Result<Self, BerError> {
        let frames = m.reader.uint("number of frames", u64::MAX)?;
        let octets = m.reader.uint("number of octets", u64::MAX)?;
        let all = [Status::Complete, Status::Cancelled, Status::Failed];
        let status = choice(&mut m.reader, "status", &all)?;
        let digest = digest(&mut m.reader)?;
        let finding = match m.reader.optional(constructed(1))? {
            Some(tlv) => Some(Finding::decode(tlv.reader())?),
            None => None,
        };
        m.finish()?;
        Ok(Self {
            frames,
            octets,
            status,
            digest,
            finding,
        })
    }
}
