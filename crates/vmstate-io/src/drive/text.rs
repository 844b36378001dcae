//! Progress, notes and reports as a person reads them.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Help, Machine, Note, Outcome, Outlook, Progress, Report};
use crate::render::text::size;

/// How it stands, in one line. What matters most comes first: a terminal may be too narrow for all.
#[must_use]
pub fn progress(progress: &Progress) -> String {
    let mut line = progress.status.to_string();
    if progress.total == 0 {
        return line;
    }
    let _ = write!(
        line,
        ": pass {}, left {} of {}, {}/s",
        progress.pass,
        size(progress.remaining),
        size(progress.total),
        size(progress.throughput),
    );
    if progress.dirty_rate > 0 {
        let _ = write!(line, ", dirty {}/s", size(progress.dirty_rate));
    }
    match &progress.outlook {
        Some(Outlook::Converges {
            seconds: Some(left),
        }) => {
            let _ = write!(line, ", done in about {}", about(*left));
        }
        Some(Outlook::DoesNotConverge { .. }) => line += ", does not converge",
        _ => {}
    }
    if let Some(downtime) = progress.expected_downtime.filter(|_| progress.pass > 1) {
        let _ = write!(line, ", expected downtime {}", milliseconds(downtime));
    }
    if let Some(percent) = progress.throttle {
        let _ = write!(line, ", guest throttled by {percent} %");
    }
    let _ = write!(line, ", sent {}", size(progress.transferred));
    line
}

/// What has happened, in one line or several.
#[must_use]
pub fn note(note: &Note) -> String {
    match note {
        Note::Waiting { uri } => format!("the destination waits at {uri}"),
        Note::Begun => "the source has begun".to_owned(),
        Note::Continued => "the guest is stopped at the source, which was told to go on".to_owned(),
        Note::Stuck(outlook) => stuck(outlook),
        Note::PostcopyStarted => {
            "the guest goes before its memory: from now on it cannot be cancelled".to_owned()
        }
        Note::PostcopyRefused(reason) => format!("cannot switch to postcopy: {reason}"),
        Note::Interrupted(reason) if reason.is_empty() => {
            "the connection is lost after the guest has gone".to_owned()
        }
        Note::Interrupted(reason) => {
            format!("the connection is lost after the guest has gone: {reason}")
        }
        Note::Recovering { uri } => format!("connecting again to {uri}"),
        Note::CannotRecover(reason) => format!("cannot connect again: {reason}"),
        Note::Silent(time) => format!(
            "nothing has been sent for {} s: does the destination still read?",
            time.as_secs()
        ),
        Note::Cancelling => "cancelling".to_owned(),
        Note::CannotCancel(reason) => format!("cannot be cancelled: {reason}"),
        Note::MonitorLost(reason) => reason.clone(),
        Note::MonitorBack => "connected to the source's monitor again".to_owned(),
    }
}

fn stuck(outlook: &Outlook) -> String {
    let Outlook::DoesNotConverge {
        downtime_needed,
        help,
    } = outlook
    else {
        return "it converges".to_owned();
    };
    let mut text =
        "does not converge: the guest writes faster than its memory can be sent".to_owned();
    if *downtime_needed < u64::MAX {
        let _ = write!(
            text,
            "; it would have to be stopped for {}",
            milliseconds(*downtime_needed)
        );
    }
    for help in help {
        let _ = write!(text, "\n  {}", help_line(help));
    }
    text
}

fn help_line(help: &Help) -> String {
    match help {
        Help::DowntimeLimit { milliseconds } => {
            format!("--parameter downtime-limit={milliseconds} would let it end")
        }
        Help::MaxBandwidth { bytes_per_second } => format!(
            "--parameter max-bandwidth={bytes_per_second} ({}/s) would, if the connection is so fast",
            size(*bytes_per_second)
        ),
        Help::AutoConverge => "--capability auto-converge would slow the guest down".to_owned(),
        Help::Postcopy => "--postcopy auto would move the guest before its memory".to_owned(),
    }
}

/// How it went: a headline, and what belongs to it.
#[must_use]
pub fn report(report: &Report) -> String {
    let info = &report.info;
    let time = |word| match info.total_time {
        Some(time) => format!(" {word} {}", milliseconds(time)),
        None => String::new(),
    };
    let mut text = match report.outcome {
        Outcome::Completed => format!("completed{}", time("in")),
        Outcome::Failed => format!("failed{}", time("after")),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::Paused => format!("postcopy is interrupted{}", time("after")),
        Outcome::Unknown => "nobody knows how it ended".to_owned(),
    };
    if report.outcome == Outcome::Completed {
        let downtime = info.downtime.map(milliseconds);
        let _ = write!(
            text,
            ": downtime {}, setup {}",
            downtime.as_deref().unwrap_or("not known"),
            milliseconds(info.setup_time.unwrap_or(0)),
        );
    }
    if let Some(ram) = &info.ram {
        let _ = write!(
            text,
            "\n  sent         {} in {} {}, {}/s\n  memory       {}: {} pages in full, {} of zero",
            size(ram.transferred),
            report.passes,
            if report.passes == 1 { "pass" } else { "passes" },
            size(report.throughput),
            size(ram.total),
            ram.normal,
            ram.duplicate,
        );
    }
    if let Some(started) = report.postcopy {
        let started = u64::try_from(started.as_millis()).unwrap_or(u64::MAX);
        let requests = info.ram.as_ref().map_or(0, |ram| ram.postcopy_requests);
        let _ = write!(
            text,
            "\n  postcopy     after {}: {requests} requests",
            milliseconds(started)
        );
        if report.recoveries > 0 {
            let _ = write!(text, ", connected again {} times", report.recoveries);
        }
    }
    let _ = write!(text, "\n  source       {}", machine(&report.source));
    if let Some(destination) = &report.destination {
        let _ = write!(text, "\n  destination  {}", machine(destination));
    }
    let _ = match report.stream() {
        Some("ber") => write!(text, "\n  format       VM state over BER"),
        Some(_) => write!(text, "\n  format       QEMU's stream"),
        None => Ok(()),
    };
    if let Some(adapted) = &report.adapted {
        let _ = write!(
            text,
            "\n  adapted      {} at the destination:",
            adapted.count
        );
        for field in &adapted.fields {
            let _ = write!(text, "\n    {} {}", field.rule, field.path);
        }
        let more = adapted.count.saturating_sub(adapted.fields.len() as u64);
        if more > 0 {
            let _ = write!(text, "\n    and {more} more");
        }
    }
    if let Some(remarks) = report.remarks() {
        let _ = write!(text, "\n{remarks}");
    }
    text
}

fn machine(machine: &Machine) -> String {
    let mut text = machine.program.clone();
    match (&machine.status, machine.running) {
        (Some(_), Some(true)) if machine.is_torn() => {
            text += ": the guest runs until it needs memory that has not come (postcopy-paused)";
        }
        (Some(_), Some(true)) => text += ": the guest runs",
        (Some(status), _) => {
            let _ = write!(text, ": the guest does not run ({status})");
        }
        (None, Some(false)) => text += ": has ended",
        (None, _) => text += ": cannot be asked",
    }
    // What follows the first line is said where the migration's own error is.
    if let Some(error) = machine.error.as_ref().and_then(|text| text.lines().next()) {
        let _ = write!(text, ": {error}");
    }
    text
}

/// A time of milliseconds, in seconds if it is long.
fn milliseconds(time: u64) -> String {
    if time < 10_000 {
        return format!("{time} ms");
    }
    format!("{}.{} s", time / 1000, time % 1000 / 100)
}

/// A time to come, which nobody knows well.
fn about(seconds: f64) -> String {
    // Longer than anybody would wait.
    let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    match time.as_secs() {
        long @ 100..6000 => format!("{} min", long.div_ceil(60)),
        long @ 6000.. => format!("{} h", long.div_ceil(3600)),
        short => format!("{} s", short.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use vmstate_qmp::migration::MigrationStatus;

    use super::*;

    fn standing() -> Progress {
        Progress {
            status: MigrationStatus::ACTIVE,
            elapsed: Duration::from_secs(3),
            transferred: 96 << 20,
            remaining: 16 << 20,
            total: 128 << 20,
            throughput: 32 << 20,
            dirty_rate: 8 << 20,
            pass: 2,
            expected_downtime: Some(500),
            throttle: Some(20),
            outlook: Some(Outlook::Converges { seconds: Some(0.7) }),
        }
    }

    #[test]
    fn lines() {
        assert_eq!(
            progress(&standing()),
            "active: pass 2, left 16 MiB of 128 MiB, 32 MiB/s, dirty 8 MiB/s, done in about 1 s, \
             expected downtime 500 ms, guest throttled by 20 %, sent 96 MiB"
        );
        let first = Progress {
            pass: 1,
            dirty_rate: 0,
            throttle: None,
            outlook: Some(Outlook::FirstPass { seconds: None }),
            ..standing()
        };
        assert_eq!(
            progress(&first),
            "active: pass 1, left 16 MiB of 128 MiB, 32 MiB/s, sent 96 MiB"
        );
        let setup = Progress {
            status: MigrationStatus::SETUP,
            total: 0,
            ..first
        };
        assert_eq!(progress(&setup), "setup");
    }

    #[test]
    fn what_would_help() {
        let outlook = Outlook::DoesNotConverge {
            downtime_needed: 12_345,
            help: vec![
                Help::DowntimeLimit {
                    milliseconds: 15_000,
                },
                Help::MaxBandwidth {
                    bytes_per_second: 1 << 30,
                },
                Help::AutoConverge,
                Help::Postcopy,
            ],
        };
        assert_eq!(
            note(&Note::Stuck(outlook)),
            "does not converge: the guest writes faster than its memory can be sent; it would have to be stopped for \
             12.3 s\n  --parameter downtime-limit=15000 would let it end\n  --parameter max-bandwidth=1073741824 \
             (1 GiB/s) would, if the connection is so fast\n  --capability auto-converge would slow the guest down\n  \
             --postcopy auto would move the guest before its memory"
        );
    }

    #[test]
    fn times() {
        assert_eq!(milliseconds(9_999), "9999 ms");
        assert_eq!(milliseconds(10_000), "10.0 s");
        assert_eq!(about(0.0), "1 s");
        assert_eq!(about(99.9), "99 s");
        assert_eq!(about(100.0), "2 min");
        assert_eq!(about(7000.0), "2 h");
        assert!(about(f64::INFINITY).ends_with(" h"));
    }
}
