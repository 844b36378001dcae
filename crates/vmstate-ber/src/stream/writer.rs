//! The writer.

use sha2::{Digest as _, Sha256};
use vmstate_desc::SaveState;

use super::{END_OF_CONTENTS, MAGIC};
use crate::error::BerError;
use crate::frame::{
    Checkpoint, DeviceState, End, Finding, Frame, Hello, Machine, RamPages, Status,
};
use crate::types::{TypeIndex, TypeTable};
use crate::value::encode;

/// Writes a stream by appending to a buffer, which the caller may empty whenever a method has returned. Counts, hashes, and sends types
/// before their first value.
#[derive(Debug)]
pub struct Writer {
    offset: u64,
    frames: u64,
    /// `None`: no digest is computed.
    digest: Option<Sha256>,
    types: TypeTable,
    /// Types that have been sent.
    sent: usize,
    /// Room for a value while its frame is made.
    scratch: Vec<u8>,
    session: [u8; 16],
}

/// Whose state a frame holds.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// The stream's number for the section.
    pub section_id: u32,
    /// Id string.
    pub idstr: &'a str,
    /// Instance id.
    pub instance: u32,
    /// Version of the section.
    pub version: u32,
    /// Sent during setup, before guest RAM.
    pub early: bool,
}

impl Writer {
    /// Begins a stream.
    #[must_use]
    pub fn new(hello: &Hello, out: &mut Vec<u8>) -> Self {
        Self::with_types(hello, TypeTable::default(), out)
    }

    /// Begins a stream with these types, none of which has been sent.
    #[must_use]
    pub fn with_types(hello: &Hello, types: TypeTable, out: &mut Vec<u8>) -> Self {
        Self::begin(hello, types, Some(Sha256::new()), out)
    }

    /// Begins a stream without digests, whose bytes need not all go through the buffer: see [`Writer::pages`].
    #[must_use]
    pub fn without_digest(hello: &Hello, out: &mut Vec<u8>) -> Self {
        Self::begin(hello, TypeTable::default(), None, out)
    }

    fn begin(hello: &Hello, types: TypeTable, digest: Option<Sha256>, out: &mut Vec<u8>) -> Self {
        let mut writer = Self {
            offset: 0,
            frames: 0,
            digest,
            types,
            sent: 0,
            scratch: Vec::new(),
            session: hello.session,
        };
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        writer.account(out, start);
        writer.frame(&Frame::Hello(hello.clone()), out);
        writer
    }

    /// Octets written so far.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The number of the migration that the stream belongs to.
    #[must_use]
    pub const fn session(&self) -> [u8; 16] {
        self.session
    }

    /// The types.
    #[must_use]
    pub const fn types(&self) -> &TypeTable {
        &self.types
    }

    /// The types, to add more of them.
    pub const fn types_mut(&mut self) -> &mut TypeTable {
        &mut self.types
    }

    fn account(&mut self, out: &[u8], start: usize) {
        let written = out.get(start..).unwrap_or_default();
        self.offset = self.offset.saturating_add(written.len() as u64);
        if let Some(digest) = &mut self.digest {
            digest.update(written);
        }
    }

    /// Whether a digest is computed, so that all bytes must go through the buffer.
    #[must_use]
    pub const fn has_digest(&self) -> bool {
        self.digest.is_some()
    }

    /// Appends a frame of raw pages up to its content. The content, of `length` bytes, is counted, and must follow by other ways than
    /// the buffer: in a stream [without digest](Self::without_digest). What `frame` says behind its coding is not written.
    pub fn pages(&mut self, frame: &RamPages<'_>, length: u64, out: &mut Vec<u8>) {
        let start = out.len();
        frame.encode_open(length, out);
        self.frames = self.frames.saturating_add(1);
        self.account(out, start);
        self.offset = self.offset.saturating_add(length);
    }

    /// Appends a frame.
    pub fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        frame.encode(out);
        self.frames = self.frames.saturating_add(1);
        self.account(out, start);
    }

    /// Appends the types that have not been sent yet.
    pub fn new_types(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        for ty in self.types.since(self.sent) {
            ty.encode(out);
            self.frames = self.frames.saturating_add(1);
        }
        self.sent = self.types.len();
        self.account(out, start);
    }

    /// Appends a device's state, after its types.
    ///
    /// # Errors
    /// What the device refuses, and what no type can say. Nothing has been appended then.
    pub fn device(
        &mut self,
        section: &Section<'_>,
        state: &dyn SaveState,
        out: &mut Vec<u8>,
    ) -> Result<(), BerError> {
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        let result = encode(state, &mut self.types, &mut body);
        if let Ok(ty) = result {
            self.encoded(section, ty, &body, out);
        }
        self.scratch = body;
        result
            .map(drop)
            .map_err(|e| BerError::from(e).in_section(section.idstr, section.instance))
    }

    /// Appends a device's state that was encoded before, after its types.
    pub fn encoded(
        &mut self,
        section: &Section<'_>,
        ty: TypeIndex,
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        self.new_types(out);
        let frame = DeviceState {
            section_id: section.section_id,
            idstr: section.idstr,
            instance: section.instance,
            version: section.version,
            ty: self.types.get(ty).map_or(0, |ty| ty.id),
            body,
            body_offset: 0,
            early: section.early,
        };
        self.frame(&Frame::Device(frame), out);
    }

    /// Appends the machine's state, after its types.
    ///
    /// # Errors
    /// As [`Writer::device`].
    pub fn machine(&mut self, state: &dyn SaveState, out: &mut Vec<u8>) -> Result<(), BerError> {
        let mut body = Vec::new();
        let ty = encode(state, &mut self.types, &mut body)?;
        self.new_types(out);
        let frame = Machine {
            ty: self.types.get(ty).map_or(0, |ty| ty.id),
            body: &body,
            body_offset: 0,
        };
        self.frame(&Frame::Machine(frame), out);
        Ok(())
    }

    fn digest_so_far(&self) -> Option<[u8; 32]> {
        let digest = self.digest.clone()?;
        Some(digest.finalize().into())
    }

    /// Appends counters and digest of everything so far.
    pub fn checkpoint(&mut self, out: &mut Vec<u8>) {
        let frame = Checkpoint {
            frames: self.frames.saturating_add(1),
            octets: self.offset,
            digest: self.digest_so_far(),
        };
        self.frame(&Frame::Checkpoint(frame), out);
    }

    /// Ends the stream.
    pub fn end(&mut self, status: Status, out: &mut Vec<u8>) {
        self.end_with(status, None, out);
    }

    /// Ends the stream, and says why it ends like this.
    pub fn end_with(&mut self, status: Status, finding: Option<Finding>, out: &mut Vec<u8>) {
        let frame = End {
            frames: self.frames.saturating_add(1),
            octets: self.offset,
            status,
            digest: self.digest_so_far(),
            finding,
        };
        self.frame(&Frame::End(frame), out);
        let start = out.len();
        out.extend_from_slice(&END_OF_CONTENTS);
        self.account(out, start);
    }
}
