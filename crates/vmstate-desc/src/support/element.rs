//! Elements and sizes that follow from a field's type, for constants. A type that does not fit is a compile error.

use std::marker::PhantomData;

use crate::codec::Codec;
use crate::description::DescriptionRef;
use crate::field::{Element, Size};
use crate::value::FieldValue;

struct Of<T>(PhantomData<T>);

impl<T: FieldValue> Of<T> {
    /// By reference, since constants cannot drop an element.
    const ELEMENT: &'static Element = &T::ELEMENT;
}

/// The element of a scalar that must equal the destination's value.
///
/// # Panics
/// If `T` is not an `u8`, `u16`, `u32`, `i32` or `u64`.
#[must_use]
pub const fn equal<T: FieldValue>() -> Element {
    Element::Value(match Of::<T>::ELEMENT {
        Element::Value(Codec::Uint8) => Codec::Uint8Equal,
        Element::Value(Codec::Uint16) => Codec::Uint16Equal,
        Element::Value(Codec::Uint32) => Codec::Uint32Equal,
        Element::Value(Codec::Int32) => Codec::Int32Equal,
        Element::Value(Codec::Uint64) => Codec::Uint64Equal,
        _ => panic!("`equal` is for u8, u16, u32, i32 and u64"),
    })
}

/// The element of a scalar that must not be above the destination's value.
///
/// # Panics
/// If `T` is not an `i32`.
#[must_use]
pub const fn less_or_equal<T: FieldValue>() -> Element {
    match Of::<T>::ELEMENT {
        Element::Value(Codec::Int32) => Element::Value(Codec::Int32Le),
        _ => panic!("`less_or_equal` is for i32"),
    }
}

/// The element of a scalar in little-endian byte order.
///
/// # Panics
/// If `T` is not a scalar.
#[must_use]
pub const fn little_endian<T: FieldValue>() -> Element {
    if let Element::Value(codec) = Of::<T>::ELEMENT
        && let Some(ty) = codec.scalar_type()
    {
        return Element::Value(Codec::LittleEndian(ty));
    }
    panic!("`little_endian` is for scalars and arrays of them")
}

/// The element of a buffer.
///
/// # Panics
/// If `T` is not made of bytes.
#[must_use]
pub const fn buffer<T: FieldValue>(size: Size) -> Element {
    match Of::<T>::ELEMENT {
        Element::Value(Codec::Uint8) => Element::Value(Codec::Buffer(size)),
        _ => panic!("`buffer` is for arrays and vectors of u8"),
    }
}

/// The element of a bitmap.
///
/// # Panics
/// If `T` is not made of 64-bit words.
#[must_use]
pub const fn bitmap<T: FieldValue>(size: Size) -> Element {
    match Of::<T>::ELEMENT {
        Element::Value(Codec::Uint64) => Element::Value(Codec::Bitmap(size)),
        _ => panic!("`bitmap` is for arrays and vectors of u64"),
    }
}

/// The element of an embedded state at a pinned version.
///
/// # Panics
/// If `T` is not an embedded state.
#[must_use]
pub const fn pinned<T: FieldValue>(version_id: u32) -> Element {
    match Of::<T>::ELEMENT {
        Element::Struct(DescriptionRef::Static(child)) => {
            Element::VersionedStruct(DescriptionRef::Static(child), version_id)
        }
        _ => panic!("`struct_version` is for types that derive VmState"),
    }
}

/// Elements that `n` values of type `T` have: more than `n` where `T` is an array.
///
/// # Panics
/// If that does not fit into 32 bits.
#[must_use]
pub const fn units<T: FieldValue>(n: u32) -> u32 {
    let each = match T::DIMENSIONS {
        Some(each) => each,
        None => 1,
    };
    match n.checked_mul(each) {
        Some(units) => units,
        None => panic!("a field has at most 2^32 - 1 elements"),
    }
}

/// Size of an array with a fixed length: `each` for every element.
///
/// # Panics
/// If `T` has no fixed length.
#[must_use]
pub const fn fixed_len<T: FieldValue>(each: u32) -> u32 {
    match T::DIMENSIONS {
        Some(n) => match n.checked_mul(each) {
            Some(len) => len,
            None => panic!("a field has at most 2^32 - 1 bytes or bits"),
        },
        None => panic!("the type has no fixed length: give `count`, `size` or `bits`"),
    }
}

/// The bound `max` of a count, which an array of `len` values can hold.
///
/// # Panics
/// If it cannot.
#[must_use]
pub const fn at_most(max: u32, len: usize) -> u32 {
    assert!(
        max as usize <= len,
        "`max` must not be above the length of the array"
    );
    max
}

/// The most values that may come for an array of `len`.
///
/// # Panics
/// If the array cannot hold them.
#[must_use]
pub const fn resize_at_most(max: u32, len: usize) -> u32 {
    assert!(
        max as usize <= len,
        "`resize_max` must not be above the length of the array"
    );
    max
}

/// Length of `from..to` within an array of `len` values.
///
/// # Panics
/// If the range is not inside of the array.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "checked before")]
pub const fn range_len(from: usize, to: usize, len: usize) -> u32 {
    assert!(
        from <= to && to <= len && to <= u32::MAX as usize,
        "`range` must lie inside of the array"
    );
    (to - from) as u32
}

/// Size of a type in memory: of the object behind a pointer.
///
/// # Panics
/// If that does not fit into 32 bits.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "checked before")]
pub const fn object_size<T>() -> u32 {
    let size = size_of::<T>();
    assert!(
        size <= u32::MAX as usize,
        "an object has at most 2^32 - 1 bytes"
    );
    size as u32
}
