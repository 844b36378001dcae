//! Writing a stream again from what was decoded.

use std::io::Write;

use vmstate_desc::{DynState, Limits};
use vmstate_ram::dirty_bitmap::{Chunk, ChunkEvent, ChunkWriter};
use vmstate_wire::stream::{Command, Event, write};
use vmstate_wire::vmdesc::{Device, Trailer, Vmdesc, decode_entry};

use super::ram::ram_error;
use super::report::InspectError;

/// What a rewritten stream was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Devices that were encoded from their values.
    pub encoded: u64,
    /// Sections that were copied, since nothing describes them.
    pub copied: u64,
    /// Entries of the trailer that were copied, since describing the values gives another text.
    pub carried: u64,
    /// Bytes written.
    pub length: u64,
}

/// Writes the elements of a stream as they are read.
pub(super) struct Rewriter<'w, 't> {
    out: Counting<'w>,
    pub(super) summary: Summary,
    trailer: Option<&'w Trailer<'t>>,
    vmdesc: Option<Vmdesc>,
    /// The trailer's text was written when it began.
    trailer_written: bool,
}

struct Counting<'w> {
    inner: &'w mut dyn Write,
    written: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn malformed(e: &dyn std::fmt::Display) -> InspectError {
    InspectError::Write(std::io::Error::other(e.to_string()))
}

impl<'w, 't> Rewriter<'w, 't> {
    pub(super) fn new(out: &'w mut dyn Write, trailer: Option<&'w Trailer<'t>>) -> Self {
        let vmdesc = trailer.map(|t| {
            let page_size = t.page_size().and_then(|size| u32::try_from(size).ok());
            Vmdesc::new(t.dialect(), page_size.unwrap_or(4096))
        });
        Self {
            out: Counting {
                inner: out,
                written: 0,
            },
            summary: Summary::default(),
            trailer,
            vmdesc,
            trailer_written: false,
        }
    }

    pub(super) fn out(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.out.write_all(bytes).map_err(InspectError::Write)?;
        self.summary.length = self.out.written;
        Ok(())
    }

    pub(super) fn event(&mut self, event: &Event<'_>) -> Result<(), InspectError> {
        let mut bytes = Vec::new();
        match event {
            Event::Header => write::put_header(&mut bytes),
            Event::Configuration(configuration) => {
                write::put_configuration(&mut bytes, configuration);
                self.describe_configuration(bytes.get(1..).unwrap_or_default())?;
            }
            Event::Section(header) => write::put_section_header(&mut bytes, header),
            Event::SectionClosed {
                section_id,
                footer: true,
                ..
            } => write::put_footer(&mut bytes, *section_id),
            Event::Command(command) => {
                write::put_command(&mut bytes, command).map_err(|e| malformed(&e))?;
            }
            Event::PackageBegin { length } => {
                let command = Command::Packaged { length: *length };
                write::put_command(&mut bytes, &command).map_err(|e| malformed(&e))?;
            }
            Event::PackageTail(tail) => bytes.extend_from_slice(tail),
            Event::Eof => write::put_eof(&mut bytes),
            Event::TrailerBegin { length } => match self.vmdesc.take() {
                Some(vmdesc) => {
                    let text = vmdesc.finish();
                    write::put_trailer(&mut bytes, text.as_bytes()).map_err(|e| malformed(&e))?;
                    self.trailer_written = true;
                }
                None => {
                    bytes.push(6);
                    bytes.extend_from_slice(&length.to_be_bytes());
                }
            },
            Event::TrailerChunk(chunk) if !self.trailer_written => bytes.extend_from_slice(chunk),
            _ => {}
        }
        self.put(&bytes)
    }

    /// Describes the configuration section in the trailer, where it has a place.
    fn describe_configuration(&mut self, body: &[u8]) -> Result<(), InspectError> {
        let (Some(vmdesc), Some(entry)) = (
            &mut self.vmdesc,
            self.trailer.and_then(Trailer::configuration),
        ) else {
            return Ok(());
        };
        let decoded = decode_entry(entry, body, 0, false, Limits::default(), &|rest| {
            rest.is_empty()
        })?;
        vmdesc.configuration(&decoded.state, &mut Vec::new())?;
        Ok(())
    }

    /// Encodes a device and describes it.
    pub(super) fn device(
        &mut self,
        device: &Device<'_>,
        state: &DynState,
    ) -> Result<(), InspectError> {
        let mut payload = Vec::new();
        let (idstr, instance_id) = (device.idstr(), device.instance_id());
        if let Some(vmdesc) = &mut self.vmdesc {
            if let Some(size) = device.opaque_size() {
                vmstate_wire::codec::encode(state, &mut payload)?;
                vmdesc.opaque_device(idstr, instance_id, size);
            } else if !vmdesc.device_as(idstr, instance_id, state, &mut payload, device.entry())? {
                self.summary.carried += 1;
            }
        } else {
            vmstate_wire::codec::encode(state, &mut payload)?;
        }
        self.summary.encoded += 1;
        self.put(&payload)
    }

    /// Keeps the trailer's entry of a device that was copied.
    pub(super) fn carry(&mut self, device: &Device<'_>) {
        if let Some(vmdesc) = &mut self.vmdesc {
            vmdesc.carried_device(&device.entry().to_text());
            self.summary.carried += 1;
        }
    }

    pub(super) fn opaque(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.summary.copied += 1;
        self.put(bytes)
    }

    pub(super) fn dirty_bitmap_chunk(
        &mut self,
        chunk: &Chunk<'_>,
        name: &str,
    ) -> Result<(), InspectError> {
        let mut bytes = Vec::new();
        ChunkWriter::chunk(chunk, &mut bytes).map_err(ram_error(name))?;
        self.put(&bytes)
    }

    pub(super) fn dirty_bitmap_end(&mut self, _event: &ChunkEvent<'_>) -> Result<(), InspectError> {
        let mut bytes = Vec::new();
        ChunkWriter::new().end_of_section(&mut bytes);
        self.put(&bytes)
    }
}
