//! The plan and the walk are the same, whatever the values.

use proptest::prelude::*;
use vmstate_derive::VmState;
use vmstate_desc::{Limits, SaveState as _, Timer, VmState, load_with};

use crate::der::DerReader;
use crate::types::{TypeIndex, TypeTable};
use crate::value::known::Known;
use crate::value::{BerIn, encode};

#[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
#[vmstate(name = "c")]
struct Child {
    a: u8,
    b: i16,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "e")]
struct Empty {}

#[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
#[vmstate(repr = u8)]
enum Mode {
    #[default]
    Zero = 0,
    Five = 5,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "p", version = 2, minimum_version = 1)]
struct Plain {
    child: Child,
    children: [Child; 5],
    flag: bool,
    #[vmstate(since = 2)]
    word: u32,
    wide: u64,
    long: i64,
    int: i32,
    small: i8,
    half: u16,
    empty: Empty,
    #[vmstate(unused = 2)]
    _gap: (),
    mode: Mode,
    modes: [Mode; 2],
    flags: [bool; 2],
    #[vmstate(buffer)]
    buffer: [u8; 3],
    matrix: [[u16; 2]; 2],
    timer: Timer,
    double: f64,
    last: Child,
}

/// Is not plain itself, and has parts that are.
#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "m", version = 1, subsection(name = "m/s", fields(late)))]
struct Mixed {
    len: u8,
    #[vmstate(count = len, max = 8)]
    children: Vec<Child>,
    child: Child,
    late: Child,
}

/// Numbers at whose sizes something changes, often the same ones.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0),
        4 => (0_u32..64, -1_i64..2).prop_map(|(bit, near)| (1_u64 << bit).wrapping_add_signed(near)),
        2 => any::<u64>(),
        1 => Just(u64::MAX),
    ]
}

#[expect(clippy::cast_possible_truncation, reason = "whatever fits")]
fn child() -> impl Strategy<Value = Child> {
    (number(), number()).prop_map(|(a, b)| Child {
        a: a as u8,
        b: b as i16,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "whatever fits"
)]
fn plain() -> impl Strategy<Value = Plain> {
    let few = prop_oneof![Just(Child::default()), Just(Child { a: 1, b: -1 }), child()];
    let children = proptest::array::uniform5(few);
    let numbers = proptest::array::uniform12(number());
    (child(), children, numbers, any::<[bool; 4]>()).prop_map(|(child, children, n, flags)| {
        let [
            word,
            wide,
            long,
            int,
            small,
            half,
            matrix,
            timer,
            double,
            buffer,
            ..,
        ] = n;
        let mode = |five| if five { Mode::Five } else { Mode::Zero };
        Plain {
            child,
            children,
            flag: flags[0],
            word: word as u32,
            wide,
            long: long as i64,
            int: int as i32,
            small: small as i8,
            half: half as u16,
            mode: mode(flags[1]),
            modes: [mode(flags[2]), mode(flags[1])],
            flags: [flags[3], flags[2]],
            buffer: [buffer as u8, 0, 5],
            matrix: [[matrix as u16, 1], [0x500, half as u16]],
            timer: Timer(flags[3].then_some((timer >> 1) as i64)),
            double: f64::from_bits(double),
            last: children[0],
            ..Plain::default()
        }
    })
}

/// The value, by the walk alone.
fn walked<T: VmState>(state: &T) -> (TypeTable, TypeIndex, Vec<u8>) {
    let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
    types.add(T::DESCRIPTION).unwrap();
    types.plans().forbid();
    let ty = encode(state, &mut types, &mut bytes).unwrap();
    (types, ty, bytes)
}

/// Loads with plans, or by the walk alone. Not-a-numbers are alike in the text.
fn loaded<T: VmState + Default + std::fmt::Debug>(
    types: &TypeTable,
    ty: TypeIndex,
    bytes: &[u8],
) -> (Result<(), String>, String) {
    let mut state = T::default();
    let result = match DerReader::new(bytes, 7).any() {
        Ok(value) => {
            let version = T::DESCRIPTION.version_id;
            let mut input = BerIn::new(types, ty, value);
            load_with(&mut state, version, &mut input, Limits::default()).map_err(|e| e.to_string())
        }
        Err(e) => Err(e.to_string()),
    };
    (result, format!("{state:?}"))
}

/// A table whose plans are made, or forbidden.
fn table<T: VmState + Default + std::fmt::Debug>(
    sample: &T,
    planned: bool,
) -> (TypeTable, TypeIndex) {
    let (mut types, mut ty, bytes) = walked(sample);
    if planned {
        types = TypeTable::default();
        ty = types.add(T::DESCRIPTION).unwrap();
    }
    loaded::<T>(&types, ty, &bytes).0.unwrap();
    (types, ty)
}

fn agree<T: VmState + Default + std::fmt::Debug>(state: &T) {
    let (_, _, expected) = walked(state);
    let mut types = TypeTable::default();
    for round in 0..3 {
        let mut bytes = Vec::new();
        encode(state, &mut types, &mut bytes).unwrap();
        assert_eq!(bytes, expected, "round {round}");
    }
    let (plans, ty) = table(state, true);
    let (walk, same) = table(state, false);
    assert_eq!(ty, same);
    let by_plan = loaded::<T>(&plans, ty, &expected);
    assert_eq!(by_plan, loaded::<T>(&walk, ty, &expected));
    assert_eq!(by_plan, (Ok(()), format!("{state:?}")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn plan_and_walk_agree(
        plain in plain(),
        children in proptest::collection::vec(child(), 0..8),
        equal in any::<bool>(),
    ) {
        agree(&plain);
        let children = if equal {
            vec![plain.child; children.len()]
        } else {
            children
        };
        agree(&Mixed {
            len: u8::try_from(children.len()).unwrap(),
            children,
            child: plain.last,
            late: plain.child,
        });
    }

    #[test]
    fn plan_and_walk_agree_on_what_is_wrong(
        plain in plain(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), number()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, _, mut bytes) = walked(&plain);
        let (plans, ty) = table(&plain, true);
        let (walk, _) = table(&plain, false);
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to.to_be_bytes()[7];
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        assert_eq!(
            loaded::<Plain>(&plans, ty, &bytes),
            loaded::<Plain>(&walk, ty, &bytes)
        );
    }
}

#[test]
fn plans_are_made_when_they_are_needed() {
    let state = Plain::default();
    let (mut types, mut bytes) = (TypeTable::default(), Vec::new());
    assert_eq!(state.plain_size(), Some(83));
    let ty = types.add(Plain::DESCRIPTION).unwrap();
    let has = |types: &TypeTable| types.plans().has(Plain::DESCRIPTION, ty);
    assert_eq!(has(&types), (false, false));
    assert_eq!(encode(&state, &mut types, &mut bytes).unwrap(), ty);
    assert_eq!(has(&types), (true, false));
    loaded::<Plain>(&types, ty, &bytes).0.unwrap();
    assert_eq!(has(&types), (true, true));
}

#[test]
fn types_that_differ_have_no_plan() {
    #[derive(Debug, Default, VmState)]
    #[vmstate(name = "c")]
    struct Wider {
        a: u8,
        b: i32,
    }
    #[derive(Debug, Default, VmState)]
    #[vmstate(name = "c")]
    struct Other {
        a: u8,
        c: i16,
    }
    let child = Child { a: 1, b: -2 };
    let (types, mut bytes) = (|| TypeTable::default(), Vec::new());
    let (mut wider, mut other) = (types(), types());
    let ty = encode(&child, &mut wider, &mut bytes).unwrap();
    assert_eq!(other.add(Child::DESCRIPTION).unwrap(), ty);
    for _ in 0..3 {
        let (result, state) = loaded::<Wider>(&wider, ty, &bytes);
        assert_eq!((result, state.as_str()), (Ok(()), "Wider { a: 1, b: -2 }"));
        let (result, _) = loaded::<Other>(&other, ty, &bytes);
        assert!(result.unwrap_err().contains("E-MISSING"));
    }
    assert!(!wider.plans().has(Wider::DESCRIPTION, ty).1);
    assert!(!other.plans().has(Other::DESCRIPTION, ty).1);
    // The right one comes too late, and is walked.
    for _ in 0..3 {
        let (result, state) = loaded::<Child>(&wider, ty, &bytes);
        assert_eq!((result, state), (Ok(()), format!("{child:?}")));
    }
}

#[test]
fn there_are_none_of_descriptions_that_came() {
    let plans = |own: bool| {
        let mut types = TypeTable::default();
        let ty = types.add(Mixed::DESCRIPTION).unwrap();
        let d = if own {
            Mixed::DESCRIPTION.into()
        } else {
            types.description(ty).unwrap().into()
        };
        let known = types.known_fields(ty, &d);
        assert_eq!(known.len(), 3);
        known
            .iter()
            .filter(|known| matches!(known, Known::Struct(_)))
            .count()
    };
    assert_eq!((plans(true), plans(false)), (1, 0));
}
