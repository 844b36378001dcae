//! JSON Schema 2020-12 of the values that [`value`](crate::value) makes.
//!
//! Annotations stand under `x-vmstate…`, which validators pass over: of each field what JSON Schema cannot express, of the whole
//! the [schema document](crate::document). So nothing is lost, and a JSON Schema can be compared like the document itself.
//!
//! What is not checked, since the standard has no words for it: that the number of elements is the one that another field says.

mod kinds;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use vmstate_desc::Codec;

use crate::document::field_json;
use crate::model::{Case, Element, Key, Origin, Schema, Section, Type, TypeId};
use crate::value::{SUBSECTIONS, TYPE, VERSION};

/// The member that has the schema document.
pub const DOCUMENT: &str = "x-vmstate-schema";

/// The name of the form of a machine's values: [`machine_schema`].
pub const VALUES: &str = "vmstate-values/1";

/// The standard.
const STANDARD: &str = "https://json-schema.org/draft/2020-12/schema";

/// Whose values are described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audience {
    /// What this version writes.
    #[default]
    Writer,
    /// What this version reads: fields that older versions lack may be missing, numbers may stand for strings.
    Reader,
}

/// The JSON Schema of one type's values. `None` if there is no such type.
#[must_use]
pub fn type_schema(schema: &Schema, ty: TypeId, audience: Audience) -> Option<Value> {
    let name = &schema.get(ty)?.name;
    let mut definitions = Definitions::new(schema, audience);
    let reference = definitions.refer(Definition::of(ty));
    Some(json!({
        "$schema": STANDARD,
        "$id": format!("urn:vmstate:type:{}", escaped(name)),
        "$ref": reference.get("$ref"),
        "$defs": definitions.finish(),
    }))
}

/// The JSON Schema of a machine's values:
///
/// ```json
/// { "format": "vmstate-values/1", "machine": "spike",
///   "sections": [ { "idstr": "timer", "instance": 0, "version": 2, "state": { … } },
///                 { "idstr": "slirp", "instance": 0, "version": 4, "opaque": "2a00…" } ] }
/// ```
///
/// A section that is not optional must be there, and no other may be. Of a dump, which lists classes and not devices, any number
/// of sections of each class may be there.
#[must_use]
pub fn machine_schema(schema: &Schema, audience: Audience) -> Value {
    let mut definitions = Definitions::new(schema, audience);
    let is_dump = schema.origin == Origin::Dump;
    let mut conditions = Vec::new();
    let mut present = Vec::new();
    let mut names = BTreeSet::new();
    let mut by_name: BTreeMap<(&str, u32), Vec<&Section>> = BTreeMap::new();
    for section in &schema.sections {
        let key = (section.idstr.as_str(), section.instance_id);
        by_name.entry(key).or_default().push(section);
    }
    for section in &schema.sections {
        let key = (section.idstr.as_str(), section.instance_id);
        names.insert(section.idstr.as_str());
        let Some(same) = by_name.remove(&key) else {
            continue;
        };
        let condition = if is_dump {
            json!({"properties": {"idstr": {"pattern": suffix_pattern(&section.idstr)}}})
        } else {
            json!({"properties": {"idstr": {"const": section.idstr}, "instance": {"const": section.instance_id}}})
        };
        conditions.push(json!({
            "if": condition,
            "then": definitions.contents(&same),
        }));
        let needed = same.iter().filter(|section| !section.optional).count();
        if !is_dump {
            let mut rule = json!({
                "contains": condition,
                "minContains": needed,
                "maxContains": same.len(),
            });
            if let Some(contains) = rule.get_mut("contains").and_then(Value::as_object_mut) {
                contains.insert("required".to_owned(), json!(["idstr", "instance"]));
            }
            present.push(rule);
        }
    }
    let idstr = if is_dump {
        json!({"type": "string"})
    } else {
        json!({"type": "string", "enum": names})
    };
    let machine = match &schema.machine {
        Some(machine) => json!({"const": machine}),
        None => json!({"type": ["string", "null"]}),
    };
    let title = schema.machine.as_deref().unwrap_or("machine");
    json!({
        "$schema": STANDARD,
        "$id": format!("urn:vmstate:machine:{}", escaped(title)),
        "title": title,
        "type": "object",
        "properties": {
            "format": {"const": VALUES},
            "machine": machine,
            "sections": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "idstr": idstr,
                        "instance": {"type": "integer", "minimum": 0, "maximum": u32::MAX},
                        "version": {"type": "integer", "minimum": 0, "maximum": u32::MAX},
                        "state": {"type": "object"},
                        "opaque": kinds::hex(None),
                    },
                    "required": ["idstr", "instance", "version"],
                    "additionalProperties": false,
                    "oneOf": [{"required": ["state"]}, {"required": ["opaque"]}],
                    "allOf": conditions,
                },
                "allOf": present,
            },
        },
        "required": ["format", "sections"],
        "additionalProperties": false,
        "$defs": definitions.finish(),
        DOCUMENT: schema.to_document(),
    })
}

/// A name in a URN.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => text.push(byte.into()),
            other => text += &format!("%{other:02X}"),
        }
    }
    text
}

/// A pattern for id strings that end with this name, behind a path or not.
fn suffix_pattern(name: &str) -> String {
    let mut text = "^(.*/)?".to_owned();
    for c in name.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '_' | ' ' | '-' | '/' | ',') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('$');
    text
}

/// A type in one of its roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Definition {
    ty: TypeId,
    /// Saved at another version than its own.
    pinned: Option<u32>,
    /// With a version in the object.
    is_subsection: bool,
    /// With its name and a version in the object.
    is_case: bool,
}

impl Definition {
    const fn of(ty: TypeId) -> Self {
        Self {
            ty,
            pinned: None,
            is_subsection: false,
            is_case: false,
        }
    }

    fn name(self) -> String {
        let pinned = self.pinned.map(|v| format!("-v{v}")).unwrap_or_default();
        let role = match (self.is_subsection, self.is_case) {
            (true, _) => "-sub",
            (_, true) => "-case",
            _ => "",
        };
        format!("type{}{pinned}{role}", self.ty.0)
    }
}

/// What is referred to, each once, however often it is embedded.
struct Definitions<'s> {
    schema: &'s Schema,
    audience: Audience,
    wanted: BTreeSet<Definition>,
    open: Vec<Definition>,
}

impl<'s> Definitions<'s> {
    const fn new(schema: &'s Schema, audience: Audience) -> Self {
        Self {
            schema,
            audience,
            wanted: BTreeSet::new(),
            open: Vec::new(),
        }
    }

    fn refer(&mut self, definition: Definition) -> Value {
        if self.wanted.insert(definition) {
            self.open.push(definition);
        }
        json!({"$ref": format!("#/$defs/{}", definition.name())})
    }

    fn finish(mut self) -> Value {
        let mut made = Map::new();
        while let Some(definition) = self.open.pop() {
            let schema = self.schema;
            if let Some(ty) = schema.get(definition.ty) {
                let value = self.define(definition, ty);
                made.insert(definition.name(), value);
            }
        }
        Value::Object(made)
    }

    /// What the sections of one name and instance have.
    fn contents(&mut self, sections: &[&Section]) -> Value {
        let mut choices = Vec::new();
        for section in sections {
            let choice = match section.ty.and_then(|id| Some((id, self.schema.get(id)?))) {
                Some((id, ty)) => {
                    let lowest = match self.audience {
                        Audience::Writer => ty.version_id,
                        Audience::Reader => ty.minimum_version_id,
                    };
                    json!({
                        "properties": {
                            "version": {"minimum": lowest, "maximum": ty.version_id},
                            "state": self.refer(Definition::of(id)),
                        },
                        "required": ["state"],
                    })
                }
                None => json!({"required": ["opaque"]}),
            };
            if !choices.contains(&choice) {
                choices.push(choice);
            }
        }
        one_or_any(choices)
    }

    fn define(&mut self, definition: Definition, ty: &Type) -> Value {
        let version = definition.pinned.unwrap_or(ty.version_id);
        let names = ty.fields.iter().map(|field| field.name.as_str());
        let keys = crate::value::unique_keys(names);
        let mut properties = Map::new();
        let mut required = Vec::new();
        if definition.is_case {
            properties.insert(TYPE.to_owned(), json!({"const": ty.name}));
            required.push(TYPE.to_owned());
        }
        if definition.is_subsection || definition.is_case {
            let lowest = match self.audience {
                Audience::Writer => version,
                Audience::Reader => ty.minimum_version_id,
            };
            let range = json!({"type": "integer", "minimum": lowest, "maximum": version});
            properties.insert(VERSION.to_owned(), range);
            required.push(VERSION.to_owned());
        }
        for (order, (field, key)) in ty.fields.iter().zip(keys).enumerate() {
            let unseen = matches!(field.element, Element::Value(Codec::Unused(_)));
            let gone = !field.conditional && !field.exists_at(version);
            let may_be_older = self.audience == Audience::Reader && version > ty.minimum_version_id;
            if field.must_exist || unseen || (gone && !may_be_older) {
                continue;
            }
            let mut property = self.field(field);
            if let Some(members) = property.as_object_mut() {
                let mut facts = field_json(field);
                if let Some(facts) = facts.as_object_mut() {
                    facts.insert("order".to_owned(), json!(order));
                }
                members.insert("x-vmstate".to_owned(), facts);
            }
            let always = !field.conditional
                && !gone
                && !(self.audience == Audience::Reader
                    && (field.default || field.version_id > ty.minimum_version_id));
            if always {
                required.push(key.clone());
            }
            properties.insert(key, property);
        }
        if !ty.subsections.is_empty() {
            let mut subsections = Map::new();
            for sub in &ty.subsections {
                let name = self.schema.get(sub.ty).map(|ty| ty.name.clone());
                let definition = Definition {
                    is_subsection: true,
                    ..Definition::of(sub.ty)
                };
                subsections.insert(name.unwrap_or_default(), self.refer(definition));
            }
            let value = json!({
                "type": "object",
                "properties": subsections,
                "additionalProperties": false,
            });
            properties.insert(SUBSECTIONS.to_owned(), value);
        }
        json!({
            "title": ty.name,
            "type": "object",
            "x-vmstate-type": {
                "name": ty.name,
                "version": ty.version_id,
                "minimum_version": ty.minimum_version_id,
            },
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    /// An embedded type in all shapes that it has.
    fn embedded(&mut self, ty: TypeId, variants: &[TypeId], pinned: Option<u32>) -> Value {
        let mut choices = Vec::new();
        for ty in std::iter::once(&ty).chain(variants) {
            let own = self.schema.get(*ty).map(|ty| ty.version_id);
            let choice = self.refer(Definition {
                pinned: pinned.filter(|version| Some(*version) != own),
                ..Definition::of(*ty)
            });
            choices.push(choice);
        }
        one_or_any(choices)
    }

    /// What a variant can be: one of its cases, which are told apart by their names.
    fn cases(&mut self, cases: &[Case]) -> Value {
        let types: BTreeSet<TypeId> = cases.iter().map(|case| case.ty).collect();
        let names: BTreeSet<&str> = types
            .iter()
            .filter_map(|ty| self.schema.get(*ty))
            .map(|ty| ty.name.as_str())
            .collect();
        let distinct = names.len() == types.len();
        let mut choices = Vec::with_capacity(types.len());
        for ty in types {
            choices.push(self.refer(Definition {
                is_case: true,
                ..Definition::of(ty)
            }));
        }
        if distinct {
            json!({ "oneOf": choices })
        } else {
            json!({ "anyOf": choices })
        }
    }

    fn node(&mut self, key: Key, value: TypeId, variants: &[TypeId]) -> Value {
        let key = match key {
            Key::Direct => kinds::unsigned64(self.audience),
            Key::Struct(ty) => self.refer(Definition::of(ty)),
        };
        json!({
            "type": "object",
            "properties": {"key": key, "value": self.embedded(value, variants, None)},
            "required": ["key", "value"],
            "additionalProperties": false,
        })
    }
}

fn one_or_any(mut choices: Vec<Value>) -> Value {
    if choices.len() == 1 {
        choices.pop().unwrap_or_default()
    } else {
        json!({ "anyOf": choices })
    }
}
