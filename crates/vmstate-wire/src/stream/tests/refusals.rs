//! Every refusal, with its text and place.

use super::super::*;
use super::driver::walk;

const HEADER: &[u8] = b"QEVM\0\0\0\x03";
const CONFIGURATION: &[u8] = b"\x07\0\0\0\x05spike";
const TIMER: &[u8] = b"\x04\0\0\0\x04\x05timer\0\0\0\0\0\0\0\x02";
const RAM: &[u8] = b"\x01\0\0\0\x01\x03ram\0\0\0\0\0\0\0\x04";
const TIMER_FOOTER: &[u8] = b"\x7e\0\0\0\x04";

fn parse(options: ParserOptions, bytes: &[u8]) -> Result<StreamParser, StreamError> {
    let mut parser = StreamParser::new(options);
    // Bodies have four bytes in these tests.
    walk(&mut parser, bytes, bytes.len().max(1), |_, _, _| 4)?;
    Ok(parser)
}

#[track_caller]
fn check_with(options: ParserOptions, parts: &[&[u8]], blame: Blame, expected: &str) {
    let error = parse(options, &parts.concat()).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.blame(), blame);
}

#[track_caller]
fn check(parts: &[&[u8]], blame: Blame, expected: &str) {
    check_with(ParserOptions::default(), parts, blame, expected);
}

#[track_caller]
fn check_end(parts: &[&[u8]], expected: &str) {
    check(parts, Blame::Malformed, expected);
}

#[test]
fn file_header() {
    check(
        &[b"QEVN\0\0\0\x03"],
        Blame::Malformed,
        "not a migration stream: expected the magic 0x5145564d, found 0x5145564e (at byte 0x0)",
    );
    check(
        &[b"QEVM\0\0\0\x02"],
        Blame::Incompatible,
        "stream format version 2 is obsolete, only version 3 can be read (at byte 0x4)",
    );
    check(
        &[b"QEVM\0\0\0\x04"],
        Blame::Incompatible,
        "stream format version 4 is unknown, only version 3 can be read (at byte 0x4)",
    );
    check_end(
        &[b"QEVM\0\0"],
        "stream ends inside the file header (at byte 0x6)",
    );
    check_end(&[], "stream ends inside the file header (at byte 0x0)");
}

#[test]
fn configuration() {
    let required = ParserOptions {
        configuration: Presence::Required,
        ..ParserOptions::default()
    };
    check_with(
        required,
        &[HEADER, TIMER],
        Blame::Incompatible,
        "expected the configuration section (0x07) after the header, found 0x04 (at byte 0x8)",
    );
    let absent = ParserOptions {
        configuration: Presence::Absent,
        ..ParserOptions::default()
    };
    check_with(
        absent,
        &[HEADER, CONFIGURATION],
        Blame::PeerMisbehaved,
        "configuration section (0x07) at an unexpected place (at byte 0x8)",
    );
    check(
        &[HEADER, CONFIGURATION, CONFIGURATION],
        Blame::PeerMisbehaved,
        "configuration section (0x07) at an unexpected place (at byte 0x12)",
    );
    check(
        &[HEADER, b"\x07\0\0\0\0\x01"],
        Blame::Malformed,
        "machine name in the configuration section is empty (at byte 0x9)",
    );
    check(
        &[HEADER, b"\x07\0\0\x01\0"],
        Blame::Limit,
        "machine name has 256 bytes, at most 255 are allowed (at byte 0x9)",
    );
    check(
        &[
            HEADER,
            CONFIGURATION,
            b"\x05\x11configuration/foo\0\0\0\x01",
        ],
        Blame::Incompatible,
        "unknown subsection \"configuration/foo\" in the configuration section (at byte 0x12)",
    );
    check(
        &[
            HEADER,
            CONFIGURATION,
            b"\x05\x12configuration/uuid\0\0\0\x02",
        ],
        Blame::Incompatible,
        "subsection configuration/uuid has version 2, only version 1 is known (at byte 0x26)",
    );
    check(
        &[
            HEADER,
            CONFIGURATION,
            b"\x05\x1aconfiguration/capabilities\0\0\0\x01\0\0\x01\x01",
        ],
        Blame::Limit,
        "configuration lists 257 capabilities, at most 256 are allowed (at byte 0x32)",
    );
    check_end(
        &[HEADER, &CONFIGURATION[..7]],
        "stream ends inside the configuration section (at byte 0xf)",
    );
    // Somebody else's subsection is not the configuration's.
    for foreign in [&b"\x05\x03abc"[..], b"\x05\x0econfigurazione"] {
        check(
            &[HEADER, CONFIGURATION, foreign],
            Blame::PeerMisbehaved,
            "subsection mark (0x05) outside of a section (at byte 0x12)",
        );
    }
}

#[test]
fn configuration_is_detected() {
    for bytes in [
        [HEADER, b"\0"].concat(),
        [HEADER, CONFIGURATION, b"\0"].concat(),
    ] {
        assert!(parse(ParserOptions::default(), &bytes).is_ok());
    }
}

#[test]
fn elements_that_cannot_stand_there() {
    let timer = [TIMER, b"body", TIMER_FOOTER].concat();
    check(
        &[HEADER, b"\x09"],
        Blame::Malformed,
        "unknown element type 0x09 (at byte 0x8)",
    );
    check(
        &[HEADER, &timer, b"\x05"],
        Blame::PeerMisbehaved,
        "subsection mark (0x05) outside of a section, after section 4 (timer/0) (at byte 0x24)",
    );
    check(
        &[HEADER, &timer, b"\x06"],
        Blame::PeerMisbehaved,
        "description trailer (0x06) before the end-of-stream mark, after section 4 (timer/0) (at byte 0x24)",
    );
    check(
        &[HEADER, &timer, b"\x7e"],
        Blame::PeerMisbehaved,
        "section footer (0x7e) where an element should begin, after section 4 (timer/0) (at byte 0x24)",
    );
    check_end(
        &[HEADER, &timer],
        "stream ends inside the list of sections, before the end-of-stream mark (at byte 0x24)",
    );
}

#[test]
fn section_headers() {
    check(
        &[HEADER, b"\x04\0\0\0\x04\0"],
        Blame::Malformed,
        "section 4 has an empty idstr (at byte 0xd)",
    );
    check(
        &[HEADER, b"\x02\0\0\0\x04"],
        Blame::PeerMisbehaved,
        "PART of section 4, which was never started (at byte 0x9)",
    );
    check(
        &[HEADER, b"\x03\0\0\0\x07"],
        Blame::PeerMisbehaved,
        "END of section 7, which was never started (at byte 0x9)",
    );
    let timer = [TIMER, b"body", TIMER_FOOTER].concat();
    let other = b"\x04\0\0\0\x04\x03rtc\0\0\0\x01\0\0\0\x02";
    check(
        &[HEADER, &timer, other],
        Blame::PeerMisbehaved,
        "section id is already that of 4 (timer/0), now used for 4 (rtc/1) (at byte 0x25)",
    );
    check_end(
        &[HEADER, &TIMER[..3]],
        "stream ends inside the header of a section (at byte 0xb)",
    );
    check_end(
        &[HEADER, &TIMER[..9]],
        "stream ends inside the header of section 4 (at byte 0x11)",
    );
    let few = ParserOptions {
        limits: Limits {
            sections: 1,
            ..Limits::default()
        },
        ..ParserOptions::default()
    };
    // The same section again does not count.
    check_with(
        few,
        &[HEADER, &timer, &timer, RAM],
        Blame::Limit,
        "stream has more than 1 sections (at byte 0x41)",
    );
}

#[test]
fn a_section_may_come_again_in_another_version() {
    let mut newer = TIMER.to_vec();
    newer[18] = 3;
    let bytes = [
        HEADER,
        TIMER,
        b"body",
        TIMER_FOOTER,
        &newer,
        b"body",
        TIMER_FOOTER,
        b"\0",
    ]
    .concat();
    let parser = parse(ParserOptions::default(), &bytes).unwrap();
    let known = parser.sections().get(SectionId(4)).unwrap();
    assert_eq!(known.version_id, VersionId(3));
    assert_eq!(parser.sections().iter().count(), 1);
    assert!(!parser.sections().is_empty());
}

#[test]
fn section_id_zero_is_warned_of_once() {
    let start = b"\x01\0\0\0\0\x03ram\0\0\0\0\0\0\0\x04";
    let footer = b"\x7e\0\0\0\0";
    let full = b"\x04\0\0\0\0\x03ram\0\0\0\0\0\0\0\x04";
    let mut parser = StreamParser::new(ParserOptions::default());
    let bytes = [
        HEADER, full, b"body", footer, start, b"body", footer, start, b"body", footer, b"\0",
    ]
    .concat();
    let seen = walk(&mut parser, &bytes, 1, |_, _, _| 4).unwrap();
    let warnings: Vec<_> = seen
        .iter()
        .filter_map(|one| match one {
            super::driver::Seen::Event(Event::Warning(warning)) => Some(warning.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(
        warnings,
        ["iterative section ram/0 has id 0, stock QEMU cannot load its later pieces"]
    );
}

#[test]
fn footers() {
    let required = ParserOptions {
        footers: Presence::Required,
        ..ParserOptions::default()
    };
    check_with(
        required,
        &[HEADER, TIMER, b"body", b"\x04"],
        Blame::Malformed,
        "body of section 4 (timer/0) is not followed by a footer: expected 0x7e, found 0x04 (at byte 0x1f)",
    );
    check(
        &[HEADER, TIMER, b"body", b"\x7e\0\0\0\x09"],
        Blame::Malformed,
        "footer of section 4 (timer/0) carries id 9 (no such section) (at byte 0x20)",
    );
    let ram = [RAM, b"body", b"\x7e\0\0\0\x01"].concat();
    check(
        &[HEADER, &ram, TIMER, b"body", b"\x7e\0\0\0\x01"],
        Blame::Malformed,
        "footer of section 4 (timer/0) carries id 1 (ram/0) (at byte 0x3a)",
    );
    check_end(
        &[HEADER, TIMER, b"bod"],
        "stream ends inside the body of section 4 (timer/0) (at byte 0x1e)",
    );
    check_end(
        &[HEADER, TIMER, b"body", b"\x7e\0"],
        "stream ends inside the footer of section 4 (timer/0) (at byte 0x21)",
    );
    check_end(
        &[HEADER, TIMER, b"body"],
        "stream ends inside the footer of section 4 (timer/0) (at byte 0x1f)",
    );
}

#[test]
fn the_first_section_tells_about_footers() {
    let with = [HEADER, TIMER, b"body", TIMER_FOOTER, b"\0"].concat();
    let parser = parse(ParserOptions::default(), &with).unwrap();
    assert_eq!(parser.footers(), Presence::Required);
    let without = [HEADER, TIMER, b"body", RAM, b"body", b"\0"].concat();
    let parser = parse(ParserOptions::default(), &without).unwrap();
    assert_eq!(parser.footers(), Presence::Absent);
    // And it holds for all that follow.
    check(
        &[HEADER, TIMER, b"body", RAM, b"body", b"\x7e\0\0\0\x01"],
        Blame::PeerMisbehaved,
        "section footer (0x7e) where an element should begin, after section 1 (ram/0) (at byte 0x34)",
    );
    check(
        &[HEADER, TIMER, b"body", TIMER_FOOTER, RAM, b"body", b"\0"],
        Blame::Malformed,
        "body of section 1 (ram/0) is not followed by a footer: expected 0x7e, found 0x00 (at byte 0x39)",
    );
    let absent = ParserOptions {
        footers: Presence::Absent,
        ..ParserOptions::default()
    };
    check_with(
        absent,
        &[&with],
        Blame::PeerMisbehaved,
        "section footer (0x7e) where an element should begin, after section 4 (timer/0) (at byte 0x1f)",
    );
}

#[test]
fn commands() {
    let refused = |command: &[u8], expected: &str| {
        let error = parse(ParserOptions::default(), &[HEADER, command].concat()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    refused(b"\x08\0\0\0\0", "unknown command 0 (at byte 0x9)");
    refused(b"\x08\0\x0c\0\0", "unknown command 12 (at byte 0x9)");
    refused(
        b"\x08\0\x01\0\x01",
        "command OPEN_RETURN_PATH has 1 bytes of payload, expected none (at byte 0xb)",
    );
    refused(
        b"\x08\0\x02\0\x05",
        "command PING has 5 bytes of payload, expected 4 (at byte 0xb)",
    );
    refused(
        b"\x08\0\x03\0\x08",
        "command POSTCOPY_ADVISE has 8 bytes of payload, expected 0 or 16 (at byte 0xb)",
    );
    refused(
        b"\x08\0\x06\0\x13",
        "command POSTCOPY_RAM_DISCARD has 19 bytes of payload, expected a version, a block name and at least one range (at byte 0xb)",
    );
    refused(
        b"\x08\0\x06\0\x14\x01\x01a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "command POSTCOPY_RAM_DISCARD: version is 1, expected 0 (at byte 0xd)",
    );
    refused(
        b"\x08\0\x06\0\x14\0\x01a\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "command POSTCOPY_RAM_DISCARD: byte after the block name is 7, expected 0 (at byte 0xd)",
    );
    refused(
        b"\x08\0\x06\0\x14\0\x14aaaaaaaaaaaaaaaaaa",
        "command POSTCOPY_RAM_DISCARD: block name of 20 bytes does not fit the payload (at byte 0xd)",
    );
    refused(
        b"\x08\0\x06\0\x14\0\0aaaaaaaaaaaaaaaaaa",
        "command POSTCOPY_RAM_DISCARD: block name of 0 bytes does not fit the payload (at byte 0xd)",
    );
    refused(
        b"\x08\0\x06\0\x14\0\x12aaaaaaaaaaaaaaaaaa",
        "command POSTCOPY_RAM_DISCARD has 20 bytes of payload, expected a version, a block name and at least one range (at byte 0xd)",
    );
    refused(
        b"\x08\0\x06\0\x15\0\x01a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "command POSTCOPY_RAM_DISCARD has 21 bytes of payload, expected a version, a block name and at least one range (at byte 0xd)",
    );
    refused(
        b"\x08\0\x0a\0\x01\0",
        "command RECV_BITMAP has 1 bytes of payload, expected a block name and nothing else (at byte 0xb)",
    );
    refused(
        b"\x08\0\x0a\0\x04\x02abc",
        "command RECV_BITMAP has 4 bytes of payload, expected a block name and nothing else (at byte 0xd)",
    );
    refused(
        b"\x08\0\x0a\0\x04\x04abc",
        "command RECV_BITMAP: block name of 4 bytes does not fit the payload (at byte 0xd)",
    );
    refused(b"\x08\0", "stream ends inside a command (at byte 0xa)");
    refused(
        b"\x08\0\x02\0\x04\0",
        "stream ends inside the command PING (at byte 0xe)",
    );
}

#[test]
fn packages() {
    let packaged = |length: u8| vec![8, 0, 7, 0, 4, 0, 0, 0, length];
    check(
        &[HEADER, &packaged(5), b"\x08\0\x03\0\0"],
        Blame::PeerMisbehaved,
        "command POSTCOPY_ADVISE cannot stand inside a package (at byte 0x12)",
    );
    for command in [6_u8, 7, 10] {
        let length = if command == 6 { 20 } else { 4 };
        let error = parse(
            ParserOptions::default(),
            &[HEADER, &packaged(9), &[8, 0, command, 0, length]].concat(),
        )
        .unwrap_err();
        assert_eq!(
            *error.kind(),
            StreamErrorKind::CommandInPackage {
                command: CommandId(u16::from(command))
            }
        );
    }
    check(
        &[HEADER, &packaged(1), b"\0"],
        Blame::PeerMisbehaved,
        "end-of-stream mark inside a package (at byte 0x11)",
    );
    check(
        &[HEADER, &packaged(10), TIMER],
        Blame::Malformed,
        "package ends at byte 0x1b inside the header of section 4 (at byte 0x11)",
    );
    check(
        &[HEADER, &packaged(20), TIMER, b"body"],
        Blame::Malformed,
        "package ends at byte 0x25 inside the body of section 4 (timer/0) (at byte 0x24)",
    );
    check(
        &[HEADER, &packaged(3), b"\x08\0\x04\0\0"],
        Blame::Malformed,
        "package ends at byte 0x14 inside the command POSTCOPY_LISTEN (at byte 0x11)",
    );
    check_end(
        &[HEADER, &packaged(30)],
        "stream ends inside a package (at byte 0x11)",
    );
    let small = ParserOptions {
        limits: Limits {
            package: 9,
            ..Limits::default()
        },
        ..ParserOptions::default()
    };
    check_with(
        small,
        &[HEADER, &packaged(10)],
        Blame::Limit,
        "package has 10 bytes, at most 9 are allowed (at byte 0xd)",
    );
    // Bytes behind RUN, and a package without RUN.
    let run = [HEADER, &packaged(8), b"\x08\0\x05\0\0", b"abc", b"\0"].concat();
    assert!(parse(small, &run).unwrap().is_postcopy());
    let listen = [HEADER, &packaged(5), b"\x08\0\x04\0\0", b"\0"].concat();
    assert!(parse(small, &listen).unwrap().is_postcopy());
    let empty = [HEADER, &packaged(0), b"\0"].concat();
    assert!(!parse(small, &empty).unwrap().is_postcopy());
}

#[test]
fn trailer() {
    let required = ParserOptions {
        trailer: Presence::Required,
        ..ParserOptions::default()
    };
    check_with(
        required,
        &[HEADER, b"\0\x55"],
        Blame::Incompatible,
        "expected the description trailer (0x06) after the end-of-stream mark, found 0x55 (at byte 0x9)",
    );
    check_with(
        required,
        &[HEADER, b"\0"],
        Blame::Malformed,
        "stream ends before the description trailer (at byte 0x9)",
    );
    check_end(
        &[HEADER, b"\0\x06\0"],
        "stream ends inside the header of the description trailer (at byte 0xb)",
    );
    check_end(
        &[HEADER, b"\0\x06\0\0\0\x05{\"a"],
        "stream ends inside the description trailer (3 of 5 bytes) (at byte 0x11)",
    );
    let short = ParserOptions {
        limits: Limits {
            trailer: 1,
            ..Limits::default()
        },
        ..ParserOptions::default()
    };
    check_with(
        short,
        &[HEADER, b"\0\x06\0\0\0\x02{}"],
        Blame::Limit,
        "description trailer has 2 bytes, at most 1 are allowed (at byte 0xa)",
    );
    let good = [HEADER, b"\0\x06\0\0\0\x02{}"].concat();
    assert_eq!(parse(required, &good).unwrap().offset(), StreamOffset(16));
    let absent = ParserOptions {
        trailer: Presence::Absent,
        ..ParserOptions::default()
    };
    assert_eq!(parse(absent, &good).unwrap().offset(), StreamOffset(9));
    let mut parser = StreamParser::new(ParserOptions::default());
    let other = [HEADER, b"\0\x55"].concat();
    let seen = walk(&mut parser, &other, 1, |_, _, _| 4).unwrap();
    assert_eq!(
        seen.last(),
        Some(&super::driver::Seen::Event(Event::Warning(
            Warning::NotATrailer { found: 0x55 }
        )))
    );
}

#[test]
fn positions_can_count_from_elsewhere() {
    let mut parser = StreamParser::new(ParserOptions::default()).at_offset(StreamOffset(0x1000));
    let bytes = [HEADER, b"\x09"].concat();
    let error = walk(&mut parser, &bytes, 1, |_, _, _| 4).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown element type 0x09 (at byte 0x1008)"
    );
}

#[test]
fn misuse() {
    let mut parser = StreamParser::new(ParserOptions::default());
    let error = parser.body_done(1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no section body is being read (at byte 0x0)"
    );
    assert_eq!(error.blame(), Blame::Misuse);
    let error = parser.take_package().unwrap_err();
    assert_eq!(error.to_string(), "no package has just begun (at byte 0x0)");
    assert_eq!(error.blame(), Blame::Misuse);
}

#[test]
fn a_recovered_stream_goes_on_with_what_was_known() {
    let bytes = [HEADER, RAM, b"body", b"\x7e\0\0\0\x01\0"].concat();
    let first = parse(ParserOptions::default(), &bytes).unwrap();
    let mut parser = StreamParser::resumed(ParserOptions::default(), first.sections().clone());
    let bytes = [
        &b"\x08\0\x0a\0\x07\x06pc.ram\x08\0\x09\0\0"[..],
        b"\x03\0\0\0\x01body\x7e\0\0\0\x01\0",
    ]
    .concat();
    let seen = walk(&mut parser, &bytes, 1, |_, _, _| 4).unwrap();
    assert_eq!(seen.len(), 6);
    assert_eq!(seen.last(), Some(&super::driver::Seen::Event(Event::Eof)));
}
