//! `Option`, `Box` and tuples.

use super::{InvalidError, ToMigrationState, ToMigrationStateShared, restore_by_phases};

/// The second phase of something that may be replaced, or changed in place.
pub(super) enum Plan<'a, T, C> {
    Replace(&'a mut T, T),
    InPlace(C),
}

impl<T, C: FnOnce()> Plan<'_, T, C> {
    pub(super) fn commit(self) {
        match self {
            Self::Replace(place, value) => *place = value,
            Self::InPlace(commit) => commit(),
        }
    }
}

/// The mirror of something that may not be there.
pub(super) fn snapshot_option<T: ToMigrationState>(
    value: Option<&T>,
    into: &mut Option<T::Migrated>,
) -> Result<(), InvalidError> {
    match value {
        Some(value) => value.snapshot_migration_state(into.get_or_insert_default()),
        None => {
            *into = None;
            Ok(())
        }
    }
}

/// A new value from its mirror, if there is one.
pub(super) fn build_option<T: ToMigrationState + Default>(
    from: Option<T::Migrated>,
    version_id: u32,
) -> Result<Option<T>, InvalidError> {
    from.map(|from| {
        let mut value = T::default();
        value.restore_migrated_state_mut(from, version_id)?;
        Ok(value)
    })
    .transpose()
}

/// What is there on both sides is restored in place, so omitted fields stay.
impl<T: ToMigrationState + Default> ToMigrationState for Option<T> {
    type Migrated = Option<T::Migrated>;

    fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
        snapshot_option(self.as_ref(), into)
    }

    restore_by_phases!(mut);

    fn prepare_restore_mut(
        &mut self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        let plan = match (self, from) {
            (Some(value), Some(from)) => {
                Plan::InPlace(value.prepare_restore_mut(from, version_id)?)
            }
            (place, from) => Plan::Replace(place, build_option(from, version_id)?),
        };
        Ok(move || plan.commit())
    }
}

impl<T: ToMigrationState> ToMigrationState for Box<T> {
    type Migrated = T::Migrated;

    fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
        T::snapshot_migration_state(self, into)
    }

    restore_by_phases!(mut);

    fn prepare_restore_mut(
        &mut self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        T::prepare_restore_mut(self, from, version_id)
    }
}

impl<T: ToMigrationStateShared> ToMigrationStateShared for Box<T> {
    restore_by_phases!(shared);

    fn prepare_restore(
        &self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        T::prepare_restore(self, from, version_id)
    }
}

macro_rules! tuple {
    ($($T:ident $value:ident $number:tt,)*) => {
        impl<$($T: ToMigrationState),*> ToMigrationState for ($($T,)*) {
            type Migrated = ($($T::Migrated,)*);

            fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
                $(
                    self.$number
                        .snapshot_migration_state(&mut into.$number)
                        .map_err(|e| e.in_field(stringify!($number)))?;
                )*
                Ok(())
            }

            restore_by_phases!(mut);

            fn prepare_restore_mut(
                &mut self,
                from: Self::Migrated,
                version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                $(
                    let $value = self.$number
                        .prepare_restore_mut(from.$number, version_id)
                        .map_err(|e| e.in_field(stringify!($number)))?;
                )*
                Ok(move || {
                    $($value();)*
                })
            }
        }

        impl<$($T: ToMigrationStateShared),*> ToMigrationStateShared for ($($T,)*) {
            restore_by_phases!(shared);

            fn prepare_restore(
                &self,
                from: Self::Migrated,
                version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                $(
                    let $value = self.$number
                        .prepare_restore(from.$number, version_id)
                        .map_err(|e| e.in_field(stringify!($number)))?;
                )*
                Ok(move || {
                    $($value();)*
                })
            }
        }
    };
}

tuple!(A a 0,);
tuple!(A a 0, B b 1,);
tuple!(A a 0, B b 1, C c 2,);
tuple!(A a 0, B b 1, C c 2, D d 3,);
tuple!(A a 0, B b 1, C c 2, D d 3, E e 4,);
tuple!(A a 0, B b 1, C c 2, D d 3, E e 4, F f 5,);
tuple!(A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6,);
tuple!(A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6, H h 7,);
