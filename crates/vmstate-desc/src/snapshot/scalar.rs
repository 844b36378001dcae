//! Values that are their own mirror, or have a scalar for one.

use std::borrow::Cow;
use std::fmt::Display;
use std::marker::PhantomData;

use super::{Array, InvalidError, ToMigrationState, ToMigrationStateShared, restore_by_phases};
use crate::codec::Codec;
use crate::error::Error;
use crate::field::{Element, Size};
use crate::slice::{Slice, SliceMut};
use crate::state::{LoadField, SaveField};
use crate::value::{FieldValue, Timer};

/// Values that are copied out and in, several at a time.
macro_rules! copied {
    ($($ty:ty)*) => {$(
        impl ToMigrationState for $ty {
            type Migrated = Self;

            #[inline]
            fn snapshot_migration_state(&self, into: &mut Self) -> Result<(), InvalidError> {
                *into = *self;
                Ok(())
            }

            #[inline]
            fn restore_migrated_state_mut(
                &mut self,
                from: Self,
                _version_id: u32,
            ) -> Result<(), InvalidError> {
                *self = from;
                Ok(())
            }

            #[inline]
            fn prepare_restore_mut(
                &mut self,
                from: Self,
                _version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                Ok(move || *self = from)
            }

            fn snapshot_all(values: &[Self], into: &mut [Self]) -> Result<(), InvalidError> {
                copy(values, into);
                Ok(())
            }

            fn prepare_all_mut<S>(
                values: &mut [Self],
                from: S,
                _version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError>
            where
                S: AsRef<[Self]> + IntoIterator<Item = Self>,
            {
                Ok(move || copy(from.as_ref(), values))
            }
        }
    )*};
}

copied!(bool u8 u16 u32 u64 i8 i16 i32 i64 f64 Timer);

/// Copies as many as both have.
fn copy<T: Copy>(from: &[T], to: &mut [T]) {
    let n = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..n), to.get_mut(..n)) {
        to.copy_from_slice(from);
    }
}

/// Values whose mirror is another type: `save` always succeeds, `load` may refuse.
macro_rules! converted {
    ($($ty:ty => $mirror:ty, $save:expr, $load:expr;)*) => {$(
        impl ToMigrationState for $ty {
            type Migrated = $mirror;

            #[inline]
            fn snapshot_migration_state(&self, into: &mut $mirror) -> Result<(), InvalidError> {
                *into = $save(self)?;
                Ok(())
            }

            restore_by_phases!(mut);

            #[inline]
            fn prepare_restore_mut(
                &mut self,
                from: $mirror,
                _version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                let value = $load(from)?;
                Ok(move || *self = value)
            }
        }
    )*};
}

converted! {
    usize => u64, |v: &usize| narrow::<u64, _>(*v), narrow::<usize, u64>;
    isize => i64, |v: &isize| narrow::<i64, _>(*v), narrow::<isize, i64>;
    u128 => Array<u64, 2>, |v: &u128| done(words(*v)), |Array(v)| done(from_words(v));
    i128 => Array<u64, 2>,
        |v: &i128| done(words(v.cast_unsigned())),
        |Array(v)| done(from_words(v).cast_signed());
    f32 => u32, |v: &f32| done(v.to_bits()), |v| done(f32::from_bits(v));
    char => u32, |v: &char| done(u32::from(*v)), character;
    String => String, |v: &String| done(v.clone()), done::<String>;
    Cow<'static, str> => Cow<'static, str>, |v: &Cow<'static, str>| done(v.clone()), done::<Cow<'static, str>>;
}

fn done<T>(value: T) -> Result<T, InvalidError> {
    Ok(value)
}

pub(super) fn narrow<T, F>(value: F) -> Result<T, InvalidError>
where
    T: TryFrom<F, Error: Display>,
    F: Copy + std::fmt::Debug,
{
    T::try_from(value).map_err(|e| InvalidError::new(e.to_string()).with_value(value))
}

/// High word first.
fn words(value: u128) -> Array<u64, 2> {
    let bytes = value.to_be_bytes();
    let (words, _) = bytes.as_chunks::<8>();
    let mut words = words.iter().copied().map(u64::from_be_bytes);
    Array(std::array::from_fn(|_| words.next().unwrap_or(0)))
}

fn from_words([high, low]: [u64; 2]) -> u128 {
    (u128::from(high) << 64) | u128::from(low)
}

fn character(value: u32) -> Result<char, InvalidError> {
    char::from_u32(value)
        .ok_or_else(|| InvalidError::new("not a Unicode scalar value").with_value(value))
}

/// A mirror without content.
///
/// Wire: no bytes; in trailers a `buffer` of size 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nothing;

impl FieldValue for Nothing {
    const ELEMENT: Element = Element::Value(Codec::Buffer(Size::Fixed(0)));
    const PLAIN: Option<usize> = Some(0);

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.scalars(Slice::U8(&[]))
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        source.scalars(SliceMut::U8(&mut []))
    }

    fn get_plain(&mut self, _bytes: &[u8]) -> bool {
        true
    }
}

macro_rules! nothing {
    ($([$($generics:tt)*] $ty:ty;)*) => {$(
        impl $($generics)* ToMigrationState for $ty {
            type Migrated = Nothing;

            fn snapshot_migration_state(&self, into: &mut Nothing) -> Result<(), InvalidError> {
                *into = Nothing;
                Ok(())
            }

            restore_by_phases!(mut);

            fn prepare_restore_mut(
                &mut self,
                _from: Nothing,
                _version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                Ok(|| ())
            }
        }

        impl $($generics)* ToMigrationStateShared for $ty {
            restore_by_phases!(shared);

            fn prepare_restore(
                &self,
                _from: Nothing,
                _version_id: u32,
            ) -> Result<impl FnOnce(), InvalidError> {
                Ok(|| ())
            }
        }
    )*};
}

nothing! {
    [] ();
    [<T: ?Sized>] PhantomData<T>;
}
