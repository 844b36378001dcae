use super::*;
use vmstate_desc::{
    Codec, Count, CountSource, Description, DescriptionRef, DynState, Element, ErrorKind, Field,
    ListKind, Pointers, Repeat, Scalar, Scalars, Size, TreeKey, Value,
};

fn description(fields: Vec<Field>) -> Description {
    Description {
        fields: fields.into(),
        ..Description::new("dev", 1, 1)
    }
}

fn load(d: &Description, bytes: &[u8]) -> Result<(DynState, usize), Error> {
    load_within(d, bytes, Limits::default())
}

fn load_within(d: &Description, bytes: &[u8], limits: Limits) -> Result<(DynState, usize), Error> {
    let mut state = DynState::new(d.clone());
    let result = decode(&mut state, d.version_id, bytes, limits);
    dripping(d, bytes, limits, &state, &result);
    Ok((state, result?))
}

/// Bytes that come one by one, and only as far as somebody waits for them.
struct Drip<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The farthest byte that was waited for.
    asked: usize,
}

impl ByteSource for Drip<'_> {
    fn fill(&mut self, at_least: usize) -> Result<&[u8], Error> {
        assert!(at_least <= MAX_FILL);
        let end = (self.position + at_least).min(self.bytes.len());
        self.asked = self.asked.max(end);
        Ok(&self.bytes[self.position..self.asked])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
        assert!(self.position <= self.asked);
    }

    fn offset(&self) -> u64 {
        self.position as u64
    }
}

/// Loading from bytes that come one by one gives the same, and takes no more than the payload.
fn dripping(
    d: &Description,
    bytes: &[u8],
    limits: Limits,
    expected: &DynState,
    result: &Result<usize, Error>,
) {
    let mut state = DynState::new(d.clone());
    let mut drip = Drip {
        bytes,
        position: 0,
        asked: 0,
    };
    let loaded = decode_from(&mut state, d.version_id, &mut drip, limits);
    match (result, &loaded) {
        (Ok(used), Ok(())) => {
            assert_eq!(&state, expected);
            assert_eq!(drip.position, *used);
        }
        (Err(wanted), Err(found)) if matches!(wanted.kind(), ErrorKind::UnexpectedEnd { .. }) => {
            assert!(
                matches!(found.kind(), ErrorKind::UnexpectedEnd { .. }),
                "{found}"
            );
            assert_eq!(wanted.path(), found.path());
        }
        (Err(wanted), Err(found)) => assert_eq!(wanted, found),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_byte_is_waited_for_that_need_not_come() {
    let d = with_subsection("dev/part");
    for (bytes, payload) in [
        (&b"\x01\x7e\0\0\0\x01"[..], 1),
        (b"\x01\x05\x03dev", 1),
        (b"\x01\x05\xffother", 1),
        (b"\x01\x05\x08dev/part\0\0\0\x01\x02\x7e\0\0\0\x01", 16),
    ] {
        let mut drip = Drip {
            bytes,
            position: 0,
            asked: 0,
        };
        let mut state = DynState::new(d.clone());
        decode_from(&mut state, 1, &mut drip, Limits::default()).unwrap();
        assert_eq!(drip.position, payload, "{bytes:?}");
        assert!(drip.asked < bytes.len(), "{bytes:?}");
    }
}

fn counted(source: &'static str, max: u32) -> Count {
    Count {
        source: CountSource::Field(source.into()),
        multiply: 1,
        max,
    }
}

/// Loads, saves, and wants the same bytes; then every cut of them must be refused with a place.
fn round_trip(d: &Description, bytes: &[u8]) -> DynState {
    let (state, used) = load(d, bytes).unwrap();
    assert_eq!(used, bytes.len());
    let mut again = Vec::new();
    encode(&state, &mut again).unwrap();
    assert_eq!(again, bytes);
    for cut in 0..bytes.len() {
        let e = load(d, &bytes[..cut]).unwrap_err();
        assert!(
            matches!(e.kind(), ErrorKind::UnexpectedEnd { .. }),
            "cut at {cut}: {e}"
        );
        assert!(e.to_string().contains("stream ends inside"), "{e}");
        assert!(e.offset().unwrap() <= cut as u64);
    }
    state
}

#[test]
fn scalars() {
    let codecs = [
        (Codec::Bool, Scalar::Bool(true), "01"),
        (Codec::Int8, Scalar::I8(-2), "fe"),
        (Codec::Int16, Scalar::I16(-2), "fffe"),
        (Codec::Int32, Scalar::I32(-2), "fffffffe"),
        (Codec::Int64, Scalar::I64(-2), "fffffffffffffffe"),
        (Codec::Uint8, Scalar::U8(0x82), "82"),
        (Codec::Uint16, Scalar::U16(0x1234), "1234"),
        (Codec::Uint32, Scalar::U32(0x1234_5678), "12345678"),
        (Codec::Uint64, Scalar::U64(1 << 63), "8000000000000000"),
        (Codec::Timer, Scalar::I64(-1), "ffffffffffffffff"),
        (Codec::CpuDouble, Scalar::F64(1.5), "3ff8000000000000"),
        (
            Codec::LittleEndian(vmstate_desc::ScalarType::U32),
            Scalar::U32(0x1234_5678),
            "78563412",
        ),
        (
            Codec::LittleEndian(vmstate_desc::ScalarType::I16),
            Scalar::I16(-2),
            "feff",
        ),
    ];
    for (codec, value, hex) in codecs {
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let single = description(vec![Field::value("v", codec.clone())]);
        let state = round_trip(&single, &bytes);
        assert_eq!(state.get("v"), Some(&Value::Scalar(value)), "{codec:?}");
        let array = description(vec![Field::value("v", codec).array(3)]);
        round_trip(&array, &bytes.repeat(3));
    }
}

#[test]
fn a_bool_of_another_byte_survives() {
    let d = description(vec![
        Field::value("one", Codec::Bool),
        Field::value("many", Codec::Bool).array(2),
    ]);
    let state = round_trip(&d, &[2, 1, 0xff]);
    assert_eq!(state.get("one"), Some(&Value::OddBool(2)));
}

#[test]
fn equality_and_bounds_are_checked_against_the_target() {
    // A run-time state has no value of its own; a compiled one does.
    struct Dev(u32, i32);
    static D: Description = Description::new("dev", 1, 1).with_fields(
        const {
            &[
                Field::value("same", Codec::Uint32Equal),
                Field::value("most", Codec::Int32Le),
            ]
        },
    );
    impl SaveState for Dev {
        fn description(&self) -> DescriptionRef {
            (&D).into()
        }
        fn save_field(
            &self,
            field: usize,
            sink: &mut dyn vmstate_desc::SaveField,
        ) -> Result<(), Error> {
            sink.scalar(if field == 0 {
                Scalar::U32(self.0)
            } else {
                Scalar::I32(self.1)
            })
        }
    }
    impl LoadState for Dev {
        fn load_field(
            &mut self,
            field: usize,
            source: &mut dyn vmstate_desc::LoadField,
        ) -> Result<(), Error> {
            if field == 0 {
                source.scalar(Some(Scalar::U32(self.0)))?;
            } else if let Scalar::I32(v) = source.scalar(Some(Scalar::I32(self.1)))? {
                self.1 = v;
            }
            Ok(())
        }
    }
    let try_load = |same: u32, most: i32| {
        let mut bytes = same.to_be_bytes().to_vec();
        bytes.extend(most.to_be_bytes());
        let mut dev = Dev(7, 10);
        decode(&mut dev, 1, &bytes, Limits::default()).map(|_| dev.1)
    };
    assert_eq!(try_load(7, 10).unwrap(), 10);
    assert_eq!(try_load(7, 0).unwrap(), 0);
    assert_eq!(
        try_load(8, 10).unwrap_err().to_string(),
        "dev/same: must equal the destination's value 7, found 8 (byte 0x0)"
    );
    assert_eq!(
        try_load(7, 11).unwrap_err().to_string(),
        "dev/most: value 11 is outside of 0..=10 (byte 0x4)"
    );
    assert!(try_load(7, -1).is_err());
}

#[test]
fn counts_are_bounded() {
    let mut array = Field::value("a", Codec::Uint16);
    array.repeat = Repeat::Counted(counted("n", 3));
    let d = description(vec![Field::value("n", Codec::Uint32), array]);
    round_trip(&d, &[0, 0, 0, 2, 0, 1, 0, 2]);
    let e = load(&d, &[0xff; 64]).unwrap_err();
    assert_eq!(
        e.to_string(),
        "dev/a: count 4294967295 is outside of 0..=3 (byte 0x4)"
    );
    let mut array = Field::value("a", Codec::Uint8);
    array.repeat = Repeat::Counted(counted("n", u32::MAX));
    let signed = description(vec![Field::value("n", Codec::Int32), array.clone()]);
    let e = load(&signed, &[0xff; 64]).unwrap_err();
    assert!(e.to_string().contains("count -1 is outside"), "{e}");
    // Four billion, allowed by the description: memory grows with what has come, not with what is claimed.
    let d = description(vec![Field::value("n", Codec::Uint32), array]);
    let e = load(&d, &[0xff; 64]).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::UnexpectedEnd { .. }), "{e}");
}

#[test]
fn buffers_bitmaps_and_byte_arrays() {
    let d = description(vec![
        Field::value("n", Codec::Uint8),
        Field::value("fixed", Codec::Buffer(Size::Fixed(3))),
        Field::value("counted", Codec::Buffer(Size::Counted(counted("n", 9)))),
        Field::value("bits", Codec::Bitmap(Size::Counted(counted("n", 90)))),
        Field::value("bytes", Codec::ByteArray { max: 4 }),
        Field::value("capability", Codec::Capability),
    ]);
    let mut bytes = vec![2, 1, 2, 3, 0xaa, 0xbb];
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 3]);
    bytes.extend([0, 0, 0, 2, 8, 9]);
    bytes.extend(b"\x04xyzw");
    let state = round_trip(&d, &bytes);
    assert_eq!(
        state.get("bits"),
        Some(&Value::Scalars(Scalars::U64(vec![3])))
    );
    bytes[17] = 5;
    let e = load(&d, &bytes).unwrap_err();
    assert!(e.to_string().starts_with("dev/bytes: length 5"), "{e}");
}

#[test]
fn capabilities_in_an_array_each_have_their_length() {
    let d = description(vec![
        Field::value("caps_count", Codec::Uint32),
        Field {
            repeat: Repeat::Counted(counted("caps_count", 9)),
            ..Field::value("capabilities", Codec::Capability)
        },
    ]);
    let state = round_trip(&d, b"\0\0\0\x02\x04abcd\x01e");
    assert!(matches!(state.get("capabilities"), Some(Value::List(names)) if names.len() == 2));
}

fn item() -> DescriptionRef {
    Description {
        fields: vec![Field::value("x", Codec::Uint8)].into(),
        ..Description::new("item", 0, 0)
    }
    .into()
}

#[test]
fn lists_and_trees() {
    let list = description(vec![Field::new(
        "l",
        Element::List(ListKind::QTailq, item()),
    )]);
    round_trip(&list, &[1, 5, 1, 6, 0]);
    // Any byte but zero announces an element.
    let (state, _) = load(&list, &[9, 5, 0]).unwrap();
    assert!(matches!(state.get("l"), Some(Value::List(items)) if items.len() == 1));
    let tree = |key| description(vec![Field::new("t", Element::Tree { key, value: item() })]);
    let direct = tree(TreeKey::Direct);
    let node = [1, 0, 0, 0, 0, 0, 0, 0, 7, 5];
    let mut bytes = vec![0, 0, 0, 1];
    bytes.extend(node);
    bytes.push(0);
    round_trip(&direct, &bytes);
    round_trip(&tree(TreeKey::Struct(item())), &[0, 0, 0, 1, 1, 2, 3, 0]);
    for announced in [0, 2] {
        bytes[3] = announced;
        let e = load(&direct, &bytes).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::TreeCount { .. }), "{e}");
    }
}

/// Loops of hand-written code: Slirp's sockets, virtqueues.
#[test]
fn hand_written_lists() {
    let list = |kind| description(vec![Field::new("l", Element::List(kind, item()))]);
    let marked = |lenient| ListKind::Marked {
        more: 42,
        stop: 0,
        lenient,
    };
    for lenient in [false, true] {
        round_trip(&list(marked(lenient)), &[42, 5, 42, 6, 0]);
        round_trip(&list(marked(lenient)), &[0]);
    }
    let (state, _) = load(&list(marked(true)), &[9, 5, 0]).unwrap();
    assert!(matches!(state.get("l"), Some(Value::List(items)) if items.len() == 1));
    let e = load(&list(marked(false)), &[42, 5, 9, 6, 0]).unwrap_err();
    assert_eq!(
        e.to_string(),
        "dev/l: marker 0x09 is neither 0x2a (another element) nor 0x00 (the end) (byte 0x2)"
    );
    for width in [1, 2, 4, 8] {
        let d = list(ListKind::Prefixed(width));
        for count in [0, 3] {
            let mut bytes = vec![0; width.into()];
            bytes[usize::from(width) - 1] = count;
            bytes.extend(0..count);
            let state = round_trip(&d, &bytes);
            assert!(
                matches!(state.get("l"), Some(Value::List(items)) if items.len() == count.into())
            );
        }
        // A count that promises more than there is.
        let e = load(&d, &vec![0x11; width.into()]).unwrap_err();
        match width {
            8 => assert!(matches!(e.kind(), ErrorKind::OutOfRange { .. }), "{e}"),
            _ => assert!(matches!(e.kind(), ErrorKind::UnexpectedEnd { .. }), "{e}"),
        }
    }
    let many = Value::List(vec![Value::Struct(Box::new(DynState::new(item()))); 256]);
    let mut state = DynState::new(list(ListKind::Prefixed(1)));
    assert!(state.set("l", many));
    let e = encode(&state, &mut Vec::new()).unwrap_err();
    assert!(e.to_string().contains("256 elements are too many"), "{e}");
}

#[test]
fn a_list_without_end_stops_at_the_memory_limit() {
    let list = description(vec![Field::new(
        "l",
        Element::List(ListKind::QList, item()),
    )]);
    let endless = vec![1; 1 << 20];
    let limits = Limits {
        memory: 1 << 20,
        ..Limits::default()
    };
    let e = load_within(&list, &endless, limits).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Memory { .. }), "{e}");
}

#[test]
fn s1_1_marked_pointers_come_from_the_stream() {
    let mut f = Field::new("p", Element::Struct(item())).array(3);
    f.pointers = Pointers::MarkEvery;
    f.object_size = Some(1);
    let d = description(vec![f]);
    round_trip(&d, b"1\x070\x31\x09");
    let e = load(&d, b"1\x072\x31\x09").unwrap_err();
    assert_eq!(
        e.to_string(),
        "dev/p[1]: marker 0x32 is neither 0x30 (absent) nor 0x31 (present) (byte 0x2)"
    );
}

#[test]
fn s1_2_absent_pointers_must_agree() {
    let mut f = Field::value("p", Codec::Uint32).array(3);
    f.pointers = Pointers::MarkAbsent;
    let d = description(vec![f]);
    let mut state = DynState::new(d);
    let holes = vec![Value::Unset, Value::Absent, Value::Unset];
    state.set("p", Value::List(holes));
    let bytes = [0, 0, 0, 7, 0x30, 0, 0, 0, 9];
    let used = decode(&mut state, 1, &bytes, Limits::default()).unwrap();
    assert_eq!(used, 9);
    let mut again = Vec::new();
    encode(&state, &mut again).unwrap();
    assert_eq!(again, bytes);
    let e = decode(
        &mut state,
        1,
        &[0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9],
        Limits::default(),
    )
    .unwrap_err();
    assert_eq!(
        e.to_string(),
        "dev/p[1]: marker 0x00 is neither 0x30 (absent, as in the destination) (byte 0x4)"
    );
}

fn with_subsection(name: &'static str) -> Description {
    let sub = Description {
        fields: vec![Field::value("s", Codec::Uint8)].into(),
        ..Description::new(name, 1, 1)
    };
    Description {
        subsections: vec![DescriptionRef::from(sub)].into(),
        ..description(vec![Field::value("a", Codec::Uint8)])
    }
}

#[test]
fn subsections_are_looked_ahead_for() {
    let d = with_subsection("dev/part");
    let mut bytes = vec![1];
    bytes.extend(b"\x05\x08dev/part\0\0\0\x01\x2a");
    let (state, used) = load(&d, &bytes).unwrap();
    assert_eq!(used, bytes.len());
    assert_eq!(state.subsections().count(), 1);
    let mut again = Vec::new();
    encode(&state, &mut again).unwrap();
    assert_eq!(again, bytes);
    // Absent, or somebody else's: the bytes are left alone.
    for rest in [
        &b""[..],
        b"\x7e",
        b"\x05",
        b"\x05\x03dev",
        b"\x05\x08dex/part",
        b"\x05\x40dev/part",
    ] {
        let mut bytes = vec![1];
        bytes.extend(rest);
        assert_eq!(load(&d, &bytes).unwrap().1, 1, "{rest:?}");
    }
    let e = load(&d, b"\x01\x05\x08dev/none\0\0\0\x01").unwrap_err();
    assert_eq!(
        e.to_string(),
        "dev: subsection dev/none does not exist in dev (known: dev/part) (byte 0x1)"
    );
    // Only the low byte of the version counts.
    let mut odd = bytes.clone();
    odd[11] = 7;
    assert_eq!(load(&d, &odd).unwrap().1, odd.len());
    odd[14] = 2;
    let e = load(&d, &odd).unwrap_err();
    assert!(
        matches!(e.kind(), ErrorKind::Version { found: 2, .. }),
        "{e}"
    );
}

#[test]
fn with_more_to_come_the_look_ahead_waits() {
    let d = with_subsection("dev/part");
    for cut in [&b"\x01"[..], b"\x01\x05", b"\x01\x05\x08dev/p"] {
        let mut state = DynState::new(d.clone());
        let mut input = QemuIn::partial(cut);
        let e = vmstate_desc::load(&mut state, 1, &mut input, Limits::default()).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::UnexpectedEnd { .. }), "{e}");
    }
}

#[test]
fn deeply_nested_subsections_are_too_deep() {
    let mut state = DynState::new(chain(200));
    let mut nested = Vec::new();
    let mut name = "d".to_owned();
    for _ in 0..200 {
        name.push('d');
        nested.push(5);
        nested.push(u8::try_from(name.len()).unwrap());
        nested.extend(name.as_bytes());
        nested.extend([0, 0, 0, 1]);
    }
    let e = decode(&mut state, 1, &nested, Limits::default()).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::TooDeep { limit: 64 }), "{e}");
}

/// Descriptions `d`, `dd`, `ddd` …, each a subsection of the one before.
fn chain(depth: usize) -> Description {
    let mut inner: Option<Description> = None;
    for level in (1..=depth).rev() {
        let mut d = Description::new("", 1, 1);
        d.name = "d".repeat(level).into();
        if let Some(inner) = inner.take() {
            d.subsections = vec![DescriptionRef::from(inner)].into();
        }
        inner = Some(d);
    }
    inner.unwrap()
}

#[test]
fn a_struct_child_does_not_inherit_the_version() {
    let child = Description {
        fields: vec![
            Field::value("old", Codec::Uint8),
            Field::value("new", Codec::Uint8).since(2),
        ]
        .into(),
        ..Description::new("child", 2, 1)
    };
    let d = description(vec![
        Field::new("own", Element::Struct(child.clone().into())),
        Field::new("pinned", Element::VersionedStruct(child.into(), 1)),
    ]);
    let state = round_trip(&d, &[1, 2, 3]);
    let Some(Value::Struct(pinned)) = state.get("pinned") else {
        panic!()
    };
    assert_eq!(pinned.get("new"), Some(&Value::Unset));
}
