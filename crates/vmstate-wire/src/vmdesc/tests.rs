use super::*;
use vmstate_desc::{DynState, Scalar, Scalars, Value};

/// A device with one array of pointers to timers, of which some are absent.
fn device(slots: &str, compressible: bool, marks: Pointers) -> DynState {
    let n = u32::try_from(slots.len()).unwrap();
    let mut field = Field::value("t", Codec::Timer).array(n);
    field.pointers = marks;
    field.conditional = !compressible;
    field.object_size = (marks == Pointers::MarkEvery).then_some(8);
    let mut d = Description::new("dev", 1, 1);
    d.fields = vec![field].into();
    let mut state = DynState::new(d);
    let values = slots
        .chars()
        .map(|slot| match slot {
            'A' => Scalar::I64(7).into(),
            _ => Value::Absent,
        })
        .collect();
    state.set("t", Value::List(values));
    state
}

fn entries(state: &DynState, dialect: VmdescDialect) -> Vec<String> {
    let mut vmdesc = Vmdesc::new(dialect, 4096);
    vmdesc.device("dev", 0, state, &mut Vec::new()).unwrap();
    let text = vmdesc.finish();
    let json = Json::parse(text.as_bytes()).unwrap();
    let fields = json.get("devices").unwrap().as_array().unwrap()[0]
        .get("fields")
        .unwrap()
        .as_array()
        .unwrap();
    fields
        .iter()
        .map(|entry| {
            let ty = entry.get("type").unwrap().as_str().unwrap();
            let size = entry.get("size").unwrap().as_u64().unwrap();
            let mut text = match (ty, size) {
                ("timer", 8) => "T".to_owned(),
                ("timer", 1) => "T1".to_owned(),
                ("nullptr" | "ptr-marker", 1) => "0".to_owned(),
                other => panic!("{other:?}"),
            };
            if let Some(len) = entry.get("array_len") {
                text += &format!(" {}", len.as_u64().unwrap());
            }
            if let Some(index) = entry.get("index") {
                text += &format!("@{}", index.as_u64().unwrap());
            }
            text
        })
        .collect()
}

/// The measured table: slots, compressible, and what each generation writes.
#[test]
fn arrays_of_pointers_are_described_as_each_generation_does() {
    let table: &[(&str, bool, [&str; 3])] = &[
        ("AAAA", true, ["T 4", "T 4", "T 4"]),
        (
            "AAAA",
            false,
            ["T@0, T@1, T@2, T@3", "T@0, T@1, T@2, T", "T, T, T, T"],
        ),
        ("NAAA", true, ["T1 4", "0, T 3", "0, T 3"]),
        (
            "NAAA",
            false,
            ["T1@0, T@1, T@2, T@3", "0, T@1, T@2, T", "0, T, T, T"],
        ),
        ("ANAA", true, ["T 4", "T 4, 0, T 2", "T 4, 0, T 2"]),
        ("AAAN", true, ["T 4", "T 4, 0", "T 4"]),
        ("NNNN", true, ["T1 4", "0 4", "0 4"]),
        (
            "NNNN",
            false,
            ["T1@0, T1@1, T1@2, T1@3", "0 4, 0 3, 0 2, 0", "0, 0, 0, 0"],
        ),
        ("A", true, ["T", "T", "T"]),
        ("N", true, ["T1", "0", "0"]),
    ];
    for (slots, compressible, expected) in table {
        let state = device(slots, *compressible, Pointers::MarkAbsent);
        for (dialect, expected) in VmdescDialect::ALL.into_iter().zip(expected) {
            assert_eq!(
                entries(&state, dialect).join(", "),
                *expected,
                "{slots}, compressible {compressible}, {dialect:?}"
            );
        }
    }
}

#[test]
fn s1_4_marked_arrays_are_never_compressed() {
    let state = device("AANN", true, Pointers::MarkEvery);
    let found = entries(&state, VmdescDialect::V11_1).join(", ");
    assert_eq!(found, "0, T, 0, T, 0, 0");
}

/// What a trailer says about an array with holes is enough to read it again, mistakes included.
#[test]
fn described_arrays_are_read_again() {
    for marks in [Pointers::MarkAbsent, Pointers::MarkEvery] {
        for bits in 0..32_u32 {
            for len in 1..=5 {
                let slots: String = (0..len)
                    .map(|i| if bits >> i & 1 == 1 { 'A' } else { 'N' })
                    .collect();
                for dialect in [VmdescDialect::V10_0, VmdescDialect::V11_1] {
                    if marks == Pointers::MarkEvery && dialect == VmdescDialect::V10_0 {
                        continue;
                    }
                    // `N…NA` leaves no word of the last element in 11.1: nothing could repair that.
                    let lost = dialect == VmdescDialect::V11_1
                        && marks == Pointers::MarkAbsent
                        && len > 2
                        && slots.ends_with("NNA")
                        && !slots.starts_with('A')
                        && slots.matches('A').count() == 1;
                    let state = device(&slots, true, marks);
                    let mut bytes = Vec::new();
                    let mut vmdesc = Vmdesc::new(dialect, 4096);
                    vmdesc.device("dev", 0, &state, &mut bytes).unwrap();
                    let text = vmdesc.finish();
                    let trailer = Trailer::parse(text.as_bytes()).unwrap();
                    let entry = trailer.device("dev", 0).unwrap();
                    let decoded =
                        entry.decode(&bytes, 0, false, vmstate_desc::Limits::default(), &|rest| {
                            rest.is_empty()
                        });
                    if lost {
                        assert!(decoded.is_err(), "{slots} {dialect:?}");
                        continue;
                    }
                    let decoded =
                        decoded.unwrap_or_else(|e| panic!("{slots} {dialect:?}: {e}\n{text}"));
                    let mut again = Vec::new();
                    crate::codec::encode(&decoded.state, &mut again).unwrap();
                    assert_eq!(again, bytes, "{slots} {dialect:?}");
                }
            }
        }
    }
}

#[test]
fn namesakes_are_numbered_and_text_is_escaped() {
    let mut d = Description::new("d\"\u{7f}", 1, 1);
    d.fields = vec![
        Field::value("config", Codec::Uint8),
        Field::value("config", Codec::Uint16).conditional(),
        Field::value("config", Codec::Uint32),
    ]
    .into();
    let mut state = DynState::new(d);
    state.set_value(0, Scalar::U8(1));
    state.set_value(2, Scalar::U32(3));
    let mut vmdesc = Vmdesc::new(VmdescDialect::V7_2, 4096);
    vmdesc.device("d", 0, &state, &mut Vec::new()).unwrap();
    assert_eq!(
        vmdesc.finish(),
        r#"{"page_size": 4096, "devices": [{"name": "d", "instance_id": 0, "vmsd_name": "d\"\u007F", "version": 1, "fields": [{"name": "config[0]", "type": "uint8", "size": 1}, {"name": "config[2]", "type": "uint32", "size": 4}]}]}"#
    );
}

/// As QEMU 11.1 saves `sd-card`: what comes once more is the next of that name.
#[test]
fn subsections_of_one_name_come_in_their_order() {
    let part = |codec| {
        let mut d = Description::new("dev/part", 1, 1);
        d.fields = vec![Field::value("a", codec)].into();
        d.into()
    };
    let mut d = Description::new("dev", 1, 1);
    d.subsections = vec![part(Codec::Uint8), part(Codec::Uint32)].into();
    let mut state = DynState::new(d);
    let values = [Scalar::U8(1), Scalar::U32(0x0203_0405)];
    for (index, value) in values.into_iter().enumerate() {
        let description = state.description().subsections()[index].clone();
        let mut sub = DynState::new(description);
        sub.set_value(0, value);
        assert!(state.set_subsection(index, Some(sub)));
    }
    let mut bytes = Vec::new();
    let mut vmdesc = Vmdesc::new(VmdescDialect::V11_1, 4096);
    vmdesc.device("dev", 0, &state, &mut bytes).unwrap();
    let text = vmdesc.finish();
    let trailer = Trailer::parse(text.as_bytes()).unwrap();
    let entry = trailer.device("dev", 0).unwrap();
    let decode = |bytes: &[u8]| {
        let limits = vmstate_desc::Limits::default();
        entry.decode(bytes, 0, false, limits, &|rest| rest.is_empty())
    };
    let decoded = decode(&bytes).unwrap();
    let mut again = Vec::new();
    crate::codec::encode(&decoded.state, &mut again).unwrap();
    assert_eq!(again, bytes);
    // Header of 14 bytes and one byte; header and four bytes.
    assert_eq!(bytes.len(), 15 + 18);
    let third = bytes[15..].to_vec();
    assert!(decode(&[bytes.clone(), third].concat()).is_err());
}

#[test]
fn numbers() {
    for n in [0, 9, 10, 4096, u64::from(u32::MAX), u64::MAX] {
        let mut text = String::new();
        number(&mut text, n);
        assert_eq!(text, n.to_string());
    }
}

/// Texts of constant fields are kept for all of a program's life: they must be those that a walk writes.
#[test]
fn kept_texts_are_those_of_a_walk() {
    use vmstate_desc::Size;
    static DEVICE: Description = Description::new("kept", 1, 1).with_fields(
        const {
            &[
                Field::value("a", Codec::Uint32),
                Field::value("three", Codec::Uint16).array(3),
                Field::value("a", Codec::Int8),
                Field::value("one", Codec::Timer).array(1),
                Field::value("gap", Codec::Unused(4)),
                Field::value("bytes", Codec::Buffer(Size::Fixed(5))),
            ]
        },
    );
    // The same description in memory of its own, for which nothing is kept.
    let owned = || {
        let mut d = DEVICE.clone();
        d.name = String::from("kept").into();
        d.fields = d.fields().to_vec().into();
        d
    };
    let fill = |mut state: DynState, seed: u8| {
        state.set("three", Value::Scalars(Scalars::U16(vec![seed.into(); 3])));
        state.set("one", Value::Scalars(Scalars::I64(vec![seed.into()])));
        state.set("bytes", Value::Scalars(Scalars::U8(vec![seed; 5])));
        state.set_value(0, Scalar::U32(seed.into()));
        state.set_value(2, Scalar::I8(1));
        state
    };
    let text = |dialect, state: &DynState| {
        let mut vmdesc = Vmdesc::new(dialect, 4096);
        vmdesc.device("dev", 0, state, &mut Vec::new()).unwrap();
        vmdesc.finish()
    };
    for dialect in VmdescDialect::ALL {
        let walked = text(dialect, &fill(DynState::new(owned()), 1));
        assert!(walked.contains(r#""a[1]""#), "{walked}");
        for seed in 0..3 {
            assert_eq!(text(dialect, &fill(DynState::new(&DEVICE), seed)), walked);
        }
    }
    assert!(Texts::of(&owned(), VmdescDialect::V11_1).is_none());
    let texts = Texts::of(&DEVICE, VmdescDialect::V11_1).unwrap();
    assert_eq!(
        texts.field(2),
        Some(r#"{"name": "a[1]", "type": "int8", "size": 1}"#)
    );
}
