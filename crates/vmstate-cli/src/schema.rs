//! `vmstate schema`.

use std::io::{self, Write as _};
use std::path::Path;

use vmstate_io::inspect::{Options, Report};
use vmstate_io::render;
use vmstate_io::schema::{SchemaError, with_report};
use vmstate_schema::Schema;
use vmstate_schema::json_schema::{self, machine_schema};

use crate::args::{self, Audience, SchemaForm};
use crate::outcome::{Failure, Verdict, is_answer, written};
use crate::source::{foreign, json, options};

pub(crate) fn run(arguments: &args::Schema) -> Result<Verdict, Failure> {
    let schema = read(&arguments.file, &options(&arguments.reading)?)?;
    let audience = match arguments.audience {
        Audience::Writer => json_schema::Audience::Writer,
        Audience::Reader => json_schema::Audience::Reader,
    };
    let text = match arguments.form {
        SchemaForm::Document => schema.to_text(),
        SchemaForm::JsonSchema => {
            let json = machine_schema(&schema, audience);
            format!("{json:#}\n")
        }
    };
    written(io::stdout().lock().write_all(text.as_bytes()))?;
    Ok(Verdict::Yes)
}

/// The schema of a file.
pub(crate) fn read(file: &Path, options: &Options) -> Result<Schema, Failure> {
    read_with_values(file, options).map(|(schema, _)| schema)
}

/// The schema of a file, and what else is known of it if it is a stream.
pub(crate) fn read_with_values(
    file: &Path,
    options: &Options,
) -> Result<(Schema, Option<Report>), Failure> {
    if options.start == 0
        && let Some(what) = foreign(file).or_else(|| json(file))
    {
        return Err(what);
    }
    with_report(file, options).map_err(|error| {
        let failure = Failure::new(error.to_string());
        match error {
            SchemaError::Io { path, error } => Failure::open(&path, &error),
            SchemaError::Dump { .. } => failure.with_advice(
                "give a recorded stream, what qemu-system-… -machine … -dump-vmstate FILE wrote, or a schema document",
            ),
            SchemaError::Document { .. } => failure.with_advice(
                "write the document again: vmstate schema FILE --as document",
            ),
            SchemaError::Stream { path, error } if is_answer(&error) => {
                let advice = format!(
                    "see what is wrong with the stream: vmstate verify {}",
                    path.display()
                );
                failure.with_advice(advice).answering()
            }
            SchemaError::Stream { error, .. } => match render::advice(&error) {
                Some(advice) => failure.with_advice(advice),
                None => failure,
            },
            _ => failure,
        }
    })
}
