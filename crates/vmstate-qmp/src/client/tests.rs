use super::*;
use crate::{ErrorClass, Timestamp};

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 13, "minor": 0, "major": 10}, "package": "p"}, "capabilities": ["oob"]}}"#;

fn receive(client: &mut Client, text: &str) -> Result<Vec<Received>, ProtocolError> {
    let mut bytes = text.as_bytes();
    let mut found = Vec::new();
    while let Some(received) = client.receive(&mut bytes)? {
        found.push(received);
    }
    Ok(found)
}

fn greeted() -> Client {
    let mut client = Client::new();
    let found = receive(&mut client, GREETING).unwrap();
    let [Received::Greeting(greeting)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(greeting.version.qemu.micro, 13);
    assert_eq!(greeting.capabilities, ["oob"]);
    client
}

#[test]
fn replies_find_their_commands() {
    let mut client = greeted();
    let (first, line) = client.command("a", Map::new());
    assert_eq!(line, b"{\"execute\":\"a\",\"id\":1}\r\n");
    let arguments = json!({"x": 1}).as_object().unwrap().clone();
    let (second, line) = client.command("b", arguments);
    assert_eq!(
        line,
        b"{\"execute\":\"b\",\"arguments\":{\"x\":1},\"id\":2}\r\n"
    );
    let text = r#"{"id": 2, "error": {"class": "NewClass", "desc": "no"}}
        {"timestamp": {"seconds": 5, "microseconds": 6}, "event": "MIGRATION", "data": {"status": "active"}}
        {"return": 7, "id": 1}"#;
    let error = QmpError {
        class: ErrorClass::Other,
        desc: "no".to_owned(),
    };
    let event = Event {
        timestamp: Timestamp {
            seconds: 5,
            microseconds: 6,
        },
        name: "MIGRATION".to_owned(),
        data: json!({"status": "active"}).as_object().cloned(),
    };
    assert_eq!(
        receive(&mut client, text).unwrap(),
        [
            Received::Reply(second, Err(error)),
            Received::Event(event),
            Received::Reply(first, Ok(json!(7))),
        ]
    );
}

#[test]
fn commands_that_overtake() {
    let mut client = greeted();
    let (first, _) = client.command("a", Map::new());
    let (second, line) = client.out_of_band("b", Map::new());
    assert_eq!(line, b"{\"exec-oob\":\"b\",\"id\":2}\r\n");
    let arguments = json!({"uri": "x"}).as_object().unwrap().clone();
    let (third, line) = client.out_of_band("c", arguments);
    assert_eq!(
        line,
        b"{\"exec-oob\":\"c\",\"arguments\":{\"uri\":\"x\"},\"id\":3}\r\n"
    );
    assert_eq!(client.unanswered(), 3);
    let text = r#"{"return": 3, "id": 3} {"return": 2, "id": 2} {"return": 1, "id": 1}"#;
    assert_eq!(
        receive(&mut client, text).unwrap(),
        [third, second, first]
            .into_iter()
            .zip([3, 2, 1])
            .map(|(id, value)| Received::Reply(id, Ok(json!(value))))
            .collect::<Vec<_>>()
    );
    assert_eq!(client.unanswered(), 0);
}

#[test]
fn what_is_no_server() {
    let refused = |text: &str| receive(&mut Client::new(), text).unwrap_err().to_string();
    assert_eq!(
        refused("SSH-2.0\r\n"),
        "the other side does not speak QMP: 1:1: JSON parse error, stray 'S'"
    );
    assert_eq!(
        refused(r#"{"return": {}}"#),
        r#"the other side does not begin with a QMP greeting but with: {"return":{}}"#
    );
    for text in ["1", "{}", r#"{"error": 1, "id": 1}"#, r#"{"event": 1}"#] {
        let mut client = greeted();
        let _ = client.command("a", Map::new());
        let text = format!("{text} ");
        let error = receive(&mut client, &text).unwrap_err();
        assert!(matches!(error, ProtocolError::Unexpected(_)), "{error}");
    }
    for text in [
        r#"{"return": 1}"#,
        r#"{"return": 1, "id": 2}"#,
        r#"{"return": 1, "id": "1"}"#,
    ] {
        let mut client = greeted();
        let _ = client.command("a", Map::new());
        let error = receive(&mut client, text).unwrap_err();
        assert!(matches!(error, ProtocolError::NotAsked(_)), "{error}");
    }
    // One reply for each command.
    let mut client = greeted();
    let _ = client.command("a", Map::new());
    receive(&mut client, r#"{"return": 1, "id": 1}"#).unwrap();
    receive(&mut client, r#"{"return": 1, "id": 1}"#).unwrap_err();
}

#[test]
fn long_messages_are_cut_for_people() {
    let text = format!(r#"{{"x": "{}"}}"#, "é".repeat(1000));
    let ProtocolError::NoGreeting(shown) = receive(&mut Client::new(), &text).unwrap_err() else {
        panic!();
    };
    assert_eq!(shown.chars().count(), 121);
}
