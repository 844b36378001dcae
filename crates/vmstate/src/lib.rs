//! Virtual machine state: describe it, save it, load it, move it.
#![forbid(unsafe_code)]
