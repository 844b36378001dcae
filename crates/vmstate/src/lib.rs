#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod schema;

pub use vmstate_desc as desc;
pub use vmstate_engine as engine;
pub use vmstate_io::live;
pub use vmstate_ram as ram;
pub use vmstate_wire as wire;

pub use vmstate_derive::{ToMigrationState, VmState};
pub use vmstate_desc::guarded;
pub use vmstate_desc::snapshot::{
    self, Guarded, InvalidError, Migratable, ToMigrationState, ToMigrationStateShared, VmStateIf,
};
pub use vmstate_desc::{
    Codec, Count, CountSource, Description, DescriptionError, DescriptionRef, DynHooks, DynState,
    Element, Error, ErrorKind, Field, FieldPath, FieldValue, Limits, ListKind, LoadField,
    LoadState, OwnCount, Pointers, Priority, Reason, Repeat, Rule, SaveField, SaveState, Scalar,
    ScalarType, Scalars, Segment, Size, Slot, Timer, Tmp, TreeKey, Value, VmState, load,
    own_counts, save,
};
pub use vmstate_wire::codec::{decode, encode, encode_described};
pub use vmstate_wire::vmdesc::{Vmdesc, VmdescDialect};
