//! Arrays of any length that can be made out of nothing.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::error::Error;
use crate::field::Element;
use crate::state::{LoadField, SaveField};
use crate::value::FieldValue;

/// `[T; N]` with a [`Default`], which std's arrays have up to 32 elements only.
///
/// Travels exactly as `[T; N]`. The mirror of an array.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Array<T, const N: usize>(pub [T; N]);

impl<T: Default, const N: usize> Default for Array<T, N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for Array<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T, const N: usize> Deref for Array<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> DerefMut for Array<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T, const N: usize> AsRef<[T]> for Array<T, N> {
    fn as_ref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> IntoIterator for Array<T, N> {
    type Item = T;
    type IntoIter = std::array::IntoIter<T, N>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a Array<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a mut Array<T, N> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut()
    }
}

impl<T, const N: usize> From<[T; N]> for Array<T, N> {
    fn from(values: [T; N]) -> Self {
        Self(values)
    }
}

impl<T: FieldValue, const N: usize> FieldValue for Array<T, N> {
    const ELEMENT: Element = <[T; N]>::ELEMENT;
    const DIMENSIONS: Option<u32> = <[T; N]>::DIMENSIONS;
    const PLAIN: Option<usize> = <[T; N]>::PLAIN;
    const OPEN: bool = <[T; N]>::OPEN;

    #[inline]
    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        self.0.save(sink)
    }

    #[inline]
    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        self.0.load(source)
    }

    #[inline]
    fn put_plain(&self, out: &mut [u8]) {
        self.0.put_plain(out);
    }

    #[inline]
    fn get_plain(&mut self, bytes: &[u8]) -> bool {
        self.0.get_plain(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_an_array() {
        let mut a = Array::<u8, 40>::default();
        a[39] = 7;
        assert_eq!(a.iter().sum::<u8>(), 7);
        assert_eq!(Array::from([1, 2]), Array([1, 2]));
        assert_eq!(format!("{:?}", Array([1, 2])), "[1, 2]");
        assert_eq!(Array([1, 2]).into_iter().rev().collect::<Vec<_>>(), [2, 1]);
        assert_eq!(Array::<Array<u16, 3>, 2>::DIMENSIONS, Some(6));
        assert_eq!(Array::<u16, 3>::PLAIN, Some(6));
    }
}
