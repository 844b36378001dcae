//! Another author's validator of JSON Schema 2020-12 accepts the values of every recorded stream, and refuses changed ones.
//!
//! `VMSTATE_PYTHON` names an interpreter that has the package `jsonschema`, else `python3` is tried. Where it is missing, the test
//! says so and passes, unless `VMSTATE_REQUIRE_PYTHON` is set.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use all of it")]
mod router;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vmstate_io::SliceInput;
use vmstate_io::inspect::{Options, Report, analyze};
use vmstate_io::schema::{of_report, values_of};
use vmstate_schema::Schema;
use vmstate_schema::json_schema::{Audience, machine_schema, type_schema};

/// Reads cases from standard input, one in each line, and writes what is wrong with them.
const JUDGE: &str = r#"
import json, sys
from jsonschema import Draft202012Validator as Validator
cases = 0
for line in sys.stdin:
    case = json.loads(line)
    Validator.check_schema(case["schema"])
    validator = Validator(case["schema"])
    for value in case["valid"]:
        cases += 1
        for error in validator.iter_errors(value):
            print(case["name"], "is refused:", error.json_path, error.message[:300])
            break
    for value in case["invalid"]:
        cases += 1
        if validator.is_valid(value["value"]):
            print(case["name"], "is accepted:", value["what"])
print("cases", cases)
"#;

fn python() -> String {
    std::env::var("VMSTATE_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn is_installed() -> bool {
    let found = Command::new(python())
        .args(["-c", "from jsonschema import Draft202012Validator"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        assert!(
            std::env::var_os("VMSTATE_REQUIRE_PYTHON").is_none(),
            "python3 with jsonschema is required and missing"
        );
        let text = "skipped: no Python with the package jsonschema\n";
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    found
}

/// The places of a value, as JSON Pointers, with what stands there.
fn places(value: &Value, pointer: &str, found: &mut Vec<String>) {
    found.push(pointer.to_owned());
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{pointer}/{key}"), found);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate().take(2) {
                places(value, &format!("{pointer}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Values that differ at one place, each in a way that no schema may let through.
fn mutations(state: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    places(state, "", &mut all);
    // A sample: some devices have thousands of places.
    let step = all.len().div_ceil(8);
    let mut made = Vec::new();
    for pointer in all.iter().step_by(step) {
        let mut value = state.clone();
        let Some(place) = value.pointer_mut(pointer) else {
            continue;
        };
        let what = match place {
            Value::Object(members) => {
                members.insert("surprise".to_owned(), json!(1));
                "a key too many"
            }
            Value::Array(_) => {
                *place = json!("many");
                "no array"
            }
            Value::Bool(_) => {
                *place = json!(2);
                "no bool"
            }
            Value::Number(_) => {
                *place = json!(1_u64 << 40);
                "a number too large"
            }
            Value::String(text) => {
                text.push('g');
                "no hex digit"
            }
            Value::Null => continue,
        };
        made.push(json!({"what": format!("{pointer}: {what}"), "value": value}));
    }
    // A field less.
    let scalar = state.as_object().and_then(|members| {
        let found = members.iter().find(|(_, value)| value.is_number());
        found.map(|(key, _)| key.clone())
    });
    if let (Some(key), Some(members)) = (scalar, state.as_object()) {
        let mut members = members.clone();
        members.remove(&key);
        made.push(json!({"what": format!("without {key}"), "value": members}));
    }
    made
}

fn cases(name: &str, report: &Report, lines: &mut Vec<Value>) {
    let schema = of_report(report).unwrap();
    let values = values_of(report).unwrap();
    let sections = values["sections"].as_array().unwrap();
    for section in sections {
        let Some(state) = section.get("state") else {
            continue;
        };
        let known = schema
            .sections
            .iter()
            .find(|s| section["idstr"] == s.idstr && section["instance"] == s.instance_id);
        let ty = known.and_then(|section| section.ty).unwrap();
        lines.push(json!({
            "name": format!("{name} {}", section["idstr"]),
            "schema": type_schema(&schema, ty, Audience::Writer),
            "valid": [state],
            "invalid": mutations(state),
        }));
    }
    lines.push(whole(name, &schema, &values));
}

/// A whole machine.
fn whole(name: &str, schema: &Schema, values: &Value) -> Value {
    let changed = |what: &str, change: &dyn Fn(&mut Value)| {
        let mut value = values.clone();
        change(&mut value);
        json!({"what": what, "value": value})
    };
    let sections = |value: &mut Value, change: &dyn Fn(&mut Vec<Value>)| {
        change(value["sections"].as_array_mut().unwrap());
    };
    json!({
        "name": name,
        "schema": machine_schema(schema, Audience::Writer),
        "valid": [values],
        "invalid": [
            changed("a section less", &|v| sections(v, &|s| drop(s.pop()))),
            changed("a section twice", &|v| sections(v, &|s| s.push(s[0].clone()))),
            changed("another name", &|v| v["sections"][0]["idstr"] = json!("surprise")),
            changed("another version", &|v| v["sections"][0]["version"] = json!(1 << 20)),
            changed("another machine", &|v| v["machine"] = json!("surprise")),
            changed("no state", &|v| {
                v["sections"][0].as_object_mut().unwrap().remove("state");
            }),
        ],
    })
}

#[test]
fn values_are_what_their_schema_says() {
    if !is_installed() {
        return;
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams");
    let mut lines = Vec::new();
    let unions = router::in_ber(&router::Router::new());
    let analysis = analyze(&mut SliceInput::new(&unions), &mut [], &Options::default());
    cases("tagged unions", &analysis.report, &mut lines);
    // There is no machine around it.
    lines.pop();
    let mut streams = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // Without a trailer there is nothing to describe; of a stream with further channels the main one is enough.
        if !name.ends_with(".main.bin.zst") || name.contains("postcopy") {
            continue;
        }
        let bytes = zstd::decode_all(&*fs::read(&path).unwrap()).unwrap();
        let analysis = analyze(&mut SliceInput::new(&bytes), &mut [], &Options::default());
        cases(&name, &analysis.report, &mut lines);
        streams += 1;
    }
    assert!(streams >= 12, "{streams}");
    let mut judge = Command::new(python())
        .args(["-c", JUDGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = judge.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for line in lines {
            writeln!(input, "{line}").unwrap();
        }
    });
    let output = judge.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (complaints, count) = text.trim_end().rsplit_once('\n').unwrap_or(("", &text));
    assert!(output.status.success() && complaints.is_empty(), "{text}");
    let count: usize = count
        .trim()
        .strip_prefix("cases ")
        .unwrap()
        .parse()
        .unwrap();
    assert!(count > 1500, "{count}");
}
