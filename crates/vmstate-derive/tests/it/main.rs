//! The derive, seen through the bytes that it makes.
#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

mod attributes;
mod by_hand;
mod common;
mod concurrent;
mod device;
mod generic;
mod hygiene;
mod migratable;
mod migration;
mod plain;
mod properties;
mod ui;
mod variant;
mod vectors;
