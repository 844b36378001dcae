//! The machine from outside.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod guests;
mod isa;
mod limits;
mod live;
mod postcopy;
mod recorder;
mod schema;
mod streams;
