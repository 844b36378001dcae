//! What the tests and fuzz targets of the vmstate crates share: one function per decoder that takes any bytes and
//! panics if the decoder breaks a promise.
//!
//! `fuzz/` makes a fuzz target of each; `cargo test` replays the seeds and everything that was ever found.
#![forbid(unsafe_code)]

pub mod guest;
pub mod shape;
pub mod targets;

pub use targets::{TARGETS, Target};
