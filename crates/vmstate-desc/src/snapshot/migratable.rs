//! The field type of a device's author.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::{InvalidError, ToMigrationState, ToMigrationStateShared, restore_by_phases};
use crate::description::{Description, DescriptionRef};
use crate::error::{Error, ErrorKind};
use crate::field::Element;
use crate::state::{LoadField, LoadState, SaveField, SaveState, VmState};
use crate::value::{FieldValue, described};

/// Runtime state that travels as its mirror. Otherwise as if it were not there: it dereferences to the state.
///
/// Saving takes a snapshot, encodes it and drops it, whatever comes of it; locks are held for the snapshot alone. Loading
/// decodes into a default mirror, and only if everything in it came restores the state from it, completely or not at all.
/// Name, versions, priority and bytes are those of the mirror.
///
/// `Migratable<T>` loads through exclusive access. Where many references to a device exist, `&Migratable<T>` and
/// `Arc<Migratable<T>>` load through a shared one; `T` is a [`ToMigrationStateShared`] then.
///
/// ```
/// use std::sync::Mutex;
/// use vmstate_desc::snapshot::{Migratable, ToMigrationStateShared};
///
/// #[derive(Default)]
/// struct Device {
///     counter: Migratable<Mutex<u32>>,
/// }
///
/// let device = Device::default();
/// *device.counter.lock().unwrap() = 42;
/// device.counter.restore_migrated_state(100, 0)?;
/// assert_eq!(*device.counter.lock().unwrap(), 100);
/// # Ok::<(), vmstate_desc::snapshot::InvalidError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Migratable<T> {
    runtime_state: T,
}

impl<T> Migratable<T> {
    /// Makes runtime state migratable.
    pub const fn new(runtime_state: T) -> Self {
        Self { runtime_state }
    }

    /// The runtime state.
    pub fn into_inner(self) -> T {
        self.runtime_state
    }
}

impl<T> From<T> for Migratable<T> {
    fn from(runtime_state: T) -> Self {
        Self::new(runtime_state)
    }
}

impl<T> Deref for Migratable<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.runtime_state
    }
}

impl<T> DerefMut for Migratable<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.runtime_state
    }
}

impl<T: ToMigrationState> ToMigrationState for Migratable<T> {
    type Migrated = T::Migrated;

    fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
        self.runtime_state
            .snapshot_migration_state(into)
            .map_err(in_device::<T::Migrated>)
    }

    restore_by_phases!(mut);

    fn prepare_restore_mut(
        &mut self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        self.runtime_state
            .prepare_restore_mut(from, version_id)
            .map_err(in_device::<T::Migrated>)
    }
}

impl<T: ToMigrationStateShared> ToMigrationStateShared for Migratable<T> {
    restore_by_phases!(shared);

    fn prepare_restore(
        &self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        self.runtime_state
            .prepare_restore(from, version_id)
            .map_err(in_device::<T::Migrated>)
    }
}

/// Names the description, if there is one.
fn in_device<M: FieldValue>(e: InvalidError) -> InvalidError {
    match described::<M>() {
        Some(description) => e.in_device(description.name()),
        None => e,
    }
}

fn snapshot<T: ToMigrationState>(state: &T) -> Result<Box<T::Migrated>, Error> {
    state
        .to_migration_state()
        .map_err(|e| e.into_error("snapshot"))
}

/// Implements accessors and field value for a type that leads to runtime state.
macro_rules! migratable {
    ($([$($life:lifetime)?] $ty:ty: $bound:ident, |$this:ident, $from:ident, $version:ident| $restore:expr;)*) => {$(
        impl<$($life,)? T: $bound<Migrated: VmState>> VmState for $ty {
            const DESCRIPTION: &'static Description = T::Migrated::DESCRIPTION;
        }

        impl<$($life,)? T: $bound<Migrated: VmState>> SaveState for $ty {
            fn description(&self) -> DescriptionRef {
                DescriptionRef::Static(T::Migrated::DESCRIPTION)
            }

            fn save_snapshot(
                &self,
                visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
            ) -> Option<Result<(), Error>> {
                Some(snapshot::<T>(self).and_then(|mirror| visit(&*mirror)))
            }

            fn save_field(&self, field: usize, _sink: &mut dyn SaveField) -> Result<(), Error> {
                Err(by_snapshot_only(field))
            }
        }

        impl<$($life,)? T: $bound<Migrated: VmState>> LoadState for $ty {
            fn load_snapshot(
                &mut self,
                visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<u32, Error>,
            ) -> Option<Result<(), Error>> {
                let mut $from = Box::<T::Migrated>::default();
                Some(visit(&mut *$from).and_then(|$version| {
                    let ($this, $from) = (self, *$from);
                    $restore.map_err(|e| e.into_error("restore"))
                }))
            }

            fn load_field(&mut self, field: usize, _source: &mut dyn LoadField) -> Result<(), Error> {
                Err(by_snapshot_only(field))
            }
        }

        impl<$($life,)? T: $bound> FieldValue for $ty {
            const ELEMENT: Element = T::Migrated::ELEMENT;
            const DIMENSIONS: Option<u32> = T::Migrated::DIMENSIONS;
            const OPEN: bool = T::Migrated::OPEN;

            fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
                snapshot::<T>(self)?.save(sink)
            }

            fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
                let mut $from = Box::<T::Migrated>::default();
                $from.load(source)?;
                let $version = source.version();
                let ($this, $from) = (self, *$from);
                $restore.map_err(|e| source.located(e.into_error("restore")))
            }
        }
    )*};
}

migratable! {
    [] Migratable<T>: ToMigrationState, |this, from, version|
        this.runtime_state.restore_migrated_state_mut(from, version);
    ['a] &'a Migratable<T>: ToMigrationStateShared, |this, from, version|
        this.runtime_state.restore_migrated_state(from, version);
    [] Arc<Migratable<T>>: ToMigrationStateShared, |this, from, version|
        this.runtime_state.restore_migrated_state(from, version);
}

/// The error of a traversal that goes past the snapshot.
fn by_snapshot_only(field: usize) -> Error {
    ErrorKind::Accessor {
        expected: "a traversal of the snapshot".into(),
        found: format!("one of the runtime state, field number {field}").into(),
    }
    .into()
}
