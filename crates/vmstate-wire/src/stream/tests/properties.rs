//! What holds for any bytes, any cut and any piece size.

use proptest::prelude::*;

use super::super::*;
use super::driver::{rewrite, walk};
use super::writing::{block, header};

/// A stream with one of everything, its bodies four bytes long.
fn everything() -> Vec<u8> {
    let mut out = Vec::new();
    write::put_header(&mut out);
    let configuration = Configuration {
        machine: MachineName::new("virt-11.1").unwrap(),
        subsections: vec![
            ConfigurationSubsection::TargetPageBits(12),
            ConfigurationSubsection::Capabilities(vec![
                Capability::new("mapped-ram").unwrap(),
                Capability::new("").unwrap(),
            ]),
            ConfigurationSubsection::Uuid([7; 16]),
        ],
    };
    write::put_configuration(&mut out, &configuration);
    let section = |out: &mut Vec<u8>, kind, id, name: &str| {
        let header = header(kind, id, name, 4);
        write::put_section_header(out, &header);
        out.extend_from_slice(b"body");
        write::put_footer(out, header.section_id);
    };
    let commands = [
        Command::OpenReturnPath,
        Command::Ping(1),
        Command::PostcopyAdvise(Some(PostcopyAdvise {
            page_sizes: 4096,
            target_page_size: 4096,
        })),
        Command::EnableColo,
        Command::SwitchoverStart,
        Command::Upgrade,
        Command::RamDiscard {
            block: block("pc.ram"),
            ranges: vec![
                DiscardRange {
                    start: 0,
                    length: 4096,
                };
                3
            ],
        },
        Command::RecvBitmap {
            block: block("pc.ram"),
        },
        Command::PostcopyResume,
    ];
    section(&mut out, SectionKind::Start, 1, "ram");
    for command in &commands {
        write::put_command(&mut out, command).unwrap();
    }
    section(&mut out, SectionKind::Part, 1, "ram");
    let mut package = Vec::new();
    write::put_command(&mut package, &Command::Ping(3)).unwrap();
    section(&mut package, SectionKind::Full, 4, "timer");
    write::put_packaged(&mut out, &package).unwrap();
    section(&mut out, SectionKind::End, 1, "ram");
    write::put_eof(&mut out);
    write::put_trailer(&mut out, b"{\"page_size\": 4096, \"devices\": []}").unwrap();
    out
}

fn parser() -> StreamParser {
    StreamParser::new(ParserOptions::default())
}

#[test]
fn one_of_everything_comes_back() {
    let bytes = everything();
    let seen = walk(&mut parser(), &bytes, bytes.len(), |_, _, _| 4).unwrap();
    assert_eq!(rewrite(&seen), bytes);
    for piece in 1..40 {
        let pieces = walk(&mut parser(), &bytes, piece, |_, _, _| 4).unwrap();
        assert_eq!(pieces, seen, "pieces of {piece}");
    }
}

#[test]
fn a_stream_cut_anywhere_says_where_it_ends() {
    let bytes = everything();
    let trailer = bytes.len() - 5 - 34;
    for cut in 0..bytes.len() {
        let result = walk(&mut parser(), &bytes[..cut], 7, |_, _, _| 4);
        if cut == trailer {
            assert!(result.is_ok(), "a trailer may be missing");
            continue;
        }
        let error = result.unwrap_err();
        let StreamErrorKind::UnexpectedEnd { place } = error.kind() else {
            panic!("cut at {cut}: {error}");
        };
        assert_eq!(error.offset(), StreamOffset(cut as u64), "{place:?}");
    }
}

#[test]
fn a_package_cut_anywhere_is_refused() {
    let mut package = Vec::new();
    write::put_command(&mut package, &Command::Ping(3)).unwrap();
    write::put_section_header(&mut package, &header(SectionKind::Full, 4, "timer", 2));
    package.extend_from_slice(b"body");
    write::put_footer(&mut package, SectionId(4));
    for cut in 1..package.len() {
        if cut == 9 {
            continue;
        }
        let length = u32::try_from(cut).unwrap();
        let mut parser = StreamParser::package(
            ParserOptions {
                footers: Presence::Required,
                ..ParserOptions::default()
            },
            SectionTable::new(),
            StreamOffset(100),
            length,
        );
        let error = walk(&mut parser, &package[..cut], 3, |_, _, _| 4).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                StreamErrorKind::PackageOverrun {
                    end,
                    ..
                } if end.0 == 100 + cut as u64
            ) || matches!(error.kind(), StreamErrorKind::UnexpectedEnd { .. }),
            "cut at {cut}: {error}"
        );
    }
}

#[test]
fn recorded_streams_cut_anywhere_end_in_an_error() {
    let stream = vectors::main("spike-11.1");
    let total = stream.bytes.len();
    let measure = |header: &SectionHeader, rest: &[u8], parser: &StreamParser| {
        // RAM needs its end mark, which a cut may have removed.
        let sections = parser.sections();
        let context = InferContext {
            section_id: header.section_id,
            sections,
            footers: true,
            package: false,
        };
        match infer_body_end(rest, &context, true) {
            BodyEnd::Inferred(end) => end.length,
            _ => rest.len() + 1,
        }
    };
    let trailer = stream.trailer().unwrap().len() + 5;
    for cut in (0..300).chain((total - trailer - 600..total).step_by(7)) {
        let result = walk(&mut parser(), &stream.bytes[..cut], 4096, measure);
        if cut == total - trailer {
            result.unwrap();
        } else {
            let error = result.unwrap_err();
            assert!(
                matches!(error.kind(), StreamErrorKind::UnexpectedEnd { .. }),
                "cut at {cut}: {error}"
            );
        }
    }
}

fn piecewise(bytes: &[u8], piece: usize) -> Result<Vec<super::driver::Seen>, StreamError> {
    walk(&mut parser(), bytes, piece, |_, _, _| 4)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        header in any::<bool>(),
    ) {
        let bytes = if header {
            [&b"QEVM\0\0\0\x03"[..], &bytes].concat()
        } else {
            bytes
        };
        let whole = piecewise(&bytes, 1000);
        prop_assert_eq!(piecewise(&bytes, 1), whole);
        let _ = find_trailer(&bytes, bytes.len() as u64);
        let _ = find_trailer(&bytes, u64::MAX);
        let sections = SectionTable::new();
        for footers in [false, true] {
            let context = InferContext {
                section_id: SectionId(0),
                sections: &sections,
                footers,
                package: header,
            };
            let _ = infer_body_end(&bytes, &context, false);
            let _ = infer_body_end(&bytes, &context, true);
        }
    }

    #[test]
    fn a_damaged_stream_gives_the_same_in_any_pieces(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        piece in 1_usize..50,
    ) {
        let mut bytes = everything();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let whole = piecewise(&bytes, bytes.len());
        prop_assert_eq!(piecewise(&bytes, piece), whole);
    }

    #[test]
    fn any_command_comes_back(
        id in 0_u16..14,
        payload in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        if let Ok(command) = Command::decode(CommandId(id), &payload) {
            let mut out = Vec::new();
            command.encode_payload(&mut out);
            prop_assert_eq!(out, payload);
        }
    }

    #[test]
    fn any_return_message_comes_back(
        id in 0_u16..9,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        if let Ok(message) = ReturnMessage::decode(ReturnMessageId(id), &payload) {
            let mut out = Vec::new();
            put_message(&mut out, &message);
            prop_assert_eq!(&out[4..], payload);
        }
    }
}
