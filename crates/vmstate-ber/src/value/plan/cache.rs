//! Which descriptions have a plan.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use vmstate_desc::Description;

use super::Plan;
use crate::types::{TypeIndex, TypeTable};

/// Plans by the address of a description that is compiled in, and by the writer's type where there is one.
///
/// Making a plan takes as long as a walk: it is made when a description comes a second time.
#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<HashMap<(usize, Option<TypeIndex>), Known>>);

#[derive(Debug)]
enum Known {
    /// It has come once.
    Seen,
    Made(Option<Arc<Plan>>),
}

impl Plans {
    /// The plan for saving, if it is worth while and there is one.
    pub(crate) fn to_save(&self, d: &'static Description) -> Option<Arc<Plan>> {
        self.get((address(d), None), || Plan::of(d))
    }

    /// The plan for loading values of the type `ty`.
    pub(crate) fn to_load(
        &self,
        types: &TypeTable,
        ty: TypeIndex,
        d: &'static Description,
    ) -> Option<Arc<Plan>> {
        self.get((address(d), Some(ty)), || Plan::of_type(types, ty, d))
    }

    fn get(
        &self,
        key: (usize, Option<TypeIndex>),
        make: impl FnOnce() -> Option<Plan>,
    ) -> Option<Arc<Plan>> {
        let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match plans.get_mut(&key) {
            None => {
                plans.insert(key, Known::Seen);
                None
            }
            Some(Known::Made(plan)) => plan.clone(),
            Some(known) => {
                let plan = make().map(Arc::new);
                *known = Known::Made(plan.clone());
                plan
            }
        }
    }
}

fn address(d: &'static Description) -> usize {
    std::ptr::from_ref(d).addr()
}

#[cfg(test)]
impl Plans {
    /// From now on there is none for this description.
    pub(super) fn forbid(&self, d: &'static Description, ty: Option<TypeIndex>) {
        let mut plans = self.0.lock().unwrap();
        plans.insert((address(d), ty), Known::Made(None));
    }

    /// Whether one has been made.
    pub(super) fn has(&self, d: &'static Description, ty: Option<TypeIndex>) -> bool {
        let plans = self.0.lock().unwrap();
        matches!(plans.get(&(address(d), ty)), Some(Known::Made(Some(_))))
    }
}
