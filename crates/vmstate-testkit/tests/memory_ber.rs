//! Streams over BER that claim much and hold little: what converting them takes stays below the stated limit.

use std::sync::{Mutex, MutexGuard, PoisonError};

use peak_alloc::PeakAlloc;
use vmstate_ber::frame::{DeviceState, Frame, Hello, RamBlock, RamBlocks};
use vmstate_ber::stream::MAGIC;
use vmstate_ber::types::{FieldDef, Kind, Repeat, TypeDef, TypeFlags};
use vmstate_io::convert::{Format, Options, convert};
use vmstate_io::inspect::DEFAULT_MEMORY;
use vmstate_io::{Input, ReadInput, SliceInput};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The allocator counts what the whole process takes, so that tests must not overlap.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Converts a stream as a file and from a pipe; panics if it is accepted, or takes more than the default limit.
fn refused(name: &str, stream: &[u8]) -> String {
    let mut text = String::new();
    for pipe in [false, true] {
        let mut input: Box<dyn Input + '_> = if pipe {
            Box::new(ReadInput::new(stream))
        } else {
            Box::new(SliceInput::new(stream))
        };
        ALLOCATOR.reset_peak_usage();
        let before = ALLOCATOR.current_usage();
        let to = if stream.starts_with(b"QEVM") {
            Format::Ber
        } else {
            Format::Qemu
        };
        let result = convert(&mut *input, &mut std::io::sink(), to, &Options::default());
        let taken = ALLOCATOR.peak_usage().saturating_sub(before) as u64;
        println!("{name}, pipe {pipe}: {} KiB", taken >> 10);
        assert!(taken <= DEFAULT_MEMORY, "{name}: {} MiB", taken >> 20);
        text = result.expect_err(name).to_string();
    }
    println!("{name}: {text}");
    text
}

/// The beginning of a stream.
fn begin() -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    Frame::Hello(Hello::of_file("x", Vec::new())).encode(&mut out);
    out
}

fn add_type(out: &mut Vec<u8>, id: u32, fields: Vec<FieldDef>) {
    let ty = TypeDef {
        id,
        name: "t".to_owned(),
        version: 1,
        min_version: 1,
        fields,
        subs: Vec::new(),
        flags: TypeFlags::default(),
        readable_from: None,
    };
    ty.encode(out);
}

fn embeds(id: u32, n: u32) -> FieldDef {
    FieldDef {
        ty: Some(id),
        repeat: Some(Repeat::Fixed(n)),
        ..FieldDef::new("f", Kind::Struct)
    }
}

fn add_device(out: &mut Vec<u8>, ty: u32, body: &[u8]) {
    let device = DeviceState {
        section_id: 1,
        idstr: "dev",
        instance: 0,
        version: 1,
        ty,
        body,
        body_offset: 0,
        early: false,
    };
    Frame::Device(device).encode(out);
}

/// A list of so many equal elements.
fn run(count: u64, element: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    vmstate_ber::der::put_uint(&mut content, 2, count);
    content.extend_from_slice(element);
    let mut inner = Vec::new();
    vmstate_ber::der::put_tlv(&mut inner, 0xa7, &content);
    let mut out = Vec::new();
    vmstate_ber::der::put_tlv(&mut out, 0xa0, &inner);
    out
}

fn sequence(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    vmstate_ber::der::put_tlv(&mut out, 0x30, content);
    out
}

#[test]
fn lengths_longer_than_the_stream() {
    let _alone = alone();
    for identifier in [0x61, 0x63, 0x64, 0x66, 0x68, 0x6a, 0x6b, 0x6e, 0x79] {
        for length in [
            &[0x83, 0x0f, 0xff, 0xff][..],
            &[0x84, 1, 0, 0, 0],
            &[0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            let stream = [&begin()[..], &[identifier], length, &[2, 1]].concat();
            refused("length", &stream);
        }
    }
}

#[test]
fn types_without_end() {
    let _alone = alone();
    let mut stream = begin();
    for id in 1..200_000 {
        add_type(&mut stream, id, Vec::new());
    }
    assert!(refused("types", &stream).contains("types"));
    let mut stream = begin();
    for id in 1..100 {
        let fields = vec![FieldDef::new("f", Kind::Bool); 4000];
        add_type(&mut stream, id, fields);
    }
    assert!(refused("fields", &stream).contains("fields"));
    let mut stream = begin();
    let name = "n".repeat(255);
    for id in 1..10_000 {
        add_type(&mut stream, id, vec![FieldDef::new(&*name, Kind::Bool); 8]);
    }
    refused("names", &stream);
}

#[test]
fn runs_of_runs() {
    let _alone = alone();
    // A million structs in a few bytes; and a million, each of which has a million.
    let mut stream = begin();
    add_type(&mut stream, 1, vec![FieldDef::new("f", Kind::Bool)]);
    add_type(&mut stream, 2, vec![embeds(1, 1 << 20)]);
    add_type(&mut stream, 3, vec![embeds(2, 1 << 20)]);
    let flat = sequence(&run(1 << 20, &[0x30, 3, 1, 1, 0]));
    let mut one = stream.clone();
    add_device(&mut one, 2, &flat);
    assert!(refused("a run", &one).contains("memory limit"));
    let mut two = stream.clone();
    add_device(&mut two, 3, &sequence(&run(1 << 20, &flat)));
    assert!(refused("a run of runs", &two).contains("memory limit"));
    // Absent elements need to be known beforehand.
    let nullable = FieldDef {
        nullable: Some(vmstate_ber::types::Nullable::Marker),
        ..embeds(1, 1 << 20)
    };
    add_type(&mut stream, 4, vec![nullable]);
    add_device(&mut stream, 4, &sequence(&run(1 << 20, &[0x83, 0])));
    assert!(refused("holes", &stream).contains("memory limit"));
}

#[test]
fn sections_in_pieces_without_end() {
    let _alone = alone();
    let mut stream = begin();
    let data = vec![7; 1 << 20];
    for _ in 0..40 {
        Frame::SectionData(vmstate_ber::frame::SectionData {
            section_id: 1,
            part: vmstate_ber::frame::Part::Full,
            owner: Some(("dev", 0, 1)),
            more: true,
            data: &data,
        })
        .encode(&mut stream);
    }
    assert!(refused("pieces", &stream).contains("exceeds the limit"));
}

#[test]
fn blocks_without_end() {
    let _alone = alone();
    let mut stream = begin();
    let blocks = (0..200_000)
        .map(|id| RamBlock {
            id,
            idstr: format!("{id}"),
            length: 4096,
            page_size: None,
            addr: None,
        })
        .collect();
    Frame::RamBlocks(RamBlocks {
        section_id: 1,
        total: 200_000 * 4096,
        blocks,
        page_bits: 12,
    })
    .encode(&mut stream);
    assert!(refused("blocks", &stream).contains("blocks of guest RAM"));
}

#[test]
fn devices_of_qemu_that_take_more_than_their_bytes() {
    let _alone = alone();
    let mut stream = b"QEVM\0\0\0\x03".to_vec();
    let field = r#"{"name": "a", "array_len": 300000, "type": "struct", "struct": {"vmsd_name": "b", "version": 1, "fields": [{"name": "c", "type": "uint8", "size": 1}]}, "size": 1}"#;
    stream.extend(b"\x04\0\0\0\x01\x03dev\0\0\0\0\0\0\0\x01");
    stream.extend(vec![1; 300_000]);
    stream.extend(b"\x7e\0\0\0\x01\0\x06");
    let text = format!(
        r#"{{"page_size": 4096, "devices": [{{"name": "dev", "instance_id": 0, "vmsd_name": "dev", "version": 1, "fields": [{field}]}}]}}"#
    );
    stream.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    stream.extend(text.bytes());
    let mut input = SliceInput::new(&stream);
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = convert(
        &mut input,
        &mut std::io::sink(),
        Format::Ber,
        &Options::default(),
    );
    let taken = ALLOCATOR.peak_usage().saturating_sub(before) as u64;
    assert!(taken <= DEFAULT_MEMORY, "{} MiB", taken >> 20);
    println!("{result:?}");
}
