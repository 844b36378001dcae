//! A machine's objects: made and removed while it lives.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmstate_engine::Registry;
use vmstate_wire::stream::SectionId;

use crate::object::{DbusVmstate, SaveReport};
use crate::options::{ObjectOptions, OptionsError, id_list};
use crate::session::Loaded;

type Lend = dyn Fn(&mut dyn FnMut(&mut Registry)) -> Result<(), String> + Send + Sync;

/// A machine's objects of the type `dbus-vmstate`, by their ids.
///
/// QEMU allows one. Here the first, as long as it is there, has QEMU's section; each further one has a section of its own,
/// `dbus-vmstate/ID/dbus-vmstate`, which only a machine like this one loads. So both ends make their objects in the same
/// order, and name them alike.
pub struct Objects {
    lend: Box<Lend>,
    objects: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    object: DbusVmstate,
    section: SectionId,
    /// Has QEMU's section.
    first: bool,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.lock().keys().cloned().collect();
        f.debug_struct("Objects").field("ids", &ids).finish()
    }
}

/// What became of an object's last save and its last load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectReport {
    /// The object's id.
    pub id: String,
    /// What it saved.
    pub saved: Option<SaveReport>,
    /// What it loaded.
    pub loaded: Option<Loaded>,
    /// Ids of the helpers that were there and not listed when they were last looked at.
    pub skipped: Vec<String>,
}

impl Objects {
    /// No objects yet. `lend` lends the machine's registry for a moment; it refuses while a migration runs.
    #[must_use]
    pub fn new(
        lend: impl Fn(&mut dyn FnMut(&mut Registry)) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            lend: Box::new(lend),
            objects: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an object, connects to its bus once to see that it is there, and registers the section.
    ///
    /// # Errors
    /// Properties without a meaning, an id that is taken, a bus that cannot be reached, a migration that runs.
    pub fn add(&self, options: &ObjectOptions) -> Result<(), OptionsError> {
        let object = options.object()?;
        if self.lock().contains_key(&options.id) {
            return Err(taken(&options.id));
        }
        object
            .probe()
            .map_err(|error| OptionsError::new(error.to_string()))?;
        let mut objects = self.lock();
        if objects.contains_key(&options.id) {
            return Err(taken(&options.id));
        }
        let first = objects.values().all(|entry| !entry.first);
        let path = (!first).then_some(options.id.as_str());
        let mut registered = None;
        (self.lend)(&mut |registry| {
            registered = Some(registry.register_device(object.device(path)));
        })
        .map_err(OptionsError::new)?;
        let section = match registered {
            Some(Ok(section)) => section,
            Some(Err(error)) => return Err(OptionsError::new(error.to_string())),
            None => return Err(OptionsError::new("the registry was not lent")),
        };
        let entry = Entry {
            object,
            section,
            first,
        };
        objects.insert(options.id.clone(), entry);
        Ok(())
    }

    /// Removes an object and its section.
    ///
    /// # Errors
    /// An id that no object has, a migration that runs.
    pub fn remove(&self, id: &str) -> Result<(), OptionsError> {
        let mut objects = self.lock();
        let Some(entry) = objects.get(id) else {
            return Err(OptionsError::new(format!("object '{id}' not found")));
        };
        let section = entry.section;
        (self.lend)(&mut |registry| {
            registry.unregister_savevm(section);
        })
        .map_err(OptionsError::new)?;
        objects.remove(id);
        Ok(())
    }

    /// The object with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<DbusVmstate> {
        self.lock().get(id).map(|entry| entry.object.clone())
    }

    /// Changes the list of ids of an object; an empty text is none.
    ///
    /// # Errors
    /// An id that no object has, a list without a meaning.
    pub fn set_id_list(&self, id: &str, list: &str) -> Result<(), OptionsError> {
        let object = self.get(id);
        let object = object.ok_or_else(|| OptionsError::new(format!("object '{id}' not found")))?;
        object.set_id_list(id_list(list)?);
        Ok(())
    }

    /// What became of the last save and the last load of each object that has saved or loaded.
    #[must_use]
    pub fn reports(&self) -> Vec<ObjectReport> {
        let objects = self.lock();
        let reports = objects
            .iter()
            .map(|(id, Entry { object, .. })| ObjectReport {
                id: id.clone(),
                saved: object.saved(),
                loaded: object.loaded(),
                skipped: object.skipped(),
            });
        let told = |report: &ObjectReport| report.saved.is_some() || report.loaded.is_some();
        reports.filter(told).collect()
    }
}

fn taken(id: &str) -> OptionsError {
    OptionsError::new(format!(
        "attempt to add duplicate property '{id}' to object (type 'container')"
    ))
}
