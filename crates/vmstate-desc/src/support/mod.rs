//! What `#[derive(VmState)]` expands to calls of. Hand-written accessors may use it too.
//!
//! | module | holds |
//! |---|---|
//! | [`element`] | descriptions of one field, computed from its type in constants |
//! | [`plain`] | the straight-line path of states with a fixed encoding |
//! | [`part`] | subsections whose fields live in their owner |
//! | [`snapshot`] | what `#[derive(ToMigrationState)]` expands to calls of |
//! | [`variant`] | cases of variants |
//! | [`access`] | values that are more than a call of [`FieldValue`](crate::FieldValue) |

pub mod access;
pub mod element;
pub mod part;
pub mod plain;
pub mod snapshot;
pub mod variant;
