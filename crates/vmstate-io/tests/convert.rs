//! Recorded streams of stock QEMU, to BER and back: the same bytes, from files and from pipes.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use vmstate_ber::frame::Frame;
use vmstate_ber::stream::{Parser, Step};
use vmstate_io::convert::{Format, Options, Summary, convert};
use vmstate_io::{Input, ReadInput, SliceInput};

fn directory() -> PathBuf {
    std::env::var_os("VMSTATE_STREAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams"),
        PathBuf::from,
    )
}

fn recordings(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            recordings(&path, found);
        } else if name.ends_with(".main.bin.zst") {
            let bytes = zstd::decode_all(fs::File::open(&path).unwrap()).unwrap();
            found.push((name.trim_end_matches(".main.bin.zst").to_owned(), bytes));
        } else if name.ends_with(".main.bin") {
            found.push((name, fs::read(&path).unwrap()));
        }
    }
}

fn streams() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    recordings(&directory(), &mut found);
    found.sort();
    assert!(found.len() >= 16, "{} streams only", found.len());
    found
}

fn to(format: Format, bytes: &[u8], pipe: bool) -> (Vec<u8>, Summary) {
    to_with(format, bytes, pipe, &Options::default())
}

fn to_with(format: Format, bytes: &[u8], pipe: bool, options: &Options) -> (Vec<u8>, Summary) {
    let mut input: Box<dyn Input> = if pipe {
        Box::new(ReadInput::new(bytes))
    } else {
        Box::new(SliceInput::new(bytes))
    };
    let mut out = Vec::new();
    let summary = convert(&mut *input, &mut out, format, options)
        .unwrap_or_else(|e| panic!("to {}: {e}", format.name()));
    assert_eq!(summary.written, out.len() as u64);
    assert_eq!(summary.read, bytes.len() as u64);
    (out, summary)
}

/// Identifier octets of all frames.
fn frames(stream: &[u8], mut each: impl FnMut(&Frame<'_>)) -> usize {
    let mut parser = Parser::default();
    let (mut rest, mut count) = (stream, 0);
    loop {
        let consumed = match parser.next(rest).unwrap() {
            Step::Consumed { consumed } => consumed,
            Step::Frame {
                consumed, frame, ..
            } => {
                let mut again = Vec::new();
                frame.encode(&mut again);
                assert!(again == rest[..consumed], "{frame:?}");
                each(&frame);
                count += 1;
                consumed
            }
            Step::NeedMore { .. } => panic!("cut off"),
            Step::End => break,
        };
        rest = &rest[consumed..];
    }
    assert!(rest.is_empty());
    count
}

#[test]
fn there_and_back() {
    for (name, stream) in streams() {
        for pipe in [false, true] {
            let (ber, summary) = to(Format::Ber, &stream, pipe);
            frames(&ber, |_| {});
            let (again, _) = to(Format::Qemu, &ber, pipe);
            let at = again.iter().zip(&stream).position(|(a, b)| a != b);
            assert!(
                again == stream,
                "{name}, pipe {pipe}: {} bytes, not {}; first difference at {at:x?}",
                again.len(),
                stream.len()
            );
            println!(
                "{name}, pipe {pipe}: QEMU {}, BER {}; {} devices: QEMU {}, BER {}, types {}; framing of pages {}; carried {}; trailer {}",
                stream.len(),
                ber.len(),
                summary.devices,
                summary.qemu_state,
                summary.ber_state,
                summary.types,
                summary.page_framing,
                summary
                    .carried
                    .iter()
                    .map(|c| format!("{} ({} bytes: {})", c.section, c.length, c.reason))
                    .collect::<Vec<_>>()
                    .join("; "),
                if summary.trailer_carried {
                    "carried"
                } else {
                    "made"
                }
            );
            assert!(summary.devices > 0 || name.contains("postcopy"), "{name}");
            assert!(
                summary.ber_state <= summary.qemu_state + summary.types,
                "{name}: state of {} bytes, QEMU's has {}, types {}",
                summary.ber_state,
                summary.qemu_state,
                summary.types
            );
        }
    }
}

#[test]
fn carried_whole() {
    for (name, stream) in streams().into_iter().take(2) {
        let options = Options {
            opaque: true,
            ..Options::default()
        };
        let (ber, summary) = to_with(Format::Ber, &stream, true, &options);
        assert_eq!(summary.devices, 0);
        let (again, _) = to(Format::Qemu, &ber, true);
        assert!(again == stream, "{name}");
    }
}

/// In a file the trailer is found from the end; a pipe has none to look at.
#[test]
fn trailers_behind_something_else() {
    let spike = streams()
        .into_iter()
        .find(|(name, _)| name.starts_with("spike"));
    let (name, stream) = spike.expect("a stream of a spike machine");
    let trailer = (0..stream.len()).rfind(|at| {
        let length = stream.get(at + 1..at + 5).map(|l| l.try_into().unwrap());
        stream[*at] == 6
            && length.is_some_and(|l| u32::from_be_bytes(l) as usize == stream.len() - at - 5)
    });
    let trailer = trailer.unwrap_or_else(|| panic!("{name} has no trailer"));
    let mut odd = stream;
    odd.splice(trailer..trailer, [4, 9, 0]);
    let (ber, _) = to(Format::Ber, &odd, false);
    let (again, _) = to(Format::Qemu, &ber, false);
    assert!(again == odd, "{name}");
}
