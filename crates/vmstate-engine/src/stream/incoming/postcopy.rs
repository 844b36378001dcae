//! The commands of postcopy, as the destination hears them.

use std::sync::Arc;

use vmstate_wire::stream::{Command, StreamOffset};

use super::super::probe::Upgrade;
use super::{Incoming, LoadStep, Package};
use crate::channel::SectionReader;
use crate::postcopy::{PostcopyError, PostcopyRam};
use crate::stream::error::LoadError;

impl Incoming {
    /// Lets the source switch to postcopy, if it says so: `ram` then says which pages have arrived, and takes them. Without
    /// this, a source that may do so is refused. To be called before [`setup`](Self::setup).
    #[must_use]
    pub fn with_postcopy(mut self, ram: Arc<PostcopyRam>) -> Self {
        self.postcopy = Some(ram);
        self
    }

    /// Takes the package that [`LoadStep::Package`] has announced: its elements, to be loaded like this stream's, and where
    /// to read them from. This stream goes on behind the package, with pages: in another thread, since a device that is being
    /// loaded may touch a page that has not come yet.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn package(&mut self, input: &mut dyn SectionReader) -> Result<(Self, Package), LoadError> {
        let Some(length) = self.announced.take() else {
            return Err(LoadError::Order("a package"));
        };
        let package = Package::read(input, usize::try_from(length).unwrap_or(usize::MAX))?;
        let decoder = self.decoder.package(package.content())?;
        let inner = Self {
            settings: self.settings.clone(),
            identity: self.identity.clone(),
            limits: self.limits,
            decoder,
            set_up: true,
            return_path: self.return_path,
            due: Vec::new(),
            unapproved: 0,
            postcopy: self.postcopy.clone(),
            announced: None,
            place: Place::Package,
            upgrade: Upgrade::Never,
        };
        Ok((inner, package))
    }

    /// The connection has broken while the guest runs here. What comes next is read from a new one: [`LoadStep::Bitmap`]s, then
    /// [`LoadStep::Resume`], then pages.
    pub fn interrupted(&mut self) {
        self.decoder.interrupted();
        self.due.clear();
        self.place = Place::Recovery;
        if let Some(ram) = &self.postcopy {
            ram.broken();
        }
    }

    /// RAM, if the source may switch to postcopy.
    #[must_use]
    pub fn postcopy(&self) -> Option<&Arc<PostcopyRam>> {
        self.postcopy.as_ref()
    }

    /// A command of postcopy; none of another kind.
    pub(super) fn postcopy_command(
        &mut self,
        command: &Command,
        offset: StreamOffset,
    ) -> Result<Option<LoadStep>, LoadError> {
        let Some(ram) = self.postcopy.clone() else {
            return Err(match command {
                Command::PostcopyAdvise(_) => PostcopyError::Off.into(),
                _ => self.unexpected(command, offset),
            });
        };
        Ok(match (self.place, command) {
            (Place::Main, Command::PostcopyAdvise(advise)) => {
                ram.advise(*advise)?;
                None
            }
            (Place::Main, Command::RamDiscard { block, ranges }) => {
                ram.discard(block, ranges)?;
                None
            }
            (Place::Package, Command::PostcopyListen) => {
                if !self.return_path {
                    return Err(PostcopyError::OneWay.into());
                }
                ram.listen()?;
                Some(LoadStep::Listen)
            }
            (Place::Package, Command::PostcopyRun) => {
                ram.run()?;
                Some(LoadStep::Run)
            }
            (Place::Recovery, Command::RecvBitmap { block }) => Some(LoadStep::Bitmap {
                received: ram.received(block)?,
                block: block.clone(),
            }),
            (Place::Recovery, Command::PostcopyResume) => {
                self.place = Place::Main;
                Some(LoadStep::Resume)
            }
            _ => return Err(self.unexpected(command, offset)),
        })
    }

    pub(super) fn unexpected(&self, command: &Command, offset: StreamOffset) -> LoadError {
        LoadError::Command {
            command: command.id().to_string(),
            offset,
        }
    }

    /// The end-of-stream mark.
    pub(super) fn end(&self) -> Result<LoadStep, LoadError> {
        match self.place {
            Place::Main => Ok(LoadStep::Eof),
            _ => Err(LoadError::Order("the end of the stream")),
        }
    }
}

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The main channel.
    Main,
    /// A package that has come over it.
    Package,
    /// A new main channel, before the source goes on.
    Recovery,
}
