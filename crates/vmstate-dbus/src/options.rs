//! What an object is made from: QEMU's properties, from a command line or from QMP.

use std::time::Duration;

use serde::Deserialize;

use crate::id_list::IdList;
use crate::object::{DEFAULT_DEADLINE, DbusVmstate};
use crate::place::Place;

/// The object's type, as QEMU calls it.
pub const OBJECT_TYPE: &str = "dbus-vmstate";

/// An object cannot be made, found or changed. The texts are QEMU's where QEMU has the same error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsError(pub(crate) String);

impl OptionsError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn missing(name: &str) -> Self {
        Self(format!("Parameter '{name}' is missing"))
    }

    fn invalid(name: &str, why: &dyn std::fmt::Display) -> Self {
        Self(format!("Parameter '{name}' is invalid: {why}"))
    }
}

/// Properties of an object.
///
/// | property | meaning |
/// |---|---|
/// | `id` | the object's name: a letter, then letters, digits, `-`, `.`, `_` |
/// | `addr` | address of the bus; QEMU's |
/// | `id-list` | ids of the helpers that take part, and must be there, with commas in between; QEMU's |
/// | `x-peers` | instead of `addr`: addresses of helpers without a bus, with semicolons in between |
/// | `x-deadline` | milliseconds that all helpers together have for each step; 5000 |
///
/// On a command line, a comma within a value is written twice:
///
/// ```
/// use vmstate_dbus::ObjectOptions;
///
/// let options: ObjectOptions =
///     "dbus-vmstate,id=dv0,addr=unix:path=/run/vm7/bus,id-list=net0,,tpm0".parse()?;
/// assert_eq!(options.id_list.as_deref(), Some("net0,tpm0"));
/// # Ok::<(), vmstate_dbus::OptionsError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ObjectOptions {
    /// `id`
    pub id: String,
    /// `addr`
    pub addr: Option<String>,
    /// `id-list`; empty counts as none.
    pub id_list: Option<String>,
    /// `x-peers`
    pub x_peers: Option<String>,
    /// `x-deadline`
    pub x_deadline: Option<u64>,
}

impl ObjectOptions {
    /// The object that these make.
    ///
    /// # Errors
    /// What is missing, and what has no meaning.
    pub(crate) fn object(&self) -> Result<DbusVmstate, OptionsError> {
        if !is_identifier(&self.id) {
            return Err(OptionsError::new("Parameter 'id' expects an identifier"));
        }
        let place = match (&self.addr, &self.x_peers) {
            (None, None) => return Err(OptionsError::missing("addr")),
            (Some(_), Some(_)) => {
                let both = "Parameters 'addr' and 'x-peers' are mutually exclusive";
                return Err(OptionsError::new(both));
            }
            (Some(addr), None) => {
                Place::bus(addr).map_err(|error| OptionsError::invalid("addr", &error))?
            }
            (None, Some(peers)) => {
                Place::peers(peers).map_err(|error| OptionsError::invalid("x-peers", &error))?
            }
        };
        let deadline = self
            .x_deadline
            .map_or(DEFAULT_DEADLINE, Duration::from_millis);
        // A day is as good as for ever.
        if deadline.is_zero() || deadline > Duration::from_secs(86_400) {
            let range = "a number of milliseconds from 1 to 86400000";
            return Err(OptionsError::new(format!(
                "Parameter 'x-deadline' expects {range}"
            )));
        }
        let object = DbusVmstate::with_deadline(place, deadline);
        object.set_id_list(id_list(self.id_list.as_deref().unwrap_or_default())?);
        Ok(object)
    }
}

/// A list of ids, of which an empty one is none, as in QEMU.
pub(crate) fn id_list(text: &str) -> Result<Option<IdList>, OptionsError> {
    if text.is_empty() {
        return Ok(None);
    }
    let list = text.parse();
    list.map(Some)
        .map_err(|error| OptionsError::invalid("id-list", &error))
}

fn is_identifier(id: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    // The section's name, with the object's in it, has at most 255 bytes.
    id.len() <= 200 && id.starts_with(|c: char| c.is_ascii_alphabetic()) && id.chars().all(rest)
}

impl std::str::FromStr for ObjectOptions {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let mut pairs = pairs(text).into_iter();
        let kind = match pairs.next() {
            Some((kind, None)) => kind,
            Some((name, Some(value))) if name == "qom-type" => value,
            _ => return Err(OptionsError::missing("qom-type")),
        };
        if kind != OBJECT_TYPE {
            return Err(OptionsError::new(format!(
                "Parameter 'qom-type' does not accept value '{kind}'"
            )));
        }
        let mut options = Self::default();
        let mut id = None;
        for (name, value) in pairs {
            let Some(value) = value else {
                let text = format!("Expected '=' after parameter '{name}'");
                return Err(OptionsError::new(text));
            };
            match name.as_str() {
                "id" => id = Some(value),
                "addr" => options.addr = Some(value),
                "id-list" => options.id_list = Some(value),
                "x-peers" => options.x_peers = Some(value),
                "x-deadline" => {
                    let number = value.parse();
                    options.x_deadline =
                        Some(number.map_err(|_| {
                            OptionsError::new("Parameter 'x-deadline' expects uint64")
                        })?);
                }
                _ => {
                    return Err(OptionsError::new(format!(
                        "Parameter '{name}' is unexpected"
                    )));
                }
            }
        }
        options.id = id.ok_or_else(|| OptionsError::missing("id"))?;
        Ok(options)
    }
}

/// `name=value,name=value`, where `,,` in a value is a comma.
fn pairs(text: &str) -> Vec<(String, Option<String>)> {
    let mut pieces = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == ',' && letters.next_if_eq(&',').is_none() {
            pieces.push(String::new());
        } else if let Some(piece) = pieces.last_mut() {
            piece.push(letter);
        }
    }
    let split = |piece: String| match piece.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (piece, None),
    };
    pieces.into_iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ObjectOptions, String> {
        text.parse()
            .map_err(|error: OptionsError| error.to_string())
    }

    #[test]
    fn a_command_line() {
        let full =
            "dbus-vmstate,id=d.v-0_,addr=unix:path=/a,,guid=00,id-list=a,,b,,,,c,x-deadline=250";
        let options = parse(full).unwrap();
        assert_eq!(
            options,
            ObjectOptions {
                id: "d.v-0_".to_owned(),
                addr: Some("unix:path=/a,guid=00".to_owned()),
                id_list: Some("a,b,,c".to_owned()),
                x_peers: None,
                x_deadline: Some(250),
            }
        );
        assert!(parse("qom-type=dbus-vmstate,id=a,x-peers=unix:path=/a;unix:path=/b").is_ok());
        for (wrong, why) in [
            ("", "Parameter 'qom-type' does not accept value ''"),
            (
                "rng-random,id=a",
                "Parameter 'qom-type' does not accept value 'rng-random'",
            ),
            ("id=a", "Parameter 'qom-type' is missing"),
            ("dbus-vmstate", "Parameter 'id' is missing"),
            ("dbus-vmstate,id", "Expected '=' after parameter 'id'"),
            ("dbus-vmstate,id=a,x=1", "Parameter 'x' is unexpected"),
            (
                "dbus-vmstate,id=a,x-deadline=soon",
                "Parameter 'x-deadline' expects uint64",
            ),
        ] {
            assert_eq!(parse(wrong), Err(why.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn objects() {
        let object = |text: &str| {
            let options: ObjectOptions = text.parse().unwrap();
            options.object().map_err(|error| error.to_string())
        };
        let good = object("dbus-vmstate,id=a,addr=unix:path=/a,id-list=x,,y").unwrap();
        assert_eq!(good.place().to_string(), "unix:path=/a");
        assert!(good.id_list().unwrap().contains("y"));
        assert_eq!(good.deadline(), DEFAULT_DEADLINE);
        let none = object("dbus-vmstate,id=a,addr=unix:path=/a,id-list=").unwrap();
        assert_eq!(none.id_list(), None);
        for (wrong, why) in [
            ("id=a", "Parameter 'addr' is missing"),
            (
                "id=1a,addr=unix:path=/a",
                "Parameter 'id' expects an identifier",
            ),
            (
                "id=a/b,addr=unix:path=/a",
                "Parameter 'id' expects an identifier",
            ),
            (
                "id=a,addr=unix:path=/a,x-peers=unix:path=/b",
                "Parameters 'addr' and 'x-peers' are mutually exclusive",
            ),
            (
                "id=a,addr=unix:path=/a,id-list=,,",
                "Parameter 'id-list' is invalid: an id of 0 bytes is listed, must be 1 to 255",
            ),
            (
                "id=a,addr=unix:path=/a,x-deadline=0",
                "Parameter 'x-deadline' expects a number of milliseconds from 1 to 86400000",
            ),
        ] {
            let text = format!("dbus-vmstate,{wrong}");
            assert_eq!(object(&text).map(drop), Err(why.to_owned()), "{wrong}");
        }
        let nowhere = object("dbus-vmstate,id=a,addr=nowhere").unwrap_err();
        assert!(nowhere.starts_with("Parameter 'addr' is invalid: 'nowhere' is no D-Bus address"));
    }
}
