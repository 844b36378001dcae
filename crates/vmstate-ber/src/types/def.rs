//! What a `TypeDef` frame says: the wire form of a description.

use crate::value::AnyValue;

/// A type: name, versions, fields, subsections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeDef {
    /// The stream's number for it; never 0.
    pub id: u32,
    /// Name: of the description.
    pub name: String,
    /// Version that values of the type have.
    pub version: u32,
    /// Oldest version that the writer could load itself.
    pub min_version: u32,
    /// Fields: position i of a struct's value belongs to field i.
    pub fields: Vec<FieldDef>,
    /// Subsections that a value may have, in this order.
    pub subs: Vec<SubDef>,
    /// Where the type comes from.
    pub flags: TypeFlags,
    /// Oldest version of a reader that may load values of this type.
    pub readable_from: Option<u32>,
}

/// Where a type comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TypeFlags {
    /// Bit 0: from the trailer of a QEMU stream, so that it describes one instance.
    pub inferred: bool,
    /// Bit 1: recorded from imperative code.
    pub recorded: bool,
}

impl TypeFlags {
    pub(super) const fn bits(self) -> u64 {
        self.inferred as u64 | (self.recorded as u64) << 1
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self {
            inferred: bits & 1 != 0,
            recorded: bits & 2 != 0,
        }
    }
}

/// A subsection of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubDef {
    /// Its type.
    pub ty: u32,
    /// A reader that does not know it may drop it.
    pub ignorable: bool,
}

/// A field of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDef {
    /// Name, by which readers find it.
    pub name: String,
    /// What one element is.
    pub kind: Kind,
    /// Bytes of one element; of a bitmap, bits. Absent where the value tells.
    pub size: Option<u32>,
    /// Type of an embedded struct, of a tree the values'. A variant has none.
    pub ty: Option<u32>,
    /// How many elements. Absent: one.
    pub repeat: Option<Repeat>,
    /// Elements may be absent.
    pub nullable: Option<Nullable>,
    /// First version of the struct that has the field.
    pub since: u32,
    /// The device decides whether it is there.
    pub cond: bool,
    /// A reader that does not know it may drop it.
    pub ignorable: bool,
    /// What a reader checks against its own value.
    pub check: Option<Check>,
    /// QEMU's name for the encoding, where the kind does not imply it.
    pub wire_name: Option<String>,
    /// Its definer has a default: this one, or NULL for one that is not told.
    pub default: Option<AnyValue>,
    /// Names that the field had before.
    pub aliases: Vec<String>,
    /// Another number of elements is accepted, up to this.
    pub resize_max: Option<u64>,
    /// Types by the value of an earlier field.
    pub variants: Option<Variants>,
    /// The definer's bound for run-time counts and lengths.
    pub max: Option<u32>,
    /// The embedded struct travels at this version.
    pub pinned: Option<u32>,
    /// Type of a tree's key objects. Absent: keys are integers.
    pub key: Option<u32>,
    /// First version of the struct that does not have the field any more.
    pub until: Option<u32>,
    /// Bytes in memory of what a loader makes for a present element.
    pub object_size: Option<u32>,
}

/// What one element of a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// True or false.
    Bool,
    /// Integer without sign, of 1, 2, 4 or 8 bytes.
    Uint,
    /// Integer with sign, of 1, 2, 4 or 8 bytes.
    Int,
    /// IEEE double, 8 bytes.
    Float,
    /// Bytes.
    Bytes,
    /// UTF-8.
    Text,
    /// Embedded struct.
    Struct,
    /// Bits in words of 64.
    Bitmap,
    /// Bytes that mean nothing.
    Pad,
    /// 64 bits with sign: expiry in nanoseconds, -1 when not armed.
    Timer,
    /// Bytes that only their device understands.
    Opaque,
    /// One of several types, chosen by an earlier field.
    Variant,
    /// Bits of a double as QEMU's `CPU_DoubleU`.
    CpuDouble,
    /// Not in QEMU's bytes. As name `validate`: a test without a value.
    Computed,
    /// A file descriptor.
    Fd,
}

impl Kind {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Bool,
        Self::Uint,
        Self::Int,
        Self::Float,
        Self::Bytes,
        Self::Text,
        Self::Struct,
        Self::Bitmap,
        Self::Pad,
        Self::Timer,
        Self::Opaque,
        Self::Variant,
        Self::CpuDouble,
        Self::Computed,
        Self::Fd,
    ];

    /// The number in the protocol.
    #[must_use]
    pub fn number(self) -> u8 {
        let position = Self::ALL.iter().position(|kind| *kind == self);
        position.and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
    }

    /// The name in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Uint => "uint",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bytes => "bytes",
            Self::Text => "text",
            Self::Struct => "struct",
            Self::Bitmap => "bitmap",
            Self::Pad => "pad",
            Self::Timer => "timer",
            Self::Opaque => "opaque",
            Self::Variant => "variant",
            Self::CpuDouble => "cpuDouble",
            Self::Computed => "computed",
            Self::Fd => "fd",
        }
    }
}

/// How many elements a field has, and what frames them in QEMU's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// Always so many.
    Fixed(u32),
    /// As many as a counter says. For bytes and bitmaps without a size: the counter counts bytes, or bits.
    Counted {
        /// The counter's name.
        field: String,
        /// The number is multiplied by this.
        factor: u32,
        /// The counter is an earlier field of the struct.
        on_wire: bool,
    },
    /// A big-endian count of so many bytes comes first.
    Prefixed(u8),
    /// A marker before each element, and another one behind the last.
    Marked {
        /// Marker before an element.
        more: u8,
        /// Marker behind the last.
        stop: u8,
        /// Loaders take any other byte than `stop` for `more`.
        any_nonzero: bool,
    },
    /// be32 count; `01`, key, value, …; `00`.
    Tree,
}

/// How absent elements travel in QEMU's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nullable {
    /// `30` instead of an absent one.
    Marker,
    /// `30`, or `31` and the element.
    BothMarkers,
}

/// What a reader checks a value against: its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Must be the same.
    Equal,
    /// From 0 to it.
    LessOrEqual,
}

/// Types by the value of an earlier field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variants {
    /// Name of the earlier field.
    pub field: String,
    /// Value and type, in ascending order of the values.
    pub cases: Vec<(i64, u32)>,
}

impl Variants {
    /// The type for this value.
    #[must_use]
    pub fn case(&self, value: i64) -> Option<u32> {
        let at = self.cases.binary_search_by_key(&value, |(value, _)| *value);
        self.cases.get(at.ok()?).map(|(_, ty)| *ty)
    }
}

impl FieldDef {
    /// A single field of this kind, always there.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            size: None,
            ty: None,
            repeat: None,
            nullable: None,
            since: 0,
            cond: false,
            ignorable: false,
            check: None,
            wire_name: None,
            default: None,
            aliases: Vec::new(),
            resize_max: None,
            variants: None,
            max: None,
            pinned: None,
            key: None,
            until: None,
            object_size: None,
        }
    }

    /// Whether a value may lack the field.
    #[must_use]
    pub fn may_be_absent(&self) -> bool {
        self.cond || self.since > 0 || self.until.is_some() || self.kind == Kind::Computed
    }

    /// The field's type for people: `uint(2)`, `struct[]`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.kind.name().to_owned();
        if let Some(size) = self.size {
            text.push_str(&format!("({size})"));
        }
        match &self.repeat {
            None => {}
            Some(Repeat::Fixed(n)) => text.push_str(&format!("[{n}]")),
            Some(_) => text.push_str("[]"),
        }
        text
    }
}
