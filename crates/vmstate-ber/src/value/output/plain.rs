//! Structs that are encoded as a whole.

use vmstate_desc::{Description, Element, Error, Role};

use super::BerOut;
use crate::limits::MAX_DEPTH;
use crate::types::TypeIndex;
use crate::value::plan::SPARE;

/// A struct that is encoded as a whole.
#[derive(Debug)]
pub(super) struct Plain {
    /// The last one's type and description.
    last: Option<(TypeIndex, &'static Description)>,
    /// QEMU's encoding.
    bytes: Vec<u8>,
    /// It is an element, not the root.
    item: bool,
}

impl Plain {
    pub(super) const fn new() -> Self {
        Self {
            last: None,
            bytes: Vec::new(),
            item: false,
        }
    }
}

impl BerOut<'_> {
    /// A place for QEMU's encoding, if there is a plan for what is made of it.
    pub(super) fn plain_place(
        &mut self,
        d: &'static Description,
        size: usize,
        role: Role<'_>,
    ) -> Option<&mut [u8]> {
        let field = match role {
            Role::Top => None,
            Role::Element { cx, .. } if !matches!(cx.field.element, Element::Tree { .. }) => {
                Some(cx)
            }
            _ => return None,
        };
        let ty = match field {
            Some(cx) => self.declared_type(d, d.version_id, cx, false)?,
            None => self.root?,
        };
        let plan = self.types.plan_for_saving(ty, d)?;
        let depth = self.structs.len().saturating_add(plan.depth());
        if plan.size() != size || depth > MAX_DEPTH as usize {
            return None;
        }
        self.plain.last = Some((ty, d));
        self.plain.item = field.is_some();
        let bytes = &mut self.plain.bytes;
        bytes.clear();
        bytes.resize(size.checked_add(SPARE)?, 0);
        bytes.get_mut(..size)
    }

    /// Appends the value of what was put there.
    pub(super) fn put_plain(&mut self) -> Result<(), Error> {
        let item = self.plain.item;
        if item {
            self.begin_item();
        } else {
            self.root = None;
        }
        let plain = &mut self.plain;
        let plan = plain
            .last
            .and_then(|(ty, d)| self.types.plan_for_saving(ty, d));
        let put = plan.and_then(|plan| plan.put(&plain.bytes, self.out));
        if put.is_none() {
            return Err(Error::format("a plain state has fewer bytes than its plan"));
        }
        if item {
            self.end_item();
        }
        Ok(())
    }
}
