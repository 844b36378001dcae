//! Rules of the repository that no compiler checks: who depends on whom, and what must not occur.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where it is said which crates of ours a crate depends on, apart from its tests.
const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// For whom anything is allowed.
const ANY: &str = "anything";

/// The library of D-Bus.
const D_BUS: &str = "zbus";

/// The crate that may be unsafe.
const UNSAFE: &str = "vmstate-linux";

/// The crates that open files and sockets, start threads and read clocks, or are tests.
const WITH_IO: &[&str] = &[
    "vmstate-cli",
    "vmstate-dbus",
    "vmstate-interop",
    "vmstate-io",
    "vmstate-linux",
    "vmstate-spike",
    "vmstate-testkit",
];

/// What the other crates must not name.
const IO: &[&str] = &[
    "std::fs",
    "std::net",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
];

/// Most lines of a file.
const LINES: usize = 700;

/// Files that are longer, and why.
const LONG: &[(&str, &str)] = &[(
    "crates/vmstate-derive/tests/it/attributes.rs",
    "one short test for each attribute, side by side",
)];

/// What must not be left behind in code. Spelled so that this file does not contain it.
const LEFTOVERS: &[&str] = &["TO\u{44}O", "FIX\u{4d}E", "db\u{67}!(", "todo\u{21}("];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

struct Package {
    name: String,
    dir: PathBuf,
    /// Names of dependencies by kind: `normal`, `dev`, `build`.
    dependencies: Vec<(String, String)>,
}

/// The crates of the workspace, as cargo sees them.
fn packages() -> Vec<Package> {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: text(&package["name"]),
            dir: PathBuf::from(text(&package["manifest_path"])).with_file_name(""),
            dependencies: list(&package["dependencies"])
                .iter()
                .map(|d| {
                    (
                        text(&d["name"]),
                        d["kind"].as_str().unwrap_or("normal").to_owned(),
                    )
                })
                .collect(),
        })
        .collect()
}

/// All Rust files below, in order.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn all_sources() -> Vec<PathBuf> {
    ["crates", "interop", "fuzz/fuzz_targets"]
        .iter()
        .flat_map(|dir| sources(&root().join(dir)))
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn shown(path: &Path) -> String {
    let root = root();
    let path = path.strip_prefix(&root).unwrap_or(path);
    path.display().to_string()
}

/// The lines of a file that are compiled into the crate: without comments, and without what `cfg(test)` stands before.
fn shipped(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    let mut skip: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim();
        if let Some(depth) = skip {
            // An item ends with its closing brace, or where it has none with its semicolon.
            let closes = code.starts_with('}') || (code.ends_with(';') && !code.ends_with("};"));
            if indent == depth && closes {
                skip = None;
            }
            continue;
        }
        if code == "#[cfg(test)]" {
            skip = Some(indent);
        } else if !code.starts_with("//") {
            lines.push((number + 1, code));
        }
    }
    lines
}

fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The table of crates with what they depend on, by their full names; none where anything is allowed.
fn rooms(text: &str) -> BTreeMap<String, Option<Vec<String>>> {
    let full = |name: &str| match name {
        "facade" | "vmstate" => "vmstate".to_owned(),
        _ => format!("vmstate-{}", name.trim_start_matches("vmstate-")),
    };
    let rows = text.lines().filter_map(|line| {
        let row = line.strip_prefix("| `")?.strip_suffix(" |")?;
        let (name, row) = row.split_once("` | ")?;
        let (_, dependencies) = row.rsplit_once(" | ")?;
        // What stands in brackets is for people.
        let names = dependencies.split(" (").next()?;
        let names = match names {
            ANY => None,
            "–" => Some(Vec::new()),
            _ => Some(names.split(", ").map(full).collect()),
        };
        Some((full(name), names))
    });
    rows.collect()
}

#[test]
fn tables_are_read() {
    let text = "| crate | holds | depends on |\n|---|---|---|\n| `vmstate-a` | `a | b`, c | desc, facade |\n\
                | `vmstate` | x | – (but for tests) |\n| `interop` | y | anything |\n";
    let found = rooms(text);
    let names = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
    assert_eq!(found["vmstate-a"], names(&["vmstate-desc", "vmstate"]));
    assert_eq!(found["vmstate"], names(&[]));
    assert_eq!(found["vmstate-interop"], None);
    assert_eq!(found.len(), 3);
}

#[test]
fn the_architecture_says_who_depends_on_whom() {
    let text = read(&root().join(ARCHITECTURE));
    let mut rooms = rooms(&text);
    let packages = packages();
    assert!(packages.len() >= 8);
    let ours: Vec<_> = packages.iter().map(|p| p.name.as_str()).collect();
    let mut complaints = Vec::new();
    for package in &packages {
        let name = &package.name;
        let dependencies = package.dependencies.iter();
        if dependencies.clone().any(|(on, _)| on == "vmstate-cli") {
            complaints.push(format!("{name} depends on the command"));
        }
        let Some(said) = rooms.remove(name) else {
            complaints.push(format!("{name}: {ARCHITECTURE} does not say what it is"));
            continue;
        };
        let Some(said) = said else { continue };
        let on: Vec<_> = dependencies
            .filter(|(on, kind)| kind != "dev" && ours.contains(&on.as_str()))
            .map(|(on, _)| on)
            .collect();
        for on in on.iter().filter(|on| !said.contains(on)) {
            complaints.push(format!("{name} must not depend on {on}"));
        }
        for gone in said.iter().filter(|gone| !on.contains(gone)) {
            complaints.push(format!("{name} does not depend on {gone}"));
        }
    }
    complaints.extend(
        rooms
            .keys()
            .map(|name| format!("{name}: there is no such crate")),
    );
    report(&complaints);
}

#[test]
fn one_crate_speaks_d_bus() {
    let mut speakers = Vec::new();
    for package in packages() {
        if package.dependencies.iter().any(|(name, _)| name == D_BUS) {
            speakers.push(package.name);
        }
    }
    assert_eq!(speakers, ["vmstate-dbus"]);
}

#[test]
fn one_crate_is_unsafe() {
    let mut complaints = Vec::new();
    for package in packages() {
        for name in ["src/lib.rs", "src/main.rs"] {
            let path = package.dir.join(name);
            if !path.exists() {
                continue;
            }
            let forbids = read(&path)
                .lines()
                .any(|line| line == "#![forbid(unsafe_code)]");
            if forbids == (package.name == UNSAFE) {
                complaints.push(format!("{}: #![forbid(unsafe_code)]", shown(&path)));
            }
        }
    }
    report(&complaints);
}

#[test]
fn libraries_do_no_io() {
    let mut complaints = Vec::new();
    for package in packages() {
        if WITH_IO.contains(&package.name.as_str()) {
            continue;
        }
        for path in sources(&package.dir.join("src")) {
            let text = read(&path);
            // A module of tests in a file of its own.
            if path.components().any(|c| c.as_os_str() == "tests")
                || path.ends_with("tests.rs")
                || path.ends_with("vectors.rs")
            {
                continue;
            }
            for (number, line) in shipped(&text) {
                for word in IO.iter().filter(|word| line.contains(**word)) {
                    complaints.push(format!("{}:{number}: {word}", shown(&path)));
                }
            }
        }
    }
    report(&complaints);
}

#[test]
fn files_stay_short() {
    let mut complaints = Vec::new();
    let mut reasons: BTreeMap<_, _> = LONG.iter().copied().collect();
    for path in all_sources() {
        let lines = read(&path).lines().count();
        let reason = reasons.remove(shown(&path).as_str());
        if lines > LINES && reason.is_none() {
            complaints.push(format!("{}: {lines} lines", shown(&path)));
        }
        if lines <= LINES && reason.is_some() {
            complaints.push(format!("{}: is not long any more", shown(&path)));
        }
    }
    complaints.extend(reasons.keys().map(|path| format!("{path}: is gone")));
    report(&complaints);
}

#[test]
fn nothing_is_left_behind() {
    let mut complaints = Vec::new();
    for path in all_sources() {
        for (number, line) in read(&path).lines().enumerate() {
            for word in LEFTOVERS.iter().filter(|word| line.contains(**word)) {
                complaints.push(format!("{}:{}: {word}", shown(&path), number + 1));
            }
        }
    }
    report(&complaints);
}

#[test]
fn tests_in_a_file_are_not_shipped() {
    let text = "use a;\n// std::fs\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod more {\n    std::fs\n}\nc\n";
    let lines: Vec<_> = shipped(text).into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["use a;", "b", "c"]);
}
