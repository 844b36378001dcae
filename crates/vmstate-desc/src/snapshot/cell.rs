//! Interior mutability without a guard, and shared ownership.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::atomic::{self, Ordering};
use std::sync::{Arc, OnceLock};

use super::compound::{Plan, build_option, snapshot_option};
use super::scalar::narrow;
use super::{InvalidError, ToMigrationState, ToMigrationStateShared, restore_by_phases};

impl<T: ToMigrationState + Copy> ToMigrationState for Cell<T> {
    type Migrated = T::Migrated;

    fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
        self.get().snapshot_migration_state(into)
    }

    restore_by_phases!(mut);

    fn prepare_restore_mut(
        &mut self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        self.get_mut().prepare_restore_mut(from, version_id)
    }
}

impl<T: ToMigrationState + Copy> ToMigrationStateShared for Cell<T> {
    restore_by_phases!(shared);

    fn prepare_restore(
        &self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        let mut value = self.get();
        value.restore_migrated_state_mut(from, version_id)?;
        Ok(move || self.set(value))
    }
}

/// Atomics, as the integer. A snapshot sees all that happened before a store with release ordering that it sees.
macro_rules! atomic {
    ($($atomic:ident $ty:ident => $mirror:ty,)*) => {$(
        impl ToMigrationState for atomic::$atomic {
            type Migrated = $mirror;

            fn snapshot_migration_state(&self, into: &mut $mirror) -> Result<(), InvalidError> {
                self.load(Ordering::Acquire).snapshot_migration_state(into)
            }

            restore_by_phases!(mut);

            fn prepare_restore_mut(
                &mut self,
                from: $mirror,
                version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                self.prepare_restore(from, version_id)
            }
        }

        impl ToMigrationStateShared for atomic::$atomic {
            restore_by_phases!(shared);

            fn prepare_restore(
                &self,
                from: $mirror,
                _version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                let value = atomic!(@narrow $ty, from);
                Ok(move || self.store(value, Ordering::Release))
            }
        }
    )*};
    (@narrow usize, $from:ident) => { narrow::<usize, u64>($from)? };
    (@narrow isize, $from:ident) => { narrow::<isize, i64>($from)? };
    (@narrow $ty:ident, $from:ident) => { $from };
}

atomic! {
    AtomicBool bool => bool,
    AtomicU8 u8 => u8,
    AtomicU16 u16 => u16,
    AtomicU32 u32 => u32,
    AtomicU64 u64 => u64,
    AtomicI8 i8 => i8,
    AtomicI16 i16 => i16,
    AtomicI32 i32 => i32,
    AtomicI64 i64 => i64,
    AtomicUsize usize => u64,
    AtomicIsize isize => i64,
}

macro_rules! pointer {
    ($($pointer:ident)*) => {$(
        impl<T: ToMigrationStateShared> ToMigrationState for $pointer<T> {
            type Migrated = T::Migrated;

            fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
                T::snapshot_migration_state(self, into)
            }

            restore_by_phases!(mut);

            fn prepare_restore_mut(
                &mut self,
                from: Self::Migrated,
                version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                T::prepare_restore(self, from, version_id)
            }
        }

        impl<T: ToMigrationStateShared> ToMigrationStateShared for $pointer<T> {
            restore_by_phases!(shared);

            fn prepare_restore(
                &self,
                from: Self::Migrated,
                version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                T::prepare_restore(self, from, version_id)
            }
        }
    )*};
}

pointer!(Rc Arc);

macro_rules! once {
    ($($once:ident)*) => {$(
        /// With exclusive access a cell can be filled and emptied. Through a shared reference it cannot, so empty on one
        /// side only is refused.
        impl<T: ToMigrationState + Default> ToMigrationState for $once<T> {
            type Migrated = Option<T::Migrated>;

            fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
                snapshot_option(self.get(), into)
            }

            restore_by_phases!(mut);

            fn prepare_restore_mut(
                &mut self,
                from: Self::Migrated,
                version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                let in_place = from.is_some() && self.get().is_some();
                let plan = match from {
                    Some(from) if in_place => match self.get_mut() {
                        Some(value) => Plan::InPlace(value.prepare_restore_mut(from, version_id)?),
                        None => return Err(InvalidError::new("was emptied meanwhile")),
                    },
                    from => {
                        let value: Option<T> = build_option(from, version_id)?;
                        Plan::Replace(self, value.map_or_else(Self::new, <Self as From<T>>::from))
                    }
                };
                Ok(move || plan.commit())
            }
        }

        impl<T: ToMigrationStateShared + Default> ToMigrationStateShared for $once<T> {
            restore_by_phases!(shared);

            fn prepare_restore(
                &self,
                from: Self::Migrated,
                version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                let commit = match (self.get(), from) {
                    (Some(value), Some(from)) => Some(value.prepare_restore(from, version_id)?),
                    (None, None) => None,
                    (None, Some(_)) => {
                        return Err(InvalidError::new("is empty here, and was set where the state comes from"));
                    }
                    (Some(_), None) => {
                        return Err(InvalidError::new("is set here, and was empty where the state comes from"));
                    }
                };
                Ok(move || {
                    if let Some(commit) = commit {
                        commit();
                    }
                })
            }
        }
    )*};
}

once!(OnceCell OnceLock);
