//! The type table: what is known about the state of a machine.

use vmstate_desc::{Codec, ListKind, Pointers, Priority, Repeat};

/// Among how many types an equal one is looked for.
const RECENT: usize = 2048;

/// Number of a type in its [`Schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

impl TypeId {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a schema comes from, and so how much it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Origin {
    /// The descriptions of a machine: everything is known.
    #[default]
    Descriptions,
    /// The trailer of one stream: what that stream holds. Absent fields have left no trace, and no bound is known.
    Trailer,
    /// A `-dump-vmstate` file: all fields with their conditions, but sizes in memory instead of types.
    Dump,
}

impl Origin {
    /// The name in a schema document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Descriptions => "descriptions",
            Self::Trailer => "trailer",
            Self::Dump => "dump",
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        [Self::Descriptions, Self::Trailer, Self::Dump]
            .into_iter()
            .find(|origin| origin.name() == name)
    }
}

/// What is known about the state of a machine: its types, and which sections have them.
///
/// Made from descriptions ([`Schema::of`]), from decoded sections ([`Schema::add_state`]), from a schema document
/// ([`Schema::from_document`]). Types that are equal, all that they embed included, have one number.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// How much it knows.
    pub origin: Origin,
    /// The machine type, as in a stream's configuration section.
    pub machine: Option<String>,
    /// The sections; of a dump the device classes.
    pub sections: Vec<Section>,
    pub(crate) types: Vec<Type>,
}

/// A section, or a device class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Id string, as on the wire. Of a device class: the name of its description.
    pub idstr: String,
    /// Instance id; 0 for a device class.
    pub instance_id: u32,
    /// Name of the device class, in dumps.
    pub class: Option<String>,
    /// The type. `None`: bytes that nothing describes.
    pub ty: Option<TypeId>,
    /// Whether a stream may lack it.
    pub optional: bool,
}

impl Section {
    /// The name for people: the class, or id string and instance id.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.class {
            Some(class) => class.clone(),
            None => format!("{}/{}", self.idstr, self.instance_id),
        }
    }
}

/// The shape of a device's, a subsection's or an embedded structure's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Type {
    /// Name.
    pub name: String,
    /// Version that is saved, and the highest that can be loaded.
    pub version_id: u32,
    /// Lowest version that can be loaded.
    pub minimum_version_id: u32,
    /// BER only: the lowest reader's version for which this data still means what that reader thinks.
    pub readable_from: Option<u32>,
    /// Order of the section.
    pub priority: Priority,
    /// Saving refuses.
    pub unmigratable: bool,
    /// Sent before RAM.
    pub early_setup: bool,
    /// Fields, in wire order.
    pub fields: Vec<Field>,
    /// Subsections, in wire order.
    pub subsections: Vec<Subsection>,
}

/// A subsection of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subsection {
    /// Its type.
    pub ty: TypeId,
    /// BER only: a reader that does not know it may drop it.
    pub ignorable: bool,
}

/// A field of a type. What has no comment is as in [`vmstate_desc::Field`].
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Name.
    pub name: String,
    /// First version that has it.
    pub version_id: u32,
    /// First version that has it no more.
    pub until: Option<u32>,
    /// The device decides about its presence.
    pub conditional: bool,
    /// A validator: no bytes.
    pub must_exist: bool,
    /// What one element is.
    pub element: Element,
    /// How many elements.
    pub repeat: Repeat,
    /// Whether the elements are pointers.
    pub pointers: Pointers,
    /// Size in memory of what is behind a pointer, in bytes.
    pub object_size: Option<u32>,
    /// Further shapes of single elements, where they were seen to differ.
    pub variants: Vec<TypeId>,
    /// Names that the field had before. `struct/field` stands for a field of an embedded structure.
    pub aliases: Vec<String>,
    /// BER only: a reader that does not know it may drop it.
    pub ignorable: bool,
    /// BER only: a reader that misses it has a default of its own.
    pub default: bool,
    /// BER only: a reader accepts another number of elements up to this.
    pub resize_max: Option<u32>,
}

/// What one element of a field is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Element {
    /// A value with a codec.
    Value(Codec),
    /// An embedded type.
    Struct(TypeId),
    /// An embedded type at a pinned version.
    VersionedStruct(TypeId, u32),
    /// A temporary made from the enclosing state.
    Tmp(TypeId),
    /// A list.
    List(ListKind, TypeId),
    /// A tree.
    Tree {
        /// The key.
        key: Key,
        /// The value.
        value: TypeId,
    },
    /// One of several embedded types, chosen by an earlier field.
    Variant {
        /// Name of the field that decides.
        discriminant: String,
        /// The cases, in ascending order of their values.
        cases: Vec<Case>,
    },
    /// Of a dump: something of this size in the memory of the host.
    Memory {
        /// Bytes of one element. Of a timer, a pointer or an embedded structure this is not what travels.
        size: u64,
        /// Number of elements, where it is fixed and the release says it (8.1 and later).
        num: Option<u32>,
        /// Its type, if it has a description.
        child: Option<TypeId>,
    },
}

/// One case of a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Value of the discriminant.
    pub value: i64,
    /// The type of what follows then.
    pub ty: TypeId,
}

/// The key of a tree's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// An integer.
    Direct,
    /// An object.
    Struct(TypeId),
}

impl Element {
    /// The type of an element, of a tree: of the value. A variant has several: its [`cases`](Self::cases).
    #[must_use]
    pub const fn child(&self) -> Option<TypeId> {
        match self {
            Self::Value(_) | Self::Variant { .. } => None,
            Self::Struct(id)
            | Self::VersionedStruct(id, _)
            | Self::Tmp(id)
            | Self::List(_, id)
            | Self::Tree { value: id, .. } => Some(*id),
            Self::Memory { child, .. } => *child,
        }
    }

    /// The cases of a variant; of everything else, none.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        match self {
            Self::Variant { cases, .. } => cases,
            _ => &[],
        }
    }
}

impl Field {
    /// A single field that is always there.
    #[must_use]
    pub fn new(name: impl Into<String>, element: Element) -> Self {
        Self {
            name: name.into(),
            version_id: 0,
            until: None,
            conditional: false,
            must_exist: false,
            element,
            repeat: Repeat::Single,
            pointers: Pointers::No,
            object_size: None,
            variants: Vec::new(),
            aliases: Vec::new(),
            ignorable: false,
            default: false,
            resize_max: None,
        }
    }

    /// Whether the field has bytes at `version` as far as versions decide.
    pub(crate) fn exists_at(&self, version: u32) -> bool {
        self.version_id <= version && self.until.is_none_or(|until| version < until)
    }

    /// Whether the field is bytes without a meaning.
    pub(crate) fn is_pad(&self) -> bool {
        match &self.element {
            Element::Value(Codec::Unused(_)) => true,
            Element::Value(Codec::Custom { name, .. }) => name == "unused_buffer",
            // QEMU's macro for holes gives all of them this name.
            Element::Memory { child: None, .. } => base_name(&self.name) == "unused",
            _ => false,
        }
    }
}

/// A name without the number that namesakes have in trailers: `config` of `config[1]`.
pub(crate) fn base_name(name: &str) -> &str {
    let stripped = name
        .strip_suffix(']')
        .and_then(|rest| rest.rsplit_once('['));
    match stripped {
        Some((base, digits))
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            base
        }
        _ => name,
    }
}

impl Type {
    /// A type without fields.
    #[must_use]
    pub fn new(name: impl Into<String>, version_id: u32, minimum_version_id: u32) -> Self {
        Self {
            name: name.into(),
            version_id,
            minimum_version_id,
            readable_from: None,
            priority: Priority::Default,
            unmigratable: false,
            early_setup: false,
            fields: Vec::new(),
            subsections: Vec::new(),
        }
    }
}

impl Schema {
    /// An empty schema.
    #[must_use]
    pub fn new(origin: Origin, machine: Option<String>) -> Self {
        Self {
            origin,
            machine,
            ..Self::default()
        }
    }

    /// The types by number.
    #[must_use]
    pub fn types(&self) -> &[Type] {
        &self.types
    }

    /// The type with this number.
    #[must_use]
    pub fn get(&self, id: TypeId) -> Option<&Type> {
        self.types.get(id.index())
    }

    /// Adds a type, or finds the one that is equal. `None` if it refers to a type that is not there.
    pub fn add_type(&mut self, ty: Type) -> Option<TypeId> {
        let known = |id: TypeId| id.index() < self.types.len();
        let fits = ty.fields.iter().all(|field| {
            let key = match field.element {
                Element::Tree {
                    key: Key::Struct(key),
                    ..
                } => known(key),
                _ => true,
            };
            key && field.element.child().is_none_or(known)
                && field.element.cases().iter().all(|case| known(case.ty))
                && field.variants.iter().copied().all(known)
        });
        if !fits || !ty.subsections.iter().all(|sub| known(sub.ty)) {
            return None;
        }
        // A type that stands further back is found out to be equal when types are compared.
        let recent = self.types.iter().enumerate().rev().take(RECENT);
        if let Some((at, _)) = recent.into_iter().find(|(_, known)| **known == ty) {
            return u32::try_from(at).ok().map(TypeId);
        }
        let id = u32::try_from(self.types.len()).ok()?;
        self.types.push(ty);
        Some(TypeId(id))
    }

    /// Keeps, of a dump, only the device classes of which `used` has a section. Changes nothing else.
    pub fn retain_used_by(&mut self, used: &Self) {
        if self.origin != Origin::Dump {
            return;
        }
        let is_used = |name: &str| {
            used.sections
                .iter()
                .any(|section| is_named(&section.idstr, name))
        };
        self.sections.retain(|class| is_used(&class.idstr));
    }

    /// Changes the fields of this name in the types of this name: for what a description does not say (defaults, sizes that may
    /// differ). Returns how many there are.
    pub fn annotate(
        &mut self,
        type_name: &str,
        field_name: &str,
        mut change: impl FnMut(&mut Field),
    ) -> usize {
        let mut changed = 0;
        let types = self.types.iter_mut().filter(|ty| ty.name == type_name);
        for field in types.flat_map(|ty| &mut ty.fields) {
            if field.name == field_name {
                change(field);
                changed += 1;
            }
        }
        changed
    }
}

/// Whether a section of this id string can have a description of this name: behind the device's path, or without one.
pub(crate) fn is_named(idstr: &str, name: &str) -> bool {
    idstr
        .strip_suffix(name)
        .is_some_and(|path| path.is_empty() || path.ends_with('/'))
}
