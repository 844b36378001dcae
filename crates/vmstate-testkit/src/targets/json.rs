//! The JSON of trailers.

use vmstate_wire::json::{DEFAULT_MAX_DEPTH, Json, JsonReader};

/// The reader and the tree: both accept the same texts. A tree that is written reads as the same tree, but for characters
/// that QEMU writes as U+FFFD.
///
/// # Panics
/// If they do not.
pub fn json(data: &[u8]) {
    let tree = Json::parse(data);
    let mut reader = JsonReader::new(data, DEFAULT_MAX_DEPTH);
    let mut depth = 0_i64;
    let events = loop {
        match reader.next_event() {
            Ok(Some(event)) => {
                use vmstate_wire::json::JsonEvent::{BeginArray, BeginObject, EndArray, EndObject};
                depth += match event {
                    BeginArray | BeginObject => 1,
                    EndArray | EndObject => -1,
                    _ => 0,
                };
                assert!(reader.offset() <= data.len());
            }
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    match (&tree, events) {
        (Ok(_), Ok(())) => assert_eq!(depth, 0),
        (Err(tree), Err(events)) => assert_eq!(*tree, events),
        (tree, events) => panic!("tree {tree:?}, events {events:?}"),
    }
    if let Ok(tree) = tree {
        let text = tree.to_text();
        match Json::parse(text.as_bytes()) {
            Ok(again) => assert_eq!(again.to_text(), text),
            Err(e) => panic!("{e}: {text}"),
        }
    }
}
