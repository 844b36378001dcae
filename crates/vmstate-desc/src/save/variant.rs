//! Saving a variant: the state of one case.

use super::{Saver, disagree};
use crate::codec::Scalar;
use crate::description::DescriptionRef;
use crate::error::{Error, ErrorKind};
use crate::slice::Slice;
use crate::state::{SaveField, SaveState};
use crate::variants::Variants;
use crate::visit::{FieldCx, Role, SaveVisitor};

impl<V: SaveVisitor + ?Sized> Saver<'_, V> {
    /// Apart from all other fields, which have nothing to remember about cases.
    #[cold]
    #[inline(never)]
    pub(super) fn variant(
        &mut self,
        variants: &Variants,
        state: &dyn SaveState,
        cx: FieldCx<'_>,
    ) -> Result<(), Error> {
        let (value, case) = variants.chosen(state, cx.index)?;
        let mut sink = CaseSink {
            saver: self,
            cx,
            variants,
            value,
            case,
            done: false,
        };
        state.save_field(cx.index, &mut sink)?;
        if !sink.done {
            return Err(disagree(cx.field, "no case"));
        }
        self.visitor.end_field(cx)
    }
}

struct CaseSink<'s, 'v, 'c, V: ?Sized> {
    saver: &'s mut Saver<'v, V>,
    cx: FieldCx<'c>,
    variants: &'c Variants,
    value: i64,
    case: &'c DescriptionRef,
    done: bool,
}

impl<V: SaveVisitor + ?Sized> SaveField for CaseSink<'_, '_, '_, V> {
    fn count(&self) -> usize {
        1
    }

    fn child(&mut self, state: &dyn SaveState) -> Result<(), Error> {
        if std::mem::replace(&mut self.done, true) {
            return Err(disagree(self.cx.field, "two cases"));
        }
        let d = state.description();
        self.variants.expect(self.value, self.case, &d)?;
        let role = Role::Case {
            cx: self.cx,
            value: self.value,
        };
        self.saver.description(&d, d.version_id, state, role)
    }

    fn slot(&mut self, present: bool) -> Result<(), Error> {
        if present {
            return Ok(());
        }
        Err(ErrorKind::Hole {
            expected: "a case",
            found: "none",
        }
        .into())
    }

    fn scalar(&mut self, value: Scalar) -> Result<(), Error> {
        Err(disagree(self.cx.field, value.scalar_type().name()))
    }

    fn scalars(&mut self, values: Slice<'_>) -> Result<(), Error> {
        Err(disagree(self.cx.field, values.scalar_type().name()))
    }

    fn list(&mut self, _len: usize) -> Result<(), Error> {
        Err(disagree(self.cx.field, "a list"))
    }

    fn direct_key(&mut self, _key: u64) -> Result<(), Error> {
        Err(disagree(self.cx.field, "an integer key"))
    }

    fn key(&mut self, _key: &dyn SaveState) -> Result<(), Error> {
        Err(disagree(self.cx.field, "a key object"))
    }

    fn raw(&mut self, _bytes: &[u8]) -> Result<(), Error> {
        Err(disagree(self.cx.field, "raw bytes"))
    }
}
