//! Arrays of any length that can be made out of nothing.

use std::fmt;
use std::ops::{Deref, DerefMut};

use vmstate_derive::VmState;

/// `[T; N]` with a [`Default`], which std's arrays have up to 32 elements only.
///
/// Travels exactly as `[T; N]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, VmState)]
#[vmstate(transparent)]
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
    type Target = [T; N];

    fn deref(&self) -> &[T; N] {
        &self.0
    }
}

impl<T, const N: usize> DerefMut for Array<T, N> {
    fn deref_mut(&mut self) -> &mut [T; N] {
        &mut self.0
    }
}

impl<T, const N: usize> From<[T; N]> for Array<T, N> {
    fn from(values: [T; N]) -> Self {
        Self(values)
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
    }
}
