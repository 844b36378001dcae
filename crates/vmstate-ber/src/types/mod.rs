//! Types: what a stream says about its values before they come.
//!
//! A [`TypeTable`] holds the types of one stream. A writer adds descriptions and sends what is new; a reader adds what comes, and
//! makes descriptions of it.

mod code;
mod def;
mod lower;
mod raise;
mod table;

pub use def::{Check, FieldDef, Kind, Nullable, Repeat, SubDef, TypeDef, TypeFlags, Variants};
pub(crate) use lower::kind_of;
pub use table::{TypeIndex, TypeTable};
