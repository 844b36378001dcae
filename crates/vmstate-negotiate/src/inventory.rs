//! What a machine has: its sections, and their types.

use vmstate_ber::BerError;
use vmstate_ber::frame::{CatalogEntry, FieldCount, MachineId, Presence, SectionCounts, manifest};
use vmstate_ber::types::TypeTable;
use vmstate_desc::{Description, DescriptionRef, OwnCount};

use crate::error::bounded;
use crate::negotiation::{MAX_COUNTS, MAX_SECTIONS};

/// A machine's sections cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InventoryError {
    /// Two sections with one name.
    #[error("section {idstr}/{instance} is there twice")]
    Duplicate {
        /// Id string.
        idstr: String,
        /// Instance id.
        instance: u32,
    },
    /// More sections than a peer takes.
    #[error("{0} sections are more than a catalog holds")]
    TooMany(usize),
}

/// A machine's sections with their types, of which its catalog is made.
///
/// ```
/// use vmstate_ber::frame::{MachineId, Presence};
/// use vmstate_desc::{Codec, Description, Field};
/// use vmstate_negotiate::Inventory;
///
/// static RTC: Description =
///     Description::new("rtc", 1, 1).with_fields(const { &[Field::value("year", Codec::Uint16)] });
/// let machine = MachineId {
///     machine_type: "toy".to_owned(),
///     page_bits: 12,
///     arch: "riscv64".to_owned(),
/// };
/// let mut one = Inventory::new(machine.clone());
/// one.add_live("ram", 0, 4, true)?;
/// one.add_described("rtc", 0, (&RTC).into(), Presence::Always)?;
/// // The order in which devices were made does not matter.
/// let mut other = Inventory::new(machine);
/// other.add_described("rtc", 0, (&RTC).into(), Presence::Always)?;
/// other.add_live("ram", 0, 4, true)?;
/// assert_eq!(one.manifest(), other.manifest());
/// # Ok::<(), vmstate_negotiate::InventoryError>(())
/// ```
#[derive(Debug)]
pub struct Inventory {
    machine: MachineId,
    pub(crate) types: TypeTable,
    /// Sorted by id string and instance id.
    pub(crate) sections: Vec<Section>,
}

/// A section of this machine.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) entry: CatalogEntry,
    /// What it looks like. A type that BER cannot say has a description, but no digest.
    pub(crate) description: Option<DescriptionRef>,
    /// Number of its type.
    pub(crate) ty: Option<u32>,
    /// Other names under which it is loaded.
    pub(crate) also: Vec<(String, u32)>,
    /// Numbers of elements from its configuration, sorted by path.
    pub(crate) counts: Vec<OwnCount>,
}

impl Section {
    pub(crate) fn is(&self, idstr: &str, instance: u32) -> bool {
        self.entry.idstr == idstr && self.entry.instance == instance
    }

    pub(crate) fn takes(&self, idstr: &str, instance: u32) -> bool {
        let also = |(name, number): &(String, u32)| name == idstr && *number == instance;
        self.is(idstr, instance) || self.also.iter().any(also)
    }
}

impl Inventory {
    /// A machine without sections.
    #[must_use]
    pub fn new(machine: MachineId) -> Self {
        Self {
            machine,
            types: TypeTable::default(),
            sections: Vec::new(),
        }
    }

    /// Which machine it is.
    #[must_use]
    pub const fn machine(&self) -> &MachineId {
        &self.machine
    }

    /// Adds a section with a description, which travels at the description's version. One whose type BER cannot say travels as
    /// bytes.
    ///
    /// # Errors
    /// [`InventoryError`].
    pub fn add_described(
        &mut self,
        idstr: &str,
        instance: u32,
        description: DescriptionRef,
        presence: Presence,
    ) -> Result<(), InventoryError> {
        let known = self.digest(&description).ok();
        let version = description.version_id;
        let presence = match known {
            Some(_) => presence,
            None => Presence::Opaque,
        };
        let section = self.add(CatalogEntry {
            idstr: idstr.to_owned(),
            instance,
            version,
            presence,
            type_digest: known.map(|(_, digest)| digest),
        })?;
        section.description = Some(description);
        section.ty = known.map(|(id, _)| id);
        Ok(())
    }

    /// Adds a section that handlers write: guest RAM and what else is `iterative`, or bytes in one piece.
    ///
    /// # Errors
    /// [`InventoryError`].
    pub fn add_live(
        &mut self,
        idstr: &str,
        instance: u32,
        version: u32,
        iterative: bool,
    ) -> Result<(), InventoryError> {
        let presence = match iterative {
            true => Presence::Iterative,
            false => Presence::Opaque,
        };
        self.add(CatalogEntry {
            idstr: idstr.to_owned(),
            instance,
            version,
            presence,
            type_digest: None,
        })
        .map(drop)
    }

    /// Says that a section is also loaded under another name: an alias of its instance id, or the name that it had without its path.
    /// Nothing if there is no such section.
    pub fn add_alias(&mut self, of: (&str, u32), idstr: &str, instance: u32) {
        let found = self.sections.iter_mut().find(|s| s.is(of.0, of.1));
        if let Some(section) = found {
            section.also.push((idstr.to_owned(), instance));
        }
    }

    /// Says how many elements a section's fields have by the configuration of this machine. Nothing if there is no such section.
    pub fn set_counts(&mut self, of: (&str, u32), mut counts: Vec<OwnCount>) {
        counts.sort_by(|a, b| a.path.cmp(&b.path));
        counts.dedup_by(|b, a| a.path == b.path);
        let found = self.sections.iter_mut().find(|s| s.is(of.0, of.1));
        if let Some(section) = found {
            section.counts = counts;
        }
    }

    /// Number and digest of a type.
    fn digest(&mut self, description: &Description) -> Result<(u32, [u8; 32]), BerError> {
        let index = self.types.add(description)?;
        let digest = self.types.digest(index)?;
        Ok((self.types.get(index).map_or(0, |ty| ty.id), digest))
    }

    fn add(&mut self, entry: CatalogEntry) -> Result<&mut Section, InventoryError> {
        let found = self.sections.len().saturating_add(1);
        if bounded("sections", found, MAX_SECTIONS).is_err() {
            return Err(InventoryError::TooMany(found));
        }
        let key = |entry: &CatalogEntry| (entry.idstr.clone(), entry.instance);
        let place = self
            .sections
            .binary_search_by_key(&key(&entry), |section| key(&section.entry));
        let Err(place) = place else {
            let (idstr, instance) = key(&entry);
            return Err(InventoryError::Duplicate { idstr, instance });
        };
        let section = Section {
            entry,
            description: None,
            ty: None,
            also: Vec::new(),
            counts: Vec::new(),
        };
        self.sections.insert(place, section);
        self.sections
            .get_mut(place)
            .ok_or(InventoryError::TooMany(found))
    }

    /// The catalog: sorted by id string and instance id.
    #[must_use]
    pub fn catalog(&self) -> Vec<CatalogEntry> {
        self.sections.iter().map(|s| s.entry.clone()).collect()
    }

    /// The numbers of elements that no value will say, sorted by section and path: at most [`MAX_COUNTS`], and of a field whose path
    /// is longer than a name none.
    #[must_use]
    pub fn counts(&self) -> Vec<SectionCounts> {
        let mut left = MAX_COUNTS;
        let of = |section: &Section| {
            let short = |one: &&OwnCount| (1..=255).contains(&one.path.len());
            let told = section.counts.iter().filter(short).take(left);
            let counts: Vec<_> = told
                .map(|one| FieldCount {
                    path: one.path.clone(),
                    number: one.number,
                })
                .collect();
            left = left.saturating_sub(counts.len());
            (!counts.is_empty()).then(|| SectionCounts {
                idstr: section.entry.idstr.clone(),
                instance: section.entry.instance,
                counts,
            })
        };
        self.sections.iter().filter_map(of).collect()
    }

    /// Number of types, those that are embedded included.
    #[must_use]
    pub const fn types(&self) -> usize {
        self.types.len()
    }

    /// Digest of the catalog.
    #[must_use]
    pub fn manifest(&self) -> [u8; 32] {
        manifest(&self.catalog())
    }

    /// Closure digests of all types of sections, each once.
    #[must_use]
    pub fn digests(&self) -> Vec<[u8; 32]> {
        let mut all: Vec<_> = self
            .sections
            .iter()
            .filter_map(|s| s.entry.type_digest)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The number of the type with this digest.
    pub(crate) fn type_id(&self, digest: &[u8; 32]) -> Option<u32> {
        let mut sections = self.sections.iter();
        sections
            .find(|s| s.entry.type_digest.as_ref() == Some(digest))?
            .ty
    }
}
