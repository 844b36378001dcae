//! How a command ends.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;

use vmstate_io::inspect::InspectError;
use vmstate_io::{StreamErrorKind, render};

use crate::source::find_magic;

/// The answer of a command that could be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Yes,
    No,
}

/// Why a command could not be carried out, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) advice: Option<String>,
    /// It is an answer all the same: no.
    pub(crate) is_answer: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            advice: None,
            is_answer: false,
        }
    }

    pub(crate) fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub(crate) fn answering(mut self) -> Self {
        self.is_answer = true;
        self
    }

    /// A file that cannot be opened.
    pub(crate) fn open(path: &Path, error: &io::Error) -> Self {
        let failure = Self::new(format!("cannot open {}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::NotFound => {
                failure.with_advice("give the path of a recorded stream, or - for standard input")
            }
            io::ErrorKind::PermissionDenied => {
                failure.with_advice("run as a user who may read the file")
            }
            _ => failure,
        }
    }
}

/// A line on standard error. Where nobody reads it, or it cannot be written, the work goes on: a guest may be on its way.
pub(crate) fn say(line: impl Display) {
    let line = line.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", clean(&line));
}

/// Text in which peers and streams may have had a say, without what a terminal would obey.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(obeyed) {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match obeyed(c) {
            true => clean.extend(c.escape_default()),
            false => clean.push(c),
        }
    }
    clean.into()
}

/// Says what is wrong, and what to do about it.
pub(crate) fn complain(message: &str, advice: Option<&str>) {
    say(format_args!("vmstate: {message}"));
    if let Some(advice) = advice {
        say(format_args!("hint: {advice}"));
    }
}

/// Output that could not be written. A reader that has gone away is content with what it got.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write the answer: {e}")))
        }
        _ => Ok(()),
    }
}

/// Tells on standard error why a walk ended early. A stream that is wrong is an answer; that it could not be read is none.
pub(crate) fn explain(name: &str, failure: &InspectError) -> Result<Verdict, Failure> {
    let message = format!("{name}: {failure}");
    let advice = match hidden_stream(name, failure) {
        Some(0) => Some("a stream begins with the first byte: leave --start out".to_owned()),
        Some(at) => Some(format!("a stream begins at byte {at}: add --start {at}")),
        None => match failure {
            InspectError::Upgraded { offset } => Some(format!("take that: --start {offset}")),
            _ => render::advice(failure).map(Into::into),
        },
    };
    if !is_answer(failure) {
        let failure = Failure::new(message);
        return Err(Failure { advice, ..failure });
    }
    complain(&message, advice.as_deref());
    Ok(Verdict::No)
}

/// Whether it is the stream that is wrong, and not that it could not be read.
pub(crate) fn is_answer(failure: &InspectError) -> bool {
    let unanswered = matches!(failure, InspectError::Io(_) | InspectError::Channel { .. });
    !unanswered && !failure.is_limit()
}

/// Where in a file that does not begin with a stream one is found.
fn hidden_stream(name: &str, failure: &InspectError) -> Option<usize> {
    match failure {
        InspectError::Stream(e) if matches!(e.kind(), StreamErrorKind::BadMagic { .. }) => {
            find_magic(Path::new(name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey() {
        for (text, expected) in [
            ("two\n\tlines, é, ∞", "two\n\tlines, é, ∞"),
            ("\x1b[2J\x1b]0;x\x07", "\\u{1b}[2J\\u{1b}]0;x\\u{7}"),
            ("a\rb\u{9b}2J\x7f\0", "a\\rb\\u{9b}2J\\u{7f}\\u{0}"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }
}
