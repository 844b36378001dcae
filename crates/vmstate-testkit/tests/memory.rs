//! Streams that claim much and hold little: what reading them takes stays below the stated limit.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use peak_alloc::PeakAlloc;
use vmstate_io::inspect::{Analysis, DEFAULT_MEMORY, Options, analyze};
use vmstate_io::{Input, ReadInput, SliceInput};
use vmstate_ram::multifd::{InitPacket, Method, PacketWriter, PagesHeader};
use vmstate_ram::{BlockName, PageSize};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The allocator counts what the whole process takes, so that tests must not overlap.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Analyses `stream` as a file and as a pipe, and panics if that takes more than the default limit.
fn within_limit(name: &str, stream: &[u8], channels: &[Vec<u8>], options: &Options) -> Analysis {
    let mut last = None;
    for pipe in [false, true] {
        let mut further: Vec<Box<dyn Input + '_>> = channels
            .iter()
            .map(|bytes| Box::new(SliceInput::new(bytes)) as Box<dyn Input + '_>)
            .collect();
        ALLOCATOR.reset_peak_usage();
        let before = ALLOCATOR.current_usage();
        let analysis = if pipe {
            analyze(&mut ReadInput::new(stream), &mut further, options)
        } else {
            analyze(&mut SliceInput::new(stream), &mut further, options)
        };
        let taken = ALLOCATOR.peak_usage().saturating_sub(before) as u64;
        println!("{name}, pipe {pipe}: {} KiB", taken >> 10);
        assert!(
            taken <= DEFAULT_MEMORY,
            "{name}, pipe {pipe}: {} MiB",
            taken >> 20
        );
        last = Some(analysis);
    }
    last.unwrap()
}

fn strict() -> Options {
    Options {
        verify: true,
        digest: true,
        ram_memory: 16 << 20,
        digest_length: 1 << 30,
        ..Options::default()
    }
}

fn header() -> Vec<u8> {
    b"QEVM\0\0\0\x03".to_vec()
}

fn full(out: &mut Vec<u8>, id: u32, name: &str, payload: &[u8]) {
    start(out, 4, id, name, 1, payload);
    out.push(0x7e);
    out.extend(id.to_be_bytes());
}

fn start(out: &mut Vec<u8>, kind: u8, id: u32, name: &str, version: u32, payload: &[u8]) {
    out.push(kind);
    out.extend(id.to_be_bytes());
    out.push(u8::try_from(name.len()).unwrap());
    out.extend(name.as_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(version.to_be_bytes());
    out.extend(payload);
}

fn trailer(out: &mut Vec<u8>, text: &str) {
    out.push(0);
    out.push(6);
    out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

/// A stream of one device with these entries in the list of its fields.
fn device(fields: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = header();
    full(&mut out, 1, "dev", payload);
    trailer(
        &mut out,
        &format!(
            r#"{{"page_size": 4096, "devices": [{{"name": "dev", "instance_id": 0, "vmsd_name": "dev", "version": 1, "fields": [{fields}]}}]}}"#
        ),
    );
    out
}

fn refused(name: &str, stream: &[u8], channels: &[Vec<u8>]) {
    let analysis = within_limit(name, stream, channels, &strict());
    assert!(!analysis.is_clean(), "{name} was accepted");
}

#[test]
fn counts_of_four_billion() {
    let _alone = alone();
    for ty in ["uint8", "uint64", "buffer", "unused_buffer", "timer"] {
        let field =
            format!(r#"{{"name": "a", "array_len": 4000000000, "type": "{ty}", "size": 8}}"#);
        refused(ty, &device(&field, &[1; 64]), &[]);
    }
    let nested = r#"{"name": "a", "array_len": 4000000000, "type": "struct", "struct": {"vmsd_name": "b", "version": 1, "fields": [{"name": "c", "array_len": 4000000000, "type": "uint8", "size": 1}]}, "size": 4000000000}"#;
    refused("nested", &device(nested, &[1; 64]), &[]);
    let empty = r#"{"name": "a", "array_len": 4000000000, "type": "struct", "struct": {"vmsd_name": "b", "version": 1, "fields": []}, "size": 0}"#;
    refused("empty structs", &device(empty, &[1; 64]), &[]);
    let sized = r#"{"name": "a", "type": "buffer", "size": 18446744073709551615}"#;
    refused("a buffer of 2^64", &device(sized, &[1; 64]), &[]);
}

#[test]
fn lengths_longer_than_the_stream() {
    let _alone = alone();
    let mut stream = header();
    stream.extend([0, 6, 0xff, 0xff, 0xff, 0xff, b'{']);
    refused("trailer", &stream, &[]);
    let mut stream = header();
    stream.extend([7, 0xff, 0xff, 0xff, 0xff, b'p', b'c']);
    refused("configuration", &stream, &[]);
    let mut stream = header();
    stream.extend([8, 0, 6, 0, 4, 0xff, 0xff, 0xff, 0xff, 1]);
    refused("package", &stream, &[]);
}

#[test]
fn trailers_of_nothing_but_nesting() {
    let _alone = alone();
    let deep = "[".repeat(1 << 20);
    let mut stream = header();
    trailer(&mut stream, &format!("{{\"devices\": {deep}}}"));
    let analysis = within_limit("deep", &stream, &[], &strict());
    drop(analysis);
    // A text whose tree takes many times its own length.
    for piece in ["[],", "{},", "0,", r#"{"":0},"#] {
        let wide = piece.repeat((4 << 20) / piece.len());
        let mut stream = header();
        trailer(
            &mut stream,
            &format!("{{\"devices\": [{}]}}", wide.trim_end_matches(',')),
        );
        drop(within_limit(piece, &stream, &[], &strict()));
    }
}

#[test]
fn values_that_take_more_than_their_bytes() {
    let _alone = alone();
    // A byte of the stream becomes a struct with a value in it.
    let field = r#"{"name": "a", "array_len": 100000, "type": "struct", "struct": {"vmsd_name": "b", "version": 1, "fields": [{"name": "c", "type": "uint8", "size": 1}]}, "size": 1}"#;
    let mut stream = header();
    let mut entries = Vec::new();
    for id in 0..40 {
        let name = format!("dev{id}");
        full(&mut stream, id, &name, &vec![1; 100_000]);
        entries.push(format!(
            r#"{{"name": "{name}", "instance_id": 0, "vmsd_name": "dev", "version": 1, "fields": [{field}]}}"#
        ));
    }
    let text = format!(
        r#"{{"page_size": 4096, "devices": [{}]}}"#,
        entries.join(", ")
    );
    trailer(&mut stream, &text);
    refused("values", &stream, &[]);
    // Templates of structs that are described once and claimed many times.
    let holes = r#"{"name": "p", "array_len": 3, "type": "timer", "size": 8}, {"name": "p", "type": "nullptr", "size": 1}"#;
    let inner = format!(
        r#"{{"name": "a", "array_len": 2000, "type": "struct", "struct": {{"vmsd_name": "b", "version": 1, "fields": [{holes}]}}, "size": 25}}"#
    );
    let outer = format!(
        r#"{{"name": "o", "array_len": 2000, "type": "struct", "struct": {{"vmsd_name": "c", "version": 1, "fields": [{inner}]}}, "size": 50000}}"#
    );
    refused("templates", &device(&outer, &[1; 4096]), &[]);
}

#[test]
fn subsections_a_thousand_deep() {
    let _alone = alone();
    let mut entry = r#"{"vmsd_name": "dev", "version": 1, "fields": []}"#.to_owned();
    let mut payload = Vec::new();
    for depth in 0..1000 {
        entry = format!(
            r#"{{"vmsd_name": "dev", "version": 1, "fields": [], "subsections": [{entry}]}}"#
        );
        if depth > 0 {
            payload.extend(b"\x05\x03dev\0\0\0\x01");
        }
    }
    let mut stream = header();
    full(&mut stream, 1, "dev", &payload);
    trailer(
        &mut stream,
        &format!(
            r#"{{"page_size": 4096, "devices": [{{"name": "dev", "instance_id": 0, {}]}}"#,
            &entry[1..]
        ),
    );
    refused("subsections", &stream, &[]);
}

/// Block list of a START part: total size, then name and length of each block.
fn blocks(blocks: &[(&str, u64)]) -> Vec<u8> {
    let total: u64 = blocks
        .iter()
        .fold(0, |sum, (_, len)| sum.wrapping_add(*len));
    let mut out = (total | 4).to_be_bytes().to_vec();
    for (name, len) in blocks {
        out.push(u8::try_from(name.len()).unwrap());
        out.extend(name.as_bytes());
        out.extend(len.to_be_bytes());
    }
    out.extend(0x10_u64.to_be_bytes());
    out
}

#[test]
fn guest_memory_that_is_only_claimed() {
    let _alone = alone();
    for len in [1_u64 << 40, 1 << 62, !4095] {
        let mut stream = header();
        start(&mut stream, 1, 2, "ram", 4, &blocks(&[("pc.ram", len)]));
        stream.extend([0x7e, 0, 0, 0, 2, 0]);
        drop(within_limit("blocks", &stream, &[], &strict()));
    }
    // A block list that never ends.
    let mut many = (1_u64 << 40 | 4).to_be_bytes().to_vec();
    for index in 0..200_000_u32 {
        many.push(8);
        many.extend(format!("{index:08}").bytes());
        many.extend(4096_u64.to_be_bytes());
    }
    let mut stream = header();
    start(&mut stream, 1, 2, "ram", 4, &many);
    refused("many blocks", &stream, &[]);
    // A mapped-ram header that points beyond everything.
    let mut mapped = (1_u64 << 60 | 4).to_be_bytes().to_vec();
    mapped.extend(b"\x06pc.ram");
    mapped.extend((1_u64 << 60).to_be_bytes());
    mapped.extend([0, 0, 0, 1]);
    for word in [4096_u64, 1 << 59, 1 << 60] {
        mapped.extend(word.to_be_bytes());
    }
    let mut stream = header();
    stream.extend(
        b"\x07\0\0\0\x02pc\x05\x1aconfiguration/capabilities\0\0\0\x01\0\0\0\x01\x0amapped-ram",
    );
    start(&mut stream, 1, 2, "ram", 4, &mapped);
    refused("mapped-ram", &stream, &[]);
}

#[test]
fn more_sections_and_commands_than_anyone_has() {
    let _alone = alone();
    // Each takes a few bytes of the stream and more in a report.
    let mut stream = header();
    for id in 0..400_000_u32 {
        full(&mut stream, id, "x", &[]);
    }
    stream.push(0);
    drop(within_limit("sections", &stream, &[], &strict()));
    let mut stream = header();
    for _ in 0..2_000_000_u32 {
        stream.extend([8, 0, 3, 0, 0]);
    }
    stream.push(0);
    drop(within_limit("commands", &stream, &[], &strict()));
    let mut stream = header();
    start(&mut stream, 1, 2, "ram", 4, &blocks(&[("pc.ram", 1 << 30)]));
    stream.extend([0x7e, 0, 0, 0, 2]);
    for _ in 0..1_000_000_u32 {
        stream.extend(b"\x02\0\0\0\x02\0\0\0\0\0\0\0\x10\x7e\0\0\0\x02");
    }
    stream.push(0);
    drop(within_limit("parts", &stream, &[], &strict()));
}

/// The recorded migration over two compressed channels, as main stream and channels.
fn recorded(name: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams");
    let read = |part: &str| {
        let file = std::fs::File::open(dir.join(format!("{name}.{part}.bin.zst"))).unwrap();
        zstd::decode_all(file).unwrap()
    };
    (read("main"), vec![read("multifd0"), read("multifd1")])
}

#[test]
fn compressed_packets_that_burst() {
    let _alone = alone();
    let (main, mut channels) = recorded("pc-11.1-multifd2-zstd");
    let block = BlockName::new(b"pc.ram").unwrap();
    let zstd = zstd::encode_all(std::io::repeat(0).take(1 << 30), 19).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut std::io::repeat(0).take(256 << 20), &mut zlib).unwrap();
    let zlib = zlib.finish().unwrap();
    for (method, bomb) in [(Method::Zstd, zstd), (Method::Zlib, zlib)] {
        let header = PagesHeader {
            number: 0,
            block: &block,
            normal: &[0x3000],
            zero: &[],
            payload_len: bomb.len(),
        };
        let channel = &mut channels[0];
        channel.truncate(InitPacket::SIZE);
        PacketWriter::new(PageSize::KIB4, method)
            .pages_header(&header, channel)
            .unwrap();
        channel.extend(&bomb);
        let analysis = within_limit("bomb", &main, &channels, &strict());
        let failure = analysis.failure.unwrap().to_string();
        assert!(failure.contains("more bytes than announced"), "{failure}");
    }
}
