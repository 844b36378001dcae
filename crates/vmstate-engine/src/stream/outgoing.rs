//! Writing a stream.

mod postcopy;

use vmstate_desc::{DescriptionRef, SaveState};
use vmstate_wire::stream::{Command, IdStr, InstanceId, SectionHeader, SectionId, SectionKind};

pub use self::postcopy::ReceivedBitmaps;
use super::configuration::Identity;
use super::error::SaveError;
use super::format::StreamEncoder;
use super::probe::{FENCE, PROBE};
use super::qemu::QemuEncoder;
use crate::bql::Bql;
use crate::channel::{ChannelWriter, SectionWriter};
use crate::handlers::{
    CompleteCx, CompletePrecopyThread, HandlerError, IterateCx, Pending, Progress, SetupCx, Writes,
};
use crate::registry::{Entry, Registry, State};
use crate::settings::Settings;
use crate::source::CONFIRM;

/// The main channel of a migration, from the header to the trailer. Each method writes what one
/// [`Work`](crate::source::Work) of the source is about.
///
/// | work | method | writes |
/// |---|---|---|
/// | `Begin` | [`begin`](Self::begin) | header, configuration, the way back |
/// | `SetUp` | [`setup`](Self::setup) | early devices, START sections |
/// | `Estimate`, `Exact` | [`estimate`](Self::estimate), [`exact`](Self::exact) | |
/// | `Iterate` | [`iterate`](Self::iterate) | PART sections |
/// | `Complete` | [`complete`](Self::complete) | END sections, devices, the question whether all is loaded |
/// | `Commit` | [`commit`](Self::commit) | the end-of-stream mark |
/// | `Trailer` | [`trailer`](Self::trailer) | the description of all devices |
/// | `PostcopyPrepare` | [`postcopy_prepare`](Self::postcopy_prepare) | PART sections of entries that want it |
/// | `Package` | [`package`](Self::package) | END sections, what to drop, devices in a package |
/// | `HandOver` | [`hand_over`](Self::hand_over) | the last byte of the package |
/// | `Estimate`, `Iterate` | as above | PART sections of entries with `has_postcopy` |
/// | `CompletePostcopy` | [`complete_postcopy`](Self::complete_postcopy) | their END sections, the end-of-stream mark |
/// | `Recover` | [`recover`](Self::recover) | questions for what has arrived; what makes the destination go on |
///
/// A snapshot into a file is the same without the source's machine: begin, setup, iterate until
/// [`Progress::Finished`], complete, commit, trailer.
///
/// After an error the stream is broken: write nothing more.
#[derive(Debug)]
pub struct Outgoing {
    settings: Settings,
    identity: Identity,
    encoder: Box<dyn StreamEncoder>,
    return_path: bool,
    /// The guest has gone before its memory.
    postcopy: bool,
    /// The last byte of the package.
    held_back: Option<u8>,
    buffer: Vec<u8>,
}

/// An entry's work on a thread of its own, see
/// [`SaveVmHandlers::save_live_complete_precopy_thread`](crate::SaveVmHandlers::save_live_complete_precopy_thread).
pub struct PrecopyThread {
    /// The entry's name.
    pub idstr: IdStr,
    /// The entry's instance id.
    pub instance_id: InstanceId,
    /// The work.
    pub work: Box<dyn CompletePrecopyThread>,
}

impl std::fmt::Debug for PrecopyThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrecopyThread({}/{})", self.idstr, self.instance_id)
    }
}

impl Outgoing {
    /// A stream of this machine in QEMU's format, in the dialect of the settings. With `return_path`, the destination shall
    /// answer.
    #[must_use]
    pub fn new(settings: Settings, identity: Identity, return_path: bool) -> Self {
        let encoder = QemuEncoder::new(&settings, identity.page_size.bytes());
        Self::in_format(settings, identity, return_path, Box::new(encoder))
    }

    /// A stream of this machine in the format of this encoder.
    #[must_use]
    pub fn in_format(
        settings: Settings,
        identity: Identity,
        return_path: bool,
        encoder: Box<dyn StreamEncoder>,
    ) -> Self {
        Self {
            settings,
            identity,
            encoder,
            return_path,
            postcopy: false,
            held_back: None,
            buffer: Vec::new(),
        }
    }

    /// Takes over changed settings. Capabilities and dialect stay as they were.
    pub fn set_parameters(&mut self, settings: &Settings) {
        self.settings.parameters = settings.parameters.clone();
    }

    /// Writes header and configuration, opens the return path with a PING, and flushes.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn begin(&mut self, out: &mut dyn ChannelWriter) -> Result<(), SaveError> {
        let opening = match self.settings.dialect.send_configuration {
            true => Some(self.identity.opening(&self.settings)?),
            false => None,
        };
        self.put(out, |encoder, bytes| encoder.begin(opening.as_ref(), bytes))?;
        if self.return_path {
            self.command(&Command::OpenReturnPath, out)?;
            self.command(&Command::Ping(1), out)?;
        }
        out.flush()?;
        Ok(())
    }

    /// Behind [`begin`](Self::begin), with a return path: asks whether the destination is one of ours ([`probe`](crate::probe)), and
    /// flushes. The answer is complete with the PONG of the fence.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn probe(&mut self, out: &mut dyn ChannelWriter) -> Result<(), SaveError> {
        self.command(&Command::Ping(PROBE), out)?;
        self.command(&Command::Ping(FENCE), out)
    }

    /// Behind a [`probe`](Self::probe) that the destination has answered with [`ALLOWED`](crate::probe::ALLOWED): tells it that VM
    /// state over BER follows, and flushes. Nothing more must be written here then.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn upgrade(&mut self, out: &mut dyn ChannelWriter) -> Result<(), SaveError> {
        self.command(&Command::Upgrade, out)
    }

    /// Announces postcopy where it may follow. Writes devices that go early, and the START section of every iterative entry: `save_setup`.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn setup(
        &mut self,
        bql: &Bql<'_>,
        registry: &mut Registry,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), SaveError> {
        let devices: Vec<DescriptionRef> =
            registry.entries().filter_map(Entry::structured).collect();
        self.put(out, |encoder, bytes| encoder.describe(&devices, bytes))?;
        self.advise(registry, out)?;
        self.devices(bql, registry, out, true)?;
        let (settings, encoder) = (&self.settings, &mut *self.encoder);
        for entry in registry.entries_mut() {
            section(
                entry,
                Writes::SETUP,
                SectionKind::Start,
                encoder,
                out,
                |handlers, out| handlers.save_setup(&mut SetupCx { bql, out, settings }),
            )?;
        }
        out.flush()?;
        Ok(())
    }

    /// Adds up roughly what is left: `state_pending_estimate`.
    pub fn estimate(&mut self, registry: &mut Registry) -> Pending {
        let mut pending = Pending::default();
        for entry in registry.entries_mut() {
            if let Some(handlers) = entry.active(Writes::SETUP)
                && (!self.postcopy || handlers.has_postcopy())
            {
                handlers.state_pending_estimate(&mut pending);
            }
        }
        pending
    }

    /// Adds up exactly what is left: `state_pending_exact`.
    ///
    /// # Errors
    ///
    /// [`SaveError::Section`].
    pub fn exact(&mut self, registry: &mut Registry) -> Result<Pending, SaveError> {
        let mut pending = Pending::default();
        for entry in registry.entries_mut() {
            let name = name_of(entry);
            if let Some(handlers) = entry.active(Writes::SETUP) {
                handlers
                    .state_pending_exact(&mut pending)
                    .map_err(|source| in_section(name, source))?;
            }
        }
        Ok(pending)
    }

    /// Asks every iterative entry for a PART, in postcopy those with `has_postcopy`, until the rate is exceeded: `save_live_iterate`.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn iterate(
        &mut self,
        registry: &mut Registry,
        out: &mut dyn ChannelWriter,
    ) -> Result<Progress, SaveError> {
        let mut progress = Progress::Finished;
        let (settings, encoder) = (&self.settings, &mut *self.encoder);
        let wanted = Writes::SETUP | Writes::ITERATE;
        for entry in registry.entries_mut() {
            let asked = entry.active(wanted).is_some_and(|handlers| {
                handlers.is_active_iterate() && (!self.postcopy || handlers.has_postcopy())
            });
            if !asked {
                continue;
            }
            // In postcopy each is asked: somebody may wait for what it has.
            if !self.postcopy && out.rate_exceeded() {
                return Ok(Progress::More);
            }
            let left = section(
                entry,
                wanted,
                SectionKind::Part,
                encoder,
                out,
                |handlers, out| handlers.save_live_iterate(&mut IterateCx { out, settings }),
            )?;
            if left == Some(Progress::More) {
                progress = Progress::More;
            }
        }
        Ok(progress)
    }

    /// The work that entries want to do on threads of their own: to be started before [`complete`](Self::complete)
    /// and to have ended before [`commit`](Self::commit).
    pub fn threads(&mut self, registry: &mut Registry) -> Vec<PrecopyThread> {
        let mut threads = Vec::new();
        for entry in registry.entries_mut() {
            let (idstr, instance_id) = (entry.idstr.clone(), entry.instance_id);
            let work = entry
                .active(Writes::SETUP)
                .and_then(|handlers| handlers.save_live_complete_precopy_thread());
            threads.extend(work.map(|work| PrecopyThread {
                idstr,
                instance_id,
                work,
            }));
        }
        threads
    }

    /// Writes everything that is left, with the guest stopped: the END section of every iterative entry
    /// (`save_live_complete_precopy`), a FULL section for every other (`save_state`, descriptions). With a return path, asks the
    /// destination to confirm that it has loaded all that ([`CONFIRM`]). Flushes.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn complete(
        &mut self,
        bql: &Bql<'_>,
        registry: &mut Registry,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), SaveError> {
        if self.settings.dialect.switchover_start {
            self.command(&Command::SwitchoverStart, out)?;
        }
        let (settings, encoder) = (&self.settings, &mut *self.encoder);
        let wanted = Writes::SETUP | Writes::COMPLETE_PRECOPY;
        for entry in registry.entries_mut() {
            section(
                entry,
                wanted,
                SectionKind::End,
                encoder,
                out,
                |handlers, out| {
                    handlers.save_live_complete_precopy(&mut CompleteCx { bql, out, settings })
                },
            )?;
        }
        self.devices(bql, registry, out, false)?;
        if self.return_path {
            self.command(&Command::Ping(CONFIRM), out)?;
        }
        self.put(out, |encoder, bytes| encoder.complete(bytes))?;
        out.flush()?;
        Ok(())
    }

    /// Writes and flushes the end-of-stream mark, one byte: from here on the destination may run the guest.
    ///
    /// # Errors
    ///
    /// [`SaveError::Channel`].
    pub fn commit(&mut self, out: &mut dyn ChannelWriter) -> Result<(), SaveError> {
        self.put(out, |encoder, bytes| {
            encoder.commit(bytes);
            Ok(())
        })?;
        out.flush()?;
        Ok(())
    }

    /// Writes and flushes the description trailer. A destination waits for it.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn trailer(mut self, out: &mut dyn ChannelWriter) -> Result<(), SaveError> {
        let before = out.position();
        self.put(out, |encoder, bytes| encoder.trailer(bytes))?;
        if out.position() != before {
            out.flush()?;
        }
        Ok(())
    }

    /// Writes what the encoder appends.
    fn put(
        &mut self,
        out: &mut dyn ChannelWriter,
        append: impl FnOnce(&mut dyn StreamEncoder, &mut Vec<u8>) -> Result<(), SaveError>,
    ) -> Result<(), SaveError> {
        self.buffer.clear();
        append(&mut *self.encoder, &mut self.buffer)?;
        if !self.buffer.is_empty() {
            out.bytes(&self.buffer)?;
        }
        Ok(())
    }

    /// Appends a command and flushes.
    fn command(&mut self, command: &Command, out: &mut dyn ChannelWriter) -> Result<(), SaveError> {
        self.put(out, |encoder, bytes| encoder.command(command, bytes))?;
        out.flush()?;
        Ok(())
    }

    /// Writes the FULL sections of devices: of those that go early, or of all others.
    fn devices(
        &mut self,
        bql: &Bql<'_>,
        registry: &mut Registry,
        out: &mut dyn ChannelWriter,
        early: bool,
    ) -> Result<(), SaveError> {
        for entry in registry.entries_mut() {
            if !early {
                self.legacy(bql, entry, out)?;
            }
            let header = header_of(entry, SectionKind::Full);
            let State::Described(device) = &entry.state else {
                continue;
            };
            if device.description().early_setup != early {
                continue;
            }
            let name = name_of(entry);
            let Self {
                encoder, buffer, ..
            } = self;
            buffer.clear();
            let structured = encoder.is_structured();
            let visit = &mut |state: &dyn SaveState| {
                if !state.needed() {
                    return Ok(());
                }
                encoder.device(&header, early, state, buffer)
            };
            let saved = match structured {
                true => device.save_structured(bql, visit),
                false => device.save(bql, visit),
            };
            saved.map_err(|source| in_section(name, source.into()))?;
            if !buffer.is_empty() {
                out.bytes(buffer)?;
            }
        }
        Ok(())
    }

    /// Writes the FULL section of an entry with `save_state`.
    fn legacy(
        &mut self,
        bql: &Bql<'_>,
        entry: &mut Entry,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), SaveError> {
        let settings = &self.settings;
        section(
            entry,
            Writes::STATE,
            SectionKind::Full,
            &mut *self.encoder,
            out,
            |handlers, out| handlers.save_state(&mut CompleteCx { bql, out, settings }),
        )?;
        Ok(())
    }
}

/// Writes a section around what a handler writes, if the entry is active and has that handler.
fn section<R>(
    entry: &mut Entry,
    writes: Writes,
    kind: SectionKind,
    encoder: &mut dyn StreamEncoder,
    out: &mut dyn ChannelWriter,
    body: impl Fn(&mut dyn crate::SaveVmHandlers, &mut dyn SectionWriter) -> Result<R, HandlerError>,
) -> Result<Option<R>, SaveError> {
    let (header, name) = (header_of(entry, kind), name_of(entry));
    let Some(handlers) = entry.active(writes) else {
        return Ok(None);
    };
    let mut result = None;
    encoder
        .section(
            &header,
            &mut |out| {
                result = Some(body(&mut **handlers, out)?);
                Ok(())
            },
            out,
        )
        .map_err(|source| in_section(name, source))?;
    Ok(result)
}

fn header_of(entry: &Entry, kind: SectionKind) -> SectionHeader {
    SectionHeader {
        kind,
        section_id: SectionId(entry.section_id.0),
        idstr: entry.idstr.clone(),
        instance_id: entry.instance_id,
        version_id: entry.version,
    }
}

fn name_of(entry: &Entry) -> String {
    format!("{}/{}", entry.idstr, entry.instance_id)
}

fn in_section(section: String, source: HandlerError) -> SaveError {
    SaveError::Section { section, source }
}
