//! Rules that every description keeps, checked when it is built: at compile time for a constant, at run time for one
//! that came from a file.

mod variant;

use std::borrow::Cow;
use std::fmt;

use crate::alias;
use crate::codec::{Codec, ScalarType};
use crate::description::Description;
use crate::field::{Count, CountSource, Element, Field, ListKind, Pointers, Repeat, Size, TreeKey};
use crate::limits::MAX_DEPTH;

/// Most parts of a path to a description: each level has a name of its own and that of its field.
const MAX_PATH: usize = 2 * MAX_DEPTH as usize;

/// A rule that a description breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// A name has 1 to 255 bytes.
    NameLength,
    /// `minimum_version_id` is not above `version_id`.
    MinimumVersion,
    /// A field's version is not above its description's.
    FieldVersion,
    /// A field ends after the version that it begins with.
    FieldUntil,
    /// A count field exists in the same description, before the field that it counts.
    CountField,
    /// A count field is one `u8`, `u16`, `u32` or `i32`.
    CountType,
    /// A run-time count has a bound above 0 and a factor above 0.
    CountBound,
    /// A field has one run-time count at most.
    TwoCounts,
    /// Pointer elements need an array length: QEMU's `VMS_ARRAY_OF_POINTER` only with an array.
    PointersWithoutArray,
    /// Where the loader creates objects (a marker before every element) their size is given.
    ObjectSizeMissing,
    /// Where the loader creates nothing no object size is given.
    ObjectSizeSurplus,
    /// Lists, trees, temporaries, byte arrays and variants are single elements.
    ContainerInArray,
    /// A list's count has 1, 2, 4 or 8 bytes; its markers differ.
    ListFraming,
    /// A validator has a predicate and is neither array nor pointer.
    Validator,
    /// A pinned version lies within the child's range.
    PinnedVersion,
    /// The version of a list's or tree's field lies within the range of its elements.
    ElementVersion,
    /// A subsection's name begins with its owner's name and is longer.
    SubsectionName,
    /// An alias is a name or a path of names, of a field that is not there any more, and of one field only.
    Alias,
    /// All fields together have at most [`MAX_ALIASES`](crate::MAX_ALIASES) aliases.
    TooManyAliases,
    /// Only arrays and buffers whose length is not in the stream can take another one, and they take their own.
    ResizeMax,
    /// A subsection's version is at most 255, since loaders keep the low byte only.
    SubsectionVersion,
    /// No two subsections have one name, since a loader finds them by it.
    SubsectionTwice,
    /// A variant's discriminant is one integer, not a timer, of the same description, before the variant.
    Discriminant,
    /// A variant's discriminant is there in all versions in which the variant can be, whatever the device says.
    DiscriminantAbsent,
    /// A variant has 1 to [`MAX_CASES`](crate::MAX_CASES) cases, in ascending order, with values that the discriminant can have; of
    /// 64 bits also below 2^63 - 1.
    Cases,
    /// Descriptions are nested up to [`MAX_DEPTH`](crate::MAX_DEPTH) levels.
    Depth,
}

impl Rule {
    /// The rule, as a sentence.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NameLength => "a name must have 1 to 255 bytes",
            Self::MinimumVersion => "minimum_version_id must not be above version_id",
            Self::FieldVersion => {
                "a field's version must not be above its description's version_id"
            }
            Self::FieldUntil => "a field must end after the version it begins with",
            Self::CountField => {
                "a count field must stand in the same description, before the field that it counts"
            }
            Self::CountType => "a count field must be one u8, u16, u32 or i32",
            Self::CountBound => "a run-time count needs a bound and a factor above 0",
            Self::TwoCounts => "a field can have one run-time count only",
            Self::PointersWithoutArray => "pointer elements need an array length",
            Self::ObjectSizeMissing => {
                "a marker before every element means that the loader creates objects: their size must be given"
            }
            Self::ObjectSizeSurplus => {
                "an object size must be given only where the loader creates the objects"
            }
            Self::ContainerInArray => {
                "lists, trees, temporaries, byte arrays and variants must be single elements"
            }
            Self::ListFraming => {
                "a list's count must have 1, 2, 4 or 8 bytes, and the byte behind its last element must differ from the others"
            }
            Self::Validator => "a validator needs a predicate and must not be an array",
            Self::PinnedVersion => "a pinned version must lie within the child's range",
            Self::ElementVersion => {
                "the version of a list or tree must lie within the range of its elements"
            }
            Self::SubsectionName => {
                "a subsection's name must begin with its owner's name and be longer"
            }
            Self::Alias => {
                "an alias must be a name or a path of names, not that of a field of the same description, and of one field only"
            }
            Self::TooManyAliases => "the fields of a description can have 256 aliases at most",
            Self::ResizeMax => {
                "another number of elements is for arrays and buffers whose length is fixed or the device's, without pointers, and must not be below that length"
            }
            Self::SubsectionVersion => "a subsection's version must be at most 255",
            Self::SubsectionTwice => "two subsections must not have one name",
            Self::Discriminant => {
                "a variant's discriminant must be one integer of the same description, before the variant"
            }
            Self::DiscriminantAbsent => {
                "a variant's discriminant must be there in every version in which the variant can be"
            }
            Self::Cases => {
                "a variant must have 1 to 4096 cases, in ascending order, with values that its discriminant can have"
            }
            Self::Depth => "descriptions must not be nested deeper than 64 levels",
        }
    }
}

/// Where a rule is broken, in a form that constants can compute.
#[derive(Debug, Clone, Copy)]
struct Fault {
    rule: Rule,
    field: Option<usize>,
    subsection: Option<usize>,
}

/// A description that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptionError {
    /// The broken rule.
    pub rule: Rule,
    /// Description, and field or subsection, as a path.
    pub path: String,
}

impl fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.rule.text())
    }
}

impl std::error::Error for DescriptionError {}

impl Description {
    /// Checks this description and all that it embeds.
    ///
    /// # Errors
    /// The first broken [`Rule`], with the path to it.
    pub fn check(&self) -> Result<(), DescriptionError> {
        self.check_at(&mut Vec::new())
    }

    /// Checks this description alone: what it embeds has been checked before.
    ///
    /// # Errors
    /// The first broken [`Rule`], with the path to it.
    pub fn check_alone(&self) -> Result<(), DescriptionError> {
        self.check_own(&mut vec![&*self.name])
    }

    fn check_own<'d>(&'d self, path: &mut Vec<&'d str>) -> Result<(), DescriptionError> {
        let Some(fault) = self.first_fault() else {
            return Ok(());
        };
        if let Some(field) = fault.field.and_then(|i| self.fields().get(i)) {
            path.push(&field.name);
        }
        if let Some(sub) = fault.subsection.and_then(|i| self.subsections().get(i)) {
            path.push(&sub.name);
        }
        Err(DescriptionError {
            rule: fault.rule,
            path: path.join("/"),
        })
    }

    fn check_at<'d>(&'d self, path: &mut Vec<&'d str>) -> Result<(), DescriptionError> {
        path.push(&self.name);
        self.check_own(path)?;
        if path.len() > MAX_PATH {
            return Err(DescriptionError {
                rule: Rule::Depth,
                path: path.join("/"),
            });
        }
        for field in self.fields() {
            path.push(&field.name);
            if let Element::Variant(variants) = &field.element {
                for case in variants.cases() {
                    case.description.check_at(path)?;
                }
            }
            if let Some(child) = field.element.child() {
                child.check_at(path)?;
            }
            if let Element::Tree {
                key: TreeKey::Struct(key),
                ..
            } = &field.element
            {
                key.check_at(path)?;
            }
            path.pop();
        }
        for subsection in self.subsections() {
            subsection.check_at(path)?;
        }
        path.pop();
        Ok(())
    }

    /// The same check in a constant: a broken rule is a compile error. Children are checked where they are declared.
    ///
    /// # Panics
    /// If a rule is broken: at compile time, when used as `const _: () = DESCRIPTION.assert_valid();`.
    pub const fn assert_valid(&self) {
        if let Some(fault) = self.first_fault() {
            panic!("{}", fault.rule.text());
        }
    }

    const fn first_fault(&self) -> Option<Fault> {
        if !name_fits(self.name()) {
            return fault(Rule::NameLength);
        }
        if self.minimum_version_id > self.version_id {
            return fault(Rule::MinimumVersion);
        }
        let fields = self.fields();
        if alias::count(fields) > alias::MAX_ALIASES {
            return fault(Rule::TooManyAliases);
        }
        let mut i = 0;
        while i < fields.len() {
            if let Some(rule) = self.field_fault(i, &fields[i]) {
                return Some(Fault {
                    rule,
                    field: Some(i),
                    subsection: None,
                });
            }
            i += 1;
        }
        let subsections = self.subsections();
        let mut i = 0;
        while i < subsections.len() {
            if let Some(rule) = subsection_fault(self.name(), &subsections[i]) {
                return Some(Fault {
                    rule,
                    field: None,
                    subsection: Some(i),
                });
            }
            if is_repeated(subsections, i) {
                return Some(Fault {
                    rule: Rule::SubsectionTwice,
                    field: None,
                    subsection: Some(i),
                });
            }
            i += 1;
        }
        None
    }

    const fn field_fault(&self, index: usize, field: &Field) -> Option<Rule> {
        if field_name(field).is_empty() {
            return Some(Rule::NameLength);
        }
        if !field.conditional && field.version_id > self.version_id {
            return Some(Rule::FieldVersion);
        }
        if let Some(until) = field.until
            && until <= field.version_id
        {
            return Some(Rule::FieldUntil);
        }
        if field.must_exist
            && !(field.conditional
                && matches!(field.repeat, Repeat::Single)
                && matches!(field.pointers, Pointers::No))
        {
            return Some(Rule::Validator);
        }
        if let Some(rule) = pointer_fault(field) {
            return Some(rule);
        }
        if !matches!(field.repeat, Repeat::Single) && is_container(&field.element) {
            return Some(Rule::ContainerInArray);
        }
        if matches!(field.repeat, Repeat::Counted(_)) && has_counted_size(&field.element) {
            return Some(Rule::TwoCounts);
        }
        if let Some(count) = field.count()
            && let Some(rule) = self.count_fault(index, count)
        {
            return Some(rule);
        }
        if !alias::are_aliases(self.fields(), index) {
            return Some(Rule::Alias);
        }
        if let Some(max) = field.resize_max
            && !may_resize(field, max)
        {
            return Some(Rule::ResizeMax);
        }
        if let Element::Variant(variants) = &field.element
            && let Some(rule) = self.variant_fault(index, variants)
        {
            return Some(rule);
        }
        element_version_fault(field)
    }

    const fn count_fault(&self, index: usize, count: &Count) -> Option<Rule> {
        if count.max == 0 || count.multiply == 0 {
            return Some(Rule::CountBound);
        }
        let CountSource::Field(source) = &count.source else {
            return None;
        };
        let source = cow_str(source);
        let fields = self.fields();
        let mut i = 0;
        while i < index {
            if same(field_name(&fields[i]), source) {
                return if is_counter(&fields[i]) {
                    None
                } else {
                    Some(Rule::CountType)
                };
            }
            i += 1;
        }
        Some(Rule::CountField)
    }
}

const fn fault(rule: Rule) -> Option<Fault> {
    Some(Fault {
        rule,
        field: None,
        subsection: None,
    })
}

const fn pointer_fault(field: &Field) -> Option<Rule> {
    if !matches!(field.pointers, Pointers::No) && matches!(field.repeat, Repeat::Single) {
        return Some(Rule::PointersWithoutArray);
    }
    match (field.pointers, field.object_size) {
        (Pointers::MarkEvery, None) => Some(Rule::ObjectSizeMissing),
        (Pointers::No | Pointers::MarkAbsent, Some(_)) => Some(Rule::ObjectSizeSurplus),
        _ => None,
    }
}

/// Whether the field can have up to `max` elements in place of its own number.
const fn may_resize(field: &Field, max: u32) -> bool {
    if !matches!(field.pointers, Pointers::No) || field.must_exist {
        return false;
    }
    let least = match (&field.repeat, &field.element) {
        (_, Element::Value(Codec::Custom { .. } | Codec::Unused(_) | Codec::Bitmap(_))) => {
            return false;
        }
        (Repeat::Array(n), _) | (Repeat::Single, Element::Value(Codec::Buffer(Size::Fixed(n)))) => {
            *n
        }
        (Repeat::Counted(count), _)
        | (Repeat::Single, Element::Value(Codec::Buffer(Size::Counted(count))))
            if matches!(count.source, CountSource::Device(_)) =>
        {
            count.max
        }
        _ => return false,
    };
    least <= max
}

const fn is_framing(kind: ListKind) -> bool {
    match kind {
        ListKind::QTailq | ListKind::QList => true,
        ListKind::Marked { more, stop, .. } => more != stop,
        ListKind::Prefixed(width) => matches!(width, 1 | 2 | 4 | 8),
    }
}

const fn element_version_fault(field: &Field) -> Option<Rule> {
    match &field.element {
        Element::VersionedStruct(child, version) => match child.as_static() {
            Some(child) if !in_range(child, *version) => Some(Rule::PinnedVersion),
            _ => None,
        },
        Element::List(kind, child) => {
            if !is_framing(*kind) {
                return Some(Rule::ListFraming);
            }
            element_range_fault(child.as_static(), field.version_id)
        }
        Element::Tree { key, value } => {
            if let TreeKey::Struct(key) = key
                && let Some(rule) = element_range_fault(key.as_static(), field.version_id)
            {
                return Some(rule);
            }
            element_range_fault(value.as_static(), field.version_id)
        }
        Element::Value(_) | Element::Struct(_) | Element::Tmp(_) | Element::Variant(_) => None,
    }
}

const fn element_range_fault(child: Option<&Description>, version: u32) -> Option<Rule> {
    match child {
        Some(child) if !in_range(child, version) => Some(Rule::ElementVersion),
        _ => None,
    }
}

const fn subsection_fault(owner: &str, subsection: &crate::DescriptionRef) -> Option<Rule> {
    let Some(subsection) = subsection.as_static() else {
        return None;
    };
    if !name_fits(subsection.name()) {
        return Some(Rule::NameLength);
    }
    if !begins_with(subsection.name(), owner) || subsection.name().len() <= owner.len() {
        return Some(Rule::SubsectionName);
    }
    if subsection.version_id > 255 {
        return Some(Rule::SubsectionVersion);
    }
    None
}

/// Whether a subsection before this one has its name. What a stream or a dump says is taken as it is: QEMU 11.1 has such a device.
const fn is_repeated(subsections: &[crate::DescriptionRef], index: usize) -> bool {
    let Some(this) = subsections[index].as_static() else {
        return false;
    };
    let mut i = 0;
    while i < index {
        if let Some(other) = subsections[i].as_static()
            && other.name().len() == this.name().len()
            && begins_with(other.name(), this.name())
        {
            return true;
        }
        i += 1;
    }
    false
}

const fn in_range(d: &Description, version: u32) -> bool {
    d.minimum_version_id <= version && version <= d.version_id
}

const fn is_container(element: &Element) -> bool {
    matches!(
        element,
        Element::Tmp(_)
            | Element::List(..)
            | Element::Tree { .. }
            | Element::Variant(_)
            | Element::Value(Codec::ByteArray { .. })
    )
}

const fn has_counted_size(element: &Element) -> bool {
    matches!(
        element,
        Element::Value(Codec::Buffer(Size::Counted(_)) | Codec::Bitmap(Size::Counted(_)))
    )
}

const fn is_counter(field: &Field) -> bool {
    let Element::Value(codec) = &field.element else {
        return false;
    };
    // A validator has no value.
    !field.must_exist
        && matches!(field.repeat, Repeat::Single)
        && matches!(
            codec.scalar_type(),
            Some(ScalarType::U8 | ScalarType::U16 | ScalarType::U32 | ScalarType::I32)
        )
}

const fn field_name(field: &Field) -> &str {
    cow_str(&field.name)
}

#[expect(clippy::ptr_arg, reason = "the const form of deref")]
pub(crate) const fn cow_str<'a>(text: &'a Cow<'static, str>) -> &'a str {
    match text {
        Cow::Borrowed(text) => text,
        Cow::Owned(text) => text.as_str(),
    }
}

const fn name_fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255
}

const fn begins_with(text: &str, prefix: &str) -> bool {
    let (text, prefix) = (text.as_bytes(), prefix.as_bytes());
    if text.len() < prefix.len() {
        return false;
    }
    let mut i = 0;
    while i < prefix.len() {
        if text[i] != prefix[i] {
            return false;
        }
        i += 1;
    }
    true
}

pub(crate) const fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && begins_with(a, b)
}

#[cfg(test)]
mod tests;
