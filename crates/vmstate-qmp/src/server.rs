//! The server's side of a dialogue.

use serde_json::{Map, Value, json};

use crate::json::{JsonLimits, JsonStream};
use crate::message::{Greeting, Request, Response, Version, line};
use crate::schema::{Member, Shape, Type, check_arguments};
use crate::{ErrorClass, QmpError};

/// What one client has to say, and what to say to it.
///
/// A dialogue begins with the [greeting](Dialogue::greeting). Until the client has sent `qmp_capabilities`, every other
/// command is refused, and it gets no events. Commands out of band are understood once they have been
/// [offered](Dialogue::with_out_of_band) and the client has enabled `oob`.
///
/// ```
/// use serde_json::json;
/// use vmstate_qmp::{Dialogue, Incoming, Version, VersionTriple};
///
/// let qemu = VersionTriple { major: 11, minor: 1, micro: 3 };
/// let mut dialogue = Dialogue::new(Version { qemu, package: String::new() });
/// assert!(dialogue.greeting().starts_with(br#"{"QMP":{"version":{"qemu":{"major":11,"#));
///
/// let mut bytes = &br#"{"execute":"qmp_capabilities"} {"execute":"stop","id":7}"#[..];
/// let Some(Incoming::Reply(reply)) = dialogue.receive(&mut bytes) else { panic!() };
/// assert_eq!(reply, b"{\"return\":{}}\r\n");
/// let Some(Incoming::Command(request)) = dialogue.receive(&mut bytes) else { panic!() };
/// assert_eq!((request.execute.as_str(), request.id), ("stop", Some(json!(7))));
/// assert!(dialogue.receive(&mut bytes).is_none());
/// ```
#[derive(Debug)]
pub struct Dialogue {
    input: JsonStream,
    version: Version,
    negotiated: bool,
    oob: OutOfBand,
}

/// How far commands out of band have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutOfBand {
    NotOffered,
    Offered,
    Enabled,
}

/// What the capability is called.
const OOB: &str = "oob";

/// What a client's bytes came to.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// Nothing to be done but to send this line.
    Reply(Vec<u8>),
    /// A command to be run and answered, after those before it.
    Command(Request),
    /// A command to be run and answered at once, even if one before it still runs.
    OutOfBand(Request),
}

const QMP_CAPABILITIES: Shape =
    Shape::of(&[Member::optional("enable", Type::List(&Type::Enum(&[OOB])))]);

impl Dialogue {
    /// A dialogue that has not begun.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self {
            input: JsonStream::new(JsonLimits::COMMAND),
            version,
            negotiated: false,
            oob: OutOfBand::NotOffered,
        }
    }

    /// Offers commands out of band. Whoever does must be able to run such a command while another one runs.
    #[must_use]
    pub const fn with_out_of_band(mut self) -> Self {
        self.oob = OutOfBand::Offered;
        self
    }

    /// Whether the client has enabled commands out of band.
    #[must_use]
    pub fn is_out_of_band(&self) -> bool {
        self.oob == OutOfBand::Enabled
    }

    /// The line that the server begins with.
    #[must_use]
    pub fn greeting(&self) -> Vec<u8> {
        let capabilities = match self.oob {
            OutOfBand::NotOffered => Vec::new(),
            OutOfBand::Offered | OutOfBand::Enabled => vec![OOB.to_owned()],
        };
        let greeting = Greeting {
            version: self.version.clone(),
            capabilities,
        };
        line(&json!({ "QMP": greeting }))
    }

    /// Whether the client is told of events.
    #[must_use]
    pub const fn wants_events(&self) -> bool {
        self.negotiated
    }

    /// Takes bytes of the client, up to the end of what has to be answered next. `None`: all bytes are taken, and more
    /// are needed.
    pub fn receive(&mut self, bytes: &mut &[u8]) -> Option<Incoming> {
        let value = match self.input.take(bytes)? {
            Ok(value) => value,
            Err(e) => return Some(reply(&Response::new(Err(QmpError::generic(e))))),
        };
        let id = value.get("id").filter(|_| value.is_object()).cloned();
        let outcome =
            request(value, self.is_out_of_band()).and_then(|(kind, execute, arguments)| {
                match (execute.as_str(), self.negotiated) {
                    (_, true) if kind == Kind::OutOfBand => Ok(Ok((kind, execute, arguments))),
                    ("qmp_capabilities", false) => self.negotiate(arguments).map(Err),
                    ("qmp_capabilities", true) => Err(QmpError {
                        class: ErrorClass::CommandNotFound,
                        desc: "Capabilities negotiation is already complete, command ignored"
                            .to_owned(),
                    }),
                    (_, false) => Err(QmpError {
                        class: ErrorClass::CommandNotFound,
                        desc: "Expecting capabilities negotiation with 'qmp_capabilities'"
                            .to_owned(),
                    }),
                    (_, true) => Ok(Ok((kind, execute, arguments))),
                }
            });
        Some(match outcome {
            Ok(Ok((kind, execute, arguments))) => kind.incoming(Request {
                execute,
                arguments,
                id,
            }),
            Ok(Err(value)) => reply(&Response {
                outcome: Ok(value),
                id,
            }),
            Err(error) => reply(&Response {
                outcome: Err(error),
                id,
            }),
        })
    }

    fn negotiate(&mut self, mut arguments: Map<String, Value>) -> Result<Value, QmpError> {
        check_arguments(&QMP_CAPABILITIES, &mut arguments)?;
        if arguments
            .get("enable")
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
        {
            if self.oob == OutOfBand::NotOffered {
                return Err(QmpError::generic("Capability 'oob' is not available"));
            }
            self.oob = OutOfBand::Enabled;
        }
        self.negotiated = true;
        Ok(json!({}))
    }

    /// The line of an answer.
    #[must_use]
    pub fn answer(response: &Response) -> Vec<u8> {
        line(&response.to_json())
    }
}

fn reply(response: &Response) -> Incoming {
    Incoming::Reply(Dialogue::answer(response))
}

/// How a command is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    InBand,
    OutOfBand,
}

impl Kind {
    fn incoming(self, request: Request) -> Incoming {
        match self {
            Self::InBand => Incoming::Command(request),
            Self::OutOfBand => Incoming::OutOfBand(request),
        }
    }
}

/// Kind, name and arguments of a command.
fn request(value: Value, oob: bool) -> Result<(Kind, String, Map<String, Value>), QmpError> {
    let Value::Object(members) = value else {
        return Err(QmpError::generic("QMP input must be a JSON object"));
    };
    let member = |name: &str, what: &str| {
        Err(QmpError::generic(format_args!(
            "QMP input member '{name}' {what}"
        )))
    };
    let (mut execute, mut arguments) = (None, Map::new());
    for (name, value) in members {
        let kind = match name.as_str() {
            "execute" => Some(Kind::InBand),
            "exec-oob" if oob => Some(Kind::OutOfBand),
            _ => None,
        };
        if let Some(kind) = kind {
            let Value::String(command) = value else {
                return member(&name, "must be a string");
            };
            if execute.is_some() {
                return member("execute", "clashes with 'exec-oob'");
            }
            execute = Some((kind, command));
            continue;
        }
        match (name.as_str(), value) {
            ("arguments", Value::Object(given)) => arguments = given,
            ("arguments", _) => return member("arguments", "must be an object"),
            ("id", _) => {}
            _ => return member(&name, "is unexpected"),
        }
    }
    let lacks = || QmpError::generic("QMP input lacks member 'execute'");
    let (kind, command) = execute.ok_or_else(lacks)?;
    Ok((kind, command, arguments))
}

#[cfg(test)]
mod tests;
