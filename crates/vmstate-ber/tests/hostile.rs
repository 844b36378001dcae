//! Input that nobody sends who means well: refused with frame and byte offset, in little memory, without a panic.

#![expect(clippy::unwrap_used, reason = "a test")]

use vmstate_ber::der::{close, open, put_enumerated, put_octets, put_text, put_uint, tag};
use vmstate_ber::frame::{Frame, Hello};
use vmstate_ber::stream::{MAGIC, Parser, Step};
use vmstate_ber::types::{FieldDef, Kind, SubDef, TypeDef, TypeFlags, TypeTable};
use vmstate_ber::{BerError, BerErrorKind, Limits};

const STREAM: &[u8] = include_bytes!("../../../vectors/ber/serial.ber");

/// Reads a stream to its end, types included.
fn read(stream: &[u8]) -> Result<usize, BerError> {
    let mut parser = Parser::default();
    let (mut rest, mut frames) = (stream, 0);
    let mut types = TypeTable::default();
    loop {
        let consumed = match parser.next(rest)? {
            Step::NeedMore { min } => {
                assert!(min > rest.len());
                parser.finish(rest)?;
                return Ok(frames);
            }
            Step::Consumed { consumed } => consumed,
            Step::Frame {
                consumed,
                offset,
                frame,
            } => {
                frames += 1;
                if let Frame::TypeDef(ty) = *frame {
                    types.insert(ty, consumed as u64, offset, parser.limits())?;
                }
                consumed
            }
            Step::End => return Ok(frames),
        };
        rest = &rest[consumed..];
    }
}

fn refused(stream: &[u8]) -> BerErrorKind {
    read(stream).unwrap_err().kind().clone()
}

/// The beginning of a stream, and this behind it.
fn behind_hello(more: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    Frame::Hello(Hello::of_file("x", Vec::new())).encode(&mut out);
    out.extend_from_slice(more);
    out
}

#[test]
fn every_byte_matters() {
    assert_eq!(read(STREAM), Ok(8));
    for at in 0..STREAM.len() {
        for bit in 0..8 {
            if at == 0x1e4 && bit < 2 {
                // How it went is no matter of the form: cancelled, or failed.
                continue;
            }
            let mut bytes = STREAM.to_vec();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at:#x}");
        }
        let error = read(&STREAM[..at]).unwrap_err();
        assert_eq!(error.offset(), at as u64, "cut off at {at:#x}: {error}");
    }
}

#[test]
fn errors_tell_frame_and_place() {
    let mut bytes = STREAM.to_vec();
    bytes[STREAM.len() - 46 - 2 - 30] ^= 1;
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error.kind(), BerErrorKind::Checksum { .. }));
    let text = error.to_string();
    assert!(text.contains("frame DeviceState at 0x18e"), "{text}");
    // A length longer than the rest.
    let long = behind_hello(&[0x68, 0x82, 0x10, 0, 2]);
    let error = read(&long).unwrap_err();
    assert!(error.to_string().contains("rest of a frame"), "{error}");
    // Inside of a frame: the frame is there, but a member claims more than it.
    let inside = behind_hello(&[0x65, 3, 0x0a, 5, 0]);
    let error = read(&inside).unwrap_err();
    assert_eq!(
        error.kind(),
        &BerErrorKind::Truncated {
            needed: 7,
            available: 3
        }
    );
    assert_eq!(error.frame().unwrap().0.to_string(), "Phase");
}

#[test]
fn types_that_no_description_can_say_tell_where_they_stand() {
    let ty = |id, field| TypeDef {
        id,
        name: format!("t{id}"),
        version: 1,
        min_version: 1,
        fields: vec![field],
        subs: Vec::new(),
        flags: TypeFlags::default(),
        readable_from: None,
    };
    let child = |id| FieldDef {
        ty: Some(id),
        ..FieldDef::new("inner", Kind::Struct)
    };
    let mut types = TypeTable::default();
    // A number of no size, inside of another; a type that nobody has defined; a circle.
    let all = [
        (0x111, ty(1, FieldDef::new("odd", Kind::Uint))),
        (0x222, ty(2, child(1))),
        (0x333, ty(3, child(9))),
        (0x444, ty(4, child(4))),
    ];
    for (offset, ty) in all {
        types.insert(ty, 1, offset, &Limits::default()).unwrap();
    }
    for (id, offset, expected) in [(2, 0x111, "t1/odd"), (3, 0x333, "9"), (4, 0x444, "t4")] {
        let index = types.find(id).unwrap();
        let error = types.description(index).unwrap_err();
        assert_eq!(error.offset(), offset, "{error}");
        let (frame, at) = error.frame().unwrap();
        assert_eq!((frame.to_string(), at), ("TypeDef".to_owned(), offset));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn indefinite_lengths_are_for_the_envelope_alone() {
    for bytes in [
        &[0x68, 0x80, 2, 1, 1, 0, 0][..],
        &[0x65, 0x80, 0x0a, 1, 0, 0, 0],
        &[0x60, 0x80],
    ] {
        assert_eq!(refused(&behind_hello(bytes)), BerErrorKind::Indefinite);
    }
    let error = refused(&behind_hello(&[
        0x6e, 9, 0x0a, 1, 3, 0xa1, 0x80, 4, 0, 0, 0,
    ]));
    assert!(matches!(error, BerErrorKind::Tag { .. }), "{error}");
    let error = refused(&behind_hello(&[0x78, 6, 0x0c, 1, b'n', 0x30, 0x80, 0]));
    assert_eq!(error, BerErrorKind::Indefinite);
    // End of contents where none can be.
    assert!(matches!(
        refused(&behind_hello(&[0, 0])),
        BerErrorKind::OutOfTurn { .. }
    ));
    assert_eq!(refused(&behind_hello(&[0, 7])), BerErrorKind::EndOfContents);
    let error = refused(&behind_hello(&[0x65, 5, 0x0a, 1, 0, 0, 0]));
    assert_eq!(error, BerErrorKind::Critical { found: 0 });
}

#[test]
fn lengths_are_bounded_before_anything_is_taken() {
    for (identifier, limit) in [(0x68, 64 << 20), (0x63, 1 << 20), (0x6b, (1 << 20) + 2048)] {
        let claim = u32::try_from(limit + 1).unwrap().to_be_bytes();
        let header = [&[identifier, 0x84][..], &claim].concat();
        let header = if claim[0] == 0 {
            [&[identifier, 0x83][..], &claim[1..]].concat()
        } else {
            header
        };
        let kind = refused(&behind_hello(&header));
        assert!(
            matches!(kind, BerErrorKind::Limit { limit: l, .. } if l == limit),
            "{kind}"
        );
    }
    // What is allowed is not asked for at once.
    let stream = behind_hello(&[0x68, 0x84, 3, 0, 0, 0]);
    let mut parser = Parser::default();
    let mut rest = stream.as_slice();
    let min = loop {
        match parser.next(rest).unwrap() {
            Step::NeedMore { min } => break min,
            Step::Consumed { consumed } | Step::Frame { consumed, .. } => rest = &rest[consumed..],
            Step::End => panic!("not complete"),
        }
    };
    assert!(min <= 64 << 10, "{min}");
}

#[test]
fn a_million_types() {
    let mut stream = behind_hello(&[]);
    for id in 1..=1_000_000_u32 {
        let start = open(&mut stream, 0x63);
        put_uint(&mut stream, tag::INTEGER, id.into());
        put_text(&mut stream, "t");
        put_uint(&mut stream, tag::INTEGER, 1);
        put_uint(&mut stream, tag::INTEGER, 1);
        let fields = open(&mut stream, tag::SEQUENCE);
        close(&mut stream, fields);
        close(&mut stream, start);
    }
    let kind = refused(&stream);
    assert_eq!(
        kind,
        BerErrorKind::Limit {
            what: "types",
            found: 65_537,
            limit: 65_536
        }
    );
}

#[test]
fn a_million_fields() {
    // In one type, and in many.
    for (types, fields) in [(1, 5000), (40, 4000)] {
        let mut stream = behind_hello(&[]);
        for id in 1..=types {
            let start = open(&mut stream, 0x63);
            put_uint(&mut stream, tag::INTEGER, id);
            put_text(&mut stream, "t");
            put_uint(&mut stream, tag::INTEGER, 1);
            put_uint(&mut stream, tag::INTEGER, 1);
            let list = open(&mut stream, tag::SEQUENCE);
            for _ in 0..fields {
                let field = open(&mut stream, tag::SEQUENCE);
                put_text(&mut stream, "f");
                put_enumerated(&mut stream, 0);
                close(&mut stream, field);
            }
            close(&mut stream, list);
            close(&mut stream, start);
        }
        let kind = refused(&stream);
        assert!(matches!(kind, BerErrorKind::Limit { .. }), "{kind}");
    }
}

fn ty(id: u32, fields: Vec<FieldDef>, subs: Vec<SubDef>) -> TypeDef {
    TypeDef {
        id,
        name: format!("t{id}"),
        version: 1,
        min_version: 1,
        fields,
        subs,
        flags: TypeFlags::default(),
        readable_from: None,
    }
}

fn embeds(id: u32) -> FieldDef {
    FieldDef {
        ty: Some(id),
        ..FieldDef::new("f", Kind::Struct)
    }
}

#[test]
fn circles_of_types() {
    let sub = |ty| SubDef {
        ty,
        ignorable: false,
    };
    let circles: [&[TypeDef]; 3] = [
        &[ty(1, vec![embeds(1)], vec![])],
        &[
            ty(1, vec![embeds(2)], vec![]),
            ty(2, vec![embeds(3)], vec![]),
            ty(3, vec![embeds(1)], vec![]),
        ],
        &[ty(1, vec![embeds(2)], vec![]), ty(2, vec![], vec![sub(1)])],
    ];
    for circle in circles {
        let mut table = TypeTable::default();
        for ty in circle {
            table.insert(ty.clone(), 1, 0, &Limits::default()).unwrap();
        }
        let index = table.find(1).unwrap();
        // A digest is a number of its own; a description would have no end.
        table.digest(index).unwrap();
        let kind = table.description(index).unwrap_err().kind().clone();
        assert!(matches!(kind, BerErrorKind::CircularType { .. }), "{kind}");
    }
}

#[test]
fn types_that_share_their_parts_cost_what_they_are() {
    // Each type has the next one twice: 2^30 structs, were they counted one by one.
    let mut table = TypeTable::default();
    for id in 1..=30 {
        let fields = vec![embeds(id + 1), embeds(id + 1)];
        table
            .insert(ty(id, fields, vec![]), 1, 0, &Limits::default())
            .unwrap();
    }
    table
        .insert(ty(31, vec![], vec![]), 1, 0, &Limits::default())
        .unwrap();
    let index = table.find(1).unwrap();
    let description = table.description(index).unwrap();
    table.digest(index).unwrap();
    let mut other = TypeTable::default();
    other.add(&description).unwrap();
    assert_eq!(other.len(), 31);
    // A chain that is too long.
    let mut table = TypeTable::default();
    for id in 1..=40 {
        table
            .insert(
                ty(id, vec![embeds(id + 1)], vec![]),
                1,
                0,
                &Limits::default(),
            )
            .unwrap();
    }
    let index = table.find(1).unwrap();
    let kind = table.description(index).unwrap_err().kind().clone();
    assert!(matches!(kind, BerErrorKind::Limit { .. }), "{kind}");
}

#[test]
fn types_that_are_wrong() {
    let mut table = TypeTable::default();
    let limits = Limits::default();
    table
        .insert(ty(1, vec![embeds(9)], vec![]), 1, 0, &limits)
        .unwrap();
    let error = table
        .insert(ty(1, vec![], vec![]), 1, 0x30, &limits)
        .unwrap_err();
    assert_eq!(error.kind(), &BerErrorKind::DuplicateType { id: 1 });
    assert_eq!(error.offset(), 0x30);
    let index = table.find(1).unwrap();
    let kind = table.description(index).unwrap_err().kind().clone();
    assert_eq!(kind, BerErrorKind::UnknownType { id: 9 });
    // A counter that does not exist, kinds without a size, structs without a type.
    let counted = FieldDef {
        size: Some(1),
        max: Some(4),
        repeat: Some(vmstate_ber::types::Repeat::Counted {
            field: "n".to_owned(),
            factor: 1,
            on_wire: true,
        }),
        ..FieldDef::new("f", Kind::Uint)
    };
    let bad = [
        counted,
        FieldDef::new("f", Kind::Uint),
        FieldDef::new("f", Kind::Struct),
        FieldDef::new("f", Kind::Fd),
        FieldDef::new("f", Kind::Bytes),
        FieldDef::new("f", Kind::Computed),
    ];
    for (id, field) in (10..).zip(bad) {
        let index = table
            .insert(ty(id, vec![field.clone()], vec![]), 1, 0, &limits)
            .unwrap();
        let kind = table.description(index).unwrap_err().kind().clone();
        assert!(
            matches!(kind, BerErrorKind::Type { .. }),
            "{field:?}: {kind}"
        );
    }
}

#[test]
fn checksums_and_digests() {
    // The digest of the whole stream alone is wrong.
    let mut bytes = STREAM.to_vec();
    let at = STREAM.len() - 5;
    bytes[at] ^= 0x40;
    assert_eq!(refused(&bytes), BerErrorKind::Digest);
    // A file without one.
    let mut stream = behind_hello(&[]);
    let octets = stream.len() as u64;
    let start = open(&mut stream, 0x70);
    put_uint(&mut stream, tag::INTEGER, 2);
    put_uint(&mut stream, tag::INTEGER, octets);
    put_enumerated(&mut stream, 0);
    close(&mut stream, start);
    stream.extend([0, 0]);
    assert!(matches!(refused(&stream), BerErrorKind::Missing(_)));
    // A frame that must have a checksum and has none.
    let mut frame = Vec::new();
    let start = open(&mut frame, 0x69);
    put_uint(&mut frame, tag::INTEGER, 1);
    put_uint(&mut frame, tag::INTEGER, 0);
    put_octets(&mut frame, b"x");
    close(&mut frame, start);
    assert_eq!(
        refused(&behind_hello(&frame)),
        BerErrorKind::Missing("the checksum")
    );
}

#[test]
fn frames_of_later_revisions() {
    // Ignorable ones are passed over, critical ones are not.
    for identifier in 0x79..=0x7d_u8 {
        let stream = behind_hello(&[identifier, 2, 5, 0]);
        let error = read(&stream).unwrap_err();
        assert!(
            error.to_string().contains("last frame is missing"),
            "{error}"
        );
    }
    for identifier in [0x71, 0x77, 0x7e, 0x41, 0x04, 0x30, 0x60] {
        let kind = refused(&behind_hello(&[identifier, 2, 5, 0]));
        assert_eq!(kind, BerErrorKind::Critical { found: identifier });
    }
    // The same for members.
    let stream = behind_hello(&[0x65, 6, 0x0a, 1, 1, 0x90, 1, 7]);
    assert!(
        read(&stream)
            .unwrap_err()
            .to_string()
            .contains("last frame")
    );
    let kind = refused(&behind_hello(&[0x65, 6, 0x0a, 1, 1, 0x8e, 1, 7]));
    assert_eq!(kind, BerErrorKind::Critical { found: 0x8e });
    // A second Hello, and a stream without one.
    let mut twice = behind_hello(&[]);
    Frame::Hello(Hello::of_file("x", Vec::new())).encode(&mut twice);
    assert!(matches!(refused(&twice), BerErrorKind::OutOfTurn { .. }));
    let without = [&MAGIC[..], &[0x65, 3, 0x0a, 1, 0]].concat();
    assert!(matches!(refused(&without), BerErrorKind::OutOfTurn { .. }));
    assert!(matches!(
        refused(b"QEVM\0\0\0\x03"),
        BerErrorKind::Magic { .. }
    ));
}

/// A Hello with these counts, each of a section with paths and a number.
fn hello_with(counts: &[(&str, &[(&str, u64)])]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let mut hello = Vec::new();
    Frame::Hello(Hello::of_file("x", Vec::new())).encode(&mut hello);
    let start = open(&mut out, hello[0]);
    out.extend_from_slice(&hello[2..]);
    let all = open(&mut out, tag::constructed(16));
    for (section, fields) in counts {
        let one = open(&mut out, tag::SEQUENCE);
        put_text(&mut out, section);
        put_uint(&mut out, tag::INTEGER, 0);
        let list = open(&mut out, tag::SEQUENCE);
        for (path, number) in *fields {
            let field = open(&mut out, tag::SEQUENCE);
            put_text(&mut out, path);
            put_uint(&mut out, tag::INTEGER, *number);
            close(&mut out, field);
        }
        close(&mut out, list);
        close(&mut out, one);
    }
    close(&mut out, all);
    close(&mut out, start);
    out
}

#[test]
fn numbers_in_a_hello() {
    let good: &[(&str, &[(&str, u64)])] = &[
        ("nic", &[("rx", 2), ("tx", 0xffff_ffff)]),
        ("rtc", &[("a.b", 0)]),
    ];
    let bytes = hello_with(good);
    let mut parser = Parser::default();
    let Step::Consumed { consumed } = parser.next(&bytes).unwrap() else {
        panic!();
    };
    let Step::Frame { frame, .. } = parser.next(&bytes[consumed..]).unwrap() else {
        panic!();
    };
    let Frame::Hello(hello) = &*frame else {
        panic!();
    };
    let counts = hello.counts.as_deref().unwrap();
    assert_eq!(
        (&*counts[1].idstr, &*counts[1].counts[0].path),
        ("rtc", "a.b")
    );
    assert_eq!(counts[0].counts[1].number, u32::MAX);
    let mut again = MAGIC.to_vec();
    frame.encode(&mut again);
    assert_eq!(again, bytes);

    let canonical = |counts: &[(&str, &[(&str, u64)])], expected: &str| {
        let kind = refused(&hello_with(counts));
        assert!(
            matches!(kind, BerErrorKind::NotCanonical(what) if what.contains(expected)),
            "{expected}: {kind:?}"
        );
    };
    canonical(&[], "without elements");
    canonical(&[("nic", &[])], "without elements");
    canonical(
        &[("rtc", &[("a", 1)]), ("nic", &[("a", 1)])],
        "sorted by section",
    );
    canonical(
        &[("nic", &[("a", 1)]), ("nic", &[("a", 1)])],
        "sorted by section",
    );
    canonical(&[("nic", &[("b", 1), ("a", 1)])], "sorted by path");
    canonical(&[("nic", &[("a", 1), ("a", 1)])], "sorted by path");
    let long = "x".repeat(256);
    for wrong in [("", 1), (long.as_str(), 1), ("a", 1 << 32)] {
        assert!(read(&hello_with(&[("nic", &[wrong])])).is_err());
    }
}
