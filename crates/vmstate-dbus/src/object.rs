//! The object `dbus-vmstate`: carries the states of helpers in the migration stream.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmstate_desc::{DescriptionRef, Error, LoadState, Reason, SaveState, VmState as _};
use vmstate_engine::{Bql, DescribedDevice, Device, HandlerError};
use vmstate_wire::helpers::Element;

use crate::calls::Rehearsal;
use crate::error::ObjectError;
use crate::id_list::IdList;
use crate::place::Place;
use crate::section::{DESCRIPTION, Inbound, Outbound};
use crate::session::{self, Loaded, Saved};
use crate::states::HelperStates;

/// Migration id of QEMU's object, whatever its own id is.
const MIGRATION_ID: &str = "dbus-vmstate";

/// How long finding and saving, or loading, all helpers may take, unless the object says something else.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// What became of the last save.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveReport {
    /// Ids of the helpers that were saved, and bytes of their states.
    pub saved: Vec<(String, usize)>,
    /// Ids of those that were there and not listed.
    pub skipped: Vec<String>,
    /// How long it took, with the guest stopped: part of the downtime.
    pub took: Duration,
}

/// Carries the states of helpers in the migration stream, as QEMU's object `dbus-vmstate` does. Clones share it.
///
/// The object connects for each migration anew, and holds nothing between them. Every step has the same deadline, for all helpers
/// together:
///
/// | when | what | a failure |
/// |---|---|---|
/// | the command `migrate` | every helper is asked for its id, and looked at for a second object | refuses the command |
/// | guest stopped | ids again, then all helpers save at the same time | fails the migration; the guest goes on at the source |
/// | section arrived, before the guest starts | ids, then all load at the same time | fails the migration; the guest goes on at the source |
///
/// ```no_run
/// use vmstate_dbus::{DbusVmstate, Place};
/// use vmstate_engine::Registry;
///
/// let object = DbusVmstate::new(Place::bus("unix:path=/run/vm7/bus")?);
/// object.set_id_list(Some("net0,tpm0".parse()?));
/// let mut registry = Registry::new();
/// registry.register_device(object.device(None))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct DbusVmstate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    deadline: Duration,
    id_list: Mutex<Option<IdList>>,
    skipped: Mutex<Vec<String>>,
    saved: Mutex<Option<SaveReport>>,
    loaded: Mutex<Option<Loaded>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that panics is done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DbusVmstate {
    /// An object for the helpers at `place`, all of them, with the deadline [`DEFAULT_DEADLINE`]. Nobody is called yet.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self::with_deadline(place, DEFAULT_DEADLINE)
    }

    /// As [`new`](Self::new), with another deadline.
    #[must_use]
    pub fn with_deadline(place: Place, deadline: Duration) -> Self {
        Self(Arc::new(Inner {
            place,
            deadline,
            id_list: Mutex::default(),
            skipped: Mutex::default(),
            saved: Mutex::default(),
            loaded: Mutex::default(),
        }))
    }

    /// Where the helpers are.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// How long each step may take, for all helpers together.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// The helpers that take part and must be there; `None`: all that are there. Counts from the next step on.
    pub fn set_id_list(&self, list: Option<IdList>) {
        *lock(&self.0.id_list) = list;
    }

    /// The helpers that take part and must be there.
    #[must_use]
    pub fn id_list(&self) -> Option<IdList> {
        lock(&self.0.id_list).clone()
    }

    /// Finds out whether the helpers can be reached at all.
    ///
    /// # Errors
    /// A bus, or a helper without a bus, that cannot be reached.
    pub fn probe(&self) -> Result<(), ObjectError> {
        session::probe(&self.0.place, self.0.deadline)
    }

    /// Asks every helper for its id, as a migration will, and by introspection whether it has a second object.
    ///
    /// # Errors
    /// What a migration would fail with, apart from `Save` and `Load`.
    pub fn rehearse(&self) -> Result<Rehearsal, ObjectError> {
        let list = self.id_list();
        let rehearsal = session::rehearse(&self.0.place, list.as_ref(), self.0.deadline)?;
        *lock(&self.0.skipped) = rehearsal.skipped.clone();
        Ok(rehearsal)
    }

    /// Ids of the helpers that were there and not listed when they were last looked at: at the command `migrate`, by a save, by a load.
    /// They take no part, and that is no error, as in QEMU.
    #[must_use]
    pub fn skipped(&self) -> Vec<String> {
        lock(&self.0.skipped).clone()
    }

    /// What became of the last save that succeeded.
    #[must_use]
    pub fn saved(&self) -> Option<SaveReport> {
        lock(&self.0.saved).clone()
    }

    /// What became of the last load that succeeded.
    #[must_use]
    pub fn loaded(&self) -> Option<Loaded> {
        lock(&self.0.loaded).clone()
    }

    /// The section, to be registered. Without a `path` it is the one that QEMU's object has, `dbus-vmstate/dbus-vmstate`. A
    /// machine with more objects gives the others a path, which QEMU does not know: `dbus-vmstate/PATH/dbus-vmstate`.
    #[must_use]
    pub fn device(&self, path: Option<&str>) -> Device {
        Device::new(self.section()).at_path(match path {
            None => MIGRATION_ID.to_owned(),
            Some(path) => format!("{MIGRATION_ID}/{path}"),
        })
    }

    /// What [`device`](Self::device) registers, for a VMM with a registry of its own.
    #[must_use]
    pub fn section(&self) -> impl DescribedDevice + use<> {
        Section(self.clone())
    }
}

/// The object as an entry of a registry.
struct Section(DbusVmstate);

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn refused(hook: &'static str, error: impl fmt::Display) -> Error {
    Error::refused(hook, Reason::new(error.to_string()))
}

impl Section {
    /// Collects the states of all helpers and lends them, as they came in their messages.
    fn collect(&self, lend: &mut dyn FnMut(&Saved) -> Result<(), Error>) -> Result<(), Error> {
        let inner = &self.0.0;
        let list = self.0.id_list();
        let saved = session::save(&inner.place, list.as_ref(), inner.deadline)
            .map_err(|error| refused("pre_save", error))?;
        lend(&saved)?;
        *lock(&inner.skipped) = saved.skipped.clone();
        let states = saved.states.iter();
        *lock(&inner.saved) = Some(SaveReport {
            saved: states
                .map(|(id, state)| (id.clone(), state.bytes().len()))
                .collect(),
            skipped: saved.skipped.clone(),
            took: saved.took,
        });
        Ok(())
    }

    /// Hands the states that `read` gives to the helpers. It is told whose they may be: an element that is nobody's is refused before it
    /// has taken memory.
    fn hand_out(
        &self,
        read: &mut dyn FnMut(Rehearsal) -> Result<Vec<Element>, Error>,
    ) -> Result<(), Error> {
        let begin = Instant::now();
        let inner = &self.0.0;
        let list = self.0.id_list();
        let present = (self.0.rehearse()).map_err(|error| refused("pre_load", error))?;
        let elements = read(present)?;
        let loaded = session::load(&inner.place, list.as_ref(), &elements, inner.deadline);
        let loaded = loaded.map_err(|error| refused("post_load", error))?;
        *lock(&inner.skipped) = loaded.skipped.clone();
        *lock(&inner.loaded) = Some(Loaded {
            took: begin.elapsed(),
            ..loaded
        });
        Ok(())
    }
}

impl DescribedDevice for Section {
    fn description(&self) -> DescriptionRef {
        DescriptionRef::Static(&DESCRIPTION)
    }

    fn structured(&self) -> Option<DescriptionRef> {
        Some(DescriptionRef::Static(HelperStates::DESCRIPTION))
    }

    fn save_prepare(&mut self, _bql: &Bql<'_>) -> Result<(), HandlerError> {
        let rehearsed = self.0.rehearse();
        rehearsed
            .map(drop)
            .map_err(|error| HandlerError::refused(error.to_string()))
    }

    fn save(
        &self,
        _bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.collect(&mut |saved| {
            let outbound = Outbound::new(saved).map_err(|error| refused("pre_save", error))?;
            visit(&outbound)
        })
    }

    fn load(
        &mut self,
        _bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.hand_out(&mut |present| {
            let mut inbound = Inbound::new(present);
            visit(&mut inbound)?;
            Ok(inbound.into_elements())
        })
    }

    fn save_structured(
        &self,
        _bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.collect(&mut |saved| {
            // The same rules for ids and sizes.
            Outbound::new(saved).map_err(|error| refused("pre_save", error))?;
            visit(&HelperStates::from(saved))
        })
    }

    fn load_structured(
        &mut self,
        _bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.hand_out(&mut |present| {
            let mut states = HelperStates::default();
            visit(&mut states)?;
            let elements = states.into_elements(present.reader());
            elements.map_err(|error| refused("post_load", present.explain(&error)))
        })
    }
}
