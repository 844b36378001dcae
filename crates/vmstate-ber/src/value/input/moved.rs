//! Fields that stand in an embedded struct at one end, and one by one at the other.
//!
//! | the writer has | this end has | who says so |
//! |---|---|---|
//! | `bus { config }` | `config` | this end's `config`, by the alias `bus/config` |
//! | `config` | `bus { config }` | the writer's `config`, by the alias `bus/config`; or this end's, inside of `bus`, by the alias `config` or the name that it has at the writer |

use vmstate_desc::{Description, Element, Error, ErrorKind, Field, Pointers, Repeat, alias_path};

use super::BerIn;
use super::open::{Odd, OpenStruct};
use crate::der::{Tlv, tag};
use crate::error::{BerError, BerErrorKind};
use crate::limits::MAX_DEPTH;
use crate::types::{FieldDef, Kind, TypeDef, TypeTable};
use crate::value::fit::incompatible;
use crate::value::take::Fields;

/// Most fields of a struct of this end, with what it embeds, among which one is looked for that the writer has outside of it.
const MAX_FIELDS: usize = 1024;

/// A struct of the writer of which fields stand one by one at this end.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// Number of the field in what encloses it.
    number: usize,
    ty: &'a TypeDef,
    version: u32,
    /// `None`: the struct is absent in this state.
    fields: Option<Fields<'a>>,
    parts: Vec<Part<'a>>,
}

type Taken<'a> = Option<(&'a FieldDef, Tlv<'a>)>;

/// Whether a type's field is one struct in its place.
fn is_struct(def: &FieldDef) -> bool {
    def.kind == Kind::Struct && def.repeat.is_none() && def.nullable.is_none()
}

/// The struct field `name`, opened; it is taken as a whole, so that who takes its fields takes all that matter.
fn part<'p, 'a>(
    input: &BerIn<'a>,
    ty: &'a TypeDef,
    fields: &mut Fields<'a>,
    parts: &'p mut Vec<Part<'a>>,
    name: &str,
) -> Result<Option<&'p mut Part<'a>>, BerError> {
    let known = parts.iter().position(|part| {
        ty.fields
            .get(part.number)
            .is_some_and(|def| def.name == name)
    });
    if let Some(known) = known {
        return Ok(parts.get_mut(known));
    }
    let Some(number) = fields.find(ty, name) else {
        return Ok(None);
    };
    let Some(def) = ty.fields.get(number).filter(|def| is_struct(def)) else {
        return Ok(None);
    };
    let Some((_, value)) = fields.take_number(ty, number)? else {
        return Ok(None);
    };
    let declared = input.types.by_id(def.ty.unwrap_or(0), value.offset)?;
    let version = |ty: &TypeDef| def.pinned.unwrap_or(ty.version);
    let made = if value.tag == tag::NULL {
        value.null()?;
        if !def.may_be_absent() {
            return Err(crate::value::take::absent(&value));
        }
        let ty = known_type(input.types, declared, value.offset)?;
        Part {
            number,
            ty,
            version: version(ty),
            fields: None,
            parts: Vec::new(),
        }
    } else {
        let own = known_type(input.types, declared, value.offset)?;
        let (index, version, body) = input.typed(&value, Some((declared, version(own))))?;
        if body.tag != tag::SEQUENCE {
            let (expected, found) = ("a struct", body.tag);
            return Err(BerErrorKind::Tag { expected, found }.at(body.offset));
        }
        Part {
            number,
            ty: known_type(input.types, index, value.offset)?,
            version,
            fields: Some(Fields::new(&body)),
            parts: Vec::new(),
        }
    };
    parts.push(made);
    Ok(parts.last_mut())
}

fn known_type(
    types: &TypeTable,
    index: crate::types::TypeIndex,
    offset: u64,
) -> Result<&TypeDef, BerError> {
    match types.get(index) {
        Some(ty) => Ok(ty),
        None => Err(BerErrorKind::UnknownType { id: 0 }.at(offset)),
    }
}

/// The field at the end of a path into the structs of `ty`.
fn take_inside<'a>(
    input: &BerIn<'a>,
    ty: &'a TypeDef,
    fields: &mut Fields<'a>,
    parts: &mut Vec<Part<'a>>,
    path: &[&str],
) -> Result<Taken<'a>, BerError> {
    match path {
        [] => Ok(None),
        [name] => take_named(ty, fields, name),
        [name, rest @ ..] => {
            let Some(part) = part(input, ty, fields, parts, name)? else {
                return Ok(None);
            };
            let Some(inner) = &mut part.fields else {
                return Ok(None);
            };
            take_inside(input, part.ty, inner, &mut part.parts, rest)
        }
    }
}

fn take_named<'a>(
    ty: &'a TypeDef,
    fields: &mut Fields<'a>,
    name: &str,
) -> Result<Taken<'a>, BerError> {
    let Some(number) = fields.find(ty, name) else {
        return Ok(None);
    };
    let taken = fields.take_number(ty, number)?;
    Ok(taken.and_then(|(number, value)| Some((ty.fields.get(number)?, value))))
}

/// Whether an alias is this path and name.
fn leads(alias: &str, path: &[String], name: &str) -> bool {
    let mut parts = alias_path(alias);
    path.iter().all(|part| parts.next() == Some(part)) && parts.eq([name])
}

/// The writer's field that is this end's `field` inside of the structs `path`, which the writer does not have.
fn find_spread(ty: &TypeDef, fields: &Fields<'_>, path: &[String], field: &Field) -> Option<usize> {
    let by_writer = ty.fields.iter().find(|def| {
        let mut aliases = def.aliases.iter();
        aliases.any(|alias| leads(alias, path, &field.name)) && fields.find(ty, &def.name).is_some()
    });
    let by_reader = || {
        let mut aliases = field.aliases.iter();
        aliases.find_map(|alias| fields.find(ty, alias))
    };
    by_writer
        .and_then(|def| fields.find(ty, &def.name))
        .or_else(by_reader)
}

impl<'a> BerIn<'a> {
    /// The value of a field that stands in another struct at the writer.
    #[cold]
    pub(super) fn take_moved(&mut self, field: &Field) -> Result<Taken<'a>, BerError> {
        let Some(open) = self.structs.last() else {
            return Ok(None);
        };
        if open.flat().is_some() {
            return self.take_spread(field);
        }
        if !field
            .aliases
            .iter()
            .any(|alias| alias_path(alias).nth(1).is_some())
        {
            return Ok(None);
        }
        // Taken out while the rest of the decoder is looked at.
        let Some(mut open) = self.structs.pop() else {
            return Ok(None);
        };
        let mut taken = Ok(None);
        for alias in field.aliases.iter() {
            let path: Vec<&str> = alias_path(alias).take(MAX_DEPTH as usize).collect();
            if path.len() > 1 {
                let parts = &mut open.odd.get_or_insert_default().parts;
                taken = take_inside(self, open.ty, &mut open.fields, parts, &path);
            }
            if !matches!(taken, Ok(None)) {
                break;
            }
        }
        self.structs.push(open);
        taken
    }

    /// The number of the innermost struct that the writer has.
    fn owner(&self) -> Option<usize> {
        self.structs.iter().rposition(|open| open.flat().is_none())
    }

    fn take_spread(&mut self, field: &Field) -> Result<Taken<'a>, BerError> {
        let Some(path) = self.structs.last().and_then(OpenStruct::flat) else {
            return Ok(None);
        };
        let path = path.to_vec();
        let Some(owner) = self.owner().and_then(|owner| self.structs.get_mut(owner)) else {
            return Ok(None);
        };
        let ty = owner.ty;
        let Some(number) = find_spread(ty, &owner.fields, &path, field) else {
            return Ok(None);
        };
        let taken = owner.fields.take_number(ty, number)?;
        Ok(taken.and_then(|(number, value)| Some((ty.fields.get(number)?, value))))
    }

    /// Whether a struct of this end, which the writer does not have, has fields that stand one by one at the writer.
    pub(super) fn is_spread(&self, field: &Field) -> bool {
        let (Element::Struct(child) | Element::VersionedStruct(child, _)) = &field.element else {
            return false;
        };
        if field.repeat != Repeat::Single || field.pointers != Pointers::No {
            return false;
        }
        let path = self.path_to(field);
        let owner = self.owner().and_then(|owner| self.structs.get(owner));
        let mut left = MAX_FIELDS;
        owner.is_some_and(|owner| spreads(owner.ty, &owner.fields, &path, child, &mut left))
    }

    /// The structs between the innermost one that the writer has and the content of `field`.
    fn path_to(&self, field: &Field) -> Vec<String> {
        let path = self.structs.last().and_then(OpenStruct::flat);
        let mut path = path.map_or_else(Vec::new, <[String]>::to_vec);
        path.push(field.name.to_string());
        path
    }

    /// Begins a struct that the writer does not have.
    pub(super) fn begin_flat(&mut self, version: u32, field: &Field) -> Result<u32, Error> {
        let flat = Some(self.path_to(field));
        let here = self.here();
        let Some(owner) = self.owner().and_then(|owner| self.structs.get(owner)) else {
            return Err(Error::format("a struct outside of any struct"));
        };
        if self.structs.len() >= MAX_DEPTH as usize {
            return Err(Error::new(ErrorKind::TooDeep { limit: MAX_DEPTH }).at_offset(here));
        }
        let open = OpenStruct {
            known: &[],
            ty: owner.ty,
            // Its own version does not travel: the fields are those of this end's.
            version,
            fields: Fields::none(here),
            odd: Some(Box::new(Odd {
                flat,
                parts: Vec::new(),
            })),
        };
        self.structs.push(open);
        Ok(version)
    }

    /// Looks at what is left of a struct whose fields stand one by one at this end.
    pub(super) fn finish_part(&mut self, part: Part<'a>) -> Result<(), Error> {
        let Part {
            ty,
            version,
            fields,
            parts,
            ..
        } = part;
        if let Some(mut fields) = fields {
            let left = fields.leftovers(ty).map_err(BerError::into_state)?;
            self.finish_rest(ty, version, left)?;
            let offset = fields.offset();
            if fields.finish().is_err() {
                let found = format!("a subsection of {}", ty.name);
                return Err(incompatible("E-SUB", "no subsection", found).at_offset(offset));
            }
        }
        for part in parts {
            self.finish_part(part)?;
        }
        Ok(())
    }
}

/// Whether any field of `d`, or of what it embeds, stands among the writer's fields.
fn spreads(
    ty: &TypeDef,
    fields: &Fields<'_>,
    path: &[String],
    d: &Description,
    left: &mut usize,
) -> bool {
    if path.len() > MAX_DEPTH as usize {
        return false;
    }
    d.fields().iter().any(|field| {
        let Some(rest) = left.checked_sub(1) else {
            return false;
        };
        *left = rest;
        if find_spread(ty, fields, path, field).is_some() {
            return true;
        }
        let (Element::Struct(child) | Element::VersionedStruct(child, _)) = &field.element else {
            return false;
        };
        let mut inner = path.to_vec();
        inner.push(field.name.to_string());
        spreads(ty, fields, &inner, child, left)
    })
}
