//! The commands of a migration whose guest goes before its memory.

use vmstate_engine::Capability;
use vmstate_engine::source::{CommandError, Source};
use vmstate_qmp::address::{MigrationAddress, SocketAddress};

use super::{MigrateError, Migrator, lock};
use crate::live::stop::Stop;

impl Migrator {
    /// Lets the guest go before its memory, as soon as that is possible: the command `migrate-start-postcopy`.
    ///
    /// # Errors
    /// [`CommandError::PostcopyOff`], [`CommandError::NotStarted`].
    pub fn start_postcopy(&self) -> Result<(), CommandError> {
        let on = self.settings().capabilities.has(Capability::PostcopyRam);
        self.command(|source, _| source.start_postcopy(on))
    }

    /// Gives up the channels of a migration whose guest has gone, so that others can be made: the command `migrate-pause`.
    ///
    /// # Errors
    /// [`CommandError::NotPausable`].
    pub fn pause(&self) -> Result<(), CommandError> {
        self.command(Source::pause)
    }

    /// Goes on with a paused postcopy over new channels to `address`: the command `migrate` with `resume`. What fails later pauses it
    /// again.
    ///
    /// # Errors
    /// [`CommandError::NotPaused`], an address that carries no answers, or a process that has no descriptor left.
    pub fn resume(&self, address: MigrationAddress) -> Result<(), MigrateError> {
        self.supports(&address)?;
        if !matches!(address, MigrationAddress::Socket(_)) {
            // Before it is opened: a file would be emptied for nothing.
            return Err(MigrateError::OneWay);
        }
        let stop = Stop::new()?;
        {
            let mut outward = lock(&self.0.source);
            let now = self.0.now();
            outward.source.recover(now)?;
            outward.stop = stop;
            outward.address = Some(address);
        }
        self.0.tell_source();
        Ok(())
    }

    /// Whether all channels that the capabilities ask for can be made to this address.
    pub(super) fn supports(&self, address: &MigrationAddress) -> Result<(), MigrateError> {
        let settings = self.settings();
        let has = |capability| settings.capabilities.has(capability);
        let several = has(Capability::PostcopyPreempt);
        let can = matches!(
            address,
            MigrationAddress::Socket(SocketAddress::Inet(_) | SocketAddress::Unix(_))
        );
        if several && !can {
            return Err(MigrateError::OneChannel);
        }
        Ok(())
    }
}
