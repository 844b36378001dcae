//! `vmstate check`.

use std::io::{self, Write as _};
use std::path::Path;

use vmstate_io::inspect::{Options, Report};
use vmstate_io::schema::{MAX_TEXT, states_of};
use vmstate_schema::Schema;
use vmstate_schema::compare::{self, Column, compare};
use vmstate_schema::exceptions::{Accepted, Exceptions};
use vmstate_schema::report::{Question, to_json, to_text};

use crate::args::{Check, Format, Protocol};
use crate::outcome::{Failure, Verdict, written};
use crate::schema::{read, read_with_values};
use crate::source::{options, read_bounded};

pub(crate) fn run(arguments: &Check) -> Result<Verdict, Failure> {
    let reading = options(&arguments.reading)?;
    if arguments.from.as_os_str() == "-" && arguments.to.as_os_str() == "-" {
        return Err(Failure::new("both sides cannot come from standard input")
            .with_advice("write one of them to a file first"));
    }
    let exceptions = match &arguments.exceptions {
        Some(path) => read_exceptions(path)?,
        None => Exceptions::default(),
    };
    let (mut from, values) = side(&arguments.from, arguments, &reading)?;
    let (mut to, own) = side(&arguments.to, arguments, &reading)?;
    if arguments.values && values.is_none() {
        return Err(
            Failure::new(format!("{} has no values", arguments.from.display()))
                .with_advice("give a recorded stream as FROM, or leave --values out"),
        );
    }
    if let Some(stream) = &arguments.used_by {
        let used = read(stream, &reading)?;
        from.retain_used_by(&used);
        to.retain_used_by(&used);
    }
    let mut comparison = compare(
        &from,
        &to,
        &compare::Options {
            sections: arguments.section.clone(),
        },
    );
    if let Some(values) = values.filter(|_| arguments.values) {
        let own = own.as_ref().map(states_of).unwrap_or_default();
        comparison
            .settle_between(&states_of(&values), &own)
            .map_err(|e| Failure::new(format!("{}: {e}", arguments.from.display())))?;
    }
    if comparison.compared == 0 && comparison.findings.is_empty() {
        return Err(nothing_compared(arguments));
    }
    let accepted = exceptions.apply(&mut comparison);
    let question = question(arguments);
    answer(arguments, &question, &comparison, &accepted)?;
    Ok(if question.is_compatible(&comparison) {
        Verdict::Yes
    } else {
        Verdict::No
    })
}

/// A question about nothing would be answered with a yes.
fn nothing_compared(arguments: &Check) -> Failure {
    let failure = Failure::new(format!(
        "nothing was compared: {} and {} have no section that is asked about",
        arguments.from.display(),
        arguments.to.display()
    ));
    if !arguments.section.is_empty() {
        failure.with_advice(format!(
            "does --section {} name a section? vmstate inspect FROM lists them",
            arguments.section.join(" --section ")
        ))
    } else if let Some(stream) = &arguments.used_by {
        failure.with_advice(format!(
            "is {} a stream of one of these machines?",
            stream.display()
        ))
    } else {
        failure
    }
}

fn question(arguments: &Check) -> Question {
    let (forward, backward) = match arguments.protocol {
        Protocol::Qemu => (Column::QemuForward, Column::QemuBackward),
        Protocol::Ber => (Column::BerForward, Column::BerBackward),
    };
    let name = |path: &Path| path.display().to_string();
    Question {
        columns: if arguments.both {
            vec![forward, backward]
        } else {
            vec![forward]
        },
        strict: arguments.strict,
        all: arguments.all,
        ..Question::new(name(&arguments.from), name(&arguments.to))
    }
}

fn answer(
    arguments: &Check,
    question: &Question,
    comparison: &compare::Comparison,
    accepted: &Accepted,
) -> Result<(), Failure> {
    let text = match arguments.output.format {
        Format::Text => to_text(question, comparison, accepted),
        Format::Json => format!("{:#}\n", to_json(question, comparison, accepted)),
    };
    written(io::stdout().lock().write_all(text.as_bytes()))
}

fn read_exceptions(path: &Path) -> Result<Exceptions, Failure> {
    let text = read_bounded(path, MAX_TEXT).map_err(|e| {
        Failure::new(format!("cannot open {}: {e}", path.display()))
            .with_advice("give the path of an exception file, or leave --exceptions out")
    })?;
    Exceptions::from_text(&text).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

/// One side, which must be for the machine type that was asked for.
fn side(
    file: &Path,
    arguments: &Check,
    reading: &Options,
) -> Result<(Schema, Option<Report>), Failure> {
    let (schema, values) = read_with_values(file, reading)?;
    match (&arguments.machine, &schema.machine) {
        (Some(wanted), Some(found)) if wanted != found => Err(Failure::new(format!(
            "{} is of machine type {found}, not {wanted}",
            file.display()
        ))
        .with_advice(format!("make it with -machine {wanted}"))),
        _ => Ok((schema, values)),
    }
}
