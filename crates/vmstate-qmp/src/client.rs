//! The client's side of a dialogue.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::QmpError;
use crate::json::{JsonError, JsonLimits, JsonStream};
use crate::message::{Event, Greeting, Request, line};

/// Which command a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(u64);

/// What a server's bytes came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// The server's first message. Answer with `qmp_capabilities`.
    Greeting(Greeting),
    /// What a command gave.
    Reply(CommandId, Result<Value, QmpError>),
    /// Something happened.
    Event(Event),
}

/// A server that does not speak QMP, or not now. The connection is of no further use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Bytes that are no JSON.
    #[error("the other side does not speak QMP: {0}")]
    Json(#[from] JsonError),
    /// A first message that is no greeting.
    #[error("the other side does not begin with a QMP greeting but with: {0}")]
    NoGreeting(String),
    /// A message that is no reply, no event, and no first greeting.
    #[error("unexpected message of the QMP server: {0}")]
    Unexpected(String),
    /// A reply to a command that was not sent, or is answered already.
    #[error("reply of the QMP server to no command of ours: {0}")]
    NotAsked(String),
}

/// The client's side: gives commands numbers, and tells replies from events.
///
/// ```
/// use serde_json::{Map, json};
/// use vmstate_qmp::{Client, Received};
///
/// # fn main() -> Result<(), vmstate_qmp::ProtocolError> {
/// let mut client = Client::new();
/// let mut bytes = &br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""},
///                      "capabilities": ["oob"]}}"#[..];
/// let Some(Received::Greeting(greeting)) = client.receive(&mut bytes)? else { panic!() };
/// assert_eq!(greeting.version.qemu.major, 7);
///
/// let (id, line) = client.command("qmp_capabilities", Map::new());
/// assert_eq!(line, b"{\"execute\":\"qmp_capabilities\",\"id\":1}\r\n");
/// let reply = client.receive(&mut &br#"{"return": {}, "id": 1}"#[..])?;
/// assert_eq!(reply, Some(Received::Reply(id, Ok(json!({})))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    input: JsonStream,
    greeted: bool,
    last: u64,
    waiting: BTreeSet<u64>,
}

impl Client {
    /// A client that has received nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            input: JsonStream::new(JsonLimits::REPLY),
            greeted: false,
            last: 0,
            waiting: BTreeSet::new(),
        }
    }

    /// The line of a command.
    #[must_use]
    pub fn command(&mut self, name: &str, arguments: Map<String, Value>) -> (CommandId, Vec<u8>) {
        let (id, request) = self.request(name, arguments);
        (id, line(&json!(request)))
    }

    /// The line of a command that a server runs at once, whatever the commands before it wait for. Only after `oob` has been
    /// enabled by `qmp_capabilities`.
    #[must_use]
    pub fn out_of_band(
        &mut self,
        name: &str,
        arguments: Map<String, Value>,
    ) -> (CommandId, Vec<u8>) {
        let (id, request) = self.request(name, arguments);
        let mut message = Map::new();
        message.insert("exec-oob".to_owned(), request.execute.into());
        if !request.arguments.is_empty() {
            message.insert("arguments".to_owned(), request.arguments.into());
        }
        message.insert("id".to_owned(), json!(request.id));
        (id, line(&message.into()))
    }

    fn request(&mut self, name: &str, arguments: Map<String, Value>) -> (CommandId, Request) {
        self.last += 1;
        self.waiting.insert(self.last);
        let request = Request {
            execute: name.to_owned(),
            arguments,
            id: Some(self.last.into()),
        };
        (CommandId(self.last), request)
    }

    /// How many commands have been sent that are not answered yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// Takes bytes of the server, up to the end of a message. `None`: all bytes are taken, and more are needed.
    ///
    /// # Errors
    /// What no QMP server says.
    pub fn receive(&mut self, bytes: &mut &[u8]) -> Result<Option<Received>, ProtocolError> {
        let Some(message) = self.input.take(bytes).transpose()? else {
            return Ok(None);
        };
        let received = if self.greeted {
            self.message(message)?
        } else {
            self.greeted = true;
            let greeting = message.get("QMP").cloned();
            let greeting = greeting.and_then(|g| serde_json::from_value(g).ok());
            Received::Greeting(greeting.ok_or_else(|| ProtocolError::NoGreeting(shown(&message)))?)
        };
        Ok(Some(received))
    }

    fn message(&mut self, message: Value) -> Result<Received, ProtocolError> {
        if message.get("event").is_some() {
            let event = serde_json::from_value(message.clone());
            return event
                .map(Received::Event)
                .map_err(|_| ProtocolError::Unexpected(shown(&message)));
        }
        let outcome = match (message.get("return"), message.get("error")) {
            (Some(value), None) => Ok(value.clone()),
            (None, Some(error)) => match serde_json::from_value(error.clone()) {
                Ok(error) => Err(error),
                Err(_) => return Err(ProtocolError::Unexpected(shown(&message))),
            },
            _ => return Err(ProtocolError::Unexpected(shown(&message))),
        };
        match message.get("id").and_then(Value::as_u64) {
            Some(id) if self.waiting.remove(&id) => Ok(Received::Reply(CommandId(id), outcome)),
            _ => Err(ProtocolError::NotAsked(shown(&message))),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

/// The beginning of a message, for people.
fn shown(message: &Value) -> String {
    const MOST: usize = 120;
    let text = message.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests;
