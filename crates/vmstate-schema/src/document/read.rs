//! Reading a document.

use serde::Deserialize;
use serde_json::Value;
use vmstate_desc::{MAX_DEPTH, Priority};

use super::field::Line;
use super::{FORMAT, PRIORITIES};
use crate::model::{Element, Key, Origin, Schema, Section, Subsection, Type, TypeId};
use crate::tree::{JsonError, parse_json};

/// Most memory that a document's text may take when it is read, in bytes: 256 MiB.
pub const MAX_MEMORY: usize = 256 << 20;
/// Most types of a document. Dumps of QEMU have some 2 000.
pub const MAX_TYPES: usize = 1 << 16;

/// Most sections of a document. Dumps of QEMU have some 1 000 classes.
pub const MAX_SECTIONS: usize = 1 << 13;

/// Why a text is not a schema document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Not JSON.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// JSON of another form.
    #[error("not a schema document: {0}")]
    NoDocument(String),
    /// A part that is wrong.
    #[error("{place}: {what}")]
    Part {
        /// Where: `section 3`, `type 5 (nvme), field 2`.
        place: String,
        /// What is wrong.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    origin: String,
    machine: Option<String>,
    sections: Vec<Value>,
    types: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SectionLine {
    idstr: String,
    instance: u32,
    #[serde(default)]
    class: Option<String>,
    #[serde(rename = "type")]
    ty: Option<u32>,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeLine {
    name: String,
    version: u32,
    minimum_version: u32,
    #[serde(default)]
    readable_from: Option<u32>,
    #[serde(default)]
    priority: Option<String>,
    #[serde(default)]
    unmigratable: bool,
    #[serde(default)]
    early_setup: bool,
    fields: Vec<Value>,
    subsections: Vec<SubsectionLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubsectionLine {
    #[serde(rename = "type")]
    ty: u32,
    #[serde(default)]
    ignorable: bool,
}

impl Schema {
    /// Whether a text can be a document, or a JSON Schema that was made of one: whether it names the form.
    #[must_use]
    pub fn looks_like_document(text: &[u8]) -> bool {
        let name = format!("\"{FORMAT}\"");
        text.windows(name.len()).any(|w| w == name.as_bytes())
    }

    /// Reads the text of a document, or of a JSON Schema that was made of one.
    ///
    /// # Errors
    /// Text that is no such document, with the place; more types than [`MAX_TYPES`], types that embed each other deeper than
    /// [`MAX_DEPTH`], text that takes more than [`MAX_MEMORY`].
    pub fn from_text(text: &[u8]) -> Result<Self, DocumentError> {
        Self::from_text_within(text, MAX_MEMORY)
    }

    /// As [`Schema::from_text`], in at most `memory` bytes.
    ///
    /// # Errors
    /// As [`Schema::from_text`].
    pub fn from_text_within(text: &[u8], memory: usize) -> Result<Self, DocumentError> {
        Self::from_document(parse_json(text, memory)?)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// As [`Schema::from_text`].
    pub fn from_document(mut json: Value) -> Result<Self, DocumentError> {
        if let Some(embedded) = json.get_mut(crate::json_schema::DOCUMENT) {
            json = embedded.take();
        }
        let refused = |what: String| DocumentError::NoDocument(what);
        match json.get("format").and_then(Value::as_str) {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(refused(format!("its format is {other:?}, not {FORMAT:?}")));
            }
            None => return Err(refused(format!("it has no \"format\": {FORMAT:?}"))),
        }
        let head: Head = serde_json::from_value(json).map_err(|e| refused(e.to_string()))?;
        debug_assert_eq!(head.format, FORMAT);
        let origin = Origin::by_name(&head.origin)
            .ok_or_else(|| refused(format!("unknown origin {:?}", head.origin)))?;
        if head.types.len() > MAX_TYPES {
            return Err(refused(format!("more than {MAX_TYPES} types")));
        }
        if head.sections.len() > MAX_SECTIONS {
            return Err(refused(format!("more than {MAX_SECTIONS} sections")));
        }
        let mut schema = Self::new(origin, head.machine);
        let mut depths = Vec::with_capacity(head.types.len());
        for (number, json) in head.types.into_iter().enumerate() {
            let ty = read_type(number, json)?;
            let depth = depth_of(&ty, &depths).map_err(|what| DocumentError::Part {
                place: format!("type {number} ({})", ty.name),
                what,
            })?;
            depths.push(depth);
            schema.types.push(ty);
        }
        for (number, json) in head.sections.into_iter().enumerate() {
            let wrong = |what: String| DocumentError::Part {
                place: format!("section {number}"),
                what,
            };
            let line: SectionLine =
                serde_json::from_value(json).map_err(|e| wrong(e.to_string()))?;
            let ty = line.ty.map(TypeId);
            if let Some(ty) = ty.filter(|ty| ty.index() >= schema.types.len()) {
                return Err(wrong(format!("there is no type {}", ty.0)));
            }
            schema.sections.push(Section {
                idstr: line.idstr,
                instance_id: line.instance,
                class: line.class,
                ty,
                optional: line.optional,
            });
        }
        Ok(schema)
    }
}

fn read_type(number: usize, json: Value) -> Result<Type, DocumentError> {
    let line: TypeLine = serde_json::from_value(json).map_err(|e| DocumentError::Part {
        place: format!("type {number}"),
        what: e.to_string(),
    })?;
    let name = line.name;
    let place = format!("type {number} ({name})");
    let priority = match line.priority {
        None => Priority::Default,
        Some(name) => {
            let known = PRIORITIES.iter().find(|(known, _)| *known == name);
            let known = known.ok_or_else(|| DocumentError::Part {
                place: place.clone(),
                what: format!("unknown priority {name:?}"),
            })?;
            known.1
        }
    };
    let mut fields = Vec::with_capacity(line.fields.len());
    for (index, json) in line.fields.into_iter().enumerate() {
        let wrong = |what: String| DocumentError::Part {
            place: format!("{place}, field {index}"),
            what,
        };
        let line: Line = serde_json::from_value(json).map_err(|e| wrong(e.to_string()))?;
        fields.push(line.field().map_err(wrong)?);
    }
    Ok(Type {
        readable_from: line.readable_from,
        priority,
        unmigratable: line.unmigratable,
        early_setup: line.early_setup,
        fields,
        subsections: line
            .subsections
            .into_iter()
            .map(|sub| Subsection {
                ty: TypeId(sub.ty),
                ignorable: sub.ignorable,
            })
            .collect(),
        ..Type::new(name, line.version, line.minimum_version)
    })
}

/// How deep types are nested in this one, given the depths of those before it. It refers to those alone: so there are no circles.
fn depth_of(ty: &Type, before: &[u32]) -> Result<u32, String> {
    let mut deepest = 0;
    let mut refer = |id: TypeId| match before.get(id.index()) {
        Some(depth) => {
            deepest = deepest.max(*depth);
            Ok(())
        }
        None => Err(format!(
            "refers to type {}, which does not stand before it",
            id.0
        )),
    };
    for field in &ty.fields {
        if let Element::Tree {
            key: Key::Struct(key),
            ..
        } = field.element
        {
            refer(key)?;
        }
        field.element.child().map_or(Ok(()), &mut refer)?;
        for id in &field.variants {
            refer(*id)?;
        }
        for case in field.element.cases() {
            refer(case.ty)?;
        }
    }
    for sub in &ty.subsections {
        refer(sub.ty)?;
    }
    if deepest >= MAX_DEPTH {
        return Err(format!("types are nested deeper than {MAX_DEPTH}"));
    }
    Ok(deepest + 1)
}
