//! What is open while a value is read: structs, and fields of more than one scalar.

use vmstate_desc::{Description, DescriptionRef, Element, Error, ErrorKind, FieldCx, Role};

use super::BerIn;
use super::moved::Part;
use crate::der::{DerReader, Tlv, tag};
use crate::error::{BerError, BerErrorKind};
use crate::limits::MAX_DEPTH;
use crate::types::{FieldDef, TypeDef, TypeIndex};
use crate::value::fit::{element_size, incompatible};
use crate::value::known::Known;
use crate::value::list::ListReader;
use crate::value::scalar::Octets;
use crate::value::take::{Fields, absent};
use crate::value::value_tag;

/// A struct that comes: the writer's type and version, and the value.
pub(super) type Source<'a> = (TypeIndex, u32, Tlv<'a>);

/// A struct that is being read.
#[derive(Debug)]
pub(super) struct OpenStruct<'a> {
    pub(super) ty: &'a TypeDef,
    pub(super) version: u32,
    pub(super) fields: Fields<'a>,
    /// What its fields are, if that is known.
    pub(super) known: &'a [Known],
    /// What few structs have.
    pub(super) odd: Option<Box<Odd<'a>>>,
}

/// Of a struct with fields that stand in other structs at the writer.
#[derive(Debug, Default)]
pub(super) struct Odd<'a> {
    /// The writer has no such struct: its fields stand in one around it, and this path leads from there to here.
    pub(super) flat: Option<Vec<String>>,
    /// Structs of the writer of which fields stand here one by one.
    pub(super) parts: Vec<Part<'a>>,
}

/// What comes for a field.
pub(super) enum Opened<'a> {
    Value(Tlv<'a>, &'a FieldDef),
    /// A struct that the writer does not have, while it has its fields.
    Spread,
    Absent,
}

impl OpenStruct<'_> {
    /// Whether all fields have been taken, in order, and nothing follows them.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.fields.is_over(self.ty.fields.len())
    }

    /// The path to here, if the writer has no such struct.
    pub(super) fn flat(&self) -> Option<&[String]> {
        self.odd.as_ref()?.flat.as_deref()
    }
}

/// A scalar that has been read.
#[derive(Debug, Clone, Copy)]
pub(in crate::value) struct Bits {
    /// In this end's type.
    pub(in crate::value) bits: u64,
    /// Where the value stands.
    pub(in crate::value) offset: u64,
}

/// A field that is being read.
#[derive(Debug)]
pub(super) enum OpenField<'a> {
    /// Dropped.
    Pad,
    /// One struct that the writer does not have: its fields stand around it.
    Flat,
    /// One scalar that needs a second look.
    Scalar(Tlv<'a>, &'a FieldDef),
    /// One struct.
    Struct(Tlv<'a>, &'a FieldDef),
    Octets(Octets<'a>),
    List(Box<OpenList<'a>>),
    Custom {
        octets: Octets<'a>,
        /// What follows the octets.
        items: Option<DerReader<'a>>,
    },
}

/// A list that is being read.
#[derive(Debug)]
pub(super) struct OpenList<'a> {
    pub(super) list: ListReader<'a>,
    pub(super) def: &'a FieldDef,
    /// The node of a tree.
    pub(super) node: Option<DerReader<'a>>,
    /// Bytes of the present element.
    pub(super) octets: Option<Octets<'a>>,
    /// Its length has been asked for, and none of its bytes yet: there may be none.
    pub(super) fresh: bool,
    /// The elements' declared type, and the version that values of it have, when the first one has come.
    declared: Option<(&'a TypeDef, u32)>,
    /// What each of their fields is.
    known: &'a [Known],
}

impl<'a> OpenList<'a> {
    pub(super) fn new(value: &Tlv<'a>, def: &'a FieldDef) -> Self {
        Self {
            list: ListReader::new(value),
            def,
            node: None,
            octets: None,
            fresh: false,
            declared: None,
            known: &[],
        }
    }
}

impl<'a> BerIn<'a> {
    /// The value of the struct that begins, with its type and the writer's version.
    pub(super) fn source(&mut self, version: u32, role: Role<'_>) -> Result<Source<'a>, BerError> {
        match role {
            Role::Top => Ok((self.root, version, self.value)),
            Role::Subsection => self
                .subsection
                .take()
                .ok_or_else(|| BerErrorKind::Missing("a subsection").at(self.here())),
            Role::Element { cx, .. } | Role::Key { cx, .. } => {
                let key = matches!(role, Role::Key { .. });
                let here = self.here();
                let tree = matches!(cx.field.element, Element::Tree { .. });
                let (value, def) = match self.fields.last_mut() {
                    Some(OpenField::Struct(value, def)) => (Some(*value), *def),
                    Some(OpenField::List(open)) if tree => (
                        open.node.as_mut().map(DerReader::any).transpose()?,
                        open.def,
                    ),
                    Some(OpenField::List(open)) => (open.list.next()?, open.def),
                    _ => return Err(BerErrorKind::Missing("a struct").at(here)),
                };
                let Some(value) = value else {
                    return Err(BerErrorKind::Missing("an element of a list").at(here));
                };
                let id = if key { def.key } else { def.ty };
                let declared = self.types.by_id(id.unwrap_or(0), value.offset)?;
                let version = match (def.pinned, self.types.get(declared)) {
                    (Some(version), _) => version,
                    (None, Some(ty)) => ty.version,
                    (None, None) => 0,
                };
                self.typed(&value, Some((declared, version)))
            }
            Role::Case { value, .. } => self.case(value),
            _ => {
                let here = self.here();
                let value = match self.fields.last_mut() {
                    Some(OpenField::Custom {
                        octets,
                        items: Some(items),
                    }) if octets.is_over() => {
                        let value = items.expect(value_tag::TYPED, "a struct")?;
                        *octets = next_chunk(items)?;
                        value
                    }
                    _ => return Err(BerErrorKind::Missing("a struct").at(here)),
                };
                self.typed(&value, None)
            }
        }
    }

    /// A struct that is of the declared type, or tells its own.
    pub(super) fn typed(
        &self,
        value: &Tlv<'a>,
        declared: Option<(TypeIndex, u32)>,
    ) -> Result<Source<'a>, BerError> {
        if let (tag::SEQUENCE, Some((ty, version))) = (value.tag, declared) {
            return Ok((ty, version, *value));
        }
        if value.tag != value_tag::TYPED {
            return Err(BerErrorKind::Tag {
                expected: "a struct",
                found: value.tag,
            }
            .at(value.offset));
        }
        let mut inner = value.reader();
        let ty = self
            .types
            .by_id(inner.uint32("type of a struct")?, value.offset)?;
        let version = inner.uint32("version of a struct")?;
        let body = inner.expect(tag::SEQUENCE, "a struct")?;
        inner.finish()?;
        if declared == Some((ty, version)) {
            return Err(
                BerErrorKind::NotCanonical("a struct of the declared type tells its type")
                    .at(value.offset),
            );
        }
        Ok((ty, version, body))
    }

    pub(super) fn here(&self) -> u64 {
        if let Some(scalar) = &self.scalar {
            return scalar.offset;
        }
        match (self.fields.last(), self.structs.last()) {
            (Some(OpenField::Scalar(value, _) | OpenField::Struct(value, _)), _) => value.offset,
            (Some(OpenField::Octets(octets)), _) => octets.offset(),
            (Some(OpenField::List(open)), _) => open.list.offset(),
            (_, Some(open)) => open.fields.offset(),
            _ => self.value.offset,
        }
    }

    /// Opens an element of a list in the usual case: it is of the declared type, like one before it. `None`: it is not that, and
    /// nothing has happened. Otherwise the version in force.
    #[inline]
    pub(super) fn begin_usual(&mut self, d: &Description, cx: FieldCx<'_>) -> Option<u32> {
        if self.plain.is_ahead() || self.structs.len() >= MAX_DEPTH as usize {
            return None;
        }
        let Some(OpenField::List(open)) = self.fields.last_mut() else {
            return None;
        };
        let (ty, version) = open.declared?;
        if !is_child(cx, d) {
            return None;
        }
        let value = open.list.next_usual(tag::SEQUENCE)?;
        self.structs.push(OpenStruct {
            ty,
            version,
            fields: Fields::new(&value),
            known: open.known,
            odd: None,
        });
        Some(Self::version_in_force(ty, version, d.version_id))
    }

    /// Finds out what the fields of a struct of this type are; where it is an element of a list, for those behind it too.
    pub(super) fn find_out(
        &mut self,
        d: &DescriptionRef,
        role: Role<'_>,
        index: TypeIndex,
        ty: &'a TypeDef,
        version: u32,
    ) -> &'a [Known] {
        let types = self.types;
        if let (Some(OpenField::List(open)), Role::Element { cx, .. }) =
            (self.fields.last_mut(), role)
            && open.def.ty == Some(ty.id)
            && version == open.def.pinned.unwrap_or(ty.version)
            && is_child(cx, d)
        {
            if open.declared.is_none() {
                open.declared = Some((ty, version));
                open.known = types.known_fields(index, d);
            }
            return open.known;
        }
        types.known_fields(index, d)
    }

    /// The field that this end is asking for, opened.
    pub(super) fn open(&mut self, cx: FieldCx<'_>, exists: bool) -> Result<Opened<'a>, Error> {
        let Some(open) = self.structs.last_mut() else {
            return Err(Error::format("a field outside of any struct"));
        };
        let (ty, version) = (open.ty, open.version);
        let taken = match open.flat() {
            None => open
                .fields
                .take(ty, cx.field)
                .map_err(BerError::into_state)?
                .and_then(|(number, value)| Some((ty.fields.get(number)?, value))),
            Some(_) => None,
        };
        let taken = match taken {
            None => self.take_moved(cx.field).map_err(BerError::into_state)?,
            taken => taken,
        };
        let optional = cx.field.conditional
            || cx.field.default
            || cx.field.version_id > 0
            || cx.field.until.is_some();
        let Some((def, value)) = taken else {
            if exists && self.is_spread(cx.field) {
                return Ok(Opened::Spread);
            }
            let needed = !cx.field.conditional && !cx.field.default;
            let missing = exists && needed && cx.field.version_id <= version;
            if missing {
                let found = format!("no such field in version {version} of {}", ty.name);
                return Err(incompatible("E-MISSING", "the field", found));
            }
            return Ok(Opened::Absent);
        };
        if value.tag == tag::NULL {
            value.null().map_err(BerError::into_state)?;
            if !def.may_be_absent() {
                return Err(absent(&value).into_state());
            }
            if exists && !optional {
                return Err(
                    incompatible("E-MISSING", "a value", "an absent field").at_offset(value.offset)
                );
            }
            if exists && cx.field.conditional {
                let path = || format!("{}/{}", cx.description.name, cx.field.name);
                self.warn("W-COND", path, value.offset);
            }
            return Ok(Opened::Absent);
        }
        if !exists {
            return Err(
                incompatible("E-COND", "no value: the field is absent here", "a value")
                    .at_offset(value.offset),
            );
        }
        Ok(Opened::Value(value, def))
    }

    pub(super) fn octets(
        value: &Tlv<'a>,
        def: &'a FieldDef,
        cx: FieldCx<'_>,
        counted: bool,
    ) -> Result<Octets<'a>, Error> {
        if value.tag != tag::OCTETS {
            let expected = "an octet string";
            let found = value.tag;
            return Err(BerErrorKind::Tag { expected, found }
                .at(value.offset)
                .into_state());
        }
        let octets = Octets::new(value, Some(def));
        let size = element_size(def);
        // Of a field that takes another number the engine asks how many there are.
        let counted = counted && cx.field.resize_max.is_none();
        if counted && value.content.len() != cx.count.saturating_mul(size) {
            let e = ErrorKind::CountMismatch {
                field: "this end".to_owned(),
                expected: cx.count as u64,
                found: (value.content.len() as u64)
                    .checked_div(size as u64)
                    .unwrap_or(0),
            };
            return Err(Error::new(e).at_offset(value.offset));
        }
        Ok(octets)
    }

    /// Elements of the open field: at most one more than it takes.
    pub(super) fn open_units(&self, max: u32) -> Result<Option<usize>, BerError> {
        let most = (max as usize).saturating_add(1);
        Ok(match self.fields.last() {
            Some(OpenField::Octets(octets)) => {
                let (units, rest) = octets.units();
                if rest != 0 {
                    let what = "octets of an array that are no whole number of elements";
                    return Err(BerErrorKind::NotCanonical(what).at(octets.offset()));
                }
                Some(units.min(most))
            }
            Some(OpenField::List(open)) => {
                let units = open.list.clone().count()?;
                Some(usize::try_from(units).unwrap_or(most).min(most))
            }
            _ => None,
        })
    }

    /// Takes unknown fields note of, or refuses them.
    #[inline]
    pub(super) fn finish_fields(&mut self) -> Result<(), Error> {
        match self.structs.last() {
            Some(open) if !open.is_over() => self.finish_other_fields(),
            _ => Ok(()),
        }
    }

    fn finish_other_fields(&mut self) -> Result<(), Error> {
        let Some(open) = self.structs.last_mut() else {
            return Ok(());
        };
        if open.flat().is_some() {
            // What is left is looked at where it stands.
            return Ok(());
        }
        let parts = open.odd.take().map_or_else(Vec::new, |odd| odd.parts);
        let (ty, version) = (open.ty, open.version);
        let left = open.fields.leftovers(ty).map_err(BerError::into_state)?;
        self.finish_rest(ty, version, left)?;
        for part in parts {
            self.finish_part(part)?;
        }
        Ok(())
    }

    /// Takes note of fields that nobody has taken, or refuses them.
    pub(super) fn finish_rest(
        &mut self,
        ty: &TypeDef,
        version: u32,
        left: Vec<(usize, Tlv<'a>)>,
    ) -> Result<(), Error> {
        for (number, value) in left {
            let Some(def) = ty.fields.get(number) else {
                continue;
            };
            if !def.ignorable {
                let found = format!(
                    "unknown field {} of kind {} from writer version {version}",
                    def.name,
                    def.describe()
                );
                return Err(
                    incompatible("E-UNKNOWN", "no further field", found).at_offset(value.offset)
                );
            }
            self.warn(
                "W-UNKNOWN",
                || format!("{}/{}", ty.name, def.name),
                value.offset,
            );
        }
        Ok(())
    }
}

/// Whether `d` is what the field itself describes: that stays what it is as long as the field is open.
pub(super) fn is_child(cx: FieldCx<'_>, d: &Description) -> bool {
    let is_tree = matches!(cx.field.element, Element::Tree { .. });
    let child = cx.field.element.child();
    !is_tree && child.is_some_and(|child| std::ptr::eq(&raw const **child, d))
}

/// The bytes of a custom codec up to the next struct.
pub(super) fn next_chunk<'a>(items: &mut DerReader<'a>) -> Result<Octets<'a>, BerError> {
    match items.optional(tag::OCTETS)? {
        Some(chunk) if chunk.content.is_empty() || items.peek() == Some(tag::OCTETS) => {
            Err(BerErrorKind::NotCanonical("bytes are not in one piece").at(chunk.offset))
        }
        Some(chunk) => Ok(Octets::new(&chunk, None)),
        None => Ok(Octets::empty(items.offset())),
    }
}
