//! Migrations in memory, through the public interface only.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests build their input from small numbers, and fail by panicking"
)]

mod late;
mod model;
mod model_postcopy;
mod order;
mod probe;
mod ram;
mod stream;
mod support;
mod whole;
