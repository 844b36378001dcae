//! Descriptions of virtual device state, and the one traversal that drives every format.
#![forbid(unsafe_code)]
