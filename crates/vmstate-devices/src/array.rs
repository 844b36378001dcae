//! Arrays of any length that can be made out of nothing.

pub use vmstate_desc::snapshot::Array;
