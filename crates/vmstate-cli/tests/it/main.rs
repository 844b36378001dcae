//! The built command, run on recorded streams and with running guests.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod ber;
mod check;
mod convert;
mod cuts;
mod demo;
mod diff;
mod exit;
mod helpers;
mod host;
mod inspect;
mod json;
mod kills;
mod late;
mod migrate;
mod moves;
mod passing;
mod proxy;
mod refused;
mod support;
mod tapes;
mod unprivileged;
mod unwritable;
mod verify;
