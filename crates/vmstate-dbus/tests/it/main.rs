//! Objects and helpers with a real message bus, and without one.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod bus;
mod commands;
mod objects;
mod peers;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod support;
