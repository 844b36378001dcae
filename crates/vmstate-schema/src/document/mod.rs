//! Schema documents: a type table as JSON, to be kept beside a machine's code and compared with it.
//!
//! The form is `vmstate-schema/1`, documented in `docs/schema-json.md`. What is equal is written equally, line by line, so that a
//! difference between two documents is a difference in the machine.

mod field;
mod read;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};
use vmstate_desc::Priority;

pub use read::{DocumentError, MAX_MEMORY, MAX_SECTIONS, MAX_TYPES};

use crate::model::{Field, Schema, Type};

/// The name of the form.
pub const FORMAT: &str = "vmstate-schema/1";

/// The priorities by name.
const PRIORITIES: [(&str, Priority); 8] = [
    ("low", Priority::Low),
    ("default", Priority::Default),
    ("iommu", Priority::Iommu),
    ("pci-bus", Priority::PciBus),
    ("virtio-mem", Priority::VirtioMem),
    ("apic", Priority::Apic),
    ("gicv3-its", Priority::GicV3Its),
    ("gicv3", Priority::GicV3),
];

impl Schema {
    /// The schema as a document.
    #[must_use]
    pub fn to_document(&self) -> Value {
        let sections: Vec<Value> = self.sections.iter().map(section).collect();
        let types: Vec<Value> = self.types().iter().map(type_json).collect();
        json!({
            "format": FORMAT,
            "origin": self.origin.name(),
            "machine": self.machine,
            "sections": sections,
            "types": types,
        })
    }

    /// The text of the document: one line for each section, subsection and field.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from("{\n");
        text += &format!(" \"format\": {},\n", json!(FORMAT));
        text += &format!(" \"origin\": {},\n", json!(self.origin.name()));
        text += &format!(" \"machine\": {},\n", json!(self.machine));
        text += " \"sections\": [\n";
        lines(&mut text, 2, self.sections.iter().map(section));
        text += " ],\n \"types\": [\n";
        for (number, ty) in self.types().iter().enumerate() {
            let mut head = type_json(ty);
            let members = head.as_object_mut();
            let lists: Vec<(&str, Value)> = ["fields", "subsections"]
                .into_iter()
                .zip(
                    members
                        .into_iter()
                        .flat_map(|m| [m.remove("fields"), m.remove("subsections")]),
                )
                .map(|(name, list)| (name, list.unwrap_or_default()))
                .collect();
            let head = head.to_string();
            text += &format!("  {}", head.trim_end_matches('}'));
            for (name, list) in lists {
                let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
                text += &format!(",\"{name}\":[");
                if !items.is_empty() {
                    text += "\n";
                    lines(&mut text, 3, items.iter().cloned());
                    text += "  ";
                }
                text += "]";
            }
            let last = number + 1 == self.types().len();
            text += if last { "}\n" } else { "},\n" };
        }
        text += " ]\n}\n";
        text
    }
}

fn lines(text: &mut String, indent: usize, items: impl Iterator<Item = Value>) {
    let mut items = items.peekable();
    while let Some(item) = items.next() {
        let comma = if items.peek().is_some() { "," } else { "" };
        *text += &format!("{:indent$}{item}{comma}\n", "");
    }
}

fn section(section: &crate::model::Section) -> Value {
    let mut members = Map::new();
    members.insert("idstr".to_owned(), json!(section.idstr));
    members.insert("instance".to_owned(), json!(section.instance_id));
    if let Some(class) = &section.class {
        members.insert("class".to_owned(), json!(class));
    }
    members.insert("type".to_owned(), json!(section.ty.map(|ty| ty.0)));
    if section.optional {
        members.insert("optional".to_owned(), json!(true));
    }
    Value::Object(members)
}

/// A type as it stands in a document.
pub(crate) fn type_json(ty: &Type) -> Value {
    let mut members = Map::new();
    members.insert("name".to_owned(), json!(ty.name));
    members.insert("version".to_owned(), json!(ty.version_id));
    members.insert("minimum_version".to_owned(), json!(ty.minimum_version_id));
    if let Some(version) = ty.readable_from {
        members.insert("readable_from".to_owned(), json!(version));
    }
    if let Some((name, _)) = PRIORITIES
        .iter()
        .find(|(_, p)| *p == ty.priority && *p != Priority::Default)
    {
        members.insert("priority".to_owned(), json!(name));
    }
    for (key, value) in [
        ("unmigratable", ty.unmigratable),
        ("early_setup", ty.early_setup),
    ] {
        if value {
            members.insert(key.to_owned(), json!(true));
        }
    }
    let fields: Vec<Value> = ty.fields.iter().map(field_json).collect();
    members.insert("fields".to_owned(), fields.into());
    let subsections: Vec<Value> = ty
        .subsections
        .iter()
        .map(|sub| {
            if sub.ignorable {
                json!({"type": sub.ty.0, "ignorable": true})
            } else {
                json!({"type": sub.ty.0})
            }
        })
        .collect();
    members.insert("subsections".to_owned(), subsections.into());
    Value::Object(members)
}

/// A field as it stands in a document.
pub(crate) fn field_json(field: &Field) -> Value {
    serde_json::to_value(field::Line::of(field)).unwrap_or_default()
}
