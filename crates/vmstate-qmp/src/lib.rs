//! QMP, QEMU's management protocol, as far as migration needs it. No sockets, no threads, no clock.
//!
//! [`address`] names the places that a migration goes to, as URIs and as QMP's `channels`:
//!
//! ```
//! use vmstate_qmp::address::MigrationAddress;
//!
//! let address: MigrationAddress = "tcp:192.0.2.7:4444".parse().unwrap();
//! assert_eq!(
//!     serde_json::to_value(&address).unwrap(),
//!     serde_json::json!({
//!         "transport": "socket", "type": "inet", "host": "192.0.2.7", "port": "4444"
//!     }),
//! );
//! ```
#![forbid(unsafe_code)]

pub mod address;
