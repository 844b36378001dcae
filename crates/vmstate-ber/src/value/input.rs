//! The decoder of values.

mod case;
mod moved;
mod open;
mod plain;
#[cfg(test)]
mod tests;

use vmstate_desc::{
    Description, DescriptionRef, Element, Error, ErrorKind, FieldCx, Gate, LoadVisitor, Pointers,
    Role, ScalarType, SliceMut, Slot,
};

use super::fit::{fit, incompatible};
use super::list::ListReader;
use super::scalar::{Octets, decode_scalar};
use super::take::Fields;
use super::{Form, Warning, Warnings, value_tag};
use crate::der::{Tlv, tag};
use crate::error::{BerError, BerErrorKind};
use crate::limits::MAX_DEPTH;
use crate::types::{TypeDef, TypeIndex, TypeTable};
pub(super) use open::Bits;
use open::{OpenField, OpenList, OpenStruct, Opened, next_chunk};
use plain::Plain;

/// Decodes device state: a visitor for the traversal of `vmstate-desc`.
///
/// The writer's types say what its values are; fields are found by their names. What this end does not know is refused,
/// unless the writer said that it may be dropped.
#[derive(Debug)]
pub struct BerIn<'a> {
    types: &'a TypeTable,
    root: TypeIndex,
    value: Tlv<'a>,
    structs: Vec<OpenStruct<'a>>,
    fields: Vec<OpenField<'a>>,
    /// The field that is one scalar, in the usual case.
    scalar: Option<Bits>,
    /// The subsection that was announced.
    subsection: Option<(TypeIndex, u32, Tlv<'a>)>,
    warnings: Warnings,
    plain: Plain<'a>,
}

fn ended(offset: u64) -> Error {
    Error::format("the value has fewer elements than are needed").at_offset(offset)
}

impl<'a> BerIn<'a> {
    /// A decoder of one value: a SEQUENCE of type `root`, with its offset in the stream.
    #[must_use]
    pub const fn new(types: &'a TypeTable, root: TypeIndex, value: Tlv<'a>) -> Self {
        Self {
            types,
            root,
            value,
            structs: Vec::new(),
            fields: Vec::new(),
            scalar: None,
            subsection: None,
            warnings: Warnings {
                first: Vec::new(),
                count: 0,
            },
            plain: Plain::new(),
        }
    }

    /// What was adapted.
    #[must_use]
    pub const fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// The version to load with where the writer's is `version`: this end's own, if the writer's newer type allows it.
    #[must_use]
    pub fn version_in_force(ty: &TypeDef, version: u32, own: u32) -> u32 {
        match ty.readable_from {
            Some(from) if version > own && from <= own => own,
            _ => version,
        }
    }

    fn warn(&mut self, rule: &'static str, path: impl FnOnce() -> String, offset: u64) {
        self.warnings.push(|| Warning {
            rule,
            path: path(),
            offset,
        });
    }

    #[inline(never)]
    fn end_field_of_many(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        let (over, offset) = match self.fields.pop() {
            Some(OpenField::Octets(octets)) => (octets.is_over(), octets.offset()),
            Some(OpenField::List(open)) => (
                open.list.is_over() && open.octets.is_none_or(|octets| octets.is_over()),
                open.list.offset(),
            ),
            Some(OpenField::Custom { octets, items }) => (
                octets.is_over() && items.is_none_or(|items| items.is_empty()),
                octets.offset(),
            ),
            _ => return Ok(()),
        };
        if over {
            return Ok(());
        }
        let found = format!("more than this end's {} elements", cx.count);
        Err(incompatible("E-COUNT", "the end of the field", found).at_offset(offset))
    }

    /// `by_ref`: the description once more, if it can be known again.
    fn begin_any(
        &mut self,
        d: &Description,
        by_ref: Option<&DescriptionRef>,
        version: u32,
        role: Role<'_>,
    ) -> Result<u32, Error> {
        if self.plain.ready.is_some() {
            self.walk_ready();
        }
        if let (Some(OpenField::Flat), Role::Element { cx, .. }) = (self.fields.last(), role) {
            return self.begin_flat(version, cx.field);
        }
        let source = match self.plain.ahead.take() {
            Some(source) => source,
            None => self.source(version, role),
        };
        let (index, writer, value) = source.map_err(BerError::into_state)?;
        if value.tag != tag::SEQUENCE {
            let (expected, found) = ("a struct", value.tag);
            return Err(BerErrorKind::Tag { expected, found }
                .at(value.offset)
                .into_state());
        }
        if self.structs.len() >= MAX_DEPTH as usize {
            return Err(Error::new(ErrorKind::TooDeep { limit: MAX_DEPTH }).at_offset(value.offset));
        }
        let types = self.types;
        let Some(ty) = types.get(index) else {
            return Err(BerErrorKind::UnknownType { id: 0 }
                .at(value.offset)
                .into_state());
        };
        let known = match by_ref {
            Some(d) => self.find_out(d, role, index, ty, writer),
            None => &[],
        };
        self.structs.push(OpenStruct {
            known,
            ty,
            version: writer,
            fields: Fields::new(&value),
            odd: None,
        });
        Ok(Self::version_in_force(ty, writer, d.version_id))
    }

    /// A field that comes next, whatever it is.
    #[inline(never)]
    fn field_of_any_kind(&mut self, cx: FieldCx<'_>, exists: bool) -> Result<Gate, Error> {
        if exists && self.take_plain(cx.index, cx.field) {
            return Ok(Gate::Visit);
        }
        let (value, def) = match self.open(cx, exists)? {
            Opened::Value(value, def) => (value, def),
            Opened::Spread => {
                self.fields.push(OpenField::Flat);
                return Ok(Gate::Visit);
            }
            Opened::Absent => return Ok(Gate::Skip),
        };
        let form = Form::of(cx.field);
        fit(def, cx.field, form).map_err(|e| e.at_offset(value.offset))?;
        let wrong = |expected| {
            let found = value.tag;
            BerErrorKind::Tag { expected, found }
                .at(value.offset)
                .into_state()
        };
        let open = match form {
            Form::Scalar => OpenField::Scalar(value, def),
            Form::Packed => OpenField::Octets(Self::octets(&value, def, cx, true)?),
            Form::Bytes => OpenField::Octets(Self::octets(&value, def, cx, false)?),
            Form::Pad => {
                if def.kind == crate::types::Kind::Pad && value.whole != [tag::OCTETS, 0] {
                    return Err(wrong("unused bytes, an empty octet string"));
                }
                OpenField::Pad
            }
            Form::Struct | Form::Case => OpenField::Struct(value, def),
            Form::List if value.tag == value_tag::LIST => {
                OpenField::List(Box::new(OpenList::new(&value, def)))
            }
            Form::List => return Err(wrong("a list")),
            Form::Custom if value.tag == value_tag::LIST => {
                let mut items = value.reader();
                let octets = next_chunk(&mut items).map_err(BerError::into_state)?;
                if items.is_empty() {
                    return Err(wrong("a custom codec's bytes"));
                }
                OpenField::Custom {
                    octets,
                    items: Some(items),
                }
            }
            Form::Custom => OpenField::Custom {
                octets: Self::octets(&value, def, cx, false)?,
                items: None,
            },
        };
        self.fields.push(open);
        Ok(Gate::Visit)
    }
}

impl LoadVisitor for BerIn<'_> {
    #[inline]
    fn begin(&mut self, d: &Description, version: u32, role: Role<'_>) -> Result<u32, Error> {
        self.begin_any(d, None, version, role)
    }

    #[inline]
    fn begin_ref(
        &mut self,
        d: &DescriptionRef,
        version: u32,
        role: Role<'_>,
    ) -> Result<u32, Error> {
        if let Role::Element { cx, .. } = role
            && let Some(version) = self.begin_usual(d, cx)
        {
            return Ok(version);
        }
        self.begin_any(d, Some(d), version, role)
    }

    fn end(&mut self, _d: &Description, role: Role<'_>) -> Result<(), Error> {
        self.finish_fields()?;
        if let Some(open) = self.structs.last() {
            open.fields.finish().map_err(BerError::into_state)?;
        }
        self.structs.pop();
        if let Role::Element { .. } = role
            && let Some(OpenField::List(open)) = self.fields.last_mut()
            && let Some(node) = open.node.take()
        {
            node.finish().map_err(BerError::into_state)?;
        }
        Ok(())
    }

    #[inline]
    fn field(&mut self, cx: FieldCx<'_>, exists: bool) -> Result<Gate, Error> {
        if exists && let Some(open) = self.structs.last_mut() {
            let taken = match open.known.get(cx.index) {
                Some(known) => open.fields.take_aligned(cx.index, known, &mut self.scalar),
                None => open.fields.take_next(open.ty, cx.field, &mut self.scalar),
            };
            if taken {
                return Ok(Gate::Visit);
            }
        }
        self.field_of_any_kind(anew(cx), exists)
    }

    fn units(&mut self, cx: FieldCx<'_>) -> Result<Option<usize>, Error> {
        match cx.field.resize_max {
            Some(max) => self.open_units(max).map_err(BerError::into_state),
            None => Ok(None),
        }
    }

    #[inline]
    fn end_field(&mut self, cx: FieldCx<'_>) -> Result<(), Error> {
        if self.scalar.take().is_some() {
            return Ok(());
        }
        self.end_field_of_many(anew(cx))
    }

    fn slot(&mut self, cx: FieldCx<'_>, _index: usize, occupied: bool) -> Result<Slot, Error> {
        let here = self.here();
        let Some(OpenField::List(open)) = self.fields.last_mut() else {
            return Err(ended(here));
        };
        let list = &mut open.list;
        let Some(nil) = list.is_nil() else {
            return Err(ended(list.offset()));
        };
        if cx.field.pointers == Pointers::MarkAbsent && nil == occupied {
            let (present, absent) = ("a present element", "an absent element");
            let (expected, found) = if occupied {
                (present, absent)
            } else {
                (absent, present)
            };
            return Err(Error::new(ErrorKind::Hole { expected, found }).at_offset(here));
        }
        if nil {
            if let Some(value) = list.next().map_err(BerError::into_state)? {
                value.null().map_err(BerError::into_state)?;
            }
            return Ok(Slot::Absent);
        }
        Ok(match cx.field.pointers {
            Pointers::MarkEvery => Slot::New,
            _ if occupied => Slot::InPlace,
            _ => Slot::New,
        })
    }

    #[inline]
    fn scalar(&mut self, _cx: FieldCx<'_>, ty: ScalarType) -> Result<u64, Error> {
        if let Some(scalar) = &self.scalar {
            return Ok(scalar.bits);
        }
        let here = self.here();
        match self.fields.last_mut() {
            Some(OpenField::Scalar(value, def)) => decode_scalar(value, def, ty),
            Some(OpenField::Octets(octets) | OpenField::Custom { octets, .. }) => octets.scalar(ty),
            Some(OpenField::List(open)) => match open.list.next().map_err(BerError::into_state)? {
                Some(value) => decode_scalar(&value, open.def, ty),
                None => Err(ended(here)),
            },
            _ => Err(ended(here)),
        }
    }

    fn scalars(&mut self, cx: FieldCx<'_>, mut values: SliceMut<'_>) -> Result<(), Error> {
        match self.fields.last_mut() {
            Some(OpenField::Octets(octets) | OpenField::Custom { octets, .. }) => {
                octets.scalars(values)
            }
            _ => {
                let ty = values.scalar_type();
                for index in 0..values.len() {
                    let bits = self.scalar(cx, ty)?;
                    values.set(index, vmstate_desc::Scalar::from_bits(ty, bits));
                }
                Ok(())
            }
        }
    }

    fn unused(&mut self, _cx: FieldCx<'_>, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    fn raw(&mut self, _cx: FieldCx<'_>, bytes: &mut [u8]) -> Result<(), Error> {
        let here = self.here();
        match self.fields.last_mut() {
            Some(OpenField::Octets(octets) | OpenField::Custom { octets, .. }) => octets.raw(bytes),
            Some(OpenField::List(open)) => {
                // Elements behind pointers come without asking for their length.
                if !std::mem::take(&mut open.fresh)
                    && open.octets.as_ref().is_none_or(Octets::is_over)
                {
                    open.octets = Some(next_octets(&mut open.list, here)?);
                }
                match &mut open.octets {
                    Some(octets) => octets.raw(bytes),
                    None => Err(ended(here)),
                }
            }
            _ => Err(ended(here)),
        }
    }

    fn length(&mut self, _cx: FieldCx<'_>, max: usize) -> Result<usize, Error> {
        let here = self.here();
        let length = match self.fields.last_mut() {
            Some(OpenField::Octets(octets)) => octets.len(),
            Some(OpenField::List(open)) => {
                let next = next_octets(&mut open.list, here)?;
                let length = next.len();
                (open.octets, open.fresh) = (Some(next), true);
                length
            }
            _ => return Err(ended(here)),
        };
        if length <= max {
            return Ok(length);
        }
        Err(Error::new(ErrorKind::OutOfRange {
            what: "length",
            found: length.to_string(),
            minimum: 0,
            maximum: max as u64,
        })
        .at_offset(here))
    }

    fn list(&mut self, _cx: FieldCx<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn item(&mut self, cx: FieldCx<'_>, _index: usize) -> Result<bool, Error> {
        let here = self.here();
        let Some(OpenField::List(open)) = self.fields.last_mut() else {
            return Err(ended(here));
        };
        if open.list.is_over() {
            return Ok(false);
        }
        if matches!(cx.field.element, Element::Tree { .. })
            && let Some(value) = open.list.next().map_err(BerError::into_state)?
        {
            if value.tag != tag::SEQUENCE {
                let (expected, found) = ("a node of a tree", value.tag);
                return Err(BerErrorKind::Tag { expected, found }
                    .at(value.offset)
                    .into_state());
            }
            open.node = Some(value.reader());
        }
        Ok(true)
    }

    fn direct_key(&mut self, _cx: FieldCx<'_>) -> Result<u64, Error> {
        let here = self.here();
        match self.fields.last_mut() {
            Some(OpenField::List(open)) => match &mut open.node {
                Some(node) => node
                    .uint("key of a tree", u64::MAX)
                    .map_err(BerError::into_state),
                None => Err(ended(here)),
            },
            _ => Err(ended(here)),
        }
    }

    fn next_subsection(&mut self, owner: &Description) -> Result<Option<(usize, u32)>, Error> {
        if self.plain.was_taken() {
            return Ok(None);
        }
        if let Some(open) = self.structs.last()
            && open.is_over()
        {
            return Ok(None);
        }
        self.finish_fields()?;
        loop {
            let Some(open) = self.structs.last_mut() else {
                return Ok(None);
            };
            let ty = open.ty;
            let next = open.fields.subsection(ty).map_err(BerError::into_state)?;
            let Some((number, version, value)) = next else {
                return Ok(None);
            };
            let Some(sub) = ty.subs.get(number) else {
                return Ok(None);
            };
            let index = self
                .types
                .by_id(sub.ty, value.offset)
                .map_err(BerError::into_state)?;
            let types = self.types;
            let Some(def) = types.get(index) else {
                return Ok(None);
            };
            if version != def.version {
                return Err(BerErrorKind::NotCanonical(
                    "a subsection has another version than its type",
                )
                .at(value.offset)
                .into_state());
            }
            let known = owner
                .subsections()
                .iter()
                .position(|s| s.name() == def.name);
            if let Some(known) = known {
                let own = owner.subsections().get(known).map_or(0, |s| s.version_id);
                let in_force = Self::version_in_force(def, version, own);
                self.subsection = Some((index, version, value));
                return Ok(Some((known, in_force)));
            }
            if !sub.ignorable {
                let names: Vec<_> = owner.subsections().iter().map(|s| s.name()).collect();
                return Err(Error::new(ErrorKind::UnknownSubsection {
                    owner: owner.name.to_string(),
                    found: def.name.clone(),
                    known: if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    },
                })
                .at_offset(value.offset));
            }
            self.warn(
                "W-UNKNOWN",
                || format!("{}/{}", owner.name, def.name),
                value.offset,
            );
        }
    }

    fn plain(&mut self, d: &'static Description, size: usize, role: Role<'_>) -> Option<&[u8]> {
        self.plain_bytes(d, size, role)
    }

    fn consume_plain(&mut self, _size: usize) {
        self.plain.take();
    }

    fn offset(&self) -> Option<u64> {
        Some(self.here())
    }
}

/// The same once more. What goes to another function has to stand in memory, and this is the copy that does where that is rare.
#[inline(always)]
const fn anew(cx: FieldCx<'_>) -> FieldCx<'_> {
    FieldCx {
        description: cx.description,
        index: cx.index,
        field: cx.field,
        count: cx.count,
    }
}

fn next_octets<'a>(list: &mut ListReader<'a>, here: u64) -> Result<Octets<'a>, Error> {
    match list.next().map_err(BerError::into_state)? {
        Some(value) if value.tag == tag::OCTETS => Ok(Octets::new(&value, None)),
        Some(value) => {
            let (expected, found) = ("an octet string", value.tag);
            Err(BerErrorKind::Tag { expected, found }
                .at(value.offset)
                .into_state())
        }
        None => Err(ended(here)),
    }
}
