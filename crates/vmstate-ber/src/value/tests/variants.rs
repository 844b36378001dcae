//! Variants: a case tells its type, and the discriminant has to name it.

use vmstate_desc::{
    Codec, Description, DynState, Element, Error, ErrorKind, Field, Limits, SaveState, Scalar,
    Value, VariantCase, Variants, load_with,
};

use super::{description, moved, u8_field};
use crate::der::DerReader;
use crate::types::TypeTable;
use crate::value::{BerIn, decode_dynamic, encode};

fn named(name: &'static str, fields: Vec<Field>) -> Description {
    Description {
        fields: fields.into(),
        ..Description::new(name, 1, 1)
    }
}

fn variant(name: &'static str, cases: Vec<(i64, Description)>) -> Field {
    let case = |(value, d): (i64, Description)| VariantCase {
        value,
        description: d.into(),
    };
    let cases: Vec<VariantCase> = cases.into_iter().map(case).collect();
    Field::new(
        name,
        Element::Variant(Variants {
            field: "kind".into(),
            cases: cases.into(),
        }),
    )
}

fn line() -> Description {
    named("line", vec![Field::value("level", Codec::Bool)])
}

fn message() -> Description {
    named(
        "message",
        vec![
            Field::value("address", Codec::Uint32),
            Field::value("data", Codec::Uint16),
        ],
    )
}

/// A device that has a line, or from version 2 on a message.
fn device(cases: Vec<(i64, Description)>) -> Description {
    description(
        1,
        vec![u8_field("kind"), variant("target", cases), u8_field("end")],
    )
}

fn both() -> Description {
    device(vec![(0, line()), (3, message())])
}

fn with_line(d: &Description) -> DynState {
    let mut line = DynState::new(line());
    line.set("level", Scalar::Bool(true));
    filled(d, 0, line)
}

fn with_message(d: &Description) -> DynState {
    let mut message = DynState::new(message());
    message.set("address", Scalar::U32(0xfee0_0000));
    message.set("data", Scalar::U16(0x41));
    filled(d, 3, message)
}

fn filled(d: &Description, kind: u8, target: DynState) -> DynState {
    let mut state = DynState::new(d.clone());
    state.set("kind", Scalar::U8(kind));
    state.set("target", target);
    state.set("end", Scalar::U8(0xee));
    state
}

fn encoded(state: &DynState) -> (TypeTable, crate::types::TypeIndex, Vec<u8>) {
    let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
    let ty = encode(state, &mut types, &mut bytes).unwrap();
    (types, ty, bytes)
}

#[test]
fn a_case_tells_its_type_and_its_version() {
    let (types, ty, bytes) = encoded(&with_line(&both()));
    // Types 1 and 2 are those of the cases.
    assert_eq!(
        bytes,
        [
            0x30, 20, 2, 1, 0, 0xa2, 11, 2, 1, 1, 2, 1, 1, 0x30, 3, 1, 1, 0xff, 2, 2, 0, 0xee
        ][..],
    );
    let def = &types.get(ty).unwrap().fields[1];
    assert_eq!(def.variants.as_ref().unwrap().cases, [(0, 1), (3, 2)]);
}

#[test]
fn what_is_written_is_read() {
    for state in [with_line(&both()), with_message(&both())] {
        let (to, warnings) = moved(&state, both()).unwrap();
        assert_eq!(to, state);
        assert!(warnings.is_empty());
        let (mut types, ty, bytes) = encoded(&state);
        assert_eq!(*types.description(ty).unwrap(), both());
        let again = decode_dynamic(&mut types, ty, 1, &bytes, 0, Limits::default()).unwrap();
        assert_eq!(again, state);
        let (_, _, twice) = encoded(&again);
        assert_eq!(twice, bytes);
    }
}

#[test]
fn the_digest_is_of_the_cases() {
    let digest = |d: &Description| {
        let mut types = TypeTable::default();
        let ty = types.add(d).unwrap();
        types.digest(ty).unwrap()
    };
    let own = digest(&both());
    assert_eq!(digest(&both()), own);
    let mut wider = message();
    wider.fields = vec![Field::value("address", Codec::Uint64)].into();
    for other in [
        device(vec![(0, line())]),
        device(vec![(0, line()), (4, message())]),
        device(vec![(0, message()), (3, line())]),
        device(vec![(0, line()), (3, wider)]),
    ] {
        assert_ne!(digest(&other), own);
    }
}

#[test]
fn a_reader_needs_only_the_case_that_comes() {
    let own = || device(vec![(0, line())]);
    let (to, _) = moved(&with_line(&both()), own()).unwrap();
    let Some(Value::Struct(target)) = to.get("target") else {
        panic!("{to:?}");
    };
    assert_eq!(target.get("level"), Some(&Scalar::Bool(true).into()));
    let e = moved(&with_message(&both()), own()).unwrap_err();
    assert!(
        matches!(
            e.kind(),
            ErrorKind::UnknownCase { discriminant, found: 3, known } if discriminant == "kind" && known == "0"
        ),
        "{e}"
    );
    assert_eq!(
        e.to_string(),
        "dev/target: kind is 3, for which there is no case (known: 0) (byte 0x105)"
    );
}

#[test]
fn fields_of_a_case_are_found_by_name() {
    let mut other = message();
    other.fields = vec![
        Field::value("data", Codec::Uint32),
        Field::value("pending", Codec::Bool).with_default(),
        Field::value("address", Codec::Uint64),
    ]
    .into();
    let own = device(vec![(0, line()), (3, other), (9, line())]);
    let (to, _) = moved(&with_message(&both()), own).unwrap();
    let Some(Value::Struct(target)) = to.get("target") else {
        panic!("{to:?}");
    };
    let address = target.get("address");
    assert_eq!(address, Some(&Scalar::U64(0xfee0_0000).into()));
    assert_eq!(target.get("data"), Some(&Scalar::U32(0x41).into()));
}

#[test]
fn a_struct_is_no_variant() {
    let plain = |d: Description| {
        let field = Field::new("target", Element::Struct(d.into()));
        description(1, vec![u8_field("kind"), field, u8_field("end")])
    };
    let e = moved(&with_line(&both()), plain(line())).unwrap_err();
    assert_eq!(super::rule(&e), "E-KIND");
    let mut line = DynState::new(line());
    line.set("level", Scalar::Bool(false));
    let e = moved(&filled(&plain(self::line()), 0, line), both()).unwrap_err();
    assert_eq!(super::rule(&e), "E-KIND");
}

/// Loads changed bytes of a state.
fn load(state: &DynState, change: impl FnOnce(&mut Vec<u8>)) -> Result<DynState, Error> {
    let (types, ty, mut bytes) = encoded(state);
    change(&mut bytes);
    let value = DerReader::new(&bytes, 0).any().unwrap();
    let mut to = DynState::new(SaveState::description(state));
    load_with(
        &mut to,
        1,
        &mut BerIn::new(&types, ty, value),
        Limits::default(),
    )?;
    Ok(to)
}

/// Sets an octet that has a known value.
fn set(at: usize, from: u8, to: u8) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| {
        assert_eq!(bytes[at], from, "{bytes:x?}");
        bytes[at] = to;
    }
}

#[test]
fn a_type_that_the_discriminant_does_not_name_is_refused() {
    let state = with_line(&both());
    assert_eq!(load(&state, |_| ()).unwrap(), state);
    // The discriminant says 3, the state is a line.
    let e = load(&state, set(4, 0, 3)).unwrap_err();
    assert_eq!(
        e.to_string(),
        "dev/target: kind is 3, so message is expected, found line (byte 0x5)"
    );
    // The case says that it is a message.
    let e = load(&state, set(9, 1, 2)).unwrap_err();
    assert_eq!(
        e.to_string(),
        "dev/target: kind is 0, so line is expected, found message (byte 0x5)"
    );
    // No such type; another version than the type's; a struct that does not tell its type.
    for change in [set(9, 1, 7), set(12, 1, 2)] {
        assert!(load(&state, change).is_err());
    }
    let bare = |bytes: &mut Vec<u8>| {
        *bytes = vec![0x30, 12, 2, 1, 0, 0x30, 3, 1, 1, 0xff, 2, 2, 0, 0xee];
    };
    let e = load(&state, bare).unwrap_err();
    assert!(e.to_string().contains("a struct expected"), "{e}");
}

#[test]
fn what_a_type_says_about_a_variant_is_checked() {
    use crate::types::{FieldDef, Kind, TypeDef, TypeFlags};
    let (types, ty, _) = encoded(&with_line(&both()));
    let def = (**types.get(ty).unwrap()).clone();
    let description = |change: &dyn Fn(&mut FieldDef)| {
        let mut table = TypeTable::default();
        for ty in types.since(0).iter().take(2) {
            let inserted = table.insert((**ty).clone(), 1, 0, &crate::Limits::default());
            inserted.unwrap();
        }
        let mut def: TypeDef = def.clone();
        def.flags = TypeFlags::default();
        change(&mut def.fields[1]);
        let index = table.insert(def, 1, 0, &crate::Limits::default()).unwrap();
        table.description(index).map_err(|e| e.to_string())
    };
    assert!(description(&|_| ()).is_ok());
    let refused = |change: &dyn Fn(&mut FieldDef)| description(change).unwrap_err();
    let variants = |def: &mut FieldDef, change: &dyn Fn(&mut crate::types::Variants)| {
        change(def.variants.as_mut().unwrap());
    };
    for (change, text) in [
        (
            &(|def: &mut FieldDef| def.variants = None) as &dyn Fn(&mut FieldDef),
            "a variant without its cases",
        ),
        (&|def| def.kind = Kind::Text, "has not"),
        (&|def| def.ty = Some(1), "a type without a struct"),
        (&|def| def.size = Some(1), "encoding of a variant"),
        (
            &|def| variants(def, &|v| v.cases.reverse()),
            "ascending order",
        ),
        (
            &|def| variants(def, &|v| v.cases.clear()),
            "1 to 4096 cases",
        ),
        (
            &|def| variants(def, &|v| v.cases[1].0 = 256),
            "that its discriminant can have",
        ),
        (
            &|def| variants(def, &|v| v.field = "end".to_owned()),
            "before the variant",
        ),
        (&|def| variants(def, &|v| v.cases[0].1 = 9), "type 9"),
        (
            &|def| variants(def, &|v| v.cases[0].1 = 3),
            "contains itself",
        ),
    ] {
        let found = refused(change);
        assert!(found.contains(text), "{found}: {text}");
    }
}
