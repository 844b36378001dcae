//! Subsections whose fields live in their owner.

use std::ops::{Deref, DerefMut};

use crate::description::{Description, DescriptionRef};
use crate::error::{Error, Reason};
use crate::state::{LoadField, LoadState, SaveField, SaveState};

/// Subsection number `N` of the implementing type, whose fields are fields of that type.
///
/// The methods are those of [`SaveState`] and [`LoadState`], with the owner as `self`.
pub trait Part<const N: usize> {
    /// What the subsection looks like.
    const DESCRIPTION: &'static Description;

    /// As [`SaveState::save_field`].
    ///
    /// # Errors
    /// As there.
    fn save_field(&self, field: usize, sink: &mut dyn SaveField) -> Result<(), Error>;

    /// As [`LoadState::load_field`].
    ///
    /// # Errors
    /// As there.
    fn load_field(&mut self, field: usize, source: &mut dyn LoadField) -> Result<(), Error>;

    /// As [`SaveState::exists`].
    fn exists(&self, field: usize, version: u32) -> bool {
        let _ = (field, version);
        true
    }

    /// As [`SaveState::count`].
    fn count(&self, field: usize) -> Option<i64> {
        let _ = field;
        None
    }

    /// As [`SaveState::is_configured`].
    fn is_configured(&self, field: usize) -> bool {
        let _ = field;
        false
    }

    /// As [`SaveState::needed`].
    fn needed(&self) -> bool {
        true
    }

    /// As [`SaveState::save_subsection`].
    ///
    /// # Errors
    /// As there.
    fn save_subsection(
        &self,
        subsection: usize,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _ = (subsection, visit);
        Ok(())
    }

    /// As [`LoadState::load_subsection`].
    ///
    /// # Errors
    /// As there.
    fn load_subsection(
        &mut self,
        subsection: usize,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _ = (subsection, visit);
        Ok(())
    }

    /// As [`SaveState::pre_save`].
    ///
    /// # Errors
    /// As there.
    fn pre_save(&self) -> Result<(), Reason> {
        Ok(())
    }

    /// As [`SaveState::post_save`].
    fn post_save(&self) {}

    /// As [`LoadState::pre_load`].
    ///
    /// # Errors
    /// As there.
    fn pre_load(&mut self) -> Result<(), Reason> {
        Ok(())
    }

    /// As [`LoadState::post_load`].
    ///
    /// # Errors
    /// As there.
    fn post_load(&mut self, version: u32) -> Result<(), Reason> {
        let _ = version;
        Ok(())
    }
}

/// [`Part`] number `N` of what `P` points to, as a state of its own.
#[derive(Debug)]
pub struct PartOf<P, const N: usize>(pub P);

impl<P: Deref<Target: Part<N>>, const N: usize> SaveState for PartOf<P, N> {
    fn description(&self) -> DescriptionRef {
        DescriptionRef::Static(<P::Target as Part<N>>::DESCRIPTION)
    }

    fn save_field(&self, field: usize, sink: &mut dyn SaveField) -> Result<(), Error> {
        self.0.save_field(field, sink)
    }

    fn exists(&self, field: usize, version: u32) -> bool {
        self.0.exists(field, version)
    }

    fn count(&self, field: usize) -> Option<i64> {
        self.0.count(field)
    }

    fn is_configured(&self, field: usize) -> bool {
        self.0.is_configured(field)
    }

    fn needed(&self) -> bool {
        self.0.needed()
    }

    fn save_subsection(
        &self,
        subsection: usize,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.0.save_subsection(subsection, visit)
    }

    fn pre_save(&self) -> Result<(), Reason> {
        self.0.pre_save()
    }

    fn post_save(&self) {
        self.0.post_save();
    }
}

impl<P: DerefMut<Target: Part<N>>, const N: usize> LoadState for PartOf<P, N> {
    fn load_field(&mut self, field: usize, source: &mut dyn LoadField) -> Result<(), Error> {
        self.0.load_field(field, source)
    }

    fn load_subsection(
        &mut self,
        subsection: usize,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.0.load_subsection(subsection, visit)
    }

    fn pre_load(&mut self) -> Result<(), Reason> {
        self.0.pre_load()
    }

    fn post_load(&mut self, version: u32) -> Result<(), Reason> {
        self.0.post_load(version)
    }
}
