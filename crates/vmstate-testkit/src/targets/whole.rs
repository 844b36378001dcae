//! Whole files.

use std::io;
use std::sync::Arc;

use vmstate_io::diff::{RamComparison, compare};
use vmstate_io::inspect::{self, Analysis, Options};
use vmstate_io::render::{self, View};
use vmstate_io::{Input, ReadInput, SliceInput};
use vmstate_wire::dump::Dump;

use super::device::two_parts;
use super::settings;

/// Memory for device state and for guest RAM.
const MEMORY: u64 = 1 << 20;

/// A whole stream is walked with all checks, from a file and from a pipe, shown, compared with itself, and written again.
///
/// First byte: settings. If bit 0 is set, be32 length of the main channel; main channel, further channel.
///
/// # Panics
/// If a stream differs from itself, or one without fault has a fault after being written again.
pub fn analyze(data: &[u8]) {
    let (byte, mut main) = settings(data);
    let mut other = None;
    if byte & 1 != 0
        && let Some((length, rest)) = main.split_first_chunk()
    {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (first, second) = rest.split_at(length.min(rest.len()));
        main = first;
        other = Some(second);
    }
    let options = Options {
        memory: MEMORY,
        ram_memory: MEMORY,
        digest_length: 16 * MEMORY,
        digest: byte & 2 != 0,
        verify: byte & 4 == 0,
        ..Options::default()
    };
    let file = walk(&mut SliceInput::new(main), other, &options);
    let pipe = walk(&mut ReadInput::new(main), other, &options);
    let mut view = View {
        name: "stream".to_owned(),
        pages: true,
        offsets: true,
        all: byte & 8 != 0,
        ..View::default()
    };
    for analysis in [&file, &pipe] {
        view.colour = !view.colour;
        let shown = [
            render::json::inspection(analysis, &view, io::sink()),
            render::json::verification(analysis, &view, io::sink()),
            render::text::inspection(analysis, &view, &mut io::sink()),
            render::text::verification(analysis, &view, &mut io::sink()),
        ];
        assert!(shown.iter().all(Result::is_ok), "a sink takes everything");
        if let Some(failure) = &analysis.failure {
            let _ = (failure.to_string(), render::advice(failure));
        }
    }
    let report = &file.report;
    compare(report, report, RamComparison::Digest, &mut |difference| {
        panic!("differs from itself: {difference:?}");
    });
    // Only QEMU's streams are written again.
    if other.is_none() && file.is_clean() && !vmstate_ber::stream::is_stream(main) {
        let mut again = Vec::new();
        let written = inspect::rewrite(&mut SliceInput::new(main), &mut again, &options);
        assert!(written.is_ok(), "{written:?}");
        let second = walk(&mut SliceInput::new(&again), None, &options);
        assert!(
            second.is_clean(),
            "{:?} {:?}",
            second.failure,
            second.report.problems
        );
        compare(
            report,
            &second.report,
            RamComparison::Digest,
            &mut |difference| {
                panic!("written with a difference: {difference:?}");
            },
        );
    }
}

fn walk(main: &mut dyn Input, other: Option<&[u8]>, options: &Options) -> Analysis {
    let mut channels: Vec<Box<dyn Input + '_>> = Vec::new();
    if let Some(other) = other {
        channels.push(Box::new(SliceInput::new(other)));
    }
    inspect::analyze(main, &mut channels, options)
}

/// A section is read by a `-dump-vmstate` file.
///
/// be16 length of the file's text, text, payload.
pub fn dump(data: &[u8]) {
    let (text, payload) = two_parts(data);
    let Ok(dump) = Dump::parse(text) else {
        return;
    };
    for device in dump.devices.iter().take(4) {
        let description = &device.description;
        let _ = dump.decode(&description.name, description.version_id, payload);
    }
    let options = Options {
        memory: MEMORY,
        describe: Some(Arc::new(dump)),
        ..Options::default()
    };
    let _ = walk(&mut SliceInput::new(payload), None, &options);
}
