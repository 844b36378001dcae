//! Every recorded stream, from its first byte to its last.

use super::super::vectors::{self, Recorded};
use super::super::*;
use super::driver::{Seen, ram_length, rewrite, walk};
use crate::json::Json;

/// The length of a body: that of RAM by its records, of others by inference.
fn measure(stream: &Recorded) -> impl FnMut(&SectionHeader, &[u8], &StreamParser) -> usize + use<> {
    let mapped_ram = stream.has_capability("mapped-ram");
    move |header, rest, parser| {
        if header.idstr == "ram" {
            return ram_length(rest, parser.offset().0, mapped_ram);
        }
        let rest = parser
            .package_remaining()
            .map_or(rest, |left| &rest[..usize::try_from(left).unwrap()]);
        let context = InferContext {
            section_id: header.section_id,
            sections: parser.sections(),
            footers: true,
            package: parser.package_remaining().is_some(),
        };
        match infer_body_end(rest, &context, true) {
            BodyEnd::Inferred(end) => end.length,
            other => panic!("{}: {header:?}: {other:?}", parser.offset()),
        }
    }
}

fn walk_recorded(stream: &Recorded, piece: usize) -> Vec<Seen> {
    let mut parser = StreamParser::new(ParserOptions::default());
    let seen = walk(&mut parser, &stream.bytes, piece, measure(stream)).unwrap();
    assert_eq!(parser.offset().0, stream.bytes.len() as u64);
    assert_eq!(parser.footers(), Presence::Required);
    seen
}

fn commands(seen: &[Seen]) -> Vec<(String, u64)> {
    let mut payload = Vec::new();
    seen.iter()
        .filter_map(|one| match one {
            Seen::Event(Event::Command(command)) => {
                payload.clear();
                command.encode_payload(&mut payload);
                Some((command.id().to_string(), payload.len() as u64))
            }
            Seen::Event(Event::PackageBegin { .. }) => Some(("PACKAGED".to_owned(), 4)),
            _ => None,
        })
        .collect()
}

#[test]
fn every_recording_is_what_its_sidecar_says() {
    for stream in vectors::mains() {
        let name = &stream.name;
        let seen = walk_recorded(&stream, usize::MAX / 2);

        let number = |value: u32| Json::Number(i64::from(value));
        let sections: Vec<Json<'_>> = seen
            .iter()
            .filter_map(|one| match one {
                Seen::Event(Event::Section(header)) if header.kind.names_owner() => {
                    Some(Json::Array(vec![
                        number(header.section_id.0),
                        Json::String(header.idstr.as_str().unwrap().into()),
                        number(header.instance_id.0),
                        number(header.version_id.0),
                    ]))
                }
                _ => None,
            })
            .collect();
        let expected = stream.sidecar.get("sections").and_then(Json::as_array);
        assert_eq!(expected, Some(sections.as_slice()), "{name}");

        let configuration = seen.iter().find_map(|one| match one {
            Seen::Event(Event::Configuration(one)) => Some(one),
            _ => None,
        });
        let configuration = configuration.unwrap();
        assert_eq!(
            configuration.machine.as_str(),
            stream.sidecar.get("machine").and_then(Json::as_str),
            "{name}"
        );
        assert_eq!(
            configuration.has_capability("mapped-ram"),
            stream.has_capability("mapped-ram")
        );
        let bits = name.starts_with("arm").then_some(12);
        assert_eq!(configuration.target_page_bits(), bits, "{name}");

        let loaded = stream.sidecar.get("loader_commands");
        if let Some(loaded) = loaded.and_then(Json::as_array) {
            let mut loaded: Vec<(String, u64)> = loaded
                .iter()
                .map(|one| match one.as_array() {
                    Some([name, length]) => {
                        (name.as_str().unwrap().into(), length.as_u64().unwrap())
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            let mut found = commands(&seen);
            // A destination reads the package and what follows it at the same time.
            loaded.sort();
            found.sort();
            assert_eq!(found, loaded, "{name}");
        }

        let text = seen.iter().find_map(|one| match one {
            Seen::Text(text) => Some(text.as_slice()),
            _ => None,
        });
        assert_eq!(text, stream.trailer(), "{name}");
        if let Some(text) = text {
            let json = Json::parse(text).unwrap();
            let devices = json.get("devices").and_then(Json::as_array).unwrap();
            let told = stream
                .sidecar
                .get("vmdesc")
                .and_then(|one| one.get("devices"));
            assert_eq!(
                told.and_then(Json::as_u64),
                Some(devices.len() as u64),
                "{name}"
            );
        }
        assert!(rewrite(&seen) == stream.bytes, "{name}: written back");
    }
}

#[test]
fn pieces_of_any_size_give_the_same_events() {
    for (name, pieces) in [
        ("spike-11.1", &[1, 2, 5, 4096][..]),
        ("pc-11.1-postcopy", &[1, 1000]),
        ("arm-virt-11.1", &[1, 13]),
    ] {
        let stream = vectors::main(name);
        let whole = walk_recorded(&stream, usize::MAX / 2);
        for piece in pieces {
            assert!(walk_recorded(&stream, *piece) == whole, "{name} by {piece}");
        }
    }
}

#[test]
fn the_package_of_postcopy_can_be_read_on_its_own() {
    let stream = vectors::main("pc-11.1-postcopy");
    let whole = walk_recorded(&stream, usize::MAX / 2);
    let begin = whole
        .iter()
        .position(|one| matches!(one, Seen::Event(Event::PackageBegin { .. })))
        .unwrap();
    let end = whole
        .iter()
        .position(|one| *one == Seen::Event(Event::PackageEnd))
        .unwrap();
    assert!(whole[begin..end].contains(&Seen::Event(Event::Command(Command::PostcopyRun))));

    let mut parser = StreamParser::new(ParserOptions::default());
    let mut at = 0;
    let length = loop {
        match parser.next(&stream.bytes[at..]).unwrap() {
            Step::Event { consumed, event } => {
                at += consumed;
                if let Event::PackageBegin { length } = event {
                    break usize::try_from(length).unwrap();
                }
            }
            Step::InBody => {
                let length = ram_length(&stream.bytes[at..], parser.offset().0, false);
                parser.body_done(length as u64).unwrap();
                at += length;
            }
            other => panic!("{other:?}"),
        }
    };
    let mut inner = parser.take_package().unwrap();
    let package = &stream.bytes[at..at + length];
    let seen = walk(&mut inner, package, 100, measure(&stream)).unwrap();
    assert_eq!(seen, whole[begin + 1..=end]);
    assert!(inner.is_postcopy() && !parser.is_postcopy());

    let sections = parser.sections().len();
    parser.learn(&inner);
    assert_eq!(parser.sections().len(), sections + 31);
    let rest = &stream.bytes[at + length..];
    let seen = walk(&mut parser, rest, usize::MAX / 2, measure(&stream)).unwrap();
    assert_eq!(seen, whole[end + 1..]);
}

#[test]
fn recorded_return_paths_are_read_and_written_back() {
    for name in ["pc-11.1-postcopy", "pc-11.1-return-path"] {
        let bytes = vectors::file(&format!("{name}.main.return.bin.zst"));
        let mut parser = ReturnPathParser::new();
        let mut messages = Vec::new();
        let mut at = 0;
        while let ReturnStep::Event { consumed, event } = parser.next(&bytes[at..]).unwrap() {
            at += consumed;
            let ReturnEvent::Message(message) = event else {
                panic!("{event:?}");
            };
            messages.push(message);
        }
        assert_eq!(at, bytes.len());
        parser.finish(&[]).unwrap();
        assert_eq!(messages.first(), Some(&ReturnMessage::Pong(1)));
        assert_eq!(messages.last(), Some(&ReturnMessage::Shut(0)));
        let mut out = Vec::new();
        for message in &messages {
            put_message(&mut out, message);
        }
        assert_eq!(out, bytes);
        if name == "pc-11.1-postcopy" {
            assert!(messages.contains(&ReturnMessage::Pong(0x42)));
            assert!(messages.contains(&ReturnMessage::ReqPagesId {
                start: 0,
                length: 4096,
                block: BlockName::new("pc.bios").unwrap(),
            }));
        }
    }
}
