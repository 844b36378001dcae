//! How many bytes values take in a stream.

use vmstate_desc::{Codec, DynState, Element, Field, Pointers, SaveState, Scalars, Value};

/// Bytes that a state takes in a stream: its fields, then its subsections.
#[must_use]
pub fn wire_size(state: &DynState) -> u64 {
    let fields: u64 = state.fields().map(|(f, v)| value_size(f, v)).sum();
    let subsections: u64 = state
        .subsections()
        .map(|sub| subsection_header(&sub.description().name) + wire_size(sub))
        .sum();
    fields + subsections
}

/// Bytes in front of a subsection's fields: mark, name with its length, version.
pub(super) fn subsection_header(name: &str) -> u64 {
    6 + name.len() as u64
}

/// Bytes that the value of a field takes.
pub(super) fn value_size(field: &Field, value: &Value) -> u64 {
    match (&field.element, value) {
        (Element::List(..), Value::List(values)) => {
            let elements: u64 = values.iter().map(|v| 1 + one_size(field, v)).sum();
            elements + 1
        }
        (_, Value::List(values)) => values.iter().map(|v| element_size(field, v)).sum(),
        (_, Value::Tree(nodes)) => {
            let nodes: u64 = nodes
                .iter()
                .map(|(key, value)| 1 + one_size(field, key) + one_size(field, value))
                .sum();
            4 + nodes + 1
        }
        _ => one_size(field, value),
    }
}

/// Bytes in front of an element: its marker.
pub(super) fn marker_size(field: &Field, value: &Value) -> u64 {
    u64::from(field.pointers == Pointers::MarkEvery && *value != Value::Absent)
}

/// Bytes of an element with its marker.
pub(super) fn element_size(field: &Field, value: &Value) -> u64 {
    marker_size(field, value) + one_size(field, value)
}

fn one_size(field: &Field, value: &Value) -> u64 {
    match value {
        Value::Scalar(scalar) => scalar.scalar_type().size() as u64,
        Value::Absent | Value::OddBool(_) => 1,
        Value::Scalars(values) => values.len() as u64 * scalar_size(values),
        Value::Bytes(bytes) => {
            let length = match field.element {
                Element::Value(Codec::Capability) => 1,
                Element::Value(Codec::ByteArray { .. }) => 4,
                _ => 0,
            };
            length + bytes.len() as u64
        }
        Value::Struct(state) => wire_size(state),
        _ => 0,
    }
}

/// Bytes of one element of a scalar array.
pub(super) fn scalar_size(values: &Scalars) -> u64 {
    match values {
        Scalars::U16(_) | Scalars::I16(_) => 2,
        Scalars::U32(_) | Scalars::I32(_) => 4,
        Scalars::U64(_) | Scalars::I64(_) | Scalars::F64(_) => 8,
        _ => 1,
    }
}
