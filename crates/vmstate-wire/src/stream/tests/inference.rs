//! Ends of bodies that nobody can decode.

use super::super::*;
use super::writing::header;

fn table() -> SectionTable {
    let mut table = SectionTable::new();
    table
        .define(&header(SectionKind::Start, 1, "ram", 4), 9)
        .unwrap();
    table
        .define(&header(SectionKind::Full, 4, "timer", 2), 9)
        .unwrap();
    table
}

#[track_caller]
fn check(parts: &[&[u8]], footers: bool, package: bool, expected: Option<(usize, Evidence)>) {
    let sections = table();
    let context = InferContext {
        section_id: SectionId(4),
        sections: &sections,
        footers,
        package,
    };
    let body = parts.concat();
    let expected = expected.map_or(BodyEnd::NotFound, |(length, evidence)| {
        BodyEnd::Inferred(InferredEnd { length, evidence })
    });
    assert_eq!(infer_body_end(&body, &context, true), expected);
    // Growing by one byte at a time, the scanner comes to the same end.
    let mut scanner = BodyEndScanner::new();
    for length in 0..=body.len() {
        match scanner.scan(&body[..length], &context, false) {
            BodyEnd::NeedMore { min } => assert!(min > length),
            found => {
                assert_eq!(found, expected);
                return;
            }
        }
    }
    assert_eq!(scanner.scan(&body, &context, true), expected);
}

const FOOTER: &[u8] = b"\x7e\0\0\0\x04";
const NAMED: &[u8] = b"\x04\0\0\0\x09\x03rtc\0\0\0\0\0\0\0\x02";

fn named(length: usize) -> Option<(usize, Evidence)> {
    let idstr = IdStr::new("rtc").unwrap();
    Some((length, Evidence::NamedSection(idstr)))
}

#[test]
fn a_footer_and_what_may_follow_it() {
    check(&[b"body", FOOTER, NAMED], true, false, named(4));
    check(&[FOOTER, NAMED], true, false, named(0));
    let started = Evidence::StartedSection(SectionId(1));
    check(
        &[b"body", FOOTER, b"\x03\0\0\0\x01"],
        true,
        false,
        Some((4, started)),
    );
    check(
        &[b"body", FOOTER, b"\x08\0\x02\0\x04"],
        true,
        false,
        Some((4, Evidence::Command(CommandId::PING))),
    );
    check(
        &[b"body", FOOTER, b"\0\x06\0\0\0\x02{}"],
        true,
        false,
        Some((4, Evidence::Trailer)),
    );
    check(
        &[b"body", FOOTER, b"\0"],
        true,
        false,
        Some((4, Evidence::EndOfStream)),
    );
    check(
        &[b"body", FOOTER],
        true,
        true,
        Some((4, Evidence::EndOfPackage)),
    );
}

#[test]
fn what_looks_like_a_footer_inside_a_body_is_passed_over() {
    let idstr = IdStr::new("rtc").unwrap();
    assert!(
        InferredEnd {
            length: 1,
            evidence: Evidence::NamedSection(idstr)
        }
        .is_strong()
    );
    for false_next in [
        &b"\x7e"[..],
        b"\x05",
        b"\x55",
        b"\x04\0\0\0\x09\x00",                         // no name
        b"\x04\0\0\0\x09\x03r\x01c\0\0\0\0\0\0\0\x02", // not printable
        b"\x04\x80\0\0\x09\x03rtc\0\0\0\0\0\0\0\x02",  // id out of reach
        b"\x04\0\0\0\x09\x03rtc\0\0\0\0\x80\0\0\0",    // version out of reach
        b"\x04\0\0\0\x01\x03rtc\0\0\0\0\0\0\0\x02",    // id of another owner
        b"\x02\0\0\0\x04",                             // never started
        b"\x08\0\x0c\0\0",                             // no such command
        b"\x08\0\x02\0\x05",                           // wrong length
        b"\0\x05",                                     // no trailer
        b"\0\x06\0\0\0\x02[]",                         // not an object
    ] {
        check(
            &[b"body", FOOTER, false_next, FOOTER, NAMED],
            true,
            false,
            named(9 + false_next.len()),
        );
    }
}

#[test]
fn a_trailer_beyond_the_end_of_the_input_is_none() {
    let sections = table();
    let context = InferContext {
        section_id: SectionId(4),
        sections: &sections,
        footers: true,
        package: false,
    };
    for (length, found) in [(2, true), (3, false)] {
        let body = [b"body", FOOTER, b"\0\x06\0\0\0", &[length], b"{}"].concat();
        let end = infer_body_end(&body, &context, true);
        assert_eq!(matches!(end, BodyEnd::Inferred(_)), found);
    }
}

#[test]
fn no_end_is_found_where_there_is_none() {
    check(&[b""], true, false, None);
    check(&[b"body"], true, false, None);
    check(&[b"body", FOOTER], true, false, None);
    check(&[b"body", b"\x7e\0\0"], true, false, None);
    check(&[b"body", FOOTER, &NAMED[..12]], true, false, None);
    check(&[b"body", FOOTER, b"\0"], true, true, None);
}

#[test]
fn without_footers_a_header_or_the_end_of_the_stream_ends_a_body() {
    check(&[b"body\0\x04\x01", NAMED], false, false, named(7));
    check(
        &[b"body\0", b"\0\x06\0\0\0\x02{}"],
        false,
        false,
        Some((5, Evidence::Trailer)),
    );
    check(
        &[b"body", b"\0"],
        false,
        false,
        Some((4, Evidence::EndOfStream)),
    );
    check(&[b"body"], false, true, Some((4, Evidence::EndOfPackage)));
    check(&[b"body"], false, false, None);
}

#[test]
fn without_footers_the_trailer_is_not_taken_for_a_header() {
    // Read from the last byte of the body on: START, id 0x60000, a name of 0x20 bytes.
    let mut text = [b'x'; 0x120];
    text[0] = b'{';
    for (last, length) in [(1, 0x120_u32), (4, 0x120)] {
        check(
            &[b"body", &[last], b"\0\x06", &length.to_be_bytes(), &text],
            false,
            false,
            Some((5, Evidence::Trailer)),
        );
    }
}

#[test]
fn time_is_linear_in_hostile_bodies() {
    let sections = table();
    for footers in [true, false] {
        let context = InferContext {
            section_id: SectionId(4),
            sections: &sections,
            footers,
            package: false,
        };
        let hostile = [FOOTER, b"\x04\0\0\0\x09\xffname"].concat().repeat(200_000);
        let mut scanner = BodyEndScanner::new();
        for end in (0..hostile.len()).step_by(97) {
            scanner.scan(&hostile[..end], &context, false);
        }
        assert_eq!(
            scanner.scan(&hostile, &context, true),
            BodyEnd::NotFound,
            "footers {footers}"
        );
    }
}
