//! Sections: devices as values, everything else as bytes.

use vmstate_ber::PIECE;
use vmstate_ber::frame::{Frame, Mark, OpaqueKind, Part, PhaseName, SectionData};
use vmstate_ber::stream::Section;
use vmstate_ber::types::TypeIndex;
use vmstate_desc::{DynState, Limits};
use vmstate_wire::stream::{SectionHeader, SectionKind, write};
use vmstate_wire::vmdesc::{Device, Trailer};

use super::ram::Ram;
use super::{BerSink, note};
use crate::convert::report::Carried;
use crate::inspect::InspectError;
use vmstate_ber::AnyValue;

/// Sections of a pipe, from behind the last one that cannot wait.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) sections: Vec<(SectionHeader, Vec<u8>, bool)>,
    pub(super) ended: bool,
}

/// The body of the open section.
pub(super) enum Body {
    /// None yet.
    Empty,
    /// A value that has been encoded.
    Device {
        ty: TypeIndex,
        body: Vec<u8>,
        length: u64,
    },
    /// Bytes.
    Bytes(Vec<u8>),
    /// Guest RAM.
    Ram,
    /// The section is carried with header and footer.
    Verbatim,
}

impl BerSink<'_> {
    pub(super) fn open(&mut self, header: &SectionHeader) -> Result<(), InspectError> {
        if header.kind == SectionKind::Part {
            self.enter(PhaseName::Iterate)?;
        }
        if header.kind != SectionKind::Full {
            self.release("a part of an iterative section follows, before the trailer")?;
        } else if !matches!(self.ram, Ram::None) {
            self.enter(PhaseName::Switchover)?;
        }
        self.header = Some(header.clone());
        self.body = Body::Empty;
        if header.kind.names_owner() && header.idstr.as_str().is_none() {
            self.body = Body::Verbatim;
            let mut bytes = Vec::new();
            write::put_section_header(&mut bytes, header);
            self.carry(OpaqueKind::Stream, &bytes)?;
        }
        Ok(())
    }

    pub(super) fn close(&mut self, footer: bool) -> Result<(), InspectError> {
        if !footer && self.footers {
            self.footers = false;
            self.note(note::FOOTERS, AnyValue::boolean(false))?;
        }
        let Some(header) = self.header.take() else {
            return Ok(());
        };
        match std::mem::replace(&mut self.body, Body::Empty) {
            Body::Empty => self.bytes_done(&header, Vec::new()),
            Body::Bytes(bytes) => self.bytes_done(&header, bytes),
            Body::Device { ty, body, length } => self.put_device(&header, ty, &body, length),
            Body::Ram => self.mark(Mark::Close),
            Body::Verbatim => {
                let mut bytes = Vec::new();
                if footer {
                    write::put_footer(&mut bytes, header.section_id);
                }
                self.carry(OpaqueKind::Stream, &bytes)
            }
        }
    }

    /// A body of bytes is complete, but for what has been written of it already.
    pub(super) fn bytes_done(
        &mut self,
        header: &SectionHeader,
        bytes: Vec<u8>,
    ) -> Result<(), InspectError> {
        if header.kind == SectionKind::Full
            && let Some(waiting) = &mut self.waiting
        {
            waiting.sections.push((header.clone(), bytes, self.footers));
            return Ok(());
        }
        self.put_data(header, &bytes, false)
    }

    /// Writes what waits for a trailer.
    pub(super) fn release(&mut self, reason: &str) -> Result<(), InspectError> {
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        for (header, bytes, _) in std::mem::take(&mut waiting.sections) {
            self.note_carried(&header, bytes.len() as u64, reason);
            self.put_data(&header, &bytes, false)?;
        }
        Ok(())
    }

    pub(super) fn note_carried(&mut self, header: &SectionHeader, length: u64, reason: &str) {
        self.summary.carried.push(Carried {
            section: format!("{}/{}", header.idstr, header.instance_id.0),
            length,
            reason: reason.to_owned(),
        });
    }

    pub(super) fn put_data(
        &mut self,
        header: &SectionHeader,
        data: &[u8],
        more: bool,
    ) -> Result<(), InspectError> {
        let part = match header.kind {
            SectionKind::Start => Part::Start,
            SectionKind::Part => Part::Part,
            SectionKind::End => Part::End,
            SectionKind::Full => Part::Full,
        };
        let owner = header.idstr.as_str().filter(|_| part.names_owner());
        let owner = owner.map(|name| (name, header.instance_id.0, header.version_id.0));
        let mut rest = data;
        loop {
            let (data, left) = rest.split_at(rest.len().min(PIECE));
            self.frame(&Frame::SectionData(SectionData {
                section_id: header.section_id.0,
                part,
                owner,
                more: more || !left.is_empty(),
                data,
            }))?;
            if left.is_empty() {
                return Ok(());
            }
            rest = left;
        }
    }

    pub(super) fn put_device(
        &mut self,
        header: &SectionHeader,
        ty: TypeIndex,
        body: &[u8],
        length: u64,
    ) -> Result<(), InspectError> {
        let before = self.buffer.len();
        self.writer.new_types(&mut self.buffer);
        let types = self.buffer.len();
        let idstr = header.idstr.to_string();
        let section = Section {
            section_id: header.section_id.0,
            idstr: &idstr,
            instance: header.instance_id.0,
            version: header.version_id.0,
            early: matches!(self.ram, Ram::None),
        };
        self.writer.encoded(&section, ty, body, &mut self.buffer);
        self.summary.devices += 1;
        self.summary.types += (types - before) as u64;
        self.summary.ber_state += (self.buffer.len() - types) as u64;
        self.summary.qemu_state += length + idstr.len() as u64 + 14 + 5;
        self.flush().map_err(InspectError::Write)
    }

    /// Encodes a device, decodes it, and looks whether its bytes are the same. `Err`: why it is to be carried as bytes.
    pub(super) fn encode(
        &mut self,
        header: &SectionHeader,
        state: &DynState,
        payload: &[u8],
        entry: Option<&Device<'_>>,
    ) -> Result<Body, String> {
        if entry.is_some_and(|entry| entry.opaque_size().is_some()) {
            return Err("nothing but its size is described".to_owned());
        }
        let mut body = Vec::new();
        let ty = vmstate_ber::encode(state, self.writer.types_mut(), &mut body)
            .map_err(|e| e.to_string())?;
        let limits = Limits {
            memory: self.memory,
            ..Limits::default()
        };
        let version = vmstate_desc::SaveState::description(state).version_id;
        let again =
            vmstate_ber::decode_dynamic(self.writer.types_mut(), ty, version, &body, 0, limits)
                .map_err(|e| e.to_string())?;
        if version != header.version_id.0 {
            return Err(format!("its description has version {version}"));
        }
        let mut bytes = Vec::with_capacity(payload.len());
        let described = match (&mut self.vmdesc, header.idstr.as_str()) {
            (Some(vmdesc), Some(idstr)) => {
                vmdesc.device(idstr, header.instance_id.0, &again, &mut bytes)
            }
            _ => vmstate_wire::codec::encode(&again, &mut bytes),
        };
        let same = described.is_ok() && bytes == payload;
        if !same {
            // What has been described is not what the other end will describe.
            self.vmdesc = None;
        }
        described.map_err(|e| e.to_string())?;
        if !same {
            return Err("its values give other bytes".to_owned());
        }
        Ok(Body::Device {
            ty,
            body,
            length: payload.len() as u64,
        })
    }

    /// Bytes of the open section.
    pub(super) fn piece(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        if let Body::Verbatim = self.body {
            return self.carry(OpaqueKind::Stream, bytes);
        }
        if let Body::Bytes(have) = &mut self.body {
            have.extend_from_slice(bytes);
        } else {
            self.body = Body::Bytes(bytes.to_vec());
        }
        // At least one byte stays, since the last piece has to be told from the others.
        while let Body::Bytes(have) = &mut self.body
            && have.len() > PIECE
            && self.waiting.is_none()
            && let Some(header) = self.header.clone()
        {
            let rest = have.split_off(PIECE);
            let piece = std::mem::replace(have, rest);
            self.put_data(&header, &piece, true)?;
        }
        Ok(())
    }

    /// Writes the sections that have waited for this trailer.
    pub(super) fn decode_waiting(&mut self, text: &[u8]) -> Result<(), InspectError> {
        let Some(waiting) = self.waiting.take() else {
            return Ok(());
        };
        let trailer = Trailer::parse_within(text, self.memory / 2).ok();
        let mut namesakes = std::collections::HashMap::<_, usize>::new();
        for (header, bytes, _) in waiting.sections {
            let idstr = header.idstr.to_string();
            let before = namesakes
                .entry((idstr.clone(), header.instance_id))
                .or_default();
            let entry = trailer
                .as_ref()
                .and_then(|t| t.device_after(&idstr, header.instance_id.0, *before));
            *before += 1;
            let limits = Limits {
                memory: self.memory / 3,
                ..Limits::default()
            };
            let body = match entry {
                Some(entry) => entry
                    .decode(&bytes, 0, false, limits, &|rest| rest.is_empty())
                    .map_err(|e| e.to_string())
                    .and_then(|decoded| self.encode(&header, &decoded.state, &bytes, Some(entry))),
                None => Err("nothing describes it".to_owned()),
            };
            match body {
                Ok(Body::Device { ty, body, length }) => {
                    self.put_device(&header, ty, &body, length)?;
                }
                Ok(_) => {}
                Err(reason) => {
                    self.note_carried(&header, bytes.len() as u64, &reason);
                    self.put_data(&header, &bytes, false)?;
                }
            }
        }
        if waiting.ended {
            self.enter(PhaseName::Complete)?;
        }
        Ok(())
    }
}
