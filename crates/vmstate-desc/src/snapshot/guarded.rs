//! Locks and cells: state that is reached through a guard.

use std::any::type_name;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, RwLock};

use super::suspend::{checked, suspend};
use super::{InvalidError, ToMigrationState};
use crate::error::Reason;

/// A cell that lends its content: a lock, a `RefCell`, a VMM's own big-lock cell.
///
/// Implement it for your cell and let [`guarded!`](crate::guarded) do the rest:
///
/// ```
/// use std::cell::{Ref, RefCell, RefMut};
/// use std::ops::{Deref, DerefMut};
/// use vmstate_desc::Reason;
/// use vmstate_desc::snapshot::{Guarded, ToMigrationState, ToMigrationStateShared};
///
/// /// Whether this thread holds the VMM's big lock.
/// fn big_lock_is_held() -> bool {
/// #   true
/// }
///
/// /// Content that is protected by the big lock.
/// struct BigLockCell<T>(RefCell<T>);
///
/// impl<T> Guarded for BigLockCell<T> {
///     type Value = T;
///
///     fn read(&self) -> Result<impl Deref<Target = T>, Reason> {
///         if !big_lock_is_held() {
///             return Err("the big lock is not held".into());
///         }
///         self.0.try_borrow().map_err(|e| e.to_string().into())
///     }
///
///     fn write(&self) -> Result<impl DerefMut<Target = T>, Reason> {
///         if !big_lock_is_held() {
///             return Err("the big lock is not held".into());
///         }
///         self.0.try_borrow_mut().map_err(|e| e.to_string().into())
///     }
/// }
///
/// vmstate_desc::guarded!(BigLockCell);
///
/// let cell = BigLockCell(RefCell::new(7_u32));
/// assert_eq!(*cell.to_migration_state()?, 7);
/// cell.restore_migrated_state(8, 0)?;
/// assert_eq!(*cell.0.borrow(), 8);
/// # Ok::<(), vmstate_desc::snapshot::InvalidError>(())
/// ```
pub trait Guarded {
    /// The content.
    type Value;

    /// A guard to read the content, kept while a snapshot is taken and not longer: never while bytes go out.
    ///
    /// # Errors
    /// Why the content cannot be read now.
    fn read(&self) -> Result<impl Deref<Target = Self::Value>, Reason>;

    /// A guard to change the content, kept from the check of a restore to its end.
    ///
    /// # Errors
    /// Why the content cannot be changed now.
    fn write(&self) -> Result<impl DerefMut<Target = Self::Value>, Reason>;
}

/// What a [`Guarded`] cell needs to be migrated: both traits, for any content that has them.
///
/// Takes the name of a type with one parameter, its content.
#[macro_export]
macro_rules! guarded {
    ($($cell:ident)::+) => {
        impl<T: $crate::snapshot::ToMigrationState> $crate::snapshot::ToMigrationState for $($cell)::+<T> {
            type Migrated = <T as $crate::snapshot::ToMigrationState>::Migrated;

            fn snapshot_migration_state(
                &self,
                into: &mut Self::Migrated,
            ) -> ::core::result::Result<(), $crate::snapshot::InvalidError> {
                $crate::snapshot::snapshot_guarded(self, into)
            }

            fn restore_migrated_state_mut(
                &mut self,
                from: Self::Migrated,
                version_id: u32,
            ) -> ::core::result::Result<(), $crate::snapshot::InvalidError> {
                $crate::snapshot::ToMigrationStateShared::restore_migrated_state(self, from, version_id)
            }

            fn prepare_restore_mut(
                &mut self,
                from: Self::Migrated,
                version_id: u32,
            ) -> ::core::result::Result<
                impl ::core::ops::FnOnce(),
                $crate::snapshot::InvalidError,
            > {
                $crate::snapshot::prepare_guarded(&*self, from, version_id)
            }
        }

        impl<T: $crate::snapshot::ToMigrationState> $crate::snapshot::ToMigrationStateShared
            for $($cell)::+<T>
        {
            fn restore_migrated_state(
                &self,
                from: Self::Migrated,
                version_id: u32,
            ) -> ::core::result::Result<(), $crate::snapshot::InvalidError> {
                let commit = $crate::snapshot::prepare_guarded(self, from, version_id)?;
                commit();
                ::core::result::Result::Ok(())
            }

            fn prepare_restore(
                &self,
                from: Self::Migrated,
                version_id: u32,
            ) -> ::core::result::Result<
                impl ::core::ops::FnOnce(),
                $crate::snapshot::InvalidError,
            > {
                $crate::snapshot::prepare_guarded(self, from, version_id)
            }
        }
    };
}

/// Takes a snapshot of what a cell holds; the guard is gone afterwards.
///
/// # Errors
/// What the cell or its content refuses.
pub fn snapshot<G: Guarded<Value: ToMigrationState>>(
    cell: &G,
    into: &mut <G::Value as ToMigrationState>::Migrated,
) -> Result<(), InvalidError> {
    cell.read()?.snapshot_migration_state(into)
}

/// The first phase for what a cell holds; what is returned keeps the guard.
///
/// # Errors
/// What the cell or its content refuses.
pub fn prepare<G: Guarded<Value: ToMigrationState>>(
    cell: &G,
    from: <G::Value as ToMigrationState>::Migrated,
    version_id: u32,
) -> Result<impl FnOnce(), InvalidError> {
    suspend(async move {
        // Declared before the guard, so that it goes after it.
        let _held = Held::enter(cell)?;
        let mut guard = cell.write()?;
        let commit = guard.prepare_restore_mut(from, version_id)?;
        checked().await;
        commit();
        Ok(())
    })
}

thread_local! {
    /// The cells whose guards this thread's restores keep. Address and type: a cell may begin with another one.
    static HELD: RefCell<Vec<(usize, &'static str)>> = const { RefCell::new(Vec::new()) };
}

/// A cell's entry among those that are held.
struct Held((usize, &'static str));

impl Held {
    /// Refuses a cell that this thread holds already: a lock would be waited for without end.
    fn enter<G>(cell: &G) -> Result<Self, InvalidError> {
        let entry = (std::ptr::from_ref(cell).addr(), type_name::<G>());
        HELD.with_borrow_mut(|held| {
            if size_of::<G>() != 0 && held.contains(&entry) {
                return Err(InvalidError::new(
                    "the same cell is reached twice: omit it in one of the places",
                ));
            }
            held.push(entry);
            Ok(Self(entry))
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|entry| *entry == self.0) {
                held.swap_remove(at);
            }
        });
    }
}

const POISONED: &str = "the lock is poisoned: a thread panicked while it changed the state";

impl<T> Guarded for Mutex<T> {
    type Value = T;

    fn read(&self) -> Result<impl Deref<Target = T>, Reason> {
        self.lock().map_err(|_| POISONED.into())
    }

    fn write(&self) -> Result<impl DerefMut<Target = T>, Reason> {
        self.lock().map_err(|_| POISONED.into())
    }
}

impl<T> Guarded for RwLock<T> {
    type Value = T;

    fn read(&self) -> Result<impl Deref<Target = T>, Reason> {
        RwLock::read(self).map_err(|_| POISONED.into())
    }

    fn write(&self) -> Result<impl DerefMut<Target = T>, Reason> {
        RwLock::write(self).map_err(|_| POISONED.into())
    }
}

impl<T> Guarded for RefCell<T> {
    type Value = T;

    fn read(&self) -> Result<impl Deref<Target = T>, Reason> {
        self.try_borrow()
            .map_err(|_| "the cell is being changed: it is borrowed mutably".into())
    }

    fn write(&self) -> Result<impl DerefMut<Target = T>, Reason> {
        self.try_borrow_mut()
            .map_err(|_| "the cell is in use: it is borrowed".into())
    }
}

guarded!(Mutex);
guarded!(RwLock);
guarded!(RefCell);
