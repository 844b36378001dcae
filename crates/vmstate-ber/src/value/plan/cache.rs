//! Which descriptions have a plan.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use vmstate_desc::Description;

use super::Plan;
use crate::types::{TypeIndex, TypeTable};

/// Plans by the address of a description that is compiled in, and by the writer's type where there is one.
///
/// Making a plan takes as long as a walk: it is made when a description comes a second time.
#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<BTreeMap<Key, Known>>);

/// Address of a description, and the writer's type.
type Key = (usize, Option<TypeIndex>);

#[derive(Debug, Clone)]
enum Known {
    /// It has come once.
    Seen,
    Made(Option<Arc<Plan>>),
}

impl Plans {
    fn get(&self, key: Key, make: impl FnOnce() -> Option<Plan>) -> Known {
        let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match plans.get_mut(&key) {
            None => {
                plans.insert(key, Known::Seen);
                Known::Seen
            }
            Some(Known::Made(plan)) => Known::Made(plan.clone()),
            Some(known) => {
                *known = Known::Made(make().map(Arc::new));
                known.clone()
            }
        }
    }
}

/// Plans that were used last: elements of a list have the same few, one after the other.
#[derive(Debug)]
pub(in crate::value) struct Recent {
    plans: [Option<(Key, Option<Arc<Plan>>)>; Self::MOST],
    /// Which one goes next when another one needs its place.
    oldest: usize,
}

impl Recent {
    const MOST: usize = 4;

    pub(in crate::value) const fn new() -> Self {
        Self {
            plans: [const { None }; Self::MOST],
            oldest: 0,
        }
    }

    /// The plan for saving, if it is worth while and there is one.
    pub(in crate::value) fn for_saving(
        &mut self,
        types: &TypeTable,
        d: &'static Description,
    ) -> Option<&Plan> {
        let key = (address(d), None);
        self.get(key, || types.plans().get(key, || Plan::of(d)))
    }

    /// The plan for loading values of the type `ty`.
    pub(in crate::value) fn for_loading(
        &mut self,
        types: &TypeTable,
        ty: TypeIndex,
        d: &'static Description,
    ) -> Option<&Plan> {
        let key = (address(d), Some(ty));
        let make = || Plan::of_type(types, ty, d);
        self.get(key, || types.plans().get(key, make))
    }

    #[inline]
    fn get(&mut self, key: Key, ask: impl FnOnce() -> Known) -> Option<&Plan> {
        let is_it = |plan: &Option<(Key, _)>| plan.as_ref().is_some_and(|(of, _)| *of == key);
        let at = match self.plans.iter().position(is_it) {
            Some(at) => at,
            None => {
                let Known::Made(plan) = ask() else {
                    return None;
                };
                let at = self.oldest;
                *self.plans.get_mut(at)? = Some((key, plan));
                self.oldest = at.wrapping_add(1) % Self::MOST;
                at
            }
        };
        let (_, plan) = self.plans.get(at)?.as_ref()?;
        plan.as_deref()
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
