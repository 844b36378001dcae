//! Two ends whose descriptions differ.

use std::borrow::Cow;

use vmstate_desc::{
    Codec, Description, DynState, Element, Error, ErrorKind, Field, Limits, Repeat, SaveState,
    Scalar, Value, load_with,
};

mod hostile;
mod inside;
mod resized;
mod variants;

use super::{BerIn, Warning, decode_dynamic, encode};
use crate::der::DerReader;
use crate::types::TypeTable;

fn description(version: u32, fields: Vec<Field>) -> Description {
    Description {
        fields: fields.into(),
        ..Description::new("dev", version, 1)
    }
}

fn u8_field(name: &'static str) -> Field {
    Field::value(name, Codec::Uint8)
}

/// A state whose fields have these values.
fn state(d: Description, values: &[(&str, Scalar)]) -> DynState {
    let mut state = DynState::new(d);
    for (name, value) in values {
        assert!(state.set(name, *value), "{name}");
    }
    state
}

/// Saves by the writer's description and loads by the reader's.
fn moved(from: &DynState, to: Description) -> Result<(DynState, Vec<Warning>), Error> {
    let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
    let ty = encode(from, &mut types, &mut bytes).unwrap();
    let value = DerReader::new(&bytes, 0x100).any().unwrap();
    let mut to = DynState::new(to);
    // What a device has before: to see what is not loaded.
    for index in 0..to.description().fields().len() {
        if to.description().fields()[index].conditional {
            to.set_value(index, Scalar::U8(0xee));
        }
    }
    let own = to.description().version_id;
    let writer = types.get(ty).unwrap();
    let version = BerIn::version_in_force(writer, writer.version, own);
    let mut input = BerIn::new(&types, ty, value);
    load_with(&mut to, version, &mut input, Limits::default())?;
    Ok((to, input.warnings().first.clone()))
}

fn scalar(state: &DynState, name: &str) -> Scalar {
    match state.get(name) {
        Some(Value::Scalar(value)) => *value,
        other => panic!("{name}: {other:?}"),
    }
}

fn abc() -> DynState {
    let d = description(1, vec![u8_field("a"), u8_field("b"), u8_field("c")]);
    let value = Scalar::U8;
    state(d, &[("a", value(1)), ("b", value(2)), ("c", value(3))])
}

fn rule(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Incompatible { rule, .. } => rule,
        kind => panic!("{kind}"),
    }
}

#[test]
fn order_does_not_matter() {
    for order in [["c", "a", "b"], ["b", "c", "a"], ["a", "c", "b"]] {
        let (to, warnings) = moved(&abc(), description(1, order.map(u8_field).into())).unwrap();
        let values = ["a", "b", "c"].map(|name| scalar(&to, name));
        assert_eq!(values, [1, 2, 3].map(Scalar::U8), "{order:?}");
        assert!(warnings.is_empty());
    }
}

#[test]
fn names_of_before() {
    const OLD: &[Cow<'static, str>] = &[Cow::Borrowed("b")];
    let renamed = vec![u8_field("a"), u8_field("beta").aliases(OLD), u8_field("c")];
    let (to, _) = moved(&abc(), description(1, renamed.clone())).unwrap();
    assert_eq!(scalar(&to, "beta"), Scalar::U8(2));
    // The other way round: it is the writer that knows the old name.
    let from = state(
        description(1, renamed),
        &[
            ("a", Scalar::U8(1)),
            ("beta", Scalar::U8(2)),
            ("c", Scalar::U8(3)),
        ],
    );
    let (to, _) = moved(&from, (*abc().description()).clone()).unwrap();
    assert_eq!(scalar(&to, "b"), Scalar::U8(2));
}

#[test]
fn unknown_fields() {
    let error = moved(&abc(), description(1, vec![u8_field("a"), u8_field("c")])).unwrap_err();
    assert_eq!(rule(&error), "E-UNKNOWN");
    let text = error.to_string();
    assert!(
        text.contains("unknown field b of kind uint(1) from writer version 1")
            && text.contains("byte 0x105"),
        "{text}"
    );
    let d = description(
        1,
        vec![u8_field("a"), u8_field("b").ignorable(), u8_field("c")],
    );
    let value = Scalar::U8;
    let from = state(d, &[("a", value(1)), ("b", value(2)), ("c", value(3))]);
    let (to, warnings) = moved(&from, description(1, vec![u8_field("a"), u8_field("c")])).unwrap();
    assert_eq!(scalar(&to, "c"), Scalar::U8(3));
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}");
    };
    assert_eq!(
        (warning.rule, warning.path.as_str()),
        ("W-UNKNOWN", "dev/b")
    );
}

#[test]
fn missing_fields() {
    let more = |field| {
        let fields = vec![u8_field("a"), u8_field("b"), u8_field("c"), field];
        description(2, fields)
    };
    let error = moved(&abc(), more(u8_field("d"))).unwrap_err();
    assert_eq!(rule(&error), "E-MISSING");
    assert!(error.to_string().starts_with("dev/d: "), "{error}");
    let (to, _) = moved(&abc(), more(u8_field("d").with_default())).unwrap();
    assert_eq!(to.get("d"), Some(&Value::Unset));
    let (to, _) = moved(&abc(), more(u8_field("d").since(2))).unwrap();
    assert_eq!(to.get("d"), Some(&Value::Unset));
    let (to, _) = moved(&abc(), more(u8_field("d").conditional())).unwrap();
    assert_eq!(scalar(&to, "d"), Scalar::U8(0xee));
}

#[test]
fn absent_values() {
    let conditional = || description(1, vec![u8_field("a"), u8_field("b").conditional()]);
    let from = state(conditional(), &[("a", Scalar::U8(1))]);
    let (to, warnings) = moved(&from, conditional()).unwrap();
    assert_eq!(scalar(&to, "b"), Scalar::U8(0xee));
    assert_eq!(warnings[0].rule, "W-COND");
    let error = moved(&from, description(1, vec![u8_field("a"), u8_field("b")])).unwrap_err();
    assert_eq!(rule(&error), "E-MISSING");
}

#[test]
fn numbers_convert_if_they_fit() {
    let one = |codec, value| {
        let d = description(1, vec![Field::value("n", codec)]);
        state(d, &[("n", value)])
    };
    let to = |codec| description(1, vec![Field::value("n", codec)]);
    let small = one(Codec::Uint64, Scalar::U64(200));
    for (codec, expected) in [
        (Codec::Uint8, Some(Scalar::U8(200))),
        (Codec::Int8, None),
        (Codec::Int16, Some(Scalar::I16(200))),
        (Codec::Timer, Some(Scalar::I64(200))),
    ] {
        match (moved(&small, to(codec.clone())), expected) {
            (Ok((to, _)), Some(value)) => assert_eq!(scalar(&to, "n"), value, "{codec:?}"),
            (Err(error), None) => {
                assert_eq!(rule(&error), "E-RANGE");
                assert!(
                    error.to_string().contains("200, which does not fit"),
                    "{error}"
                );
            }
            (found, expected) => panic!("{codec:?}: {found:?}, not {expected:?}"),
        }
    }
    let negative = one(Codec::Int32, Scalar::I32(-1));
    assert_eq!(
        rule(&moved(&negative, to(Codec::Uint64)).unwrap_err()),
        "E-RANGE"
    );
    let (wide, _) = moved(&negative, to(Codec::Int64)).unwrap();
    assert_eq!(scalar(&wide, "n"), Scalar::I64(-1));
    let error = moved(&negative, to(Codec::Bool)).unwrap_err();
    assert_eq!(rule(&error), "E-KIND");
    assert!(
        error.to_string().contains("expected bool, found int(4)"),
        "{error}"
    );
}

#[test]
fn arrays_convert_too() {
    let array = |codec, n| {
        let field = Field::value("n", codec);
        description(1, vec![field.repeat(Repeat::Array(n))])
    };
    let mut from = DynState::new(array(Codec::Uint16, 3));
    from.set_value(
        0,
        Value::Scalars(vmstate_desc::Scalars::U16(vec![1, 2, 300])),
    );
    let (to, _) = moved(&from, array(Codec::Uint32, 3)).unwrap();
    let wide = vmstate_desc::Scalars::U32(vec![1, 2, 300]);
    assert_eq!(to.get("n"), Some(&Value::Scalars(wide)));
    assert_eq!(
        rule(&moved(&from, array(Codec::Uint8, 3)).unwrap_err()),
        "E-RANGE"
    );
    let error = moved(&from, array(Codec::Uint16, 4)).unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::CountMismatch {
            expected: 4,
            found: 3,
            ..
        }
    ));
}

fn with_sub(name: &'static str) -> DynState {
    let sub = description(1, vec![u8_field("x")]);
    let sub = Description {
        name: name.into(),
        ..sub
    };
    let d = Description {
        subsections: vec![sub.clone().into()].into(),
        ..description(1, vec![u8_field("a")])
    };
    let mut from = state(d, &[("a", Scalar::U8(1))]);
    from.set_subsection(0, Some(state(sub, &[("x", Scalar::U8(7))])));
    from
}

#[test]
fn unknown_subsections() {
    let known = (*with_sub("dev/x").description()).clone();
    let (to, _) = moved(&with_sub("dev/x"), known.clone()).unwrap();
    assert_eq!(to.subsections().count(), 1);
    let error = moved(&with_sub("dev/y"), known).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::UnknownSubsection { found, .. } if found == "dev/y"),
        "{error}"
    );
}

#[test]
fn newer_versions() {
    let newer = |from| Description {
        readable_from: from,
        ..description(3, vec![u8_field("a"), u8_field("b").since(3).ignorable()])
    };
    let values = [("a", Scalar::U8(1)), ("b", Scalar::U8(2))];
    let old = || description(2, vec![u8_field("a")]);
    let error = moved(&state(newer(None), &values), old()).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Version { found: 3, .. }),
        "{error}"
    );
    let (to, warnings) = moved(&state(newer(Some(2)), &values), old()).unwrap();
    assert_eq!(scalar(&to, "a"), Scalar::U8(1));
    assert_eq!(warnings.len(), 1);
}

#[test]
fn runs() {
    let child = Description {
        fields: vec![u8_field("x"), u8_field("y")].into(),
        ..Description::new("c", 1, 1)
    };
    let field = Field::new("s", Element::Struct(child.clone().into()));
    let d = description(1, vec![field.repeat(Repeat::Array(1024))]);
    let mut from = DynState::new(d);
    let element = |x| {
        let values = [("x", Scalar::U8(x)), ("y", Scalar::U8(0))];
        Value::from(state(child.clone(), &values))
    };
    let mut elements: Vec<Value> = (0..3).map(|i| element(i + 1)).collect();
    elements.extend((3..1024).map(|_| element(0)));
    from.set_value(0, Value::List(elements));
    let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
    let ty = encode(&from, &mut types, &mut bytes).unwrap();
    // The run of the specification stands at the end.
    let run = [0xa7, 0x0c, 2, 2, 3, 0xfd, 0x30, 6, 2, 1, 0, 2, 1, 0];
    assert!(bytes.ends_with(&run), "{bytes:x?}");
    assert_eq!(bytes.len(), 4 + 3 * 8 + run.len());
    let decode = |types: &mut TypeTable, bytes: &[u8]| {
        decode_dynamic(types, ty, 1, bytes, 0, Limits::default())
    };
    assert_eq!(decode(&mut types, &bytes).unwrap(), from);
    // One more, one less, and the same in two runs.
    for (count, more) in [(0xfe, &[][..]), (0xfc, &[]), (0xfc, &run[6..])] {
        let mut other = bytes.clone();
        let at = other.len() - 9;
        other[at] = count;
        other.extend_from_slice(more);
        let grown = u8::try_from(more.len()).unwrap();
        other[1] += grown;
        other[3] += grown;
        assert!(decode(&mut types, &other).is_err(), "{count:x}");
    }
}

#[test]
fn loading_is_complete_or_an_error() {
    // Every truncation and every flipped bit of a value: an error, or another value that encodes to these bytes.
    let from = with_sub("dev/x");
    let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
    let ty = encode(&from, &mut types, &mut bytes).unwrap();
    for at in 0..bytes.len() {
        assert!(decode_dynamic(&mut types, ty, 1, &bytes[..at], 0, Limits::default()).is_err());
        for bit in 0..8 {
            let mut other = bytes.clone();
            other[at] ^= 1 << bit;
            if let Ok(state) = decode_dynamic(&mut types, ty, 1, &other, 0, Limits::default()) {
                let mut again = Vec::new();
                encode(&state, &mut types, &mut again).unwrap();
                assert_eq!(again, other);
            }
        }
    }
}
