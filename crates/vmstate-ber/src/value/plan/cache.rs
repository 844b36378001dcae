//! What is found out once about a type and a description, for all values.

use std::sync::OnceLock;

use vmstate_desc::{Description, DescriptionRef};

use super::Plan;
use crate::types::{TypeIndex, TypeTable};
use crate::value::known::{Known, known_fields};

/// By the type, of the description with which its values come the first time: as a rule there is no other.
#[derive(Debug, Default)]
pub(crate) struct Plans(Vec<OfType>);

#[derive(Debug, Default)]
struct OfType {
    saving: Once<Option<Plan>>,
    loading: Once<Option<Plan>>,
    fields: Once<Box<[Known]>>,
}

/// Something about a description, which is kept, so that no other takes its place.
#[derive(Debug)]
struct Once<T>(OnceLock<(DescriptionRef, T)>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Once<T> {
    #[inline]
    fn get(&self, d: &DescriptionRef, make: impl FnOnce() -> T) -> Option<&T> {
        let (of, made) = self.0.get_or_init(|| (d.clone(), make()));
        std::ptr::eq::<Description>(&**of, &**d).then_some(made)
    }
}

impl Plans {
    /// A type has been added.
    pub(crate) fn add(&mut self) {
        self.0.push(OfType::default());
    }
}

impl TypeTable {
    /// The plan for saving, if there is one.
    #[inline]
    pub(in crate::value) fn plan_for_saving(
        &self,
        ty: TypeIndex,
        d: &'static Description,
    ) -> Option<&Plan> {
        let once = &self.plans().0.get(ty.0)?.saving;
        once.get(&d.into(), || Plan::of(d))?.as_ref()
    }

    /// The plan for loading values of the type `ty`, if there is one.
    #[inline]
    pub(in crate::value) fn plan_for_loading(
        &self,
        ty: TypeIndex,
        d: &DescriptionRef,
    ) -> Option<&Plan> {
        let once = &self.plans().0.get(ty.0)?.loading;
        let make = || Plan::of_type(self, ty, d);
        once.get(d, make)?.as_ref()
    }

    /// What the fields are of values of the type `ty`, if the names are those of the description, in the same order.
    #[inline]
    pub(in crate::value) fn known_fields(&self, ty: TypeIndex, d: &DescriptionRef) -> &[Known] {
        let make = || match self.get(ty) {
            Some(def) => known_fields(self, def, d),
            None => Box::default(),
        };
        let once = self.plans().0.get(ty.0).map(|plans| &plans.fields);
        once.and_then(|once| once.get(d, make))
            .map_or(&[], |known| known)
    }
}

#[cfg(test)]
impl Plans {
    /// From now on there are none for these types: a description has come first that nothing has.
    pub(super) fn forbid(&self) {
        static NOBODY: Description = Description::new("nobody", 0, 0);
        for plans in &self.0 {
            plans.saving.0.set(((&NOBODY).into(), None)).unwrap();
            plans.loading.0.set(((&NOBODY).into(), None)).unwrap();
            let none = ((&NOBODY).into(), Box::default());
            plans.fields.0.set(none).unwrap();
        }
    }

    /// Whether those for saving and loading have been made.
    pub(super) fn has(&self, d: &'static Description, ty: TypeIndex) -> (bool, bool) {
        let is_made = |once: &Once<Option<Plan>>| match once.0.get() {
            Some((of, plan)) => plan.is_some() && std::ptr::eq::<Description>(&**of, d),
            None => false,
        };
        self.0.get(ty.0).map_or((false, false), |plans| {
            (is_made(&plans.saving), is_made(&plans.loading))
        })
    }
}
