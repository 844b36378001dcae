//! `vmstate convert`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::NamedTempFile;
use vmstate_io::convert::{ConvertError, Options, Summary, convert};
use vmstate_io::inspect::InspectError;

use crate::args::{Convert, StreamFormat};
use crate::outcome::{Failure, Verdict, explain};
use crate::source::{Source, options};

impl From<StreamFormat> for vmstate_io::convert::Format {
    fn from(format: StreamFormat) -> Self {
        match format {
            StreamFormat::Qemu => Self::Qemu,
            StreamFormat::Ber => Self::Ber,
            StreamFormat::Json => Self::Json,
        }
    }
}

/// Where the converted stream goes. A file appears under its name when it is complete.
enum Output {
    Standard,
    /// Not a regular file: a pipe or a device.
    Opened(File),
    File(NamedTempFile),
}

impl Output {
    fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Standard);
        }
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return File::options().write(true).open(path).map(Self::Opened);
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        NamedTempFile::new_in(directory).map(Self::File)
    }

    fn writer(&mut self) -> Box<dyn Write + '_> {
        match self {
            Self::Standard => Box::new(io::stdout().lock()),
            Self::Opened(file) => Box::new(file),
            Self::File(file) => Box::new(file.as_file_mut()),
        }
    }

    fn keep(self, path: &Path) -> io::Result<()> {
        match self {
            Self::File(file) => {
                let file = file.persist(path).map_err(|e| e.error)?;
                // A temporary file is private; this one is as any other that the user makes.
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            }
            Self::Standard | Self::Opened(_) => Ok(()),
        }
    }
}

pub(crate) fn run(arguments: &Convert) -> Result<Verdict, Failure> {
    let mut source = Source::open(&arguments.input, &[], arguments.reading.start)?;
    let path = &arguments.output;
    let cannot = |e: &io::Error| Failure::new(format!("cannot write {}: {e}", path.display()));
    let mut output = Output::open(path).map_err(|e| cannot(&e))?;
    let options = Options {
        reading: options(&arguments.reading)?,
        opaque: arguments.opaque_stream,
    };
    let to = arguments.to.into();
    let result = {
        let mut writer = BufWriter::with_capacity(256 << 10, output.writer());
        convert(&mut *source.main, &mut writer, to, &options)
    };
    match result {
        Ok(summary) => {
            output.keep(path).map_err(|e| cannot(&e))?;
            if !arguments.quiet {
                tell(&source.name, &summary, arguments.to);
            }
            Ok(Verdict::Yes)
        }
        Err(ConvertError::Qemu(InspectError::Write(e)) | ConvertError::Io(e)) => {
            Err(Failure::new(format!("{}: {e}", source.name)))
        }
        Err(ConvertError::Qemu(error)) => explain(&source.name, &error),
        Err(error) if !error.is_about_the_stream() => {
            Err(Failure::new(format!("{}: {error}", source.name)))
        }
        Err(error) => {
            eprintln!("vmstate: {}: {error}", source.name);
            Ok(Verdict::No)
        }
    }
}

/// Says on standard error what became of the stream.
fn tell(name: &str, summary: &Summary, to: StreamFormat) {
    let from = summary.from.map_or("?", vmstate_io::convert::Format::name);
    let to = vmstate_io::convert::Format::from(to).name();
    eprintln!(
        "{name}: {from}, {} bytes, to {to}, {} bytes; {} devices converted",
        summary.read, summary.written, summary.devices
    );
    if summary.ber_state > 0 {
        eprintln!(
            "  state of devices: {} bytes in QEMU's form, {} in BER, and {} of types",
            summary.qemu_state, summary.ber_state, summary.types
        );
    }
    for carried in &summary.carried {
        eprintln!(
            "  carried as bytes: {}, {} bytes: {}",
            carried.section, carried.length, carried.reason
        );
    }
}
