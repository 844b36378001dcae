//! Writing a stream again from what was decoded.

use std::io::Write;
use std::sync::Arc;

use vmstate_desc::{DynState, Limits};
use vmstate_ram::{BlockTable, PageSize, RamWriter};
use vmstate_wire::stream::{Command, Event, SectionHeader, write};
use vmstate_wire::vmdesc::{Device, Trailer, Vmdesc, decode_entry};

use super::ram::ram_error;
use super::report::InspectError;
use super::sink::Sink;

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
pub(super) struct Rewriter<'w> {
    out: Counting<'w>,
    pub(super) summary: Summary,
    vmdesc: Option<Vmdesc>,
    /// The trailer's text was written when it began.
    trailer_written: bool,
    ram: Option<RamWriter>,
    scratch: Vec<u8>,
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

pub(crate) fn malformed(e: &dyn std::fmt::Display) -> InspectError {
    InspectError::Write(std::io::Error::other(e.to_string()))
}

/// The bytes of an element that its event alone tells.
pub(crate) fn put_event(event: &Event<'_>, bytes: &mut Vec<u8>) -> Result<(), InspectError> {
    match event {
        Event::Header => write::put_header(bytes),
        Event::Configuration(configuration) => write::put_configuration(bytes, configuration),
        Event::Section(header) => write::put_section_header(bytes, header),
        Event::SectionClosed {
            section_id,
            footer: true,
            ..
        } => write::put_footer(bytes, *section_id),
        Event::Command(command) => {
            write::put_command(bytes, command).map_err(|e| malformed(&e))?;
        }
        Event::PackageBegin { length } => {
            let command = Command::Packaged { length: *length };
            write::put_command(bytes, &command).map_err(|e| malformed(&e))?;
        }
        Event::PackageTail(tail) => bytes.extend_from_slice(tail),
        Event::Eof => write::put_eof(bytes),
        _ => {}
    }
    Ok(())
}

impl<'w> Rewriter<'w> {
    pub(super) fn new(out: &'w mut dyn Write) -> Self {
        Self {
            out: Counting {
                inner: out,
                written: 0,
            },
            summary: Summary::default(),
            vmdesc: None,
            trailer_written: false,
            ram: None,
            scratch: Vec::new(),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.out.write_all(bytes).map_err(InspectError::Write)?;
        self.summary.length = self.out.written;
        Ok(())
    }

    /// Describes the configuration section in the trailer, where it has a place.
    fn describe_configuration(
        &mut self,
        body: &[u8],
        trailer: Option<&Trailer<'_>>,
    ) -> Result<(), InspectError> {
        let (Some(vmdesc), Some(entry)) =
            (&mut self.vmdesc, trailer.and_then(Trailer::configuration))
        else {
            return Ok(());
        };
        let decoded = decode_entry(entry, body, 0, false, Limits::default(), &|rest| {
            rest.is_empty()
        })?;
        vmdesc.configuration(&decoded.state, &mut Vec::new())?;
        Ok(())
    }
}

impl Sink for Rewriter<'_> {
    fn event(
        &mut self,
        event: &Event<'_>,
        trailer: Option<&Trailer<'_>>,
    ) -> Result<(), InspectError> {
        let mut bytes = Vec::new();
        put_event(event, &mut bytes)?;
        match event {
            Event::Header => {
                self.vmdesc = trailer.map(|t| {
                    let page_size = t.page_size().and_then(|size| u32::try_from(size).ok());
                    Vmdesc::new(t.dialect(), page_size.unwrap_or(4096))
                });
            }
            Event::Configuration(_) => {
                self.describe_configuration(bytes.get(1..).unwrap_or_default(), trailer)?;
            }
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

    /// Encodes a device and describes it.
    fn device(
        &mut self,
        _header: &SectionHeader,
        state: &DynState,
        _payload: &[u8],
        entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        let mut payload = Vec::new();
        if let (Some(vmdesc), Some(device)) = (&mut self.vmdesc, entry) {
            let (idstr, instance_id) = (device.idstr(), device.instance_id());
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

    /// Copies, and keeps the trailer's entry.
    fn opaque(
        &mut self,
        _header: &SectionHeader,
        bytes: &[u8],
        entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        if let (Some(vmdesc), Some(device)) = (&mut self.vmdesc, entry) {
            vmdesc.carried_device(&device.entry().to_text());
            self.summary.carried += 1;
        }
        self.summary.copied += 1;
        self.put(bytes)
    }

    fn bytes(&mut self, _header: &SectionHeader, bytes: &[u8]) -> Result<(), InspectError> {
        self.put(bytes)
    }

    fn ram(
        &mut self,
        event: &vmstate_ram::Event<'_>,
        blocks: &Arc<BlockTable>,
        page_size: PageSize,
    ) -> Result<(), InspectError> {
        let writer = self
            .ram
            .get_or_insert_with(|| RamWriter::new(page_size, Arc::clone(blocks)));
        if matches!(event, vmstate_ram::Event::Block { .. }) {
            writer.set_blocks(Arc::clone(blocks));
        }
        self.scratch.clear();
        writer
            .event(event, &mut self.scratch)
            .map_err(ram_error("ram/0"))?;
        self.out
            .write_all(&self.scratch)
            .map_err(InspectError::Write)?;
        self.summary.length = self.out.written;
        Ok(())
    }

    fn ram_gap(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.put(bytes)
    }

    fn verbatim(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.put(bytes)
    }
}
