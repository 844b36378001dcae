//! Structs that are decoded as a whole.

use vmstate_desc::{Description, Element, Role};

use super::BerIn;
use super::open::Source;
use crate::error::BerError;
use crate::limits::MAX_DEPTH;
use crate::value::plan::Recent;

/// A struct that is decoded as a whole.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    /// How.
    plans: Recent,
    /// QEMU's encoding.
    bytes: Vec<u8>,
    /// The struct that comes next, which has been looked at.
    pub(super) ahead: Option<Result<Source<'a>, BerError>>,
    /// The last struct was taken as a whole.
    taken: bool,
}

impl Plain<'_> {
    pub(super) const fn new() -> Self {
        Self {
            plans: Recent::new(),
            bytes: Vec::new(),
            ahead: None,
            taken: false,
        }
    }

    /// The struct that was looked at is used.
    pub(super) fn take(&mut self) {
        self.ahead = None;
        self.taken = true;
    }

    /// Whether the struct whose subsections are asked for was taken as a whole: then it has none.
    pub(super) const fn was_taken(&mut self) -> bool {
        std::mem::replace(&mut self.taken, false)
    }
}

impl<'a> BerIn<'a> {
    /// QEMU's encoding of the struct that comes next.
    pub(super) fn plain_bytes(
        &mut self,
        d: &'static Description,
        size: usize,
        role: Role<'_>,
    ) -> Option<&[u8]> {
        match role {
            Role::Top => {}
            Role::Element { cx, .. } if !matches!(cx.field.element, Element::Tree { .. }) => {}
            _ => return None,
        }
        if matches!(self.fields.last(), Some(super::open::OpenField::Flat)) {
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
        let plan = self.plain.plans.for_loading(self.types, ty, d)?;
        let depth = self.structs.len().saturating_add(plan.depth());
        if depth > MAX_DEPTH as usize {
            return None;
        }
        plan.get(&value, &mut self.plain.bytes)
    }
}
