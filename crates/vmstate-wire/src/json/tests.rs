use std::borrow::Cow;

use proptest::prelude::*;

use super::{Json, JsonErrorKind, JsonEvent, JsonReader, JsonWriter};
use crate::stream::vectors;

#[track_caller]
fn check_string(bytes: &[u8], expected: &str) {
    let mut writer = JsonWriter::new();
    writer.string_bytes(bytes);
    assert_eq!(writer.into_string(), format!("\"{expected}\""));
}

/// Measured on stock QEMU 7.2.22.
#[test]
fn strings_are_escaped_as_stock_qemu_does() {
    check_string(b"plain /~ text", "plain /~ text");
    check_string(b"\"\\\x08\x0c\n\r\t", r#"\"\\\b\f\n\r\t"#);
    check_string(b"\x1b\x7f\0", r"\u001B\u007F\u0000");
    check_string("é😀".as_bytes(), r"\u00E9\uD83D\uDE00");
    check_string(b"a\xff\xfeb", r"a\uFFFD\uFFFDb");
    check_string(b"\xc0\x80", r"\u0000");
    check_string(b"\xc1\x80z", r"\uFFFDz");
    check_string(b"\xe0\x80\x80z", r"\uFFFDz");
    check_string(b"\xed\xa0\x80z", r"\uFFFDz");
    check_string(b"\xf4\x90\x80\x80z", r"\uFFFDz");
    check_string(b"\xf8\x88\x80\x80\x80z", r"\uFFFDz");
    check_string(b"\xfc\x84\x80\x80\x80\x80z", r"\uFFFDz");
    check_string(b"\xf8\x88z", r"\uFFFDz");
    check_string(b"\xe2\x82", r"\uFFFD");
    check_string(b"\xe2\x82z", r"\uFFFDz");
    check_string(b"\xe0\x80z\x80", r"\uFFFDz\uFFFD");
    check_string(b"\x80\x80\x80", r"\uFFFD\uFFFD\uFFFD");
    check_string(b"\xc3\xc3\xa9", r"\uFFFD\u00E9");
    check_string(b"\xef\xbf\xbe", r"\uFFFD");
    check_string(b"\xef\xb7\x90", r"\uFFFD");
    check_string(b"\xf0\x9f\xbf\xbe", r"\uFFFD");
}

#[test]
fn containers_and_numbers_are_compact() {
    let mut writer = JsonWriter::appending(b">".to_vec());
    writer.begin_object();
    writer.key("a");
    writer.i64(i64::MIN);
    writer.key("a");
    writer.u64(u64::MAX);
    writer.key("b");
    writer.begin_array();
    writer.begin_object();
    writer.end_object();
    writer.begin_array();
    writer.end_array();
    writer.i64(0);
    writer.bool(true);
    writer.bool(false);
    writer.null();
    writer.end_array();
    writer.key_bytes(b"\xff");
    writer.string("x");
    writer.end_object();
    assert_eq!(
        writer.into_string(),
        r#">{"a": -9223372036854775808, "a": 18446744073709551615, "b": [{}, [], 0, true, false, null], "\uFFFD": "x"}"#
    );
}

#[test]
fn repeated_keys_stay_in_order() {
    let json = Json::parse(br#"{"k": 1, "k": {"k": 2}, "j": 3, "k": 4}"#).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().iter().map(|m| &*m.0).collect();
    assert_eq!(keys, ["k", "k", "j", "k"]);
    assert_eq!(json.get("k").unwrap().as_u64(), Some(1));
    assert_eq!(json.get("none"), None);
}

#[test]
fn strings_borrow_unless_escaped() {
    let json = Json::parse(br#"["plain", "a\nb"]"#).unwrap();
    let items = json.as_array().unwrap();
    assert!(matches!(&items[0], Json::String(Cow::Borrowed("plain"))));
    assert!(matches!(&items[1], Json::String(Cow::Owned(text)) if text == "a\nb"));
    assert_eq!(items[0].as_str(), Some("plain"));
}

#[test]
fn pull_reader_gives_events_in_order() {
    let mut reader = JsonReader::new(br#" { "a" : [ 1 , -2 ] } "#, 8);
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        events.push(event);
    }
    assert_eq!(
        events,
        [
            JsonEvent::BeginObject,
            JsonEvent::Key("a".into()),
            JsonEvent::BeginArray,
            JsonEvent::Number(1),
            JsonEvent::Number(-2),
            JsonEvent::EndArray,
            JsonEvent::EndObject,
        ]
    );
    assert_eq!(reader.offset(), 22);
}

#[track_caller]
fn check_refused(text: &str, offset: usize, kind: JsonErrorKind) {
    let error = Json::parse(text.as_bytes()).unwrap_err();
    assert_eq!((error.offset, error.kind), (offset, kind), "{text}");
}

#[test]
fn malformed_texts_are_refused_with_their_place() {
    let end = |expected| JsonErrorKind::UnexpectedEnd { expected };
    let unexpected = |expected, found| JsonErrorKind::Unexpected { expected, found };
    check_refused("", 0, end("a value"));
    check_refused("[1", 2, end("',' or ']'"));
    check_refused("{\"a\": 1", 7, end("',' or '}'"));
    check_refused("{\"a\"", 4, end("':'"));
    check_refused("{1: 2}", 1, unexpected("a key", b'1'));
    check_refused("{\"a\": 1,}", 8, unexpected("a key", b'}'));
    check_refused("[1,]", 3, unexpected("a value", b']'));
    check_refused("[1}", 2, unexpected("',' or ']'", b'}'));
    check_refused("1 2", 2, unexpected("the end of the text", b'2'));
    check_refused("tru", 3, end("'true'"));
    check_refused("nulL", 3, unexpected("'null'", b'L'));
    check_refused("-", 1, end("a digit"));
    check_refused("01", 0, unexpected("a number without leading zeros", b'0'));
    check_refused("[1.5]", 1, JsonErrorKind::NotAnInteger);
    check_refused("1e3", 0, JsonErrorKind::NotAnInteger);
    check_refused("18446744073709551616", 0, JsonErrorKind::NumberRange);
    check_refused("-9223372036854775809", 0, JsonErrorKind::NumberRange);
    check_refused("\"a", 2, end("the rest of a string"));
    check_refused("\"a\n\"", 2, unexpected("the rest of a string", b'\n'));
    check_refused(r#""\q""#, 1, JsonErrorKind::BadEscape);
    check_refused(r#""\u12g4""#, 1, JsonErrorKind::BadEscape);
    assert_eq!(
        Json::parse(b"[1;").unwrap_err().to_string(),
        "expected ',' or ']', found byte 0x3b (at byte 2 of the JSON text)"
    );
}

#[test]
fn depth_is_bounded_on_both_sides_of_the_threshold() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(Json::parse(nested(64).as_bytes()).is_ok());
    check_refused(&nested(65), 64, JsonErrorKind::TooDeep { limit: 64 });
    assert!(Json::parse_with_depth(nested(200).as_bytes(), 200).is_ok());
    let error = Json::parse_with_depth(nested(100_000).as_bytes(), usize::MAX).unwrap_err();
    assert_eq!(error.kind, JsonErrorKind::TooDeep { limit: 1024 });
}

#[test]
fn odd_strings_are_read_lossily() {
    let text = |bytes: &[u8]| Json::parse(bytes).unwrap().as_str().unwrap().to_owned();
    assert_eq!(text(br#""\ud83d\ude00""#), "😀");
    assert_eq!(text(br#""\ud83dx""#), "\u{fffd}x");
    assert_eq!(text(br#""\ud83d\u0041""#), "\u{fffd}A");
    assert_eq!(text(br#""\ude00""#), "\u{fffd}");
    assert_eq!(text(b"\"a\xffb\""), "a\u{fffd}b");
    assert_eq!(text("\"é\"".as_bytes()), "é");
}

#[test]
fn integers_cover_64_bits() {
    let one = |text: &str| Json::parse(text.as_bytes()).unwrap().to_text();
    for text in [
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551615",
    ] {
        assert_eq!(one(text), text);
    }
    assert_eq!(Json::Unsigned(u64::MAX).as_i64(), None);
    assert_eq!(Json::Number(-1).as_u64(), None);
}

#[test]
fn every_recorded_trailer_is_written_back_identically() {
    let mut seen = 0;
    for stream in vectors::mains() {
        let Some(text) = stream.trailer() else {
            continue;
        };
        let json = Json::parse(text).unwrap();
        assert!(json.to_text().as_bytes() == text, "{}", stream.name);
        seen += 1;
    }
    assert_eq!(seen, 15);
}

fn any_json() -> impl Strategy<Value = Json<'static>> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(Json::Number),
        (i64::MAX as u64 + 1..).prop_map(Json::Unsigned),
        "[ -\u{d7ff}]{0,8}".prop_map(|text| Json::String(text.into())),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
            prop::collection::vec(("[a-c\"\\\\\n]{0,3}".prop_map(Cow::Owned), inner), 0..6)
                .prop_map(Json::Object),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(json in any_json()) {
        let text = json.to_text();
        prop_assert!(text.is_ascii());
        prop_assert_eq!(Json::parse(text.as_bytes()).unwrap(), json);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Json::parse(&bytes);
        let mut writer = JsonWriter::new();
        writer.string_bytes(&bytes);
        prop_assert!(Json::parse(writer.as_bytes()).is_ok());
    }

    #[test]
    fn arbitrary_punctuation_does_not_panic(text in "[\\[\\]{},:\"\\\\u0-9a-f tnrl-]{0,40}") {
        if let Ok(json) = Json::parse(text.as_bytes()) {
            let again = json.to_text();
            prop_assert_eq!(Json::parse(again.as_bytes()).unwrap(), json);
        }
    }
}
