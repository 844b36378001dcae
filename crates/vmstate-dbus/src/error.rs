//! What goes wrong with helpers.

use std::fmt;
use std::io;
use std::time::Duration;

use vmstate_wire::helpers::{BlobError, MAX_STATE};

use crate::INTERFACE;
use crate::link::MAX_MESSAGE;

/// Most characters of a helper's own words that are repeated.
const WORDS: usize = 300;

/// What was asked of a helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A connection, peer to peer.
    Connect,
    /// The property `Id`.
    Id,
    /// Introspection, for further objects.
    Introspect,
    /// The method `Save`.
    Save,
    /// The method `Load`.
    Load,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Id => "reading its Id",
            Self::Introspect => "looking at its objects",
            Self::Save => "Save",
            Self::Load => "Load",
        })
    }
}

/// In which way a helper, or the bus, did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It answered with an error.
    #[error("{name}: {text}")]
    Refused {
        /// The error's D-Bus name.
        name: String,
        /// Its text, shortened.
        text: String,
    },
    /// It did not answer before the deadline.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// It has gone away.
    #[error("it has gone away: {0}")]
    Gone(String),
    /// The answer is of another type.
    #[error("the answer has type '{found}', must have '{expected}'")]
    WrongType {
        /// The D-Bus signature that it should have.
        expected: &'static str,
        /// The one that it has.
        found: String,
    },
    /// The object has no such property.
    #[error("the object has no property Id")]
    NoId,
    /// An id that is empty or longer than 255 bytes.
    #[error("an id of {0} bytes, must be 1 to 255")]
    IdLength(usize),
    /// More than 1 MiB.
    #[error("a state of {0} bytes, more than {MAX_STATE}")]
    TooLarge(usize),
    /// An answer of more than 2 MiB, which was not taken.
    #[error("an answer of {0} bytes, more than {MAX_MESSAGE}")]
    MessageSize(u64),
    /// A second object with the interface: which of the two has the state, nobody knows.
    #[error("{INTERFACE} is also at {path}, with the id {}", said(id))]
    SecondObject {
        /// Where it is.
        path: String,
        /// Its id, or why it has none.
        id: Result<String, Box<Self>>,
    },
    /// What came is no D-Bus, or cannot be sent as such.
    #[error("D-Bus: {0}")]
    Protocol(String),
}

impl From<zbus::Error> for Fault {
    fn from(error: zbus::Error) -> Self {
        use zbus::{DBusError, fdo};

        match error {
            zbus::Error::MethodError(name, text, _) => Self::Refused {
                name: shorten(name.as_str()),
                text: shorten(text.as_deref().unwrap_or("no details")),
            },
            zbus::Error::FDO(error) => {
                let text = shorten(error.description().unwrap_or("no details"));
                match *error {
                    fdo::Error::NoReply(_)
                    | fdo::Error::ServiceUnknown(_)
                    | fdo::Error::NameHasNoOwner(_)
                    | fdo::Error::Disconnected(_) => Self::Gone(text),
                    _ => Self::Refused {
                        name: error.name().to_string(),
                        text,
                    },
                }
            }
            zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _) => {
                Self::from(&*error)
            }
            other => Self::Protocol(shorten(&other.to_string())),
        }
    }
}

impl From<&io::Error> for Fault {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Protocol(error.to_string()),
            _ => Self::Gone(error.to_string()),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

fn said(id: &Result<String, Box<Fault>>) -> String {
    match id {
        Ok(id) => format!("'{}'", id.escape_debug()),
        Err(_) => "unknown".to_owned(),
    }
}

/// The words of somebody who is not trusted, on one line.
fn shorten(text: &str) -> String {
    let escape = |c: char| -> Box<dyn Iterator<Item = char>> {
        if c.is_control() {
            Box::new(c.escape_default())
        } else {
            Box::new(std::iter::once(c))
        }
    };
    text.chars().take(WORDS).flat_map(escape).collect()
}

/// The states of helpers could not be saved or loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The bus could not be reached.
    #[error("cannot connect to {address}: {fault}")]
    Connect {
        /// The bus.
        address: String,
        /// Why.
        fault: Fault,
    },
    /// The bus did not say who is there.
    #[error("cannot list the helpers: {0}")]
    List(Fault),
    /// More helpers than a stream can carry.
    #[error("{found} helpers, at most {most} are possible")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// A helper failed.
    #[error("helper {}: {step}: {fault}", who(owner, id.as_deref()))]
    Helper {
        /// Its unique name on the bus, or its address.
        owner: String,
        /// Its id, if it is known.
        id: Option<String>,
        /// What it was asked.
        step: Step,
        /// What it did.
        fault: Fault,
    },
    /// Two helpers have the same id.
    #[error("helpers {first} and {second} both have the id '{}'", id.escape_debug())]
    Duplicate {
        /// The id.
        id: String,
        /// One of them: unique name or address.
        first: String,
        /// The other.
        second: String,
    },
    /// Ids that are listed, and that no helper has.
    #[error("no helper has the listed {} {}", if ids.len() == 1 { "id" } else { "ids" }, quoted(ids))]
    Missing {
        /// All of them.
        ids: Vec<String>,
    },
    /// A state has come, and there is no helper for it.
    #[error("no helper has the id '{}', whose state has come", id.escape_ascii())]
    Unexpected {
        /// The id.
        id: Vec<u8>,
    },
    /// A state has come for a helper that is there and not listed.
    #[error("helper '{}' ({owner}), whose state has come, is not in the id-list", id.escape_debug())]
    Unlisted {
        /// The id.
        id: String,
        /// Its unique name on the bus, or its address.
        owner: String,
    },
    /// The blob of the stream is wrong, or cannot be made.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The operating system has no thread or descriptor left.
    #[error("no resources: {0}")]
    System(String),
}

fn who(owner: &str, id: Option<&str>) -> String {
    match id {
        Some(id) => format!("'{}' ({owner})", id.escape_debug()),
        None => owner.to_owned(),
    }
}

fn quoted(ids: &[String]) -> String {
    let quoted: Vec<_> = ids
        .iter()
        .map(|id| format!("'{}'", id.escape_debug()))
        .collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_helper_and_id() {
        let mut error = ObjectError::Helper {
            owner: ":1.7".to_owned(),
            id: Some("net0".to_owned()),
            step: Step::Save,
            fault: Fault::Late(Duration::from_secs(5)),
        };
        assert_eq!(
            error.to_string(),
            "helper 'net0' (:1.7): Save: no answer within 5000 ms"
        );
        if let ObjectError::Helper {
            id, step, fault, ..
        } = &mut error
        {
            (*id, *step, *fault) = (None, Step::Id, Fault::NoId);
        }
        assert_eq!(
            error.to_string(),
            "helper :1.7: reading its Id: the object has no property Id"
        );
        let ids = vec!["a".to_owned(), "b\n".to_owned()];
        assert_eq!(
            ObjectError::Missing { ids }.to_string(),
            "no helper has the listed ids 'a', 'b\\n'"
        );
    }

    #[test]
    fn a_helpers_words_stay_short_and_on_one_line() {
        assert_eq!(shorten("a\nb\u{7}é"), "a\\nb\\u{7}é");
        assert_eq!(shorten(&"x".repeat(10_000)).len(), WORDS);
    }
}
