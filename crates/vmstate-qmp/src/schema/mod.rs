//! What arguments a command takes, as data, and whether given ones fit.
//!
//! The rules and texts are those of QEMU 11.1: members are looked at in the order of their declaration, what is missing or
//! of another type is refused first, then what is not known.

mod check;

pub use check::check_arguments;

/// The type of a value, as QAPI has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A string.
    String,
    /// A boolean.
    Bool,
    /// A whole number of 8 bits.
    U8,
    /// A whole number of 16 bits.
    U16,
    /// A whole number of 32 bits.
    U32,
    /// A whole number of 64 bits, or a number of bytes. A negative number counts modulo 2^64, as in QEMU.
    U64,
    /// A string, or null, which stands for the empty string.
    StringOrNull,
    /// One of these strings.
    Enum(&'static [&'static str]),
    /// An array of values of one type.
    List(&'static Type),
    /// An object.
    Object(&'static Shape),
    /// Any value.
    Any,
}

/// The members of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Those that every such object has or may have.
    pub members: &'static [Member],
    /// Those that depend on the value of one.
    pub variants: Option<Variants>,
}

impl Shape {
    /// No members.
    pub const EMPTY: Self = Self::of(&[]);

    /// These members.
    #[must_use]
    pub const fn of(members: &'static [Member]) -> Self {
        Self {
            members,
            variants: None,
        }
    }
}

/// Further members of an object, by the value of one of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variants {
    /// The member that decides, a string.
    pub tag: &'static str,
    /// Its values, and what goes with each.
    pub branches: &'static [(&'static str, Shape)],
}

/// A member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub value: Type,
    /// Whether it may be left out.
    pub optional: bool,
}

impl Member {
    /// A member that must be there.
    #[must_use]
    pub const fn required(name: &'static str, value: Type) -> Self {
        Self {
            name,
            value,
            optional: false,
        }
    }

    /// A member that may be left out.
    #[must_use]
    pub const fn optional(name: &'static str, value: Type) -> Self {
        Self {
            name,
            value,
            optional: true,
        }
    }
}
