//! The built command, run on recorded streams.
