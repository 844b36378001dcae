use super::*;
use crate::VersionTriple;

fn dialogue() -> Dialogue {
    Dialogue::new(Version {
        qemu: VersionTriple {
            major: 11,
            minor: 1,
            micro: 3,
        },
        package: "ours".to_owned(),
    })
}

/// What the next message is answered with.
#[track_caller]
fn reply(dialogue: &mut Dialogue, text: &str) -> Value {
    let line = format!("{text}\n");
    let mut bytes = line.as_bytes();
    match dialogue.receive(&mut bytes) {
        Some(Incoming::Reply(line)) => {
            assert!(line.ends_with(b"}\r\n"));
            assert!(dialogue.receive(&mut bytes).is_none() && bytes.is_empty());
            serde_json::from_slice(&line).unwrap()
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn refused(dialogue: &mut Dialogue, text: &str, class: &str, desc: &str) {
    let expected = json!({"error": {"class": class, "desc": desc}});
    assert_eq!(reply(dialogue, text), expected, "{text}");
}

fn negotiated() -> Dialogue {
    let mut dialogue = dialogue();
    let answer = reply(
        &mut dialogue,
        r#"{"execute":"qmp_capabilities","arguments":{"enable":[]}}"#,
    );
    assert_eq!(answer, json!({"return": {}}));
    dialogue
}

#[test]
fn greeting() {
    let line: Value = serde_json::from_slice(&dialogue().greeting()).unwrap();
    assert_eq!(
        line,
        json!({"QMP": {
            "version": {"qemu": {"major": 11, "minor": 1, "micro": 3}, "package": "ours"},
            "capabilities": []
        }})
    );
}

// The texts were seen in answers of QEMU 11.1.3.
#[test]
fn negotiation_comes_first() {
    let mut dialogue = dialogue();
    refused(
        &mut dialogue,
        r#"{"execute":"query-status"}"#,
        "CommandNotFound",
        "Expecting capabilities negotiation with 'qmp_capabilities'",
    );
    refused(
        &mut dialogue,
        r#"{"execute":"qmp_capabilities","arguments":{"enable":"foo"}}"#,
        "GenericError",
        "Invalid parameter type for 'enable', expected: array",
    );
    refused(
        &mut dialogue,
        r#"{"execute":"qmp_capabilities","arguments":{"enabl":[]}}"#,
        "GenericError",
        "Parameter 'enabl' is unexpected",
    );
    refused(
        &mut dialogue,
        r#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#,
        "GenericError",
        "Capability 'oob' is not available",
    );
    assert!(!dialogue.wants_events());
    let id = json!({"a": [1]});
    assert_eq!(
        reply(
            &mut dialogue,
            r#"{"execute":"qmp_capabilities","id":{"a":[1]}}"#
        ),
        json!({"return": {}, "id": id})
    );
    assert!(dialogue.wants_events());
    refused(
        &mut dialogue,
        r#"{"execute":"qmp_capabilities"}"#,
        "CommandNotFound",
        "Capabilities negotiation is already complete, command ignored",
    );
}

#[test]
fn messages_that_are_no_commands() {
    let mut dialogue = negotiated();
    for text in ["[]", "1", "\"abc\"", "null", "true"] {
        refused(
            &mut dialogue,
            text,
            "GenericError",
            "QMP input must be a JSON object",
        );
    }
    for (text, desc) in [
        ("{}", "QMP input lacks member 'execute'"),
        (
            r#"{"execute":1}"#,
            "QMP input member 'execute' must be a string",
        ),
        (
            r#"{"execute":"a","arguments":[]}"#,
            "QMP input member 'arguments' must be an object",
        ),
        (
            r#"{"execute":"a","arguments":null}"#,
            "QMP input member 'arguments' must be an object",
        ),
        (
            r#"{"execute":"a","control":1}"#,
            "QMP input member 'control' is unexpected",
        ),
        (
            r#"{"execute":"a","exec-oob":"b"}"#,
            "QMP input member 'exec-oob' is unexpected",
        ),
    ] {
        refused(&mut dialogue, text, "GenericError", desc);
    }
    assert_eq!(
        reply(&mut dialogue, r#"{"id":4}"#),
        json!({
            "id": 4,
            "error": {"class": "GenericError", "desc": "QMP input lacks member 'execute'"}
        })
    );
    let wrong = reply(&mut dialogue, "tru");
    let desc = wrong["error"]["desc"].as_str().unwrap();
    assert!(
        desc.ends_with(":1: JSON parse error, invalid keyword 'tru'"),
        "{desc}"
    );
}

#[test]
fn out_of_band() {
    let mut dialogue = dialogue().with_out_of_band();
    let line: Value = serde_json::from_slice(&dialogue.greeting()).unwrap();
    assert_eq!(line["QMP"]["capabilities"], json!(["oob"]));
    // Offered is not enabled.
    refused(
        &mut dialogue,
        r#"{"exec-oob":"a"}"#,
        "GenericError",
        "QMP input member 'exec-oob' is unexpected",
    );
    let enable = r#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#;
    assert!(!dialogue.is_out_of_band());
    assert_eq!(reply(&mut dialogue, enable), json!({"return": {}}));
    assert!(dialogue.is_out_of_band());
    let command = |execute: &str| Request {
        execute: execute.to_owned(),
        arguments: Map::new(),
        id: Some(json!(1)),
    };
    let mut bytes = &br#"{"execute":"a","id":1}{"exec-oob":"b","id":1}"#[..];
    assert_eq!(
        dialogue.receive(&mut bytes),
        Some(Incoming::Command(command("a")))
    );
    assert_eq!(
        dialogue.receive(&mut bytes),
        Some(Incoming::OutOfBand(command("b")))
    );
    for (text, desc) in [
        (
            r#"{"exec-oob":1}"#,
            "QMP input member 'exec-oob' must be a string",
        ),
        (
            r#"{"execute":"a","exec-oob":"b"}"#,
            "QMP input member 'execute' clashes with 'exec-oob'",
        ),
    ] {
        refused(&mut dialogue, text, "GenericError", desc);
    }
}

#[test]
fn commands_in_pieces() {
    let text = br#"{'execute':'a'}{"execute":"b","arguments":{"x":[1]},"id":null}"#;
    let mut dialogue = negotiated();
    let mut found = Vec::new();
    for piece in text.chunks(1) {
        let mut bytes = piece;
        while let Some(incoming) = dialogue.receive(&mut bytes) {
            found.push(incoming);
        }
    }
    let command = |execute: &str, arguments: Value, id| {
        Incoming::Command(Request {
            execute: execute.to_owned(),
            arguments: arguments.as_object().unwrap().clone(),
            id,
        })
    };
    let expected = [
        command("a", json!({}), None),
        command("b", json!({"x": [1]}), Some(Value::Null)),
    ];
    assert_eq!(found, expected);
}
