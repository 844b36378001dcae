//! Which QEMU there is.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A generation of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// Debian 12's.
    V7_2,
    /// Debian 13's.
    V10_0,
    /// Debian 13's backports'.
    V11_1,
}

impl Generation {
    /// All, oldest first.
    pub const ALL: [Self; 3] = [Self::V7_2, Self::V10_0, Self::V11_1];

    /// The number, as in the names of machine types.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::V7_2 => "7.2",
            Self::V10_0 => "10.0",
            Self::V11_1 => "11.1",
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

/// How to run one QEMU.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its generation.
    pub generation: Generation,
    command: Vec<OsString>,
}

impl Program {
    pub(crate) fn command(&self) -> Command {
        let (program, arguments) = match self.command.split_first() {
            Some((program, arguments)) => (program.clone(), arguments),
            None => (OsString::new(), &[][..]),
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// A command line of it without arguments, for what is no machine: `-dump-vmstate`, `--version`.
    #[must_use]
    pub fn run(&self) -> Command {
        self.command()
    }

    /// Whether this is a QEMU of its generation.
    fn fits(&self) -> bool {
        let output = self.command().arg("--version").output();
        let prefix = format!("QEMU emulator version {}.", self.generation);
        output.is_ok_and(|o| o.status.success() && o.stdout.starts_with(prefix.as_bytes()))
    }
}

/// Finds `qemu-system-ARCHITECTURE` of this generation. Where it is missing, says so.
///
/// # Panics
/// If it is missing and `VMSTATE_REQUIRE_QEMU` is set.
#[must_use]
pub fn find(generation: Generation, architecture: &str) -> Option<Program> {
    let mut candidates = Vec::new();
    if let Some(dir) = std::env::var_os("VMSTATE_QEMU_DIR") {
        let script = PathBuf::from(dir).join("qemu");
        candidates.push(vec![
            script.into_os_string(),
            generation.number().into(),
            architecture.into(),
        ]);
    }
    candidates.push(vec![format!("qemu-system-{architecture}").into()]);
    let found = candidates
        .into_iter()
        .map(|command| Program {
            generation,
            command,
        })
        .find(Program::fits);
    if found.is_none() {
        assert!(
            std::env::var_os("VMSTATE_REQUIRE_QEMU").is_none(),
            "QEMU {generation} for {architecture} is required and missing"
        );
        // Not through the macro: what a passing test prints would not be seen.
        let text = format!("skipped: no QEMU {generation} for {architecture}\n");
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    found
}
