//! Fields: one entry of a description. QEMU calls this `VMStateField`.

use std::borrow::Cow;

use crate::codec::Codec;
use crate::description::DescriptionRef;
use crate::variants::Variants;

/// Where a run-time count comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CountSource {
    /// An earlier field of the same description, by name.
    Field(Cow<'static, str>),
    /// The device computes it from its own configuration; it is not in the stream.
    Device(Cow<'static, str>),
}

impl CountSource {
    /// Name for people: the field's, or the device's expression.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Field(name) | Self::Device(name) => name,
        }
    }
}

/// A number of elements, bytes or bits that is known at run time only.
///
/// QEMU: `VMS_VARRAY_UINT8`, `_UINT16`, `_UINT32`, `_INT32` for elements, `VMS_VBUFFER` for bytes and bits,
/// `VMS_MULTIPLY` and `VMS_MULTIPLY_ELEMENTS` for the factor. The type of the counter is that of the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Where the number is found.
    pub source: CountSource,
    /// The number is multiplied by this.
    pub multiply: u32,
    /// Bound of this end for the product. Never taken from the stream.
    pub max: u32,
}

impl Count {
    /// A count that is an earlier field of the same description.
    #[must_use]
    pub const fn of_field(name: &'static str, max: u32) -> Self {
        Self {
            source: CountSource::Field(Cow::Borrowed(name)),
            multiply: 1,
            max,
        }
    }

    /// A count that the device computes from its own configuration; the name is for people.
    #[must_use]
    pub const fn of_device(name: &'static str, max: u32) -> Self {
        Self {
            source: CountSource::Device(Cow::Borrowed(name)),
            multiply: 1,
            max,
        }
    }

    /// The same count, multiplied.
    #[must_use]
    pub const fn times(mut self, factor: u32) -> Self {
        self.multiply = factor;
        self
    }
}

/// Size of a buffer in bytes, of a bitmap in bits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Size {
    /// Always so many.
    Fixed(u32),
    /// As many as a counter says.
    Counted(Count),
}

/// How many elements a field has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repeat {
    /// One. (`VMS_SINGLE`)
    Single,
    /// A fixed number. (`VMS_ARRAY`)
    Array(u32),
    /// As many as a counter says. (`VMS_VARRAY_…`)
    Counted(Count),
}

/// Whether the elements of an array are pointers, and how holes travel.
///
/// | dialect | present | absent | who decides |
/// |---|---|---|---|
/// | [`Pointers::No`] | element | impossible | |
/// | [`Pointers::MarkAbsent`] | element | `30` | both ends must agree beforehand |
/// | [`Pointers::MarkEvery`] | `31`, element | `30` | the stream |
///
/// Wire: QEMU `VMS_ARRAY_OF_POINTER`; `VMS_ARRAY_OF_POINTER_AUTO_ALLOC` since 11.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pointers {
    /// Elements are stored in place.
    No,
    /// A marker stands for an absent element only; the loader's own holes decide.
    MarkAbsent,
    /// A marker stands before every element; the loader creates what is present.
    MarkEvery,
}

/// The key of a tree's node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TreeKey {
    /// An integer, be64.
    Direct,
    /// An object with a description of its own.
    Struct(DescriptionRef),
}

/// How a list shows its length in QEMU's bytes.
///
/// | kind | bytes |
/// |---|---|
/// | [`ListKind::QTailq`], [`ListKind::QList`] | `01` element, …, `00`; any byte but zero announces an element |
/// | [`ListKind::Marked`] | `more` element, …, `stop` |
/// | [`ListKind::Prefixed`] | number of elements, big-endian; elements |
///
/// The first two are QEMU's (`VMSTATE_QTAILQ_V`, `VMSTATE_QLIST_V`). The others are loops of hand-written save and load functions,
/// such as those of Slirp's sockets and of virtqueues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListKind {
    /// Doubly linked tail queue, `qtailq`.
    QTailq,
    /// Singly linked list, `qlist`.
    QList,
    /// A byte before each element, another one behind the last.
    Marked {
        /// Before each element.
        more: u8,
        /// Behind the last one.
        stop: u8,
        /// Any byte but `stop` announces an element when loading.
        lenient: bool,
    },
    /// The number of elements in front, in so many bytes: 1, 2, 4 or 8.
    Prefixed(u8),
}

impl ListKind {
    /// The name in the JSON trailer. QEMU has none for the last two; a consumer takes what it does not know for bytes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QTailq => "qtailq",
            Self::QList => "qlist",
            Self::Marked { .. } => "marked list",
            Self::Prefixed(_) => "counted list",
        }
    }
}

/// What one element of a field is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Element {
    /// A value with a codec.
    Value(Codec),
    /// An embedded description, at its own version. (`VMS_STRUCT`)
    Struct(DescriptionRef),
    /// An embedded description at a pinned version. (`VMS_VSTRUCT`)
    VersionedStruct(DescriptionRef, u32),
    /// A temporary made from the enclosing object. (`VMSTATE_WITH_TMP`)
    Tmp(DescriptionRef),
    /// As many elements as the stream has. (`VMSTATE_QTAILQ_V`, `VMSTATE_QLIST_V`)
    List(ListKind, DescriptionRef),
    /// be32 number of nodes; `01`, key, value, …; `00`. (`VMSTATE_GTREE_V`)
    Tree {
        /// The key.
        key: TreeKey,
        /// The value.
        value: DescriptionRef,
    },
    /// One of several embedded descriptions, at its own version: the one for the value of an earlier field. A tagged union; in QEMU
    /// the `switch` of a hand-written function.
    Variant(Variants),
}

impl Element {
    /// The type's name in the JSON trailer.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::Value(codec) => codec.name(),
            Self::Struct(_) => "struct",
            Self::VersionedStruct(..) => "vstruct",
            Self::Tmp(_) => "tmp",
            Self::List(kind, _) => kind.name(),
            Self::Tree { .. } => "gtree",
            // The trailer tells what is in the stream: the state of one case.
            Self::Variant(_) => "struct",
        }
    }

    /// The description of the element itself, where it has one and no other (a tree: of the value).
    #[must_use]
    pub const fn child(&self) -> Option<&DescriptionRef> {
        match self {
            Self::Value(_) | Self::Variant(_) => None,
            Self::Struct(d) | Self::VersionedStruct(d, _) | Self::Tmp(d) | Self::List(_, d) => {
                Some(d)
            }
            Self::Tree { value, .. } => Some(value),
        }
    }
}

/// One field of a description.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Name in the trailer, in schemas and in errors. Never sent with the state itself.
    pub name: Cow<'static, str>,
    /// First version that has the field. Lists and trees also use it as the version of their elements when loading.
    pub version_id: u32,
    /// First version that does not have it any more.
    pub until: Option<u32>,
    /// Presence is decided by the device ([`SaveState::exists`](crate::SaveState::exists)), not by the version.
    pub conditional: bool,
    /// Absence is an error: the field is a validator and has no bytes. (`VMSTATE_VALIDATE`)
    pub must_exist: bool,
    /// What one element is.
    pub element: Element,
    /// How many elements.
    pub repeat: Repeat,
    /// Whether the elements are pointers.
    pub pointers: Pointers,
    /// Size in memory of the object behind a pointer, in bytes: given exactly where the loader creates the object
    /// ([`Pointers::MarkEvery`]).
    pub object_size: Option<u32>,
    /// A destination that does not know the field may drop it. Matters to formats that match fields by name.
    pub ignorable: bool,
    /// A destination has a value of its own, set before loading, and does without the field where it does not come. Matters to
    /// formats that match fields by name.
    pub default: bool,
    /// Names that the field had before. Matters to formats that match fields by name.
    pub aliases: Cow<'static, [Cow<'static, str>]>,
    /// A destination takes another number of elements than its own, up to this: of a buffer, bytes. What comes short leaves the
    /// rest as it was before loading. Matters to formats whose values tell how many elements they have.
    pub resize_max: Option<u32>,
}

impl Field {
    /// A single, unconditional field.
    #[must_use]
    pub const fn new(name: &'static str, element: Element) -> Self {
        Self {
            name: Cow::Borrowed(name),
            version_id: 0,
            until: None,
            conditional: false,
            must_exist: false,
            element,
            repeat: Repeat::Single,
            pointers: Pointers::No,
            object_size: None,
            ignorable: false,
            default: false,
            aliases: Cow::Borrowed(&[]),
            resize_max: None,
        }
    }

    /// A single scalar, buffer or other value.
    #[must_use]
    pub const fn value(name: &'static str, codec: Codec) -> Self {
        Self::new(name, Element::Value(codec))
    }

    /// A validator: no bytes; [`SaveState::exists`](crate::SaveState::exists) is the test.
    #[must_use]
    pub const fn validator(name: &'static str) -> Self {
        let mut field = Self::new(name, Element::Value(Codec::Bool));
        field.conditional = true;
        field.must_exist = true;
        field
    }

    /// The same field, present from this version on.
    #[must_use]
    pub const fn since(mut self, version_id: u32) -> Self {
        self.version_id = version_id;
        self
    }

    /// The same field, no longer present from this version on.
    #[must_use]
    pub const fn until(mut self, version_id: u32) -> Self {
        self.until = Some(version_id);
        self
    }

    /// The same field, whose presence the device decides.
    #[must_use]
    pub const fn conditional(mut self) -> Self {
        self.conditional = true;
        self
    }

    /// The same field with a fixed number of elements.
    #[must_use]
    pub const fn array(self, len: u32) -> Self {
        self.repeat(Repeat::Array(len))
    }

    /// The same field with another number of elements.
    #[must_use]
    pub const fn repeat(mut self, repeat: Repeat) -> Self {
        // A plain assignment would drop the old value, which a constant cannot do.
        std::mem::forget(std::mem::replace(&mut self.repeat, repeat));
        self
    }

    /// The same field with pointer elements, of which absent ones carry a marker.
    #[must_use]
    pub const fn mark_absent(mut self) -> Self {
        self.pointers = Pointers::MarkAbsent;
        self
    }

    /// The same field with pointer elements that all carry a marker; the loader creates objects of this size.
    #[must_use]
    pub const fn mark_every(mut self, object_size: u32) -> Self {
        self.pointers = Pointers::MarkEvery;
        self.object_size = Some(object_size);
        self
    }

    /// The same field, which a destination that does not know it may drop.
    #[must_use]
    pub const fn ignorable(mut self) -> Self {
        self.ignorable = true;
        self
    }

    /// The same field, which a destination sets before loading, and can do without.
    #[must_use]
    pub const fn with_default(mut self) -> Self {
        self.default = true;
        self
    }

    /// The same field, which had these names before.
    #[must_use]
    pub const fn aliases(mut self, names: &'static [Cow<'static, str>]) -> Self {
        std::mem::forget(std::mem::replace(&mut self.aliases, Cow::Borrowed(names)));
        self
    }

    /// The same field, of which a destination takes any number of elements up to this.
    #[must_use]
    pub const fn resize_max(mut self, max: u32) -> Self {
        self.resize_max = Some(max);
        self
    }

    /// Whether something else than the version decides about presence. Such a field is never compressed in the
    /// trailer.
    #[must_use]
    pub const fn has_predicate(&self) -> bool {
        self.conditional || self.until.is_some()
    }

    /// Whether the field is present at `version` as far as versions decide.
    #[must_use]
    pub const fn exists_at(&self, version: u32) -> bool {
        let ended = match self.until {
            Some(until) => version >= until,
            None => false,
        };
        self.version_id <= version && !ended
    }

    /// The run-time count of elements, bytes or bits, if the field has one.
    #[must_use]
    pub const fn count(&self) -> Option<&Count> {
        match (&self.repeat, &self.element) {
            (Repeat::Counted(count), _)
            | (
                _,
                Element::Value(
                    Codec::Buffer(Size::Counted(count)) | Codec::Bitmap(Size::Counted(count)),
                ),
            ) => Some(count),
            _ => None,
        }
    }
}
