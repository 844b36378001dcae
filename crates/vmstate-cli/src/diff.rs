//! `vmstate diff`.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use vmstate_io::diff::{RamComparison, compare};
use vmstate_io::inspect::{Analysis, Options, analyze};
use vmstate_io::render::{json, text};

use crate::args::{self, Diff, Format};
use crate::inspect::has_colours;
use crate::outcome::{Failure, Verdict, complain, explain, written};
use crate::source::{Source, options};

pub(crate) fn run(arguments: &Diff) -> Result<Verdict, Failure> {
    let Diff { a, b, .. } = arguments;
    if a.as_os_str() == "-" && b.as_os_str() == "-" {
        return Err(Failure::new("both streams cannot come from standard input")
            .with_advice("write one of them to a file first"));
    }
    let ram = match arguments.ram {
        args::RamComparison::None => RamComparison::None,
        args::RamComparison::Summary => RamComparison::Summary,
        args::RamComparison::Digest => RamComparison::Digest,
    };
    let options = Options {
        digest: ram == RamComparison::Digest,
        ..options(&arguments.reading)?
    };
    let a = Side::read(a, &arguments.channels_a, &options)?;
    let b = Side::read(b, &arguments.channels_b, &options)?;
    let out = io::stdout().lock();
    let compared = match arguments.output.format {
        Format::Json => {
            let mut lines = json::Differences::new(out, &a.name, &b.name);
            let compared = compare(&a.analysis.report, &b.analysis.report, ram, &mut |d| {
                lines.tell(d);
            });
            let errors = [a.error(), b.error()];
            let errors = [errors[0].as_deref(), errors[1].as_deref()];
            written(lines.finish(&compared, errors))?;
            compared
        }
        Format::Text => {
            let out = BufWriter::new(out);
            let mut lines = text::Differences::new(out, has_colours(), arguments.all);
            let compared = compare(&a.analysis.report, &b.analysis.report, ram, &mut |d| {
                lines.tell(d);
            });
            let complete = a.verdict == Verdict::Yes && b.verdict == Verdict::Yes;
            written(lines.finish(&compared, complete))?;
            compared
        }
    };
    if compared.differences == 0 && a.verdict == Verdict::Yes && b.verdict == Verdict::Yes {
        Ok(Verdict::Yes)
    } else {
        Ok(Verdict::No)
    }
}

/// One of the two streams.
struct Side {
    name: String,
    analysis: Analysis,
    /// Whether it could be read to its end.
    verdict: Verdict,
}

impl Side {
    fn read(file: &Path, channels: &[PathBuf], options: &Options) -> Result<Self, Failure> {
        let mut source = Source::open(file, channels, options.start)?;
        let analysis = analyze(&mut *source.main, &mut source.channels, options);
        let name = source.name;
        drop(source.main);
        let verdict = match &analysis.failure {
            Some(failure) => explain(&name, failure)?,
            None => Verdict::Yes,
        };
        let report = &analysis.report;
        let problems = report.problems.iter().map(|problem| &problem.text);
        for text in report.warnings.iter().chain(problems) {
            complain(&format!("{name}: {text}"), None);
        }
        Ok(Self {
            name,
            analysis,
            verdict,
        })
    }

    fn error(&self) -> Option<String> {
        self.analysis.failure.as_ref().map(ToString::to_string)
    }
}
