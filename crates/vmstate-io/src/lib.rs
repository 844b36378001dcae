//! Drivers of the vmstate crates: analysis of whole streams from files and pipes.
#![forbid(unsafe_code)]
