//! The built command, run on recorded streams.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod demo;
mod diff;
mod exit;
mod inspect;
mod json;
mod migrate;
mod support;
mod verify;
