//! A client of any machine's monitor.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use thiserror::Error;
use vmstate_qmp::{Client, CommandId, Event, ProtocolError, QmpError, Received, Version};

use super::socket::{QmpAddress, Stream};
use crate::clock::after;

/// Events that are kept until somebody asks. Older ones are dropped.
const MOST_EVENTS: usize = 4096;
/// The capability of commands out of band.
const OOB: &str = "oob";

/// How long a client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection and the greeting.
    pub connect: Duration,
    /// For the reply to a command.
    pub reply: Duration,
}

impl Default for Timeouts {
    /// 10 seconds for a connection, 30 for a reply: a QEMU whose disks are slow may keep its monitor waiting.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            reply: Duration::from_secs(30),
        }
    }
}

/// A monitor that cannot be reached, does not answer, or refuses.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QmpClientError {
    /// No connection.
    #[error("cannot connect to the monitor {address}: {source}")]
    Connect {
        /// Where to.
        address: QmpAddress,
        /// Why not.
        source: io::Error,
    },
    /// A connection, but no greeting in time. QEMU serves one client at a time: another one may be connected.
    #[error("the monitor {address} accepts the connection but does not greet within {} s", .within.as_secs_f32())]
    NoGreeting {
        /// Which monitor.
        address: QmpAddress,
        /// How long was waited.
        within: Duration,
    },
    /// The connection is gone.
    #[error("the connection to the monitor {address} is lost: {reason}")]
    Lost {
        /// Which monitor.
        address: QmpAddress,
        /// What happened to it.
        reason: String,
    },
    /// No reply in time.
    #[error("the monitor {address} does not answer {command} within {} s", .within.as_secs_f32())]
    NoReply {
        /// Which monitor.
        address: QmpAddress,
        /// To which command.
        command: String,
        /// How long was waited.
        within: Duration,
    },
    /// What comes is not QMP.
    #[error("{address}: {source}")]
    Protocol {
        /// Which monitor.
        address: QmpAddress,
        /// What came.
        source: ProtocolError,
    },
    /// The machine refuses a command.
    #[error("{command}: {source}")]
    Refused {
        /// Which command.
        command: String,
        /// What it says.
        source: QmpError,
    },
    /// The machine's reply is not of the form that the command has.
    #[error("{command}: unexpected reply: {source}")]
    Reply {
        /// Which command.
        command: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl QmpClientError {
    /// Whether nothing more can come over this connection.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::Lost { .. } | Self::NoReply { .. } | Self::Protocol { .. }
        )
    }

    /// Whether nobody listens there: the program has ended, or was never there.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Connect { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ),
            _ => false,
        }
    }

    /// What the machine says, if it refuses the command.
    #[must_use]
    pub const fn refusal(&self) -> Option<&QmpError> {
        match self {
            Self::Refused { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A connection to a monitor, in command mode.
#[derive(Debug)]
pub struct QmpClient {
    address: QmpAddress,
    stream: Stream,
    client: Client,
    version: Version,
    timeouts: Timeouts,
    /// The server takes commands out of band.
    out_of_band: bool,
    /// Bytes that have come and are not looked at.
    pending: VecDeque<u8>,
    events: VecDeque<Event>,
}

impl QmpClient {
    /// Connects, reads the greeting, and enters command mode.
    ///
    /// # Errors
    /// A monitor that cannot be reached or does not answer in time.
    pub fn connect(address: &QmpAddress, timeouts: Timeouts) -> Result<Self, QmpClientError> {
        let end = after(timeouts.connect);
        let stream = Stream::connect(address, timeouts.connect).map_err(|source| {
            QmpClientError::Connect {
                address: address.clone(),
                source,
            }
        })?;
        let mut client = Self {
            address: address.clone(),
            stream,
            client: Client::new(),
            version: Version {
                qemu: vmstate_qmp::VersionTriple {
                    major: 0,
                    minor: 0,
                    micro: 0,
                },
                package: String::new(),
            },
            timeouts,
            out_of_band: false,
            pending: VecDeque::new(),
            events: VecDeque::new(),
        };
        let offered = match client.receive(end)? {
            Some(Received::Greeting(greeting)) => {
                client.version = greeting.version;
                greeting.capabilities
            }
            // Before the greeting nothing else is accepted.
            Some(_) | None => {
                return Err(QmpClientError::NoGreeting {
                    address: address.clone(),
                    within: timeouts.connect,
                });
            }
        };
        let enable: Vec<_> = offered.into_iter().filter(|one| one == OOB).collect();
        client.out_of_band = !enable.is_empty();
        let arguments = if client.out_of_band {
            json!({ "enable": enable })
        } else {
            json!({})
        };
        client.run("qmp_capabilities", arguments)?;
        Ok(client)
    }

    /// Connects anew, in place of a connection that is lost.
    ///
    /// # Errors
    /// As [`QmpClient::connect`]. Then all is as before.
    pub fn reconnect(&mut self) -> Result<(), QmpClientError> {
        *self = Self::connect(&self.address, self.timeouts)?;
        Ok(())
    }

    /// Where the monitor is.
    #[must_use]
    pub const fn address(&self) -> &QmpAddress {
        &self.address
    }

    /// What the greeting said of the program.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// Runs a command and waits for its result. Events that come meanwhile are kept. Arguments that are no JSON object
    /// count as none.
    ///
    /// # Errors
    /// A connection that breaks, a monitor that does not answer in time, a command that is refused.
    pub fn run(
        &mut self,
        command: &str,
        arguments: impl Serialize,
    ) -> Result<Value, QmpClientError> {
        let (id, line) = self.client.command(command, object(arguments));
        self.execute(id, &line, command, self.timeouts.reply)
    }

    /// Whether the server takes commands out of band.
    #[must_use]
    pub const fn is_out_of_band(&self) -> bool {
        self.out_of_band
    }

    /// Runs a command that the server runs at once, even if it still works on another one; where the server cannot, after that one.
    ///
    /// # Errors
    /// As [`QmpClient::run`]; most commands are refused.
    pub fn run_out_of_band(
        &mut self,
        command: &str,
        arguments: impl Serialize,
    ) -> Result<Value, QmpClientError> {
        if !self.out_of_band {
            return self.run(command, arguments);
        }
        let (id, line) = self.client.out_of_band(command, object(arguments));
        self.execute(id, &line, command, self.timeouts.reply)
    }

    /// Runs a command that is given up on after this long: a server that takes commands out of band may have one that waits, and
    /// answer others. `None`: there is no answer, or a command that was given up on before has none yet, and this one has
    /// not been sent.
    ///
    /// # Errors
    /// As [`QmpClient::query`].
    pub fn query_within<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: impl Serialize,
        within: Duration,
    ) -> Result<Option<T>, QmpClientError> {
        let end = after(within);
        while self.client.unanswered() > 0 {
            match self.receive(end)? {
                Some(Received::Event(event)) => self.keep(event),
                Some(Received::Reply(..) | Received::Greeting(_)) => {}
                None => return Ok(None),
            }
        }
        let (id, line) = self.client.command(command, object(arguments));
        match self.execute(id, &line, command, within) {
            Ok(value) => read(command, value).map(Some),
            Err(QmpClientError::NoReply { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a command and waits for its result.
    fn execute(
        &mut self,
        id: CommandId,
        line: &[u8],
        command: &str,
        within: Duration,
    ) -> Result<Value, QmpClientError> {
        let end = after(within);
        let write = self
            .stream
            .set_timeouts(Some(within), within)
            .and_then(|()| (&self.stream).write_all(line));
        write.map_err(|e| self.lost(e.to_string()))?;
        self.reply(id, command, end, within)?
            .map_err(|source| QmpClientError::Refused {
                command: command.to_owned(),
                source,
            })
    }

    fn reply(
        &mut self,
        id: CommandId,
        command: &str,
        end: Instant,
        within: Duration,
    ) -> Result<Result<Value, QmpError>, QmpClientError> {
        loop {
            match self.receive(end)? {
                Some(Received::Reply(found, outcome)) if found == id => return Ok(outcome),
                // The reply to a command that was given up on.
                Some(Received::Reply(..) | Received::Greeting(_)) => {}
                Some(Received::Event(event)) => self.keep(event),
                None => {
                    return Err(QmpClientError::NoReply {
                        address: self.address.clone(),
                        command: command.to_owned(),
                        within,
                    });
                }
            }
        }
    }

    /// Runs a command whose result is of this type.
    ///
    /// # Errors
    /// As [`QmpClient::run`], and a result of another form.
    pub fn query<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: impl Serialize,
    ) -> Result<T, QmpClientError> {
        let value = self.run(command, arguments)?;
        read(command, value)
    }

    /// The next event; waits for one at most this long.
    ///
    /// # Errors
    /// A connection that breaks.
    pub fn next_event(&mut self, within: Duration) -> Result<Option<Event>, QmpClientError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        let end = after(within);
        loop {
            match self.receive(end)? {
                Some(Received::Event(event)) => return Ok(Some(event)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The events that have come so far, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The next message. `None`: there was none in time.
    fn receive(&mut self, end: Instant) -> Result<Option<Received>, QmpClientError> {
        loop {
            let (mut bytes, _) = self.pending.as_slices();
            let before = bytes.len();
            let received = self.client.receive(&mut bytes);
            let taken = before - bytes.len();
            self.pending.drain(..taken);
            match received {
                Ok(Some(received)) => return Ok(Some(received)),
                Ok(None) if !self.pending.is_empty() => continue,
                Ok(None) => {}
                Err(source) => {
                    return Err(QmpClientError::Protocol {
                        address: self.address.clone(),
                        source,
                    });
                }
            }
            if !self.read(end)? {
                return Ok(None);
            }
        }
    }

    /// Waits for bytes. `false`: none came in time.
    fn read(&mut self, end: Instant) -> Result<bool, QmpClientError> {
        let mut buffer = [0; 16 << 10];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let read = self
                .stream
                .set_timeouts(Some(left), self.timeouts.reply)
                .and_then(|()| (&self.stream).read(&mut buffer));
            match read {
                Ok(0) => return Err(self.lost("the other side has closed it")),
                Ok(count) => {
                    self.pending.extend(buffer.get(..count).unwrap_or_default());
                    return Ok(true);
                }
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    _ => return Err(self.lost(e.to_string())),
                },
            }
        }
    }

    fn lost(&self, reason: impl Into<String>) -> QmpClientError {
        QmpClientError::Lost {
            address: self.address.clone(),
            reason: reason.into(),
        }
    }
}

/// The arguments of a command.
fn object(arguments: impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(arguments) {
        Ok(Value::Object(arguments)) => arguments,
        _ => Map::new(),
    }
}

/// A result as a type.
fn read<T: DeserializeOwned>(command: &str, value: Value) -> Result<T, QmpClientError> {
    serde_json::from_value(value).map_err(|source| QmpClientError::Reply {
        command: command.to_owned(),
        source,
    })
}
