//! Running the command, and finding things in streams by hand.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A directory for streams, removed with the value.
pub(crate) struct Streams(TempDir);

impl Streams {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A recorded stream, decompressed.
    pub(crate) fn recorded(&self, name: &str) -> PathBuf {
        self.file(name, &recorded(name))
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams")
}

/// The bytes of a recorded channel, such as `spike-11.1.main.bin`.
pub(crate) fn recorded(name: &str) -> Vec<u8> {
    let packed = File::open(vectors().join(format!("{name}.zst"))).unwrap();
    zstd::decode_all(packed).unwrap()
}

/// What is known of each recorded stream.
pub(crate) fn sidecars() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(vectors()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            found.push((name, json));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() >= 16);
    found
}

/// Names of the further channels of a recorded stream.
pub(crate) fn channels(name: &str) -> Vec<String> {
    (0..16)
        .map(|i| format!("{name}.multifd{i}.bin"))
        .filter(|file| vectors().join(format!("{file}.zst")).exists())
        .collect()
}

pub(crate) fn vmstate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmstate"));
    command.stdin(Stdio::null());
    command
}

/// Runs the command with these arguments.
pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    vmstate().args(arguments).output().unwrap()
}

pub(crate) fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// The answer in JSON.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}\n{}\n{}", stdout(output), stderr(output)))
}

/// Runs `inspect --format json`.
pub(crate) fn inspect(file: &Path, more: &[&str]) -> (Output, Value) {
    let mut command = vmstate();
    command
        .args(["inspect", "--format", "json"])
        .arg(file)
        .args(more);
    let output = command.output().unwrap();
    let json = json(&output);
    (output, json)
}

/// A section of an answer.
pub(crate) fn section<'j>(answer: &'j Value, idstr: &str, instance_id: u64) -> &'j Value {
    let sections = answer["sections"].as_array().unwrap();
    sections
        .iter()
        .find(|s| s["idstr"] == idstr && s["instance_id"] == instance_id)
        .unwrap_or_else(|| panic!("no section {idstr}/{instance_id}"))
}

/// Offset of the header of a full section, found without any parser.
pub(crate) fn find_header(stream: &[u8], idstr: &str, instance_id: u32) -> usize {
    let mut name = vec![u8::try_from(idstr.len()).unwrap()];
    name.extend_from_slice(idstr.as_bytes());
    name.extend_from_slice(&instance_id.to_be_bytes());
    let at = (5..stream.len() - name.len())
        .find(|at| stream[at - 5] == 4 && stream[*at..].starts_with(&name))
        .unwrap_or_else(|| panic!("no section {idstr}/{instance_id}"));
    at - 5
}

/// Offset of the payload of a full section, found without any parser.
pub(crate) fn find_payload(stream: &[u8], idstr: &str, instance_id: u32) -> usize {
    find_header(stream, idstr, instance_id) + 14 + idstr.len()
}

/// What a process writes to its standard error, behind the first line of a migration that is under way.
pub(crate) fn until_active(child: &mut Child) -> BufReader<ChildStderr> {
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("active") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0);
    }
    lines
}
