//! Streams that are cut, bent or lie: an error that says where, never a panic.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use vmstate_ber::frame::{
    Coding, Frame, Hello, MAX_ZERO_PAGES, Mark, Phase, PhaseName, RamBlock, RamBlocks, RamMark,
    RamPages, Select, Status,
};
use vmstate_ber::stream::Writer;
use vmstate_io::convert::{self, Format};
use vmstate_io::inspect::{Analysis, InspectError, Options, analyze};
use vmstate_io::{ReadInput, SliceInput};
use vmstate_wire::stream::write;

/// The recorded `spike` stream, with its RAM thinned out to a few records so that it can be walked thousands of times.
fn small_stream() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/spike-11.1.bin");
    let full = fs::read(path).unwrap();
    // The second section, `02 00 00 00 01`, holds the page records.
    let part = find(&full, b"\x7e\0\0\0\x01\x02\0\0\0\x01") + 10;
    let end = find(&full, b"\x08\0\x0b\0\0\x03\0\0\0\x01") - 13;
    let mut out = full[..part].to_vec();
    out.extend(0x0008_u64.to_be_bytes());
    out.extend(b"\x0friscv.spike.ram");
    out.extend([0xa5; 4096]);
    out.extend(0x1022_u64.to_be_bytes());
    out.push(0);
    out.extend(&full[end..]);
    out
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap()
}

fn run(bytes: &[u8], pipe: bool) -> Analysis {
    let options = Options {
        verify: true,
        memory: 4 << 20,
        ram_memory: 64 << 20,
        ..Options::default()
    };
    if pipe {
        analyze(&mut ReadInput::new(bytes), &mut [], &options)
    } else {
        analyze(&mut SliceInput::new(bytes), &mut [], &options)
    }
}

#[test]
fn the_stream_itself_is_fine() {
    let stream = small_stream();
    for pipe in [false, true] {
        let analysis = run(&stream, pipe);
        assert!(
            analysis.is_clean(),
            "{:?} {:?}",
            analysis.failure,
            analysis.report.problems
        );
        assert_eq!(analysis.report.ram.pages.normal, 1);
        assert_eq!(analysis.report.ram.pages.zero, 1);
    }
}

#[test]
fn cut_anywhere_it_says_where_the_stream_ends() {
    let stream = small_stream();
    let end_mark = find(&stream, b"\0\x06\0\0") + 1;
    let step = if cfg!(debug_assertions) { 7 } else { 1 };
    for cut in (0..stream.len()).step_by(step) {
        for pipe in [false, true] {
            let analysis = run(&stream[..cut], pipe);
            if cut == end_mark {
                assert!(
                    analysis.failure.is_none(),
                    "a stream may end without a trailer"
                );
                continue;
            }
            let failure = analysis.failure.unwrap_or_else(|| panic!("cut at {cut}"));
            let text = failure.to_string();
            assert!(text.contains("stream ends inside"), "cut at {cut}: {text}");
        }
    }
}

#[test]
fn bent_anywhere_it_neither_panics_nor_forgets() {
    let stream = small_stream();
    let mut noticed = 0;
    let mut state = 0x9e37_79b9_u64;
    for _ in 0..3000 {
        // xorshift: which byte, and how it is bent.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut bent = stream.clone();
        let at = usize::try_from(state % stream.len() as u64).unwrap();
        bent[at] ^= u8::try_from(state >> 32 & 0xff).unwrap().max(1);
        for pipe in [false, true] {
            noticed += u32::from(!run(&bent, pipe).is_clean());
        }
    }
    // Most bytes are values that may be anything; framing, names and the trailer are not.
    assert!(noticed > 1000, "{noticed}");
}

fn refused(bytes: &[u8], expected: &str) {
    for pipe in [false, true] {
        let text = match run(bytes, pipe).failure {
            Some(failure) => failure.to_string(),
            None => panic!("accepted, but expected: {expected}"),
        };
        assert!(text.contains(expected), "{text}\nexpected: {expected}");
    }
}

#[test]
fn lies_are_refused_by_name() {
    let stream = small_stream();
    let edit = |at: usize, bytes: &[u8]| {
        let mut bent = stream.clone();
        bent[at..at + bytes.len()].copy_from_slice(bytes);
        bent
    };
    let page = find(&stream, b"\x0friscv.spike.ram\xa5");
    // A page beyond its block.
    refused(
        &edit(page - 8, &0x0100_0000_0008_u64.to_be_bytes()),
        "riscv.spike.ram",
    );
    // A block that nobody declared.
    refused(&edit(page + 1, b"xiscv"), "xiscv.spike.ram");
    // A word that is no record.
    refused(&edit(page - 8, &0x0009_u64.to_be_bytes()), "FULL | PAGE");
    // A wrong footer. The first one tells whether the stream has footers at all.
    let first = find(&stream, b"\x7e\0\0\0\x01");
    refused(&edit(first, &[0x7f]), "0x7f");
    let footer = first + 5 + find(&stream[first + 5..], b"\x7e\0\0\0\x01");
    refused(&edit(footer, &[0x7f]), "footer");
    refused(&edit(footer + 4, &[9]), "footer");
    // A piece of a section that was never started.
    refused(&edit(first + 9, &[0x77]), "119");
    // A command with a number or a length that does not exist.
    let command = find(&stream, b"\x08\0\x0b\0\0");
    refused(&edit(command + 2, &[0xee]), "command");
    refused(&edit(command + 4, &[1]), "command");
    // The configuration's name longer than the stream.
    refused(&edit(9, &[0xff; 4]), "machine name");
    // Not a stream at all, and an old one.
    refused(b"GIF89a..", "magic");
    refused(b"QEVM\0\0\0\x02", "version");
}

#[test]
fn two_sections_with_one_id_are_refused() {
    let mut stream = small_stream();
    // `cpu_common` takes the id of `timer`.
    let header = find(&stream, b"\x0acpu_common") - 4;
    stream[header..header + 4].copy_from_slice(&[0, 0, 0, 0]);
    let failure = run(&stream, false).failure.unwrap().to_string();
    assert!(
        failure.contains("cpu_common") && failure.contains("timer"),
        "{failure}"
    );
    // In a pipe the end of the first has to be inferred, and a header that cannot be is no evidence for it.
    assert!(run(&stream, true).failure.is_some());
}

#[test]
fn device_state_is_bounded() {
    let mut stream = Vec::new();
    write::put_header(&mut stream);
    stream.extend([4, 0, 0, 0, 1, 1, b'x', 0, 0, 0, 0, 0, 0, 0, 1]);
    stream.resize(16 << 20, 0xaa);
    for pipe in [false, true] {
        let failure = run(&stream, pipe).failure.unwrap();
        assert!(matches!(failure, InspectError::Limit { .. }), "{failure}");
    }
}

/// A file with a block of 4 PiB, and so many frames that say of so many of its pages that they are zero.
fn zeros(frames: u64, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&Hello::of_file("test", Vec::new()), &mut out);
    let length = 1 << 52;
    writer.frame(&Frame::Phase(Phase::new(PhaseName::Setup)), &mut out);
    let block = RamBlock {
        id: 0,
        idstr: "pc.ram".to_owned(),
        length,
        page_size: None,
        addr: None,
    };
    let blocks = RamBlocks {
        section_id: 2,
        total: length,
        blocks: vec![block],
        page_bits: 12,
    };
    writer.frame(&Frame::RamBlocks(blocks), &mut out);
    for number in 0..frames {
        let pages = RamPages {
            block: 0,
            first: number * count,
            select: Select::Count(count),
            coding: Coding::Zero,
            data: None,
            zeros: None,
            named: false,
            checksum: false,
        };
        writer.frame(&Frame::RamPages(pages), &mut out);
    }
    let (section_id, mark) = (2, Mark::Close);
    writer.frame(&Frame::RamMark(RamMark { section_id, mark }), &mut out);
    writer.frame(&Frame::Phase(Phase::new(PhaseName::Complete)), &mut out);
    writer.end(Status::Complete, &mut out);
    out
}

#[test]
fn pages_without_content_take_no_time_to_count() {
    // 2^37 pages: who looks at each of them does not come to an end.
    let analysis = run(&zeros(1 << 17, MAX_ZERO_PAGES), false);
    assert!(analysis.is_clean(), "{:?}", analysis.failure);
    assert_eq!(analysis.report.ram.pages.zero, 1 << 37);
}

#[test]
fn a_frame_of_pages_without_content_is_bounded() {
    let far = zeros(1, MAX_ZERO_PAGES + 1);
    let error = run(&far, false).failure.unwrap().to_string();
    assert!(error.contains("pages of a frame"), "{error}");
    let mut out = Vec::new();
    let options = convert::Options::default();
    let error = convert::convert(&mut SliceInput::new(&far), &mut out, Format::Qemu, &options);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("pages of a frame"), "{error}");
}

#[test]
fn runs_of_zeros_longer_than_a_frame_are_split() {
    let options = convert::Options::default();
    let mut forms = vec![zeros(3, MAX_ZERO_PAGES - 1)];
    for to in [Format::Qemu, Format::Ber, Format::Qemu] {
        let mut out = Vec::new();
        let input = forms.last().unwrap();
        convert::convert(&mut SliceInput::new(input), &mut out, to, &options).unwrap();
        forms.push(out);
    }
    assert_eq!(forms[1], forms[3]);
    assert_eq!(
        run(&forms[2], false).report.ram.pages.zero,
        3 * (MAX_ZERO_PAGES - 1)
    );
}
