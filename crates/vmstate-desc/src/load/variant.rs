//! Loading a variant: the state of the case that the discriminant names.

use super::{Loader, disagree};
use crate::codec::Scalar;
use crate::description::DescriptionRef;
use crate::error::{Error, Reason};
use crate::slice::SliceMut;
use crate::state::{LoadField, LoadState, Slot};
use crate::variants::Variants;
use crate::visit::{FieldCx, LoadVisitor, Role};

impl<V: LoadVisitor + ?Sized> Loader<'_, V> {
    /// Apart from all other fields, which have nothing to remember about cases.
    #[cold]
    #[inline(never)]
    pub(super) fn variant(
        &mut self,
        variants: &Variants,
        state: &mut dyn LoadState,
        cx: FieldCx<'_>,
    ) -> Result<(), Error> {
        let chosen = variants.chosen(state, cx.index);
        let (value, case) = chosen.map_err(|e| self.here(e))?;
        let mut source = CaseSource {
            loader: self,
            cx,
            variants,
            value,
            case,
            done: false,
        };
        state.load_field(cx.index, &mut source)?;
        if !source.done {
            return Err(self.here(disagree(cx.field, "no case")));
        }
        self.visitor.end_field(cx)
    }
}

struct CaseSource<'s, 'v, 'c, V: ?Sized> {
    loader: &'s mut Loader<'v, V>,
    cx: FieldCx<'c>,
    variants: &'c Variants,
    value: i64,
    case: &'c DescriptionRef,
    done: bool,
}

impl<V: ?Sized> CaseSource<'_, '_, '_, V> {
    fn no<T>(&self, found: &'static str) -> Result<T, Error> {
        Err(disagree(self.cx.field, found))
    }
}

impl<V: LoadVisitor + ?Sized> LoadField for CaseSource<'_, '_, '_, V> {
    fn count(&self) -> usize {
        1
    }

    fn case(&self) -> Option<i64> {
        Some(self.value)
    }

    fn more(&mut self, size: usize) -> Result<bool, Error> {
        if !self.done {
            self.loader.reserve(size as u64)?;
        }
        Ok(!self.done)
    }

    fn slot(&mut self, occupied: bool) -> Result<Slot, Error> {
        Ok(if occupied { Slot::InPlace } else { Slot::New })
    }

    fn child(&mut self, state: &mut dyn LoadState) -> Result<(), Error> {
        if std::mem::replace(&mut self.done, true) {
            return self.no("two cases");
        }
        let d = state.description();
        let fits = self.variants.expect(self.value, self.case, &d);
        fits.map_err(|e| self.loader.here(e))?;
        let role = Role::Case {
            cx: self.cx,
            value: self.value,
        };
        self.loader
            .description(&d, d.version_id, state, role)
            .map(drop)
    }

    fn scalar(&mut self, _local: Option<Scalar>) -> Result<Scalar, Error> {
        self.no("a scalar")
    }

    fn scalars(&mut self, _values: SliceMut<'_>) -> Result<(), Error> {
        self.no("scalars")
    }

    fn direct_key(&mut self) -> Result<u64, Error> {
        self.no("an integer key")
    }

    fn key(&mut self, _key: &mut dyn LoadState) -> Result<(), Error> {
        self.no("a key object")
    }

    fn length(&mut self) -> Result<usize, Error> {
        self.no("a length")
    }

    fn raw(&mut self, _bytes: &mut [u8]) -> Result<(), Error> {
        self.no("raw bytes")
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        self.loader.reserve(bytes as u64)
    }

    fn version(&self) -> u32 {
        self.case.version_id
    }

    fn located(&self, e: Error) -> Error {
        self.loader.here(e)
    }

    fn refuse(&self, hook: &'static str, reason: Reason) -> Error {
        self.located(Error::refused(hook, reason))
    }

    fn refuse_field(&self, hook: &'static str, reason: Reason) -> Error {
        self.located(Error::refused(hook, reason))
    }
}
