use proptest::prelude::*;
use serde_json::json;

use super::*;

/// All that comes out of a text: values, or what is wrong.
fn read_in(limits: JsonLimits, text: &[u8], piece: usize) -> Vec<Result<Value, String>> {
    let mut stream = JsonStream::new(limits);
    let mut found = Vec::new();
    for piece in text.chunks(piece) {
        let mut rest = piece;
        while let Some(result) = stream.take(&mut rest) {
            found.push(result.map_err(|e| e.to_string()));
        }
        assert!(rest.is_empty());
    }
    found
}

fn read(text: &[u8]) -> Vec<Result<Value, String>> {
    let whole = read_in(JsonLimits::COMMAND, text, usize::MAX);
    assert_eq!(read_in(JsonLimits::COMMAND, text, 1), whole);
    whole
}

#[track_caller]
fn value(text: &str, expected: Value) {
    let line = format!("{text}\n");
    assert_eq!(read(line.as_bytes()), [Ok(expected)], "{text}");
}

/// The texts were seen in answers of QEMU 11.1.3.
#[track_caller]
fn wrong(text: impl AsRef<[u8]>, expected: &[&str]) {
    let mut line = text.as_ref().to_vec();
    line.push(b'\n');
    let expected: Vec<_> = expected
        .iter()
        .map(|e| match e.split_once(' ') {
            Some((at, what)) if at.contains(':') => Err(format!("{at}: JSON parse error, {what}")),
            _ => Err((*e).to_owned()),
        })
        .collect();
    assert_eq!(read(&line), expected, "{}", String::from_utf8_lossy(&line));
}

#[test]
fn values() {
    value("{}", json!({}));
    value("[]", json!([]));
    value(
        "{\"a\": [1, -2.5, {\"b\": null}], \"c\": true}",
        json!({"a": [1, -2.5, {"b": null}], "c": true}),
    );
    value("{'a\"b': \"c'd\\'\"}", json!({"a\"b": "c'd'"}));
    value(
        r#""\ud83d\ude00 \/ \b\f\n\r\t\\\" \u0000é""#,
        json!("😀 / \u{8}\u{c}\n\r\t\\\" \0é"),
    );
    value("-0", json!(0));
    value("1.0", json!(1.0));
    value("1E+2", json!(100.0));
    value("18446744073709551615", json!(u64::MAX));
    value("-9223372036854775808", json!(i64::MIN));
    value("18446744073709551616", json!(18_446_744_073_709_551_616.0));
    value("false", json!(false));
}

#[test]
fn nothing_need_stand_between() {
    assert_eq!(
        read(b"{}[]\"a\"'b'1 2[3]true{}"),
        [
            json!({}),
            json!([]),
            json!("a"),
            json!("b"),
            json!(1),
            json!(2),
            json!([3]),
            json!(true),
            json!({})
        ]
        .map(Ok)
    );
    // A number may go on in the next piece.
    assert_eq!(read(b"12"), []);
}

#[test]
fn refusals() {
    wrong("tru", &["1:1 invalid keyword 'tru'"]);
    wrong(
        "tru fals",
        &["1:1 invalid keyword 'tru'", "1:5 invalid keyword 'fals'"],
    );
    wrong(r#"{"execute":"query-status",}"#, &["1:27 expecting key"]);
    wrong(r#"{"execute" "x"}"#, &["1:12 expecting ':'"]);
    wrong("{1:2}", &["1:2 expecting key"]);
    wrong("{,}", &["1:2 expecting key"]);
    wrong(r#"{"a"}"#, &["1:5 expecting ':'"]);
    wrong(r#"{"a":}"#, &["1:6 expecting value"]);
    wrong(r#"{"a":1,"a":2}"#, &["1:12 duplicate key"]);
    wrong("[1 2]", &["1:4 expected ',' or ']'"]);
    wrong("[1,]", &["1:4 expecting value"]);
    wrong("[,]", &["1:2 expecting value"]);
    wrong(r#"{"a":1 "b":2}"#, &["1:8 expected ',' or '}'"]);
    wrong(r#"{"a":true1}"#, &["1:10 expected ',' or '}'"]);
    wrong("]", &["1:1 expecting value"]);
    wrong("}", &["1:1 expecting value"]);
    wrong(":", &["1:1 expecting value"]);
    wrong(r#"{"a":1]"#, &["1:7 expected ',' or '}'"]);
    wrong(
        r#""\ud800""#,
        &["1:1 \\ud800 is not a valid Unicode character"],
    );
    wrong(
        r#""\ude00""#,
        &["1:1 \\ude00 is not a valid Unicode character"],
    );
    wrong(
        r#""\ufffe""#,
        &["1:1 \\ufffe is not a valid Unicode character"],
    );
    wrong(
        r#""\u12""#,
        &["1:1 \\u12\" is not a valid Unicode character"],
    );
    wrong(r#""\q""#, &["1:1 invalid escape sequence in string"]);
    wrong(b"\"\xc3\"", &["1:1 invalid UTF-8 sequence in string"]);
    wrong(
        b"\"\xed\xa0\x80\"",
        &["1:1 invalid UTF-8 sequence in string"],
    );
    wrong(
        b"\"\xef\xbf\xbf\"",
        &["1:1 invalid UTF-8 sequence in string"],
    );
}

#[test]
fn reading_goes_on_behind_what_is_no_token() {
    wrong(b"\xff", &["1:1 stray '\u{fffd}'"]);
    wrong("\u{1}", &["1:1 stray '\u{1}'"]);
    wrong("\"abc", &["1:1 stray '\"abc\n'"]);
    wrong("-}", &["1:1 stray '-}'"]);
    wrong("1.}", &["1:1 stray '1.}'"]);
    wrong("1e}", &["1:1 stray '1e}'"]);
    wrong("1e400", &["1:1 stray '1e400'"]);
    wrong("{\"a\":01}", &["1:6 stray '01'", "1:8 expecting value"]);
    wrong("{\"a\":+1}", &["1:6 stray '+'", "1:8 expecting value"]);
    wrong(
        "{\"a\":\"b\tc\"}",
        &["1:6 stray '\"b\t'", "1:11 expecting value"],
    );
    let mut text = b"\xff{\"id\":1}".to_vec();
    assert_eq!(
        read(&text),
        [
            Err("1:1: JSON parse error, stray '\u{fffd}'".to_owned()),
            Ok(json!({"id": 1}))
        ]
    );
    text = b"{\"a\":1 %  , {\"id\":2}\n".to_vec();
    assert_eq!(read(&text)[2], Ok(json!({"id": 2})));
}

#[test]
fn reading_goes_on_where_all_is_closed() {
    // As QEMU: of what is wrong each brace and bracket still counts.
    let text = b"{\"a\":[}\n{\"id\":2}\n[}\n{\"id\":3}\n{\"a\":[1,2}]}\n{\"id\":4}\n";
    let found = read(text);
    let error = |at: &str, what: &str| Err(format!("{at}: JSON parse error, {what}"));
    assert_eq!(
        found,
        [
            error("1:7", "expecting value"),
            Ok(json!({"id": 3})),
            error("5:10", "expected ',' or ']'"),
            error("5:12", "expecting value"),
            Ok(json!({"id": 4})),
        ]
    );
}

#[test]
fn limits() {
    let limits = JsonLimits {
        bytes: 20,
        depth: 3,
        tokens: 8,
    };
    let check = |text: &str, expected: Result<Value, JsonErrorKind>| {
        let expected = expected.map_err(|kind| kind.to_string());
        let text = format!("{text} ");
        for piece in [1, 1000] {
            assert_eq!(
                read_in(limits, text.as_bytes(), piece),
                std::slice::from_ref(&expected)
            );
        }
    };
    check("[[[]]]", Ok(json!([[[]]])));
    check("[[[[]]]]", Err(JsonErrorKind::TooDeep));
    check("[1,2,3]", Ok(json!([1, 2, 3])));
    check("[1,2,3,4]", Err(JsonErrorKind::TooMany));
    check(
        &format!("\"{}\"", "x".repeat(18)),
        Ok(json!("x".repeat(18))),
    );
    check(
        &format!("\"{}\"", "x".repeat(19)),
        Err(JsonErrorKind::TooLong),
    );
    check(
        &format!("[\"{}\",1]", "x".repeat(20)),
        Err(JsonErrorKind::TooLong),
    );
    // What is skipped is not kept.
    let mut stream = JsonStream::new(limits);
    let mut errors = 0;
    for _ in 0..1000 {
        let mut rest = &b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["[..];
        while let Some(result) = stream.take(&mut rest) {
            errors += usize::from(result.is_err());
        }
    }
    assert_eq!(errors, 1);
}

proptest! {
    #[test]
    fn pieces_do_not_matter(text in "[\\[\\]{}:,\"'a\\\\u0-9tru \\n.e-]{0,40}", piece in 1_usize..9) {
        let whole = read_in(JsonLimits::COMMAND, text.as_bytes(), usize::MAX);
        prop_assert_eq!(read_in(JsonLimits::COMMAND, text.as_bytes(), piece), whole);
    }

    #[test]
    fn what_is_json_is_read(text in "[\\[\\]{}:,\"a\\\\0-9 .e-]{0,30}") {
        let theirs: Result<Value, _> = serde_json::from_str(&text);
        if let Ok(theirs) = theirs {
            // A space ends a number.
            let found = read_in(JsonLimits::COMMAND, format!("{text} ").as_bytes(), 3);
            if !text.contains('{') {
                prop_assert_eq!(found, [Ok(theirs)]);
            }
        }
    }

    #[test]
    fn what_was_written_is_read(keys in prop::collection::vec(".{0,6}", 0..4), number: i64) {
        let value = json!([keys.iter().enumerate().collect::<Vec<_>>(), number]);
        let found = read_in(JsonLimits::COMMAND, value.to_string().as_bytes(), 5);
        // A few code points are no characters, and are refused.
        let refused = keys.iter().any(|k| k.chars().any(|c| c as u32 & 0xfffe == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c) ));
        if !refused {
            prop_assert_eq!(found, [Ok(value)]);
        }
    }
}
