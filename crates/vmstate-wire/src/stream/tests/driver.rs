//! Walking a whole stream that is in memory, and skipping RAM bodies.

use super::super::*;

/// Events without borrowed parts, chunks joined.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Event(Event<'static>),
    Body(Vec<u8>),
    Tail(Vec<u8>),
    Text(Vec<u8>),
}

/// Tells how long a body is, given everything from its start, and the parser.
pub(super) trait Measure: FnMut(&SectionHeader, &[u8], &StreamParser) -> usize {}
impl<F: FnMut(&SectionHeader, &[u8], &StreamParser) -> usize> Measure for F {}

/// Walks `bytes`, which come in pieces of `piece` bytes.
pub(super) fn walk(
    parser: &mut StreamParser,
    bytes: &[u8],
    piece: usize,
    mut measure: impl Measure,
) -> Result<Vec<Seen>, StreamError> {
    let mut seen = Vec::new();
    let mut at = 0;
    let mut available = 0;
    loop {
        match parser.next(&bytes[at..available])? {
            Step::NeedMore { min } => {
                assert!(min > available - at, "asked for what is there");
                if available == bytes.len() {
                    parser.finish(&bytes[at..])?;
                    return Ok(seen);
                }
                available = bytes.len().min(available + piece);
            }
            Step::Event { consumed, event } => {
                at += consumed;
                note(&mut seen, event);
            }
            Step::InBody => {
                let header = parser.current_section().unwrap().clone();
                let length = measure(&header, &bytes[at..], parser);
                let Some(body) = bytes.get(at..at + length) else {
                    parser.finish(&bytes[at..])?;
                    unreachable!("a body that is cut must not finish");
                };
                let first = length / 2;
                parser.body_consumed(first as u64)?;
                parser.body_done((length - first) as u64)?;
                at += length;
                available = available.max(at);
                seen.push(Seen::Body(body.to_vec()));
            }
            Step::End => {
                assert_eq!(parser.next(&bytes[at..]), Ok(Step::End));
                return Ok(seen);
            }
        }
    }
}

fn note(seen: &mut Vec<Seen>, event: Event<'_>) {
    let last = seen.last_mut();
    let own = match event {
        Event::PackageTail(chunk) => match last {
            Some(Seen::Tail(tail)) => return tail.extend_from_slice(chunk),
            _ => Seen::Tail(chunk.to_vec()),
        },
        Event::TrailerChunk(chunk) => match last {
            Some(Seen::Text(text)) => return text.extend_from_slice(chunk),
            _ => Seen::Text(chunk.to_vec()),
        },
        Event::Header => Seen::Event(Event::Header),
        Event::Configuration(one) => Seen::Event(Event::Configuration(one)),
        Event::Warning(one) => Seen::Event(Event::Warning(one)),
        Event::Section(one) => Seen::Event(Event::Section(one)),
        Event::SectionClosed {
            section_id,
            body_length,
            footer,
        } => Seen::Event(Event::SectionClosed {
            section_id,
            body_length,
            footer,
        }),
        Event::Command(one) => Seen::Event(Event::Command(one)),
        Event::PackageBegin { length } => Seen::Event(Event::PackageBegin { length }),
        Event::PackageEnd => Seen::Event(Event::PackageEnd),
        Event::Eof => Seen::Event(Event::Eof),
        Event::TrailerBegin { length } => Seen::Event(Event::TrailerBegin { length }),
        Event::TrailerEnd => Seen::Event(Event::TrailerEnd),
    };
    seen.push(own);
}

/// Writes back what was seen.
pub(super) fn rewrite(seen: &[Seen]) -> Vec<u8> {
    let mut out = Vec::new();
    for one in seen {
        match one {
            Seen::Body(bytes) | Seen::Tail(bytes) | Seen::Text(bytes) => out.extend(bytes),
            Seen::Event(event) => match event {
                Event::Header => write::put_header(&mut out),
                Event::Configuration(one) => write::put_configuration(&mut out, one),
                Event::Section(header) => write::put_section_header(&mut out, header),
                Event::SectionClosed {
                    section_id, footer, ..
                } => {
                    if *footer {
                        write::put_footer(&mut out, *section_id);
                    }
                }
                Event::Command(command) => write::put_command(&mut out, command).unwrap(),
                Event::PackageBegin { length } => {
                    let command = Command::Packaged { length: *length };
                    write::put_command(&mut out, &command).unwrap();
                }
                Event::Eof => write::put_eof(&mut out),
                Event::TrailerBegin { length } => {
                    out.push(0x06);
                    out.extend(length.to_be_bytes());
                }
                Event::Warning(_) | Event::PackageEnd | Event::TrailerEnd => {}
                other => panic!("{other:?} is joined before"),
            },
        }
    }
    out
}

/// Length of a RAM body that begins `body` and stands at `offset` in its file.
pub(super) fn ram_length(body: &[u8], offset: u64, mapped_ram: bool) -> usize {
    let word = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
    let mut at = 0;
    loop {
        let value = word(at);
        at += 8;
        let flags = value & 0xfff;
        let named = flags & 0x20 == 0;
        let skip_name = |at: usize| at + if named { 1 + usize::from(body[at]) } else { 0 };
        match flags & !0x20 {
            0x010 => return at,
            0x200 => {}
            0x002 => at = skip_name(at) + 1,
            0x008 => at = skip_name(at) + 4096,
            0x040 => {
                at = skip_name(at);
                at += 3 + usize::from(u16::from_be_bytes([body[at + 1], body[at + 2]]));
            }
            0x004 => {
                let mut left = value & !0xfff;
                while left > 0 {
                    at += 1 + usize::from(body[at]);
                    let used = word(at);
                    at += 8;
                    left -= used;
                    if mapped_ram {
                        let pages = word(at + 20);
                        at = usize::try_from(pages + used - offset).unwrap();
                    }
                }
            }
            other => panic!("RAM flags {other:#x}"),
        }
    }
}
