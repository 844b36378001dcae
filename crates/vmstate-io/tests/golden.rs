//! Recorded streams of stock QEMU: every byte accounted for, RAM as the source had it, from a file and from a pipe.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use vmstate_io::inspect::{Analysis, Options, analyze, rewrite};
use vmstate_io::{Input, ReadInput, SliceInput};

struct Recording {
    name: String,
    sidecar: serde_json::Value,
    main: Vec<u8>,
    others: Vec<Vec<u8>>,
}

fn directory() -> PathBuf {
    std::env::var_os("VMSTATE_STREAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams"),
        PathBuf::from,
    )
}

fn sidecars(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sidecars(&path, found);
        } else if path.extension().is_some_and(|e| e == "json") {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    if let Ok(bytes) = fs::read(path) {
        return Some(bytes);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".zst");
    let bytes = fs::read(name).ok()?;
    Some(zstd::decode_all(&*bytes).unwrap())
}

fn load(sidecar: &Path) -> Option<Recording> {
    let text = fs::read(sidecar).unwrap();
    let stem = sidecar.with_extension("");
    let with = |suffix: &str| {
        let mut name = stem.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let main = read(&with(".main.bin"))?;
    let mut others = Vec::new();
    for kind in ["multifd", "channel", "preempt"] {
        for i in 0..16 {
            others.extend(read(&with(&format!(".{kind}{i}.bin"))));
        }
        others.extend(read(&with(&format!(".{kind}.bin"))));
    }
    Some(Recording {
        name: stem.file_name().unwrap().to_string_lossy().into_owned(),
        sidecar: serde_json::from_slice(&text).unwrap(),
        main,
        others,
    })
}

fn run(recording: &Recording, pipe: bool) -> Analysis {
    let mut main: Box<dyn Input> = if pipe {
        Box::new(ReadInput::new(&*recording.main))
    } else {
        Box::new(SliceInput::new(&recording.main))
    };
    let mut channels: Vec<Box<dyn Input>> = recording
        .others
        .iter()
        .map(|bytes| Box::new(SliceInput::new(bytes)) as Box<dyn Input>)
        .collect();
    let page_size = if pipe {
        recording.sidecar["vmdesc"]["page_size"].as_u64()
    } else {
        None
    };
    let options = Options {
        digest: true,
        verify: true,
        page_size,
        ..Options::default()
    };
    analyze(&mut *main, &mut channels, &options)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What is wrong with an analysis, as lines.
fn complaints(recording: &Recording, analysis: &Analysis) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(failure) = &analysis.failure {
        lines.push(failure.to_string());
        return lines;
    }
    let report = &analysis.report;
    lines.extend(report.problems.iter().map(|p| p.text.clone()));
    if report.length != recording.main.len() as u64 {
        lines.push(format!(
            "{} of {} bytes",
            report.length,
            recording.main.len()
        ));
    }
    if let Some(expected) = recording.sidecar["sections"].as_array() {
        let found: Vec<_> = report
            .sections
            .iter()
            .map(|s| serde_json::json!([s.section_id, s.idstr, s.instance_id, s.version_id]))
            .collect();
        if *expected != found {
            lines.push("other sections than the sidecar says".to_owned());
        }
    }
    if let Some(expected) = recording.sidecar["ram_blocks"].as_array() {
        for block in expected {
            let name = block["name"]
                .as_str()
                .or(block["idstr"].as_str())
                .unwrap_or_default();
            let Some(sha256) = block["sha256"].as_str() else {
                continue;
            };
            let found = report
                .ram
                .blocks
                .iter()
                .find(|b| b.name.as_bytes() == name.as_bytes())
                .and_then(|b| b.sha256);
            if found.map(|d| hex(&d)).as_deref() != Some(sha256) {
                lines.push(format!("block {name}: another digest than the sidecar's"));
            }
        }
    }
    lines
}

#[test]
fn recorded_streams_are_accounted_for_to_the_last_byte() {
    let mut paths = Vec::new();
    sidecars(&directory(), &mut paths);
    paths.sort();
    let (mut streams, mut digests) = (0, 0);
    let mut failed = Vec::new();
    for path in paths {
        let Some(recording) = load(&path) else {
            continue;
        };
        streams += 1;
        digests += recording.sidecar["ram_blocks"]
            .as_array()
            .map_or(0, Vec::len);
        let mut again = Vec::new();
        let input = &mut SliceInput::new(&recording.main);
        match rewrite(input, &mut again, &Options::default()) {
            Err(e) => failed.push(format!("{} (rewrite): {e}", recording.name)),
            Ok(summary) if again != recording.main || summary.carried > 0 => {
                let at = again.iter().zip(&recording.main).position(|(a, b)| a != b);
                failed.push(format!(
                    "{} (rewrite): {summary:?}, first difference at {at:x?}",
                    recording.name
                ));
            }
            Ok(_) => {}
        }
        for pipe in [false, true] {
            let analysis = run(&recording, pipe);
            for line in complaints(&recording, &analysis) {
                let how = if pipe { "pipe" } else { "file" };
                failed.push(format!("{} ({how}): {line}", recording.name));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{streams} streams, {} complaints\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(streams >= 16, "{streams} streams only");
    assert!(digests >= 60, "{digests} digests only");
}
