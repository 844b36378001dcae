//! How a command ends.

use std::io;
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
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            advice: None,
        }
    }

    pub(crate) fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
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
        Some(at) => Some(format!("a stream begins at byte {at}: add --start {at}")),
        None => render::advice(failure).map(Into::into),
    };
    let unanswered = matches!(failure, InspectError::Io(_) | InspectError::Channel { .. });
    if unanswered || failure.is_limit() {
        return Err(Failure { message, advice });
    }
    eprintln!("vmstate: {message}");
    if let Some(advice) = advice {
        eprintln!("hint: {advice}");
    }
    Ok(Verdict::No)
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
