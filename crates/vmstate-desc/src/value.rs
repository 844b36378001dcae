//! Field types: which Rust type is which field on the wire.
//!
//! | Rust | wire |
//! |---|---|
//! | `bool`, `u8` … `u64`, `i8` … `i64` | the codec of that type |
//! | `f64` | `CPU_Double_U` |
//! | [`Timer`] | `timer` |
//! | `[T; N]`, `[[T; N]; M]` | fixed array, row-major |
//! | `Vec<T>`, `Box<[T]>`, `[T; N]` with a `count` | counted array; of bytes and words also buffer and bitmap |
//! | `Box<T>`, `Arc`-free newtypes | as `T` |
//! | `Option<Box<T>>` inside of arrays | pointer that may be absent |
//! | `VecDeque<S>`, `LinkedList<S>`, `Vec<S>` with `list` | `qtailq` or `qlist` |
//! | `BTreeMap<u64, S>`, `BTreeMap<K, S>` | `gtree` |
//! | an enum of which each variant is a `case` ([`VariantValue`](crate::VariantValue)) | one of several embedded structs |
//! | a struct that derives `VmState`, a tuple of one to eight | embedded struct |
//! | `String`, `Cow<'static, str>` | byte array of UTF-8, at most [`STRING_MAX`] bytes where the field says nothing else |

mod text;
mod tuple;

use std::collections::{BTreeMap, LinkedList, VecDeque};

use crate::codec::{Codec, Scalar};
use crate::error::Error;
use crate::field::{Element, Repeat};
use crate::slice::{Slice, SliceMut};
use crate::state::{LoadField, SaveField, Slot, VmState};

pub use text::STRING_MAX;

/// A type that can be a field.
///
/// Implemented for the types in the [module's table](self) and by `#[derive(VmState)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of device state",
    label = "no encoding is known for `{Self}`",
    note = "use a fixed-width integer, an array, a counted `Vec`, a type that derives `VmState`, or `#[vmstate(skip = \"reason\")]`"
)]
pub trait FieldValue {
    /// What one element is.
    const ELEMENT: Element;

    /// Number of elements in place: `None` for a single value, the product of all dimensions for arrays.
    const DIMENSIONS: Option<u32> = None;

    /// Bytes in a QEMU stream where size and encoding do not depend on the value.
    const PLAIN: Option<usize> = None;

    /// Whether the type leaves open how many values there are, or whether there is one, so that the field has to say it.
    const OPEN: bool = false;

    /// Gives the elements to `sink`.
    ///
    /// # Errors
    /// What `sink` returns.
    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error>;

    /// Takes the elements from `source`.
    ///
    /// # Errors
    /// What `source` returns.
    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error>;

    /// Encodes into exactly [`FieldValue::PLAIN`] bytes.
    fn put_plain(&self, out: &mut [u8]) {
        let _ = out;
    }

    /// Decodes from [`FieldValue::PLAIN`] bytes and what follows them. `false` if they need the engine's attention.
    #[must_use]
    fn get_plain(&mut self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }

    /// Saves several in one call where that is faster.
    ///
    /// # Errors
    /// What `sink` returns.
    fn save_all(values: &[Self], sink: &mut dyn SaveField) -> Result<(), Error>
    where
        Self: Sized,
    {
        values.iter().try_for_each(|v| v.save(sink))
    }

    /// Loads several in place in one call where that is faster.
    ///
    /// # Errors
    /// What `source` returns.
    fn load_all(values: &mut [Self], source: &mut dyn LoadField) -> Result<(), Error>
    where
        Self: Sized,
    {
        values.iter_mut().try_for_each(|v| v.load(source))
    }

    /// Replaces the content of `values` by what the source has, growing as elements arrive.
    ///
    /// # Errors
    /// What `source` returns.
    fn load_vec(values: &mut Vec<Self>, source: &mut dyn LoadField) -> Result<(), Error>
    where
        Self: Sized + Default,
    {
        values.clear();
        while source.more(size_of::<Self>())? {
            let mut value = Self::default();
            value.load(source)?;
            values.push(value);
        }
        Ok(())
    }
}

/// The repetition of a field of type `T`, for constants.
#[must_use]
pub const fn repeat_of<T: FieldValue>() -> Repeat {
    match T::DIMENSIONS {
        Some(n) => Repeat::Array(n),
        None => Repeat::Single,
    }
}

/// The description of a type that has one of its own.
pub(crate) fn described<T: FieldValue>() -> Option<crate::DescriptionRef> {
    match T::ELEMENT {
        Element::Struct(description) => Some(description),
        _ => None,
    }
}

/// The version at which a value is saved; 0 without a description.
pub(crate) fn version_of<T: FieldValue>() -> u32 {
    described::<T>().map_or(0, |description| description.version_id)
}

/// How many elements are loaded before more memory is taken.
const CHUNK: usize = 4096;

macro_rules! scalar {
    ($($ty:ident $variant:ident $codec:ident,)*) => {$(
        impl FieldValue for $ty {
            const ELEMENT: Element = Element::Value(Codec::$codec);
            const PLAIN: Option<usize> = Some(size_of::<$ty>());

            #[inline]
            fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
                sink.scalar(Scalar::$variant(*self))
            }

            #[inline]
            fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
                if let Scalar::$variant(value) = source.scalar(Some(Scalar::$variant(*self)))? {
                    *self = value;
                }
                Ok(())
            }

            #[inline]
            fn put_plain(&self, out: &mut [u8]) {
                scalar!(@put $ty, self, out);
            }

            #[inline]
            fn get_plain(&mut self, bytes: &[u8]) -> bool {
                match bytes.first_chunk() {
                    Some(chunk) => {
                        *self = scalar!(@get $ty, chunk);
                        true
                    }
                    None => false,
                }
            }

            fn save_all(values: &[Self], sink: &mut dyn SaveField) -> Result<(), Error> {
                sink.scalars(Slice::$variant(values))
            }

            fn load_all(values: &mut [Self], source: &mut dyn LoadField) -> Result<(), Error> {
                source.scalars(SliceMut::$variant(values))
            }

            fn load_vec(values: &mut Vec<Self>, source: &mut dyn LoadField) -> Result<(), Error> {
                values.clear();
                let count = source.count();
                while values.len() < count {
                    let start = values.len();
                    let n = (count - start).min(CHUNK);
                    source.reserve(n * size_of::<Self>())?;
                    values.resize(start + n, Self::default());
                    Self::load_all(values.get_mut(start..).unwrap_or_default(), source)?;
                }
                Ok(())
            }
        }
    )*};
    (@put bool, $self:ident, $out:ident) => {
        if let Some(slot) = $out.first_mut() {
            *slot = u8::from(*$self);
        }
    };
    (@put $ty:ident, $self:ident, $out:ident) => {
        if let Some(slot) = $out.first_chunk_mut() {
            *slot = $self.to_be_bytes();
        }
    };
    (@get bool, $chunk:ident) => {{
        let [byte]: &[u8; 1] = $chunk;
        *byte != 0
    }};
    (@get $ty:ident, $chunk:ident) => { $ty::from_be_bytes(*$chunk) };
}

scalar! {
    bool Bool Bool,
    u8 U8 Uint8,
    u16 U16 Uint16,
    u32 U32 Uint32,
    u64 U64 Uint64,
    i8 I8 Int8,
    i16 I16 Int16,
    i32 I32 Int32,
    i64 I64 Int64,
    f64 F64 CpuDouble,
}

/// A timer's deadline in nanoseconds on its clock, or none when it is not armed.
///
/// Wire: be64, all ones when not armed; QEMU `timer`. A negative time counts as 0 when it is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timer(pub Option<i64>);

impl Timer {
    const fn to_wire(self) -> i64 {
        match self.0 {
            Some(deadline) => deadline,
            None => -1,
        }
    }

    const fn from_wire(value: i64) -> Self {
        match value {
            -1 => Self(None),
            deadline if deadline < 0 => Self(Some(0)),
            deadline => Self(Some(deadline)),
        }
    }
}

impl FieldValue for Timer {
    const ELEMENT: Element = Element::Value(Codec::Timer);
    const PLAIN: Option<usize> = Some(8);

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.scalar(Scalar::I64(self.to_wire()))
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        if let Scalar::I64(value) = source.scalar(None)? {
            *self = Self::from_wire(value);
        }
        Ok(())
    }

    fn put_plain(&self, out: &mut [u8]) {
        self.to_wire().put_plain(out);
    }

    fn get_plain(&mut self, bytes: &[u8]) -> bool {
        let mut value = 0_i64;
        let done = value.get_plain(bytes);
        *self = Self::from_wire(value);
        done
    }
}

const fn dimensions(inner: Option<u32>, n: usize) -> Option<u32> {
    let inner = match inner {
        Some(m) => m as usize,
        None => 1,
    };
    let n = inner.checked_mul(n);
    match n {
        #[expect(clippy::cast_possible_truncation, reason = "checked in the guard")]
        Some(n) if n <= i32::MAX as usize => Some(n as u32),
        _ => panic!("an array has at most 2^31 - 1 elements"),
    }
}

impl<T: FieldValue, const N: usize> FieldValue for [T; N] {
    const ELEMENT: Element = T::ELEMENT;
    const OPEN: bool = T::OPEN;
    const DIMENSIONS: Option<u32> = dimensions(T::DIMENSIONS, N);
    const PLAIN: Option<usize> = match T::PLAIN {
        Some(size) => Some(size * N),
        None => None,
    };

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        let rows = rows::<T>(sink.count(), N);
        T::save_all(self.get(..rows).unwrap_or(self), sink)
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        let rows = rows::<T>(source.count(), N);
        T::load_all(self.get_mut(..rows).unwrap_or_default(), source)
    }

    fn put_plain(&self, out: &mut [u8]) {
        let Some(size) = T::PLAIN else { return };
        for (value, out) in self.iter().zip(out.chunks_exact_mut(size.max(1))) {
            value.put_plain(out);
        }
    }

    fn get_plain(&mut self, bytes: &[u8]) -> bool {
        let Some(size) = T::PLAIN else { return false };
        let mut rest = bytes;
        for value in self {
            if !value.get_plain(rest) {
                return false;
            }
            rest = rest.get(size..).unwrap_or_default();
        }
        true
    }

    fn save_all(values: &[Self], sink: &mut dyn SaveField) -> Result<(), Error> {
        T::save_all(values.as_flattened(), sink)
    }

    fn load_all(values: &mut [Self], source: &mut dyn LoadField) -> Result<(), Error> {
        T::load_all(values.as_flattened_mut(), source)
    }
}

/// How many of `n` outer elements a count of units stands for: fewer than all where a count field says so.
/// What stays of a sequence of which fewer elements come than it has: those behind them, and defaults for what it lacks.
fn tail_of<T: FieldValue + Default>(
    values: &mut Vec<T>,
    source: &mut dyn LoadField,
) -> Result<Vec<T>, Error> {
    let (come, own) = (source.count(), source.own_count());
    if come >= own {
        return Ok(Vec::new());
    }
    let each = T::DIMENSIONS.unwrap_or(1).max(1) as usize;
    let (come, own) = (come / each, own / each);
    source.reserve((own - come).saturating_mul(size_of::<T>()))?;
    let mut tail = values.split_off(come.min(values.len()));
    tail.resize_with(own - come, T::default);
    Ok(tail)
}

fn rows<T: FieldValue>(units: usize, n: usize) -> usize {
    (units / T::DIMENSIONS.unwrap_or(1).max(1) as usize).min(n)
}

impl<T: FieldValue + Default> FieldValue for Vec<T> {
    const ELEMENT: Element = T::ELEMENT;
    const DIMENSIONS: Option<u32> = T::DIMENSIONS;
    const OPEN: bool = true;

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        if !self.is_empty() {
            sink.list(self.len())?;
        }
        T::save_all(self, sink)
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        let mut tail = tail_of(self, source)?;
        T::load_vec(self, source)?;
        self.append(&mut tail);
        Ok(())
    }
}

impl<T: FieldValue + Default> FieldValue for Box<[T]> {
    const ELEMENT: Element = T::ELEMENT;
    const DIMENSIONS: Option<u32> = T::DIMENSIONS;
    const OPEN: bool = true;

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        T::save_all(self, sink)
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        let mut values = std::mem::take(self).into_vec();
        values.load(source)?;
        *self = values.into_boxed_slice();
        Ok(())
    }
}

impl<T: FieldValue> FieldValue for Box<T> {
    const ELEMENT: Element = T::ELEMENT;
    const DIMENSIONS: Option<u32> = T::DIMENSIONS;
    const PLAIN: Option<usize> = T::PLAIN;
    const OPEN: bool = T::OPEN;

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        T::save(self, sink)
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        T::load(self, source)
    }

    fn put_plain(&self, out: &mut [u8]) {
        T::put_plain(self, out);
    }

    fn get_plain(&mut self, bytes: &[u8]) -> bool {
        T::get_plain(self, bytes)
    }
}

/// A value that may be absent: an element of an array of pointers, or a conditional field.
///
/// Loading into the older kind of pointer array keeps an object that is there; in all other cases a new one takes its
/// place, so nothing stale survives.
impl<T: FieldValue + Default> FieldValue for Option<T> {
    const ELEMENT: Element = T::ELEMENT;
    const DIMENSIONS: Option<u32> = T::DIMENSIONS;
    const OPEN: bool = true;

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.slot(self.is_some())?;
        match self {
            Some(value) => value.save(sink),
            None => Ok(()),
        }
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        match source.slot(self.is_some())? {
            Slot::Absent => {
                *self = None;
                Ok(())
            }
            Slot::InPlace => self.get_or_insert_default().load(source),
            Slot::New => {
                *self = None;
                self.insert(T::default()).load(source)
            }
        }
    }
}

fn save_list<'a, T: FieldValue + 'a>(
    values: impl Iterator<Item = &'a T>,
    len: usize,
    sink: &mut dyn SaveField,
) -> Result<(), Error> {
    if len == 0 {
        return Ok(());
    }
    sink.list(len)?;
    for value in values {
        value.save(sink)?;
    }
    Ok(())
}

macro_rules! list {
    ($ty:ident) => {
        impl<T: FieldValue + Default> FieldValue for $ty<T> {
            const ELEMENT: Element = T::ELEMENT;
            const OPEN: bool = true;

            fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
                save_list(self.iter(), self.len(), sink)
            }

            fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
                self.clear();
                while source.more(size_of::<T>())? {
                    let mut value = T::default();
                    value.load(source)?;
                    self.push_back(value);
                }
                Ok(())
            }
        }
    };
}

list!(VecDeque);
list!(LinkedList);

/// A key of a tree: `u64` (be64), or an object with a description of its own.
pub trait TreeKeyValue: Ord + Default {
    /// The kind of key, for the description.
    const KEY: crate::field::TreeKey;

    /// Gives the key to `sink`.
    ///
    /// # Errors
    /// What `sink` returns.
    fn save_key(&self, sink: &mut dyn SaveField) -> Result<(), Error>;

    /// Takes a key from `source`.
    ///
    /// # Errors
    /// What `source` returns.
    fn load_key(source: &mut dyn LoadField) -> Result<Self, Error>;
}

impl TreeKeyValue for u64 {
    const KEY: crate::field::TreeKey = crate::field::TreeKey::Direct;

    fn save_key(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.direct_key(*self)
    }

    fn load_key(source: &mut dyn LoadField) -> Result<Self, Error> {
        source.direct_key()
    }
}

impl<K: VmState + Ord + Default> TreeKeyValue for K {
    const KEY: crate::field::TreeKey =
        crate::field::TreeKey::Struct(crate::DescriptionRef::Static(K::DESCRIPTION));

    fn save_key(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.key(self)
    }

    fn load_key(source: &mut dyn LoadField) -> Result<Self, Error> {
        let mut key = Self::default();
        source.key(&mut key)?;
        Ok(key)
    }
}

impl<K: TreeKeyValue, V: VmState + FieldValue + Default> FieldValue for BTreeMap<K, V> {
    const ELEMENT: Element = Element::Tree {
        key: K::KEY,
        value: crate::DescriptionRef::Static(V::DESCRIPTION),
    };

    fn save(&self, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.list(self.len())?;
        for (key, value) in self {
            key.save_key(sink)?;
            sink.child(value)?;
        }
        Ok(())
    }

    fn load(&mut self, source: &mut dyn LoadField) -> Result<(), Error> {
        self.clear();
        while source.more(size_of::<K>() + size_of::<V>())? {
            let key = K::load_key(source)?;
            let mut value = V::default();
            source.child(&mut value)?;
            self.insert(key, value);
        }
        Ok(())
    }
}
