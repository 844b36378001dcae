//! The `vmstate` command.
//!
//! Exit status: 0 fine; 1 the answer is no: a difference, a corrupt stream, a guest that did not move; 2 the question could
//! not be asked: usage, a missing file, a monitor that does not answer.
#![forbid(unsafe_code)]
// They panic where nobody can read: see `outcome::say`.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod args;
mod check;
mod convert;
mod demo;
mod diff;
mod helpers;
mod inspect;
mod machine;
mod migrate;
mod outcome;
mod schema;
mod source;
mod verify;

use clap::Parser;

use args::{Arguments, Command};
use outcome::{Verdict, complain};

fn main() -> ! {
    let Arguments { command } = Arguments::parse();
    let outcome = match &command {
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Diff(arguments) => diff::run(arguments),
        Command::Convert(arguments) => convert::run(arguments),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Helpers(arguments) => helpers::run(arguments),
        Command::Machine(arguments) => machine::run(arguments),
        Command::Migrate(arguments) => migrate::run(arguments),
    };
    // Leaves without tidying up memory, which takes longer than many an inspection.
    std::process::exit(match outcome {
        Ok(Verdict::Yes) => 0,
        Ok(Verdict::No) => 1,
        Err(failure) => {
            complain(&failure.message, failure.advice.as_deref());
            if failure.is_answer { 1 } else { 2 }
        }
    })
}
