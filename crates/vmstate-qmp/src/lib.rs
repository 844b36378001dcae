//! QMP, QEMU's management protocol, as far as migration needs it. No sockets, no threads, no clock.
//!
//! | module or type | holds |
//! |---|---|
//! | [`json`] | JSON values out of bytes that come in pieces, as QEMU's monitor reads them |
//! | [`Dialogue`] | a server's side: greeting, negotiation, commands, answers |
//! | [`CommandTable`], [`schema`] | the commands of a server, what they take, and QEMU's texts for what does not fit |
//! | [`QmpMachine`], [`machine_commands`] | the commands of a machine that migrates, over a trait |
//! | [`Client`] | a client's side: replies by id, events aside |
//! | [`migration`], [`MachineEvent`] | QMP's types of a migration |
//! | [`address`] | the places that migrations go to, as URIs and as `channels` |
//!
//! A server without a machine:
//!
//! ```
//! use vmstate_qmp::schema::Shape;
//! use vmstate_qmp::{CommandTable, Dialogue, Empty, Incoming, Version, VersionTriple};
//!
//! let mut table = CommandTable::<str>::new();
//! table.add("query-name", Shape::EMPTY, |name: &str, _: Empty| {
//!     Ok(serde_json::json!({ "name": name }))
//! });
//!
//! let qemu = VersionTriple { major: 11, minor: 1, micro: 0 };
//! let mut dialogue = Dialogue::new(Version { qemu, package: "example".to_owned() });
//! let mut sent = dialogue.greeting();
//! let mut received = &br#"{"execute": "qmp_capabilities"} {"execute": "query-name", "id": 1}"#[..];
//! while let Some(incoming) = dialogue.receive(&mut received) {
//!     sent.extend(match incoming {
//!         Incoming::Reply(line) => line,
//!         Incoming::Command(request) | Incoming::OutOfBand(request) => {
//!             Dialogue::answer(&table.run("guest", request))
//!         }
//!     });
//! }
//! let sent = String::from_utf8(sent).unwrap();
//! let lines: Vec<_> = sent.lines().skip(1).collect();
//! assert_eq!(lines, [r#"{"return":{}}"#, r#"{"return":{"name":"guest"},"id":1}"#]);
//! ```
#![forbid(unsafe_code)]

pub mod address;
mod client;
mod error;
mod event;
pub mod json;
mod machine;
mod message;
pub mod migration;
pub mod schema;
mod server;
mod table;

pub use client::{Client, CommandId, ProtocolError, Received};
pub use error::{ErrorClass, QmpError};
pub use event::MachineEvent;
pub use machine::{QmpMachine, machine_commands};
pub use message::{
    Event, Greeting, Request, Response, Timestamp, Version, VersionTriple, event_line,
};
pub use server::{Dialogue, Incoming};
pub use table::{CommandTable, Empty};
