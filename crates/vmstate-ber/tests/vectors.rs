//! A whole stream, octet for octet, as two other ASN.1 compilers understand it.

#![expect(clippy::unwrap_used, reason = "a test")]

use vmstate_ber::frame::{
    Capability, Coding, Decision, Frame, Hello, Level, Phase, PhaseName, RamBlock, RamBlocks,
    RamPages, Select, Severity, Status,
};
use vmstate_ber::stream::{Parser, Section, Step, Writer};
use vmstate_ber::types::{FieldDef, Kind, SubDef, TypeDef, TypeFlags, TypeTable};
use vmstate_ber::{Limits, decode_dynamic};
use vmstate_desc::{DynState, Scalar, Value};

const STREAM: &[u8] = include_bytes!("../../../vectors/ber/serial.ber");

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn field(name: &str, kind: Kind, size: u32, since: u32) -> FieldDef {
    FieldDef {
        size: Some(size),
        since,
        ..FieldDef::new(name, kind)
    }
}

/// The types of the stream.
fn types() -> Vec<TypeDef> {
    let names = ["rbr", "ier", "iir", "lcr", "mcr", "lsr", "msr", "scr"];
    let mut fields = vec![field("divider", Kind::Uint, 2, 2)];
    fields.extend(names.iter().map(|name| field(name, Kind::Uint, 1, 0)));
    fields.push(field("fcr_vmstate", Kind::Uint, 1, 3));
    let ty = |id, name: &str, version, min_version, fields, subs| TypeDef {
        id,
        name: name.to_owned(),
        version,
        min_version,
        fields,
        subs,
        flags: TypeFlags::default(),
        readable_from: None,
    };
    let sub = SubDef {
        ty: 2,
        ignorable: false,
    };
    vec![
        ty(1, "serial", 3, 2, fields, vec![sub]),
        ty(
            2,
            "serial/fifo_timeout_timer",
            1,
            1,
            vec![field("fifo_timeout_timer", Kind::Int, 8, 0)],
            Vec::new(),
        ),
    ]
}

fn table() -> TypeTable {
    let mut table = TypeTable::default();
    for ty in types() {
        table.insert(ty, 0, 0, &Limits::default()).unwrap();
    }
    table
}

fn hello() -> Hello {
    let required = |name: &str| Capability {
        name: name.to_owned(),
        level: Level::Required,
        params: Vec::new(),
    };
    Hello {
        session: std::array::from_fn(|i| u8::try_from(i).unwrap()),
        ..Hello::of_file(
            "vmstate 0.1.0",
            vec![required("frame-crc"), required("typedefs")],
        )
    }
}

/// The device, whose description is made from the types.
fn serial(table: &mut TypeTable) -> DynState {
    let root = table.find(1).unwrap();
    let mut serial = DynState::new(table.description(root).unwrap());
    serial.set("divider", Scalar::U16(1));
    for (name, value) in [
        ("rbr", 0x0d),
        ("ier", 5),
        ("iir", 0xc1),
        ("lcr", 3),
        ("mcr", 0x0b),
        ("lsr", 0x60),
        ("msr", 0xb0),
        ("scr", 0),
        ("fcr_vmstate", 1),
    ] {
        assert!(serial.set(name, Scalar::U8(value)), "{name}");
    }
    let sub = table.find(2).unwrap();
    let mut timer = DynState::new(table.description(sub).unwrap());
    timer.set("fifo_timeout_timer", Scalar::I64(-1));
    serial.set_subsection(0, Some(timer));
    serial
}

#[test]
fn the_writer_writes_it() {
    let mut table = table();
    let serial = serial(&mut table);
    let root = table.find(1).unwrap();
    assert_eq!(
        table.digest(root).unwrap().to_vec(),
        hex(
            "77 17 1a a0 66 7e 56 3b 1c c1 6c f5 21 47 29 23 59 39 0f 06 b4 82 ac 87 bd 2d 47 96 0f 48 5e 4d"
        )
    );
    let mut out = Vec::new();
    let mut writer = Writer::with_types(&hello(), table, &mut out);
    writer.new_types(&mut out);
    let blocks = RamBlocks {
        section_id: 2,
        total: 0x800_0000,
        blocks: vec![RamBlock {
            id: 0,
            idstr: "pc.ram".to_owned(),
            length: 0x800_0000,
            page_size: None,
            addr: None,
        }],
        page_bits: 12,
    };
    writer.frame(&Frame::RamBlocks(blocks), &mut out);
    let pages = RamPages {
        block: 0,
        first: 0x100,
        select: Select::Count(1024),
        coding: Coding::Zero,
        data: None,
        zeros: None,
        named: false,
        checksum: false,
    };
    writer.frame(&Frame::RamPages(pages), &mut out);
    writer.frame(&Frame::Phase(Phase::new(PhaseName::Switchover)), &mut out);
    let section = Section {
        section_id: 7,
        idstr: "serial",
        instance: 0,
        version: 3,
        early: false,
    };
    let root = writer.types().find(1).unwrap();
    let mut body = Vec::new();
    let ty = vmstate_ber::encode(&serial, writer.types_mut(), &mut body).unwrap();
    assert_eq!(ty, root, "the description of a type has that type");
    writer.encoded(&section, ty, &body, &mut out);
    writer.end(Status::Complete, &mut out);
    assert_eq!(out, STREAM);
}

#[test]
fn the_parser_reads_it() {
    for piece in [1, 7, 100, STREAM.len()] {
        let mut parser = Parser::default();
        let (mut at, mut available) = (0, 0);
        let mut kinds = Vec::new();
        let mut types = TypeTable::default();
        loop {
            match parser.next(&STREAM[at..available]).unwrap() {
                Step::NeedMore { min } => {
                    assert!(min > available - at);
                    assert!(available < STREAM.len(), "cut off at {at}");
                    available = (available + piece).min(STREAM.len());
                }
                Step::Consumed { consumed } => at += consumed,
                Step::Frame {
                    consumed,
                    offset,
                    frame,
                } => {
                    assert_eq!(offset, at as u64);
                    kinds.push(frame.tag());
                    let mut again = Vec::new();
                    frame.encode(&mut again);
                    assert_eq!(again, STREAM[at..at + consumed]);
                    match *frame {
                        Frame::Hello(found) => assert_eq!(found, hello()),
                        Frame::TypeDef(ty) => {
                            types.insert(ty, 1, offset, parser.limits()).unwrap();
                        }
                        Frame::Device(device) => {
                            let ty = types.find(device.ty).unwrap();
                            let state = decode_dynamic(
                                &mut types,
                                ty,
                                device.version,
                                device.body,
                                device.body_offset,
                                vmstate_desc::Limits::default(),
                            )
                            .unwrap();
                            assert_eq!(state, serial(&mut types));
                            assert_eq!(state.get("iir"), Some(&Value::Scalar(Scalar::U8(0xc1))));
                        }
                        _ => {}
                    }
                    at += consumed;
                }
                Step::End => break,
            }
        }
        assert_eq!(at, STREAM.len());
        assert_eq!(
            kinds,
            [0x61, 0x63, 0x63, 0x6a, 0x6b, 0x65, 0x68, 0x70],
            "in pieces of {piece}"
        );
        assert_eq!(
            types
                .since(0)
                .iter()
                .map(|ty| (**ty).clone())
                .collect::<Vec<_>>(),
            self::types()
        );
    }
}

#[test]
fn the_state_has_the_bytes_of_qemu() {
    let mut table = table();
    let mut bytes = Vec::new();
    vmstate_wire::codec::encode(&serial(&mut table), &mut bytes).unwrap();
    assert_eq!(
        bytes,
        hex(
            "00 01 0d 05 c1 03 0b 60 b0 00 01 05 19 73 65 72 69 61 6c 2f 66 69 66 6f 5f 74 69 6d 65 6f 75 74 5f \
             74 69 6d 65 72 00 00 00 01 ff ff ff ff ff ff ff ff"
        )
    );
}

#[test]
fn a_refusal() {
    let mut bytes = hex("62 58 0a 01 03 02 01 01 30 00 a1 4e 30 4c 0a 01 02 0c 03 43 31 30 0c 2e");
    bytes.extend_from_slice(b"0000:00:03.0/virtio-net#0: curr_guest_offloads");
    bytes.extend_from_slice(b"\x80\x09bytes(16)\x81\x07uint(8)");
    let tlv = vmstate_ber::der::DerReader::new(&bytes, 0).any().unwrap();
    let frame = Frame::decode(&tlv, &Limits::default()).unwrap();
    let Frame::Verdict(verdict) = &frame else {
        panic!("{frame:?}");
    };
    assert_eq!(verdict.decision, Decision::Refuse);
    let finding = &verdict.findings[0];
    assert_eq!(finding.severity, Severity::Error);
    assert_eq!(finding.rule, "C10");
    assert_eq!(finding.found.as_deref(), Some("uint(8)"));
    let mut again = Vec::new();
    frame.encode(&mut again);
    assert_eq!(again, bytes);
}
