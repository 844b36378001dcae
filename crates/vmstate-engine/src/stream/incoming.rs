//! Loading a stream.

mod package;
mod postcopy;

use std::sync::Arc;

use vmstate_desc::{Limits, LoadState};
use vmstate_ram::DirtyBitmap;
use vmstate_wire::stream::{
    BlockName, Command, IdStr, InstanceId, ReturnMessage, SectionHeader, StreamOffset,
};

pub use self::package::Package;
use self::postcopy::Place;
use super::configuration::Identity;
use super::error::LoadError;
use super::format::{Element, StreamDecoder};
use super::probe::{ALLOWED, PROBE, Upgrade};
use super::qemu::QemuDecoder;
use crate::bql::Bql;
use crate::channel::{ChannelEnd, ChannelError, SectionReader};
use crate::handlers::{HandlerError, LoadCx, LoadSetupCx, LoadStateBuffer, Writes};
use crate::postcopy::PostcopyRam;
use crate::registry::{Entry, Registry, State};
use crate::settings::{Capability, Settings};

/// What a stream wants next of its driver.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadStep {
    /// The source wants answers. Open the way back; answers before this are lost.
    OpenReturnPath,
    /// Send this on the return path, if it is open.
    Send(ReturnMessage),
    /// A section's payload comes: call [`Incoming::section`], with the lock.
    Section,
    /// The source has stopped its guest: call [`Incoming::switchover_start`], with the lock.
    SwitchoverStart,
    /// The end-of-stream mark: every section has been loaded, the guest has arrived. Go on with
    /// [`Incoming::trailer`]. In postcopy there is no trailer, and [`PostcopyRam::complete`] says whether all pages are here.
    Eof,
    /// Postcopy: the final state comes in one piece. Call [`Incoming::package`].
    Package,
    /// Postcopy, in a package: from here on, pages that have not arrived are missing. Serve those who wait for them
    /// ([`PostcopyRam::fault`]), and go on with the stream that the package came from, in another thread.
    Listen,
    /// Postcopy, in a package: every section of the package has been loaded, the guest may start.
    Run,
    /// Postcopy, on a new connection: send this bitmap, behind the message `RECV_BITMAP`.
    Bitmap {
        /// The block.
        block: BlockName,
        /// The target pages that have arrived.
        received: DirtyBitmap,
    },
    /// Postcopy, on a new connection: the source goes on. Answer `RESUME_ACK` 1 and ask again for what is
    /// [outstanding](PostcopyRam::outstanding); with the capability `postcopy-preempt`, its channel is there again, too.
    Resume,
    /// The source goes on in VM state over BER, from the next byte on. Only after [`Incoming::with_upgrade`].
    Upgrade,
}

/// Who takes packets of device state that come over extra channels.
#[derive(Clone)]
pub struct StateBuffer {
    /// The entry's name, as the packets carry it.
    pub idstr: IdStr,
    /// The entry's instance id, as the packets carry it.
    pub instance_id: InstanceId,
    /// What takes them.
    pub buffer: Arc<dyn LoadStateBuffer>,
}

impl std::fmt::Debug for StateBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateBuffer({}/{})", self.idstr, self.instance_id)
    }
}

/// The main channel of a migration, as the destination reads it.
///
/// ```text
/// begin, setup, then next until LoadStep::Eof, then trailer
/// ```
///
/// A source that switches to postcopy sends a package: [`package`](Self::package) gives its elements as a stream of their
/// own, which ends with [`LoadStep::Run`].
///
/// After an error the machine is half loaded and must never start.
#[derive(Debug)]
pub struct Incoming {
    settings: Settings,
    identity: Identity,
    limits: Limits,
    decoder: Box<dyn StreamDecoder>,
    set_up: bool,
    return_path: bool,
    /// Answers that are due.
    due: Vec<ReturnMessage>,
    /// Devices that must still approve the switchover, in the form of 8.1 to 11.0.
    unapproved: u32,
    postcopy: Option<Arc<PostcopyRam>>,
    /// Bytes of a package that begins here.
    announced: Option<u32>,
    place: Place,
    upgrade: Upgrade,
}

impl Incoming {
    /// A stream for this machine in QEMU's format, in the dialect of the settings.
    #[must_use]
    pub fn new(settings: Settings, identity: Identity) -> Self {
        let decoder = Box::new(QemuDecoder::new(&settings));
        Self {
            settings,
            identity,
            limits: Limits::default(),
            decoder,
            set_up: false,
            return_path: false,
            due: Vec::new(),
            unapproved: 0,
            postcopy: None,
            announced: None,
            place: Place::Main,
            upgrade: Upgrade::Never,
        }
    }

    /// The stream turns out to be in the format of this decoder. Before [`begin`](Self::begin), or in its place where the source
    /// changes it.
    pub fn change_format(&mut self, decoder: Box<dyn StreamDecoder>) {
        self.decoder = decoder;
    }

    /// Says to a source that asks ([`probe`](crate::probe)) that this end speaks VM state over BER. A source that does not ask hears
    /// nothing of it.
    #[must_use]
    pub fn with_upgrade(mut self) -> Self {
        self.upgrade = Upgrade::Possible;
        self
    }

    /// Bounds what one device may take of memory.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Capabilities, parameters and dialect of this migration.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether [`begin`](Self::begin) and [`setup`](Self::setup) are over.
    #[must_use]
    pub fn is_set_up(&self) -> bool {
        self.set_up
    }

    /// Reads header and configuration and checks that the stream is for this machine.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn begin(&mut self, input: &mut dyn SectionReader) -> Result<(), LoadError> {
        loop {
            match self.decoder.next(input)? {
                Some(Element::Header) if self.settings.dialect.send_configuration => {}
                Some(Element::Header) => return Ok(()),
                Some(Element::Configuration(configuration)) => {
                    return self.identity.check(&configuration, &self.settings);
                }
                Some(Element::Other) => {}
                _ => return Err(LoadError::Order("begin")),
            }
        }
    }

    /// Prepares every active entry: `load_setup`, then `switchover_ack_needed`. Gives what takes packets of extra
    /// channels.
    ///
    /// # Errors
    ///
    /// [`LoadError::Handler`].
    pub fn setup(
        &mut self,
        bql: &Bql<'_>,
        registry: &mut Registry,
    ) -> Result<Vec<StateBuffer>, LoadError> {
        let settings = &self.settings;
        let mut cx = LoadSetupCx {
            bql: Some(bql),
            settings,
            postcopy: self.postcopy.as_ref(),
        };
        for entry in registry.entries_mut() {
            with_handlers(entry, |handlers| handlers.load_setup(&mut cx))?;
        }
        let acks = settings.capabilities.has(Capability::SwitchoverAck)
            && settings.dialect.switchover_ack_legacy;
        let mut buffers = Vec::new();
        for entry in registry.entries_mut() {
            let (idstr, instance_id) = (entry.idstr.clone(), entry.instance_id);
            let Some(handlers) = entry.active(Writes::empty()) else {
                continue;
            };
            if acks && handlers.switchover_ack_needed() {
                self.unapproved = self.unapproved.saturating_add(1);
            }
            let buffer = handlers.load_state_buffer();
            buffers.extend(buffer.map(|buffer| StateBuffer {
                idstr,
                instance_id,
                buffer,
            }));
        }
        self.set_up = true;
        Ok(buffers)
    }

    /// Reads on to whatever the driver has to do something about.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn next(&mut self, input: &mut dyn SectionReader) -> Result<LoadStep, LoadError> {
        if !self.set_up {
            return Err(LoadError::Order("an element"));
        }
        loop {
            if let Some(message) = self.due.pop() {
                return Ok(LoadStep::Send(message));
            }
            let offset = self.decoder.offset();
            match self.decoder.next(input)? {
                Some(Element::Section) if self.place == Place::Recovery => {
                    return Err(LoadError::Order("a section"));
                }
                Some(Element::Section) => return Ok(LoadStep::Section),
                Some(Element::Eof) => return self.end(),
                Some(Element::Package { length }) => {
                    if self.postcopy.is_none() || self.place != Place::Main {
                        return Err(self.unexpected(&Command::Packaged { length }, offset));
                    }
                    self.announced = Some(length);
                    return Ok(LoadStep::Package);
                }
                Some(Element::Command(command)) => {
                    if let Some(step) = self.command(&command, offset)? {
                        return Ok(step);
                    }
                }
                Some(Element::Other) => {}
                None if self.place == Place::Package => {
                    return Err(LoadError::Order("the end of a package"));
                }
                Some(Element::Header | Element::Configuration(_)) | None => {
                    return Err(LoadError::Order("an element"));
                }
            }
        }
    }

    /// Loads the section whose payload comes, and reads its footer: `load_state`, or by its description.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn section(
        &mut self,
        bql: Option<&Bql<'_>>,
        registry: &mut Registry,
        input: &mut dyn SectionReader,
    ) -> Result<(), LoadError> {
        // The format cannot change any more.
        self.upgrade = Upgrade::Never;
        let Some(header) = self.decoder.section().cloned() else {
            return Err(LoadError::Order("a section"));
        };
        let offset = input.offset();
        let entry = registry
            .owner(&header, self.decoder.readable_from())
            .map_err(|source| LoadError::Lookup { source, offset })?;
        let mut approvals = 0;
        let loaded = self.body(bql, entry, &header, input, &mut approvals);
        loaded.map_err(|source| LoadError::Section {
            section: format!("{}/{}", header.idstr, header.instance_id),
            offset,
            source,
        })?;
        self.approved(approvals);
        self.decoder.close(input)
    }

    /// Tells every entry that the source has stopped its guest: `switchover_start`.
    ///
    /// # Errors
    ///
    /// [`LoadError::Handler`].
    pub fn switchover_start(
        &mut self,
        bql: Option<&Bql<'_>>,
        registry: &mut Registry,
    ) -> Result<(), LoadError> {
        let settings = &self.settings;
        let mut cx = LoadSetupCx {
            bql,
            settings,
            postcopy: self.postcopy.as_ref(),
        };
        for entry in registry.entries_mut() {
            if let State::Live(handlers) = &mut entry.state {
                let section = format!("{}/{}", entry.idstr, entry.instance_id);
                handlers
                    .switchover_start(&mut cx)
                    .map_err(|source| LoadError::Handler { section, source })?;
            }
        }
        Ok(())
    }

    /// Reads the description trailer, if the dialect has one, and drops it. The guest has arrived, whatever this says.
    ///
    /// # Errors
    ///
    /// [`LoadError`], of no consequence.
    pub fn trailer(&mut self, input: &mut dyn SectionReader) -> Result<(), LoadError> {
        while self.decoder.next(input)?.is_some() {}
        Ok(())
    }

    /// Device number `approvals` of those that ask has become ready: in the older form one message when the last has,
    /// in the newer one for each.
    fn approved(&mut self, approvals: u32) {
        if !self.settings.capabilities.has(Capability::SwitchoverAck) {
            return;
        }
        if !self.settings.dialect.switchover_ack_legacy {
            let acks = (0..approvals).map(|_| ReturnMessage::SwitchoverAck);
            self.due.extend(acks);
        } else if approvals > 0 && self.unapproved > 0 {
            self.unapproved = self.unapproved.saturating_sub(approvals);
            if self.unapproved == 0 {
                self.due.push(ReturnMessage::SwitchoverAck);
            }
        }
    }

    fn body(
        &mut self,
        bql: Option<&Bql<'_>>,
        entry: &mut Entry,
        header: &SectionHeader,
        input: &mut dyn SectionReader,
        approvals: &mut u32,
    ) -> Result<(), HandlerError> {
        match &mut entry.state {
            State::Live(handlers) => {
                let Self {
                    decoder, settings, ..
                } = self;
                decoder.handler(
                    self.limits,
                    &mut |input| {
                        let mut cx = LoadCx::new(bql, input, settings, approvals);
                        handlers.load_state(&mut cx, header.version_id)
                    },
                    input,
                )
            }
            State::Described(device) => {
                let (decoder, limits) = (&mut self.decoder, self.limits);
                let mut broken = None;
                let structured = device
                    .structured()
                    .is_some_and(|own| decoder.described_as() == Some(own.name()));
                let visit = &mut |state: &mut dyn LoadState| {
                    decoder.device(state, limits, input, &mut broken)
                };
                let loaded = match structured {
                    true => device.load_structured(bql, visit),
                    false => device.load(bql, visit),
                };
                match broken {
                    Some(broken) => Err(broken),
                    None => Ok(loaded?),
                }
            }
        }
    }

    fn command(
        &mut self,
        command: &Command,
        offset: StreamOffset,
    ) -> Result<Option<LoadStep>, LoadError> {
        Ok(match command {
            Command::OpenReturnPath if self.return_path => None,
            Command::OpenReturnPath => {
                self.return_path = true;
                // If no device has to become ready first, the answer is due at once.
                let acks = self.settings.capabilities.has(Capability::SwitchoverAck)
                    && self.settings.dialect.switchover_ack_legacy;
                if acks && self.unapproved == 0 {
                    self.due.push(ReturnMessage::SwitchoverAck);
                }
                Some(LoadStep::OpenReturnPath)
            }
            Command::Ping(PROBE) if self.return_path && self.upgrade == Upgrade::Possible => {
                self.upgrade = Upgrade::Offered;
                // Behind the answer.
                self.due.push(ReturnMessage::Pong(ALLOWED));
                Some(LoadStep::Send(ReturnMessage::Pong(PROBE)))
            }
            Command::Ping(value) => Some(LoadStep::Send(ReturnMessage::Pong(*value))),
            Command::Upgrade if self.upgrade == Upgrade::Offered => {
                self.upgrade = Upgrade::Never;
                Some(LoadStep::Upgrade)
            }
            Command::SwitchoverStart => Some(LoadStep::SwitchoverStart),
            Command::PostcopyAdvise(_)
            | Command::RamDiscard { .. }
            | Command::PostcopyListen
            | Command::PostcopyRun
            | Command::RecvBitmap { .. }
            | Command::PostcopyResume => return self.postcopy_command(command, offset),
            other => return Err(self.unexpected(other, offset)),
        })
    }
}

fn with_handlers(
    entry: &mut Entry,
    call: impl FnOnce(&mut dyn crate::SaveVmHandlers) -> Result<(), HandlerError>,
) -> Result<(), LoadError> {
    let section = format!("{}/{}", entry.idstr, entry.instance_id);
    match entry.active(Writes::empty()) {
        Some(handlers) => {
            call(&mut **handlers).map_err(|source| LoadError::Handler { section, source })
        }
        None => Ok(()),
    }
}

/// The error for a channel that ends where more had to come.
pub(crate) fn closed(input: &dyn SectionReader) -> ChannelError {
    ChannelError::new(ChannelEnd::Closed, input.offset())
}
