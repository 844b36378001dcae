//! A reader that takes another number of elements than its own.

use vmstate_desc::{Count, Scalars, Size};

use super::*;

fn numbers(state: &DynState) -> Vec<u8> {
    match state.get("a") {
        Some(Value::Scalars(Scalars::U8(values))) => values.clone(),
        other => panic!("{other:?}"),
    }
}

/// `len` numbers, counted from 1.
fn writer(field: Field, len: u8) -> DynState {
    let mut state = DynState::new(description(1, vec![field, u8_field("z")]));
    assert!(state.set("a", Value::Scalars(Scalars::U8((1..=len).collect()))));
    assert!(state.set("z", Scalar::U8(9)));
    state
}

fn array(len: u32) -> Field {
    u8_field("a").array(len)
}

/// Loads into a state that has `before`.
fn loaded(from: &DynState, field: Field, before: Vec<u8>) -> Result<DynState, Error> {
    let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
    let ty = encode(from, &mut types, &mut bytes).unwrap();
    let value = DerReader::new(&bytes, 0x100).any().unwrap();
    let to = description(1, vec![field, u8_field("z")]);
    assert_eq!(to.check(), Ok(()));
    let mut to = DynState::new(to);
    to.set("a", Value::Scalars(Scalars::U8(before)));
    to.set_count(0, 4);
    load_with(
        &mut to,
        1,
        &mut BerIn::new(&types, ty, value),
        Limits::default(),
    )?;
    assert_eq!(scalar(&to, "z"), Scalar::U8(9), "what follows");
    Ok(to)
}

#[test]
fn fewer_elements_leave_the_tail_at_its_default() {
    let reader = || array(4).resize_max(4);
    let load = |len: u8, before: &[u8]| {
        let from = writer(array(len.into()), len);
        loaded(&from, reader(), before.to_vec()).map(|to| numbers(&to))
    };
    assert_eq!(load(2, &[0xa, 0xb, 0xc, 0xd]).unwrap(), [1, 2, 0xc, 0xd]);
    assert_eq!(load(4, &[0xa, 0xb, 0xc, 0xd]).unwrap(), [1, 2, 3, 4]);
    // What it does not have, it fills.
    assert_eq!(load(1, &[]).unwrap(), [1, 0, 0, 0]);
    let error = load(5, &[0; 4]).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::OutOfRange {
                what: "number of elements",
                maximum: 4,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("more than 4"), "{error}");
    assert!(error.offset().is_some());
    // Without the attribute, only what it has.
    let short = loaded(&writer(array(2), 2), array(4), vec![0; 4]).unwrap_err();
    assert!(
        matches!(short.kind(), ErrorKind::CountMismatch { .. }),
        "{short}"
    );
}

#[test]
fn counts_of_the_device_and_buffers_too() {
    let counted = || {
        u8_field("a")
            .repeat(Repeat::Counted(Count::of_device("queues", 4)))
            .resize_max(6)
    };
    let load = |field: Field, from: &DynState| loaded(from, field, vec![7; 4]);
    let to = load(counted(), &writer(array(3), 3)).unwrap();
    assert_eq!(numbers(&to), [1, 2, 3, 7]);
    let to = load(counted(), &writer(array(6), 6)).unwrap();
    assert_eq!(numbers(&to), [1, 2, 3, 4, 5, 6]);
    assert!(load(counted(), &writer(array(7), 7)).is_err());
    let buffer = |n| Field::value("a", Codec::Buffer(Size::Fixed(n)));
    let to = load(buffer(4).resize_max(4), &writer(buffer(1), 1)).unwrap();
    assert_eq!(numbers(&to), [1, 7, 7, 7]);
}

#[test]
fn structs_in_runs_are_counted_and_not_expanded_beyond_the_bound() {
    let element = || -> Element { Element::Struct(description(1, vec![u8_field("x")]).into()) };
    let of = |n| Field::new("a", element()).array(n);
    let mut from = DynState::new(description(1, vec![of(1000), u8_field("z")]));
    let one = || {
        let mut one = DynState::new(description(1, vec![u8_field("x")]));
        one.set("x", Scalar::U8(5));
        Value::from(one)
    };
    from.set("a", Value::List((0..1000).map(|_| one()).collect()));
    from.set("z", Scalar::U8(9));
    let xs = |state: &DynState| match state.get("a") {
        Some(Value::List(values)) => values.len(),
        other => panic!("{other:?}"),
    };
    let to = loaded(&from, of(8).resize_max(1000), vec![]).unwrap();
    assert_eq!(xs(&to), 1000);
    let error = loaded(&from, of(8).resize_max(999), vec![]).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::OutOfRange { .. }),
        "{error}"
    );
}

#[test]
fn the_type_tells_the_bound() {
    let mut types = TypeTable::default();
    let d = description(
        1,
        vec![array(4).resize_max(8), u8_field("z").with_default()],
    );
    let index = types.add(&d).unwrap();
    assert_eq!(types.get(index).unwrap().fields[0].resize_max, Some(8));
    let frame = {
        let mut bytes = Vec::new();
        types.get(index).unwrap().encode(&mut bytes);
        bytes
    };
    // [11], one octet: 8.
    assert!(frame.windows(3).any(|w| w == [0x8b, 1, 8]), "{frame:02x?}");
    assert_eq!(*types.description(index).unwrap(), d);
}

#[test]
fn what_cannot_have_another_number_is_refused_by_the_description() {
    let broken = |field: Field| {
        let d = description(1, vec![u8_field("n"), field]);
        d.check().unwrap_err().rule
    };
    let rule = vmstate_desc::Rule::ResizeMax;
    assert_eq!(broken(u8_field("a").resize_max(8)), rule, "one");
    assert_eq!(broken(array(9).resize_max(8)), rule, "below its own");
    let counted = u8_field("a").repeat(Repeat::Counted(Count::of_field("n", 4)));
    assert_eq!(broken(counted.resize_max(8)), rule, "its number travels");
    let bitmap = Field::value("a", Codec::Bitmap(Size::Fixed(64)));
    assert_eq!(broken(bitmap.resize_max(64)), rule);
}
