//! State of types that came in the stream.

use std::collections::HashMap;
use std::sync::Arc;

use vmstate_desc::{DynState, Error, ErrorKind, Limits, Value, load_with};

use super::fit::element_size;
use super::list::ListReader;
use super::{BerIn, value_tag};
use crate::der::{DerReader, Tlv, tag};
use crate::error::{BerError, BerErrorKind};
use crate::limits::MAX_DEPTH;
use crate::types::{FieldDef, Kind, Repeat, TypeIndex, TypeTable};

/// Decodes a value of a type of the stream into a tree of values. `value` is a SEQUENCE that stands at `offset` in the stream.
///
/// # Errors
/// Values that do not fit their type, types that no description of ours can say, and limits.
pub fn decode_dynamic(
    types: &mut TypeTable,
    ty: TypeIndex,
    version: u32,
    value: &[u8],
    offset: u64,
    limits: Limits,
) -> Result<DynState, Error> {
    let mut reader = DerReader::new(value, offset);
    let value = reader
        .expect(tag::SEQUENCE, "a struct")
        .and_then(|value| reader.finish().map(|()| value))
        .map_err(BerError::into_state)?;
    let mut state = Templates::new(types, limits.memory)
        .state(ty, &value)
        .map_err(BerError::into_state)?;
    let mut input = BerIn::new(types, ty, value);
    load_with(&mut state, version, &mut input, limits)?;
    Ok(state)
}

/// Prepares what a description alone does not tell: absent elements, elements of other types, counts of the device's own.
struct Templates<'t> {
    types: &'t mut TypeTable,
    /// Bytes that may still be taken.
    memory: u64,
    limit: u64,
    /// Types whose values never need preparation.
    flat: HashMap<TypeIndex, bool>,
}

impl<'t> Templates<'t> {
    fn new(types: &'t mut TypeTable, memory: u64) -> Self {
        Self {
            types,
            memory,
            limit: memory,
            flat: HashMap::new(),
        }
    }

    fn state(&mut self, ty: TypeIndex, value: &Tlv<'_>) -> Result<DynState, BerError> {
        match self.prepare(ty, value, 0)? {
            Some(state) => Ok(state),
            None => Ok(DynState::new(self.types.description(ty)?)),
        }
    }

    fn spend(&mut self, bytes: u64, offset: u64) -> Result<(), BerError> {
        match self.memory.checked_sub(bytes) {
            Some(left) => {
                self.memory = left;
                Ok(())
            }
            None => {
                let kind = ErrorKind::Memory {
                    requested: bytes,
                    limit: self.limit,
                };
                Err(BerErrorKind::State(Error::new(kind).at_offset(offset)).at(offset))
            }
        }
    }

    fn is_flat(&mut self, ty: TypeIndex) -> bool {
        if let Some(flat) = self.flat.get(&ty) {
            return *flat;
        }
        let flat = self.types.get(ty).is_some_and(|ty| {
            ty.subs.is_empty()
                && ty.fields.iter().all(|field| {
                    !matches!(field.kind, Kind::Struct | Kind::Variant)
                        && field.nullable.is_none()
                        && !is_counted_by_device(field)
                })
        });
        self.flat.insert(ty, flat);
        flat
    }

    /// A state with what its value needs; `None` if it needs nothing.
    fn prepare(
        &mut self,
        index: TypeIndex,
        value: &Tlv<'_>,
        depth: u32,
    ) -> Result<Option<DynState>, BerError> {
        if self.is_flat(index) {
            return Ok(None);
        }
        if depth >= MAX_DEPTH {
            let kind = ErrorKind::TooDeep { limit: MAX_DEPTH };
            return Err(BerErrorKind::State(Error::new(kind)).at(value.offset));
        }
        let Some(ty) = self.types.get(index).map(Arc::clone) else {
            return Err(BerErrorKind::UnknownType { id: 0 }.at(value.offset));
        };
        let mut prepared: Option<DynState> = None;
        let mut reader = value.reader();
        for (number, def) in ty.fields.iter().enumerate() {
            if reader.is_empty() {
                // The decoder says what is wrong.
                return Ok(None);
            }
            let value = reader.any()?;
            if is_counted_by_device(def)
                && let Some(count) = count_of(def, &value)?
            {
                self.open(&mut prepared, index, value.offset)?
                    .set_count(number, count);
            }
            if let Some(template) = self.field(def, &value, depth)? {
                self.open(&mut prepared, index, value.offset)?
                    .set_value(number, template);
            }
        }
        while reader.peek() == Some(value_tag::SUB) {
            let mut inner = reader.any()?.reader();
            let id = inner.uint32("type of a subsection")?;
            inner.uint32("version of a subsection")?;
            let value = inner.expect(tag::SEQUENCE, "a struct")?;
            let Some(number) = ty.subs.iter().position(|sub| sub.ty == id) else {
                continue;
            };
            let sub = self.types.by_id(id, value.offset)?;
            if let Some(sub) = self.prepare(sub, &value, depth.saturating_add(1))? {
                self.open(&mut prepared, index, value.offset)?
                    .set_subsection(number, Some(sub));
            }
        }
        Ok(prepared)
    }

    fn open<'s>(
        &mut self,
        prepared: &'s mut Option<DynState>,
        index: TypeIndex,
        offset: u64,
    ) -> Result<&'s mut DynState, BerError> {
        if prepared.is_none() {
            let state = DynState::new(self.types.description(index)?);
            self.spend(state.memory() as u64, offset)?;
            *prepared = Some(state);
        }
        prepared
            .as_mut()
            .ok_or_else(|| BerErrorKind::Missing("a state").at(offset))
    }

    fn field(
        &mut self,
        def: &FieldDef,
        value: &Tlv<'_>,
        depth: u32,
    ) -> Result<Option<Value>, BerError> {
        let is_struct = def.kind == Kind::Struct;
        match value.tag {
            tag::SEQUENCE | value_tag::TYPED if is_struct => self.element(def, value, depth),
            value_tag::TYPED if def.kind == Kind::Variant => self.case(value, depth),
            value_tag::LIST if def.repeat == Some(Repeat::Tree) => Ok(None),
            value_tag::LIST if is_struct || def.nullable.is_some() => {
                let mut list = ListReader::new(value);
                let mut templates = Vec::new();
                let mut needed = false;
                // Where the element before stands, and what its template took.
                let mut before: Option<(u64, u64)> = None;
                while let Some(value) = list.next()? {
                    // The list of templates grows to twice its size at most.
                    self.spend(size_of::<Value>().saturating_mul(2) as u64, value.offset)?;
                    if let Some((offset, taken)) = before
                        && offset == value.offset
                        && let Some(template) = templates.last()
                    {
                        // The equals of a run stand there once, and are looked at once.
                        self.spend(taken, offset)?;
                        templates.push(Value::clone(template));
                        continue;
                    }
                    let memory = self.memory;
                    let template = match value.tag {
                        value_tag::NIL => Some(Value::Absent),
                        _ if is_struct => self.element(def, &value, depth)?,
                        _ => None,
                    };
                    before = Some((value.offset, memory.saturating_sub(self.memory)));
                    needed |= template.is_some();
                    templates.push(template.unwrap_or_default());
                }
                Ok(needed.then_some(Value::List(templates)))
            }
            _ => Ok(None),
        }
    }

    fn element(
        &mut self,
        def: &FieldDef,
        value: &Tlv<'_>,
        depth: u32,
    ) -> Result<Option<Value>, BerError> {
        let depth = depth.saturating_add(1);
        if value.tag == value_tag::TYPED {
            let (ty, value) = self.typed(value)?;
            let state = match self.prepare(ty, &value, depth)? {
                Some(state) => state,
                None => DynState::new(self.types.description(ty)?),
            };
            self.spend(state.memory() as u64, value.offset)?;
            return Ok(Some(state.into()));
        }
        let ty = self.types.by_id(def.ty.unwrap_or(0), value.offset)?;
        Ok(self.prepare(ty, value, depth)?.map(Value::from))
    }

    /// What a variant's state needs. Whether it is of the right case, the decoder says.
    fn case(&mut self, value: &Tlv<'_>, depth: u32) -> Result<Option<Value>, BerError> {
        let (ty, value) = self.typed(value)?;
        let state = self.prepare(ty, &value, depth.saturating_add(1))?;
        Ok(state.map(Value::from))
    }

    /// What a value that tells its type has: that, and the struct. Its version is the decoder's business.
    fn typed<'v>(&self, value: &Tlv<'v>) -> Result<(TypeIndex, Tlv<'v>), BerError> {
        let mut inner = value.reader();
        let id = inner.uint32("type of a struct")?;
        let ty = self.types.by_id(id, value.offset)?;
        inner.uint32("version of a struct")?;
        Ok((ty, inner.expect(tag::SEQUENCE, "a struct")?))
    }
}

const fn is_counted_by_device(def: &FieldDef) -> bool {
    matches!(def.repeat, Some(Repeat::Counted { on_wire: false, .. }))
}

/// Whether the value of a field of more than one element is a list, and no octet string.
const fn may_be_list(def: &FieldDef) -> bool {
    matches!(def.kind, Kind::Struct | Kind::Opaque) || def.nullable.is_some()
}

/// What the device's own counter must have said.
fn count_of(def: &FieldDef, value: &Tlv<'_>) -> Result<Option<i64>, BerError> {
    let Some(Repeat::Counted { factor, .. }) = &def.repeat else {
        return Ok(None);
    };
    let units = match value.tag {
        value_tag::LIST if may_be_list(def) => ListReader::new(value).count()?,
        // The decoder says what is wrong.
        value_tag::LIST => 0,
        tag::OCTETS => {
            let size = if def.kind == Kind::Opaque {
                def.size.unwrap_or(1) as usize
            } else {
                element_size(def)
            };
            let units = value.content.len().checked_div(size).unwrap_or(0) as u64;
            // A bitmap's counter counts bits.
            if def.kind == Kind::Bitmap {
                units.saturating_mul(64)
            } else {
                units
            }
        }
        _ => return Ok(None),
    };
    Ok(units
        .checked_div(u64::from(*factor))
        .and_then(|count| i64::try_from(count).ok()))
}
