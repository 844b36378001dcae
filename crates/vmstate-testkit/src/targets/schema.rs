//! Schema documents, and device state as JSON.

use arbitrary::Unstructured;
use vmstate_desc::{DynState, Limits};
use vmstate_schema::compare::{Options, compare};
use vmstate_schema::exceptions::Exceptions;
use vmstate_schema::json_schema::{Audience, machine_schema};
use vmstate_schema::report::{Question, to_json as report, to_text};
use vmstate_schema::value::{from_json, to_json};
use vmstate_schema::{Schema, parse_json};

use super::device::two_parts;
use crate::shape;

/// Memory for one document or value.
const MEMORY: usize = 1 << 20;

/// A document that is read is written and read to the same; it can be compared and described.
///
/// # Panics
/// If it cannot.
pub fn schema(data: &[u8]) {
    let _ = Exceptions::from_text(data);
    let Ok(schema) = Schema::from_text_within(data, MEMORY) else {
        return;
    };
    let text = schema.to_text();
    match Schema::from_text_within(text.as_bytes(), 16 * MEMORY) {
        Ok(again) => assert_eq!(again, schema, "{text}"),
        Err(e) => panic!("written, but not read: {e}\n{text}"),
    }
    // Equal types are not walked: the other side's fields have a default more or less.
    let mut other = schema.clone();
    for ty in schema.types().iter().take(64) {
        for field in ty.fields.iter().take(64) {
            other.annotate(&ty.name, &field.name, |f| f.default = !f.default);
        }
    }
    let same = compare(&schema, &schema, &Options::default());
    assert!(same.identical.len() <= same.equal && same.equal <= same.compared);
    let mut comparison = compare(&schema, &other, &Options::default());
    let accepted = Exceptions::default().apply(&mut comparison);
    let mut question = Question::new("a", "b");
    for all in [false, true] {
        question.all = all;
        assert!(!to_text(&question, &comparison, &accepted).is_empty());
    }
    assert!(report(&question, &comparison, &accepted).is_object());
    for audience in [Audience::Writer, Audience::Reader] {
        assert!(machine_schema(&schema, audience).is_object());
    }
    for section in schema.sections.iter().take(16) {
        let description = section.ty.and_then(|ty| schema.description(ty).ok());
        if let Some(description) = description {
            let _ = description.check();
        }
    }
}

/// What is read by any description is written as JSON that reads as the same.
///
/// be16 length of the bytes that choose the description, these bytes, JSON text.
///
/// # Panics
/// If it does not.
pub fn value(data: &[u8]) {
    let limits = Limits {
        memory: MEMORY as u64,
        ..Limits::default()
    };
    let (shape, text) = two_parts(data);
    let mut u = Unstructured::new(shape);
    let Ok(description) = shape::description(&mut u) else {
        return;
    };
    let Ok(json) = parse_json(text, MEMORY) else {
        return;
    };
    if description.check().is_err() {
        return;
    }
    let version = description.version_id;
    let mut state = DynState::from(description.clone());
    if from_json(&mut state, version, &json, limits).is_err() {
        return;
    }
    // A conditional field that is not there can be what others are counted by: then there is nothing to be saved.
    let Ok(written) = to_json(&state) else {
        return;
    };
    let mut again = DynState::from(description);
    if let Err(e) = from_json(&mut again, version, &written, limits) {
        panic!("written, but not read: {e}\n{written:#}\n{state:#?}");
    }
    assert_eq!(to_json(&again).as_ref(), Ok(&written));
}
