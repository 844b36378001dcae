//! A schema that is kept in a file beside a machine's code, and held against the machine in its tests.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use vmstate_schema::compare::{Column, Options, compare};
use vmstate_schema::exceptions::Exceptions;
use vmstate_schema::report::{Question, to_text};
use vmstate_schema::{DocumentError, Schema};

/// The environment variable by which a test writes the file instead.
const VARIABLE: &str = "VMSTATE_UPDATE_SCHEMA";

/// Whether the file may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Update {
    /// No.
    #[default]
    No,
    /// If guests of the kept schema can come to the machine as it is now.
    IfCompatible,
    /// In any case.
    Anyway,
}

impl Update {
    /// What the environment variable `VMSTATE_UPDATE_SCHEMA` says: not set or empty for [`Update::No`], `anyway` for
    /// [`Update::Anyway`], all else for [`Update::IfCompatible`].
    #[must_use]
    pub fn from_environment() -> Self {
        match env::var(VARIABLE).as_deref() {
            Err(_) | Ok("") => Self::No,
            Ok("anyway") => Self::Anyway,
            Ok(_) => Self::IfCompatible,
        }
    }
}

/// Why a machine and its kept schema do not go together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaFileError {
    /// The file cannot be read or written.
    #[error("{}: {error}{}", path.display(), hint(error))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is no schema document.
    #[error("{}: {error}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: DocumentError,
    },
    /// The machine has changed, in a way that its guests survive.
    #[error(
        "{0}\nthe change is harmless; take it over with {VARIABLE}=1 in the environment of this test"
    )]
    Changed(String),
    /// The machine has changed, and guests of the kept schema cannot come to it any more.
    #[error(
        "{0}\nmachines with the kept schema cannot migrate to this one; if that is meant, {VARIABLE}=anyway in the environment of this test takes it over"
    )]
    Broken(String),
}

fn hint(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        format!("; {VARIABLE}=1 in the environment of this test writes it")
    } else {
        String::new()
    }
}

/// A schema document that a machine is held against, as part of its tests.
///
/// The file says what the last release saves. A test fails when the machine has another schema: with a report, and differently if
/// guests of that release could not come to it any more. With `VMSTATE_UPDATE_SCHEMA` in the environment it writes the file.
///
/// ```
/// use vmstate_desc::{Codec, Description, Field};
/// use vmstate_io::schema::{SchemaFile, SchemaFileError, Update};
/// use vmstate_schema::Schema;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("toy.json");
/// let mut rtc = Description::new("rtc", 1, 1);
/// rtc.fields = vec![Field::value("year", Codec::Uint16)].into();
/// let released = Schema::of(Some("toy"), [&rtc])?;
/// SchemaFile::new(&path).update(Update::IfCompatible).check(&released)?;
///
/// rtc.fields = vec![Field::value("year", Codec::Uint32)].into();
/// let now = Schema::of(Some("toy"), [&rtc])?;
/// let refused = SchemaFile::new(&path).check(&now);
/// assert!(matches!(refused, Err(SchemaFileError::Broken(report)) if report.contains("year: uint16 -> uint32")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SchemaFile {
    path: PathBuf,
    columns: Vec<Column>,
    strict: bool,
    exceptions: Exceptions,
    update: Update,
}

impl SchemaFile {
    /// The file at this path. What counts is whether its guests can come to the machine, in QEMU's stream.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            columns: vec![Column::QemuForward],
            strict: false,
            exceptions: Exceptions::default(),
            update: Update::No,
        }
    }

    /// The same file, with other directions and formats that count: also the way back, also BER.
    #[must_use]
    pub fn columns(mut self, columns: impl Into<Vec<Column>>) -> Self {
        self.columns = columns.into();
        self
    }

    /// The same file; what depends on values counts as broken, too.
    #[must_use]
    pub const fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// The same file, with findings that are known and accepted.
    #[must_use]
    pub fn accept(mut self, exceptions: Exceptions) -> Self {
        self.exceptions = exceptions;
        self
    }

    /// The same file, which may be written. [`SchemaFile::assert`] asks the environment in place of this.
    #[must_use]
    pub const fn update(mut self, update: Update) -> Self {
        self.update = update;
        self
    }

    /// Holds the machine's schema against the file.
    ///
    /// # Errors
    /// A file that is missing or no document, and a machine that has changed, with the report.
    pub fn check(&self, now: &Schema) -> Result<(), SchemaFileError> {
        let failed = |error| SchemaFileError::Io {
            path: self.path.clone(),
            error,
        };
        let text = now.to_text();
        let kept = match fs::read(&self.path) {
            Ok(kept) if kept == text.as_bytes() => return Ok(()),
            Ok(kept) => kept,
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.update != Update::No => {
                return fs::write(&self.path, text).map_err(failed);
            }
            Err(e) => return Err(failed(e)),
        };
        let (report, compatible) = match Schema::from_text(&kept) {
            Ok(kept) => self.compare(&kept, now),
            Err(_) if self.update == Update::Anyway => (String::new(), false),
            Err(error) => {
                return Err(SchemaFileError::Document {
                    path: self.path.clone(),
                    error,
                });
            }
        };
        let may = match self.update {
            Update::No => false,
            Update::IfCompatible => compatible,
            Update::Anyway => true,
        };
        if may {
            fs::write(&self.path, text).map_err(failed)
        } else if compatible {
            Err(SchemaFileError::Changed(report))
        } else {
            Err(SchemaFileError::Broken(report))
        }
    }

    /// As [`SchemaFile::check`], for tests: writes the file if the environment says so.
    ///
    /// # Panics
    /// If the machine and the file do not go together, with the report.
    #[track_caller]
    pub fn assert(self, now: &Schema) {
        let result = self.update(Update::from_environment()).check(now);
        if let Err(e) = result {
            panic!("{e}");
        }
    }

    fn compare(&self, kept: &Schema, now: &Schema) -> (String, bool) {
        let mut comparison = compare(kept, now, &Options::default());
        let accepted = self.exceptions.apply(&mut comparison);
        let question = Question {
            columns: self.columns.clone(),
            strict: self.strict,
            all: true,
            ..Question::new(self.path.display().to_string(), "this machine")
        };
        let report = to_text(&question, &comparison, &accepted);
        (report, question.is_compatible(&comparison))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstate_desc::{Codec, Description, Field};

    fn schema(codec: Codec) -> Schema {
        let mut d = Description::new("toy", 1, 1);
        d.fields = vec![Field::value("a", codec)].into();
        Schema::of(Some("toy"), [&d]).unwrap()
    }

    #[test]
    fn a_file_is_written_only_when_it_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let file = |update| SchemaFile::new(dir.path().join("toy.json")).update(update);
        let text = || fs::read_to_string(dir.path().join("toy.json")).unwrap();
        let (old, timer, wide) = (
            schema(Codec::Int64),
            schema(Codec::Timer),
            schema(Codec::Int32),
        );
        let missing = file(Update::No).check(&old).unwrap_err();
        assert!(
            missing.to_string().contains("VMSTATE_UPDATE_SCHEMA=1"),
            "{missing}"
        );
        file(Update::IfCompatible).check(&old).unwrap();
        file(Update::No).check(&old).unwrap();
        // The same bytes by another name: harmless, but told.
        let changed = file(Update::No).check(&timer).unwrap_err();
        assert!(matches!(changed, SchemaFileError::Changed(_)), "{changed}");
        assert!(changed.to_string().contains("C30"), "{changed}");
        file(Update::IfCompatible).check(&timer).unwrap();
        assert_eq!(text(), timer.to_text());
        let broken = file(Update::IfCompatible).check(&wide).unwrap_err();
        assert!(matches!(broken, SchemaFileError::Broken(_)), "{broken}");
        assert_eq!(text(), timer.to_text());
        let exceptions = br#"{"format": "vmstate-exceptions/1", "exceptions": [{"rule": "C09", "reason": "x"}]}"#;
        let exceptions = Exceptions::from_text(exceptions).unwrap();
        let accepted = file(Update::No).accept(exceptions).check(&wide);
        assert!(matches!(accepted, Err(SchemaFileError::Changed(_))));
        file(Update::Anyway).check(&wide).unwrap();
        assert_eq!(text(), wide.to_text());
        fs::write(dir.path().join("toy.json"), "{}").unwrap();
        let document = file(Update::IfCompatible).check(&wide).unwrap_err();
        assert!(
            matches!(document, SchemaFileError::Document { .. }),
            "{document}"
        );
    }
}
