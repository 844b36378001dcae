//! Texts that depend on a description alone, made once in a process.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};

use vmstate_desc::{Codec, Description, Element, Field, Pointers, Repeat, Size};

use super::VmdescDialect;

/// Descriptions that are kept at most. A program has fewer; one that leaks descriptions stops being faster, not smaller.
const LIMIT: usize = 4096;

/// Identity of a description whose parts are all static data: such parts never change, so neither does the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    name: (usize, usize),
    fields: (usize, usize),
    version: u32,
    dialect: VmdescDialect,
}

impl Key {
    fn new(d: &Description, dialect: VmdescDialect) -> Option<Self> {
        let (Cow::Borrowed(name), Cow::Borrowed(fields)) = (&d.name, &d.fields) else {
            return None;
        };
        Some(Self {
            name: (name.as_ptr().addr(), name.len()),
            fields: (fields.as_ptr().addr(), fields.len()),
            version: d.version_id,
            dialect,
        })
    }
}

/// Mixes addresses: nobody chooses them to collide, so a hash that withstands attacks would be wasted on them.
#[derive(Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_u64(&mut self, n: u64) {
        // The multiplication mixes upwards only, and the low bits of addresses are alike.
        let product = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product.rotate_right(32);
    }
}

type All = HashMap<Key, Arc<Texts>, BuildHasherDefault<Mix>>;

/// What is known of one description.
#[derive(Debug)]
pub(super) struct Texts {
    /// From `vmsd_name` to the end of the fields, if the state is plain.
    whole: OnceLock<Box<str>>,
    /// A field's entries, without the separator before them.
    fields: Box<[OnceLock<Box<str>>]>,
}

impl Texts {
    /// The texts of `d`, filled as they become known. `None` for a description made at run time.
    pub(super) fn of(d: &Description, dialect: VmdescDialect) -> Option<Arc<Self>> {
        static ALL: LazyLock<RwLock<All>> = LazyLock::new(RwLock::default);
        let key = Key::new(d, dialect)?;
        let all = ALL.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(texts) = all.get(&key) {
            return Some(Arc::clone(texts));
        }
        let is_full = all.len() >= LIMIT;
        drop(all);
        if is_full {
            return None;
        }
        let texts = Self {
            whole: OnceLock::new(),
            fields: d.fields().iter().map(|_| OnceLock::new()).collect(),
        };
        let mut all = ALL.write().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(
            all.entry(key).or_insert_with(|| Arc::new(texts)),
        ))
    }

    /// The text of a plain state, once known.
    pub(super) fn whole(&self) -> Option<&str> {
        self.whole.get().map(AsRef::as_ref)
    }

    pub(super) fn set_whole(&self, text: &str) {
        self.whole.get_or_init(|| text.into());
    }

    /// The entries of field number `index`, once known.
    pub(super) fn field(&self, index: usize) -> Option<&str> {
        self.fields.get(index)?.get().map(AsRef::as_ref)
    }

    pub(super) fn set_field(&self, index: usize, text: &str) {
        if let Some(slot) = self.fields.get(index) {
            slot.get_or_init(|| text.into());
        }
    }
}

/// Whether a field's entries are the same for every device that has the field.
pub(super) const fn is_constant(field: &Field) -> bool {
    let fixed = match &field.element {
        Element::Value(Codec::Buffer(size) | Codec::Bitmap(size)) => {
            matches!(size, Size::Fixed(_))
        }
        Element::Value(Codec::Custom { .. } | Codec::Capability | Codec::ByteArray { .. }) => false,
        Element::Value(_) => true,
        _ => false,
    };
    fixed
        && matches!(field.pointers, Pointers::No)
        && matches!(field.repeat, Repeat::Single | Repeat::Array(_))
}
