//! What somebody can do about it.

use super::error::DriveError;
use super::report::{Machine, Outcome, Report};
use crate::qmp::QmpClientError;

/// What to do after a migration that could not be begun.
#[must_use]
pub fn advice(error: &DriveError) -> Option<String> {
    Some(match error {
        DriveError::Monitor { error, .. } => return monitor(error),
        DriveError::Uri(_) => {
            "give tcp:HOST:PORT, unix:PATH, file:PATH, exec:COMMAND or fd:NAME".to_owned()
        }
        DriveError::UnknownParameter { name, .. } if name == "x-peer" => {
            "QEMU does not speak VM state over BER: leave --peer out".to_owned()
        }
        DriveError::UnknownCapability { name, known, .. }
        | DriveError::UnknownParameter { name, known, .. } => match nearest(name, known) {
            Some(one) => format!("did you mean {one}?"),
            None => format!("there are: {}", known.join(", ")),
        },
        DriveError::Settings { .. } => "nothing has been begun".to_owned(),
        DriveError::NotIncoming { .. } => {
            "start it with -incoming defer, anew if it has run already".to_owned()
        }
        DriveError::SourceIsIncoming => {
            "--qmp names the machine that the guest is on, --incoming-qmp the one that it goes to"
                .to_owned()
        }
        DriveError::HasMoved { ours: true } => {
            "it is where it went, and is moved from there; if that was a file or a command and nobody has loaded it, \
             x-migrate-resume-here lets it go on here"
                .to_owned()
        }
        DriveError::HasMoved { ours: false } => {
            "if it runs nowhere else, 'cont' lets it go on here, and then it can be moved"
                .to_owned()
        }
        DriveError::UnderWay { .. } => "wait for it, or cancel it with migrate_cancel".to_owned(),
        DriveError::Different { .. } => {
            "start the destination with the source's -machine, -m and devices".to_owned()
        }
        DriveError::Blocked { .. } => {
            "remove the devices or jobs that are named; until then the guest cannot move".to_owned()
        }
        DriveError::Scheme { .. } => {
            "use exec:cat > FILE, and exec:cat FILE at the destination".to_owned()
        }
        DriveError::Refused { error, .. } => return refusal(&error.desc),
        DriveError::NotOurs { .. } => {
            "leave --require ber out: QEMU's stream is understood by both".to_owned()
        }
        DriveError::Value { .. } | DriveError::Incompatible(_) => return None,
    })
}

fn monitor(error: &QmpClientError) -> Option<String> {
    Some(match error {
        QmpClientError::Connect { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => {
                "is the machine running, with -qmp unix:PATH,server=on,wait=off?".to_owned()
            }
            std::io::ErrorKind::ConnectionRefused => {
                "nobody listens there: the machine has ended, or its monitor is elsewhere".to_owned()
            }
            std::io::ErrorKind::PermissionDenied => {
                "run as the user that the machine runs as".to_owned()
            }
            _ => return None,
        },
        QmpClientError::NoGreeting { .. } => {
            "a monitor serves one client at a time: is another program connected? Give the machine a second -qmp"
                .to_owned()
        }
        QmpClientError::Protocol { .. } => {
            "is this a QMP monitor, and not the human one (-qmp, or -mon with mode=control)?".to_owned()
        }
        QmpClientError::NoReply { .. } => {
            "the machine is stuck, or stopped by a debugger".to_owned()
        }
        _ => return None,
    })
}

/// A few words of QEMU's, and what they ask for.
const REFUSALS: &[(&str, &str)] = &[
    (
        "already been started",
        "a process can be a destination once: start it anew",
    ),
    (
        "was not specified on the command line",
        "start the destination with -incoming defer",
    ),
    (
        "Address already in use",
        "something listens there already: choose another place",
    ),
    (
        "requires multi-channel",
        "multifd and postcopy-preempt need tcp: or unix:",
    ),
    ("requires seekable", "mapped-ram needs file:"),
    ("No such file", "does the directory exist, and the file?"),
];

fn refusal(desc: &str) -> Option<String> {
    let known = REFUSALS.iter().find(|(words, _)| desc.contains(words));
    known.map(|(_, advice)| (*advice).to_owned())
}

/// A few words of an error's, and what they ask for.
const FAILURES: &[(&str, &str)] = &[
    (
        "Machine type received",
        "start the destination with the source's -machine",
    ),
    (
        "Unknown ramblock",
        "start the destination with the same devices, in the same places",
    ),
    (
        "Length mismatch",
        "start the destination with the same -m and the same devices",
    ),
    (
        "Unknown savevm section",
        "start the destination with the same devices, in the same places",
    ),
    (
        "missing section footer",
        "a device differs: record a stream with exec:cat > FILE and look at it with vmstate verify",
    ),
    (
        "Connection refused",
        "nobody listens there: start the destination with -incoming, or name it with --incoming-qmp",
    ),
    (
        "Failed to connect to",
        "does the destination run, and wait at this place?",
    ),
    ("address resolution failed", "check the name of the host"),
    ("No space left", "make room, or send it elsewhere"),
];

/// The same, in an error of the source's that is about the place itself.
const PLACES: &[(&str, &str)] = &[
    (
        "No such file or directory",
        "check the path: a file needs its directory, a socket somebody who listens at it",
    ),
    (
        "Is a directory",
        "give the path of a file or socket, not of a directory",
    ),
    (
        "Permission denied",
        "let the user that the source runs as write there, or send it elsewhere",
    ),
    (
        "ile descriptor",
        "hand a descriptor that can be written to the source's monitor first: getfd with this name, or add-fd",
    ),
    ("File too large", "check the offset: no file is so large"),
    (
        "Invalid argument (os error",
        "check the URI: an offset must be one that a file can have",
    ),
];

impl Report {
    /// What to do now, if it did not go as it should have.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let destination = self.destination.as_ref();
        if self.runs_twice() {
            return Some(
                "stop one of them at once: the destination's has gone on from where the source's was stopped".to_owned(),
            );
        }
        match self.outcome {
            Outcome::Completed if self.is_success() => None,
            Outcome::Completed if destination.is_some_and(|machine| !machine.has_begun()) => Some(
                "no guest has come to the machine of --incoming-qmp: the stream went to another one, or to nobody who \
                 reads it; look where the URI leads before the guest is started anywhere"
                    .to_owned(),
            ),
            Outcome::Completed => Some(
                "the guest is at the destination and stands still: look at its monitor, 'cont' lets it run; \
                 do not let it run at the source as well"
                    .to_owned(),
            ),
            Outcome::Failed => {
                let errors = [
                    destination.and_then(|machine| machine.error.as_deref()),
                    self.info.error_desc.as_deref(),
                ];
                let find = |error: &str, table: &[(&str, &str)]| {
                    let words = table.iter().find(|(words, _)| error.contains(words));
                    words.map(|(_, advice)| (*advice).to_owned())
                };
                let known = errors
                    .into_iter()
                    .flatten()
                    .find_map(|error| find(error, FAILURES))
                    .or_else(|| find(self.info.error_desc.as_deref()?, PLACES));
                Some(known.unwrap_or_else(|| {
                    match destination {
                        Some(_) => "see what the destination has written to its standard error",
                        None => {
                            "see what the destination has written to its standard error, or name its monitor with \
                             --incoming-qmp"
                        }
                    }
                    .to_owned()
                }))
            }
            Outcome::Cancelled => None,
            Outcome::Paused => Some(
                "the guest is on both sides: migrate-recover at the destination, then migrate with resume at the source"
                    .to_owned(),
            ),
            Outcome::Unknown if destination.is_some_and(Machine::is_torn) => Some(
                "the destination has the guest, and waits for memory that only the source has: if that has ended, what \
                 had not come is lost"
                    .to_owned(),
            ),
            Outcome::Unknown if self.info.unknown == Some(true) => Some(
                "the guest stands still at the source: if it runs at the destination, x-migrate-give-up at the source; \
                 if that machine has ended, x-migrate-resume-here"
                    .to_owned(),
            ),
            Outcome::Unknown => Some(
                "look whether the guest runs at the destination before it is started anywhere".to_owned(),
            ),
        }
    }
}

/// The one of the names that is most like this one, if one is.
fn nearest<'n>(name: &str, known: &'n [String]) -> Option<&'n str> {
    let distance = |other: &String| edits(name, other);
    let best = known.iter().min_by_key(|other| distance(other))?;
    (distance(best) <= name.len() / 3 || best.contains(name)).then_some(best.as_str())
}

/// How many characters have to be put in, taken out or changed.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (b, above) in other.iter().zip(row.iter_mut().skip(1)) {
            let cost = diagonal + usize::from(a != *b);
            diagonal = *above;
            left = cost.min(*above + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_meant() {
        let known = ["auto-converge", "postcopy-ram", "multifd"].map(str::to_owned);
        assert_eq!(nearest("autoconverge", &known), Some("auto-converge"));
        assert_eq!(nearest("multifs", &known), Some("multifd"));
        assert_eq!(nearest("postcopy", &known), Some("postcopy-ram"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!((edits("", "abc"), edits("kitten", "sitting")), (3, 3));
    }
}
