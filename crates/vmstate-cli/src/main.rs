//! The `vmstate` command.
#![forbid(unsafe_code)]

fn main() {}
