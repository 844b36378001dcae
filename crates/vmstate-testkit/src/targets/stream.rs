//! The framing of streams, and the return path.

use vmstate_wire::stream::{
    BodyEnd, BodyEndScanner, Event, InferContext, InstanceId, ParserOptions, Presence, ReturnEvent,
    ReturnPathParser, ReturnStep, SectionHeader, SectionId, SectionKind, SectionTable, Step,
    StreamError, StreamParser, VersionId, infer_body_end, put_message, write,
};

use super::{Next, in_pieces, settings};

/// What a walk saw, chunks joined, and how it ended.
type Walked = (Vec<String>, Result<(), StreamError>);

/// The parser sees the same in whole input and in pieces, with bodies that end where they seem to.
///
/// First byte: presence of the parts, size of the pieces.
///
/// # Panics
/// If it does not.
pub fn stream(data: &[u8]) {
    let (byte, data) = settings(data);
    let presence = |bits: u8| match bits & 3 {
        0 | 1 => Presence::Detect,
        2 => Presence::Required,
        _ => Presence::Absent,
    };
    let options = ParserOptions {
        configuration: presence(byte),
        footers: presence(byte >> 2),
        trailer: presence(byte >> 4),
        ..ParserOptions::default()
    };
    let whole = walk(options, data, data.len());
    let pieces = walk(options, data, 1 + usize::from(byte >> 6) * 37);
    assert_eq!(whole, pieces);
}

fn walk(options: ParserOptions, data: &[u8], piece: usize) -> Walked {
    let mut parser = StreamParser::new(options);
    let mut seen: Vec<String> = Vec::new();
    let mut end = Ok(());
    let mut chunk = 0;
    in_pieces(data, piece, |have| {
        let at = usize::try_from(parser.offset().0).unwrap_or(usize::MAX);
        match parser.next(have) {
            Ok(Step::NeedMore { min }) => {
                if at + have.len() == data.len() {
                    end = parser.finish(have);
                }
                Next::Need(min)
            }
            Ok(Step::Event { consumed, event }) => {
                match event {
                    Event::TrailerChunk(bytes) | Event::PackageTail(bytes) => {
                        assert!(!bytes.is_empty());
                        chunk += bytes.len();
                    }
                    event => {
                        if chunk > 0 {
                            seen.push(format!("{chunk} bytes"));
                            chunk = 0;
                        }
                        seen.push(format!("{event:?}"));
                    }
                }
                Next::Took(consumed)
            }
            Ok(Step::InBody) => {
                let length = body_length(&parser, data.get(at..).unwrap_or_default());
                match parser.body_done(length as u64) {
                    Ok(()) => Next::Skip(length),
                    Err(e) => {
                        end = Err(e);
                        Next::Done
                    }
                }
            }
            Ok(Step::End) => Next::Done,
            Err(e) => {
                assert_eq!(
                    parser.next(have),
                    Err(e.clone()),
                    "another error the second time"
                );
                end = Err(e);
                Next::Done
            }
        }
    });
    if chunk > 0 {
        seen.push(format!("{chunk} bytes"));
    }
    (seen, end)
}

fn body_length(parser: &StreamParser, rest: &[u8]) -> usize {
    let Some(header) = parser.current_section() else {
        return 0;
    };
    let room = parser.package_remaining();
    let context = InferContext {
        section_id: header.section_id,
        sections: parser.sections(),
        footers: parser.footers() != Presence::Absent,
        package: room.is_some(),
    };
    let room = room.and_then(|room| usize::try_from(room).ok());
    let rest = room.and_then(|room| rest.get(..room)).unwrap_or(rest);
    match infer_body_end(rest, &context, true) {
        BodyEnd::Inferred(end) => end.length,
        _ => rest.len().min(8),
    }
}

/// A body that ends in one piece also ends when it comes in pieces, and not later.
///
/// First byte: footers, package, size of the pieces.
///
/// # Panics
/// If it does not.
pub fn infer(data: &[u8]) {
    let (byte, body) = settings(data);
    let mut sections = SectionTable::new();
    for (id, kind) in [(2, SectionKind::Start), (3, SectionKind::Full)] {
        if let Ok(idstr) = vmstate_wire::stream::IdStr::new("ram") {
            let header = SectionHeader {
                kind,
                section_id: SectionId(id),
                idstr,
                instance_id: InstanceId(0),
                version_id: VersionId(4),
            };
            sections
                .define(&header, 8)
                .expect("two ids are two sections");
        }
    }
    let context = InferContext {
        section_id: SectionId(3),
        sections: &sections,
        footers: byte & 1 == 0,
        package: byte & 2 != 0,
    };
    let whole = infer_body_end(body, &context, true);
    let mut scanner = BodyEndScanner::new();
    let piece = 1 + usize::from(byte >> 2);
    let mut available = 0;
    let pieces = loop {
        let at_end = available == body.len();
        let have = body.get(..available).unwrap_or_default();
        match scanner.scan(have, &context, at_end) {
            BodyEnd::NeedMore { min } => {
                assert!(!at_end && min > available, "{min} of {available}");
                available = body.len().min(available + piece);
            }
            found => break found,
        }
    };
    // What cannot be judged before the end is there may pass for an end; nothing that passes in one piece may be missed.
    if let BodyEnd::Inferred(whole) = &whole {
        match &pieces {
            BodyEnd::Inferred(pieces) => assert!(pieces.length <= whole.length),
            other => panic!("{whole:?} in one piece, {other:?} in several"),
        }
    }
}

/// A configuration that was read is written as the same bytes.
///
/// # Panics
/// If it is not.
pub fn configuration(data: &[u8]) {
    let mut stream = Vec::new();
    write::put_header(&mut stream);
    let header = stream.len();
    stream.push(7);
    stream.extend_from_slice(data);
    let mut parser = StreamParser::new(ParserOptions::default());
    assert!(matches!(parser.next(&stream), Ok(Step::Event { .. })));
    let rest = stream.get(header..).unwrap_or_default();
    if let Ok(Step::Event {
        consumed,
        event: Event::Configuration(configuration),
    }) = parser.next(rest)
    {
        let mut again = Vec::new();
        write::put_configuration(&mut again, &configuration);
        assert_eq!(rest.get(..consumed), Some(again.as_slice()));
    }
}

/// The return path: the same in whole input and in pieces; messages are written as the same bytes.
///
/// First byte: size of the pieces.
///
/// # Panics
/// If that does not hold.
pub fn return_path(data: &[u8]) {
    let (byte, data) = settings(data);
    let run = |piece: usize| {
        let mut parser = ReturnPathParser::new().with_max_bitmap(1 << 20);
        let mut seen = Vec::new();
        let mut end = Ok(());
        let mut bitmap = 0;
        in_pieces(data, piece, |have| match parser.next(have) {
            Ok(ReturnStep::NeedMore { min }) => {
                if parser.offset().0 + have.len() as u64 == data.len() as u64 {
                    end = parser.finish(have);
                }
                Next::Need(min)
            }
            Ok(ReturnStep::Event { consumed, event }) => {
                match event {
                    ReturnEvent::BitmapChunk(bytes) => bitmap += bytes.len(),
                    ReturnEvent::Message(message) => {
                        let mut again = Vec::new();
                        put_message(&mut again, &message);
                        assert_eq!(have.get(..consumed), Some(again.as_slice()), "{message:?}");
                        seen.push(format!("{message:?}"));
                    }
                    event => seen.push(format!("{event:?} {bitmap}")),
                }
                Next::Took(consumed)
            }
            Ok(ReturnStep::End) => Next::Done,
            Err(e) => {
                end = Err(e);
                Next::Done
            }
        });
        (seen, bitmap, end)
    };
    assert_eq!(run(data.len()), run(1 + usize::from(byte & 63)));
}
