//! A change of a device that breaks migration is found by a test, before any guest is lost.

use vmstate::schema::{Schema, SchemaFile, SchemaFileError, Update};
use vmstate::{Reason, VmState};

/// The watchdog as the last release has it.
#[derive(Debug, Default, VmState)]
#[vmstate(name = "watchdog", version = 1)]
struct Released {
    enabled: bool,
    timeout: u32,
}

/// Somebody needed finer ticks, and widened the field.
#[derive(Debug, Default, VmState)]
#[vmstate(name = "watchdog", version = 1)]
struct Broken {
    enabled: bool,
    timeout: u64,
}

/// How it is done instead: the old field stays, the new one comes with a new version.
#[derive(Debug, Default, VmState)]
#[vmstate(name = "watchdog", version = 2, minimum_version = 1, post_load = Self::upgrade)]
struct Repaired {
    enabled: bool,
    timeout: u32,
    #[vmstate(since = 2)]
    timeout_ns: u64,
}

impl Repaired {
    fn upgrade(&mut self, version: u32) -> Result<(), Reason> {
        if version < 2 {
            self.timeout_ns = u64::from(self.timeout) * 1_000_000_000;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    // In a VMM: a file that is checked in, written once by `VMSTATE_UPDATE_SCHEMA=1 cargo test`.
    let file = SchemaFile::new(dir.path().join("watchdog.schema.json"));
    let schema = |description| Schema::of(Some("toy-1"), [description]);
    file.clone()
        .update(Update::IfCompatible)
        .check(&schema(Released::DESCRIPTION)?)?;

    // In a VMM: `file.assert(…)`, which panics with this text.
    let Err(SchemaFileError::Broken(report)) = file.check(&schema(Broken::DESCRIPTION)?) else {
        return Err("a wider field is not found".into());
    };
    println!("{report}");
    assert!(report.contains("C08 number widened") && report.contains("uint32 -> uint64"));

    match file.check(&schema(Repaired::DESCRIPTION)?) {
        // Guests of the release can come; the file wants to be written again.
        Err(SchemaFileError::Changed(report)) => println!("{report}"),
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
