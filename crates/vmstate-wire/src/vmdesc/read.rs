//! Reading the JSON trailer: each device's entry becomes a template that its section's bytes are decoded into.
//!
//! A trailer describes what was sent, not what could be sent: absent fields have left no trace. Where it says too little or
//! too much (arrays of pointers, see the repairs in [`super::lower`]) there are several readings; the section's bytes
//! decide, since it must end where its footer stands.

use std::collections::HashMap;

use vmstate_desc::{DynState, Error, ErrorKind, Limits, load_with};

use super::VmdescDialect;
use super::lower::{Choices, lower_description};
use crate::codec::QemuIn;
use crate::json::{Json, JsonError, JsonErrorKind};

/// How many readings of one device are tried.
const MAX_READINGS: u32 = 64;

/// How deep the JSON of a trailer may be nested: three levels per description.
const MAX_JSON_DEPTH: usize = 256;

/// A parsed trailer. Borrows from its text.
#[derive(Debug, Clone)]
pub struct Trailer<'a> {
    page_size: Option<u64>,
    configuration: Option<Json<'a>>,
    devices: Vec<Device<'a>>,
    /// Positions in `devices` by identity.
    index: HashMap<(String, u32), Vec<usize>>,
    dialect: VmdescDialect,
    memory: u64,
}

/// A device's entry.
#[derive(Debug, Clone)]
pub struct Device<'a> {
    idstr: String,
    instance_id: u32,
    entry: Json<'a>,
}

/// Why a text is not a trailer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrailerError {
    /// Not JSON.
    #[error("the description trailer is not readable: {0}")]
    Json(#[from] JsonError),
    /// JSON, but not a trailer.
    #[error("the description trailer has no {0}")]
    Missing(&'static str),
}

impl TrailerError {
    /// Whether it is a limit of this end that was reached.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::Json(JsonError {
                kind: JsonErrorKind::TooLarge { .. },
                ..
            })
        )
    }
}

/// A section's payload, decoded.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The values.
    pub state: DynState,
    /// Bytes that they took.
    pub used: usize,
}

impl<'a> Trailer<'a> {
    /// Parses the text of a trailer. Devices are looked into when they are decoded.
    ///
    /// # Errors
    /// Text that is not JSON, or has no list of devices with names and instance ids.
    pub fn parse(text: &'a [u8]) -> Result<Self, TrailerError> {
        Self::parse_within(text, u64::MAX)
    }

    /// As [`Trailer::parse`], in at most `memory` bytes beside the text: a hostile text of two bytes an item takes many times its
    /// own length.
    ///
    /// # Errors
    /// As [`Trailer::parse`], and [`TrailerError::is_limit`].
    pub fn parse_within(text: &'a [u8], memory: u64) -> Result<Self, TrailerError> {
        let limit = usize::try_from(memory).unwrap_or(usize::MAX);
        let (json, taken) = Json::parse_within(text, MAX_JSON_DEPTH, limit)?;
        let Json::Object(members) = json else {
            return Err(TrailerError::Missing("object at the top"));
        };
        let mut trailer = Self {
            page_size: None,
            configuration: None,
            devices: Vec::new(),
            index: HashMap::new(),
            dialect: VmdescDialect::V7_2,
            memory: taken as u64,
        };
        let mut evidence = Evidence::default();
        for (key, value) in members {
            match (&*key, value) {
                ("page_size", value) => trailer.page_size = value.as_u64(),
                ("configuration", value) => {
                    evidence.configuration = true;
                    trailer.configuration = Some(value);
                }
                ("devices", Json::Array(devices)) => {
                    trailer.devices.reserve(devices.len());
                    for entry in devices {
                        evidence.look(&entry);
                        let device = Device::new(entry)?;
                        let identity = (device.idstr.clone(), device.instance_id);
                        let position = trailer.devices.len();
                        trailer.index.entry(identity).or_default().push(position);
                        trailer.devices.push(device);
                    }
                }
                _ => {}
            }
        }
        trailer.dialect = evidence.dialect();
        Ok(trailer)
    }

    /// Bytes of memory that the parsed text takes, beside the text.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.memory
    }

    /// Target page size in bytes.
    #[must_use]
    pub const fn page_size(&self) -> Option<u64> {
        self.page_size
    }

    /// The description of the configuration section, in the form of a device's entry.
    #[must_use]
    pub const fn configuration(&self) -> Option<&Json<'a>> {
        self.configuration.as_ref()
    }

    /// The devices, in the order of their sections.
    #[must_use]
    pub fn devices(&self) -> &[Device<'a>] {
        &self.devices
    }

    /// The entry of the section with this identity.
    #[must_use]
    pub fn device(&self, idstr: &str, instance_id: u32) -> Option<&Device<'a>> {
        self.device_after(idstr, instance_id, 0)
    }

    /// The entry of the section with this identity that comes after `before` others of the same identity. Old-style devices such
    /// as `slirp` can share name and instance id.
    #[must_use]
    pub fn device_after(
        &self,
        idstr: &str,
        instance_id: u32,
        before: usize,
    ) -> Option<&Device<'a>> {
        let same = self.index.get(&(idstr.to_owned(), instance_id))?;
        self.devices.get(*same.get(before)?)
    }

    /// The generation that wrote this trailer, as far as it shows.
    #[must_use]
    pub const fn dialect(&self) -> VmdescDialect {
        self.dialect
    }
}

impl<'a> Device<'a> {
    fn new(entry: Json<'a>) -> Result<Self, TrailerError> {
        let idstr = entry
            .get("name")
            .and_then(Json::as_str)
            .ok_or(TrailerError::Missing("name of a device"))?
            .to_owned();
        let instance_id = entry
            .get("instance_id")
            .and_then(Json::as_u64)
            .and_then(|id| u32::try_from(id).ok())
            .ok_or(TrailerError::Missing("instance id of a device"))?;
        Ok(Self {
            idstr,
            instance_id,
            entry,
        })
    }

    /// Id string of the section.
    #[must_use]
    pub fn idstr(&self) -> &str {
        &self.idstr
    }

    /// Instance id of the section.
    #[must_use]
    pub const fn instance_id(&self) -> u32 {
        self.instance_id
    }

    /// The entry as it stands in the trailer.
    #[must_use]
    pub const fn entry(&self) -> &Json<'a> {
        &self.entry
    }

    /// Size of an old-style device, of which nothing but its size is known.
    #[must_use]
    pub fn opaque_size(&self) -> Option<u64> {
        if self.entry.get("vmsd_name").is_some() {
            return None;
        }
        self.entry.get("size").and_then(Json::as_u64)
    }

    /// Whether the entry has arrays that may be arrays of pointers with holes, which no generation describes in every case. If
    /// such a device cannot be decoded, the trailer may be at fault and not the stream.
    #[must_use]
    pub fn may_leave_holes_open(&self) -> bool {
        leaves_holes_open(&self.entry)
    }

    /// Decodes the section's payload, which begins at `bytes` and stands at `base` in the stream. `ends_here` is asked
    /// with what follows the payload: whether a section can end there. With `partial`, more bytes may follow.
    ///
    /// # Errors
    /// Of the first reading, if none fits: field path, byte offset, expected and found. With `partial`,
    /// [`ErrorKind::UnexpectedEnd`] means that more bytes are needed.
    pub fn decode(
        &self,
        bytes: &[u8],
        base: u64,
        partial: bool,
        limits: Limits,
        ends_here: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Decoded, Error> {
        decode_entry(&self.entry, bytes, base, partial, limits, ends_here)
            .map_err(|e| e.in_section(&*self.idstr))
    }
}

fn leaves_holes_open(json: &Json<'_>) -> bool {
    match json {
        Json::Array(items) => items.iter().any(leaves_holes_open),
        Json::Object(members) => {
            let ty = json.get("type").and_then(Json::as_str);
            let pointers = matches!(ty, Some("struct" | "timer" | "nullptr" | "ptr-marker"));
            let len = json.get("array_len").and_then(Json::as_u64);
            // QEMU counts in an `int`: a longer array is a lie, not a gap.
            (pointers && len.is_some_and(|len| i32::try_from(len).is_ok()))
                || members.iter().any(|(_, value)| leaves_holes_open(value))
        }
        _ => false,
    }
}

/// Decodes what `entry` describes: a device, or the configuration.
///
/// # Errors
/// As [`Device::decode`].
pub fn decode_entry(
    entry: &Json<'_>,
    bytes: &[u8],
    base: u64,
    partial: bool,
    limits: Limits,
    ends_here: &dyn Fn(&[u8]) -> bool,
) -> Result<Decoded, Error> {
    let mut choices = Choices::default();
    let mut first_error = None;
    for _ in 0..MAX_READINGS {
        match decode_reading(entry, &mut choices, bytes, base, partial, limits) {
            Ok(decoded) => {
                let rest = bytes.get(decoded.used..).unwrap_or_default();
                if ends_here(rest) {
                    return Ok(decoded);
                }
                let at = base.saturating_add(decoded.used as u64);
                first_error.get_or_insert_with(|| {
                    Error::format(
                        "the section's content and its description disagree: no section can end here",
                    )
                    .at_offset(at)
                });
            }
            Err(e) => {
                if partial && matches!(e.kind(), ErrorKind::UnexpectedEnd { .. }) {
                    return Err(e);
                }
                first_error.get_or_insert(e);
            }
        }
        if !choices.advance() {
            break;
        }
    }
    Err(first_error.unwrap_or_else(|| Error::format("the description has no reading")))
}

fn decode_reading(
    entry: &Json<'_>,
    choices: &mut Choices,
    bytes: &[u8],
    base: u64,
    partial: bool,
    limits: Limits,
) -> Result<Decoded, Error> {
    choices.restart();
    let members = entry
        .as_object()
        .ok_or_else(|| Error::format("a device's description is not an object"))?;
    let mut state = lower_description(members, choices, limits.memory)?;
    let version = vmstate_desc::SaveState::description(&state).version_id;
    let mut input = if partial {
        QemuIn::partial(bytes)
    } else {
        QemuIn::new(bytes)
    }
    .at(base);
    load_with(&mut state, version, &mut input, limits)?;
    Ok(Decoded {
        state,
        used: input.position(),
    })
}

/// Signs of the generation.
#[derive(Debug, Default)]
struct Evidence {
    configuration: bool,
    index: bool,
    nullptr: bool,
    ptr_marker: bool,
}

impl Evidence {
    fn look(&mut self, json: &Json<'_>) {
        match json {
            Json::Array(items) => items.iter().for_each(|item| self.look(item)),
            Json::Object(members) => {
                for (key, value) in members {
                    match (&**key, value) {
                        ("index", _) => self.index = true,
                        ("type", Json::String(ty)) => match &**ty {
                            "nullptr" => self.nullptr = true,
                            "ptr-marker" => self.ptr_marker = true,
                            _ => {}
                        },
                        (_, Json::Array(_) | Json::Object(_)) => self.look(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    const fn dialect(&self) -> VmdescDialect {
        if self.ptr_marker {
            VmdescDialect::V11_1
        } else if !self.configuration {
            VmdescDialect::V7_2
        } else if self.nullptr || self.index {
            VmdescDialect::V10_0
        } else {
            VmdescDialect::V11_1
        }
    }
}
