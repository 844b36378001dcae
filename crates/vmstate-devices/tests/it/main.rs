//! Devices against recorded sections.

mod chips;
mod common;
mod nvme_like;
mod pl011;
mod serial;
