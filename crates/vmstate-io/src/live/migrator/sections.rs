//! Sections that come and go while the machine lives.

use vmstate_engine::Registry;

use super::{Migrator, lock};

/// Sections cannot come or go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("There's a migration process in progress")]
pub struct MigrationInProgress;

impl Migrator {
    /// Lends the machine's registry, under the VMM's lock: for devices that are plugged and unplugged.
    ///
    /// # Errors
    /// While a migration runs, in either direction. Waiting for one is not running.
    pub fn change_registry<R>(
        &self,
        change: impl FnOnce(&mut Registry) -> R,
    ) -> Result<R, MigrationInProgress> {
        let _bql = self.0.bql();
        // A migration that begins behind this look has to wait for the registry with its first step.
        let mut registry = lock(&self.0.registry);
        if self.is_running() {
            return Err(MigrationInProgress);
        }
        Ok(change(&mut registry))
    }
}
