//! Writing a stream.

use std::sync::Arc;

use vmstate_ber::AnyValue;
use vmstate_ber::frame::{Command as CommandFrame, Frame, Note, Phase, PhaseName, Status};
use vmstate_ber::stream::{Section, Writer};
use vmstate_ber::{BerError, BerErrorKind};
use vmstate_desc::{DescriptionRef, SaveState};
use vmstate_engine::{
    ChannelWriter, GuestMemory, HandlerError, Opening, SaveError, SectionBody, Settings,
    StreamEncoder,
};
use vmstate_wire::stream::{Command, SectionHeader, SectionKind, write};
use vmstate_wire::vmdesc::VmdescDialect;

use super::save_error;
use super::section::{Bytes, OpenSection};
use crate::convert::{dialect_name, note};

/// Writes the main channel of a migration as VM state over BER.
pub struct BerEncoder {
    pub(super) writer: Writer,
    pub(super) memory: Arc<dyn GuestMemory>,
    /// How QEMU would describe the devices behind the stream, for whoever converts it.
    vmdesc: Option<VmdescDialect>,
    phase: PhaseName,
    /// The guest has gone.
    pub(super) postcopy: bool,
    /// The last byte of the stream.
    last: Option<u8>,
}

impl BerEncoder {
    /// An encoder of what follows the handshake, which `writer` has written. Where a digest is computed, pages are copied out
    /// of `memory`.
    #[must_use]
    pub fn new(writer: Writer, memory: Arc<dyn GuestMemory>, settings: &Settings) -> Self {
        Self {
            writer,
            memory,
            vmdesc: (!settings.dialect.suppress_vmdesc).then_some(settings.vmdesc),
            phase: PhaseName::Setup,
            postcopy: false,
            last: None,
        }
    }

    fn note(&mut self, name: &str, value: AnyValue, out: &mut Vec<u8>) {
        let name = name.to_owned();
        self.writer.frame(&Frame::Note(Note { name, value }), out);
    }

    /// Says that a phase begins, if it has not yet.
    fn enter(&mut self, phase: PhaseName, out: &mut Vec<u8>) {
        if self.phase != phase {
            self.phase = phase;
            self.writer.frame(&Frame::Phase(Phase::new(phase)), out);
        }
    }

    fn enter_with(&mut self, kind: SectionKind, out: &mut Vec<u8>) {
        match kind {
            _ if self.postcopy => self.enter(PhaseName::Postcopy, out),
            SectionKind::Start => {}
            SectionKind::Part => self.enter(PhaseName::Iterate, out),
            SectionKind::End | SectionKind::Full => self.enter(PhaseName::Switchover, out),
        }
    }
}

impl std::fmt::Debug for BerEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BerEncoder")
            .field("writer", &self.writer)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// Whether no type can say what a device's state looks like, so that it travels as bytes.
fn has_no_type(error: &BerError) -> bool {
    matches!(error.kind(), BerErrorKind::Type { .. })
}

impl StreamEncoder for BerEncoder {
    fn begin(&mut self, opening: Option<&Opening>, out: &mut Vec<u8>) -> Result<(), SaveError> {
        self.writer
            .frame(&Frame::Phase(Phase::new(PhaseName::Setup)), out);
        if let Some(dialect) = self.vmdesc {
            let size = self.memory.page_size().bytes();
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            self.note(note::VMDESC, AnyValue::text(dialect_name(dialect)), out);
            self.note(note::PAGE_SIZE, AnyValue::int(size), out);
        }
        if let Some(opening) = opening {
            self.writer
                .machine(&opening.state, out)
                .map_err(save_error)?;
        }
        Ok(())
    }

    fn is_structured(&self) -> bool {
        true
    }

    fn describe(&mut self, devices: &[DescriptionRef], out: &mut Vec<u8>) -> Result<(), SaveError> {
        for device in devices {
            match self.writer.types_mut().add_ref(device) {
                Err(error) if !has_no_type(&error) => return Err(save_error(error)),
                _ => {}
            }
        }
        self.writer.new_types(out);
        Ok(())
    }

    fn command(&mut self, command: &Command, out: &mut Vec<u8>) -> Result<(), SaveError> {
        let mut bytes = Vec::new();
        write::put_command(&mut bytes, command)?;
        // Type byte, number, length.
        let data = bytes.get(5..).unwrap_or_default();
        let frame = CommandFrame {
            command: command.id().0,
            data,
            checksum: true,
        };
        self.writer.frame(&Frame::Command(frame), out);
        Ok(())
    }

    fn section(
        &mut self,
        header: &SectionHeader,
        body: &mut SectionBody<'_>,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), HandlerError> {
        let mut bytes = Vec::new();
        self.enter_with(header.kind, &mut bytes);
        if !bytes.is_empty() {
            out.bytes(&bytes)?;
        }
        let mut section = OpenSection::new(self, header, out);
        body(&mut section)?;
        section.close()
    }

    fn device(
        &mut self,
        header: &SectionHeader,
        early: bool,
        state: &dyn SaveState,
        out: &mut Vec<u8>,
    ) -> Result<(), vmstate_desc::Error> {
        if !early {
            self.enter_with(header.kind, out);
        }
        match self.writer.types_mut().add_ref(&state.description()) {
            Err(error) if has_no_type(&error) => {
                let mut bytes = Vec::new();
                vmstate_wire::codec::encode(state, &mut bytes)?;
                let mut data = Bytes::new(header).map_err(BerError::into_state)?;
                data.add(&bytes);
                data.close(&mut self.writer, out);
                return Ok(());
            }
            added => added.map_err(BerError::into_state)?,
        };
        let idstr = header.idstr.to_string();
        let section = Section {
            section_id: header.section_id.0,
            idstr: &idstr,
            instance: header.instance_id.0,
            version: header.version_id.0,
            early,
        };
        self.writer
            .device(&section, state, out)
            .map_err(BerError::into_state)
    }

    fn complete(&mut self, out: &mut Vec<u8>) -> Result<(), SaveError> {
        self.enter(PhaseName::Complete, out);
        self.writer.end(Status::Complete, out);
        // Without it, the stream is none.
        self.last = out.pop();
        Ok(())
    }

    fn commit(&mut self, out: &mut Vec<u8>) {
        out.extend(self.last.take());
    }

    fn package(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), SaveError> {
        self.postcopy = true;
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.command(&Command::Packaged { length }, out)?;
        out.extend_from_slice(content);
        Ok(())
    }

    fn interrupted(&mut self, out: &mut Vec<u8>) {
        let session = self.writer.session();
        self.writer = super::of_channel(session, super::MAIN, out);
    }
}
