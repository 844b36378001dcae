//! `vmstate helpers`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use vmstate_dbus::{IdList, ObjectError, Place, Present, list, load};
use vmstate_wire::helpers::{Element, MAX_STATE};

use crate::args::{Format, Helpers};
use crate::outcome::{Failure, Verdict, complain, written};
use crate::source::read_bounded;

/// End of the name of a file with a state.
const SUFFIX: &str = ".state";

/// One helper, as JSON shows it.
#[derive(Serialize)]
struct Row {
    /// None for an id that is listed, and that nobody has.
    owner: Option<String>,
    id: Option<String>,
    size: Option<usize>,
    /// It is not on the list.
    skipped: bool,
    error: Option<String>,
}

/// What became of a load, as JSON shows it.
#[derive(Serialize)]
struct Outcome {
    loaded: Vec<String>,
    without: Vec<String>,
    skipped: Vec<String>,
}

pub(crate) fn run(arguments: &Helpers) -> Result<Verdict, Failure> {
    let place = match arguments.addr.as_ref().or(arguments.peers.as_ref()) {
        Some(place) => place.clone(),
        None => Place::session().map_err(|e| {
            Failure::new(e.to_string())
                .with_advice("give the address of the machine's bus with --addr")
        })?,
    };
    let deadline = Duration::from_millis(arguments.deadline);
    match &arguments.load {
        Some(dir) => load_from(&place, dir, deadline, arguments),
        None => show(&place, arguments, deadline),
    }
}

fn show(place: &Place, arguments: &Helpers, deadline: Duration) -> Result<Verdict, Failure> {
    let ids = arguments.id_list.as_ref();
    let present = list(place, ids, true, deadline).map_err(|e| unreachable(arguments, &e))?;
    if let Some(dir) = &arguments.save {
        save_to(dir, &present)?;
    }
    let rows = rows(present, ids);
    let good = rows.iter().all(|row| row.error.is_none());
    let mut out = io::stdout().lock();
    written(match arguments.output.format {
        Format::Json => print(&mut out, &BTreeMap::from([("helpers", &rows)])),
        Format::Text => table(&mut out, &rows),
    })?;
    Ok(if good { Verdict::Yes } else { Verdict::No })
}

/// Nobody could be asked.
fn unreachable(arguments: &Helpers, error: &ObjectError) -> Failure {
    let failure = Failure::new(error.to_string());
    if arguments.addr.is_none() && arguments.peers.is_none() {
        failure.with_advice("this is the bus of the session: give that of the machine with --addr")
    } else {
        failure
    }
}

/// Everybody, with what is wrong about them: with ids, too, that others have as well. And the listed ids that nobody has.
fn rows(present: Vec<Present>, list: Option<&IdList>) -> Vec<Row> {
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for id in present.iter().filter_map(|one| one.id.as_ref().ok()) {
        *owners.entry(id.clone()).or_default() += 1;
    }
    let missing = list.into_iter().flat_map(IdList::iter);
    let missing: Vec<_> = missing
        .filter(|id| !owners.contains_key(*id))
        .map(|id| Row {
            owner: None,
            id: Some(id.to_owned()),
            size: None,
            skipped: false,
            error: Some("no helper has this id".to_owned()),
        })
        .collect();
    let row = |one: Present| {
        let shared = |id: &String| owners.get(id).is_some_and(|count| *count > 1);
        let listed = |id: &String| list.is_none_or(|list| list.contains(id));
        let (size, unsaved) = match one.state {
            Some(Ok(state)) => (Some(state.len()), None),
            Some(Err(fault)) => (None, Some(format!("Save: {fault}"))),
            None => (None, None),
        };
        let second = one.second.map(|fault| fault.to_string());
        let (id, skipped, error) = match one.id {
            Ok(id) if !listed(&id) => (Some(id), true, None),
            Ok(id) if shared(&id) => (
                Some(id),
                false,
                Some("another helper has the same id".to_owned()),
            ),
            Ok(id) => (Some(id), false, second.or(unsaved)),
            Err(fault) => (None, false, Some(fault.to_string())),
        };
        Row {
            owner: Some(one.owner),
            id,
            size,
            skipped,
            error,
        }
    };
    present.into_iter().map(row).chain(missing).collect()
}

fn print(out: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn table(out: &mut impl io::Write, rows: &[Row]) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "nobody exports org.qemu.VMState1 here");
    }
    let shown = |id: &Option<String>| match id {
        Some(id) => id.escape_debug().to_string(),
        None => "-".to_owned(),
    };
    let width = rows.iter().map(|row| shown(&row.id).len()).max();
    let width = width.unwrap_or(0).clamp(2, 40);
    writeln!(out, "{:width$} {:>9}  OWNER", "ID", "BYTES")?;
    for row in rows {
        let size = row
            .size
            .map_or_else(|| "-".to_owned(), |size| size.to_string());
        let owner = row.owner.as_deref().unwrap_or("-");
        write!(out, "{:width$} {size:>9}  {owner}", shown(&row.id))?;
        match &row.error {
            Some(error) => writeln!(out, "  {error}")?,
            None if row.skipped => writeln!(out, "  not listed, skipped")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn save_to(dir: &Path, present: &[Present]) -> Result<(), Failure> {
    let failed =
        |what: &Path, e: io::Error| Failure::new(format!("cannot write {}: {e}", what.display()));
    fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    for one in present {
        if let (Ok(id), Some(Ok(state))) = (&one.id, &one.state) {
            let path = dir.join(file_name(id));
            // Two helpers of one name would leave one file.
            // What a helper holds is nobody else's business.
            let file = fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            let saved = file.and_then(|mut file| file.write_all(state));
            saved.map_err(|e| failed(&path, e).with_advice("give a directory without states"))?;
        }
    }
    Ok(())
}

fn load_from(
    place: &Place,
    dir: &Path,
    deadline: Duration,
    arguments: &Helpers,
) -> Result<Verdict, Failure> {
    let elements = elements(dir)?;
    let outcome = match load(place, arguments.id_list.as_ref(), &elements, deadline) {
        Ok(loaded) => Outcome {
            loaded: loaded.loaded,
            without: loaded.without,
            skipped: loaded.skipped,
        },
        Err(error @ (ObjectError::Connect { .. } | ObjectError::List(_))) => {
            return Err(unreachable(arguments, &error));
        }
        Err(error) => {
            complain(&error.to_string(), None);
            return Ok(Verdict::No);
        }
    };
    let mut out = io::stdout().lock();
    written(match arguments.output.format {
        Format::Json => print(&mut out, &outcome),
        Format::Text => (|| {
            for id in &outcome.loaded {
                writeln!(out, "{}: loaded", id.escape_debug())?;
            }
            for id in &outcome.without {
                writeln!(out, "{}: no file", id.escape_debug())?;
            }
            for id in &outcome.skipped {
                writeln!(out, "{}: not listed, skipped", id.escape_debug())?;
            }
            Ok(())
        })(),
    })?;
    Ok(Verdict::Yes)
}

/// The states of a directory.
fn elements(dir: &Path) -> Result<Vec<Element>, Failure> {
    let failed = |what: &Path, e: &dyn std::fmt::Display| {
        Failure::new(format!("cannot read {}: {e}", what.display()))
    };
    let mut elements = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| failed(dir, &e))? {
        let path = entry.map_err(|e| failed(dir, &e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(id) = name.strip_suffix(SUFFIX).and_then(id_of) else {
            continue;
        };
        // Whoever opens a pipe may wait for ever.
        let metadata = fs::metadata(&path).map_err(|e| failed(&path, &e))?;
        if !metadata.is_file() {
            return Err(failed(&path, &"it is no regular file"));
        }
        let state = read_bounded(&path, MAX_STATE as u64).map_err(|e| failed(&path, &e))?;
        elements.push(Element { id, state });
    }
    elements.sort_by(|a, b| a.id.cmp(&b.id));
    if elements.is_empty() {
        return Err(failed(dir, &"there is no file ID.state"));
    }
    Ok(elements)
}

/// An id as a file's name: what is no letter, digit, `-`, `_`, or `.` behind the first, as `%` and two digits.
fn file_name(id: &str) -> String {
    let mut name = String::new();
    for byte in id.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || b"-_".contains(&byte)
            || (byte == b'.' && !name.is_empty());
        if plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name + SUFFIX
}

/// The id that a file is named after.
fn id_of(name: &str) -> Option<Vec<u8>> {
    let mut id = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        if *byte == b'%' {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            id.push(u8::from_str_radix(digits, 16).ok()?);
            rest = behind.get(2..)?;
        } else {
            id.push(*byte);
            rest = behind;
        }
    }
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for (id, name) in [
            ("net0", "net0.state"),
            ("org.example.Nat-1_a", "org.example.Nat-1_a.state"),
            ("../x", "%2e.%2fx.state"),
            (".", "%2e.state"),
            ("50% é", "50%25%20%c3%a9.state"),
        ] {
            assert_eq!(file_name(id), name);
            let back = name.strip_suffix(SUFFIX).and_then(id_of);
            assert_eq!(back.as_deref(), Some(id.as_bytes()));
        }
        for wrong in ["", "%", "%2", "%zz", "%é"] {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }
}
