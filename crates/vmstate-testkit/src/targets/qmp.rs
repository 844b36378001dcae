//! QMP: what either side may get from the other.

use serde_json::Value;
use vmstate_qmp::address::MigrationAddress;
use vmstate_qmp::json::{JsonLimits, JsonStream};
use vmstate_qmp::{Client, Dialogue, Incoming, Version, VersionTriple};

use super::settings;

/// A text: as values, as a client's and as a server's messages, in pieces; and as a URI.
///
/// # Panics
/// If pieces matter, or what was read does not read the same when written.
pub fn qmp(data: &[u8]) {
    let (piece, text) = settings(data);
    let piece = usize::from(piece % 16) + 1;
    let whole = values(text, text.len().max(1));
    assert_eq!(values(text, piece), whole);
    for value in whole.iter().flatten() {
        // A space ends a number.
        let again = values(format!("{value} ").as_bytes(), piece);
        assert_eq!(again, [Ok(value.clone())]);
    }
    server(text, piece);
    client(text, piece);
    if let Ok(text) = std::str::from_utf8(text) {
        uri(text);
    }
}

fn values(text: &[u8], piece: usize) -> Vec<Result<Value, String>> {
    let mut stream = JsonStream::new(JsonLimits {
        bytes: 1 << 12,
        depth: 64,
        tokens: 1 << 10,
    });
    let mut found = Vec::new();
    for mut piece in text.chunks(piece) {
        while let Some(result) = stream.take(&mut piece) {
            found.push(result.map_err(|e| e.to_string()));
        }
    }
    found
}

fn server(text: &[u8], piece: usize) {
    let qemu = VersionTriple {
        major: 11,
        minor: 1,
        micro: 0,
    };
    let package = String::new();
    let mut dialogue = Dialogue::new(Version { qemu, package }).with_out_of_band();
    for mut piece in text.chunks(piece) {
        while let Some(incoming) = dialogue.receive(&mut piece) {
            match incoming {
                Incoming::Reply(line) => {
                    assert!(line.ends_with(b"\r\n"));
                    assert!(serde_json::from_slice::<Value>(&line).is_ok());
                }
                Incoming::Command(_) => assert!(dialogue.wants_events()),
                Incoming::OutOfBand(_) => assert!(dialogue.is_out_of_band()),
            }
        }
    }
}

fn client(text: &[u8], piece: usize) {
    let mut client = Client::new();
    let _ = client.command("qmp_capabilities", serde_json::Map::new());
    for mut piece in text.chunks(piece) {
        loop {
            match client.receive(&mut piece) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) => return assert!(!e.to_string().is_empty()),
            }
        }
    }
}

fn uri(text: &str) {
    if let Ok(address) = text.parse::<MigrationAddress>() {
        let again = address.to_uri().map(|uri| uri.parse());
        assert_eq!(again, Some(Ok(address)), "{text}");
    }
    if let Ok(address) = serde_json::from_str::<MigrationAddress>(text) {
        assert!(!address.to_string().is_empty());
    }
}
