//! Tests of the framing as a whole: recorded streams, refusals, properties.

mod driver;
mod inference;
mod properties;
mod recorded;
mod refusals;
mod writing;
