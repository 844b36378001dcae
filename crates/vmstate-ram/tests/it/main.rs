//! Recorded streams of stock QEMU, read to the last byte, written again, and compared with the memory of the machine
//! that sent them.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and runs on 64-bit hosts"
)]

mod main_channel;
mod mapped_ram;
mod multifd;
mod stream;
mod vectors;
