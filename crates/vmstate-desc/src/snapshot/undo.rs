//! Restores that have one phase only, made to look as if they had two.

use super::{InvalidError, ToMigrationState, ToMigrationStateShared};
use crate::value::version_of;

/// Puts the old state back when it is dropped.
struct Undo<M, F: FnMut(M)> {
    old: Option<Box<M>>,
    put: F,
}

impl<M, F: FnMut(M)> Undo<M, F> {
    /// The new state stays.
    fn disarm(mut self) {
        self.old = None;
    }
}

impl<M, F: FnMut(M)> Drop for Undo<M, F> {
    fn drop(&mut self) {
        if let Some(old) = self.old.take() {
            (self.put)(*old);
        }
    }
}

pub(super) fn restore_mut<T: ToMigrationState>(
    state: &mut T,
    from: T::Migrated,
    version_id: u32,
) -> Result<impl FnOnce(), InvalidError> {
    let old = state.to_migration_state()?;
    let result = state.restore_migrated_state_mut(from, version_id);
    // From here on: an implementation that fails half-way is undone, too.
    let undo = Undo {
        old: Some(old),
        put: |old| {
            // A state takes back what it has just given; there is nobody to tell if it does not.
            let _ = state.restore_migrated_state_mut(old, version_of::<T::Migrated>());
        },
    };
    result?;
    Ok(move || undo.disarm())
}

pub(super) fn restore<T: ToMigrationStateShared>(
    state: &T,
    from: T::Migrated,
    version_id: u32,
) -> Result<impl FnOnce(), InvalidError> {
    let old = state.to_migration_state()?;
    let result = state.restore_migrated_state(from, version_id);
    let undo = Undo {
        old: Some(old),
        put: |old| {
            let _ = state.restore_migrated_state(old, version_of::<T::Migrated>());
        },
    };
    result?;
    Ok(move || undo.disarm())
}
