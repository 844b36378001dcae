//! Values: a device's state, driven by the one traversal of descriptions.
//!
//! | what | value |
//! |---|---|
//! | field that is not there, validator | `05` NULL |
//! | bool | `01`; another byte than 0 and 1: `84`, the byte |
//! | integer, timer | `02`, as few octets as possible |
//! | double | `04`, 8 octets |
//! | array of scalars, buffer, bitmap | one `04`: elements big-endian, as many octets as their type has |
//! | unused bytes | `04` without content |
//! | capability's name, byte array | `04` |
//! | case of a variant | `a2`: type, version, struct |
//! | embedded description | `30`: one value for each field, then subsections; `a2` if it is not of the declared type |
//! | array of structs, of pointers, list | `a0`: elements; `83` for an absent one; equal neighbours as a run, `a7` |
//! | tree | `a0`: for each node a `30` with key and value |
//! | custom codec | `04` with its bytes; `a0` with such pieces and `a2` where it embeds descriptions |
//! | subsection | `a1`: type, version, struct |

mod adapted;
mod any;
mod dynamic;
mod fit;
mod input;
mod known;
mod list;
mod output;
mod plan;
mod same;
mod scalar;
mod take;
#[cfg(test)]
mod tests;

pub use adapted::{Adapted, MAX_WARNINGS, Warning, Warnings};
pub use any::AnyValue;
pub use dynamic::decode_dynamic;
pub use input::BerIn;
pub use output::{BerOut, encode};
pub(crate) use plan::Plans;

use vmstate_desc::{Codec, Element, Field, Pointers, Repeat};

/// Identifier octets of values that are not of a universal type.
pub mod value_tag {
    /// List.
    pub const LIST: u8 = 0xa0;
    /// Subsection.
    pub const SUB: u8 = 0xa1;
    /// Struct of another type or version than the declared one.
    pub const TYPED: u8 = 0xa2;
    /// Absent element.
    pub const NIL: u8 = 0x83;
    /// QEMU's bytes of something.
    pub const RAW: u8 = 0x84;
    /// Value in frames before.
    pub const BLOB: u8 = 0xa5;
    /// Equal elements of a list.
    pub const RUN: u8 = 0xa7;
}

/// How a field's value is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One scalar.
    Scalar,
    /// Scalars in one octet string, of so many octets each.
    Packed,
    /// One octet string whose length is its own.
    Bytes,
    /// An empty octet string.
    Pad,
    /// One struct.
    Struct,
    /// One struct that tells its type.
    Case,
    /// A list.
    List,
    /// A custom codec's.
    Custom,
}

impl Form {
    #[inline]
    const fn of(field: &Field) -> Self {
        let single = matches!(field.repeat, Repeat::Single);
        match &field.element {
            Element::Value(codec) => {
                let scalar = codec.scalar_type().is_some();
                match codec {
                    Codec::Unused(_) => Self::Pad,
                    _ if !matches!(field.pointers, Pointers::No) => Self::List,
                    Codec::Custom { .. } => Self::Custom,
                    Codec::Buffer(_) | Codec::Bitmap(_) => Self::Packed,
                    _ if scalar && single => Self::Scalar,
                    _ if scalar => Self::Packed,
                    _ if single => Self::Bytes,
                    _ => Self::List,
                }
            }
            Element::Struct(_) | Element::VersionedStruct(..) | Element::Tmp(_) if single => {
                Self::Struct
            }
            Element::Variant(_) => Self::Case,
            _ => Self::List,
        }
    }
}
