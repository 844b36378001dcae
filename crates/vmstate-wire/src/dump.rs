//! `-dump-vmstate` files: what a QEMU release says about all of its devices, and reading a section with it.
//!
//! The file lists the description of every device class: names, versions, sizes in memory. It has neither types nor run-time
//! counts nor the answers of predicates. [`Dump::decode`] therefore looks for a reading of a section's payload that uses every
//! byte: conditional fields may be there or not, and a count may be any integer that was read before.
//!
//! Wire: `qemu-system-… -machine M -dump-vmstate FILE`, QEMU 7.2 to 11.1.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod search;
#[cfg(test)]
mod tests;

use vmstate_desc::DynState;

use crate::json::{Json, JsonError};

/// A parsed dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// The machine type that the file was made for.
    pub machine: Option<String>,
    /// The device classes that have a description.
    pub devices: Vec<DumpDevice>,
    /// What every machine has, although no device class describes it.
    core: Vec<DumpDevice>,
}

/// A device class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpDevice {
    /// Name of the class, such as `isa-serial`.
    pub class: String,
    /// Its description.
    pub description: DumpDescription,
}

/// A description, as far as a dump tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpDescription {
    /// Name.
    pub name: String,
    /// Version that is saved, and the highest that can be loaded.
    pub version_id: u32,
    /// Lowest version that can be loaded.
    pub minimum_version_id: u32,
    /// Fields, in wire order, without validators.
    pub fields: Vec<DumpField>,
    /// Subsections.
    pub subsections: Vec<DumpDescription>,
}

/// A field, as far as a dump tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpField {
    /// Name.
    pub name: String,
    /// First version that has it.
    pub version_id: u32,
    /// Its presence is decided by a predicate.
    pub field_exists: bool,
    /// Number of elements of a fixed array (since QEMU 8.1).
    pub num: Option<u32>,
    /// Size of an element in the memory of the host, in bytes.
    pub size: u64,
    /// The description of an element.
    pub description: Option<Box<DumpDescription>>,
}

/// Why a text is not a dump.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// Not JSON.
    #[error("not readable as a -dump-vmstate file: {0}")]
    Json(#[from] JsonError),
    /// JSON of another shape.
    #[error("not a -dump-vmstate file: {0}")]
    Shape(&'static str),
}

impl Dump {
    /// Parses the text of a dump.
    ///
    /// # Errors
    /// Text that is not JSON, or has no device with a description.
    pub fn parse(text: &[u8]) -> Result<Self, DumpError> {
        let json = Json::parse_with_depth(text, 256)?;
        let members = json.as_object().ok_or(DumpError::Shape("no object"))?;
        let mut dump = Self {
            machine: None,
            devices: Vec::new(),
            core: core_sections(),
        };
        for (class, value) in members {
            if class == "vmschkmachine" {
                dump.machine = value.get("Name").and_then(Json::as_str).map(str::to_owned);
            } else if let Some(description) = value.get("Description") {
                dump.devices.push(DumpDevice {
                    class: class.to_string(),
                    description: description_of(description)?,
                });
            }
        }
        if dump.devices.is_empty() {
            return Err(DumpError::Shape("it describes no device"));
        }
        Ok(dump)
    }

    /// The classes whose description can be that of a section with this id string and version. The id string is the
    /// description's name, behind the device's path and a slash if it has one.
    pub fn candidates<'d>(
        &'d self,
        idstr: &'d str,
        version: u32,
    ) -> impl Iterator<Item = &'d DumpDevice> {
        self.devices.iter().chain(&self.core).filter(move |device| {
            let d = &device.description;
            let named = idstr
                .strip_suffix(d.name.as_str())
                .is_some_and(|path| path.is_empty() || path.ends_with('/'));
            named && (d.minimum_version_id..=d.version_id).contains(&version)
        })
    }

    /// Reads a section's payload with the first description that has a reading which uses all of it. `None`: there is none,
    /// or it would take too long to find.
    #[must_use]
    pub fn decode(&self, idstr: &str, version: u32, payload: &[u8]) -> Option<DynState> {
        self.candidates(idstr, version)
            .find_map(|device| search::read(&device.description, version, payload))
    }
}

fn number(json: &Json<'_>, key: &str) -> Option<u64> {
    json.get(key).and_then(Json::as_u64)
}

fn version(json: &Json<'_>, key: &str) -> u32 {
    number(json, key)
        .and_then(|v| u32::try_from(v).ok())
        .unwrap_or(0)
}

fn description_of(json: &Json<'_>) -> Result<DumpDescription, DumpError> {
    let name = json
        .get("name")
        .and_then(Json::as_str)
        .ok_or(DumpError::Shape("a description without a name"))?;
    let list = |key| json.get(key).and_then(Json::as_array).unwrap_or_default();
    Ok(DumpDescription {
        name: name.to_owned(),
        version_id: version(json, "version_id"),
        minimum_version_id: version(json, "minimum_version_id"),
        fields: list("Fields")
            .iter()
            .map(field_of)
            .collect::<Result<_, _>>()?,
        subsections: list("Subsections")
            .iter()
            .map(description_of)
            .collect::<Result<_, _>>()?,
    })
}

fn field_of(json: &Json<'_>) -> Result<DumpField, DumpError> {
    let name = json
        .get("field")
        .and_then(Json::as_str)
        .ok_or(DumpError::Shape("a field without a name"))?;
    Ok(DumpField {
        name: name.to_owned(),
        version_id: version(json, "version_id"),
        field_exists: matches!(json.get("field_exists"), Some(Json::Bool(true))),
        num: number(json, "num").and_then(|n| u32::try_from(n).ok()),
        size: number(json, "size").unwrap_or(0),
        description: json
            .get("Description")
            .map(description_of)
            .transpose()?
            .map(Box::new),
    })
}

/// Sections of the core, which belong to no device class.
fn core_sections() -> Vec<DumpDevice> {
    let field = |name: &str, num, size| DumpField {
        name: name.to_owned(),
        version_id: 0,
        field_exists: false,
        num,
        size,
        description: None,
    };
    let description = |name: &str, version, fields| DumpDescription {
        name: name.to_owned(),
        version_id: version,
        minimum_version_id: version,
        fields,
        subsections: Vec::new(),
    };
    let mut cpu_common = description(
        "cpu_common",
        1,
        vec![
            field("halted", None, 4),
            field("interrupt_request", None, 4),
        ],
    );
    cpu_common.subsections = vec![
        description(
            "cpu_common/exception_index",
            1,
            vec![field("exception_index", None, 4)],
        ),
        description(
            "cpu_common/crash_occurred",
            1,
            vec![field("crash_occurred", None, 1)],
        ),
    ];
    [
        description(
            "timer",
            2,
            vec![
                field("cpu_ticks_offset", None, 8),
                field("unused", None, 8),
                field("cpu_clock_offset", None, 8),
            ],
        ),
        cpu_common,
        description(
            "globalstate",
            1,
            vec![field("size", None, 4), field("runstate", None, 100)],
        ),
    ]
    .into_iter()
    .map(|description| DumpDevice {
        class: description.name.clone(),
        description,
    })
    .collect()
}
