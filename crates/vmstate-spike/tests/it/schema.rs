//! What the machine saves stays what it was, and is what QEMU 11.1 saves.

use std::path::Path;

use vmstate::schema::compare::{Column, Options, compare};
use vmstate::schema::{Schema, SchemaFile, Severity, of_registry};
use vmstate_io::SliceInput;
use vmstate_io::inspect::{self, analyze};
use vmstate_io::schema::of_report;
use vmstate_spike::{Config, Machine};

fn schema() -> Schema {
    let machine = Machine::new(Config::default()).unwrap();
    of_registry(Some("spike"), &machine.registry().unwrap()).unwrap()
}

#[test]
fn the_schema_is_the_one_that_is_kept() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("spike.schema.json");
    SchemaFile::new(path)
        .columns([
            Column::QemuForward,
            Column::QemuBackward,
            Column::BerForward,
        ])
        .assert(&schema());
}

#[test]
fn qemu_loads_what_the_machine_saves_and_the_reverse() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams");
    let bytes = std::fs::read(dir.join("spike-11.1.main.bin.zst")).unwrap();
    let bytes = zstd::decode_all(&*bytes).unwrap();
    let options = inspect::Options::default();
    let analysis = analyze(&mut SliceInput::new(&bytes), &mut [], &options);
    let qemu = of_report(&analysis.report).unwrap();
    let comparison = compare(&qemu, &schema(), &Options::default());
    assert!(comparison.compared >= 4, "{comparison:?}");
    for column in [Column::QemuForward, Column::QemuBackward] {
        let bad: Vec<_> = comparison
            .findings
            .iter()
            .filter(|finding| finding.verdicts.of(column) == Severity::Break)
            .map(ToString::to_string)
            .collect();
        assert_eq!(bad, Vec::<String>::new(), "{column:?}");
    }
}
