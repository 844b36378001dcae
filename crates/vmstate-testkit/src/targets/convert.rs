//! Streams from one format to another.

use std::io::{self, Write};

use vmstate_io::convert::{self, Format, Options};
use vmstate_io::{ReadInput, SliceInput, inspect};

use super::settings;

/// Memory for device state.
const MEMORY: u64 = 1 << 20;
/// Most bytes of what is converted: few bytes may stand for many zero pages, which are written one by one for QEMU.
const OUTPUT: usize = 64 << 20;

/// Bytes up to a limit.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > self.limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream of any format is converted. What came through is converted back, and is then the same at the second time: the bytes of
/// QEMU's stream, whatever way they took.
///
/// First byte: settings. Bit 0: from a pipe; bit 1: QEMU's stream as bytes.
///
/// # Panics
/// If what was converted cannot be converted again, or gives another stream.
pub fn convert(data: &[u8]) {
    let (setting, stream) = settings(data);
    let options = Options {
        reading: inspect::Options {
            memory: MEMORY,
            ..inspect::Options::default()
        },
        opaque: setting & 2 != 0,
    };
    let run = |bytes: &[u8], to: Format, options: &Options| {
        let limit = match to {
            Format::Qemu => OUTPUT,
            _ => 4 * OUTPUT,
        };
        let mut out = Capped {
            bytes: Vec::new(),
            limit,
        };
        let summary = if setting & 1 != 0 {
            convert::convert(&mut ReadInput::new(bytes), &mut out, to, options)
        } else {
            convert::convert(&mut SliceInput::new(bytes), &mut out, to, options)
        };
        summary.map(|_| out.bytes)
    };
    let Ok(qemu) = run(stream, Format::Qemu, &options) else {
        // Not every stream is QEMU's: what is wrong with it must be told.
        for to in [Format::Ber, Format::Json] {
            if let Err(error) = run(stream, to, &options) {
                let _ = error.to_string();
            }
        }
        return;
    };
    // Room for what the other forms take in between.
    let generous = Options {
        reading: inspect::Options {
            memory: 64 * MEMORY,
            ..inspect::Options::default()
        },
        opaque: options.opaque,
    };
    for to in [Format::Ber, Format::Json] {
        // A stream that was made of values may be none that can be read: its bytes go back as they are.
        let Ok(other) = run(&qemu, to, &generous) else {
            continue;
        };
        match run(&other, Format::Qemu, &generous) {
            Ok(again) => assert!(again == qemu, "another stream by way of {}", to.name()),
            Err(e) => panic!("converted to {}, and not back: {e}", to.name()),
        }
    }
}
