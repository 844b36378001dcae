//! The commands of a guest that arrives before its memory.

use std::sync::PoisonError;
use std::time::Instant;

use vmstate_engine::destination::{Phase, PostcopyCommandError};
use vmstate_qmp::address::MigrationAddress;

use super::incoming;
use super::{CLEARING_UP, MigrateError, Migrator, lock};
use crate::live::connect::Listener;
use crate::live::stop::Stop;

impl Migrator {
    /// Whether this host can serve the missing pages of a guest that runs before its memory is here.
    ///
    /// # Errors
    /// Why it cannot, and what to do about it.
    pub fn check_postcopy(&self) -> Result<(), String> {
        incoming::check_postcopy(&self.0)
    }

    /// Waits anew for the source of a postcopy that has lost its channels: the command `migrate-recover`. Returns where it
    /// listens. If it waits already and the source has not come, it waits here in place of there, as in QEMU.
    ///
    /// # Errors
    /// [`MigrateError::Postcopy`] if nothing is paused; an address that is none to listen on. Another attempt may be made then.
    pub fn recover(&self, address: &MigrationAddress) -> Result<MigrationAddress, MigrateError> {
        let stop = Stop::new()?;
        {
            self.stop_waiting();
            let mut inward = lock(&self.0.destination);
            if inward.destination.phase() != Phase::Paused {
                // The reason is the destination's.
                inward.destination.recover()?;
            }
        }
        // Looking up a name may take long, and nobody else is to wait for it.
        let listener = Listener::new(address, &self.0.descriptors, &stop)?;
        let shown = {
            let mut inward = lock(&self.0.destination);
            inward.destination.recover()?;
            let shown = listener.address().clone();
            inward.stop = stop;
            inward.address = Some(shown.clone());
            inward.listener = Some(listener);
            shown
        };
        self.0.tell_destination();
        Ok(shown)
    }

    /// Gives up a place at which the source has not come, so that it is free, and another one can be named.
    fn stop_waiting(&self) {
        let end = Instant::now() + CLEARING_UP;
        let mut inward = lock(&self.0.destination);
        while inward.destination.phase() == Phase::Reconnecting {
            // A source that has just come is lost again; it pauses, too.
            inward.stop.stop();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.0.arrivals.wait_timeout(inward, left);
            inward = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives up the channels of a guest whose memory is still arriving, so that others can be made: the command
    /// `migrate-pause`.
    ///
    /// # Errors
    /// [`PostcopyCommandError::NotActive`].
    pub fn pause_arrival(&self) -> Result<(), PostcopyCommandError> {
        lock(&self.0.destination).destination.pause()?;
        self.0.tell_destination();
        Ok(())
    }

    /// Gives up a guest whose memory will never be complete. It does not run any more, and the source must not be let run it
    /// either: what it has done here is lost with it.
    ///
    /// # Errors
    /// [`PostcopyCommandError::NothingToGiveUp`], also while the connection holds.
    pub fn give_up_arrival(&self, reason: &str) -> Result<(), PostcopyCommandError> {
        lock(&self.0.destination).destination.give_up(reason)?;
        self.0.tell_destination();
        Ok(())
    }

    /// The machine ends. If its guest runs and waits for memory, it is given up, so that nobody waits any more.
    pub fn end(&self) {
        let ended = lock(&self.0.destination)
            .destination
            .end("the machine ends");
        if ended.is_ok() {
            self.0.tell_destination();
        }
    }
}
