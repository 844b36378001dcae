//! Makes the seeds of the fuzz targets, `fuzz/seeds/TARGET/`, from the recorded streams and from the writers.
//!
//! ```text
//! cargo run -p vmstate-testkit --example seeds
//! ```

#![expect(clippy::unwrap_used, reason = "a tool that fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vmstate_ber::frame::{Coding, Frame, Hello, RamPages, Select};
use vmstate_ber::stream::MAGIC;
use vmstate_desc::{DynState, Limits, Scalar, ScalarType, Scalars, Value};
use vmstate_engine::RunState;
use vmstate_engine::{Capabilities, Capability, GuestMemory as _, Settings};
use vmstate_io::SliceInput;
use vmstate_io::convert::Format;
use vmstate_io::inspect::{Analysis, Content, Keep, Kind, Options, Section, analyze};
use vmstate_ram::dirty_bitmap::{ChunkWriter, StartFlags};
use vmstate_ram::mapped_ram::MappedBlock;
use vmstate_ram::multifd::{Compressor, InitPacket, Method, PacketWriter, PagesHeader};
use vmstate_ram::{
    BlockId, BlockName, Dialect, DirtyBitmap, Event, PageSize, RamParser, RamSection, Record, Step,
    WordOrder, put_received_bitmap, xbzrle,
};
use vmstate_schema::Schema;
use vmstate_spike::{Config, Machine, Program, RecorderConfig, guests, stream};
use vmstate_testkit::guest::{Form, Guest};
use vmstate_wire::helpers::put_blob;
use vmstate_wire::stream::{Configuration, ReturnMessage, put_bitmap, put_message, write};
use vmstate_wire::vmdesc::{Device, Trailer, Vmdesc};

/// Longest payload and trailer entry of a device that goes into a seed.
const SMALL: usize = 3000;
/// Seeds with devices of one recording.
const DEVICES: usize = 6;
/// Longest piece of anything else.
const PIECE: usize = 6000;

type Seeds = BTreeMap<&'static str, Vec<(String, Vec<u8>)>>;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut seeds = Seeds::new();
    let mut paths: Vec<PathBuf> = fs::read_dir(root.join("vectors/streams"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".main.bin.zst"))
        .collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let name = name.trim_end_matches(".main.bin.zst").to_owned();
        let bytes = zstd::decode_all(fs::File::open(&path).unwrap()).unwrap();
        from_recording(&mut seeds, &name, &bytes);
        let back = path.with_file_name(format!("{name}.main.return.bin.zst"));
        if let Ok(file) = fs::File::open(back) {
            let bytes = zstd::decode_all(file).unwrap();
            add(&mut seeds, "return_path", &name, &[&[5], cut(&bytes)]);
        }
    }
    written(&mut seeds);
    schemas(&mut seeds);
    late(&mut seeds);
    let mut total = 0;
    for (target, files) in seeds {
        let dir = root.join("fuzz/seeds").join(target);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in &files {
            total += bytes.len();
            fs::write(dir.join(name), bytes).unwrap();
        }
        println!("{target}: {} files", files.len());
    }
    println!("{total} bytes");
}

/// Documents of small machines, and values of descriptions that few bytes choose.
/// Machines in postcopy, in frames: whole, cut, and on another connection; with a channel of requested pages.
fn late(seeds: &mut Seeds) {
    let mut guest = Guest::new();
    for page in [1, 3] {
        guest
            .memory
            .copy_in(BlockId(0), page * 4096, &[7; 60])
            .unwrap();
    }
    let settings = Settings {
        capabilities: Capabilities::of(&[Capability::PostcopyRam]),
        ..Settings::default()
    };
    let departed = guest.depart(Form::Ber, &settings, |_| {}).unwrap();
    // A page of the second channel comes before the others.
    let mut page = MAGIC.to_vec();
    Frame::Hello(Hello::of_channel("x", *b"a small machine.", 1)).encode(&mut page);
    Frame::RamPages(RamPages {
        block: 0,
        first: 4,
        select: Select::Count(1),
        coding: Coding::Zero,
        data: None,
        zeros: None,
        named: false,
        checksum: false,
    })
    .encode(&mut page);
    let whole = [&departed.stream[..], &departed.rest].concat();
    let half = &departed.rest[..departed.rest.len() / 2];
    let half = [&departed.stream[..], half].concat();
    for (name, preempt, first, second) in [
        ("late-whole", &[][..], &whole, &[][..]),
        ("late-cut", &[], &departed.stream, &[]),
        ("late-recovered", &[], &half, &departed.again),
        ("late-preempt", &page, &half, &departed.again),
    ] {
        let lengths = [preempt, first, second].map(|part| be16(part.len()));
        let parts = [
            &[0xc3][..],
            &lengths[0],
            preempt,
            &lengths[1],
            first,
            &lengths[2],
            second,
        ];
        add(seeds, "incoming_ber", name, &parts);
    }
}

fn schemas(seeds: &mut Seeds) {
    let machine = Machine::new(Config::default()).unwrap();
    let registry = machine.registry().unwrap();
    let schema = vmstate_io::schema::of_registry(Some("spike"), &registry).unwrap();
    for (number, section) in schema.sections.iter().enumerate() {
        let description = schema.description(section.ty.unwrap()).unwrap();
        let one = Schema::of(Some("spike"), [&*description]).unwrap();
        let name = format!("spike-{number}");
        add(seeds, "schema", &name, &[cut(one.to_text().as_bytes())]);
    }
    for first in 0..32_u8 {
        let shape: Vec<u8> = (0..64_u8)
            .map(|i| i.wrapping_mul(37) ^ first.wrapping_mul(91))
            .collect();
        let mut bytes = arbitrary::Unstructured::new(&shape);
        let description = vmstate_testkit::shape::description(&mut bytes).unwrap();
        if description.check().is_err() {
            continue;
        }
        let version = description.version_id;
        let document = Schema::of(None, [&description]).unwrap();
        let mut state = DynState::from(description);
        let decoded =
            vmstate_wire::codec::decode(&mut state, version, &[0; 4096], Limits::default());
        if let (Ok(_), Ok(json)) = (decoded, vmstate_schema::value::to_json(&state)) {
            let name = format!("shape-{first}");
            let length = u16::try_from(shape.len()).unwrap().to_be_bytes();
            add(
                seeds,
                "value",
                &name,
                &[&length, &shape, json.to_string().as_bytes()],
            );
            add(
                seeds,
                "schema",
                &name,
                &[cut(document.to_text().as_bytes())],
            );
        }
    }
}

fn add(seeds: &mut Seeds, target: &'static str, name: &str, parts: &[&[u8]]) {
    let files = seeds.entry(target).or_default();
    files.push((name.to_owned(), parts.concat()));
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(PIECE)]
}

fn be16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

/// A section of the report with all its bytes, from its header to its footer.
fn bytes_of<'a>(stream: &'a [u8], section: &Section) -> (&'a [u8], &'a [u8]) {
    let start = usize::try_from(section.offset).unwrap();
    let body = start + 1 + 4 + 1 + section.idstr.len() + 4 + 4;
    let end = body + usize::try_from(section.length).unwrap();
    (&stream[start..end + 5], &stream[body..end])
}

fn from_recording(seeds: &mut Seeds, name: &str, stream: &[u8]) {
    let options = Options {
        keep: Keep::All,
        ..Options::default()
    };
    let analysis = analyze(&mut SliceInput::new(stream), &mut [], &options);
    let head = match analysis.report.sections.first() {
        Some(first) => &stream[..usize::try_from(first.offset).unwrap()],
        None => return,
    };
    if let Some(at) = head.get(8).filter(|byte| **byte == 7) {
        assert_eq!(*at, 7);
        add(seeds, "configuration", name, &[&head[9..], &[1]]);
    }
    let memory = memory(seeds, name, stream, &analysis);
    let text = analysis.report.trailer.map(|trailer| {
        let start = usize::try_from(trailer.offset).unwrap() + 5;
        &stream[start..start + usize::try_from(trailer.length).unwrap()]
    });
    let Some(trailer) = text.map(|text| Trailer::parse(text).unwrap()) else {
        return;
    };
    let small: Vec<(&Section, &Device<'_>)> = small(&analysis, &trailer).collect();
    for (index, (section, device)) in small.iter().take(DEVICES).enumerate() {
        let name = format!("{name}-{index}");
        let mut one = Vmdesc::new(trailer.dialect(), 4096);
        one.carried_device(&device.entry().to_text());
        let text = one.finish();
        let (whole, payload) = bytes_of(stream, section);
        add(
            seeds,
            "trailer",
            &name,
            &[&be16(text.len()), text.as_bytes(), payload],
        );
        if index < 2 {
            add(seeds, "json", &name, &[text.as_bytes()]);
            let behind = small[index + 1..]
                .first()
                .map_or(&[0][..], |(s, _)| bytes_of(stream, s).0);
            let footer = [&[0x7e, 0, 0, 0, 3][..], behind].concat();
            assert!(whole.len() >= payload.len());
            add(seeds, "infer", &name, &[&[8], payload, &footer]);
        }
    }
    for (index, some) in small.chunks(DEVICES).take(2).enumerate() {
        let mut whole = head.to_vec();
        whole.extend_from_slice(&memory);
        let mut vmdesc = Vmdesc::new(trailer.dialect(), 4096);
        for (section, device) in some {
            whole.extend_from_slice(bytes_of(stream, section).0);
            vmdesc.carried_device(&device.entry().to_text());
        }
        write::put_eof(&mut whole);
        let bare = whole.clone();
        write::put_trailer(&mut whole, vmdesc.finish().as_bytes()).unwrap();
        let name = format!("{name}-{index}");
        let (mut ber, options) = (Vec::new(), vmstate_io::convert::Options::default());
        let input = &mut SliceInput::new(&whole);
        vmstate_io::convert::convert(input, &mut ber, Format::Ber, &options).unwrap();
        add(seeds, "ber", &name, &[&[8], &ber]);
        add(seeds, "analyze", &name, &[&[0], &whole]);
        add(seeds, "stream", &name, &[&[0x40], &whole]);
        if index == 0 {
            add(seeds, "analyze", &format!("{name}-bare"), &[&[8], &bare]);
        }
    }
}

/// Devices that are small and of different kinds.
fn small<'a, 't>(
    analysis: &'a Analysis,
    trailer: &'a Trailer<'t>,
) -> impl Iterator<Item = (&'a Section, &'a Device<'t>)> {
    let sections = analysis.report.sections.iter();
    sections
        .filter(|s| {
            let described = matches!(s.content, Content::Described(_));
            described && s.kind == Kind::Full && s.length < SMALL as u64
        })
        .filter_map(|s| Some((s, trailer.device(&s.idstr, s.instance_id)?)))
        .filter(|(_, d)| d.entry().to_text().len() < SMALL)
}

/// A short `ram` section of a recording: setup, and a part with a few records.
fn memory(seeds: &mut Seeds, name: &str, stream: &[u8], analysis: &Analysis) -> Vec<u8> {
    let sections = &analysis.report.sections;
    let Some(section) = sections.iter().find(|s| s.idstr == "ram") else {
        return Vec::new();
    };
    let mapped = name.contains("mapped-ram");
    let configuration = analysis.report.configuration.as_ref();
    let page_size = match configuration.and_then(Configuration::target_page_bits) {
        Some(bits) => PageSize::from_bits(bits).unwrap(),
        None => PageSize::KIB4,
    };
    let mut parser = RamParser::new(Dialect {
        page_size,
        ..Dialect::lenient()
    });
    let start = usize::try_from(section.offset).unwrap();
    let body = start + 1 + 4 + 1 + 3 + 4 + 4;
    if mapped {
        let piece = &stream[body..body + 200];
        add(seeds, "ram", name, &[&[2], piece]);
        add(seeds, "analyze", name, &[&[0], &stream[..body + 200]]);
        return Vec::new();
    }
    parser.begin_section(RamSection::Start, 0).unwrap();
    let mut at = body;
    loop {
        let Step::Event { consumed, event } = parser.step(&stream[at..]).unwrap() else {
            panic!("a cut recording");
        };
        at += consumed;
        if event == Event::EndOfSection {
            break;
        }
    }
    let setup = &stream[body..at];
    let mut part = Vec::new();
    parser.begin_section(RamSection::Part, 0).unwrap();
    let mut record = at + 5 + 5;
    let mut kinds = BTreeMap::new();
    while let Ok(Step::Event { consumed, event }) = parser.step(&stream[record..]) {
        let take = match &event {
            Event::Record(r @ (Record::Page { page, .. } | Record::Zero { page, .. })) => {
                let seen: &mut u32 = kinds.entry(r.flag().bits()).or_default();
                *seen += 1;
                (page.named || part.is_empty()) && *seen < 40 && part.len() < 6000
            }
            Event::Record(r) => {
                let seen: &mut u32 = kinds.entry(r.flag().bits()).or_default();
                *seen += 1;
                *seen < 4
            }
            Event::MultifdFlush => true,
            _ => break,
        };
        if take {
            part.extend_from_slice(&stream[record..record + consumed]);
        }
        record += consumed;
    }
    let end = [0, 0, 0, 0, 0, 0, 0, 0x10];
    part.extend_from_slice(&end);
    add(seeds, "ram", name, &[&[0], setup, &part]);
    let id = section.section_id.to_be_bytes();
    [
        &stream[start..body],
        setup,
        &[0x7e],
        &id,
        &[2],
        &id,
        &part,
        &[0x7e],
        &id,
        &[3],
        &id,
        &end,
        &[0x7e],
        &id,
    ]
    .concat()
}

/// Seeds that need no recording.
fn written(seeds: &mut Seeds) {
    for (index, text) in [
        r#"{"a": 1, "a": [true, false, null, -9223372036854775808, 18446744073709551615], "\u00e9\ud83d\ude00\n": "x"}"#,
        "[[[[]]], {}, \"\", 0]",
        " {\"devices\": [], \"page_size\": 4096}\n",
    ]
    .into_iter()
    .enumerate()
    {
        add(seeds, "json", &format!("text-{index}"), &[text.as_bytes()]);
    }
    random(seeds);
    tiny(seeds);
    messages(seeds);
    monitors(seeds);
    states(seeds);
    differences(seeds);
    channels(seeds);
    places(seeds);
    chunks(seeds);
    dumps(seeds);
    machines(seeds);
    boards(seeds);
}

/// Guests of the built-in machine, as files, as instructions and as streams.
fn boards(seeds: &mut Seeds) {
    for (name, file) in [("counter", guests::COUNTER), ("console", guests::CONSOLE)] {
        add(seeds, "machine", &format!("program-{name}"), &[&[0], file]);
        let code = &file[0x1000..0x1200];
        add(seeds, "machine", &format!("code-{name}"), &[&[1], code]);
    }
    let machine = Machine::new(Config {
        ram: 4 << 20,
        program: Some(Program::parse(guests::CONSOLE).unwrap()),
        recorder: Some(RecorderConfig {
            bytes: 16 << 10,
            ..RecorderConfig::default()
        }),
        ..Config::default()
    })
    .unwrap();
    let mut bytes = Vec::new();
    stream::save(&machine, RunState::Running, &mut bytes).unwrap();
    add(seeds, "machine", "stream", &[&[2], &bytes]);
}

/// Descriptions have no form that could be recorded: bytes without meaning.
fn random(seeds: &mut Seeds) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut add_all = |name: String, bytes: &[u8]| {
        for target in ["device", "ber_value", "ber_moved"] {
            add(seeds, target, &name, &[bytes]);
        }
    };
    for index in 0..32 {
        let mut bytes = be16(60 + 4 * index).to_vec();
        while bytes.len() < 400 {
            let random = next();
            // Many small numbers.
            bytes.push(match random[1] & 7 {
                0 => random[7],
                _ => random[3] & 3,
            });
        }
        add_all(format!("random-{index:02}"), &bytes);
    }
    // Variants need many choices of one kind in front of them, and few payloads have one of their cases.
    let mut variants = 0;
    for shape in (40..160).cycle().take(200_000) {
        let chosen: Vec<u8> = (0..shape).map(|_| next()[3]).collect();
        let payload: Vec<u8> = (0..400).map(|_| next()[3] & 1).collect();
        if variants < 16 && has_loadable_variant(&chosen, &payload) {
            add_all(
                format!("variant-{variants:02}"),
                &[&be16(shape)[..], &chosen, &payload].concat(),
            );
            variants += 1;
        }
    }
    assert_eq!(variants, 16);
}

fn has_loadable_variant(shape: &[u8], payload: &[u8]) -> bool {
    let mut bytes = arbitrary::Unstructured::new(shape);
    let description = vmstate_testkit::shape::description(&mut bytes).unwrap();
    if description.check().is_err() || !vmstate_testkit::shape::has_variant(&description) {
        return false;
    }
    let version = description.version_id;
    let mut state = DynState::from(description);
    vmstate_wire::codec::decode(&mut state, version, payload, Limits::default()).is_ok()
}

/// A stream with two pages of memory and nothing else, of which digests are taken.
fn tiny(seeds: &mut Seeds) {
    let mut bytes = vec![2];
    write::put_header(&mut bytes);
    let footer: &[u8] = b"\x7e\0\0\0\x02";
    let end: &[u8] = b"\0\0\0\0\0\0\0\x10";
    let parts: [&[u8]; 14] = [
        b"\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04",
        b"\0\0\0\0\0\0\x20\x04\x03mem\0\0\0\0\0\0\x20\0",
        end,
        footer,
        b"\x02\0\0\0\x02",
        b"\0\0\0\0\0\0\0\x08\x03mem",
        &[7; 4096],
        b"\0\0\0\0\0\0\x10\x22\0",
        b"\0\0\0\0\0\0\0\x60\x01\0\x04\x05\x02\xaa\xbb",
        end,
        footer,
        b"\x03\0\0\0\x02",
        end,
        footer,
    ];
    bytes.extend_from_slice(&parts.concat());
    write::put_eof(&mut bytes);
    write::put_trailer(&mut bytes, br#"{"page_size": 4096, "devices": []}"#).unwrap();
    add(seeds, "analyze", "tiny", &[&bytes]);
}

fn messages(seeds: &mut Seeds) {
    let mut bytes = vec![9];
    let block = vmstate_wire::stream::BlockName::new("pc.ram").unwrap();
    put_message(&mut bytes, &ReturnMessage::RecvBitmap { block });
    put_bitmap(&mut bytes, &[0xff; 24]);
    put_message(&mut bytes, &ReturnMessage::Pong(7));
    put_message(&mut bytes, &ReturnMessage::Shut(0));
    add(seeds, "return_path", "bitmap", &[&bytes]);
}

/// Both sides of QMP dialogues, and URIs.
fn monitors(seeds: &mut Seeds) {
    let texts = [
        r#"{"execute":"qmp_capabilities"}{'execute':'migrate','arguments':{'uri':'tcp:[::1]:4,to=9'},'id':[1]}"#,
        r#"{"QMP":{"version":{"qemu":{"micro":3,"minor":1,"major":11},"package":""},"capabilities":["oob"]}}
        {"return":{},"id":1}{"timestamp":{"seconds":1,"microseconds":2},"event":"STOP"}"#,
        r#"{"transport":"socket","type":"unix","path":"/a"}"#,
        r#"{"a":[1,-2.5e3,true,null,"\ud83d\ude00\u0041\n"]} tru {"a" [} ]"#,
        "tcp:host:4444,ipv4=on,keep-alive",
        "file:/tmp/x,offset=1.5M",
        "exec:cat > /dev/null",
    ];
    for (index, text) in texts.iter().enumerate() {
        add(
            seeds,
            "qmp",
            &format!("text-{index}"),
            &[&[6], text.as_bytes()],
        );
    }
}

fn states(seeds: &mut Seeds) {
    let pairs: [(&[u8], &[u8]); 3] = [(b"alpha", b"abc"), (b"mid", b"\0xy"), (b"z", b"")];
    for count in 0..=pairs.len() {
        let mut blob = Vec::new();
        put_blob(&mut blob, &pairs[..count]).unwrap();
        add(
            seeds,
            "helpers",
            &format!("written-{count}"),
            &[&[0x23], &blob],
        );
        blob[3] += 1;
        add(
            seeds,
            "helpers",
            &format!("lost-{count}"),
            &[&[0xf9], &blob],
        );
    }
    let twice = b"\0\0\0\x02\0\0\0\x01a\0\0\0\x01x\0\0\0\x01a\0\0\0\0";
    add(seeds, "helpers", "twice", &[&[2], twice]);
}

fn differences(seeds: &mut Seeds) {
    let old: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let mut new = old.clone();
    for at in [0, 1, 2, 700, 4000, 4095] {
        new[at] ^= 0x55;
    }
    let mut delta = Vec::new();
    xbzrle::encode(&old, &new, &mut delta, 4096);
    add(seeds, "xbzrle", "delta", &[&[0], &delta]);
    add(
        seeds,
        "xbzrle",
        "pages",
        &[&[255], &old[..600], &new[..600]],
    );
    add(seeds, "xbzrle", "empty", &[&[0]]);
}

fn channels(seeds: &mut Seeds) {
    let page: Vec<u8> = (0..64).cycle().take(4096).collect();
    let block = BlockName::new(b"pc.ram").unwrap();
    let init = InitPacket {
        uuid: [7; 16],
        channel: 1,
    };
    for (byte, method) in [
        (0, Method::None),
        (2, Method::Zlib),
        (4, Method::Zstd),
        (6, Method::Qpl),
        (7, Method::Uadk),
    ] {
        let mut bytes = vec![byte | 8];
        bytes.extend_from_slice(&init.encode());
        let writer = PacketWriter::new(PageSize::KIB4, method);
        let mut compressor = Compressor::new(method, 1, PageSize::KIB4).unwrap();
        for number in 0..2 {
            let mut payload = Vec::new();
            compressor.compress(&[&page], &mut payload).unwrap();
            let header = PagesHeader {
                number,
                block: &block,
                normal: &[0x3000],
                zero: &[0x1000, 0x8000],
                payload_len: payload.len(),
            };
            writer.pages_header(&header, &mut bytes).unwrap();
            bytes.extend_from_slice(&payload);
        }
        writer.sync(2, &mut bytes);
        add(seeds, "multifd", &method.to_string(), &[&bytes]);
    }
}

fn places(seeds: &mut Seeds) {
    let mut bitmap = DirtyBitmap::new(70);
    bitmap.set_range(3..66);
    let used = 70 * 4096_u64;
    let (header, block) = MappedBlock::plan(4096, used, PageSize::KIB4).unwrap();
    let mut bits = Vec::new();
    bitmap.put_bytes(WordOrder::Little, &mut bits);
    let length = block.end().to_be_bytes();
    let parts: [&[u8]; 4] = [&header.encode(), &used.to_be_bytes(), &length, &bits];
    add(seeds, "mapped_ram", "block", &parts);
    let mut received = Vec::new();
    put_received_bitmap(&bitmap, &mut received);
    let parts: [&[u8]; 4] = [&header.encode(), &used.to_be_bytes(), &length, &received];
    add(seeds, "mapped_ram", "received", &parts);
}

fn chunks(seeds: &mut Seeds) {
    let mut writer = ChunkWriter::new();
    let mut bytes = vec![3];
    let (node, bitmap) = (b"disk0", b"backup");
    let flags = StartFlags::ENABLED | StartFlags::PERSISTENT;
    writer
        .start(node, bitmap, 65536, flags, &mut bytes)
        .unwrap();
    writer
        .bits(node, bitmap, 0, 4096, &[0x81; 40], &mut bytes)
        .unwrap();
    writer
        .bits(node, bitmap, 4096, 4096, &[0; 40], &mut bytes)
        .unwrap();
    writer.complete(node, bitmap, &mut bytes).unwrap();
    writer.end_of_section(&mut bytes);
    add(seeds, "dirty_bitmap", "section", &[&bytes]);
}

fn dumps(seeds: &mut Seeds) {
    let text = r#"{"vmschkmachine": {"Name": "toy-1.0"}, "toy": {"Name": "toy", "version_id": 2,
 "minimum_version_id": 1, "Description": {"name": "toy", "version_id": 2, "minimum_version_id": 1, "Fields": [
 {"field": "count", "version_id": 0, "field_exists": false, "size": 1},
 {"field": "data", "version_id": 0, "field_exists": false, "size": 2},
 {"field": "config", "version_id": 0, "field_exists": true, "size": 5},
 {"field": "late", "version_id": 2, "field_exists": false, "size": 1},
 {"field": "q", "version_id": 0, "field_exists": false, "num": 2, "size": 24, "Description": {"name": "toy-q",
 "version_id": 1, "minimum_version_id": 1, "Fields": [
 {"field": "head", "version_id": 0, "field_exists": false, "size": 2}]}}],
 "Subsections": [{"name": "toy/more", "version_id": 1, "minimum_version_id": 1, "Fields": [
 {"field": "x", "version_id": 0, "field_exists": false, "size": 8}]}]}}}"#;
    let payload = b"\x03\0\x01\0\x02\0\x03\xaa\xaa\xaa\xaa\xaa\x09\x12\x34\x56\x78\x05\x08toy/more\0\0\0\x01\0\0\0\0\0\0\0\x07";
    add(
        seeds,
        "dump",
        "toy",
        &[&be16(text.len()), text.as_bytes(), payload],
    );
}

/// Whole streams of a small machine, in the dialects of the target.
fn machines(seeds: &mut Seeds) {
    let dialects = [
        vmstate_wire::stream::Dialect::QEMU_11_1,
        vmstate_wire::stream::Dialect::QEMU_7_2,
        vmstate_wire::stream::Dialect::of_machine_version(2, 2),
    ];
    for (byte, dialect) in (0_u8..).zip(dialects) {
        let settings = Settings {
            dialect,
            ..Settings::default()
        };
        let mut guest = Guest::new();
        guest
            .memory
            .copy_in(BlockId(0), 4096, &[byte + 1; 100])
            .unwrap();
        for (device, field, value) in [
            (0, "word", Scalar::U32(0x1234_5678)),
            (1, "count", Scalar::U8(2)),
        ] {
            guest.devices[device].lock().unwrap().set(field, value);
        }
        let mut values = Scalars::new(ScalarType::U64);
        values.push(Scalar::U64(1));
        values.push(Scalar::U64(2));
        let mut rich = guest.devices[1].lock().unwrap();
        rich.set("values", Value::Scalars(values));
        drop(rich);
        let stream = guest.save(&settings).unwrap();
        let trailer = stream
            .windows(13)
            .rposition(|w| w == b"\"page_size\": ")
            .unwrap_or(stream.len());
        for (name, cut) in [("whole", stream.len()), ("cut", trailer)] {
            let name = format!("machine-{byte}-{name}");
            add(seeds, "incoming", &name, &[&[byte | 12], &stream[..cut]]);
        }
    }
}
