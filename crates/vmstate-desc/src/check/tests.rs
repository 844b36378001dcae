//! Each rule, shown to fail, and its neighbour that passes.

use super::*;
use crate::field::ListKind;
use crate::variants::{VariantCase, Variants};
use std::sync::Arc;

fn rule(d: &Description) -> Option<Rule> {
    d.check().err().map(|e| e.rule)
}

fn with(fields: Vec<Field>) -> Description {
    Description {
        fields: fields.into(),
        ..Description::new("dev", 3, 1)
    }
}

static CHILD: Description = Description::new("child", 2, 1);

fn counted(source: &'static str) -> Count {
    Count {
        source: CountSource::Field(source.into()),
        multiply: 1,
        max: 16,
    }
}

#[test]
fn versions() {
    assert_eq!(
        rule(&Description::new("dev", 1, 2)),
        Some(Rule::MinimumVersion)
    );
    let mut f = Field::value("a", Codec::Uint8);
    f.version_id = 4;
    assert_eq!(rule(&with(vec![f.clone()])), Some(Rule::FieldVersion));
    f.version_id = 3;
    assert_eq!(rule(&with(vec![f.clone()])), None);
    f.until = Some(3);
    assert_eq!(rule(&with(vec![f])), Some(Rule::FieldUntil));
    let pinned = |v| {
        with(vec![Field::new(
            "v",
            Element::VersionedStruct((&CHILD).into(), v),
        )])
    };
    assert_eq!(rule(&pinned(3)), Some(Rule::PinnedVersion));
    assert_eq!(rule(&pinned(2)), None);
    let list = |v| {
        let mut f = Field::new("l", Element::List(ListKind::QTailq, (&CHILD).into()));
        f.version_id = v;
        with(vec![f])
    };
    assert_eq!(rule(&list(0)), Some(Rule::ElementVersion));
    assert_eq!(rule(&list(1)), None);
}

#[test]
fn names() {
    assert_eq!(rule(&Description::new("", 1, 1)), Some(Rule::NameLength));
    let long = Description {
        name: "x".repeat(256).into(),
        ..Description::new("x", 1, 1)
    };
    assert_eq!(rule(&long), Some(Rule::NameLength));
    let sub = |name: &'static str, version| Description {
        subsections: vec![Box::leak(Box::new(Description::new(name, version, 1)))]
            .into_iter()
            .map(|d: &'static mut Description| crate::DescriptionRef::Static(d))
            .collect(),
        ..Description::new("dev", 1, 1)
    };
    assert_eq!(rule(&sub("dex/part", 1)), Some(Rule::SubsectionName));
    assert_eq!(rule(&sub("dev", 1)), Some(Rule::SubsectionName));
    assert_eq!(rule(&sub("dev/part", 256)), Some(Rule::SubsectionVersion));
    assert_eq!(rule(&sub("dev/part", 255)), None);
    // The slash is convention: `qemu-s390-flic` owns `qemu-s390-flic-full`.
    assert_eq!(rule(&sub("dev-full", 1)), None);
    let two = |a: &'static str, b: &'static str| Description {
        subsections: [sub(a, 1), sub(b, 1)]
            .iter()
            .flat_map(|d| d.subsections().to_vec())
            .collect(),
        ..Description::new("dev", 1, 1)
    };
    assert_eq!(rule(&two("dev/a", "dev/a")), Some(Rule::SubsectionTwice));
    assert_eq!(rule(&two("dev/a", "dev/ab")), None);
}

#[test]
fn counts() {
    let array = |count| {
        let mut f = Field::value("a", Codec::Uint32);
        f.repeat = Repeat::Counted(count);
        f
    };
    let n = Field::value("n", Codec::Uint8);
    assert_eq!(rule(&with(vec![n.clone(), array(counted("n"))])), None);
    assert_eq!(
        rule(&with(vec![array(counted("n")), n.clone()])),
        Some(Rule::CountField)
    );
    assert_eq!(
        rule(&with(vec![n.clone(), array(counted("m"))])),
        Some(Rule::CountField)
    );
    for (codec, expected) in [
        (Codec::Uint16, None),
        (Codec::Uint32, None),
        (Codec::Int32, None),
        (Codec::Int32Le, None),
        (Codec::Uint64, Some(Rule::CountType)),
        (Codec::Int8, Some(Rule::CountType)),
        (Codec::Bool, Some(Rule::CountType)),
    ] {
        let d = with(vec![Field::value("n", codec), array(counted("n"))]);
        assert_eq!(rule(&d), expected);
    }
    let mut two = counted("n");
    two.max = 0;
    assert_eq!(
        rule(&with(vec![n.clone(), array(two)])),
        Some(Rule::CountBound)
    );
    let mut two = counted("n");
    two.multiply = 0;
    assert_eq!(
        rule(&with(vec![n.clone(), array(two)])),
        Some(Rule::CountBound)
    );
    let mut both = Field::value("b", Codec::Buffer(Size::Counted(counted("n"))));
    assert_eq!(rule(&with(vec![n.clone(), both.clone()])), None);
    both.repeat = Repeat::Counted(counted("n"));
    assert_eq!(rule(&with(vec![n, both])), Some(Rule::TwoCounts));
}

#[test]
fn s1_5_pointer_arrays() {
    let field = |repeat, pointers, object_size| Field {
        repeat,
        pointers,
        object_size,
        ..Field::new("p", Element::Struct((&CHILD).into()))
    };
    let check = |f| rule(&with(vec![f]));
    // Legacy: without a size; with one refused.
    assert_eq!(
        check(field(Repeat::Array(4), Pointers::MarkAbsent, None)),
        None
    );
    assert_eq!(
        check(field(Repeat::Array(4), Pointers::MarkAbsent, Some(8))),
        Some(Rule::ObjectSizeSurplus)
    );
    // Auto-allocation: with a size; without one refused.
    assert_eq!(
        check(field(Repeat::Array(4), Pointers::MarkEvery, Some(8))),
        None
    );
    assert_eq!(
        check(field(Repeat::Array(4), Pointers::MarkEvery, None)),
        Some(Rule::ObjectSizeMissing)
    );
    // Pointers only with an array length.
    assert_eq!(
        check(field(Repeat::Single, Pointers::MarkAbsent, None)),
        Some(Rule::PointersWithoutArray)
    );
    assert_eq!(
        check(field(Repeat::Single, Pointers::MarkEvery, Some(8))),
        Some(Rule::PointersWithoutArray)
    );
    // An object size on what is no array of pointers is surplus.
    assert_eq!(
        check(field(Repeat::Array(4), Pointers::No, Some(8))),
        Some(Rule::ObjectSizeSurplus)
    );
}

#[test]
fn validators_and_containers() {
    assert_eq!(rule(&with(vec![Field::validator("v")])), None);
    let mut v = Field::validator("v");
    v.conditional = false;
    assert_eq!(rule(&with(vec![v])), Some(Rule::Validator));
    let mut v = Field::validator("v");
    v.repeat = Repeat::Array(2);
    assert_eq!(rule(&with(vec![v])), Some(Rule::Validator));
    for element in [
        Element::Tmp((&CHILD).into()),
        Element::List(ListKind::QList, (&CHILD).into()),
        Element::Tree {
            key: TreeKey::Direct,
            value: (&CHILD).into(),
        },
        Element::Value(Codec::ByteArray { max: 4 }),
    ] {
        let mut f = Field::new("c", element);
        f.version_id = 1;
        assert_eq!(rule(&with(vec![f.clone()])), None);
        f.repeat = Repeat::Array(2);
        assert_eq!(rule(&with(vec![f])), Some(Rule::ContainerInArray));
    }
}

#[test]
fn lists_have_an_end() {
    let list = |kind| {
        let mut f = Field::new("l", Element::List(kind, (&CHILD).into()));
        f.version_id = 1;
        rule(&with(vec![f]))
    };
    for width in 0..=9 {
        let fits = [1, 2, 4, 8].contains(&width);
        let expected = (!fits).then_some(Rule::ListFraming);
        assert_eq!(list(ListKind::Prefixed(width)), expected);
    }
    for stop in [0, 42] {
        let kind = ListKind::Marked {
            more: 42,
            stop,
            lenient: true,
        };
        assert_eq!(list(kind), (stop == 42).then_some(Rule::ListFraming));
    }
}

fn variant(field: &'static str, values: &[i64]) -> Field {
    let case = |value: &i64| VariantCase::new(*value, &CHILD);
    let variants = Variants {
        field: field.into(),
        cases: values.iter().map(case).collect(),
    };
    Field::new("v", Element::Variant(variants))
}

#[test]
fn variants_have_a_discriminant() {
    let by = |discriminant: Field| rule(&with(vec![discriminant, variant("kind", &[1, 2])]));
    let kind = |codec| Field::value("kind", codec);
    assert_eq!(by(kind(Codec::Uint8)), None);
    assert_eq!(by(kind(Codec::Int64)), None);
    assert_eq!(by(kind(Codec::Uint32Equal)), None);
    assert_eq!(by(kind(Codec::LittleEndian(ScalarType::U16))), None);
    for codec in [
        Codec::Bool,
        Codec::Timer,
        Codec::CpuDouble,
        Codec::Buffer(Size::Fixed(1)),
        Codec::LittleEndian(ScalarType::F64),
    ] {
        assert_eq!(by(kind(codec)), Some(Rule::Discriminant));
    }
    assert_eq!(
        by(Field::value("other", Codec::Uint8)),
        Some(Rule::Discriminant)
    );
    assert_eq!(by(kind(Codec::Uint8).array(2)), Some(Rule::Discriminant));
    assert_eq!(by(Field::validator("kind")), Some(Rule::Discriminant));
    let behind = vec![variant("kind", &[1]), kind(Codec::Uint8)];
    assert_eq!(rule(&with(behind)), Some(Rule::Discriminant));
    let several = vec![kind(Codec::Uint8), variant("kind", &[1]).array(2)];
    assert_eq!(rule(&with(several)), Some(Rule::ContainerInArray));
}

#[test]
fn a_discriminant_is_there_when_its_variant_is() {
    let by = |kind: Field, variant: Field| rule(&with(vec![kind, variant]));
    let kind = || Field::value("kind", Codec::Uint8);
    let one = || variant("kind", &[1]);
    // Versions 1 to 3 load.
    assert_eq!(by(kind().since(1), one()), None);
    assert_eq!(by(kind().since(2), one()), Some(Rule::DiscriminantAbsent));
    assert_eq!(by(kind().since(2), one().since(2)), None);
    assert_eq!(
        by(kind().since(2), one().conditional()),
        Some(Rule::DiscriminantAbsent)
    );
    assert_eq!(
        by(kind().conditional(), one()),
        Some(Rule::DiscriminantAbsent)
    );
    assert_eq!(
        by(kind().conditional(), one().conditional()),
        Some(Rule::DiscriminantAbsent)
    );
    assert_eq!(by(kind(), one().conditional()), None);
    assert_eq!(by(kind().until(3), one()), Some(Rule::DiscriminantAbsent));
    assert_eq!(by(kind().until(3), one().until(3)), None);
    assert_eq!(
        by(kind().until(2), one().until(3)),
        Some(Rule::DiscriminantAbsent)
    );
}

#[test]
fn cases_are_values_of_the_discriminant_in_order() {
    let by = |codec, values: &[i64]| {
        rule(&with(vec![
            Field::value("kind", codec),
            variant("kind", values),
        ]))
    };
    assert_eq!(by(Codec::Uint8, &[]), Some(Rule::Cases));
    assert_eq!(by(Codec::Uint8, &[0, 255]), None);
    for (codec, least, greatest) in [
        (Codec::Uint8, 0, 255),
        (Codec::Uint16, 0, 0xffff),
        (Codec::Uint32, 0, 0xffff_ffff),
        (Codec::Uint64, 0, i64::MAX - 1),
        (Codec::Int8, -128, 127),
        (Codec::Int16, -0x8000, 0x7fff),
        (Codec::Int32, i32::MIN.into(), i32::MAX.into()),
    ] {
        assert_eq!(by(codec.clone(), &[least, greatest]), None);
        assert_eq!(by(codec.clone(), &[least - 1]), Some(Rule::Cases));
        assert_eq!(by(codec, &[greatest + 1]), Some(Rule::Cases));
    }
    assert_eq!(by(Codec::Int64, &[i64::MIN, i64::MAX - 1]), None);
    assert_eq!(by(Codec::Int64, &[i64::MAX]), Some(Rule::Cases));
    assert_eq!(by(Codec::Uint8, &[2, 1]), Some(Rule::Cases));
    assert_eq!(by(Codec::Uint8, &[1, 1]), Some(Rule::Cases));
    let many = |n: i64| (0..n).collect::<Vec<_>>();
    assert_eq!(by(Codec::Uint16, &many(4096)), None);
    assert_eq!(by(Codec::Uint16, &many(4097)), Some(Rule::Cases));
}

#[test]
fn cases_are_checked_with_their_path() {
    let mut bad = variant("kind", &[1]);
    if let Element::Variant(variants) = &mut bad.element {
        variants.cases.to_mut()[0].description = Description::new("case", 1, 2).into();
    }
    let d = with(vec![Field::value("kind", Codec::Uint8), bad]);
    let e = d.check().unwrap_err();
    assert_eq!(e.rule, Rule::MinimumVersion);
    assert!(e.to_string().starts_with("dev/v/case: "), "{e}");
}

#[test]
fn descriptions_have_an_end() {
    let nested = |depth: u32| {
        (1..depth).fold(Description::new("leaf", 1, 1), |inner, _| {
            with(vec![Field::new("f", Element::Struct(inner.into()))])
        })
    };
    assert_eq!(rule(&nested(MAX_DEPTH)), None);
    assert_eq!(rule(&nested(MAX_DEPTH + 1)), Some(Rule::Depth));
}

#[test]
fn children_are_checked_with_their_path() {
    let bad = Arc::new(Description::new("child", 1, 2));
    let d = with(vec![Field::new("c", Element::Struct(bad.into()))]);
    let e = d.check().unwrap_err();
    assert_eq!(
        e.to_string(),
        "dev/c/child: minimum_version_id must not be above version_id"
    );
}

#[test]
#[should_panic(expected = "pointer elements need an array length")]
fn assert_valid_panics() {
    Field {
        pointers: Pointers::MarkAbsent,
        ..Field::value("p", Codec::Uint8)
    }
    .into_description()
    .assert_valid();
}

impl Field {
    fn into_description(self) -> Description {
        with(vec![self])
    }
}
