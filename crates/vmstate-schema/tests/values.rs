//! Verdicts that depend on values, settled by values: one test for each rule of which some can be.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;

use vmstate_desc::{
    Codec, Count, Description, DynState, Element, Field, Repeat, SaveState, Scalar, Scalars, Size,
    Value, VariantCase, Variants,
};
use vmstate_schema::compare::{Column, Options, Rule, Severity, compare};
use vmstate_schema::{Finding, Schema};

fn device(fields: Vec<Field>) -> Description {
    Description {
        fields: fields.into(),
        ..Description::new("toy", 1, 1)
    }
}

fn subsection(name: &'static str, fields: Vec<Field>) -> Description {
    Description {
        fields: fields.into(),
        ..Description::new(name, 1, 1)
    }
}

/// A device with these values.
fn state(d: &Description, values: &[(&str, Value)]) -> DynState {
    let mut state = DynState::new(d.clone());
    for (name, value) in values {
        assert!(state.set(name, value.clone()), "{name}");
    }
    state
}

fn numbers(values: &[u32]) -> Value {
    Value::Scalars(Scalars::U32(values.to_vec()))
}

/// The finding of a rule before and after the values were looked at.
#[track_caller]
fn settled(rule: Rule, from: &DynState, to: &Description) -> (Finding, Finding) {
    let d: Description = (*from.description()).clone();
    let (old, new) = (Schema::of(None, [&d]), Schema::of(None, [to]));
    let mut comparison = compare(&old.unwrap(), &new.unwrap(), &Options::default());
    let find = |findings: &[Finding]| {
        let found = findings.iter().find(|finding| finding.rule == rule);
        found.unwrap_or_else(|| panic!("{findings:#?}")).clone()
    };
    let before = find(&comparison.findings);
    let state: &dyn SaveState = from;
    let states = HashMap::from([("toy/0".to_owned(), state)]);
    comparison.settle(&states).unwrap();
    (before, find(&comparison.findings))
}

/// In both formats where the verdict depended on values, and in these alone.
#[track_caller]
fn check(rule: Rule, from: &DynState, to: &Description, fits: bool, values: &str) {
    let (before, after) = settled(rule, from, to);
    let open = |column| match before.verdicts.of(column) {
        Severity::Value => true,
        Severity::Suspect => matches!(rule, Rule::C11 | Rule::C29),
        _ => false,
    };
    let expected = if fits { Severity::Ok } else { Severity::Break };
    let mut some = false;
    for column in Column::ALL {
        let forward = matches!(column, Column::QemuForward | Column::BerForward);
        if forward && open(column) {
            some = true;
            assert_eq!(after.verdicts.of(column), expected, "{column:?}: {after}");
        } else {
            assert_eq!(after.verdicts.of(column), before.verdicts.of(column));
        }
    }
    assert!(some, "nothing depended on values: {before}");
    assert_eq!(after.values.as_deref(), Some(values));
}

#[test]
fn c03_to_c25_presence() {
    // Removed, but conditional.
    let old = device(vec![Field::value("a", Codec::Uint8).conditional()]);
    let gone = device(vec![]);
    let with = state(&old, &[("a", Scalar::U8(1).into())]);
    check(Rule::C04, &with, &gone, false, "sent");
    check(Rule::C04, &state(&old, &[]), &gone, true, "not sent");
    // Always needed now.
    let needed = device(vec![Field::value("a", Codec::Uint8)]);
    let (_, after) = settled(Rule::C25, &with, &needed);
    assert_eq!(after.verdicts.of(Column::BerForward), Severity::Ok);
    let (_, after) = settled(Rule::C25, &state(&old, &[]), &needed);
    assert_eq!(after.verdicts.of(Column::BerForward), Severity::Break);
    // Another kind, which does no harm as long as it is not sent.
    let other = device(vec![Field::value("a", Codec::CpuDouble).conditional()]);
    check(Rule::C10, &with, &other, false, "sent");
    check(Rule::C10, &state(&old, &[]), &other, true, "not sent");
}

#[test]
fn c38_cases() {
    let case = |value, name: &'static str| VariantCase {
        value,
        description: subsection(name, vec![Field::value("x", Codec::Uint16)]).into(),
    };
    let by = |cases: Vec<VariantCase>| {
        let variants = Variants {
            field: "kind".into(),
            cases: cases.into(),
        };
        device(vec![
            Field::value("kind", Codec::Uint8),
            Field::new("one", Element::Variant(variants)),
        ])
    };
    let old = by(vec![case(1, "a"), case(2, "b")]);
    let with = |kind: u8, name| {
        let x = Scalar::U16(300).into();
        let inner = state(
            &subsection(name, vec![Field::value("x", Codec::Uint16)]),
            &[("x", x)],
        );
        let kind = Scalar::U8(kind).into();
        state(&old, &[("kind", kind), ("one", inner.into())])
    };
    let new = by(vec![case(1, "a")]);
    check(Rule::C38, &with(2, "b"), &new, false, "sent");
    check(Rule::C38, &with(1, "a"), &new, true, "not sent");
    // What is inside of a case counts where it is that case.
    let mut narrow = case(2, "b");
    let inner = subsection("b", vec![Field::value("x", Codec::Uint8)]);
    narrow.description = inner.into();
    let new = by(vec![case(1, "a"), narrow]);
    check(
        Rule::C09,
        &with(2, "b"),
        &new,
        false,
        "300 is outside of 0 to 255",
    );
    check(Rule::C09, &with(1, "a"), &new, true, "there are no values");
}

#[test]
fn c09_narrowed() {
    let old = device(vec![Field::value("a", Codec::Uint32).array(3)]);
    let new = device(vec![Field::value("a", Codec::Uint8).array(3)]);
    let fits = state(&old, &[("a", numbers(&[1, 255, 0]))]);
    let values = "3 values fit: 0 to 255";
    check(Rule::C09, &fits, &new, true, values);
    let beyond = state(&old, &[("a", numbers(&[1, 256, 300]))]);
    check(
        Rule::C09,
        &beyond,
        &new,
        false,
        "256 is outside of 0 to 255",
    );
}

#[test]
fn c11_signedness() {
    let old = device(vec![Field::value("a", Codec::Uint32)]);
    let new = device(vec![Field::value("a", Codec::Int32)]);
    let of = |value: u32| state(&old, &[("a", Scalar::U32(value).into())]);
    let range = "-2147483648 to 2147483647";
    let values = format!("1 value fits: {range}");
    check(Rule::C11, &of(0x7fff_ffff), &new, true, &values);
    let values = format!("2147483648 is outside of {range}");
    check(Rule::C11, &of(0x8000_0000), &new, false, &values);
    let signed = state(&new, &[("a", Scalar::I32(-1).into())]);
    let values = "-1 is outside of 0 to 4294967295";
    check(Rule::C11, &signed, &old, false, values);
}

fn counted(max: u32) -> Description {
    let count = Repeat::Counted(Count::of_field("n", max));
    device(vec![
        Field::value("n", Codec::Uint32),
        Field::value("a", Codec::Uint32).repeat(count),
    ])
}

fn two_of(max: u32) -> DynState {
    let n = Scalar::U32(2).into();
    state(&counted(max), &[("n", n), ("a", numbers(&[7, 8]))])
}

#[test]
fn c13_counted_and_fixed() {
    let fixed = |n| {
        device(vec![
            Field::value("n", Codec::Uint32),
            Field::value("a", Codec::Uint32).array(n),
        ])
    };
    let values = "1 value fits: 2 elements";
    check(Rule::C13, &two_of(8), &fixed(2), true, values);
    check(
        Rule::C13,
        &two_of(8),
        &fixed(3),
        false,
        "there are 2, not 3 elements",
    );
}

#[test]
fn c35_bound_of_a_count() {
    let values = "1 value fits: at most 2 elements";
    check(Rule::C35, &two_of(8), &counted(2), true, values);
    let values = "there are 2, not at most 1 elements";
    check(Rule::C35, &two_of(8), &counted(1), false, values);
    let array = |max| device(vec![Field::value("a", Codec::ByteArray { max })]);
    let of = |n: usize| state(&array(8), &[("a", Value::Bytes(vec![0; n]))]);
    let values = "1 value fits: at most 4 elements";
    check(Rule::C35, &of(4), &array(4), true, values);
    let values = "there are 5, not at most 4 elements";
    check(Rule::C35, &of(5), &array(4), false, values);
}

#[test]
fn c16_subsection_removed() {
    let mut old = device(vec![]);
    let sub = subsection("toy/x", vec![Field::value("a", Codec::Uint8)]);
    old.subsections = vec![sub.clone().into()].into();
    let without = state(&old, &[]);
    check(Rule::C16, &without, &device(vec![]), true, "not sent");
    let mut with = state(&old, &[]);
    let part = state(&sub, &[("a", Scalar::U8(1).into())]);
    assert!(with.set_subsection(0, Some(part)));
    check(Rule::C16, &with, &device(vec![]), false, "sent");
}

#[test]
fn c26_absent_elements() {
    let plain = device(vec![Field::value("a", Codec::Uint8).array(2)]);
    let pointers = device(vec![Field::value("a", Codec::Uint8).array(2).mark_absent()]);
    let of = |second: Value| {
        let first = Scalar::U8(1).into();
        state(&pointers, &[("a", Value::List(vec![first, second]))])
    };
    let values = "2 values fit: no absent element";
    check(Rule::C26, &of(Scalar::U8(2).into()), &plain, true, values);
    check(
        Rule::C26,
        &of(Value::Absent),
        &plain,
        false,
        "element 1 is absent",
    );
}

#[test]
fn c29_bits() {
    let map = |bits| {
        let codec = Codec::Bitmap(Size::Fixed(bits));
        device(vec![Field::value("a", codec)])
    };
    let of = |words: [u64; 2]| {
        let words = Value::Scalars(Scalars::U64(words.to_vec()));
        state(&map(128), &[("a", words)])
    };
    let values = "1 value fits: no bit set from bit 70 on";
    check(Rule::C29, &of([u64::MAX, 0x3f]), &map(70), true, values);
    check(Rule::C29, &of([0, 0x40]), &map(70), false, "bit 70 is set");
}

#[test]
fn renamed_parts_are_found_by_the_names_of_from() {
    const OLD: &[std::borrow::Cow<'static, str>] = &[std::borrow::Cow::Borrowed("old")];
    let inner = |codec| subsection("part", vec![Field::value("x", codec)]);
    let holder = |name, codec| {
        let element = Element::Struct(inner(codec).into());
        Field::new(name, element)
    };
    let from = device(vec![holder("old", Codec::Uint16)]);
    let to = device(vec![holder("new", Codec::Uint8).aliases(OLD)]);
    let part = state(&inner(Codec::Uint16), &[("x", Scalar::U16(256).into())]);
    let state = state(&from, &[("old", Value::Struct(Box::new(part)))]);
    let (before, _) = settled(Rule::C09, &state, &to);
    assert_eq!(before.path, "new/x");
    check(Rule::C09, &state, &to, false, "256 is outside of 0 to 255");
}

#[test]
fn what_only_the_destination_knows_stays_open() {
    let old = device(vec![Field::value("a", Codec::Uint32)]);
    let new = device(vec![Field::value("a", Codec::Uint32Equal)]);
    let from = state(&old, &[("a", Scalar::U32(1).into())]);
    let (before, after) = settled(Rule::C24, &from, &new);
    assert_eq!(after.verdicts, before.verdicts);
    assert_eq!(before.verdicts.of(Column::QemuForward), Severity::Value);
    assert_eq!((before.undecided, after.values.as_deref()), (None, None));
    let why = after.undecided.unwrap();
    assert!(why.contains("give a stream of its machine"), "{why}");
    // The same of what its condition and its counter decide.
    let more = device(vec![
        Field::value("a", Codec::Uint32),
        Field::value("b", Codec::Uint32).conditional(),
    ]);
    let (_, after) = settled(Rule::C03, &from, &more);
    assert!(after.undecided.unwrap().contains("condition of its own"));
}

#[test]
fn c24_against_the_values_of_the_destination() {
    let device_with = |codec| device(vec![Field::value("a", codec)]);
    let settle = |old: Codec, new: Codec, value: Scalar, own: Scalar| {
        let (old, new) = (device_with(old), device_with(new));
        let schema = |d: &Description| Schema::of(None, [d]).unwrap();
        let mut comparison = compare(&schema(&old), &schema(&new), &Options::default());
        let (from, to) = (
            state(&old, &[("a", value.into())]),
            state(&new, &[("a", own.into())]),
        );
        let (from, to): (&dyn SaveState, &dyn SaveState) = (&from, &to);
        let states = |state| HashMap::from([("toy/0".to_owned(), state)]);
        comparison
            .settle_between(&states(from), &states(to))
            .unwrap();
        let finding = comparison.findings[0].clone();
        assert_eq!((finding.rule, finding.undecided), (Rule::C24, None));
        let verdicts = Column::ALL.map(|column| finding.verdicts.of(column));
        (verdicts, finding.values.unwrap())
    };
    let (ok, broken) = (Severity::Ok, Severity::Break);
    let equal = |value, own| {
        let (value, own) = (Scalar::U32(value), Scalar::U32(own));
        settle(Codec::Uint32, Codec::Uint32Equal, value, own)
    };
    assert_eq!(equal(7, 7).0, [ok; 4]);
    assert_eq!(equal(7, 7).1, "1 value fits: 7 to 7");
    let (verdicts, values) = equal(7, 8);
    assert_eq!(verdicts, [broken, ok, broken, ok]);
    assert_eq!(values, "7 is outside of 8 to 8");
    let up_to = |value, own| {
        let (value, own) = (Scalar::I32(value), Scalar::I32(own));
        settle(Codec::Int32, Codec::Int32Le, value, own).0
    };
    assert_eq!(up_to(3, 8), [ok; 4]);
    assert_eq!(up_to(9, 8), [broken, ok, broken, ok]);
    assert_eq!(up_to(-1, 8), [broken, ok, broken, ok]);
}
