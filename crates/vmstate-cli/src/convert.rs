//! `vmstate convert`.

mod output;

use std::io::{self, BufWriter};

use vmstate_io::convert::{ConvertError, Options, Summary, convert};
use vmstate_io::inspect::InspectError;

use crate::args::{Convert, StreamFormat};
use crate::outcome::{Failure, Verdict, complain, explain, say};
use crate::source::{Source, options};

use output::Output;

impl From<StreamFormat> for vmstate_io::convert::Format {
    fn from(format: StreamFormat) -> Self {
        match format {
            StreamFormat::Qemu => Self::Qemu,
            StreamFormat::Ber => Self::Ber,
            StreamFormat::Json => Self::Json,
        }
    }
}

pub(crate) fn run(arguments: &Convert) -> Result<Verdict, Failure> {
    let mut source = Source::open_any(&arguments.input, &[], arguments.reading.start)?;
    let path = &arguments.output;
    let cannot = |e: &io::Error| {
        let path = if path.as_os_str() == "-" {
            "standard output".into()
        } else {
            path.display().to_string()
        };
        Failure::new(format!("cannot write {path}: {e}"))
    };
    let mut output = Output::open(path).map_err(|e| cannot(&e))?;
    let options = Options {
        reading: options(&arguments.reading)?,
        opaque: arguments.opaque_stream,
    };
    let to = arguments.to.into();
    let (result, unwritten) = {
        let mut writer = BufWriter::with_capacity(256 << 10, output.writer());
        let result = convert(&mut *source.main, &mut writer, to, &options);
        (result, writer.get_mut().failed.take())
    };
    if let Some(error) = unwritten {
        // A reader that has gone away is content with what it got.
        return match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(Verdict::Yes),
            _ => Err(cannot(&error)),
        };
    }
    match result {
        Ok(summary) => {
            output.keep().map_err(|e| cannot(&e))?;
            if !arguments.quiet {
                tell(&source.name, &summary, arguments.to);
            }
            Ok(Verdict::Yes)
        }
        Err(ConvertError::Qemu(InspectError::Write(e)) | ConvertError::Io(e)) => {
            Err(Failure::new(format!("{}: {e}", source.name)))
        }
        Err(ConvertError::Qemu(error)) => explain(&source.name, &error),
        Err(ConvertError::Ber(error)) => explain(&source.name, &InspectError::Ber(error)),
        Err(error @ ConvertError::Start) => {
            let failure = Failure::new(format!("{}: {error}", source.name));
            Err(failure.with_advice("leave --start out"))
        }
        Err(error) if !error.is_about_the_stream() => {
            Err(Failure::new(format!("{}: {error}", source.name)))
        }
        Err(error) => {
            complain(&format!("{}: {error}", source.name), None);
            Ok(Verdict::No)
        }
    }
}

/// Says on standard error what became of the stream.
fn tell(name: &str, summary: &Summary, to: StreamFormat) {
    let from = summary.from.map_or("?", vmstate_io::convert::Format::name);
    let to = vmstate_io::convert::Format::from(to).name();
    say(format_args!(
        "{name}: {from}, {} bytes, to {to}, {} bytes; {} devices converted",
        summary.read, summary.written, summary.devices
    ));
    if summary.ber_state > 0 {
        say(format_args!(
            "  state of devices: {} bytes in QEMU's form, {} in BER, and {} of types",
            summary.qemu_state, summary.ber_state, summary.types
        ));
    }
    for carried in &summary.carried {
        say(format_args!(
            "  carried as bytes: {}, {} bytes: {}",
            carried.section, carried.length, carried.reason
        ));
    }
}
