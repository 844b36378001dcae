#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod capabilities;
mod counts;
mod error;
mod handshake;
mod inventory;
mod judge;
mod negotiation;
mod report;
mod rules;
#[cfg(test)]
mod tests;

pub use error::{NegotiateError, NegotiateErrorKind};
pub use handshake::{Handshake, Outcome, Parts, Taken};
pub use inventory::{Inventory, InventoryError};
pub use negotiation::{
    Agreement, MAX_COUNTS, MAX_DIGESTS, MAX_FRAMES, MAX_SECTIONS, MAX_TYPES, Negotiation, Progress,
    Reply, TYPES_NOTE, Terms, VERSION,
};
pub use report::Report;
pub use rules::Rule;
