//! Plain states: from QEMU's encoding of a whole struct to its value and back, by a plan that is made of the description once.
//!
//! A plain state ([`plain_size`](vmstate_desc::SaveState::plain_size)) gives and takes its bytes in straight-line code. What is
//! left to do is a loop over numbers of known widths, without engine, accessors and names. The values are those of the walk;
//! whatever is odd about a value is left to the walk, which has the words for it.

mod cache;
mod get;
mod put;
mod room;

use vmstate_desc::{
    Codec, Description, Element, Field, Pointers, Repeat, ScalarType, Size, ValueCheck,
};

use super::known::Integer;
use super::same::is_same;
use crate::limits::MAX_DEPTH;
use crate::types::{FieldDef, Kind, Repeat as TypeRepeat, TypeIndex, TypeTable, kind_of};

pub(crate) use cache::Plans;

/// Bytes behind a plain state that the loops may touch: they take and put words of 64 bits, of which they mean the first
/// bytes.
pub(super) const SPARE: usize = 8;

/// How the bytes of a plain struct become values.
#[derive(Debug)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    /// Bytes in QEMU's encoding.
    size: usize,
    /// How deep it is: 1 without embedded structs.
    depth: usize,
}

#[derive(Debug)]
enum Step {
    Integer(&'static Integer),
    Bool,
    Double,
    /// An array or a buffer of so many bytes.
    Octets(usize),
    /// So many unused bytes.
    Pad(usize),
    Struct(Box<Plan>),
    /// So many structs.
    List(Box<(usize, Plan)>),
}

impl Plan {
    /// Bytes in QEMU's encoding.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// How deep it is: 1 without embedded structs.
    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    /// The plan of a description. `None`: not all of it is plain.
    pub(super) fn of(d: &Description) -> Option<Self> {
        Maker { types: None }.plan(d, None, 0)
    }

    /// The plan of a description for values of a type that says the same. `None`: something differs, or is not plain.
    pub(super) fn of_type(types: &TypeTable, ty: TypeIndex, d: &Description) -> Option<Self> {
        Maker { types: Some(types) }.plan(d, Some(ty), 0)
    }

    fn push(&mut self, step: Step, size: usize) -> Option<()> {
        self.size = self.size.checked_add(size)?;
        self.steps.push(step);
        Some(())
    }
}

/// Makes plans: of descriptions alone, or where types say the same.
struct Maker<'t> {
    types: Option<&'t TypeTable>,
}

impl Maker<'_> {
    fn plan(&self, d: &Description, ty: Option<TypeIndex>, depth: u32) -> Option<Plan> {
        if depth >= MAX_DEPTH || !d.subsections().is_empty() {
            return None;
        }
        let ty = match (self.types, ty) {
            (Some(types), Some(ty)) => Some(types.get(ty)?),
            _ => None,
        };
        if let Some(ty) = ty
            && (ty.version != d.version_id || ty.fields.len() != d.fields().len())
        {
            return None;
        }
        let mut plan = Plan {
            steps: Vec::with_capacity(d.fields().len()),
            size: 0,
            depth: 1,
        };
        for (number, field) in d.fields().iter().enumerate() {
            let def = match ty {
                Some(ty) => Some(ty.fields.get(number)?),
                None => None,
            };
            if !is_always_there(field, d.version_id) || def.is_some_and(|def| !says(def, field)) {
                return None;
            }
            self.field(&mut plan, field, def, depth)?;
        }
        Some(plan)
    }

    fn field(
        &self,
        plan: &mut Plan,
        field: &Field,
        def: Option<&FieldDef>,
        depth: u32,
    ) -> Option<()> {
        let count = match field.repeat {
            Repeat::Single => None,
            Repeat::Array(n) => Some(n as usize),
            _ => return None,
        };
        match &field.element {
            Element::Value(codec) => value(plan, codec, count),
            Element::Struct(child) => {
                let ty = match (self.types, def) {
                    (Some(types), Some(def)) => Some(types.find(def.ty?)?),
                    _ => None,
                };
                let child = self.plan(child, ty, depth.saturating_add(1))?;
                plan.depth = plan.depth.max(child.depth.saturating_add(1));
                match count {
                    None => {
                        let size = child.size;
                        plan.push(Step::Struct(Box::new(child)), size)
                    }
                    Some(count) => {
                        let size = child.size.checked_mul(count)?;
                        plan.push(Step::List(Box::new((count, child))), size)
                    }
                }
            }
            _ => None,
        }
    }
}

/// The step of values with this codec.
fn value(plan: &mut Plan, codec: &Codec, count: Option<usize>) -> Option<()> {
    if codec.value_check() != ValueCheck::None {
        return None;
    }
    match (codec, count) {
        (Codec::Unused(size), count) => {
            let size = (*size as usize).checked_mul(count.unwrap_or(1))?;
            return plan.push(Step::Pad(size), size);
        }
        (Codec::Buffer(Size::Fixed(size)), None) => {
            let size = *size as usize;
            return plan.push(Step::Octets(size), size);
        }
        // Bytes in another order than the others'.
        (Codec::LittleEndian(_), _) => return None,
        _ => {}
    }
    let ty = codec.scalar_type()?;
    if let Some(count) = count {
        let size = ty.size().checked_mul(count)?;
        return plan.push(Step::Octets(size), size);
    }
    match ty {
        ScalarType::Bool => plan.push(Step::Bool, 1),
        ScalarType::F64 => plan.push(Step::Double, 8),
        ty => {
            let integer = Integer::of(ty)?;
            plan.push(Step::Integer(integer), integer.size())
        }
    }
}

/// Whether the field has a value in every state of this version.
pub(super) fn is_always_there(field: &Field, version: u32) -> bool {
    !field.conditional
        && !field.must_exist
        && field.until.is_none()
        && field.version_id <= version
        && field.pointers == Pointers::No
}

/// Whether the writer's field is this end's, in all that matters to its values.
pub(super) fn says(def: &FieldDef, field: &Field) -> bool {
    let repeat = match field.repeat {
        Repeat::Single => None,
        Repeat::Array(n) => Some(TypeRepeat::Fixed(n)),
        _ => return false,
    };
    let kind = match &field.element {
        Element::Value(codec) => kind_of(codec),
        _ => Kind::Struct,
    };
    let size = match &field.element {
        Element::Value(Codec::Unused(size) | Codec::Buffer(Size::Fixed(size))) => Some(*size),
        Element::Value(codec) if matches!(kind, Kind::Uint | Kind::Int) => codec
            .scalar_type()
            .and_then(|ty| u32::try_from(ty.size()).ok()),
        _ => def.size,
    };
    is_same(def.name.as_bytes(), field.name.as_bytes())
        && def.kind == kind
        && def.size == size
        && def.repeat == repeat
        && def.nullable.is_none()
        && def.pinned.is_none()
        && def.variants.is_none()
}

#[cfg(test)]
mod tests;
