//! QEMU migration stream: framing, commands, device codec and JSON trailer, without I/O.
#![forbid(unsafe_code)]

pub mod codec;
pub mod dump;
pub mod json;
pub mod stream;
pub mod vmdesc;
