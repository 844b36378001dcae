//! `vmstate inspect`.

use std::io::{self, BufWriter, IsTerminal, Write};

use vmstate_io::inspect::{Keep, Options, analyze};
use vmstate_io::render::{View, json, text};

use crate::args::{Format, Inspect, RamDetail};
use crate::outcome::{Failure, Verdict, complain, explain, written};
use crate::source::{Source, options};

pub(crate) fn run(arguments: &Inspect) -> Result<Verdict, Failure> {
    let mut source = Source::open(
        &arguments.stream.file,
        &arguments.stream.channels,
        arguments.reading.start,
    )?;
    let keep = arguments.section.clone().map_or(Keep::All, Keep::Matching);
    let options = Options {
        digest: arguments.ram.contains(&RamDetail::Digest),
        keep: keep.clone(),
        ..options(&arguments.reading)?
    };
    let analysis = analyze(&mut *source.main, &mut source.channels, &options);
    drop(source.main);
    let format = arguments.output.format;
    let view = View {
        name: source.name,
        sections: keep,
        pages: arguments.ram.contains(&RamDetail::Pages),
        offsets: arguments.offsets,
        all: arguments.all,
        colour: format == Format::Text && has_colours(),
    };
    let verdict = match &analysis.failure {
        // What could not be asked has no answer.
        Some(failure) => explain(&view.name, failure)?,
        None if analysis.is_clean() => Verdict::Yes,
        None => Verdict::No,
    };
    if let Some(pattern) = &arguments.section {
        let mut sections = analysis.report.sections.iter();
        if !sections.any(|section| view.sections.wants(&section.idstr)) {
            complain(
                &format!("{}: no section matches {pattern}", view.name),
                Some("leave --section out to see all: * stands for anything, ? for one character"),
            );
        }
    }
    let out = io::stdout().lock();
    written(match format {
        Format::Json => json::inspection(&analysis, &view, out),
        Format::Text => {
            let mut out = BufWriter::with_capacity(64 << 10, out);
            text::inspection(&analysis, &view, &mut out).and_then(|()| out.flush())
        }
    })?;
    std::mem::forget(analysis);
    Ok(verdict)
}

/// Whether standard output is a terminal on which colours are welcome.
pub(crate) fn has_colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
        || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    !unwanted && io::stdout().is_terminal()
}
