//! What both sides write: one JSON object per line.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::QmpError;

/// A version number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionTriple {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

/// Which program speaks: in the greeting, and the result of `query-version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The release of QEMU, or the one whose behaviour is shown.
    pub qemu: VersionTriple,
    /// Who made the program. Often empty.
    pub package: String,
}

/// The first message of a server, inside `{"QMP": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The program.
    pub version: Version,
    /// What may be switched on with `qmp_capabilities`.
    pub capabilities: Vec<String>,
}

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00:00 UTC. −1: not known.
    pub seconds: i64,
    /// Microseconds of the second. −1: not known.
    pub microseconds: i64,
}

/// Something that happened, and that nobody asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub timestamp: Timestamp,
    /// What.
    #[serde(rename = "event")]
    pub name: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Map<String, Value>>,
}

/// A command for a server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Request {
    /// Name of the command.
    pub execute: String,
    /// Its arguments.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
    /// Comes back with the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// What the command gave, or why it was refused.
    pub outcome: Result<Value, QmpError>,
    /// That of the command.
    pub id: Option<Value>,
}

impl Response {
    /// Answers a command that has no id, or whose id cannot be told.
    #[must_use]
    pub const fn new(outcome: Result<Value, QmpError>) -> Self {
        Self { outcome, id: None }
    }

    /// As on the wire.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        match &self.outcome {
            Ok(value) => object.insert("return".to_owned(), value.clone()),
            Err(error) => object.insert(
                "error".to_owned(),
                serde_json::json!({ "class": error.class, "desc": error.desc }),
            ),
        };
        if let Some(id) = &self.id {
            object.insert("id".to_owned(), id.clone());
        }
        Value::Object(object)
    }
}

/// A message as QEMU sends it: on a line of its own, with both characters at its end.
pub(crate) fn line(message: &Value) -> Vec<u8> {
    let mut line = message.to_string().into_bytes();
    line.extend_from_slice(b"\r\n");
    line
}

/// The line of an event.
#[must_use]
pub fn event_line(event: &Event) -> Vec<u8> {
    let mut object = Map::new();
    let Timestamp {
        seconds,
        microseconds,
    } = event.timestamp;
    object.insert(
        "timestamp".to_owned(),
        serde_json::json!({ "seconds": seconds, "microseconds": microseconds }),
    );
    object.insert("event".to_owned(), event.name.clone().into());
    if let Some(data) = &event.data {
        object.insert("data".to_owned(), data.clone().into());
    }
    line(&Value::Object(object))
}
