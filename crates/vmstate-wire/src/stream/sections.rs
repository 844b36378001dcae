//! Which sections a stream has defined so far.

use std::collections::BTreeMap;

use super::error::StreamErrorKind;
use super::types::{SectionHeader, SectionId, SectionKind, SectionName};

/// The sections that a stream has defined: id → owner and version.
///
/// START and FULL define, PART and END look up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SectionTable {
    known: BTreeMap<SectionId, SectionHeader>,
}

impl SectionTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The last START or FULL header with this id.
    #[must_use]
    pub fn get(&self, id: SectionId) -> Option<&SectionHeader> {
        self.known.get(&id)
    }

    /// Number of ids in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All headers, by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = &SectionHeader> {
        self.known.values()
    }

    /// Id and owner of the section with this id.
    pub(super) fn name(&self, id: SectionId) -> Option<SectionName> {
        self.get(id).map(SectionHeader::name)
    }

    /// Enters a START or FULL header. An id may come again for the same owner, also with another
    /// version, which then replaces the one before.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::SectionRedefined`] if the id belongs to another owner,
    /// [`StreamErrorKind::TooManySections`] if the table would have more than `limit` entries.
    pub fn define(&mut self, header: &SectionHeader, limit: usize) -> Result<(), StreamErrorKind> {
        match self.known.get(&header.section_id) {
            Some(known) if !same_owner(known, header) => {
                return Err(StreamErrorKind::SectionRedefined {
                    known: Box::new(known.name()),
                    found: Box::new(header.name()),
                });
            }
            None if self.known.len() >= limit => {
                return Err(StreamErrorKind::TooManySections { limit });
            }
            _ => {}
        }
        self.known.insert(header.section_id, header.clone());
        Ok(())
    }

    /// The header of a PART or END: that of its id's definition, with `kind` put in.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::UnknownSection`] if nothing has defined the id.
    pub fn look_up(
        &self,
        kind: SectionKind,
        section_id: SectionId,
    ) -> Result<SectionHeader, StreamErrorKind> {
        self.get(section_id)
            .map(|known| SectionHeader {
                kind,
                ..known.clone()
            })
            .ok_or(StreamErrorKind::UnknownSection { kind, section_id })
    }

    /// Takes over everything that `other` knows.
    pub(super) fn learn(&mut self, other: &Self) {
        for header in other.iter() {
            self.known.insert(header.section_id, header.clone());
        }
    }
}

fn same_owner(one: &SectionHeader, other: &SectionHeader) -> bool {
    one.idstr == other.idstr && one.instance_id == other.instance_id
}
