//! Structs that are decoded as a whole.

use vmstate_desc::{Description, Element, Field, Role};

use super::BerIn;
use super::open::{Bits, OpenField, Source, is_child};
use crate::der::DerReader;
use crate::error::BerError;
use crate::limits::MAX_DEPTH;
use crate::types::FieldDef;
use crate::value::known::{Embedded, Known};

/// A struct that is decoded as a whole.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    /// QEMU's encoding.
    bytes: Vec<u8>,
    /// The struct that comes next, which has been looked at.
    pub(super) ahead: Option<Result<Source<'a>, BerError>>,
    /// The struct of which the bytes are there already: it is the open field's.
    pub(super) ready: Option<Ready<'a>>,
    /// The last struct was taken as a whole.
    taken: bool,
}

/// A struct of which the bytes are there.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    /// The writer's field, and the value.
    def: &'a FieldDef,
    value: DerReader<'a>,
    /// How they were made.
    how: &'a Embedded,
    /// How many bytes there are.
    size: usize,
}

impl Plain<'_> {
    pub(super) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ahead: None,
            ready: None,
            taken: false,
        }
    }

    /// The struct that was looked at is used.
    pub(super) fn take(&mut self) {
        self.ahead = None;
        self.ready = None;
        self.taken = true;
    }

    /// Whether the struct that comes next has been looked at.
    pub(super) const fn is_ahead(&self) -> bool {
        self.ahead.is_some() || self.ready.is_some()
    }

    /// Whether the struct whose subsections are asked for was taken as a whole: then it has none.
    pub(super) const fn was_taken(&mut self) -> bool {
        std::mem::replace(&mut self.taken, false)
    }
}

impl<'a> BerIn<'a> {
    /// Takes the value of field number `index`, if there is a plan for it, in the usual case. `false`: it is not that, and nothing has
    /// happened.
    pub(super) fn take_plain(&mut self, index: usize, field: &Field) -> bool {
        let depth = self.structs.len();
        let Some(open) = self.structs.last_mut() else {
            return false;
        };
        let Some(Known::Struct(how)) = open.known.get(index) else {
            return false;
        };
        let Some(plan) = how.plan(self.types, field) else {
            return false;
        };
        let Some(def) = open.ty.fields.get(index) else {
            return false;
        };
        if depth.saturating_add(plan.depth()) > MAX_DEPTH as usize {
            return false;
        }
        let bytes = &mut self.plain.bytes;
        let Some(value) = open
            .fields
            .take_whole(index, |values| plan.get(values, bytes))
        else {
            return false;
        };
        self.plain.ready = Some(Ready {
            def,
            value,
            how,
            size: plan.size(),
        });
        // The field has been taken: nobody asks for a scalar.
        let offset = open.fields.offset();
        self.scalar = Some(Bits { bits: 0, offset });
        true
    }

    /// The struct whose bytes are there is walked nevertheless.
    #[cold]
    pub(super) fn walk_ready(&mut self) {
        if let Some(mut ready) = self.plain.ready.take()
            && let Ok(value) = ready.value.any()
        {
            ready.how.walk();
            self.scalar = None;
            self.fields.push(OpenField::Struct(value, ready.def));
        }
    }

    /// QEMU's encoding of the struct that comes next.
    pub(super) fn plain_bytes(
        &mut self,
        d: &'static Description,
        size: usize,
        role: Role<'_>,
    ) -> Option<&[u8]> {
        if let Some(ready) = &self.plain.ready {
            let is_it = match role {
                Role::Element { cx, .. } => ready.size == size && is_child(cx, d),
                _ => false,
            };
            if is_it {
                return self.plain.bytes.get(..size);
            }
            self.walk_ready();
        }
        match role {
            Role::Top => {}
            Role::Element { cx, .. } if !matches!(cx.field.element, Element::Tree { .. }) => {}
            _ => return None,
        }
        if matches!(self.fields.last(), Some(OpenField::Flat)) {
            return None;
        }
        let source = match self.plain.ahead.take() {
            Some(source) => source,
            None => self.source(d.version_id, role),
        };
        let made = source
            .as_ref()
            .ok()
            .and_then(|source| self.make_plain(*source, d));
        self.plain.ahead = Some(source);
        made?;
        // Nothing behind them: a byte there would be taken for the begin of a subsection.
        self.plain.bytes.get(..size)
    }

    /// Makes QEMU's encoding, if there is a plan for it and the value is as usual.
    fn make_plain(
        &mut self,
        (ty, version, value): Source<'a>,
        d: &'static Description,
    ) -> Option<()> {
        if version != d.version_id {
            return None;
        }
        let plan = self.types.plan_for_loading(ty, &d.into())?;
        let depth = self.structs.len().saturating_add(plan.depth());
        if depth > MAX_DEPTH as usize {
            return None;
        }
        let rest = plan.get(value.whole, &mut self.plain.bytes)?;
        rest.is_empty().then_some(())
    }
}
