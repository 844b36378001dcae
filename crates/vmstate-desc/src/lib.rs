#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod alias;
mod check;
mod codec;
mod counts;
mod description;
mod dynamic;
mod error;
mod field;
pub mod imperative;
mod limits;
mod load;
mod save;
mod scalars;
mod slice;
pub mod snapshot;
mod state;
pub mod support;
pub mod trace;
pub mod value;
mod variants;
mod visit;

pub use alias::{MAX_ALIASES, alias_path};
pub use check::{DescriptionError, Rule};
pub use codec::{Codec, Scalar, ScalarType, ValueCheck};
pub use counts::{MAX_OWN_COUNTS, OwnCount, own_counts};
pub use description::{Description, DescriptionRef, Priority};
pub use dynamic::{DynHooks, DynState, Value};
pub use error::{Error, ErrorKind, FieldPath, Reason, Segment};
pub use field::{Count, CountSource, Element, Field, ListKind, Pointers, Repeat, Size, TreeKey};
pub use limits::{Limits, MAX_DEPTH};
pub use load::{load, load_with};
pub use save::{save, save_with};
pub use scalars::Scalars;
pub use slice::{Slice, SliceMut};
pub use state::{LoadField, LoadState, SaveField, SaveState, Slot, Tmp, VmState};
pub use value::{FieldValue, Timer, TreeKeyValue};
pub use variants::{MAX_CASES, VariantCase, VariantValue, Variants};
pub use visit::{FieldCx, Gate, LoadVisitor, Role, SaveVisitor};
