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
    /// One object comes or goes at a time. Held while the registry is lent, which may take as long as something keeps the big lock;
    /// the objects themselves can be looked at meanwhile.
    changes: Mutex<()>,
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
            changes: Mutex::default(),
            objects: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
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
        let _turn = self.changing();
        if self.lock().contains_key(&options.id) {
            return Err(taken(&options.id));
        }
        let first = self.lock().values().all(|entry| !entry.first);
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
        self.lock().insert(options.id.clone(), entry);
        Ok(())
    }

    /// Removes an object and its section.
    ///
    /// # Errors
    /// An id that no object has, a migration that runs.
    pub fn remove(&self, id: &str) -> Result<(), OptionsError> {
        let _turn = self.changing();
        let section = self.lock().get(id).map(|entry| entry.section);
        let section =
            section.ok_or_else(|| OptionsError::new(format!("object '{id}' not found")))?;
        (self.lend)(&mut |registry| {
            registry.unregister_savevm(section);
        })
        .map_err(OptionsError::new)?;
        self.lock().remove(id);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, OnceLock, Weak};
    use std::time::Duration;

    use super::*;

    /// Who lends the registry may have to wait for long. The objects can be looked at meanwhile.
    #[test]
    fn a_registry_that_is_lent_late_holds_nobody_else_up() {
        let late: Arc<OnceLock<Weak<Objects>>> = Arc::default();
        let looked_at = Arc::clone(&late);
        let objects = Arc::new(Objects::new(move |_| {
            let objects = looked_at.get().and_then(Weak::upgrade).unwrap();
            let (sender, seen) = channel();
            std::thread::spawn(move || {
                // The test may have failed.
                let _ = sender.send(objects.get("one").is_some() && objects.reports().is_empty());
            });
            match seen.recv_timeout(Duration::from_secs(60)) {
                Ok(true) => Ok(()),
                _ => Err("nobody can look at the objects".to_owned()),
            }
        }));
        late.set(Arc::downgrade(&objects)).unwrap();
        let options: ObjectOptions = "dbus-vmstate,id=one,addr=unix:path=/nonexistent"
            .parse()
            .unwrap();
        let entry = Entry {
            object: options.object().unwrap(),
            section: SectionId(1),
            first: true,
        };
        objects.lock().insert("one".to_owned(), entry);
        objects.remove("one").unwrap();
        assert!(objects.get("one").is_none());
        assert!(objects.remove("one").is_err());
    }
}
