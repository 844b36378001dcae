//! Several values of one type: arrays, `Vec`, boxed slices.

use super::suspend::{checked, suspend};
use super::{Array, InvalidError, ToMigrationState, ToMigrationStateShared, restore_by_phases};

impl<T: ToMigrationState, const N: usize> ToMigrationState for [T; N] {
    type Migrated = Array<T::Migrated, N>;

    fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
        T::snapshot_all(self, into)
    }

    restore_by_phases!(mut);

    fn prepare_restore_mut(
        &mut self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        T::prepare_all_mut(self, from, version_id)
    }
}

impl<T: ToMigrationStateShared, const N: usize> ToMigrationStateShared for [T; N] {
    restore_by_phases!(shared);

    fn prepare_restore(
        &self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        let mut commits = Vec::with_capacity(N);
        for (index, (value, from)) in self.iter().zip(from).enumerate() {
            let commit = value.prepare_restore(from, version_id);
            commits.push(commit.map_err(|e| e.in_element(index))?);
        }
        Ok(move || commits.into_iter().for_each(|commit| commit()))
    }
}

fn snapshot<T: ToMigrationState>(
    values: &[T],
    into: &mut Vec<T::Migrated>,
) -> Result<(), InvalidError> {
    into.resize_with(values.len(), T::Migrated::default);
    T::snapshot_all(values, into)
}

/// New values, as many as `from` has; `first` is the number of the first of them, for errors.
fn build<T: ToMigrationState + Default>(
    from: Vec<T::Migrated>,
    first: usize,
    version_id: u32,
) -> Result<Vec<T>, InvalidError> {
    let mut values = Vec::new();
    values.resize_with(from.len(), T::default);
    for (index, (value, from)) in values.iter_mut().zip(from).enumerate() {
        value
            .restore_migrated_state_mut(from, version_id)
            .map_err(|e| e.in_element(first + index))?;
    }
    Ok(values)
}

/// What both have is restored in place, so omitted fields stay; the rest is new, or goes.
impl<T: ToMigrationState + Default> ToMigrationState for Vec<T> {
    type Migrated = Vec<T::Migrated>;

    fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
        snapshot(self, into)
    }

    restore_by_phases!(mut);

    fn prepare_restore_mut(
        &mut self,
        mut from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        suspend(async move {
            let kept = self.len().min(from.len());
            let grown = build::<T>(from.split_off(kept), kept, version_id)?;
            self.reserve(grown.len());
            let commit = T::prepare_all_mut(self, from, version_id)?;
            checked().await;
            commit();
            self.truncate(kept);
            self.extend(grown);
            Ok(())
        })
    }
}

impl<T: ToMigrationState + Default> ToMigrationState for Box<[T]> {
    type Migrated = Vec<T::Migrated>;

    fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError> {
        snapshot(self, into)
    }

    restore_by_phases!(mut);

    fn prepare_restore_mut(
        &mut self,
        mut from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError> {
        suspend(async move {
            let before = self.len();
            let kept = before.min(from.len());
            let mut grown = build::<T>(from.split_off(kept), kept, version_id)?;
            let commit = T::prepare_all_mut(self, from, version_id)?;
            checked().await;
            commit();
            if kept < before || !grown.is_empty() {
                let mut values = std::mem::take(self).into_vec();
                values.truncate(kept);
                values.append(&mut grown);
                *self = values.into_boxed_slice();
            }
            Ok(())
        })
    }
}
