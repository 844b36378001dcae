//! Writing QEMU's stream.

use std::io::Write;
use std::sync::Arc;

use vmstate_desc::DynState;
use vmstate_ram::{BlockTable, PageSize, RamWriter};
use vmstate_wire::stream::{Event, SectionHeader, SectionKind, write};
use vmstate_wire::vmdesc::{Device, Trailer, Vmdesc, VmdescDialect};

use super::report::{ConvertError, Summary};
use crate::inspect::{InspectError, Sink, malformed, put_event};

/// Writes the elements of a stream as QEMU does.
pub(super) struct QemuSink<'w> {
    out: Box<dyn Write + 'w>,
    summary: Summary,
    ram: Option<RamWriter>,
    scratch: Vec<u8>,
    /// The trailing description, where values give it.
    vmdesc: Option<Vmdesc>,
}

impl<'w> QemuSink<'w> {
    pub(super) fn new(out: impl Write + 'w) -> Self {
        Self {
            out: Box::new(out),
            summary: Summary::default(),
            ram: None,
            scratch: Vec::new(),
            vmdesc: None,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.out.write_all(bytes).map_err(InspectError::Write)?;
        self.summary.written += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Summary, ConvertError> {
        self.out.flush()?;
        Ok(std::mem::take(&mut self.summary))
    }
}

impl Sink for QemuSink<'_> {
    fn describes(&mut self, dialect: VmdescDialect, page_size: u32) {
        self.vmdesc = Some(Vmdesc::new(dialect, page_size));
    }

    fn event(
        &mut self,
        event: &Event<'_>,
        _trailer: Option<&Trailer<'_>>,
    ) -> Result<(), InspectError> {
        let mut bytes = Vec::new();
        put_event(event, &mut bytes)?;
        match event {
            Event::TrailerBegin { length } => {
                bytes.push(6);
                bytes.extend_from_slice(&length.to_be_bytes());
                // The text comes with its values' last frame, or not at all.
                self.vmdesc = None;
            }
            Event::TrailerChunk(chunk) => bytes.extend_from_slice(chunk),
            Event::TrailerEnd => {
                if let Some(vmdesc) = self.vmdesc.take() {
                    let text = vmdesc.finish();
                    write::put_trailer(&mut bytes, text.as_bytes()).map_err(|e| malformed(&e))?;
                }
            }
            _ => {}
        }
        self.put(&bytes)
    }

    fn configuration(&mut self, state: &DynState, event: &Event<'_>) -> Result<(), InspectError> {
        if let Some(vmdesc) = &mut self.vmdesc {
            vmdesc.configuration(state, &mut Vec::new())?;
        }
        self.event(event, None)
    }

    fn device(
        &mut self,
        header: &SectionHeader,
        state: &DynState,
        _payload: &[u8],
        _entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        let mut payload = Vec::new();
        match &mut self.vmdesc {
            Some(vmdesc) => {
                let (idstr, instance_id) = (header.idstr.to_string(), header.instance_id.0);
                vmdesc.device(&idstr, instance_id, state, &mut payload)?;
            }
            None => vmstate_wire::codec::encode(state, &mut payload)?,
        }
        self.summary.devices += 1;
        self.put(&payload)
    }

    fn opaque(
        &mut self,
        header: &SectionHeader,
        bytes: &[u8],
        _entry: Option<&Device<'_>>,
    ) -> Result<(), InspectError> {
        if let (SectionKind::Full, Some(vmdesc)) = (header.kind, &mut self.vmdesc) {
            let idstr = header.idstr.to_string();
            vmdesc.opaque_device(&idstr, header.instance_id.0, bytes.len() as u64);
        }
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
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let writer = self
            .ram
            .get_or_insert_with(|| RamWriter::new(page_size, Arc::clone(blocks)));
        if matches!(event, vmstate_ram::Event::Block { .. }) {
            writer.set_blocks(Arc::clone(blocks));
        }
        let result = writer.event(event, &mut scratch).map_err(|e| malformed(&e));
        let result = result.and_then(|()| self.put(&scratch));
        self.scratch = scratch;
        result
    }

    fn ram_gap(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.put(bytes)
    }

    fn verbatim(&mut self, bytes: &[u8]) -> Result<(), InspectError> {
        self.put(bytes)
    }
}
