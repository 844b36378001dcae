//! Snapshots: state behind locks and cells, taken out for saving and put back after loading.
//!
//! A device works with *runtime state*: locks, cells, handles, caches. What travels is its *mirror*, plain data with a
//! description. [`ToMigrationState`] leads from one to the other and back; [`Migratable`] joins the two, so that a device's
//! author writes `regs: Migratable<Mutex<Registers>>`, derives [`ToMigrationState`] for the registers, and is done. The derive
//! is in `vmstate-derive`; it makes the mirror, too.
//!
//! | runtime state | mirror | restores through `&self` |
//! |---|---|---|
//! | `bool`, `u8` … `u64`, `i8` … `i64`, `f64`, `String`, [`Timer`](crate::Timer) | the same | |
//! | `usize`, `isize` | `u64`, `i64`; a value that does not fit is refused | |
//! | `u128`, `i128` | `[u64; 2]`, high word first: 16 bytes, big-endian | |
//! | `f32`, `char` | `u32`: the bits, the code point | |
//! | `()`, `PhantomData` | [`Nothing`]: no bytes | yes |
//! | `[T; N]` of any length | [`Array`] of `T`'s mirror | if `T` does |
//! | `Vec<T>`, `Box<[T]>` | `Vec` of `T`'s mirror; the field needs a count and its bound | |
//! | tuples of one to eight | tuple of the mirrors | if all do |
//! | `Option<T>` | `Option` of `T`'s mirror; the field needs to say when it is there | |
//! | `Box<T>` | `T`'s; large arrays are better kept in a `Vec` or boxed slice, since mirrors are passed by value | if `T` does |
//! | [`Cell<T>`](std::cell::Cell), atomics | `T`'s, the integer's | yes |
//! | [`Mutex<T>`](std::sync::Mutex), [`RwLock<T>`](std::sync::RwLock), [`RefCell<T>`](std::cell::RefCell), any [`Guarded`] | `T`'s | yes |
//! | [`Rc<T>`](std::rc::Rc), [`Arc<T>`](std::sync::Arc) | `T`'s | `T` must |
//! | [`OnceCell<T>`](std::cell::OnceCell), [`OnceLock<T>`](std::sync::OnceLock) | `Option` of `T`'s mirror | if `T` does; empty on one side only is refused |
//! | [`Migratable<T>`] | `T`'s | if `T` does |
//!
//! # Two phases
//!
//! A restore happens completely or not at all. First everything is checked: each lock is taken and kept, each value
//! converted, each validator asked. Only then, and without anything left that could fail, is it put into place. The first
//! phase is [`ToMigrationState::prepare_restore_mut`]; what it returns is the second, ready to be called. Dropped instead,
//! it lets go of all locks, and nothing has changed.
//!
//! Locks are taken in the order of the fields, and all of them are held at once. Threads that hold several of a device's locks must
//! take them in that order, too, or be stopped while a state is restored, as they are in a migration. A snapshot holds a lock
//! only while it copies what is in it; locks that must agree with each other belong into one.
//!
//! An implementation by hand needs neither phase: it gives [`ToMigrationState::restore_migrated_state_mut`] alone. What it did is then
//! undone from a snapshot if something else is refused.
//!
//! ```
//! use std::sync::Mutex;
//! use vmstate_desc::snapshot::{InvalidError, ToMigrationState, ToMigrationStateShared};
//!
//! /// A frequency, never 0. Travels as an integer.
//! struct Hertz(u32);
//!
//! impl ToMigrationState for Hertz {
//!     type Migrated = u32;
//!
//!     fn snapshot_migration_state(&self, into: &mut u32) -> Result<(), InvalidError> {
//!         *into = self.0;
//!         Ok(())
//!     }
//!
//!     fn restore_migrated_state_mut(&mut self, from: u32, _version: u32) -> Result<(), InvalidError> {
//!         if from == 0 {
//!             return Err(InvalidError::new("a clock does not stand still").with_value(from));
//!         }
//!         self.0 = from;
//!         Ok(())
//!     }
//! }
//!
//! let clock = Mutex::new(Hertz(100));
//! assert_eq!(*clock.to_migration_state()?, 100);
//! clock.restore_migrated_state(250, 0)?;
//! assert_eq!(clock.lock().unwrap().0, 250);
//!
//! let e = clock.restore_migrated_state(0, 0).unwrap_err();
//! assert_eq!(e.to_string(), "0 is invalid: a clock does not stand still");
//! # Ok::<(), InvalidError>(())
//! ```
//!
//! # Where this differs from QEMU
//!
//! | QEMU 11.1 | here | why |
//! |---|---|---|
//! | a poisoned lock, a borrowed cell: panic | error | a migration that fails can be tried again, a VMM that died cannot |
//! | `InvalidError` is a unit | device, path of the field, value, reason | somebody has to find out |
//! | a failed restore leaves what was done so far | two phases | as above |
//! | two more levels in the trailer, `migratable-wrapper` and a pointer | none: trailers and schemas equal those of the bare mirror | what describes a C device describes the Rust one |
//! | `version_id` is always 1 | the version that came | else it is useless |
//! | `Migrated: VMState` | `Migrated: FieldValue`, which every `VmState` is | the mirror of an `u32` is an `u32` |
//! | the mirror by value; in the proposal by reference | by value, with [`ToMigrationState::restore_from_mut`] by reference | owned buffers need no copy |

mod array;
mod cell;
mod compound;
pub(crate) mod error;
mod guarded;
mod migratable;
mod object;
mod scalar;
mod sequence;
pub(crate) mod suspend;
#[cfg(test)]
mod tests;
mod undo;

pub use array::Array;
pub use error::InvalidError;
pub use guarded::Guarded;
pub use migratable::Migratable;
pub use object::VmStateIf;
pub use scalar::Nothing;

#[doc(hidden)]
pub use guarded::{prepare as prepare_guarded, snapshot as snapshot_guarded};

use crate::value::FieldValue;

/// Runtime state that has a mirror: plain data that travels in its place.
///
/// Derive it (`#[derive(ToMigrationState)]`), or implement it for a type whose conversion is not one of fields. The
/// [module](self) says which types have it already.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no migration state",
    label = "nothing says how `{Self}` travels",
    note = "derive `ToMigrationState` for it, or say what becomes of the field: `#[migration_state(omit)]`, `clone`, `into(T)`, `try_into(T)`"
)]
pub trait ToMigrationState {
    /// The mirror: what travels. Its [`Default`] is what loading begins with, so it decides about fields that older
    /// streams do not have.
    type Migrated: Default + FieldValue;

    /// Writes what must travel into `into`, all of it, whatever was there before.
    ///
    /// Changes nothing. What has to be computed for saving is computed here, into the mirror.
    ///
    /// # Errors
    /// A lock that is poisoned, a cell that is borrowed, a value that has no place in the mirror.
    fn snapshot_migration_state(&self, into: &mut Self::Migrated) -> Result<(), InvalidError>;

    /// Takes over a state that has come with version `version_id`: that of the section or subsection, or for embedded state
    /// the description's own, since nothing else is in the stream.
    ///
    /// # Errors
    /// A state that this end cannot take. It is then as it was before.
    fn restore_migrated_state_mut(
        &mut self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<(), InvalidError>;

    /// The first phase of a restore: takes every lock, converts every value, changes nothing. What it returns is the second
    /// phase, which cannot fail; dropped instead, it leaves everything as it was.
    ///
    /// What is provided restores at once, and undoes that by means of a snapshot when the second phase is dropped. Derived
    /// implementations, and all in this crate, keep to the phases.
    ///
    /// # Errors
    /// As [`ToMigrationState::restore_migrated_state_mut`].
    fn prepare_restore_mut(
        &mut self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError>
    where
        Self: Sized,
    {
        undo::restore_mut(self, from, version_id)
    }

    /// A new mirror with what must travel.
    ///
    /// # Errors
    /// As [`ToMigrationState::snapshot_migration_state`].
    fn to_migration_state(&self) -> Result<Box<Self::Migrated>, InvalidError> {
        let mut mirror = Box::<Self::Migrated>::default();
        self.snapshot_migration_state(&mut mirror)?;
        Ok(mirror)
    }

    /// As [`ToMigrationState::restore_migrated_state_mut`], from a mirror that is still needed.
    ///
    /// # Errors
    /// As [`ToMigrationState::restore_migrated_state_mut`].
    fn restore_from_mut(
        &mut self,
        source: &Self::Migrated,
        version_id: u32,
    ) -> Result<(), InvalidError>
    where
        Self::Migrated: Clone,
    {
        self.restore_migrated_state_mut(source.clone(), version_id)
    }

    /// Snapshots of several, as many as both slices have, in one call where that is faster.
    ///
    /// # Errors
    /// As [`ToMigrationState::snapshot_migration_state`], with the element's number.
    fn snapshot_all(values: &[Self], into: &mut [Self::Migrated]) -> Result<(), InvalidError>
    where
        Self: Sized,
    {
        for (index, (value, into)) in values.iter().zip(into).enumerate() {
            value
                .snapshot_migration_state(into)
                .map_err(|e| e.in_element(index))?;
        }
        Ok(())
    }

    /// The first phase for several, as many as both have, in one call where that is faster.
    ///
    /// # Errors
    /// As [`ToMigrationState::prepare_restore_mut`], with the element's number.
    fn prepare_all_mut<S>(
        values: &mut [Self],
        from: S,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError>
    where
        Self: Sized,
        S: AsRef<[Self::Migrated]> + IntoIterator<Item = Self::Migrated>,
    {
        let mut commits = Vec::with_capacity(values.len());
        for (index, (value, from)) in values.iter_mut().zip(from).enumerate() {
            let commit = value.prepare_restore_mut(from, version_id);
            commits.push(commit.map_err(|e| e.in_element(index))?);
        }
        Ok(move || commits.into_iter().for_each(|commit| commit()))
    }
}

/// Runtime state that can be restored through a shared reference: it has interior mutability.
///
/// That is what a device offers of which there are many references. A wrapper such as [`Mutex`](std::sync::Mutex) implements this trait
/// and needs only [`ToMigrationState`] of its content.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be restored through a shared reference",
    label = "no interior mutability",
    note = "wrap it in a `Mutex`, a `RefCell` or another `Guarded` cell"
)]
pub trait ToMigrationStateShared: ToMigrationState {
    /// As [`ToMigrationState::restore_migrated_state_mut`].
    ///
    /// # Errors
    /// As [`ToMigrationState::restore_migrated_state_mut`], and a lock that is poisoned, a cell that is borrowed.
    fn restore_migrated_state(
        &self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<(), InvalidError>;

    /// As [`ToMigrationState::prepare_restore_mut`].
    ///
    /// # Errors
    /// As [`ToMigrationStateShared::restore_migrated_state`].
    fn prepare_restore(
        &self,
        from: Self::Migrated,
        version_id: u32,
    ) -> Result<impl FnOnce(), InvalidError>
    where
        Self: Sized,
    {
        undo::restore(self, from, version_id)
    }

    /// As [`ToMigrationStateShared::restore_migrated_state`], from a mirror that is still needed.
    ///
    /// # Errors
    /// As [`ToMigrationStateShared::restore_migrated_state`].
    fn restore_from(&self, source: &Self::Migrated, version_id: u32) -> Result<(), InvalidError>
    where
        Self::Migrated: Clone,
    {
        self.restore_migrated_state(source.clone(), version_id)
    }
}

/// `restore_migrated_state_mut` of an implementation that has both phases.
macro_rules! restore_by_phases {
    (mut) => {
        fn restore_migrated_state_mut(
            &mut self,
            from: Self::Migrated,
            version_id: u32,
        ) -> Result<(), $crate::snapshot::InvalidError> {
            let commit = self.prepare_restore_mut(from, version_id)?;
            commit();
            Ok(())
        }
    };
    (shared) => {
        fn restore_migrated_state(
            &self,
            from: Self::Migrated,
            version_id: u32,
        ) -> Result<(), $crate::snapshot::InvalidError> {
            let commit = self.prepare_restore(from, version_id)?;
            commit();
            Ok(())
        }
    };
}
pub(crate) use restore_by_phases;
