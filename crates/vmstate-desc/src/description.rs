//! Descriptions: what a device's state looks like. QEMU calls this `VMStateDescription`.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use crate::field::Field;

/// Order of sections in a stream: higher first; equal priorities in order of registration.
///
/// Wire: the numbers never travel, the order does. QEMU `MigrationPriority` (the order of 10.2 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Priority {
    /// After everything default.
    Low,
    /// No wish.
    #[default]
    Default,
    /// Before the devices behind it.
    Iommu,
    /// Before IOMMUs.
    PciBus,
    /// Before IOMMUs.
    VirtioMem,
    /// Before PCI devices.
    Apic,
    /// Before PCI devices.
    GicV3Its,
    /// Before its translation service.
    GicV3,
}

/// What a device's state looks like: plain data, the same type for a compiled device and for one that a stream's trailer describes.
///
/// Has no functions: predicates and hooks belong to the accessor ([`SaveState`](crate::SaveState),
/// [`LoadState`](crate::LoadState)).
///
/// ```
/// use vmstate_desc::{Codec, Description, Field};
/// static RTC: Description = Description::new("rtc", 2, 1)
///     .with_fields(const { &[Field::value("index", Codec::Uint8)] });
/// assert!(RTC.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Name: of the section, or of the subsection on the wire; for embedded ones only in the trailer.
    pub name: Cow<'static, str>,
    /// Version that is saved, and the highest that can be loaded.
    pub version_id: u32,
    /// Lowest version that can be loaded.
    pub minimum_version_id: u32,
    /// Order of the section.
    pub priority: Priority,
    /// The device cannot be migrated: saving refuses.
    pub unmigratable: bool,
    /// Sent during setup, before RAM, as a full section.
    pub early_setup: bool,
    /// Oldest version of a destination for which the state still means what it says, though it has a lower version than
    /// this one. Matters to formats that match fields by name.
    pub readable_from: Option<u32>,
    /// Fields, in wire order.
    pub fields: Cow<'static, [Field]>,
    /// Optional parts, in wire order. Each name begins with this description's name.
    pub subsections: Cow<'static, [DescriptionRef]>,
}

impl Description {
    /// A description without fields.
    #[must_use]
    pub const fn new(name: &'static str, version_id: u32, minimum_version_id: u32) -> Self {
        Self {
            name: Cow::Borrowed(name),
            version_id,
            minimum_version_id,
            priority: Priority::Default,
            unmigratable: false,
            early_setup: false,
            readable_from: None,
            fields: Cow::Borrowed(&[]),
            subsections: Cow::Borrowed(&[]),
        }
    }

    /// The same description with these fields.
    #[must_use]
    pub const fn with_fields(mut self, fields: &'static [Field]) -> Self {
        // A plain assignment would drop the old value, which a constant cannot do.
        std::mem::forget(std::mem::replace(&mut self.fields, Cow::Borrowed(fields)));
        self
    }

    /// The same description with these subsections.
    #[must_use]
    pub const fn with_subsections(mut self, subsections: &'static [DescriptionRef]) -> Self {
        std::mem::forget(std::mem::replace(
            &mut self.subsections,
            Cow::Borrowed(subsections),
        ));
        self
    }

    /// The same description with this priority.
    #[must_use]
    pub const fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The same description, sent during setup, before RAM.
    #[must_use]
    pub const fn with_early_setup(mut self) -> Self {
        self.early_setup = true;
        self
    }

    /// The same description, whose state destinations of this version and later can load.
    #[must_use]
    pub const fn with_readable_from(mut self, version: u32) -> Self {
        self.readable_from = Some(version);
        self
    }

    /// The same description, marked as not migratable.
    #[must_use]
    pub const fn with_unmigratable(mut self) -> Self {
        self.unmigratable = true;
        self
    }

    /// The fields, also in constants.
    #[must_use]
    pub const fn fields(&self) -> &[Field] {
        match &self.fields {
            Cow::Borrowed(fields) => fields,
            Cow::Owned(fields) => fields.as_slice(),
        }
    }

    /// The subsections, also in constants.
    #[must_use]
    pub const fn subsections(&self) -> &[DescriptionRef] {
        match &self.subsections {
            Cow::Borrowed(subsections) => subsections,
            Cow::Owned(subsections) => subsections.as_slice(),
        }
    }

    /// The name, also in constants.
    #[must_use]
    pub const fn name(&self) -> &str {
        match &self.name {
            Cow::Borrowed(name) => name,
            Cow::Owned(name) => name.as_str(),
        }
    }

    /// Position of the field with this name.
    #[must_use]
    pub fn field_index(&self, name: &str) -> Option<usize> {
        self.fields().iter().position(|f| f.name == name)
    }
}

/// A description that is compiled in, or one that was made at run time.
#[derive(Debug, Clone)]
pub enum DescriptionRef {
    /// Compiled in.
    Static(&'static Description),
    /// Made at run time.
    Shared(Arc<Description>),
}

impl DescriptionRef {
    /// The description, also in constants where it is compiled in.
    ///
    #[must_use]
    pub const fn as_static(&self) -> Option<&'static Description> {
        match self {
            Self::Static(d) => Some(d),
            Self::Shared(_) => None,
        }
    }
}

impl Deref for DescriptionRef {
    type Target = Description;

    fn deref(&self) -> &Description {
        match self {
            Self::Static(d) => d,
            Self::Shared(d) => d,
        }
    }
}

impl PartialEq for DescriptionRef {
    fn eq(&self, other: &Self) -> bool {
        let (a, b): (&Description, &Description) = (self, other);
        std::ptr::eq(a, b) || a == b
    }
}

impl From<&'static Description> for DescriptionRef {
    fn from(d: &'static Description) -> Self {
        Self::Static(d)
    }
}

impl From<Arc<Description>> for DescriptionRef {
    fn from(d: Arc<Description>) -> Self {
        Self::Shared(d)
    }
}

impl From<Description> for DescriptionRef {
    fn from(d: Description) -> Self {
        Self::Shared(Arc::new(d))
    }
}
