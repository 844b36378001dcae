//! The derive, seen through the bytes that it makes.
#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

mod attributes;
mod by_hand;
mod common;
mod device;
mod generic;
mod migratable;
mod migration;
mod plain;
mod ui;
mod vectors;
