//! Devices against recorded sections.

mod chips;
mod common;
mod pl011;
mod serial;
