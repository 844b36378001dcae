//! Whether a field of the writer's type can be loaded into a field of this end.

use std::borrow::Cow;

use vmstate_desc::{Element, Error, ErrorKind, Field, Pointers, ScalarType, TreeKey};

use super::Form;
use crate::types::{FieldDef, Kind, Repeat};

/// Kinds whose values convert into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Bool,
    Integer,
    Double,
    Other,
}

pub(super) const fn family(kind: Kind) -> Family {
    match kind {
        Kind::Bool => Family::Bool,
        Kind::Uint | Kind::Int | Kind::Timer => Family::Integer,
        Kind::Float | Kind::CpuDouble => Family::Double,
        _ => Family::Other,
    }
}

const fn family_of(ty: ScalarType) -> Family {
    match ty {
        ScalarType::Bool => Family::Bool,
        ScalarType::F64 => Family::Double,
        _ => Family::Integer,
    }
}

/// Octets of one element in an octet string.
pub(super) const fn element_size(def: &FieldDef) -> usize {
    match (def.kind, def.size) {
        (Kind::Uint | Kind::Int, Some(size)) => size as usize,
        (Kind::Timer | Kind::CpuDouble | Kind::Float | Kind::Bitmap, _) => 8,
        _ => 1,
    }
}

/// An error of a rule.
pub(super) fn incompatible(
    rule: &'static str,
    expected: impl Into<Cow<'static, str>>,
    found: impl Into<Cow<'static, str>>,
) -> Error {
    ErrorKind::Incompatible {
        rule,
        expected: expected.into(),
        found: found.into(),
    }
    .into()
}

/// Checks that a value of `def` can be loaded into `field`.
#[inline]
pub(super) fn fit(def: &FieldDef, field: &Field, form: Form) -> Result<(), Error> {
    if fits(def, field, form) {
        return Ok(());
    }
    Err(incompatible("E-KIND", describe(field), def.describe()))
}

#[inline]
pub(super) fn fits(def: &FieldDef, field: &Field, form: Form) -> bool {
    let scalar = match &field.element {
        Element::Value(codec) => codec.scalar_type(),
        _ => None,
    };
    let several = def.repeat.is_some();
    let absent = def.nullable.is_some();
    match (form, scalar) {
        (Form::Pad, _) => true,
        (Form::Scalar, Some(ty)) => !several && !absent && family(def.kind) == family_of(ty),
        (Form::Packed, Some(ty)) => several && !absent && family(def.kind) == family_of(ty),
        (Form::Packed, None) => match kind(field) {
            kind @ (Kind::Bytes | Kind::Bitmap) => def.kind == kind && !is_list_of_bytes(def),
            _ => false,
        },
        (Form::Bytes, _) => def.kind == Kind::Bytes && !is_list_of_bytes(def),
        (Form::Struct, _) => def.kind == Kind::Struct && !several && !absent,
        (Form::Case, _) => def.kind == Kind::Variant && !several && !absent,
        (Form::Custom, _) => def.kind == Kind::Opaque && !absent,
        (Form::List, Some(ty)) => several && absent && family(def.kind) == family_of(ty),
        (Form::List, None) => match &field.element {
            Element::Tree { key, .. } => {
                let keyed = matches!(key, TreeKey::Struct(_));
                def.repeat == Some(Repeat::Tree) && def.key.is_some() == keyed
            }
            Element::Value(_) if field.pointers == Pointers::No => is_list_of_bytes(def),
            Element::Value(_) => def.kind == kind(field) && several && absent,
            _ => def.kind == Kind::Struct && several && def.repeat != Some(Repeat::Tree),
        },
        _ => false,
    }
}

/// Whether the elements are bytes of which each has its own length.
fn is_list_of_bytes(def: &FieldDef) -> bool {
    def.kind == Kind::Bytes && def.repeat.is_some() && def.wire_name.is_some()
}

fn kind(field: &Field) -> Kind {
    match &field.element {
        Element::Value(codec) => crate::types::kind_of(codec),
        Element::Variant(_) => Kind::Variant,
        _ => Kind::Struct,
    }
}

/// A field of this end for people, as [`FieldDef::describe`].
fn describe(field: &Field) -> String {
    let mut def = FieldDef::new("", kind(field));
    if let Element::Value(codec) = &field.element
        && matches!(def.kind, Kind::Uint | Kind::Int)
    {
        let size = codec.scalar_type().map(ScalarType::size);
        def.size = size.and_then(|size| u32::try_from(size).ok());
    }
    def.repeat = match &field.repeat {
        vmstate_desc::Repeat::Single => None,
        vmstate_desc::Repeat::Array(n) => Some(Repeat::Fixed(*n)),
        _ => Some(Repeat::Prefixed(4)),
    };
    def.describe()
}
