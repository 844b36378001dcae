//! Values of few bytes that stand for very many: the work follows the bytes and the memory, not what is claimed. Who expands what is
//! claimed does not come to an end here.

use vmstate_desc::Count;

use super::*;
use crate::der::{put_octets, put_tlv, put_uint, tag};
use crate::limits::MAX_ELEMENTS;
use crate::value::list::ListReader;
use crate::value::value_tag;

const MANY: u32 = 1 << 20;

/// A run of as many elements as a list may have.
fn run(element: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    put_uint(&mut content, tag::INTEGER, MAX_ELEMENTS);
    content.extend_from_slice(element);
    let mut out = Vec::new();
    put_tlv(&mut out, value_tag::RUN, &content);
    out
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_tlv(&mut out, tag, content);
    out
}

/// Loads a device with a list, each of whose very many elements is `inner` with this value.
fn loaded(inner: Description, value: &[u8]) -> Error {
    let list = Field::new("list", Element::Struct(inner.into()));
    let d = description(1, vec![list.repeat(Repeat::Array(MANY))]);
    let mut types = TypeTable::default();
    let ty = types.add(&d).unwrap();
    let list = tlv(value_tag::LIST, &run(&tlv(tag::SEQUENCE, value)));
    let bytes = tlv(tag::SEQUENCE, &list);
    decode_dynamic(&mut types, ty, 1, &bytes, 0, Limits::default()).unwrap_err()
}

/// A struct with fields that the device counts.
fn counted(codec: &Codec, fields: usize) -> Description {
    let count = Count::of_device("n", MANY);
    let field = Field::value("a", codec.clone()).repeat(Repeat::Counted(count));
    Description {
        fields: vec![field; fields]
            .into_iter()
            .enumerate()
            .map(|(number, field)| Field {
                name: Cow::Owned(format!("a{number}")),
                ..field
            })
            .collect::<Vec<_>>()
            .into(),
        ..Description::new("inner", 1, 1)
    }
}

#[test]
fn what_cannot_be_a_list_is_not_counted_as_one() {
    let mut empty = Vec::new();
    put_uint(&mut empty, tag::INTEGER, 0);
    let value = tlv(value_tag::LIST, &run(&empty)).repeat(64);
    let error = loaded(counted(&Codec::Uint8, 64), &value);
    assert!(matches!(error.kind(), ErrorKind::Memory { .. }), "{error}");
}

#[test]
fn the_element_of_a_run_is_looked_at_once() {
    // Subsections of a type that nobody knows: looking for them takes time, and no memory.
    let mut sub = Vec::new();
    put_uint(&mut sub, tag::INTEGER, 9999);
    put_uint(&mut sub, tag::INTEGER, 1);
    sub.extend_from_slice(&tlv(tag::SEQUENCE, &[]));
    let mut value = Vec::new();
    put_octets(&mut value, &[]);
    value.extend_from_slice(&tlv(value_tag::SUB, &sub).repeat(100_000));
    let error = loaded(counted(&Codec::Uint8, 1), &value);
    assert!(matches!(error.kind(), ErrorKind::Memory { .. }), "{error}");
}

#[test]
fn the_elements_of_a_list_are_counted_in_runs() {
    let mut list = vec![2, 1, 5, 2, 1, 6, 2, 1, 6];
    let mut run = Vec::new();
    put_uint(&mut run, tag::INTEGER, 1000);
    run.extend_from_slice(&[2, 1, 7]);
    list.extend_from_slice(&tlv(value_tag::RUN, &run));
    list.extend_from_slice(&[2, 1, 8]);
    let mut reader = ListReader::of(DerReader::new(&list, 0));
    for left in (0..=1004).rev() {
        assert_eq!(reader.clone().count(), Ok(left));
        assert_eq!(reader.next().unwrap().is_some(), left > 0);
    }
    // Neighbours that are equal belong into the run.
    let more = [&tlv(value_tag::RUN, &run)[..], &[2, 1, 7]].concat();
    assert!(ListReader::of(DerReader::new(&more, 0)).count().is_err());
}
