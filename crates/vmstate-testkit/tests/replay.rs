//! Every seed of the fuzz targets, and every input that a fuzzer ever found something with.

use std::fs;
use std::path::{Path, PathBuf};

use vmstate_testkit::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[test]
fn seeds_and_regressions_pass() {
    for target in TARGETS {
        let seeds = files(&fuzz().join("seeds").join(target.name));
        assert!(!seeds.is_empty(), "no seeds for {}", target.name);
        let found = files(&fuzz().join("regressions").join(target.name));
        (target.run)(&[]);
        for path in seeds.iter().chain(&found) {
            println!("{}", path.display());
            (target.run)(&fs::read(path).unwrap());
        }
    }
}

#[test]
fn every_target_is_fuzzed() {
    let mut fuzzed: Vec<_> = files(&fuzz().join("fuzz_targets"))
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    fuzzed.sort();
    let mut known: Vec<_> = TARGETS
        .iter()
        .map(|target| target.name.to_owned())
        .collect();
    known.sort();
    assert_eq!(fuzzed, known);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in known {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
    }
}
