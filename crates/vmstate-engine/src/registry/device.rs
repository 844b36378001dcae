//! Described devices as entries of a registry.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use vmstate_desc::{DescriptionRef, Error, LoadState, OwnCount, SaveState, own_counts};
use vmstate_wire::stream::InstanceId;

use super::ANY_INSTANCE;
use crate::bql::Bql;
use crate::handlers::HandlerError;

/// A device whose state a description describes, lent for the length of a save or load.
///
/// `Arc<Mutex<T>>` is one for every `T` with `#[derive(VmState)]`: the VMM keeps a clone. A device that nobody else
/// needs goes into [`Owned`]. A VMM that guards its devices by the big lock itself implements the trait.
pub trait DescribedDevice: Send {
    /// What the state looks like. Always the same.
    fn description(&self) -> DescriptionRef;

    /// What the state looks like in formats that carry descriptions, where QEMU's stream hides it in bytes. Of another name than
    /// [`description`](Self::description), and always the same.
    fn structured(&self) -> Option<DescriptionRef> {
        None
    }

    /// As [`save`](Self::save), in the form that [`structured`](Self::structured) describes.
    ///
    /// # Errors
    ///
    /// What `visit` returns.
    fn save_structured(
        &self,
        bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.save(bql, visit)
    }

    /// As [`load`](Self::load), from the form that [`structured`](Self::structured) describes.
    ///
    /// # Errors
    ///
    /// What `visit` returns.
    fn load_structured(
        &mut self,
        bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.load(bql, visit)
    }

    /// Early check on the source, before anything is set up or sent. As
    /// [`SaveVmHandlers::save_prepare`](crate::SaveVmHandlers::save_prepare).
    ///
    /// # Errors
    ///
    /// The reason to refuse the migration.
    fn save_prepare(&mut self, bql: &Bql<'_>) -> Result<(), HandlerError> {
        let _ = bql;
        Ok(())
    }

    /// Whether the guest has been asked to let go of the device and has not yet: the migration waits. Asked again and again while
    /// the guest runs, so it must be cheap. What `#[derive(VmState)]` knows by `unplug_pending` is answered by
    /// `Arc<Mutex<T>>` and [`Owned`]; whoever implements this trait by hand answers here. `false` unless it says otherwise.
    fn unplug_pending(&self, bql: &Bql<'_>) -> bool {
        let _ = bql;
        false
    }

    /// How many elements fields have by the configuration of this device, where no value says it: the other end of a migration
    /// hears of it before guest RAM travels, and refuses if it has another number. Asked while the guest runs. What
    /// [`own_counts`] finds is answered by `Arc<Mutex<T>>` and [`Owned`]; whoever implements this trait by hand answers here. Paths
    /// are those of [`structured`](Self::structured), if there is one. Nothing unless it says otherwise.
    fn own_counts(&self, bql: &Bql<'_>) -> Vec<OwnCount> {
        let _ = bql;
        Vec::new()
    }

    /// Lends the state for saving. The guest is stopped, or the device is sent early.
    ///
    /// # Errors
    ///
    /// What `visit` returns.
    fn save(
        &self,
        bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error>;

    /// Lends the state for loading. Without the lock only in postcopy.
    ///
    /// # Errors
    ///
    /// What `visit` returns.
    fn load(
        &mut self,
        bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error>;
}

macro_rules! shared {
    (<$($generics:ident: $bound:path),*> $type:ty) => {
        impl<$($generics: $bound + Send),*> DescribedDevice for Arc<Mutex<$type>> {
            fn description(&self) -> DescriptionRef {
                self.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .description()
            }

            fn unplug_pending(&self, _bql: &Bql<'_>) -> bool {
                self.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .unplug_pending()
            }

            fn own_counts(&self, _bql: &Bql<'_>) -> Vec<OwnCount> {
                own_counts(&*self.lock().unwrap_or_else(PoisonError::into_inner))
            }

            fn save(
                &self,
                _bql: &Bql<'_>,
                visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
            ) -> Result<(), Error> {
                visit(&*self.lock().unwrap_or_else(PoisonError::into_inner))
            }

            fn load(
                &mut self,
                _bql: Option<&Bql<'_>>,
                visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
            ) -> Result<(), Error> {
                visit(&mut *self.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    };
}

shared!(<T: LoadState> T);
shared!(<> dyn LoadState + Send);

/// A device that only the registry holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned<T>(pub T);

impl<T: LoadState + Send> DescribedDevice for Owned<T> {
    fn description(&self) -> DescriptionRef {
        self.0.description()
    }

    fn unplug_pending(&self, _bql: &Bql<'_>) -> bool {
        self.0.unplug_pending()
    }

    fn own_counts(&self, _bql: &Bql<'_>) -> Vec<OwnCount> {
        own_counts(&self.0)
    }

    fn save(
        &self,
        _bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        visit(&self.0)
    }

    fn load(
        &mut self,
        _bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        visit(&mut self.0)
    }
}

/// A device to be registered, and under which name.
pub struct Device {
    pub(super) state: Box<dyn DescribedDevice>,
    pub(super) path: Option<String>,
    pub(super) instance_id: InstanceId,
    pub(super) alias: Option<(InstanceId, u32)>,
}

impl Device {
    /// A device without a path, with any instance id.
    pub fn new(state: impl DescribedDevice + 'static) -> Self {
        Self {
            state: Box::new(state),
            path: None,
            instance_id: ANY_INSTANCE,
            alias: None,
        }
    }

    /// The same device at this place of its bus, such as `0000:00:01.1`: the name becomes `path/name`, instance ids
    /// of that longer name begin at 0, and what the name would have been without the path is still loaded.
    #[must_use]
    pub fn at_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The same device with this instance id.
    #[must_use]
    pub fn instance(mut self, instance_id: InstanceId) -> Self {
        self.instance_id = instance_id;
        self
    }

    /// The same device, which is also loaded from sections with this instance id. `required_for_version` is the version
    /// of the description up to which such sections were written.
    #[must_use]
    pub fn alias(mut self, instance_id: InstanceId, required_for_version: u32) -> Self {
        self.alias = Some((instance_id, required_for_version));
        self
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("path", &self.path)
            .field("instance_id", &self.instance_id)
            .field("alias", &self.alias)
            .finish_non_exhaustive()
    }
}
