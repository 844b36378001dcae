//! Guest RAM that travels as the bytes of a QEMU stream, because its pages have their places in a file.
//!
//! What is where is told by places in QEMU's stream. So that is made once more, and read as it comes.

use std::io::{BufWriter, Read};
use std::thread;

use super::report::{InspectError, Ram};
use super::{Keep, Options};
use crate::convert::{self, Format, convert};
use crate::input::{Input, ReadInput};

/// What guest RAM holds, in a stream of VM state over BER that can be read again. None: it cannot. `page_size` is what the stream
/// says.
pub(super) fn look(
    input: &mut dyn Input,
    options: &Options,
    page_size: u64,
) -> Result<Option<Ram>, InspectError> {
    if input.len().is_none() {
        return Ok(None);
    }
    let (reader, writer) = std::io::pipe()?;
    let reading = Options {
        keep: Keep::None,
        verify: false,
        start: 0,
        // In a pipe the trailer says it too late. What is usual may be what nobody has said.
        page_size: options
            .page_size
            .or((page_size != 4096).then_some(page_size)),
        // What is held for one of them is not held for the other.
        memory: options.memory / 2,
        ..options.clone()
    };
    thread::scope(|scope| {
        let qemu = thread::Builder::new().name("mapped RAM".to_owned());
        let qemu = qemu.spawn_scoped(scope, || {
            super::analyze(&mut ReadInput::new(reader), &mut [], &reading)
        })?;
        let mut again = ReadInput::new(Again {
            input,
            at: options.start,
        });
        let mut writer = BufWriter::with_capacity(256 << 10, writer);
        let options = convert::Options {
            reading: reading.clone(),
            opaque: false,
        };
        let converted = convert(&mut again, &mut writer, Format::Qemu, &options);
        drop(writer);
        let Ok(analysis) = qemu.join() else {
            let what = "the thread that reads guest RAM has panicked";
            return Err(std::io::Error::other(what).into());
        };
        // Where reading stops early, writing fails, and reading knows why.
        match (analysis.failure, converted) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) => Err(error.into()),
            (None, Ok(_)) => Ok(Some(analysis.report.ram)),
        }
    })
}

/// An input from a place on, once more.
struct Again<'a> {
    input: &'a mut dyn Input,
    at: u64,
}

impl Read for Again<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read_at(self.at, out)?;
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}
