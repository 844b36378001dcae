#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod der;
mod error;
pub mod frame;
mod limits;
pub mod stream;
pub mod types;
mod value;

pub use error::{BerError, BerErrorKind};
pub use limits::{Limits, MAX_DEPTH, MAX_ELEMENTS, PIECE};
pub use value::{
    Adapted, AnyValue, BerIn, BerOut, MAX_WARNINGS, Warning, Warnings, decode_dynamic, encode,
    value_tag,
};
