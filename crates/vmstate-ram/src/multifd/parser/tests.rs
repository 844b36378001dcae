use proptest::prelude::*;

use super::*;
use crate::multifd::{PacketWriter, PagesHeader};
use crate::{BlockId, BlockName, BlockTable, RamBlock};

const PAGE: usize = 4096;

fn settings(method: Method) -> ChannelSettings {
    ChannelSettings {
        method,
        ..ChannelSettings::default()
    }
}

fn name() -> BlockName {
    BlockName::new(b"pc.ram").unwrap()
}

/// A packet with these pages, without compression.
fn pages_packet(normal: &[u64], zero: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    let payload_len = normal.len() * PAGE;
    let header = PagesHeader {
        number: 5,
        block: &name(),
        normal,
        zero,
        payload_len,
    };
    PacketWriter::new(PageSize::KIB4, Method::None)
        .pages_header(&header, &mut out)
        .unwrap();
    out.resize(out.len() + payload_len, 0xaa);
    out
}

fn sync_packet() -> Vec<u8> {
    let mut out = Vec::new();
    PacketWriter::new(PageSize::KIB4, Method::None).sync(6, &mut out);
    out
}

#[track_caller]
fn accepted(method: Method, packet: &[u8]) -> ChannelEvent<'_> {
    match ChannelParser::after_init(settings(method))
        .step(packet)
        .unwrap()
    {
        Step::Event { consumed, event } => {
            assert_eq!(consumed, packet.len());
            event
        }
        other @ Step::NeedMore { .. } => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(method: Method, packet: &[u8], at: u64, expected: RamErrorKind) {
    let error = ChannelParser::after_init(settings(method))
        .step(packet)
        .unwrap_err();
    assert_eq!((error.kind(), error.offset()), (&expected, Some(64 + at)));
}

/// The packet with a 32-bit field changed.
fn with(mut packet: Vec<u8>, at: usize, value: u32) -> Vec<u8> {
    packet[at..at + 4].copy_from_slice(&value.to_be_bytes());
    packet
}

#[test]
fn reads_a_packet_with_pages() {
    let packet = pages_packet(&[0x3000, 0x1000], &[0x2000]);
    let ChannelEvent::Pages(pages) = accepted(Method::None, &packet) else {
        panic!()
    };
    assert_eq!(
        (pages.number, pages.method, pages.sync, pages.block),
        (5, Method::None, false, &b"pc.ram"[..])
    );
    assert_eq!(pages.normal.iter().collect::<Vec<_>>(), [0x3000, 0x1000]);
    assert_eq!(pages.zero.iter().collect::<Vec<_>>(), [0x2000]);
    assert_eq!(
        (pages.payload_len, pages.payload.len()),
        (2 * PAGE, 2 * PAGE)
    );
    assert!(pages.payload.iter().all(|byte| *byte == 0xaa));
}

#[test]
fn reads_sync_modern_and_old() {
    assert_eq!(
        accepted(Method::None, &sync_packet()),
        ChannelEvent::Sync { number: 6 }
    );
    // Before 9.0: capacity, payload size, name and offsets are left over from earlier packets.
    let mut stale = pages_packet(&[0x1000; 3], &[]);
    stale.truncate(1344);
    let stale = with(with(stale, 16, 0), 8, 1);
    assert_eq!(
        accepted(Method::None, &stale),
        ChannelEvent::Sync { number: 5 }
    );
    assert_eq!(
        accepted(Method::Zstd, &stale),
        ChannelEvent::Sync { number: 5 }
    );
    assert_eq!(
        accepted(Method::Zlib, &with(stale, 8, 0)),
        ChannelEvent::Empty { number: 5 }
    );
    // And SYNC may ride on pages.
    let riding = with(pages_packet(&[0x1000], &[]), 8, 1);
    let ChannelEvent::Pages(pages) = accepted(Method::None, &riding) else {
        panic!()
    };
    assert!(pages.sync);
}

#[test]
fn a_driver_may_take_the_payload_itself() {
    let packet = pages_packet(&[0x1000], &[]);
    let mut parser = ChannelParser::after_init(settings(Method::None));
    assert!(parser.payload_done().is_err());
    assert!(matches!(
        parser.step_header(&packet).unwrap(),
        Step::Event { consumed: 1344, .. }
    ));
    assert_eq!(parser.payload_due(), PAGE);
    assert!(!parser.is_between_packets());
    assert!(parser.step(&packet).is_err());
    parser.payload_done().unwrap();
    assert_eq!(parser.position(), 64 + 1344 + PAGE as u64);
    assert!(parser.is_between_packets());
}

#[test]
fn reads_device_state() {
    let mut packet = Vec::new();
    let writer = PacketWriter::new(PageSize::KIB4, Method::None);
    writer
        .device_state_header(b"0000:00:01.0/vfio", 3, 4, &mut packet)
        .unwrap();
    assert_eq!(packet.len(), 276);
    packet.extend(b"data");
    let expected = DeviceState {
        idstr: b"0000:00:01.0/vfio",
        instance_id: 3,
        payload_len: 4,
        payload: b"data",
    };
    assert_eq!(
        accepted(Method::None, &packet),
        ChannelEvent::DeviceState(expected)
    );
    refused(
        Method::None,
        &with(packet.clone(), 8, 0x41),
        8,
        RamErrorKind::MultifdDeviceSync,
    );
    refused(
        Method::None,
        &with(packet.clone(), 8, 0x44),
        8,
        RamErrorKind::MultifdMethodBits { found: 4 },
    );
    let bound = |found| RamErrorKind::MultifdPayloadBound {
        minimum: 1,
        limit: 16 << 20,
        found,
    };
    refused(Method::None, &with(packet.clone(), 272, 0), 272, bound(0));
    refused(
        Method::None,
        &with(packet.clone(), 272, 0x100_0001),
        272,
        bound(0x100_0001),
    );
    refused(
        Method::None,
        &with(packet, 12, 0),
        12,
        RamErrorKind::MultifdName,
    );
}

#[test]
fn refuses_bad_packets() {
    use RamErrorKind as Kind;
    let packet = || pages_packet(&[0x1000, 0x2000], &[0x3000]);
    let none = Method::None;
    refused(
        none,
        &with(packet(), 0, 7),
        0,
        Kind::MultifdMagic { found: 7 },
    );
    refused(
        none,
        &with(packet(), 4, 2),
        4,
        Kind::MultifdVersion { found: 2 },
    );
    refused(
        none,
        &with(packet(), 8, 0x181),
        8,
        Kind::MultifdFlags { found: 0x180 },
    );
    refused(
        none,
        &with(packet(), 8, 0x06),
        8,
        Kind::MultifdMethodBits { found: 6 },
    );
    refused(
        none,
        &with(packet(), 8, 0x02),
        8,
        Kind::MultifdMethod {
            expected: none,
            found: Method::Zlib,
        },
    );
    refused(
        Method::Zstd,
        &packet(),
        8,
        Kind::MultifdMethod {
            expected: Method::Zstd,
            found: none,
        },
    );
    refused(
        none,
        &with(packet(), 12, 129),
        12,
        Kind::MultifdCapacity {
            found: 129,
            limit: 128,
        },
    );
    let count = |normal, zero, capacity| Kind::MultifdPageCount {
        normal,
        zero,
        capacity,
    };
    refused(none, &with(packet(), 16, 128), 16, count(128, 1, 128));
    refused(
        none,
        &with(packet(), 32, u32::MAX),
        16,
        count(2, u32::MAX, 128),
    );
    refused(none, &with(packet(), 12, 2), 16, count(2, 1, 2));
    refused(
        none,
        &with(packet(), 20, 4096),
        20,
        Kind::MultifdPayload {
            expected: 8192,
            found: 4096,
        },
    );
    refused(none, &with(packet(), 64, 0), 64, Kind::MultifdName);
    let mut unterminated = packet();
    unterminated[64..320].fill(b'x');
    refused(none, &unterminated, 64, Kind::MultifdName);
    let bound = |minimum, limit, found| Kind::MultifdPayloadBound {
        minimum,
        limit,
        found,
    };
    for (method, minimum, limit) in [
        (Method::Zlib, 1, 1 << 20),
        (Method::Zstd, 1, 1 << 20),
        (Method::Qpl, 10, 8200),
        (Method::Uadk, 10, 8200),
    ] {
        let packet = |size| with(with(packet(), 8, method.bits()), 20, size);
        refused(
            method,
            &packet(minimum - 1),
            20,
            bound(minimum.into(), limit, u64::from(minimum) - 1),
        );
        let above = limit as u32 + 1;
        refused(
            method,
            &packet(above),
            20,
            bound(minimum.into(), limit, above.into()),
        );
    }
    // Zero pages alone have no payload.
    let zeros = with(with(pages_packet(&[], &[0x1000]), 8, 4), 20, 1);
    refused(
        Method::Zstd,
        &zeros,
        20,
        Kind::MultifdPayload {
            expected: 0,
            found: 1,
        },
    );
}

#[test]
fn pages_are_located_in_the_block_table() {
    let mut blocks = BlockTable::new();
    blocks
        .push(RamBlock::new(name(), 0x3000), PageSize::KIB4)
        .unwrap();
    let locate = |packet: &[u8]| {
        let ChannelEvent::Pages(pages) = accepted(Method::None, packet) else {
            panic!()
        };
        pages
            .locate(&blocks, PageSize::KIB4)
            .map_err(|error| error.kind().clone())
    };
    assert_eq!(
        locate(&pages_packet(&[0, 0x2000], &[0x1000])),
        Ok(BlockId(0))
    );
    let outside = |offset| {
        Err(RamErrorKind::OutsideBlock {
            offset,
            used_length: 0x3000,
        })
    };
    assert_eq!(locate(&pages_packet(&[0, 0x3000], &[])), outside(0x3000));
    assert_eq!(locate(&pages_packet(&[0], &[!0xfff])), outside(!0xfff));
    assert_eq!(
        locate(&pages_packet(&[0x800], &[])),
        Err(RamErrorKind::Unaligned {
            offset: 0x800,
            page_size: PageSize::KIB4
        })
    );
    let mut other = pages_packet(&[0], &[]);
    other[64] = b'q';
    assert_eq!(
        locate(&other),
        Err(RamErrorKind::UnknownBlock {
            name: "qc.ram".into()
        })
    );
}

#[test]
fn the_writer_refuses_what_a_reader_would() {
    let name = name();
    let header = |normal, zero, payload_len| PagesHeader {
        number: 0,
        block: &name,
        normal,
        zero,
        payload_len,
    };
    let mut out = Vec::new();
    let none = PacketWriter::new(PageSize::KIB4, Method::None);
    let zlib = PacketWriter::new(PageSize::KIB4, Method::Zlib);
    assert_eq!(none.capacity(), 128);
    assert!(
        none.pages_header(&header(&[0; 128], &[0], 128 * PAGE), &mut out)
            .is_err()
    );
    assert!(
        none.pages_header(&header(&[0], &[], PAGE - 1), &mut out)
            .is_err()
    );
    assert!(zlib.pages_header(&header(&[], &[0], 1), &mut out).is_err());
    assert!(zlib.pages_header(&header(&[0], &[], 0), &mut out).is_err());
    assert!(
        zlib.pages_header(&header(&[0], &[], (1 << 20) + 1), &mut out)
            .is_err()
    );
    assert!(zlib.device_state_header(b"x", 0, 1, &mut out).is_err());
    for (idstr, length) in [
        (&b""[..], 1),
        (&[b'x'; 256], 1),
        (b"a\0", 1),
        (b"x", 0),
        (b"x", 1 << 32),
    ] {
        assert!(
            none.device_state_header(idstr, 0, length, &mut out)
                .is_err()
        );
    }
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_events(
        kinds in prop::collection::vec((0_u8..3, 0_usize..4, 0_usize..4), 0..6),
        pieces in prop::collection::vec(1_usize..3000, 1..10),
    ) {
        let mut input = InitPacket { uuid: [1; 16], channel: 3 }.encode().to_vec();
        for (kind, normal, zero) in &kinds {
            match kind {
                0 => input.extend(sync_packet()),
                1 => input.extend(pages_packet(&vec![0x1000; *normal], &vec![0x2000; *zero])),
                _ => {
                    PacketWriter::new(PageSize::KIB4, Method::None)
                        .device_state_header(b"dev", 0, *normal + 1, &mut input).unwrap();
                    input.resize(input.len() + *normal + 1, 9);
                }
            }
        }
        let mut parser = ChannelParser::new(ChannelSettings::default());
        let (mut from, mut to, mut count) = (0, 0, 0);
        let mut pieces = pieces.iter().cycle();
        while from < input.len() {
            match parser.step(&input[from..to]).unwrap() {
                Step::NeedMore { at_least } => {
                    prop_assert!(at_least > to - from && from + at_least <= input.len());
                    to = (to + pieces.next().unwrap()).min(input.len());
                }
                Step::Event { consumed, event } => {
                    prop_assert_eq!(matches!(event, ChannelEvent::Init(_)), count == 0);
                    from += consumed;
                    count += 1;
                }
            }
        }
        prop_assert_eq!(count, kinds.len() + 1);
        prop_assert!(parser.is_between_packets());
    }

    #[test]
    fn any_bytes_are_refused_or_understood(
        damage in prop::collection::vec((0_usize..340, any::<u8>()), 0..6),
        method in prop::sample::select(&Method::ALL[..]),
    ) {
        let mut packet = pages_packet(&[0x1000], &[0x2000]);
        for (at, value) in damage {
            packet[at] = value;
        }
        let length = packet.len();
        for mut parser in [
            ChannelParser::after_init(settings(method)),
            ChannelParser::new(settings(method)),
        ] {
            match parser.step(&packet) {
                Ok(Step::NeedMore { at_least }) => prop_assert!(at_least > length),
                Ok(Step::Event { consumed, .. }) => prop_assert!(0 < consumed && consumed <= length),
                Err(error) => prop_assert!(error.offset().is_some_and(|at| at <= length as u64)),
            }
        }
    }
}
