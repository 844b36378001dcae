//! Derive macros of the vmstate crates.
#![forbid(unsafe_code)]
