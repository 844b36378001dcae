//! `vmstate schema` and `vmstate check`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::{Streams, json, run, status, stderr, stdout};

impl Streams {
    /// What `-dump-vmstate` of a release wrote.
    fn dump(&self, name: &str) -> PathBuf {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/dumps");
        let packed = fs::read(vectors.join(format!("{name}.json.zst"))).unwrap();
        self.file(name, &zstd::decode_all(&*packed).unwrap())
    }
}

const OLD: &str = "7.2-x86_64-pc-q35-7.2";
const NEW: &str = "11.1-x86_64-pc-q35-7.2";

fn check(from: &Path, to: &Path, more: &[&str]) -> Output {
    let files = [from.to_str().unwrap(), to.to_str().unwrap()];
    run(["check"].iter().chain(&files).chain(more))
}

fn asked(from: &Path, to: &Path, more: &[&str]) -> (i32, Value) {
    let more: Vec<&str> = more.iter().copied().chain(["--format", "json"]).collect();
    let output = check(from, to, &more);
    (status(&output), json(&output))
}

/// Rule and severity of what is found at a place.
fn found(answer: &Value, section: &str, path: &str) -> (String, String) {
    let findings = answer["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(|f| f["section"] == section && f["path"] == path)
        .unwrap_or_else(|| panic!("nothing at {section}: {path}"));
    let text = |key: &str| finding[key].as_str().unwrap().to_owned();
    (text("rule"), text("severity"))
}

#[test]
fn a_release_loads_its_own_streams() {
    let streams = Streams::new();
    let stream = streams.recorded("pc-11.1-smp4.main.bin");
    let dump = streams.dump("11.1-x86_64-pc-i440fx-11.1");
    let (code, answer) = asked(&stream, &dump, &[]);
    assert_eq!(code, 0, "{answer:#}");
    assert_eq!(answer["compatible"], json!(true));
    assert!(answer["compared"].as_u64().unwrap() >= 20);
    // And the other way round: the machine, as its dump describes it, against what it wrote.
    let (code, answer) = asked(&dump, &stream, &["--both"]);
    assert_eq!(code, 0, "{answer:#}");
    let (code, answer) = asked(&stream, &stream, &["--both", "--strict"]);
    assert_eq!((code, &answer["findings"]), (0, &json!([])));
}

#[test]
fn a_new_release_loads_what_an_old_one_wrote() {
    let streams = Streams::new();
    let stream = streams.recorded("q35-7.2-virtio.main.bin");
    let (code, answer) = asked(&stream, &streams.dump(NEW), &["--machine", "pc-q35-7.2"]);
    assert_eq!(code, 0, "{answer:#}");
    // Renamed, at the same place: the static checker's complaint, too.
    let place = found(&answer, "hpet/0", "num_timers_save");
    assert_eq!(place, ("C07".to_owned(), "suspect".to_owned()));
    let (code, _) = asked(&stream, &streams.dump(NEW), &["--strict"]);
    assert_eq!(code, 1);
    // Another machine type.
    let dump = streams.dump("11.1-x86_64-pc-i440fx-11.1");
    let (code, answer) = asked(&stream, &dump, &[]);
    assert_eq!(code, 1);
    let place = found(&answer, "configuration", "");
    assert_eq!(place, ("N08".to_owned(), "break".to_owned()));
}

#[test]
fn dumps_of_two_releases() {
    let streams = Streams::new();
    let (old, new) = (streams.dump(OLD), streams.dump(NEW));
    let (code, answer) = asked(&old, &new, &["--both"]);
    assert_eq!(code, 1);
    let at = |section, path| {
        let (rule, severity) = found(&answer, section, path);
        format!("{rule} {severity}")
    };
    // A field behind all that the old side has, in a structure whose version does not travel.
    assert_eq!(at("am53c974", "esp"), "C36 note");
    assert_eq!(at("am53c974", "esp/drq_state"), "C02 break");
    assert_eq!(at("am53c974", "esp/data_ready"), "C07 suspect");
    assert_eq!(at("am53c974", "esp/{esp/pdma}"), "C16 value");
    // Five fields became unused bytes, twenty-seven a structure.
    assert_eq!(at("sb16", "unused"), "C05 note");
    assert_eq!(at("isa-vga", "state"), "C20 ok");
    assert_eq!(at("isa-vga", ""), "C23 break");
    let findings = answer["findings"].as_array().unwrap();
    let nvme = findings.iter().filter(|f| f["section"] == "nvme");
    assert!(nvme.clone().any(|f| f["rule"] == "C32"), "{answer:#}");
    assert_eq!(at("qxl", ""), "C22 break");
    // What this machine has of them.
    let stream = streams.recorded("q35-7.2-virtio.main.bin");
    let used = ["--used-by", stream.to_str().unwrap()];
    let (code, answer) = asked(&old, &new, &used);
    assert_eq!(code, 0, "{answer:#}");
    let (code, answer) = asked(&old, &new, &["--section", "hpet"]);
    assert_eq!((code, &answer["compared"]), (0, &json!(1)));
}

#[test]
fn the_report_is_for_people() {
    let streams = Streams::new();
    let (old, new) = (streams.dump(OLD), streams.dump(NEW));
    let output = check(&old, &new, &["--section", "*c*974*", "--section", "dc390"]);
    assert_eq!(status(&output), 1);
    let text = stdout(&output);
    assert!(text.starts_with("NOT COMPATIBLE: "), "{text}");
    let expected = "\
breaks: 2 differences, of 1 kind
  C02 field added without a version
      in   am53c974: esp
           dc390: esp
      what drq_state: none -> 1 byte in memory
      do   raise the version and give the field that version, or put it into a subsection
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn exceptions_are_told() {
    let streams = Streams::new();
    let (old, new) = (streams.dump(OLD), streams.dump(NEW));
    let exceptions = streams.file(
        "exceptions",
        br#"{"format": "vmstate-exceptions/1", "exceptions": [
            {"rule": "C02", "section": "am53c974", "path": "esp/drq_state", "reason": "no such controller here"},
            {"rule": "C12", "section": "x", "reason": "gone"}]}"#,
    );
    let exceptions = exceptions.to_str().unwrap();
    let more = ["--section", "am53c974", "--exceptions", exceptions];
    let output = check(&old, &new, &more);
    assert_eq!(status(&output), 0, "{}", stdout(&output));
    let text = stdout(&output);
    assert!(
        text.contains("C02 am53c974: esp/drq_state: no such controller here"),
        "{text}"
    );
    assert!(text.contains("unused exception: C12 x * (gone)"), "{text}");
}

#[test]
fn schemas_are_documents_that_can_be_compared() {
    let streams = Streams::new();
    let stream = streams.recorded("spike-11.1.main.bin");
    let path = stream.to_str().unwrap();
    let document = run(["schema", path, "--as", "document"]);
    assert_eq!(status(&document), 0, "{}", stderr(&document));
    let document = streams.file("document", &document.stdout);
    let schema = run(["schema", document.to_str().unwrap()]);
    let json = json(&schema);
    assert_eq!(
        json["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(json["properties"]["machine"], json!({"const": "spike"}));
    let schema = streams.file("schema", &schema.stdout);
    for (from, to) in [
        (&stream, &document),
        (&document, &schema),
        (&schema, &stream),
    ] {
        let (code, answer) = asked(from, to, &["--both", "--strict"]);
        assert_eq!((code, &answer["findings"]), (0, &json!([])));
    }
    // A field that the destination does not know.
    let text = fs::read_to_string(&document).unwrap();
    let changed = text.replace(
        r#""name":"cpu_ticks_offset","kind":"int64""#,
        r#""name":"cpu_ticks_offset","kind":"int32""#,
    );
    assert_ne!(changed, text);
    let changed = streams.file("changed", changed.as_bytes());
    let (code, answer) = asked(&document, &changed, &[]);
    assert_eq!(code, 1);
    let place = found(&answer, "timer/0", "cpu_ticks_offset");
    assert_eq!(place, ("C09".to_owned(), "break".to_owned()));
    assert_eq!(answer["verdicts"]["ber_backward"], "ok");
}

#[test]
fn what_cannot_be_asked() {
    let streams = Streams::new();
    let stream = streams.recorded("spike-11.1.main.bin");
    let stream = stream.to_str().unwrap();
    let other = streams.file("other", b"{\"x\": 1}");
    let other = other.to_str().unwrap();
    let broken = streams.file("broken", b"{\"format\": \"vmstate-schema/1\"}");
    for arguments in [
        &["check", stream][..],
        &["check", stream, "/no/such/file"],
        &["check", stream, other],
        &["check", stream, broken.to_str().unwrap()],
        &["check", "-", "-"],
        &["check", stream, stream, "--machine", "virt"],
        &["check", stream, stream, "--exceptions", other],
        &["check", stream, stream, "--exceptions", "/no/such/file"],
        &["schema", other],
        &["schema", "/no/such/file"],
    ] {
        let output = run(arguments);
        assert_eq!(status(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    // A corrupt stream is an answer, here as elsewhere.
    let cut = streams.file("cut", &fs::read(stream).unwrap()[..1000]);
    let output = run(["check", cut.to_str().unwrap(), stream]);
    assert_eq!((status(&output), stdout(&output)), (1, ""));
}

/// No section, no yes.
#[test]
fn a_question_about_nothing_has_no_answer() {
    let streams = Streams::new();
    let (old, new) = (streams.dump(OLD), streams.dump(NEW));
    let spike = streams.recorded("spike-11.1.main.bin");
    let spike = spike.to_str().unwrap();
    let output = check(&old, &new, &["--section", "no-such-*", "--strict"]);
    assert_eq!((status(&output), stdout(&output)), (2, ""));
    let text = stderr(&output);
    assert!(
        text.contains("nothing was compared") && text.contains("--section no-such-*"),
        "{text}"
    );
    let pc = streams.recorded("pc-11.1-smp4.main.bin");
    let output = check(&pc, &pc, &["--section", "no-such-*", "--format", "json"]);
    assert_eq!((status(&output), stdout(&output)), (2, ""));
    // A board whose devices none of these machines has.
    let output = check(&old, &new, &["--used-by", spike, "--section", "riscv*"]);
    assert_eq!((status(&output), stdout(&output)), (2, ""));
    assert!(stderr(&output).contains("nothing was compared"));
}
