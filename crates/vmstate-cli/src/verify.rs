//! `vmstate verify`.

use std::io::{self, BufWriter, Write};

use vmstate_io::inspect::{Keep, Options, analyze};
use vmstate_io::render::{View, json, text};

use crate::args::{Format, Verify};
use crate::inspect::has_colours;
use crate::outcome::{Failure, Verdict, explain, written};
use crate::source::{Source, options};

pub(crate) fn run(arguments: &Verify) -> Result<Verdict, Failure> {
    let mut source = Source::open(
        &arguments.stream.file,
        &arguments.stream.channels,
        arguments.reading.start,
    )?;
    let options = Options {
        verify: true,
        keep: Keep::None,
        ..options(&arguments.reading)?
    };
    let analysis = analyze(&mut *source.main, &mut source.channels, &options);
    drop(source.main);
    let format = arguments.output.format;
    let view = View {
        name: source.name,
        colour: format == Format::Text && has_colours(),
        ..View::default()
    };
    let verdict = match &analysis.failure {
        // What could not be asked has no answer.
        Some(failure) => explain(&view.name, failure)?,
        None if analysis.is_clean() => Verdict::Yes,
        None => Verdict::No,
    };
    let out = io::stdout().lock();
    written(match format {
        Format::Json => json::verification(&analysis, &view, out),
        Format::Text => {
            let mut out = BufWriter::new(out);
            text::verification(&analysis, &view, &mut out).and_then(|()| out.flush())
        }
    })?;
    Ok(verdict)
}
