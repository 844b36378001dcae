//! QMP over sockets: a [client](QmpClient) of any machine, and a [server](QmpServer) for one of ours.
//!
//! Messages and commands are those of [`vmstate_qmp`]; here are sockets, threads and clocks. A server and a client:
//!
//! ```
//! use std::sync::Arc;
//!
//! use vmstate_io::qmp::{Events, QmpAddress, QmpClient, QmpServer, Timeouts};
//! use vmstate_qmp::schema::Shape;
//! use vmstate_qmp::{CommandTable, Empty, MachineEvent, Version, VersionTriple};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let events = Events::new();
//! let mut commands = CommandTable::<Events>::new();
//! commands.add("stop", Shape::EMPTY, |events: &Events, _: Empty| {
//!     events.emit(&MachineEvent::Stop);
//!     Ok(Empty {})
//! });
//! let version = Version {
//!     qemu: VersionTriple { major: 11, minor: 1, micro: 0 },
//!     package: "example".to_owned(),
//! };
//! let server = QmpServer::bind(&"tcp:127.0.0.1:0".parse()?)?;
//! let address: QmpAddress = server.address().clone();
//! let server = server.start(commands, Arc::new(events.clone()), &events, version)?;
//!
//! let mut client = QmpClient::connect(&address, Timeouts::default())?;
//! assert_eq!(client.version().package, "example");
//! client.run("stop", serde_json::json!({}))?;
//! assert_eq!(client.take_events()[0].name, "STOP");
//! server.close();
//! # Ok(())
//! # }
//! ```

mod client;
pub mod engine;
mod outbox;
mod server;
mod socket;

pub use client::{QmpClient, QmpClientError, Timeouts};
pub use server::{Events, QmpServer, RunningQmpServer};
pub use socket::{QmpAddress, QmpAddressError};

#[cfg(test)]
mod tests;
