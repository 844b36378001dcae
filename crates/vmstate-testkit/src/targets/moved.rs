//! VM state over BER between two ends whose descriptions differ.

use std::borrow::Cow;

use arbitrary::{Result, Unstructured};
use vmstate_ber::der::DerReader;
use vmstate_ber::types::TypeTable;
use vmstate_ber::{BerIn, encode};
use vmstate_desc::{
    Codec, Description, DynState, Element, Field, Limits, Pointers, Repeat, load_with,
};
use vmstate_schema::Schema;
use vmstate_schema::compare::{Column, Options, Severity, compare};

use super::device::two_parts;
use crate::shape;

/// Memory for one device.
const LIMITS: Limits = Limits {
    memory: 1 << 20,
    depth: 64,
};

/// What one end saves, another one loads whose fields are renamed, resized, inside of a structure or no longer, and says so; and any
/// bytes of the same type are loaded or refused.
///
/// be16 length of the bytes that choose the descriptions, these bytes, payload.
///
/// # Panics
/// If it does not load, or if the comparison of both says that it does not.
pub fn ber_moved(data: &[u8]) {
    let (shape, payload) = two_parts(data);
    let mut u = Unstructured::new(shape);
    let Ok(writer) = shape::description(&mut u) else {
        return;
    };
    let Ok(reader) = changed(&writer, &mut u) else {
        return;
    };
    if writer.check().is_err() || reader.check().is_err() {
        return;
    }
    let version = writer.version_id;
    let mut types = TypeTable::default();
    let Ok(ty) = types.add(&writer) else {
        return;
    };
    // Any bytes in place of a value.
    if let Ok(value) = DerReader::new(payload, 0).any() {
        let mut to = DynState::new(reader.clone());
        let _ = load_with(&mut to, version, &mut BerIn::new(&types, ty, value), LIMITS);
    }
    let mut from = DynState::from(writer.clone());
    if vmstate_wire::codec::decode(&mut from, version, payload, LIMITS).is_err() {
        return;
    }
    let mut body = Vec::new();
    let Ok(ty) = encode(&from, &mut types, &mut body) else {
        return;
    };
    let value = DerReader::new(&body, 0)
        .any()
        .expect("one value was written");
    let mut to = DynState::new(reader.clone());
    let mut input = BerIn::new(&types, ty, value);
    if let Err(e) = load_with(&mut to, version, &mut input, LIMITS) {
        panic!("saved, but not loaded: {e}\n{writer:#?}\n{reader:#?}");
    }
    let schema =
        |d: &Description| Schema::of(None, [d]).expect("a description that is not too deep");
    let comparison = compare(&schema(&writer), &schema(&reader), &Options::default());
    let verdict = comparison.verdict(Column::BerForward);
    assert!(
        verdict < Severity::Break,
        "it loads: {:#?}",
        comparison.findings
    );
}

/// Whether a field can stand anywhere: no others are counted or chosen by it, it is neither itself, and its version alone decides about it. Of
/// unused bytes nothing says which are which.
fn is_free(field: &Field, fields: &[Field]) -> bool {
    let counts = |other: &Field| {
        other.count().is_some_and(|c| c.source.name() == field.name)
            || matches!(&other.element, Element::Variant(v) if v.field == field.name)
    };
    let namesakes = fields.iter().filter(|other| other.name == field.name);
    field.count().is_none()
        && !matches!(
            field.element,
            Element::Value(Codec::Unused(_)) | Element::Variant(_)
        )
        && !field.conditional
        && !field.must_exist
        && field.version_id == 0
        && field.until.is_none()
        && namesakes.count() == 1
        && !fields.iter().any(counts)
}

/// The same description after a change that an alias or an attribute tells of.
fn changed(writer: &Description, u: &mut Unstructured<'_>) -> Result<Description> {
    let mut reader = writer.clone();
    let fields = reader.fields.to_mut();
    let free: Vec<usize> = (0..fields.len())
        .filter(|i| {
            fields
                .get(*i)
                .is_some_and(|field| is_free(field, writer.fields()))
        })
        .collect();
    let Ok(&place) = u.choose(&free) else {
        return Ok(reader);
    };
    let Some(field) = fields.get(place).cloned() else {
        return Ok(reader);
    };
    match u.int_in_range(0..=3)? {
        // Inside of a structure now.
        0 => {
            let mut inner = Description::new("moved", 1, 1);
            let own = vec![field.name.clone()];
            inner.fields = vec![Field {
                aliases: own.into(),
                ..field
            }]
            .into();
            replace(
                fields,
                place,
                Field::new("moved", Element::Struct(inner.into())),
            );
        }
        1 => unwrap(fields, place, &field),
        2 => {
            let renamed = Field {
                name: Cow::Borrowed("renamed"),
                aliases: vec![field.name.clone()].into(),
                ..field
            };
            fields.remove(place);
            fields.push(renamed);
        }
        _ => {
            if let (Repeat::Array(n), Element::Value(codec), Pointers::No) =
                (&field.repeat, &field.element, field.pointers)
                && codec.scalar_type().is_some()
                && codec.value_check() == vmstate_desc::ValueCheck::None
            {
                let own = u.int_in_range(0..=9_u32)?;
                let most = own.max(*n);
                replace(fields, place, field.clone().array(own).resize_max(most));
            }
        }
    }
    Ok(reader)
}

fn replace(fields: &mut [Field], place: usize, field: Field) {
    if let Some(slot) = fields.get_mut(place) {
        *slot = field;
    }
}

/// The fields of a structure in its place.
fn unwrap(fields: &mut Vec<Field>, place: usize, outer: &Field) {
    let Element::Struct(child) = &outer.element else {
        return;
    };
    let plain = outer.repeat == Repeat::Single
        && child.subsections().is_empty()
        && !child.fields().is_empty();
    if !plain || !child.fields().iter().all(|f| is_free(f, child.fields())) {
        return;
    }
    let inner = child.fields().iter().enumerate().map(|(n, field)| Field {
        name: Cow::Owned(format!("out{n}")),
        aliases: vec![Cow::Owned(format!("{}/{}", outer.name, field.name))].into(),
        ..field.clone()
    });
    let inner: Vec<Field> = inner.collect();
    fields.splice(place..=place, inner);
}
