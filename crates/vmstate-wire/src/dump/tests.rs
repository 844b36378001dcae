use super::*;
use vmstate_desc::{Scalar, Value};

const DUMP: &str = r#"{
  "vmschkmachine": { "Name": "toy-1.0" },
  "toy": {
    "Name": "toy", "version_id": 2, "minimum_version_id": 1,
    "Description": {
      "name": "toy", "version_id": 2, "minimum_version_id": 1,
      "Fields": [
        { "field": "count", "version_id": 0, "field_exists": false, "size": 1 },
        { "field": "data", "version_id": 0, "field_exists": false, "size": 2 },
        { "field": "config", "version_id": 0, "field_exists": true, "size": 5 },
        { "field": "config", "version_id": 0, "field_exists": true, "size": 16 },
        { "field": "late", "version_id": 2, "field_exists": false, "size": 1 },
        { "field": "q", "version_id": 0, "field_exists": false, "num": 2, "size": 24,
          "Description": { "name": "toy-q", "version_id": 1, "minimum_version_id": 1,
            "Fields": [ { "field": "head", "version_id": 0, "field_exists": false, "size": 2 } ] } }
      ],
      "Subsections": [
        { "name": "toy/more", "version_id": 1, "minimum_version_id": 1,
          "Fields": [ { "field": "x", "version_id": 0, "field_exists": false, "size": 8 } ] }
      ]
    }
  }
}"#;

fn payload(version: u32) -> Vec<u8> {
    let mut bytes = vec![3, 0, 1, 0, 2, 0, 3];
    bytes.extend([0xaa; 16]);
    if version >= 2 {
        bytes.push(9);
    }
    bytes.extend([0x12, 0x34, 0x56, 0x78]);
    bytes.extend(b"\x05\x08toy/more\0\0\0\x01\0\0\0\0\0\0\0\x07");
    bytes
}

#[test]
fn counts_conditions_versions_and_subsections_are_found() {
    let dump = Dump::parse(DUMP.as_bytes()).unwrap();
    assert_eq!(dump.machine.as_deref(), Some("toy-1.0"));
    for version in [1, 2] {
        let state = dump
            .decode("0000:00:02.0/toy", version, &payload(version))
            .unwrap();
        let text = format!("{state:?}");
        assert_eq!(
            state.get("count"),
            Some(&Value::Scalar(Scalar::U8(3))),
            "{text}"
        );
        assert_eq!(
            state.get("data"),
            Some(&Value::Scalars(vmstate_desc::Scalars::U16(vec![1, 2, 3]))),
            "{text}"
        );
        assert_eq!(state.get("late").is_some(), version >= 2);
        let sub = state.subsections().next().unwrap();
        assert_eq!(sub.get("x"), Some(&Value::Scalar(Scalar::U64(7))));
    }
}

#[test]
fn what_does_not_fit_is_not_decoded() {
    let dump = Dump::parse(DUMP.as_bytes()).unwrap();
    let bytes = payload(2);
    assert!(dump.decode("toy", 3, &bytes).is_none(), "version");
    assert!(dump.decode("toys", 2, &bytes).is_none(), "name");
    for cut in [0, 1, bytes.len() - 1] {
        assert!(dump.decode("toy", 2, &bytes[..cut]).is_none(), "cut {cut}");
    }
}

#[test]
fn other_texts_are_refused() {
    assert!(matches!(Dump::parse(b"{"), Err(DumpError::Json(_))));
    assert!(matches!(Dump::parse(b"[]"), Err(DumpError::Shape(_))));
    assert!(matches!(Dump::parse(b"{}"), Err(DumpError::Shape(_))));
}
