//! `vmstate migrate`.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vmstate_io::drive::{
    DriveError, Note, Plan, Progress, Report, Side, Watcher, advice, drive, text,
};
use vmstate_io::qmp::{QmpAddress, QmpClient, Timeouts};

use crate::args::{Format, Migrate, Peer};
use crate::outcome::{Failure, Verdict, clean, complain, say};

/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &Migrate) -> Result<Verdict, Failure> {
    let mut parameters = arguments.parameter.clone();
    if arguments.peer != Peer::Auto {
        // Not known to QEMU, so only where somebody wants it.
        parameters.push(("x-peer".to_owned(), arguments.peer.name().to_owned()));
    }
    let plan = Plan {
        incoming_uri: arguments.incoming_uri.clone(),
        capabilities: arguments.capability.clone(),
        parameters,
        postcopy: arguments.postcopy,
        require_ber: arguments.require.is_some(),
        ..Plan::new(arguments.uri.clone())
    };
    let cancel = cancel_on_signals("a migration that has begun goes on, and nobody watches it")?;
    let mut source = connect(&arguments.qmp, Side::Source)?;
    let mut destination = match &arguments.incoming_qmp {
        Some(address) => Some(connect(address, Side::Destination)?),
        None => None,
    };
    let mut display = Display::new(arguments.quiet);
    let outcome = drive(
        &mut source,
        destination.as_mut(),
        &plan,
        &cancel,
        &mut display,
    );
    display.finish();
    match outcome {
        Ok(report) => {
            tell(&report, arguments.output.format);
            Ok(if report.is_success() {
                Verdict::Yes
            } else {
                Verdict::No
            })
        }
        Err(e) if e.is_refusal() => {
            let failure = failure(&e);
            complain(&failure.message, failure.advice.as_deref());
            Ok(Verdict::No)
        }
        Err(e) => Err(failure(&e)),
    }
}

/// A flag that Ctrl-C sets, and says so: a machine that is stuck may be waited for meanwhile. The second time, nobody waits
/// for the machines any more, which `again` explains.
pub(crate) fn cancel_on_signals(again: &'static str) -> Result<Arc<AtomicBool>, Failure> {
    let failed = |e: io::Error| Failure::new(format!("cannot wait for signals: {e}"));
    let cancel = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Not even where standard error takes nothing does anybody have to wait a third time.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&over))
            .map_err(failed)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let flag = Arc::clone(&cancel);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if flag.swap(true, Ordering::Relaxed) {
                    over.store(true, Ordering::Relaxed);
                    say(format_args!("vmstate: interrupted again: {again}"));
                    std::process::exit(1);
                }
                say("interrupted: the source is to cancel");
            }
        })
        .map_err(failed)?;
    Ok(cancel)
}

fn connect(address: &QmpAddress, side: Side) -> Result<QmpClient, Failure> {
    QmpClient::connect(address, Timeouts::default())
        .map_err(|error| failure(&DriveError::Monitor { side, error }))
}

pub(crate) fn failure(error: &DriveError) -> Failure {
    let failure = Failure::new(error.to_string());
    match advice(error) {
        Some(advice) => failure.with_advice(advice),
        None => failure,
    }
}

/// Writes the report, and what went wrong. Where the guest is does not hang on whether that can be written: standard error
/// has the report where standard output takes none.
fn tell(report: &Report, format: Format) {
    let answer = match format {
        Format::Json => format!("{:#}\n", report.to_json()),
        Format::Text => format!("{}\n", clean(&text::report(report))),
    };
    let mut out = io::stdout().lock();
    let told = out.write_all(answer.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = told {
        complain(&format!("cannot write the answer: {error}"), None);
        say(answer.trim_end());
    }
    let advice = report.advice();
    match report.error() {
        Some(error) => complain(&error, advice.as_deref()),
        None => {
            if let Some(advice) = advice {
                say(format_args!("hint: {advice}"));
            }
        }
    }
}

/// Shows on standard error how it stands: on a terminal a bar, elsewhere lines.
pub(crate) struct Display {
    bar: Option<ProgressBar>,
    quiet: bool,
    last: Option<(Instant, String)>,
}

impl Display {
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{elapsed} {bar:16} {wide_msg}");
            let bar = ProgressBar::new(1);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self {
            bar,
            quiet,
            last: None,
        }
    }

    pub(crate) fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(clean(line)),
            None => say(line),
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watcher for Display {
    fn progress(&mut self, progress: &Progress) {
        if self.quiet {
            return;
        }
        let line = text::progress(progress);
        if let Some(bar) = &self.bar {
            bar.set_length(progress.total.max(1));
            bar.set_position(progress.total.saturating_sub(progress.remaining));
            bar.set_message(clean(&line).into_owned());
            return;
        }
        let (now, status) = (Instant::now(), progress.status.to_string());
        let due = match &self.last {
            Some((last, before)) => *before != status || now - *last >= LINE,
            None => true,
        };
        if due {
            say(line);
            self.last = Some((now, status));
        }
    }

    fn note(&mut self, note: &Note) {
        // What somebody should act upon is said in any case.
        let important = !matches!(note, Note::Waiting { .. } | Note::Begun | Note::Continued);
        if important || !self.quiet {
            self.line(&text::note(note));
        }
    }
}
