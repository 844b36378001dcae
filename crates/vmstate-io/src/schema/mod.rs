//! Schemas of files: streams, `-dump-vmstate` files, schema documents; and the values of a stream's devices as JSON.

mod kept;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use vmstate_desc::{DynState, SaveState};
use vmstate_schema::json_schema::VALUES;
use vmstate_schema::value::{hex, to_json, unique_names};
use vmstate_schema::{
    DocumentError, Element, Field, Origin, Schema, Section, Subsection, Type, TypeId,
};
use vmstate_wire::codec::encode;
use vmstate_wire::dump::{Dump, DumpDescription, DumpError, DumpField};

pub use kept::{SchemaFile, SchemaFileError, Update};
use vmstate_engine::Registry;

use crate::inspect::{Content, InspectError, Options, Report, analyze};
use crate::open;

/// Most bytes of a JSON file: 128 MiB. The dump of a release with all its devices has some 2 MiB.
pub const MAX_TEXT: u64 = 128 << 20;

/// How deep a dump's descriptions may be nested.
const MAX_DEPTH: u32 = vmstate_desc::MAX_DEPTH;

/// Why there is no schema.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is too large for what it is.
    #[error("{}: longer than {MAX_TEXT} bytes", .0.display())]
    TooLong(PathBuf),
    /// Not a schema document.
    #[error("{}: {error}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: DocumentError,
    },
    /// Not a dump.
    #[error("{}: {error}", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: DumpError,
    },
    /// A stream that cannot be read to its end.
    #[error("{}: {error}", path.display())]
    Stream {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: InspectError,
    },
    /// A description that no schema can hold.
    #[error(transparent)]
    Description(#[from] vmstate_desc::Error),
}

/// Reads the schema of a file: of a schema document or a JSON Schema that was made of one, of a dump, of a stream.
///
/// # Errors
/// A file that is none of these.
pub fn of_file(path: &Path, options: &Options) -> Result<Schema, SchemaError> {
    with_report(path, options).map(|(schema, _)| schema)
}

/// As [`of_file`], with all that was found out about a stream: its values, too.
///
/// # Errors
/// As [`of_file`].
pub fn with_report(
    path: &Path,
    options: &Options,
) -> Result<(Schema, Option<Report>), SchemaError> {
    match json_text(path)? {
        Some(text) => Ok((of_text(path, &text)?, None)),
        None => {
            let failed = |error| SchemaError::Io {
                path: path.to_owned(),
                error,
            };
            let mut input = open(path).map_err(failed)?;
            let analysis = analyze(&mut *input, &mut [], options);
            match analysis.failure {
                Some(error) => Err(SchemaError::Stream {
                    path: path.to_owned(),
                    error,
                }),
                None => Ok((of_report(&analysis.report)?, Some(analysis.report))),
            }
        }
    }
}

/// The text of a regular file that begins as JSON does.
fn json_text(path: &Path) -> Result<Option<Vec<u8>>, SchemaError> {
    let failed = |error| SchemaError::Io {
        path: path.to_owned(),
        error,
    };
    if path.as_os_str() == "-" {
        return Ok(None);
    }
    let mut file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(None);
    }
    let mut text = Vec::new();
    let first = (&mut file)
        .take(64)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let start = text.get(..first).unwrap_or_default().trim_ascii_start();
    if start.first() != Some(&b'{') {
        return Ok(None);
    }
    file.take(MAX_TEXT).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_TEXT {
        return Err(SchemaError::TooLong(path.to_owned()));
    }
    Ok(Some(text))
}

/// The schema of a JSON text; `path` is for messages.
///
/// # Errors
/// Text that is neither a schema document nor a dump.
pub fn of_text(path: &Path, text: &[u8]) -> Result<Schema, SchemaError> {
    if Schema::looks_like_document(text) {
        return Schema::from_text(text).map_err(|error| SchemaError::Document {
            path: path.to_owned(),
            error,
        });
    }
    let dump = Dump::parse(text).map_err(|error| SchemaError::Dump {
        path: path.to_owned(),
        error,
    })?;
    Ok(of_dump(&dump)?)
}

/// The schema of a dump: a section for each device class.
///
/// # Errors
/// Descriptions that are nested too deep.
pub fn of_dump(dump: &Dump) -> Result<Schema, vmstate_desc::Error> {
    let mut schema = Schema::new(Origin::Dump, dump.machine.clone());
    for device in &dump.devices {
        let ty = add_dumped(&mut schema, &device.description, 0)
            .map_err(|e| e.in_section(&*device.class))?;
        schema.sections.push(Section {
            idstr: device.description.name.clone(),
            instance_id: 0,
            class: Some(device.class.clone()),
            ty: Some(ty),
            optional: true,
        });
    }
    Ok(schema)
}

fn add_dumped(
    schema: &mut Schema,
    d: &DumpDescription,
    depth: u32,
) -> Result<TypeId, vmstate_desc::Error> {
    if depth >= MAX_DEPTH {
        return Err(vmstate_desc::ErrorKind::TooDeep { limit: MAX_DEPTH }.into());
    }
    let mut ty = Type::new(&*d.name, d.version_id, d.minimum_version_id);
    // Namesakes are numbered as trailers number them.
    let names = unique_names(d.fields.iter().map(|field| &*field.name));
    for (field, name) in d.fields.iter().zip(names) {
        let mut field = dumped_field(schema, field, depth)?;
        field.name = name;
        ty.fields.push(field);
    }
    for sub in &d.subsections {
        ty.subsections.push(Subsection {
            ty: add_dumped(schema, sub, depth + 1)?,
            ignorable: false,
        });
    }
    schema
        .add_type(ty)
        .ok_or_else(|| vmstate_desc::Error::format("more types than a schema can have"))
}

fn dumped_field(
    schema: &mut Schema,
    field: &DumpField,
    depth: u32,
) -> Result<Field, vmstate_desc::Error> {
    let child = match &field.description {
        Some(d) => Some(add_dumped(schema, d, depth + 1).map_err(|e| e.in_field(&field.name))?),
        None => None,
    };
    let element = Element::Memory {
        size: field.size,
        num: field.num,
        child,
    };
    let mut made = Field::new(&*field.name, element);
    made.version_id = field.version_id;
    made.conditional = field.field_exists;
    Ok(made)
}

/// The schema of a machine: of the described devices of its registry. What handlers save by themselves, as guest RAM, is left out.
///
/// # Errors
/// Descriptions that are nested too deep.
pub fn of_registry(
    machine: Option<&str>,
    registry: &Registry,
) -> Result<Schema, vmstate_desc::Error> {
    let mut schema = Schema::new(Origin::Descriptions, machine.map(str::to_owned));
    for entry in registry.entries() {
        if let Some(description) = entry.description() {
            let idstr = entry.idstr().to_string();
            schema.add_section(&idstr, entry.instance_id().0, &description)?;
        }
    }
    Ok(schema)
}

/// Sections whose content is not device state.
fn is_device(content: &Content) -> bool {
    !matches!(
        content,
        Content::Ram | Content::DirtyBitmaps(_) | Content::Left
    )
}

/// Whether nothing is known about a section but its size: its bytes are one field of a description without a name.
fn is_old_style(state: &DynState) -> bool {
    SaveState::description(state).name.is_empty()
}

/// The schema of a stream's devices, as far as the stream tells. Guest RAM and dirty bitmaps are left out.
///
/// # Errors
/// Descriptions that are nested too deep.
pub fn of_report(report: &Report) -> Result<Schema, vmstate_desc::Error> {
    let machine = report.configuration.as_ref().map(|c| c.machine.to_string());
    let mut schema = Schema::new(report.origin, machine);
    for section in report.sections.iter().filter(|s| is_device(&s.content)) {
        match &section.content {
            Content::Described(state) | Content::Dumped(state) if !is_old_style(state) => {
                schema
                    .add_state(
                        &section.idstr,
                        section.instance_id,
                        section.version_id,
                        state,
                    )
                    .map_err(|e| e.in_section(&*section.idstr))?;
            }
            _ => schema.add_opaque(&section.idstr, section.instance_id),
        }
    }
    Ok(schema)
}

/// The values of a stream's devices by their sections' names, as [`Comparison::settle`](vmstate_schema::Comparison::settle) wants
/// them.
#[must_use]
pub fn states_of(report: &Report) -> HashMap<String, &dyn SaveState> {
    let mut states: HashMap<String, &dyn SaveState> = HashMap::new();
    for section in &report.sections {
        if let Content::Described(state) = &section.content
            && !is_old_style(state)
        {
            let name = format!("{}/{}", section.idstr, section.instance_id);
            states.entry(name).or_insert(&**state);
        }
    }
    states
}

/// The values of a stream's devices in the form that [`vmstate_schema::json_schema::machine_schema`] describes.
///
/// # Errors
/// State that cannot be walked.
pub fn values_of(report: &Report) -> Result<Value, vmstate_desc::Error> {
    let mut sections = Vec::new();
    for section in report.sections.iter().filter(|s| is_device(&s.content)) {
        let mut members = Map::new();
        members.insert("idstr".to_owned(), json!(section.idstr));
        members.insert("instance".to_owned(), json!(section.instance_id));
        members.insert("version".to_owned(), json!(section.version_id));
        match &section.content {
            Content::Described(state) | Content::Dumped(state) if !is_old_style(state) => {
                let state = to_json(&**state).map_err(|e| e.in_section(&*section.idstr))?;
                members.insert("state".to_owned(), state);
            }
            Content::Opaque(bytes) => {
                members.insert("opaque".to_owned(), hex(bytes).into());
            }
            Content::Described(state) => {
                let mut bytes = Vec::new();
                encode(&**state, &mut bytes).map_err(|e| e.in_section(&*section.idstr))?;
                members.insert("opaque".to_owned(), hex(&bytes).into());
            }
            _ => continue,
        }
        sections.push(Value::Object(members));
    }
    let machine = report.configuration.as_ref().map(|c| c.machine.to_string());
    Ok(json!({ "format": VALUES, "machine": machine, "sections": sections }))
}
