//! Every recorded stream goes to JSON and back, byte by byte; so does one that comes from BER. A value can be changed on the way.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use vmstate_io::SliceInput;
use vmstate_io::convert::{ConvertError, Format, Options, Summary, convert};

fn recorded() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".main.bin.zst") {
            found.push((name, zstd::decode_all(&*fs::read(&path).unwrap()).unwrap()));
        }
    }
    assert!(found.len() >= 16);
    found
}

fn to(format: Format, bytes: &[u8]) -> Result<(Vec<u8>, Summary), ConvertError> {
    let mut out = Vec::new();
    let options = Options::default();
    let summary = convert(&mut SliceInput::new(bytes), &mut out, format, &options)?;
    Ok((out, summary))
}

#[test]
fn there_and_back() {
    let mut devices = 0;
    for (name, stream) in recorded() {
        let (json, summary) = to(Format::Json, &stream).unwrap();
        devices += summary.devices;
        let (again, back) = to(Format::Qemu, &json).unwrap();
        assert!(again == stream, "{name}");
        assert_eq!(back.devices, summary.devices, "{name}");
        let carried: Vec<_> = summary.carried.iter().map(|c| &c.section).collect();
        assert!(
            summary.devices >= 2 * carried.len() as u64,
            "{name}: {carried:?}"
        );
    }
    assert!(devices > 300, "{devices}");
}

fn spike() -> Vec<u8> {
    let mut streams = recorded().into_iter();
    streams
        .find(|(name, _)| name.starts_with("spike-11.1.main"))
        .unwrap()
        .1
}

#[test]
fn ber_goes_through_json_too() {
    let stream = spike();
    let (ber, _) = to(Format::Ber, &stream).unwrap();
    let (json, _) = to(Format::Json, &ber).unwrap();
    let (again, _) = to(Format::Ber, &json).unwrap();
    assert!(again == ber);
    assert!(to(Format::Qemu, &again).unwrap().0 == stream);
    assert!(matches!(
        to(Format::Json, &json),
        Err(ConvertError::SameFormat)
    ));
}

#[test]
fn a_value_can_be_changed() {
    let stream = spike();
    let (text, _) = to(Format::Json, &stream).unwrap();
    let json: Value = serde_json::from_slice(&text).unwrap();
    let clock = |json: &Value| {
        let elements = json["elements"].as_array().unwrap();
        elements
            .iter()
            .position(|e| e["section"] == "timer")
            .unwrap()
    };
    let at = clock(&json);
    let mut other = json.clone();
    other["elements"][at]["state"]["cpu_clock_offset"] = json!("12345");
    let (changed, _) = to(Format::Qemu, other.to_string().as_bytes()).unwrap();
    assert_eq!(changed.len(), stream.len());
    let (again, _) = to(Format::Json, &changed).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&again).unwrap(), other);

    let refused = |change: &dyn Fn(&mut Value)| {
        let mut json = json.clone();
        change(&mut json);
        let e = to(Format::Qemu, json.to_string().as_bytes()).unwrap_err();
        assert!(e.is_about_the_stream());
        e.to_string()
    };
    let text = refused(&|j| j["elements"][at]["state"]["cpu_clock_offset"] = json!("x"));
    assert!(
        text.contains("timer/cpu_clock_offset: a decimal number"),
        "{text}"
    );
    assert!(text.starts_with(&format!("element {at}: ")), "{text}");
    assert!(refused(&|j| j["elements"][at]["type"] = json!(999)).contains("no type 999"));
    assert!(refused(&|j| j["elements"][0]["bytes"] = json!("0")).contains("hex digits"));
    assert!(refused(&|j| j["format"] = json!("x")).contains("vmstate-stream/1"));
    assert!(refused(&|j| j["schema"] = json!({})).contains("not a schema document"));
    assert!(refused(&|j| j["elements"] = json!(1)).contains("no elements"));
}
