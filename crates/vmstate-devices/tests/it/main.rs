//! Devices against recorded sections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod chips;
mod common;
mod hpet;
mod nvme;
mod nvme_like;
mod pl011;
mod serial;
mod streams;
mod trace;
mod trailer;
mod virtio;
