//! What is written for a guest that goes before its memory.

use vmstate_ram::{BlockId, BlockName as RamName};
use vmstate_wire::stream::{
    BlockName, Command, DiscardRange, PostcopyAdvise, SectionKind, StreamOffset,
};

use super::super::error::SaveError;
use super::super::format::StreamEncoder;
use super::{Outgoing, in_section, name_of, section};
use crate::bql::Bql;
use crate::channel::{ChannelEnd, ChannelError, ChannelWriter, SectionWriter};
use crate::handlers::{
    CompleteCx, DiscardCx, DiscardSink, IterateCx, RecoveryLink, ResumeCx, Writes,
};
use crate::registry::Registry;
use crate::settings::Capability;
use crate::source::LOADED;

/// The most ranges that a stock source puts into one command.
const RANGES: usize = 12;

/// PINGs of a stock source, for whoever reads a recorded stream: before the package, in it, and behind it.
const PINGS: [u32; 3] = [2, 3, 4];

impl Outgoing {
    /// Tells the destination that postcopy may follow.
    pub(super) fn advise(
        &mut self,
        registry: &mut Registry,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), SaveError> {
        if !self.settings.capabilities.has(Capability::PostcopyRam) {
            return Ok(());
        }
        let mut page_sizes = 0;
        for entry in registry.entries_mut() {
            if let Some(handlers) = entry.active(Writes::SETUP) {
                page_sizes |= handlers.postcopy_page_sizes();
            }
        }
        let advise = PostcopyAdvise {
            page_sizes,
            target_page_size: self.identity.page_size.bytes(),
        };
        self.command(&Command::PostcopyAdvise(Some(advise)), out)
    }

    /// Asks every entry for what it wants to send before the guest stops for postcopy: `save_postcopy_prepare`. Flushes.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn postcopy_prepare(
        &mut self,
        registry: &mut Registry,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), SaveError> {
        let (settings, encoder) = (&self.settings, &mut *self.encoder);
        let wanted = Writes::SETUP | Writes::POSTCOPY_PREPARE;
        for entry in registry.entries_mut() {
            section(
                entry,
                wanted,
                SectionKind::Part,
                encoder,
                out,
                |handlers, out| handlers.save_postcopy_prepare(&mut IterateCx { out, settings }),
            )?;
        }
        out.flush()?;
        Ok(())
    }

    /// With the guest stopped, writes all that it needs to run at the destination: the END sections of entries without
    /// `has_postcopy`, what the destination must drop, and a package with all devices, at whose end it starts the guest.
    /// Flushes all of this but the last byte. There will be no trailer.
    ///
    /// The package, behind the command PACKAGED: LISTEN, FULL sections, PING, RUN.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn package(
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
            if entry
                .active(wanted)
                .is_some_and(|handlers| handlers.has_postcopy())
            {
                continue;
            }
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
        self.discards(bql, registry, out)?;
        let [before, inside, _] = PINGS;
        self.command(&Command::Ping(before), out)?;
        let mut package = Package::default();
        self.command(&Command::PostcopyListen, &mut package)?;
        self.devices(bql, registry, &mut package, false)?;
        self.command(&Command::Ping(inside), &mut package)?;
        self.command(&Command::Ping(LOADED), &mut package)?;
        self.command(&Command::PostcopyRun, &mut package)?;
        let mut bytes = Vec::new();
        self.encoder.package(&package.0, &mut bytes)?;
        self.held_back = bytes.pop();
        out.bytes(&bytes)?;
        out.flush()?;
        Ok(())
    }

    /// Writes and flushes the last byte of the package: from here on the destination may run the guest.
    ///
    /// # Errors
    ///
    /// [`SaveError::Channel`]. If its offset is the channel's position before, that byte has not been sent.
    pub fn hand_over(&mut self, out: &mut dyn ChannelWriter) -> Result<(), SaveError> {
        self.postcopy = true;
        let Some(last) = self.held_back.take() else {
            return Ok(());
        };
        out.bytes(&[last])?;
        out.flush()?;
        let [.., behind] = PINGS;
        self.command(&Command::Ping(behind), out)
    }

    /// Writes the END sections of entries with `has_postcopy` (`save_live_complete_postcopy`), which nothing should be left
    /// for, and the end-of-stream mark. Flushes.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn complete_postcopy(
        &mut self,
        bql: &Bql<'_>,
        registry: &mut Registry,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), SaveError> {
        let (settings, encoder) = (&self.settings, &mut *self.encoder);
        let wanted = Writes::SETUP | Writes::COMPLETE_POSTCOPY;
        for entry in registry.entries_mut() {
            if !entry
                .active(wanted)
                .is_some_and(|handlers| handlers.has_postcopy())
            {
                continue;
            }
            section(
                entry,
                wanted,
                SectionKind::End,
                encoder,
                out,
                |handlers, out| {
                    handlers.save_live_complete_postcopy(&mut CompleteCx { bql, out, settings })
                },
            )?;
        }
        self.put(out, |encoder, bytes| encoder.complete(bytes))?;
        self.commit(out)
    }

    /// On a new connection after a broken one: has every entry find out what the destination has (`resume_prepare`), with questions on
    /// the main channel, whose answers `answers` hears on the return path. [`resume`](Self::resume) comes next.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn recover(
        &mut self,
        registry: &mut Registry,
        out: &mut dyn ChannelWriter,
        answers: &mut dyn ReceivedBitmaps,
    ) -> Result<(), SaveError> {
        self.put(out, |encoder, bytes| {
            encoder.interrupted(bytes);
            Ok(())
        })?;
        let (settings, encoder) = (&self.settings, &mut *self.encoder);
        let link = &mut Asking {
            encoder,
            out,
            answers,
        };
        for entry in registry.entries_mut() {
            let name = name_of(entry);
            if let Some(handlers) = entry.active(Writes::SETUP)
                && handlers.has_postcopy()
            {
                handlers
                    .resume_prepare(&mut ResumeCx { link, settings })
                    .map_err(|source| in_section(name, source))?;
            }
        }
        Ok(())
    }

    /// Tells the destination to go on.
    ///
    /// # Errors
    ///
    /// [`SaveError`].
    pub fn resume(&mut self, out: &mut dyn ChannelWriter) -> Result<(), SaveError> {
        self.command(&Command::PostcopyResume, out)
    }

    /// Tells the destination what to drop.
    fn discards(
        &mut self,
        bql: &Bql<'_>,
        registry: &mut Registry,
        out: &mut dyn ChannelWriter,
    ) -> Result<(), SaveError> {
        let (settings, encoder) = (&self.settings, &mut *self.encoder);
        for entry in registry.entries_mut() {
            let name = name_of(entry);
            let Some(handlers) = entry.active(Writes::SETUP) else {
                continue;
            };
            if !handlers.has_postcopy() {
                continue;
            }
            let mut discards = Discards {
                encoder,
                out,
                block: None,
                ranges: Vec::new(),
            };
            let mut cx = DiscardCx {
                bql,
                out: &mut discards,
                settings,
            };
            handlers
                .save_postcopy_discard(&mut cx)
                .map_err(|source| in_section(name, source))?;
            discards.write()?;
        }
        Ok(())
    }
}

fn wire_name(block: &RamName, at: StreamOffset) -> Result<BlockName, ChannelError> {
    // Both kinds of name have the same rules.
    BlockName::new(block.as_bytes()).map_err(|error| ChannelError::failed(at, error))
}

/// What a destination says of pages that have arrived, after a broken connection.
pub trait ReceivedBitmaps {
    /// It will be asked about a block of so many target pages.
    fn expect(&mut self, block: &RamName, pages: u64);

    /// Waits for the answer: one bit per target page, lowest bit of word 0 first. None if none comes any more.
    fn wait(&mut self) -> Option<Vec<u64>>;
}

/// Asks on the main channel, hears on the return path.
struct Asking<'a> {
    encoder: &'a mut dyn StreamEncoder,
    out: &'a mut dyn ChannelWriter,
    answers: &'a mut dyn ReceivedBitmaps,
}

impl RecoveryLink for Asking<'_> {
    fn received_bitmap(&mut self, block: &RamName, pages: u64) -> Result<Vec<u64>, ChannelError> {
        self.answers.expect(block, pages);
        let at = self.out.position();
        let block = wire_name(block, at)?;
        put_command(self.encoder, &Command::RecvBitmap { block }, self.out)?;
        self.out.flush()?;
        let closed = || ChannelError::new(ChannelEnd::Closed, self.out.position());
        self.answers.wait().ok_or_else(closed)
    }
}

/// Writes a command where nothing but the channel should fail.
fn put_command(
    encoder: &mut dyn StreamEncoder,
    command: &Command,
    out: &mut dyn ChannelWriter,
) -> Result<(), ChannelError> {
    let mut bytes = Vec::new();
    let at = out.position();
    encoder
        .command(command, &mut bytes)
        .map_err(|error| ChannelError::failed(at, error))?;
    out.bytes(&bytes)
}

/// Collects ranges into commands.
struct Discards<'a> {
    encoder: &'a mut dyn StreamEncoder,
    out: &'a mut dyn ChannelWriter,
    block: Option<RamName>,
    ranges: Vec<DiscardRange>,
}

impl Discards<'_> {
    fn write(&mut self) -> Result<(), ChannelError> {
        let ranges = std::mem::take(&mut self.ranges);
        let Some(block) = self.block.as_ref().filter(|_| !ranges.is_empty()) else {
            return Ok(());
        };
        let at = self.out.position();
        let block = wire_name(block, at)?;
        put_command(
            self.encoder,
            &Command::RamDiscard { block, ranges },
            self.out,
        )
    }
}

impl DiscardSink for Discards<'_> {
    fn discard(&mut self, block: &RamName, start: u64, length: u64) -> Result<(), ChannelError> {
        if self.ranges.len() >= RANGES || self.block.as_ref() != Some(block) {
            self.write()?;
            self.block = Some(block.clone());
        }
        self.ranges.push(DiscardRange { start, length });
        Ok(())
    }
}

/// A package while it is put together. It holds devices, never guest memory.
#[derive(Default)]
struct Package(Vec<u8>);

impl SectionWriter for Package {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn pages(&mut self, block: BlockId, offset: u64, length: u64) -> Result<(), ChannelError> {
        let reason = format!(
            "{length} bytes of guest memory (block {} at {offset:#x}) do not go into the package of devices",
            block.0
        );
        Err(ChannelError::failed(self.position(), reason))
    }

    fn rate_exceeded(&self) -> bool {
        false
    }

    fn position(&self) -> StreamOffset {
        StreamOffset(self.0.len() as u64)
    }
}

impl ChannelWriter for Package {
    fn flush(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }
}
