//! `vmstate migrate`.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use vmstate_io::drive::{
    DriveError, Note, Plan, Progress, Report, Side, Watcher, advice, drive, text,
};
use vmstate_io::qmp::{QmpAddress, QmpClient, Timeouts};

use crate::args::{Format, Migrate, Peer};
use crate::outcome::{Failure, Verdict, written};

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
    let cancel = cancel_on_signals()?;
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
            written(tell(&report, arguments.output.format))?;
            Ok(if report.is_success() {
                Verdict::Yes
            } else {
                Verdict::No
            })
        }
        Err(e) if e.is_refusal() => {
            let failure = failure(&e);
            eprintln!("vmstate: {}", failure.message);
            if let Some(advice) = failure.advice {
                eprintln!("hint: {advice}");
            }
            Ok(Verdict::No)
        }
        Err(e) => Err(failure(&e)),
    }
}

/// A flag that Ctrl-C sets. The second time, nobody waits for the machines any more.
pub(crate) fn cancel_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let cancel = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&cancel))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&cancel)))
            .map_err(|e| Failure::new(format!("cannot wait for signals: {e}")))?;
    }
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

/// Writes the report, and what went wrong.
fn tell(report: &Report, format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{:#}", report.to_json())?,
        Format::Text => writeln!(out, "{}", text::report(report))?,
    }
    out.flush()?;
    if let Some(error) = report.error() {
        eprintln!("vmstate: {error}");
    }
    if let Some(advice) = report.advice() {
        eprintln!("hint: {advice}");
    }
    Ok(())
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
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
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
            bar.set_message(line);
            return;
        }
        let (now, status) = (Instant::now(), progress.status.to_string());
        let due = match &self.last {
            Some((last, before)) => *before != status || now - *last >= LINE,
            None => true,
        };
        if due {
            eprintln!("{line}");
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
