use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use vmstate_qmp::schema::{Member, Shape, Type};
use vmstate_qmp::{CommandTable, Empty, MachineEvent, QmpError, Version, VersionTriple};

use super::*;

fn version() -> Version {
    Version {
        qemu: VersionTriple {
            major: 11,
            minor: 1,
            micro: 0,
        },
        package: "toy".to_owned(),
    }
}

fn short() -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(200),
        reply: Duration::from_millis(200),
    }
}

/// A server with an echo, an event, and a long answer.
fn toy(address: &str) -> (RunningQmpServer, Events) {
    let events = Events::new();
    let mut table = CommandTable::<Events>::new();
    const TEXT: Shape = Shape::of(&[Member::required("text", Type::String)]);
    table.add("echo", TEXT, |_: &Events, arguments: Value| Ok(arguments));
    table.add("stop", Shape::EMPTY, |events: &Events, _: Empty| {
        events.emit(&MachineEvent::Stop);
        Ok(Empty {})
    });
    table.add("slow", Shape::EMPTY, |events: &Events, _: Empty| {
        events.emit(&MachineEvent::Stop);
        thread::sleep(Duration::from_millis(100));
        Ok(Empty {})
    });
    table.add("long", Shape::EMPTY, |_: &Events, _: Empty| {
        Ok("x".repeat(100_000))
    });
    table.add("refuse", Shape::EMPTY, |_: &Events, _: Empty| {
        Err::<Empty, _>(QmpError::generic("no"))
    });
    let server = QmpServer::bind(&address.parse().unwrap()).unwrap();
    let context = Arc::new(events.clone());
    let server = server.start(table, context, &events, version()).unwrap();
    (server, events)
}

fn toy_in(dir: &TempDir) -> (RunningQmpServer, Events) {
    toy(&format!("unix:{}/qmp", dir.path().display()))
}

#[test]
fn addresses() {
    let check = |text: &str, expected: QmpAddress| {
        assert_eq!(text.parse(), Ok(expected));
    };
    check("/run/qmp", QmpAddress::Unix("/run/qmp".into()));
    check("unix:qmp", QmpAddress::Unix("qmp".into()));
    check(
        "unix:/run/qmp,server=on,wait=off",
        QmpAddress::Unix("/run/qmp".into()),
    );
    check("tcp:[::1]:7", QmpAddress::Tcp("::1".to_owned(), 7));
    check(
        "tcp:localhost:4444,server,nowait",
        QmpAddress::Tcp("localhost".to_owned(), 4444),
    );
    for text in ["unix:/a", "tcp:h:1", "tcp:[::1]:2"] {
        assert_eq!(text.parse::<QmpAddress>().unwrap().to_string(), text);
    }
    for wrong in [
        "",
        "unix:",
        "tcp:",
        "tcp:h",
        "tcp:h:x",
        "tcp:h:65536",
        ",server",
    ] {
        assert!(wrong.parse::<QmpAddress>().is_err(), "{wrong}");
    }
}

#[test]
fn commands_and_events() {
    let dir = tempfile::tempdir().unwrap();
    let (server, events) = toy_in(&dir);
    let mut one = QmpClient::connect(server.address(), Timeouts::default()).unwrap();
    let mut other = QmpClient::connect(server.address(), Timeouts::default()).unwrap();
    assert_eq!(*one.version(), version());
    let text = json!({"text": "é\n"});
    assert_eq!(one.run("echo", &text).unwrap(), text);
    assert_eq!(one.run("stop", json!({})).unwrap(), json!({}));
    // The event was sent before the reply.
    let names: Vec<_> = one.take_events().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["STOP"]);
    let event = other.next_event(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(event.name, "STOP");
    assert!(event.timestamp.seconds > 1_700_000_000);
    events.emit(&MachineEvent::MigrationPass(3));
    let event = other.next_event(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(event.data.unwrap()["pass"], 3);
    let error = one.run("refuse", json!({})).unwrap_err();
    assert_eq!(error.to_string(), "refuse: no");
    assert!(!error.is_lost());
    let error = one.query::<u64>("echo", &text).unwrap_err();
    assert!(error.to_string().starts_with("echo: unexpected reply"));
    assert_eq!(
        one.query::<String>("long", json!({})).unwrap().len(),
        100_000
    );
    drop(one);
    assert_eq!(other.run("echo", &text).unwrap(), text);
    server.close();
    let error = other.run("echo", &text).unwrap_err();
    assert!(error.is_lost(), "{error}");
    assert!(!dir.path().join("qmp").exists());
}

#[test]
fn over_tcp() {
    let (server, _) = toy("tcp:127.0.0.1:0");
    assert_ne!(server.address().to_string(), "tcp:127.0.0.1:0");
    let mut client = QmpClient::connect(server.address(), Timeouts::default()).unwrap();
    client.run("stop", json!({})).unwrap();
}

#[test]
fn a_deserted_socket_is_replaced_and_a_used_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (server, _) = toy_in(&dir);
    let error = QmpServer::bind(server.address()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    QmpClient::connect(server.address(), Timeouts::default()).unwrap();
}

#[test]
fn the_last_reply_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (server, events) = toy_in(&dir);
    let mut client = QmpClient::connect(server.address(), Timeouts::default()).unwrap();
    events.emit(&MachineEvent::Shutdown {
        guest: false,
        reason: "host-qmp-quit",
    });
    server.close();
    let event = client.next_event(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(event.name, "SHUTDOWN");
    client.next_event(Duration::from_secs(60)).unwrap_err();
}

/// A machine may come to its end by a command, before that command has returned.
#[test]
fn a_command_that_ends_the_machine_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = toy_in(&dir);
    let connect = || QmpClient::connect(server.address(), Timeouts::default()).unwrap();
    let (mut client, mut other) = (connect(), connect());
    let answer = thread::spawn(move || client.run("slow", json!({})));
    let event = other.next_event(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(event.name, "STOP");
    server.close();
    assert_eq!(answer.join().unwrap().unwrap(), json!({}));
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let (server, events) = toy_in(&dir);
    let QmpAddress::Unix(path) = server.address().clone() else {
        panic!();
    };
    let mut lazy = UnixStream::connect(path).unwrap();
    lazy.write_all(b"{'execute':'qmp_capabilities'}").unwrap();
    // Once negotiated it gets events.
    let mut lines = BufReader::new(lazy.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), r#"{"return":{}}"#);
    let begin = Instant::now();
    let mut good = QmpClient::connect(server.address(), Timeouts::default()).unwrap();
    let mut heard = 0;
    for number in 0..40_000 {
        events.emit(&MachineEvent::MigrationPass(number));
        if number % 100 == 0 {
            good.run("echo", json!({"text": ""})).unwrap();
            heard += good.take_events().len();
        }
    }
    assert!(heard > 30_000);
    assert!(begin.elapsed() < Duration::from_secs(60));
    // The lazy one has been cut off: what it finds ends.
    let mut rest = Vec::new();
    lazy.set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    lazy.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 4 << 20);
}

#[test]
fn there_is_room_for_some_clients_only() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = toy_in(&dir);
    let mut clients: Vec<_> = (0..16)
        .map(|_| QmpClient::connect(server.address(), Timeouts::default()).unwrap())
        .collect();
    let error = QmpClient::connect(server.address(), short()).unwrap_err();
    assert!(error.is_lost(), "{error}");
    clients.pop();
    let end = Instant::now() + Duration::from_secs(60);
    while QmpClient::connect(server.address(), short()).is_err() {
        assert!(Instant::now() < end);
    }
}

#[test]
fn servers_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let address = QmpAddress::Unix(path.clone());
    let error = QmpClient::connect(&address, short()).unwrap_err();
    assert!(error.to_string().contains("cannot connect"), "{error}");

    // One that says nothing: like a QEMU that serves another client.
    let listener = UnixListener::bind(&path).unwrap();
    let error = QmpClient::connect(&address, short()).unwrap_err();
    assert!(
        matches!(error, QmpClientError::NoGreeting { .. }),
        "{error}"
    );
    drop(listener.accept().unwrap());

    let says = |text: &'static [u8]| {
        let listener = listener.try_clone().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(text).unwrap();
            let mut heard = [0; 100];
            let _ = stream.read(&mut heard);
            thread::sleep(Duration::from_millis(400));
        });
        let error = QmpClient::connect(&address, short()).unwrap_err();
        server.join().unwrap();
        error
    };
    let error = says(b"SSH-2.0-OpenSSH\r\n");
    assert!(matches!(error, QmpClientError::Protocol { .. }), "{error}");
    let error = says(
        br#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}, "package": ""}, "capabilities": []}}"#,
    );
    let QmpClientError::NoReply { command, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(command, "qmp_capabilities");
}

/// Whether a command still waits.
#[derive(Default)]
struct Gate(std::sync::Mutex<bool>, std::sync::Condvar);

impl Gate {
    fn wait(&self) -> bool {
        let patience = Duration::from_secs(60);
        let open = self.0.lock().unwrap();
        let waited = self.1.wait_timeout_while(open, patience, |open| !*open);
        !waited.unwrap().1.timed_out()
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

#[test]
fn commands_that_overtake_one_that_waits() {
    let mut table = CommandTable::<Gate>::new();
    table.add(
        "wait",
        Shape::EMPTY,
        |gate: &Gate, _: Empty| Ok(gate.wait()),
    );
    table.add("next", Shape::EMPTY, |_: &Gate, _: Empty| Ok(Empty {}));
    table.add("slow", Shape::EMPTY, |_: &Gate, _: Empty| {
        thread::sleep(Duration::from_millis(100));
        Ok(Empty {})
    });
    table.add("open", Shape::EMPTY, |gate: &Gate, _: Empty| {
        gate.open();
        Ok(Empty {})
    });
    table.allow_out_of_band("open");
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/qmp", dir.path().display());
    let server = QmpServer::bind(&address.parse().unwrap()).unwrap();
    let events = Events::new();
    let server = server
        .start(table, Arc::default(), &events, version())
        .unwrap();

    let mut client = QmpClient::connect(server.address(), Timeouts::default()).unwrap();
    assert!(client.is_out_of_band());
    let little = Duration::from_millis(50);
    let waits = client.query_within::<bool>("wait", json!({}), little);
    assert_eq!(waits.unwrap(), None);
    // It is not sent: the one before has no answer.
    let waits = client.query_within::<Value>("next", json!({}), little);
    assert_eq!(waits.unwrap(), None);
    let refused = client.run_out_of_band("next", json!({})).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "next: The command next does not support OOB"
    );
    assert_eq!(
        client.run_out_of_band("open", json!({})).unwrap(),
        json!({})
    );
    assert_eq!(client.run("next", json!({})).unwrap(), json!({}));
    // By now it is answered, so the next question is asked.
    let long = Duration::from_secs(60);
    let asked = client.query_within::<Value>("next", json!({}), long);
    assert_eq!(asked.unwrap(), Some(json!({})));
    // Who says nothing more still hears what came of what it has said.
    let path = dir.path().join("qmp");
    let mut socket = UnixStream::connect(&path).unwrap();
    let enable = br#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#;
    socket.write_all(enable).unwrap();
    socket.write_all(br#"{"execute":"slow","id":7}"#).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    assert!(said.contains(r#""id":7"#), "{said}");
    server.close();
    let lost = client.query_within::<Value>("next", json!({}), long);
    assert!(lost.unwrap_err().is_lost());
}

/// Where nothing can overtake, nothing is offered, and such a command waits its turn.
#[test]
fn a_server_without_such_commands() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = toy_in(&dir);
    let mut client = QmpClient::connect(server.address(), Timeouts::default()).unwrap();
    assert!(!client.is_out_of_band());
    let text = json!({"text": "x"});
    assert_eq!(client.run_out_of_band("echo", &text).unwrap(), text);
}
