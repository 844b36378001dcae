//! The sections of a machine: who has one, under which name, in which order.

mod device;
#[cfg(test)]
mod tests;

use std::fmt;

use vmstate_desc::Priority;
use vmstate_wire::stream::{
    IdStr, InstanceId, NameLengthError, SectionHeader, SectionId, VersionId,
};

pub use self::device::{DescribedDevice, Device, Owned};

use crate::bql::Bql;
use crate::handlers::{HandlerError, SaveVmHandlers, Writes};

/// The instance id that asks for a free one.
pub const ANY_INSTANCE: InstanceId = InstanceId(0xffff_ffff);

/// An entry was refused; the registry is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Name and instance id are taken.
    #[error("section {idstr}/{instance_id} is registered already")]
    Duplicate {
        /// The name.
        idstr: IdStr,
        /// The instance id.
        instance_id: InstanceId,
    },
    /// The name, with its path, is empty or too long.
    #[error("section name: {0}")]
    Name(#[from] NameLengthError),
    /// An alias id may only be given for versions that the device still loads.
    #[error(
        "section {idstr}: an alias id is required for version {required}, but versions below {minimum} cannot be loaded"
    )]
    Alias {
        /// The name.
        idstr: IdStr,
        /// The version for which the alias exists.
        required: u32,
        /// The oldest version that can be loaded.
        minimum: u32,
    },
    /// No instance id, or no section id, is left.
    #[error("no id is left for section {0}")]
    Exhausted(IdStr),
}

/// No section of this machine takes what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// Nobody has this name and instance id.
    #[error("unknown section {idstr}/{instance_id}")]
    Unknown {
        /// The name that came.
        idstr: IdStr,
        /// The instance id that came.
        instance_id: InstanceId,
    },
    /// A newer version than this machine knows.
    #[error("section {idstr}/{instance_id}: version {found} is newer than {known}")]
    Newer {
        /// The name that came.
        idstr: IdStr,
        /// The instance id that came.
        instance_id: InstanceId,
        /// The version that came.
        found: VersionId,
        /// The version registered here.
        known: VersionId,
    },
}

/// Handlers or a described device.
pub(crate) enum State {
    Live(Box<dyn SaveVmHandlers>),
    Described(Box<dyn DescribedDevice>),
}

/// One section of the machine.
pub struct Entry {
    pub(crate) section_id: SectionId,
    pub(crate) idstr: IdStr,
    pub(crate) instance_id: InstanceId,
    alias_id: Option<InstanceId>,
    /// Name and instance id before the device had a path.
    compat: Option<(IdStr, InstanceId)>,
    pub(crate) version: VersionId,
    priority: Priority,
    pub(crate) state: State,
    /// Section id and version of the last START or FULL that was loaded.
    loaded: Option<(SectionId, VersionId)>,
}

impl Entry {
    /// The handle that [`Registry`] gave out, and the section's id on the wire.
    #[must_use]
    pub fn section_id(&self) -> SectionId {
        self.section_id
    }

    /// The name.
    #[must_use]
    pub fn idstr(&self) -> &IdStr {
        &self.idstr
    }

    /// Which one of that name.
    #[must_use]
    pub fn instance_id(&self) -> InstanceId {
        self.instance_id
    }

    /// The version that is saved, and the highest that is loaded.
    #[must_use]
    pub fn version(&self) -> VersionId {
        self.version
    }

    /// The description of a described device; none for live state.
    #[must_use]
    pub fn description(&self) -> Option<vmstate_desc::DescriptionRef> {
        match &self.state {
            State::Described(device) => Some(device.description()),
            State::Live(_) => None,
        }
    }

    /// The description of a described device in formats that carry descriptions; none for live state.
    #[must_use]
    pub fn structured(&self) -> Option<vmstate_desc::DescriptionRef> {
        match &self.state {
            State::Described(device) => device.structured().or_else(|| Some(device.description())),
            State::Live(_) => None,
        }
    }

    /// How many elements fields have by the configuration of a described device: [`DescribedDevice::own_counts`].
    #[must_use]
    pub fn own_counts(&self, bql: &Bql<'_>) -> Vec<vmstate_desc::OwnCount> {
        match &self.state {
            State::Described(device) => device.own_counts(bql),
            State::Live(_) => Vec::new(),
        }
    }

    /// Whether the state travels in rounds: RAM, and what else has a START section.
    #[must_use]
    pub fn is_iterative(&self) -> bool {
        match &self.state {
            State::Live(handlers) => handlers.writes().contains(Writes::SETUP),
            State::Described(_) => false,
        }
    }

    /// Whether the entry takes part now. A described device does; whether it has something to say is known when it stands still.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match &self.state {
            State::Live(handlers) => handlers.is_active(),
            State::Described(_) => true,
        }
    }

    /// Other names and instance ids under which the entry is loaded.
    pub fn aliases(&self) -> impl Iterator<Item = (&IdStr, InstanceId)> {
        let own = self.alias_id.map(|alias| (&self.idstr, alias));
        let old = self.compat.iter().flat_map(move |(name, id)| {
            [Some(*id), self.alias_id]
                .into_iter()
                .flatten()
                .map(move |id| (name, id))
        });
        own.into_iter().chain(old)
    }

    /// The handlers, if the entry takes part now and writes this.
    pub(crate) fn active(&mut self, writes: Writes) -> Option<&mut Box<dyn SaveVmHandlers>> {
        match &mut self.state {
            State::Live(handlers) if handlers.writes().contains(writes) && handlers.is_active() => {
                Some(handlers)
            }
            _ => None,
        }
    }

    /// Whether this entry takes a START or FULL of this name: under its own name or alias, or under the name that it
    /// had before devices had paths.
    fn takes(&self, idstr: &IdStr, instance_id: InstanceId) -> bool {
        let alias = self.alias_id == Some(instance_id);
        if &self.idstr == idstr {
            return alias || self.instance_id == instance_id;
        }
        let Some((old, old_instance)) = &self.compat else {
            return false;
        };
        old == idstr && (alias || *old_instance == instance_id)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("section_id", &self.section_id)
            .field("idstr", &self.idstr)
            .field("instance_id", &self.instance_id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// All sections of a machine, in the order of every walk: larger priorities first, then as registered.
///
/// Entries come and go under the VMM's lock and not while a migration runs.
///
/// ```
/// use vmstate_engine::{ANY_INSTANCE, Registry, SaveVmHandlers};
///
/// struct Disk;
/// impl SaveVmHandlers for Disk {}
///
/// let mut registry = Registry::new();
/// let first = registry.register_savevm_live("disk", ANY_INSTANCE, 1, Box::new(Disk))?;
/// registry.register_savevm_live("disk", ANY_INSTANCE, 1, Box::new(Disk))?;
/// let ids: Vec<_> = registry.entries().map(|entry| entry.instance_id().0).collect();
/// assert_eq!(ids, [0, 1]);
/// assert!(registry.unregister_savevm(first));
/// # Ok::<(), vmstate_engine::RegistryError>(())
/// ```
#[derive(Debug, Default)]
pub struct Registry {
    entries: Vec<Entry>,
    next: u32,
    blockers: Vec<String>,
}

impl Registry {
    /// A machine without sections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry with handlers, at default priority. `idstr` is the complete name: no path is put in front of it.
    /// [`ANY_INSTANCE`] picks the next free instance id. Returns the entry's handle.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn register_savevm_live(
        &mut self,
        idstr: &str,
        instance_id: InstanceId,
        version: u32,
        handlers: Box<dyn SaveVmHandlers>,
    ) -> Result<SectionId, RegistryError> {
        let idstr = IdStr::new(idstr)?;
        let iterative = handlers.writes().contains(Writes::SETUP);
        let instance_id = self.instance(&idstr, instance_id)?;
        let section_id = self.section_id(&idstr, iterative)?;
        self.insert(Entry {
            section_id,
            idstr,
            instance_id,
            alias_id: None,
            compat: None,
            version: VersionId(version),
            priority: Priority::Default,
            state: State::Live(handlers),
            loaded: None,
        })
    }

    /// Adds an entry for a described device, with the description's name, version and priority. Returns the entry's handle.
    ///
    /// QEMU: `vmstate_register_with_alias_id`.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn register_device(&mut self, device: Device) -> Result<SectionId, RegistryError> {
        let description = device.state.description();
        let name = IdStr::new(description.name())?;
        let (idstr, compat, instance_id) = match &device.path {
            Some(path) => {
                let old = match device.instance_id {
                    ANY_INSTANCE => self.next_old_instance(&name)?,
                    given => given,
                };
                let full = IdStr::new(format!("{path}/{}", description.name()))?;
                (full, Some((name, old)), ANY_INSTANCE)
            }
            None => (name, None, device.instance_id),
        };
        if let Some((_, required)) = device.alias
            && required < description.minimum_version_id
        {
            let minimum = description.minimum_version_id;
            return Err(RegistryError::Alias {
                idstr,
                required,
                minimum,
            });
        }
        let instance_id = self.instance(&idstr, instance_id)?;
        let section_id = self.section_id(&idstr, false)?;
        self.insert(Entry {
            section_id,
            idstr,
            instance_id,
            alias_id: device.alias.map(|(id, _)| id),
            compat,
            version: VersionId(description.version_id),
            priority: description.priority,
            state: State::Described(device.state),
            loaded: None,
        })
    }

    /// Removes an entry; `false` if it is not there. Its section id is never used again.
    pub fn unregister_savevm(&mut self, section_id: SectionId) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.section_id != section_id);
        before != self.entries.len()
    }

    /// The entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Gives a reason why this machine cannot be migrated.
    pub fn add_blocker(&mut self, reason: impl Into<String>) {
        self.blockers.push(reason.into());
    }

    /// Takes a reason back; `false` if it was none.
    pub fn remove_blocker(&mut self, reason: &str) -> bool {
        let before = self.blockers.len();
        self.blockers.retain(|one| one != reason);
        before != self.blockers.len()
    }

    /// All reasons why this machine cannot be migrated: those that were given, and devices that say so.
    #[must_use]
    pub fn blockers(&self) -> Vec<String> {
        let unmigratable = self.entries.iter().filter_map(|entry| match &entry.state {
            State::Described(device) if device.description().unmigratable => Some(format!(
                "State blocked by non-migratable device '{}'",
                entry.idstr
            )),
            _ => None,
        });
        self.blockers.iter().cloned().chain(unmigratable).collect()
    }

    /// Whether a device waits for its guest to let go of it before a migration may go on. For
    /// [`Machine::unplug_pending`](crate::Machine::unplug_pending).
    #[must_use]
    pub fn unplug_pending(&self, bql: &Bql<'_>) -> bool {
        self.entries.iter().any(|entry| match &entry.state {
            State::Described(device) => device.unplug_pending(bql),
            State::Live(_) => false,
        })
    }

    /// Asks every entry whether it can migrate: `save_prepare`.
    ///
    /// # Errors
    ///
    /// The first refusal, with the section's name.
    pub fn save_prepare(&mut self, bql: &Bql<'_>) -> Result<(), (String, HandlerError)> {
        for entry in &mut self.entries {
            let name = format!("{}/{}", entry.idstr, entry.instance_id);
            let prepared = match &mut entry.state {
                State::Live(handlers) if handlers.is_active() => handlers.save_prepare(bql),
                State::Live(_) => Ok(()),
                State::Described(device) => device.save_prepare(bql),
            };
            prepared.map_err(|error| (name, error))?;
        }
        Ok(())
    }

    /// Frees what saving took: `save_cleanup` of all.
    pub fn save_cleanup(&mut self, bql: &Bql<'_>) {
        for handlers in self.live() {
            handlers.save_cleanup(bql);
        }
    }

    /// Frees what loading took: `load_cleanup` of all.
    pub fn load_cleanup(&mut self, bql: &Bql<'_>) {
        for handlers in self.live() {
            handlers.load_cleanup(bql);
        }
        for entry in &mut self.entries {
            entry.loaded = None;
        }
    }

    /// Takes out the entries whose state goes on coming when the guest runs ([`SaveVmHandlers::has_postcopy`]): another thread
    /// loads them, while this registry loads the rest. [`rejoin`](Self::rejoin) puts them back.
    #[must_use]
    pub fn split_postcopy(&mut self) -> Self {
        let late = |entry: &mut Entry| match &entry.state {
            State::Live(handlers) => handlers.has_postcopy(),
            State::Described(_) => false,
        };
        Self {
            entries: self.entries.extract_if(.., late).collect(),
            next: self.next,
            blockers: Vec::new(),
        }
    }

    /// Puts entries back that were taken out.
    pub fn rejoin(&mut self, split: Self) {
        self.entries.extend(split.entries);
        // Larger priorities first, then as registered.
        self.entries
            .sort_by_key(|entry| (std::cmp::Reverse(entry.priority), entry.section_id.0));
    }

    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    fn live(&mut self) -> impl Iterator<Item = &mut Box<dyn SaveVmHandlers>> {
        self.entries
            .iter_mut()
            .filter_map(|entry| match &mut entry.state {
                State::Live(handlers) => Some(handlers),
                State::Described(_) => None,
            })
    }

    /// Who loads the section with this header. A START or FULL is remembered for the PARTs and the END that follow. A newer
    /// version than the entry's is refused, unless it says that it is `readable_from` the entry's on.
    pub(crate) fn owner(
        &mut self,
        header: &SectionHeader,
        readable_from: Option<u32>,
    ) -> Result<&mut Entry, LookupError> {
        let found = self.entries.iter_mut().find(|entry| {
            if header.kind.names_owner() {
                entry.takes(&header.idstr, header.instance_id)
            } else {
                entry.loaded.map(|(id, _)| id) == Some(header.section_id)
            }
        });
        let Some(entry) = found else {
            return Err(LookupError::Unknown {
                idstr: header.idstr.clone(),
                instance_id: header.instance_id,
            });
        };
        let readable = readable_from.is_some_and(|from| from <= entry.version.0);
        if header.version_id > entry.version && !readable {
            return Err(LookupError::Newer {
                idstr: header.idstr.clone(),
                instance_id: header.instance_id,
                found: header.version_id,
                known: entry.version,
            });
        }
        entry.loaded = Some((header.section_id, header.version_id));
        Ok(entry)
    }

    /// The instance id that a new entry gets.
    fn instance(&self, idstr: &IdStr, wanted: InstanceId) -> Result<InstanceId, RegistryError> {
        if wanted == ANY_INSTANCE {
            return self.next_instance(idstr);
        }
        let taken = |entry: &Entry| &entry.idstr == idstr && entry.instance_id == wanted;
        if self.entries.iter().any(taken) {
            return Err(RegistryError::Duplicate {
                idstr: idstr.clone(),
                instance_id: wanted,
            });
        }
        Ok(wanted)
    }

    /// One more than the largest of that name.
    fn next_instance(&self, idstr: &IdStr) -> Result<InstanceId, RegistryError> {
        let of_name = |entry: &Entry| (&entry.idstr == idstr).then_some(entry.instance_id);
        next_after(self.entries.iter().filter_map(of_name).max(), idstr)
    }

    /// One more than the largest among the devices that had that name before they had a path.
    fn next_old_instance(&self, idstr: &IdStr) -> Result<InstanceId, RegistryError> {
        let of_name = |entry: &Entry| {
            let old = entry.compat.as_ref();
            old.filter(|(name, _)| name == idstr).map(|(_, id)| *id)
        };
        next_after(self.entries.iter().filter_map(of_name).max(), idstr)
    }

    /// The next section id. Stock QEMU takes the later pieces of an iterative section with id 0 for somebody else's.
    fn section_id(&mut self, idstr: &IdStr, iterative: bool) -> Result<SectionId, RegistryError> {
        let id = self.next.max(iterative.into());
        self.next = id
            .checked_add(1)
            .ok_or_else(|| RegistryError::Exhausted(idstr.clone()))?;
        Ok(SectionId(id))
    }

    fn insert(&mut self, entry: Entry) -> Result<SectionId, RegistryError> {
        let id = entry.section_id;
        let at = self
            .entries
            .iter()
            .position(|other| other.priority < entry.priority)
            .unwrap_or(self.entries.len());
        self.entries.insert(at, entry);
        Ok(id)
    }
}

fn next_after(largest: Option<InstanceId>, idstr: &IdStr) -> Result<InstanceId, RegistryError> {
    let next = largest.map_or(Some(0), |largest| largest.0.checked_add(1));
    next.map(InstanceId)
        .filter(|id| *id != ANY_INSTANCE)
        .ok_or_else(|| RegistryError::Exhausted(idstr.clone()))
}
