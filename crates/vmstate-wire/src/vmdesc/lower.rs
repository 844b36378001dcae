//! From the JSON of a description to a template with run-time descriptions.
//!
//! Repairs of what the generations get wrong (`device-state` facts 6.6):
//!
//! - All entries of one name are pieces of one array: names within one description are unique.
//! - 10.0 and 11.1: where an array begins with present pointers, the first entry claims the whole length. Its true
//!   length is that minus the lengths of the later pieces.
//! - 11.1: a single slot at the very end that differs from a longer run before it is not described at all.
//! - 10.0: a run of absent slots in an uncompressed array is described once for each of its slots.
//! - 7.2: an absent slot is described as one of the field's own type with size 1.

use std::sync::Arc;

use vmstate_desc::{
    Codec, Description, DescriptionRef, DynState, Element, Error, ErrorKind, Field, ListKind,
    Pointers, Repeat, SaveState, Size, TreeKey, Value,
};

use crate::json::Json;

type Members<'j, 'a> = &'j [(std::borrow::Cow<'a, str>, Json<'a>)];

/// Largest array that a description may claim.
const MAX_ARRAY: u64 = i32::MAX as u64;

/// The readings of an ambiguous description, tried one after the other: a counter whose digits appear as they are needed.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// Chosen alternative and number of alternatives at each ambiguous place.
    taken: Vec<(u32, u32)>,
    next: usize,
}

impl Choices {
    pub(super) fn restart(&mut self) {
        self.next = 0;
    }

    /// The alternative to take at an ambiguous place with `of` alternatives.
    fn take(&mut self, of: u32) -> u32 {
        let chosen = match self.taken.get(self.next) {
            Some((chosen, _)) => *chosen,
            None => {
                self.taken.push((0, of));
                0
            }
        };
        self.next = self.next.saturating_add(1);
        chosen
    }

    /// Moves to the next reading. `false`: there is none.
    pub(super) fn advance(&mut self) -> bool {
        while let Some((chosen, of)) = self.taken.pop() {
            if chosen.saturating_add(1) < of {
                self.taken.push((chosen.saturating_add(1), of));
                return true;
            }
        }
        false
    }
}

/// Makes the template of a description object, or of an object that has a description's keys among others.
pub(super) fn lower_description(
    members: Members<'_, '_>,
    choices: &mut Choices,
    memory: u64,
) -> Result<DynState, Error> {
    let mut lowering = Lowering {
        choices,
        nodes: memory.checked_div(size_of::<Value>() as u64).unwrap_or(0),
        memory,
    };
    if find(members, "vmsd_name").is_none()
        && let Some(size) = find(members, "size").and_then(Json::as_u64)
    {
        return opaque(size);
    }
    lowering.description(members)
}

/// An old-style device: one buffer.
fn opaque(size: u64) -> Result<DynState, Error> {
    let size =
        u32::try_from(size).map_err(|_| Error::format(format!("a device of {size} bytes")))?;
    let mut description = Description::new("", 0, 0);
    description.fields = vec![Field::value("data", Codec::Buffer(Size::Fixed(size)))].into();
    Ok(DynState::new(description))
}

fn find<'j, 'a>(members: Members<'j, 'a>, key: &str) -> Option<&'j Json<'a>> {
    members.iter().find(|(k, _)| k == key).map(|(_, v)| v)
}

fn malformed(what: &str) -> Error {
    Error::format(format!("the description trailer is malformed: {what}"))
}

/// One object of a list of fields.
struct Entry<'j, 'a> {
    name: &'j str,
    ty: &'j str,
    len: Option<u64>,
    size: u64,
    members: Members<'j, 'a>,
}

impl<'j, 'a> Entry<'j, 'a> {
    fn new(json: &'j Json<'a>) -> Result<Self, Error> {
        let members = json
            .as_object()
            .ok_or_else(|| malformed("a field is not an object"))?;
        let mut entry = Self {
            name: "",
            ty: "",
            len: None,
            size: 0,
            members,
        };
        for (key, value) in members {
            match &**key {
                "name" => entry.name = value.as_str().unwrap_or_default(),
                "type" => entry.ty = value.as_str().unwrap_or_default(),
                "array_len" => entry.len = value.as_u64(),
                "size" => entry.size = value.as_u64().unwrap_or_default(),
                _ => {}
            }
        }
        if entry.name.is_empty() || entry.ty.is_empty() {
            return Err(malformed("a field without name or type"));
        }
        Ok(entry)
    }

    fn is_marker(&self) -> bool {
        matches!(self.ty, "nullptr" | "ptr-marker")
    }

    /// An absent pointer, in any generation's form.
    fn is_absent(&self) -> bool {
        if self.is_marker() {
            return true;
        }
        if self.size != 1 {
            return false;
        }
        match self.ty {
            "struct" => find(self.members, "struct")
                .is_some_and(|s| matches!(s, Json::Object(members) if members.is_empty())),
            ty => Codec::scalar_by_name(ty)
                .and_then(|codec| codec.scalar_type())
                .is_some_and(|ty| ty.size() > 1),
        }
    }
}

/// Slots of an array: how many of which kind, and the entry that describes them.
struct Run<'e, 'j, 'a> {
    absent: bool,
    len: u64,
    entry: &'e Entry<'j, 'a>,
}

struct Lowering<'c> {
    choices: &'c mut Choices,
    /// Nodes that may still be made.
    nodes: u64,
    /// The limit that they come from, in bytes.
    memory: u64,
}

impl Lowering<'_> {
    fn spend(&mut self, nodes: u64) -> Result<(), Error> {
        self.nodes = self
            .nodes
            .checked_sub(nodes)
            .ok_or_else(|| ErrorKind::Memory {
                requested: nodes.saturating_mul(size_of::<Value>() as u64),
                limit: self.memory,
            })?;
        Ok(())
    }

    fn description(&mut self, members: Members<'_, '_>) -> Result<DynState, Error> {
        let name = find(members, "vmsd_name")
            .and_then(Json::as_str)
            .ok_or_else(|| malformed("a description without a name"))?;
        let version = find(members, "version")
            .and_then(Json::as_i64)
            .and_then(|v| u32::try_from(v).ok())
            .ok_or_else(|| malformed("a description without a version"))?;
        let entries = find(members, "fields")
            .and_then(Json::as_array)
            .ok_or_else(|| malformed("a description without fields"))?
            .iter()
            .map(Entry::new)
            .collect::<Result<Vec<_>, _>>()?;
        let mut fields = Vec::new();
        let mut values = Vec::new();
        for group in groups(&entries) {
            let (field, value) = self.field(group)?;
            self.spend(2)?;
            fields.push(field);
            values.push(value);
        }
        let mut subsections = Vec::new();
        if let Some(list) = find(members, "subsections").and_then(Json::as_array) {
            for sub in list {
                let members = sub
                    .as_object()
                    .ok_or_else(|| malformed("a subsection is not an object"))?;
                subsections.push(self.description(members)?);
            }
        }
        let description = Description {
            name: name.to_owned().into(),
            fields: fields.into(),
            subsections: subsections.iter().map(SaveState::description).collect(),
            ..Description::new("", version, 0)
        };
        let mut state = DynState::new(description);
        for (index, value) in values.into_iter().enumerate() {
            state.set_value(index, value);
        }
        for (index, sub) in subsections.into_iter().enumerate() {
            state.set_subsection(index, Some(sub));
        }
        Ok(state)
    }

    fn field(&mut self, group: &[Entry<'_, '_>]) -> Result<(Field, Value), Error> {
        let (Some(first), Some(named)) = (
            group.first(),
            group.iter().find(|e| !e.is_marker()).or(group.first()),
        ) else {
            return Err(malformed("an empty group"));
        };
        let mut field = Field::value("", Codec::Bool);
        field.name = named.name.to_owned().into();
        if let [single] = group
            && single.len.is_none()
            && !single.is_absent()
        {
            // An array of one looks like a single field, in the trailer and in the stream.
            let (element, value) = self.element(single)?;
            field.element = element;
            return Ok((field, value));
        }
        if is_marked(group) && self.choices.take(2) == 0 {
            return self.marked(field, group);
        }
        if let [single] = group
            && !single.is_absent()
        {
            let len = single.len.unwrap_or(1);
            if may_be_pointer(single) && len > 1 && self.choices.take(2) == 1 {
                return self.with_holes(field, group, true);
            }
            let (element, value) = self.element(single)?;
            return self.compressed(field, element, value, len);
        }
        if group.iter().any(Entry::is_absent) || first.len.is_some() {
            let forgets = runs(group).last().is_some_and(|r| r.len > 1);
            let forgets = forgets && self.choices.take(2) == 1;
            return self.with_holes(field, group, forgets);
        }
        // One entry for each element: nothing was compressed.
        let mut elements = Vec::with_capacity(group.len());
        let mut element = None;
        for entry in group {
            let (e, value) = self.element(entry)?;
            element.get_or_insert(e);
            elements.push(value);
        }
        field.element = element.ok_or_else(|| malformed("an empty array"))?;
        self.array(&mut field, group.len() as u64)?;
        field.conditional = true;
        Ok((field, list_or_unset(elements)))
    }

    /// An array whose elements all look like the one that is described.
    fn compressed(
        &mut self,
        mut field: Field,
        element: Element,
        template: Value,
        len: u64,
    ) -> Result<(Field, Value), Error> {
        field.element = match element {
            // The count of a field with a buffer is in bytes; here it is in buffers.
            Element::Value(Codec::Buffer(Size::Fixed(size))) if len > 1 => {
                Element::Value(Codec::Custom {
                    name: "buffer".into(),
                    size: Some(size),
                })
            }
            element => element,
        };
        self.array(&mut field, len)?;
        let templates = match template {
            Value::Struct(state) if has_template(&state) => {
                self.spend(len.saturating_mul(nodes(&state)))?;
                let len = usize::try_from(len).unwrap_or(0);
                Value::List(vec![Value::Struct(state); len])
            }
            _ => Value::Unset,
        };
        Ok((field, templates))
    }

    fn array(&mut self, field: &mut Field, len: u64) -> Result<(), Error> {
        let len = u32::try_from(len)
            .ok()
            .filter(|len| u64::from(*len) <= MAX_ARRAY)
            .ok_or_else(|| malformed(&format!("field {} has {len} elements", field.name)))?;
        field.repeat = Repeat::Array(len);
        Ok(())
    }

    /// Markers before every element: each present element follows its marker.
    fn marked(
        &mut self,
        mut field: Field,
        group: &[Entry<'_, '_>],
    ) -> Result<(Field, Value), Error> {
        let mut slots = Vec::new();
        let mut element = None;
        for entry in group {
            if entry.is_marker() {
                slots.push(Value::Absent);
                continue;
            }
            let (e, value) = self.element(entry)?;
            element.get_or_insert(e);
            if let Some(slot) = slots.last_mut() {
                *slot = value;
            }
        }
        field.element = element.unwrap_or_else(unknown_struct);
        self.array(&mut field, slots.len() as u64)?;
        field.pointers = Pointers::MarkEvery;
        field.object_size = Some(0);
        Ok((field, Value::List(slots)))
    }

    /// An array of pointers in the older form. `forgets`: one more slot of the other kind stands at the end than the
    /// entries tell.
    fn with_holes(
        &mut self,
        mut field: Field,
        group: &[Entry<'_, '_>],
        forgets: bool,
    ) -> Result<(Field, Value), Error> {
        let mut runs = runs(group);
        let later = runs.iter().skip(1).map(|r| r.len);
        let later = later.fold(u64::from(forgets), u64::saturating_add);
        let described = group.iter().find(|e| !e.is_absent());
        let last_absent = runs.last().is_some_and(|r| r.absent);
        if let Some(first) = runs.first_mut()
            && !first.absent
            && first.entry.len.is_some()
        {
            first.len = first.len.saturating_sub(later);
        }
        if forgets && let Some(entry) = described {
            runs.push(Run {
                absent: !last_absent,
                len: 1,
                entry,
            });
        }
        let compressed = group.iter().any(|e| !e.is_absent() && e.len.is_some());
        let mut templates = Vec::new();
        let mut element = None;
        let mut present = 0_u64;
        for run in &runs {
            self.spend(run.len)?;
            let value = if run.absent {
                Value::Absent
            } else {
                let (e, value) = self.element(run.entry)?;
                element.get_or_insert(e);
                present = present.saturating_add(run.len);
                if let Value::Struct(state) = &value {
                    self.spend(run.len.saturating_mul(nodes(state)))?;
                }
                value
            };
            for _ in 0..run.len {
                templates.push(value.clone());
            }
        }
        field.element = element.unwrap_or_else(|| element_of_absent(group));
        self.array(&mut field, templates.len() as u64)?;
        field.pointers = Pointers::MarkAbsent;
        field.conditional = !compressed && present > 1;
        Ok((field, Value::List(templates)))
    }

    fn element(&mut self, entry: &Entry<'_, '_>) -> Result<(Element, Value), Error> {
        let size = u32::try_from(entry.size)
            .map_err(|_| malformed(&format!("field {} has {} bytes", entry.name, entry.size)))?;
        Ok(match entry.ty {
            "struct" => {
                let members = find(entry.members, "struct")
                    .and_then(Json::as_object)
                    .ok_or_else(|| malformed("a struct without its description"))?;
                let state = self.description(members)?;
                (Element::Struct(state.description()), state.into())
            }
            "vstruct" => {
                let state = self.description(entry.members)?;
                let d = state.description();
                let version = d.version_id;
                (Element::VersionedStruct(d, version), state.into())
            }
            "tmp" => {
                let state = self.description(entry.members)?;
                (Element::Tmp(state.description()), state.into())
            }
            "qtailq" => self.list(ListKind::QTailq, entry)?,
            "qlist" => self.list(ListKind::QList, entry)?,
            "gtree" => self.tree(entry)?,
            "capability" => (Element::Value(Codec::Capability), Value::Unset),
            "GByteArray" => {
                let max = self.nodes.saturating_mul(size_of::<Value>() as u64);
                let max = u32::try_from(max).unwrap_or(u32::MAX);
                (Element::Value(Codec::ByteArray { max }), Value::Unset)
            }
            "buffer" => (
                Element::Value(Codec::Buffer(Size::Fixed(size))),
                Value::Unset,
            ),
            ty => (Element::Value(value_codec(ty, size)), Value::Unset),
        })
    }

    fn list(&mut self, kind: ListKind, entry: &Entry<'_, '_>) -> Result<(Element, Value), Error> {
        let states = self.inline_descriptions(entry.members)?;
        let child = states
            .first()
            .map_or_else(unknown_description, SaveState::description);
        let same = states.iter().all(|s| s.description() == child);
        let templates = if same {
            Value::Unset
        } else {
            Value::List(states.into_iter().map(Value::from).collect())
        };
        Ok((Element::List(kind, child), templates))
    }

    fn tree(&mut self, entry: &Entry<'_, '_>) -> Result<(Element, Value), Error> {
        let states = self.inline_descriptions(entry.members)?;
        // Key objects have descriptions of their own, in turn with the values.
        let keyed = states.len() % 2 == 0 && states.len() > 1 && self.choices.take(2) == 1;
        let mut descriptions = states.iter().map(SaveState::description);
        let element = if keyed {
            let key = descriptions.next().unwrap_or_else(unknown_description);
            Element::Tree {
                key: TreeKey::Struct(key),
                value: descriptions.next().unwrap_or_else(unknown_description),
            }
        } else {
            Element::Tree {
                key: TreeKey::Direct,
                value: descriptions.next().unwrap_or_else(unknown_description),
            }
        };
        Ok((element, Value::Unset))
    }

    /// The descriptions whose keys stand in a field's object one after the other.
    fn inline_descriptions(&mut self, members: Members<'_, '_>) -> Result<Vec<DynState>, Error> {
        let mut starts: Vec<usize> = members
            .iter()
            .enumerate()
            .filter(|(_, (key, _))| key == "vmsd_name")
            .map(|(i, _)| i)
            .collect();
        starts.push(members.len());
        starts
            .windows(2)
            .filter_map(|w| members.get(*w.first()?..*w.last()?))
            .map(|part| self.description(part))
            .collect()
    }
}

fn list_or_unset(elements: Vec<Value>) -> Value {
    if elements.iter().all(|e| *e == Value::Unset) {
        Value::Unset
    } else {
        Value::List(elements)
    }
}

fn unknown_description() -> DescriptionRef {
    DescriptionRef::Shared(Arc::new(Description::new("unknown", 0, 0)))
}

fn unknown_struct() -> Element {
    Element::Struct(unknown_description())
}

/// What the elements of an array without a single present one are.
fn element_of_absent(group: &[Entry<'_, '_>]) -> Element {
    group
        .iter()
        .find(|e| !e.is_marker())
        .and_then(|e| Codec::scalar_by_name(e.ty))
        .map_or_else(unknown_struct, Element::Value)
}

fn value_codec(ty: &str, size: u32) -> Codec {
    match Codec::scalar_by_name(ty) {
        Some(codec)
            if codec.scalar_type().map(vmstate_desc::ScalarType::size) == Some(size as usize) =>
        {
            codec
        }
        _ => Codec::Custom {
            name: ty.to_owned().into(),
            size: Some(size),
        },
    }
}

/// The name without a suffix `[-1]`, which a marker gets where the field's name is not unique.
fn base_name<'e>(entry: &'e Entry<'_, '_>) -> Option<&'e str> {
    if entry.is_marker() {
        entry.name.strip_suffix("[-1]")
    } else {
        None
    }
}

/// Entries that describe one field.
fn groups<'e, 'j, 'a>(entries: &'e [Entry<'j, 'a>]) -> impl Iterator<Item = &'e [Entry<'j, 'a>]> {
    entries.chunk_by(|a, b| {
        if a.name == b.name {
            return true;
        }
        match (base_name(a), base_name(b)) {
            (None, Some(base)) => is_numbered(a.name, base),
            (Some(base), None) => is_numbered(b.name, base),
            _ => false,
        }
    })
}

fn is_numbered(name: &str, base: &str) -> bool {
    name.strip_prefix(base)
        .and_then(|rest| rest.strip_prefix('['))
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|digits| digits.parse::<u32>().is_ok())
}

/// Whether the entries can be those of an array with a marker before every element.
fn is_marked(group: &[Entry<'_, '_>]) -> bool {
    group.first().is_some_and(|e| e.ty == "ptr-marker")
        && group.iter().all(|e| e.len.is_none())
        && group
            .windows(2)
            .all(|w| matches!(w, [a, b] if a.is_marker() || b.is_marker()))
}

/// Whether elements of this kind are found behind pointers.
fn may_be_pointer(entry: &Entry<'_, '_>) -> bool {
    matches!(entry.ty, "struct" | "timer")
}

fn runs<'e, 'j, 'a>(group: &'e [Entry<'j, 'a>]) -> Vec<Run<'e, 'j, 'a>> {
    let mut runs = Vec::new();
    let mut repeated = 0_u64;
    for entry in group {
        let absent = entry.is_absent();
        let len = entry.len.unwrap_or(1);
        if absent && repeated > 0 && len == repeated {
            repeated = repeated.saturating_sub(1);
            continue;
        }
        repeated = if absent { len.saturating_sub(1) } else { 0 };
        runs.push(Run { absent, len, entry });
    }
    runs
}

/// What a copy of a template costs, in nodes.
fn nodes(template: &DynState) -> u64 {
    template.memory().div_ceil(size_of::<Value>()) as u64
}

/// Whether a template has parts that a description alone does not tell: slots, or elements of differing shape.
fn has_template(state: &DynState) -> bool {
    state.fields().any(|(_, value)| match value {
        Value::List(_) => true,
        Value::Struct(state) => has_template(state),
        _ => false,
    })
}
