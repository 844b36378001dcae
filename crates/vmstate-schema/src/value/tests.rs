//! Every kind of field, out and in.

use serde_json::{Value as Json, json};
use vmstate_desc::{
    Codec, Count, Description, DynState, Element, Field, Limits, ListKind, Repeat, Scalar,
    ScalarType, Scalars, Size, TreeKey, Value,
};

use super::*;

fn state(fields: Vec<Field>, values: Vec<Value>) -> DynState {
    let mut d = Description::new("toy", 1, 1);
    d.fields = fields.into();
    let mut state = DynState::new(d);
    for (index, value) in values.into_iter().enumerate() {
        assert!(state.set_value(index, value));
    }
    state
}

/// A state becomes this JSON, and the JSON this state.
#[track_caller]
fn check(state: &DynState, expected: Json) {
    let json = to_json(state).unwrap();
    assert_eq!(json, expected);
    let text = json.to_string();
    let again = crate::parse_json(text.as_bytes(), 1 << 20).unwrap();
    let mut empty = DynState::new(vmstate_desc::SaveState::description(state));
    from_json(&mut empty, 1, &again, Limits::default()).unwrap();
    assert_eq!(&empty, state);
}

fn refusal(fields: Vec<Field>, json: &Json) -> String {
    let mut state = state(fields, vec![]);
    from_json(&mut state, 1, json, Limits::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn scalars() {
    let kinds: Vec<(Codec, Scalar, Json)> = vec![
        (Codec::Bool, Scalar::Bool(true), json!(true)),
        (Codec::Uint8, Scalar::U8(255), json!(255)),
        (Codec::Uint16Equal, Scalar::U16(0xffff), json!(65535)),
        (
            Codec::Uint32,
            Scalar::U32(u32::MAX),
            json!(4_294_967_295_u32),
        ),
        (
            Codec::Uint64,
            Scalar::U64(u64::MAX),
            json!("0xffffffffffffffff"),
        ),
        (Codec::Int8, Scalar::I8(-128), json!(-128)),
        (Codec::Int16, Scalar::I16(-1), json!(-1)),
        (
            Codec::Int32Le,
            Scalar::I32(i32::MIN),
            json!(-2_147_483_648_i64),
        ),
        (
            Codec::Int64,
            Scalar::I64(i64::MIN),
            json!("-9223372036854775808"),
        ),
        (Codec::Timer, Scalar::I64(-1), json!("-1")),
        (
            Codec::CpuDouble,
            Scalar::F64(1.0),
            json!("0x3ff0000000000000"),
        ),
        (
            Codec::LittleEndian(ScalarType::U16),
            Scalar::U16(258),
            json!(258),
        ),
    ];
    for (codec, value, expected) in kinds {
        let state = state(vec![Field::value("x", codec)], vec![value.into()]);
        check(&state, json!({ "x": expected }));
    }
    check(
        &state(
            vec![Field::value("x", Codec::Bool)],
            vec![Value::OddBool(7)],
        ),
        json!({"x": {"$raw": "07"}}),
    );
}

#[test]
fn blocks_and_arrays() {
    let bytes = |bytes: &[u8]| Value::Scalars(Scalars::U8(bytes.to_vec()));
    check(
        &state(
            vec![
                Field::value("buffer", Codec::Buffer(Size::Fixed(3))),
                Field::value("bits", Codec::Bitmap(Size::Fixed(65))),
                Field::value("words", Codec::Uint16).array(2),
                Field::value("flags", Codec::Bool).array(2),
                Field::value("none", Codec::Uint16).array(0),
                Field::value("empty", Codec::Buffer(Size::Fixed(0))),
                Field::value("cap", Codec::Capability),
                Field::value("bytes", Codec::ByteArray { max: 9 }),
                Field::value("own", Codec::custom("own", Some(2))),
            ],
            vec![
                bytes(&[1, 2, 0xff]),
                Value::Scalars(Scalars::U64(vec![1, 2])),
                Value::Scalars(Scalars::U16(vec![3, 4])),
                Value::Scalars(Scalars::Bool(vec![true, false])),
                Value::Scalars(Scalars::U16(vec![])),
                bytes(&[]),
                Value::Bytes(b"x-cap".to_vec()),
                Value::Bytes(vec![5, 6]),
                Value::Bytes(vec![7, 8]),
            ],
        ),
        json!({
            "buffer": "0102ff",
            "bits": "00000000000000010000000000000002",
            "words": [3, 4],
            "flags": [true, false],
            "none": [],
            "empty": "",
            "cap": "x-cap",
            "bytes": "0506",
            "own": "0708",
        }),
    );
}

fn inner(name: &'static str, x: u8) -> DynState {
    let mut d = Description::new(name, 1, 1);
    d.fields = vec![Field::value("x", Codec::Uint8)].into();
    let mut state = DynState::new(d);
    state.set("x", Scalar::U8(x));
    state
}

#[test]
fn embedded_state() {
    let d = || vmstate_desc::SaveState::description(&inner("in", 0));
    let of = |x| Value::from(inner("in", x));
    let fields = vec![
        Field::new("one", Element::Struct(d())),
        Field::new("two", Element::Struct(d())).array(2),
        Field::new("list", Element::List(ListKind::QTailq, d())).since(1),
        Field::new(
            "tree",
            Element::Tree {
                key: TreeKey::Direct,
                value: d(),
            },
        )
        .since(1),
        Field::new("slots", Element::Struct(d()))
            .array(2)
            .mark_every(8),
        Field::value("hole", Codec::Unused(4)),
        Field::value("absent", Codec::Uint8).conditional(),
    ];
    let values = vec![
        of(1),
        Value::List(vec![of(2), of(3)]),
        Value::List(vec![of(4)]),
        Value::Tree(vec![(Scalar::U64(9).into(), of(5))]),
        Value::List(vec![Value::Absent, of(6)]),
    ];
    check(
        &state(fields, values),
        json!({
            "one": {"x": 1},
            "two": [{"x": 2}, {"x": 3}],
            "list": [{"x": 4}],
            "tree": [{"key": "0x0000000000000009", "value": {"x": 5}}],
            "slots": [null, {"x": 6}],
        }),
    );
}

#[test]
fn subsections_carry_their_version() {
    let mut d = Description::new("toy", 1, 1);
    d.subsections = vec![vmstate_desc::SaveState::description(&inner("toy/more", 0))].into();
    let mut state = DynState::new(d);
    state.set_subsection(0, Some(inner("toy/more", 7)));
    check(
        &state,
        json!({"$sub": {"toy/more": {"$version": 1, "x": 7}}}),
    );
    let mut read = |json: Json| {
        let result = from_json(&mut state, 1, &json, Limits::default());
        result.unwrap_err().to_string()
    };
    let text = read(json!({"$sub": {"toy/other": {"$version": 1}}}));
    assert!(
        text.contains("toy/other does not exist in toy (known: toy/more)"),
        "{text}"
    );
    let text = read(json!({"$sub": {"toy/more": {"x": 1}}}));
    assert!(text.contains("$version"), "{text}");
    let text = read(json!({"$sub": {"toy/more": {"$version": 2, "x": 1}}}));
    assert!(text.contains("version 2"), "{text}");
}

#[test]
fn what_is_refused() {
    let x = |codec| vec![Field::value("x", codec)];
    let two = || vec![Field::value("x", Codec::Uint8).array(2)];
    let cases: Vec<(Vec<Field>, Json, &str)> = vec![
        (x(Codec::Uint8), json!({}), "toy/x: the field is missing"),
        (x(Codec::Uint8), json!({"x": 256}), "u8 expected, found 256"),
        (x(Codec::Uint8), json!({"x": -1}), "u8 expected, found -1"),
        (
            x(Codec::Uint8),
            json!({"x": 1.5}),
            "an integer expected, found 1.5",
        ),
        (
            x(Codec::Uint8),
            json!({"x": "1"}),
            "an integer expected, found \"1\"",
        ),
        (
            x(Codec::Uint8),
            json!({"x": 1, "y": 2}),
            "toy: there is no field \"y\" here",
        ),
        (x(Codec::Int8), json!({"x": 128}), "i8 expected"),
        (
            x(Codec::Bool),
            json!({"x": 1}),
            "true or false expected, found 1",
        ),
        (x(Codec::Uint64), json!({"x": "12"}), "16 hex digits"),
        (x(Codec::Uint64), json!({"x": 1_u64 << 53}), "16 hex digits"),
        (x(Codec::Int64), json!({"x": "+1"}), "a decimal number"),
        (
            x(Codec::Buffer(Size::Fixed(2))),
            json!({"x": "00"}),
            "1 bytes more expected",
        ),
        (
            x(Codec::Buffer(Size::Fixed(2))),
            json!({"x": "000000"}),
            "1 bytes too many",
        ),
        (
            x(Codec::Buffer(Size::Fixed(1))),
            json!({"x": "0"}),
            "hex digits expected",
        ),
        (
            x(Codec::ByteArray { max: 1 }),
            json!({"x": "0000"}),
            "length 2 is outside of 0..=1",
        ),
        (
            two(),
            json!({"x": [1]}),
            "has 1 elements, but its description says 2",
        ),
        (two(), json!({"x": [1, 2, 3]}), "has 3 elements"),
        (two(), json!({"x": 1}), "an array expected"),
        (two(), json!({"x": [1, 300]}), "toy/x[1]: "),
        (vec![], json!([]), "an object expected, found an array"),
        (vec![], json!({"$sub": 1}), "an object expected"),
        (x(Codec::Uint8), json!({"x": 1, "$version": 1}), "$version"),
    ];
    for (fields, json, expected) in cases {
        let text = refusal(fields, &json);
        assert!(text.contains(expected), "{json}: {text}");
    }
}

#[test]
fn numbers_may_stand_for_strings() {
    let fields = || {
        vec![
            Field::value("x", Codec::Uint64),
            Field::value("y", Codec::Int64),
        ]
    };
    let mut state = state(fields(), vec![]);
    let json = json!({"x": MAX_SAFE, "y": -5});
    from_json(&mut state, 1, &json, Limits::default()).unwrap();
    assert_eq!(state.get("x"), Some(&Scalar::U64(MAX_SAFE).into()));
    assert_eq!(state.get("y"), Some(&Scalar::I64(-5).into()));
}

#[test]
fn counts_and_holes_are_checked() {
    let fields = || {
        vec![
            Field::value("n", Codec::Uint8),
            Field::value("x", Codec::Uint8).repeat(Repeat::Counted(Count::of_field("n", 3))),
        ]
    };
    let text = refusal(fields(), &json!({"n": 2, "x": [1]}));
    assert!(text.contains("has 1 elements, but n says 2"), "{text}");
    let text = refusal(fields(), &json!({"n": 4, "x": [1, 2, 3, 4]}));
    assert!(text.contains("count 4 is outside"), "{text}");
    let slots = vec![Field::value("x", Codec::Uint8).array(1).mark_absent()];
    let text = refusal(slots, &json!({"x": [null]}));
    assert!(text.contains("an element expected, found none"), "{text}");
}
