//! QEMU's own static checker beside `check`, on dumps of stock releases: whatever the script complains of is a
//! finding here, in the same section and about the same thing.
//!
//! The script is the one that `VMSTATE_STATIC_CHECKER` names (`interop/install-checker` fetches it). Without it the
//! test says so and passes; `.ci/run` sets the variable.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vmstate_interop::{Generation, Program, Result, find};
use vmstate_io::schema::of_text;
use vmstate_schema::Rule;
use vmstate_schema::compare::{Comparison, Options, compare};

const MACHINES: [&str; 2] = ["pc-q35-7.2", "pc-i440fx-7.2"];

/// One line of the script.
#[derive(Debug, PartialEq, Eq)]
struct Complaint<'a> {
    section: &'a str,
    /// What the line quotes after the section: a description, and fields or a subsection.
    names: Vec<&'a str>,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Section,
    Field,
    Subsection,
    Description,
    Version,
    Size,
    /// Of the dump's JSON: the whole of a description's fields, or of its subsections.
    Entry,
}

/// # Errors
///
/// For a line that no kind fits: a complaint that nobody looks at must not pass.
fn complaint(line: &str) -> Result<Complaint<'_>> {
    let kinds = [
        ("does not exist in dest", Kind::Section),
        ("expected field", Kind::Field),
        ("Subsection \"", Kind::Subsection),
        ("version error", Kind::Version),
        ("size mismatch", Kind::Size),
        ("Entry \"", Kind::Entry),
        ("missing, got", Kind::Description),
        ("missing description", Kind::Description),
    ];
    let kind = kinds.into_iter().find(|(text, _)| line.contains(text));
    let Some((_, kind)) = kind else {
        return Err(format!("the static checker's line is of no known kind: {line}").into());
    };
    let mut quoted = line.split('"').skip(1).step_by(2);
    let section = quoted.next().ok_or("no section")?;
    let names = quoted.filter(|name| *name != section).collect();
    Ok(Complaint {
        section,
        names,
        kind,
    })
}

impl Complaint<'_> {
    /// Whether one of the findings is about the thing that the line is about.
    fn is_known_to(&self, comparison: &Comparison) -> bool {
        comparison
            .findings
            .iter()
            .filter(|finding| finding.section == self.section)
            .any(|finding| {
                let text = format!("{} {} {}", finding.path, finding.from, finding.to);
                let title = finding.rule.title();
                // Which covers all that a class has.
                finding.rule == Rule::C32
                    || match self.kind {
                        Kind::Section => finding.path.is_empty(),
                        Kind::Version => text.contains("version") || title.contains("version"),
                        Kind::Subsection => self.names.last().is_some_and(|n| text.contains(n)),
                        Kind::Entry if self.names.last() == Some(&"Subsections") => {
                            title.contains("subsection")
                        }
                        Kind::Entry => true,
                        // What was expected and what was found instead. Fields that became unused bytes are not in the script's
                        // list: it complains of whatever moved up. Of two subsections of one name it takes the last for the first.
                        Kind::Field | Kind::Description | Kind::Size => {
                            let moved = finding.rule == Rule::C05;
                            let namesake =
                                finding.rule == Rule::C37 || finding.path.contains("[1]");
                            let names = self.names.iter().rev();
                            names.clone().take(2).any(|n| text.contains(n))
                                || (moved && finding.path.contains("unused"))
                                || (moved && finding.from.contains("unused"))
                                || (namesake && names.clone().any(|n| text.contains(n)))
                        }
                    }
            })
    }
}

fn dump(program: &Program, machine: &str, path: &Path) -> Result<()> {
    let arguments = ["-machine", machine, "-nodefaults", "-display", "none"];
    let output = program
        .run()
        .args(arguments)
        .arg("-dump-vmstate")
        .arg(path)
        .output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("-dump-vmstate: {}", output.status).into())
    }
}

fn complaints(script: &OsString, from: &Path, to: &Path) -> Result<String> {
    let output = Command::new("python3")
        .arg(script)
        .args(["-s".as_ref(), from])
        .args(["-d".as_ref(), to])
        .output()?;
    if !output.stderr.is_empty() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn the_static_checker_finds_nothing_more() -> Result<()> {
    let Some(script) = std::env::var_os("VMSTATE_STATIC_CHECKER") else {
        eprintln!("skipped: no static checker");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let mut unknown = Vec::new();
    for machine in MACHINES {
        let mut dumps: Vec<(Generation, PathBuf)> = Vec::new();
        for generation in Generation::ALL {
            let Some(program) = find(generation, "x86_64") else {
                return Ok(());
            };
            let path = dir.path().join(format!("{machine}-{generation:?}"));
            dump(&program, machine, &path)?;
            dumps.push((generation, path));
        }
        for (old, from) in &dumps {
            for (new, to) in dumps.iter().filter(|(new, _)| new != old) {
                let read = |path: &Path| -> Result<_> { Ok(of_text(path, &fs::read(path)?)?) };
                let comparison = compare(&read(from)?, &read(to)?, &Options::default());
                let text = complaints(&script, from, to)?;
                let mut seen = 0;
                for line in text.lines().filter(|line| line.contains('"')) {
                    seen += 1;
                    let complaint = complaint(line)?;
                    if !complaint.is_known_to(&comparison) {
                        unknown.push(format!("{machine}, {old:?} to {new:?}: {line}"));
                        let findings = comparison.findings.iter();
                        let same = findings.filter(|f| f.section == complaint.section);
                        unknown.extend(same.map(|f| format!("    instead: {f}")));
                    }
                }
                assert!(seen >= 10, "{machine}, {old:?} to {new:?}: {text}");
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    Ok(())
}

#[test]
fn a_line_is_taken_apart() -> Result<()> {
    let line = r#"Section "acpi-ged", Description "acpi-ghes": expected field "hw_error_le", got "ghes_addr_le"; skipping rest"#;
    let expected = Complaint {
        section: "acpi-ged",
        names: vec!["acpi-ghes", "hw_error_le", "ghes_addr_le"],
        kind: Kind::Field,
    };
    assert_eq!(complaint(line)?, expected);
    assert!(complaint(r#"Section "x" is odd"#).is_err());
    Ok(())
}
