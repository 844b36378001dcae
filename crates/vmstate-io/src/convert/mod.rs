//! Converting streams between formats, without loss.
//!
//! Every format is read by a source and written by a sink; between them go the elements of a stream: headers, commands, records of guest
//! RAM, and devices as description and values. What is written is checked on the way: a device whose values do not give its bytes again
//! is carried as bytes.
//!
//! QEMU's stream to BER and back gives the same bytes, from files and from pipes, in bounded memory.

pub(crate) mod configuration;
mod from_ber;
mod helpers;
mod json;
mod pages;
mod report;
mod to_ber;
mod to_qemu;

use std::io::Write;

use vmstate_ber::stream::is_stream;

pub(crate) use from_ber::KNOWN;
pub use report::{ConvertError, Summary};
pub(crate) use to_ber::{dialect_name, note};

use crate::input::{Input, SliceInput};
use crate::inspect::{self, InspectError, Keep, Sink};
use from_ber::BerSource;
use json::JsonSink;
use to_ber::BerSink;
use to_qemu::QemuSink;

/// A format of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// QEMU's migration stream.
    Qemu,
    /// VM state over BER.
    Ber,
    /// JSON: devices as values, all else as hex digits.
    Json,
}

impl Format {
    /// The format of a stream, by its first bytes.
    ///
    /// # Errors
    /// What reading gives.
    pub fn detect(input: &mut dyn Input) -> std::io::Result<Self> {
        let bytes = input.peek(vmstate_ber::stream::MAGIC.len())?;
        Ok(if is_stream(bytes) {
            Self::Ber
        } else if json::is_json(bytes) {
            Self::Json
        } else {
            Self::Qemu
        })
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Ber => "ber",
            Self::Json => "json",
        }
    }
}

/// How to convert.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How to read a QEMU stream, and how much memory device state may take.
    pub reading: inspect::Options,
    /// Do not look into a QEMU stream: carry it as bytes.
    pub opaque: bool,
}

/// Converts a stream. The format of `input` is found out from its first bytes.
///
/// A trailer at the end of a file is read first. In a pipe it comes last: what it describes is held back until then, within
/// the memory of [`Options::reading`].
///
/// # Errors
/// What is wrong with the stream, and what reading and writing give. What was written until then is a beginning.
///
/// ```
/// use vmstate_io::SliceInput;
/// use vmstate_io::convert::{Format, Options, convert};
/// use vmstate_wire::stream::write;
///
/// let mut stream = Vec::new();
/// write::put_header(&mut stream);
/// write::put_eof(&mut stream);
///
/// let (mut ber, mut again) = (Vec::new(), Vec::new());
/// let options = Options::default();
/// convert(&mut SliceInput::new(&stream), &mut ber, Format::Ber, &options)?;
/// convert(&mut SliceInput::new(&ber), &mut again, Format::Qemu, &options)?;
/// assert_eq!(again, stream);
/// # Ok::<(), vmstate_io::convert::ConvertError>(())
/// ```
pub fn convert(
    input: &mut dyn Input,
    out: &mut dyn Write,
    to: Format,
    options: &Options,
) -> Result<Summary, ConvertError> {
    inspect::pass_over(input, &options.reading)?;
    let from = Format::detect(input)?;
    if from == to && from != Format::Qemu {
        return Err(ConvertError::SameFormat);
    }
    if from == Format::Json && options.reading.start > 0 {
        return Err(ConvertError::Start);
    }
    if from == Format::Json {
        return from_json(input, out, to, options);
    }
    let mut sink = Target::new(out, to, options)?;
    match from {
        Format::Qemu => from_qemu(input, options, &mut sink)?,
        _ => BerSource::new(options).run(input, sink.as_sink())?,
    }
    let mut summary = sink.finish()?;
    summary.from = Some(from);
    summary.read = input.position();
    Ok(summary)
}

/// Reads a stream of VM state over BER and gives everything to `sink`.
pub(crate) fn read_ber(
    input: &mut dyn Input,
    reading: &inspect::Options,
    sink: &mut dyn Sink,
) -> Result<(), ConvertError> {
    let options = Options {
        reading: reading.clone(),
        opaque: false,
    };
    BerSource::new(&options).looks_only().run(input, sink)
}

/// JSON holds the bytes of QEMU's stream, or the values that give them.
fn from_json(
    input: &mut dyn Input,
    out: &mut dyn Write,
    to: Format,
    options: &Options,
) -> Result<Summary, ConvertError> {
    let mut stream = Vec::new();
    let devices = json::to_qemu(input, &mut stream, options.reading.memory)?;
    let mut summary = if to == Format::Qemu {
        out.write_all(&stream)?;
        out.flush()?;
        Summary {
            devices,
            written: stream.len() as u64,
            ..Summary::default()
        }
    } else {
        convert(&mut SliceInput::new(&stream), out, to, options)?
    };
    summary.from = Some(Format::Json);
    summary.read = input.position();
    Ok(summary)
}

/// The sink of a format.
enum Target<'w> {
    Qemu(Box<QemuSink<'w>>),
    Ber(Box<BerSink<'w>>),
    Json(Box<JsonSink<'w>>),
}

impl<'w> Target<'w> {
    fn new(out: &'w mut dyn Write, to: Format, options: &Options) -> Result<Self, ConvertError> {
        Ok(match to {
            Format::Qemu => Self::Qemu(Box::new(QemuSink::new(out))),
            Format::Ber => Self::Ber(Box::new(BerSink::new(out, options.reading.memory / 4)?)),
            Format::Json => Self::Json(Box::new(JsonSink::new(out, options.reading.memory)?)),
        })
    }

    fn as_sink(&mut self) -> &mut dyn Sink {
        match self {
            Self::Qemu(sink) => &mut **sink,
            Self::Ber(sink) => &mut **sink,
            Self::Json(sink) => &mut **sink,
        }
    }

    fn finish(self) -> Result<Summary, ConvertError> {
        match self {
            Self::Qemu(sink) => sink.finish(),
            Self::Ber(sink) => sink.finish(),
            Self::Json(sink) => sink.finish(),
        }
    }
}

/// Bytes that are copied at a time.
const PIECE: usize = 256 << 10;

fn from_qemu(
    input: &mut dyn Input,
    options: &Options,
    target: &mut Target<'_>,
) -> Result<(), ConvertError> {
    if !options.opaque {
        let reading = inspect::Options {
            keep: Keep::None,
            digest: false,
            verify: false,
            // The other half is for devices as they are written, and read again for proof.
            memory: options.reading.memory / 2,
            ..options.reading.clone()
        };
        if let Target::Ber(sink) = target {
            sink.reads_file(input.len().is_some());
        }
        let analysis = inspect::follow(input, &reading, target.as_sink())?;
        if let Some(failure) = analysis.failure {
            return Err(failure.into());
        }
    }
    // What stands behind the stream, or all of it.
    loop {
        let bytes = input.peek(PIECE)?;
        let count = bytes.len().min(PIECE);
        if count == 0 {
            return Ok(());
        }
        target
            .as_sink()
            .verbatim(bytes.get(..count).unwrap_or_default())?;
        input.consume(count as u64)?;
    }
}

/// An error of the writing side.
fn refused(error: impl std::error::Error + Send + Sync + 'static) -> InspectError {
    InspectError::Write(std::io::Error::other(error))
}
