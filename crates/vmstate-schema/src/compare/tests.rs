//! Each rule with a difference that it is about, and the verdicts of all four columns. To change a rule is to change a line here.

use vmstate_desc::{
    Codec, Count, Description, DescriptionRef, Element, Field, ListKind, Priority, Repeat,
    ScalarType, Size, TreeKey,
};

mod variants;
mod whole;

use super::*;
use crate::model::Schema;

fn toy(version: u32, minimum: u32, fields: Vec<Field>) -> Description {
    let mut d = Description::new("toy", version, minimum);
    d.fields = fields.into();
    d
}

fn one(fields: Vec<Field>) -> Description {
    toy(1, 1, fields)
}

fn named(name: &'static str, fields: Vec<Field>) -> Description {
    let mut d = Description::new(name, 1, 1);
    d.fields = fields.into();
    d
}

fn with_sub(sub: Description) -> Description {
    let mut d = one(vec![u32_("a")]);
    d.subsections = vec![sub.into()].into();
    d
}

fn u32_(name: &'static str) -> Field {
    Field::value(name, Codec::Uint32)
}

fn schema(d: &Description) -> Schema {
    Schema::of(None, [d]).unwrap()
}

const LETTERS: [(char, Severity); 5] = [
    ('.', Severity::Ok),
    ('n', Severity::Note),
    ('?', Severity::Suspect),
    ('v', Severity::Value),
    ('X', Severity::Break),
];

fn letters(verdicts: Verdicts) -> String {
    let letter = |severity| LETTERS.iter().find(|(_, s)| *s == severity).unwrap().0;
    Column::ALL
        .map(|column| letter(verdicts.of(column)))
        .iter()
        .collect()
}

/// All findings: rule, path, and one letter for each column.
fn findings(from: &Schema, to: &Schema) -> Vec<String> {
    compare(from, to, &Options::default())
        .findings
        .iter()
        .map(|f| format!("{} {} {}", f.rule, f.path, letters(f.verdicts)))
        .collect()
}

#[track_caller]
fn check_schemas(from: &Schema, to: &Schema, expected: &[&str]) {
    assert_eq!(findings(from, to), expected);
}

#[track_caller]
fn check(from: &Description, to: &Description, expected: &[&str]) {
    check_schemas(&schema(from), &schema(to), expected);
}

#[test]
fn equal_descriptions_have_no_findings() {
    let d = toy(2, 1, vec![u32_("a"), u32_("b").since(2)]);
    let comparison = compare(&schema(&d), &schema(&d), &Options::default());
    assert_eq!((comparison.compared, comparison.equal), (1, 1));
    assert_eq!(comparison.findings, []);
}

#[test]
fn c01_field_added_with_a_new_version() {
    let old = toy(1, 1, vec![u32_("a")]);
    let new = toy(2, 1, vec![u32_("a"), u32_("b").since(2)]);
    check(&old, &new, &["C17  .X.X", "C01 b .X.X"]);
    let mut annotated = schema(&new);
    annotated.annotate("toy", "b", |f| f.ignorable = true);
    annotated.types[0].readable_from = Some(1);
    check_schemas(&schema(&old), &annotated, &["C17  .X..", "C01 b .X.."]);
}

#[test]
fn c02_field_added_without_a_version() {
    let (old, new) = (one(vec![u32_("a")]), one(vec![u32_("a"), u32_("b")]));
    check(&old, &new, &["C02 b XXXX"]);
    let mut annotated = schema(&new);
    annotated.annotate("toy", "b", |f| (f.default, f.ignorable) = (true, true));
    check_schemas(&schema(&old), &annotated, &["C02 b XX.."]);
}

#[test]
fn c03_conditional_field_added() {
    let (old, new) = (
        one(vec![u32_("a")]),
        one(vec![u32_("a"), u32_("b").conditional()]),
    );
    check(&old, &new, &["C03 b vv.v"]);
}

#[test]
fn c04_field_removed() {
    let (old, new) = (one(vec![u32_("a"), u32_("b")]), one(vec![u32_("a")]));
    check(&old, &new, &["C04 b XXXX"]);
    // It had ended before the version that is saved.
    let old = toy(2, 1, vec![u32_("a"), u32_("b").until(2)]);
    let new = toy(2, 2, vec![u32_("a")]);
    check(&old, &new, &["C17  ....", "C04 b ...."]);
}

#[test]
fn c05_field_replaced_by_unused_bytes() {
    let pad = Field::value("unused", Codec::Unused(8));
    let old = one(vec![u32_("a"), u32_("b"), u32_("c")]);
    let new = one(vec![u32_("a"), pad]);
    check(&old, &new, &["C05 unused .nXX"]);
    check(&new, &old, &["C05 b n.XX"]);
    let mut annotated = schema(&new);
    annotated.annotate("toy", "unused", |f| {
        f.aliases = vec!["b".into(), "c".into()];
    });
    let mut defaults = schema(&old);
    for name in ["b", "c"] {
        defaults.annotate("toy", name, |f| f.default = true);
    }
    check_schemas(&defaults, &annotated, &["C05 unused .n.."]);
    let short = one(vec![u32_("a"), Field::value("unused", Codec::Unused(7))]);
    check(&old, &short, &["C05 unused XXXX"]);
}

#[test]
fn c06_and_c07_field_renamed() {
    let (old, new) = (
        one(vec![u32_("a"), u32_("z")]),
        one(vec![u32_("b"), u32_("z")]),
    );
    check(&old, &new, &["C07 b ??XX"]);
    let mut annotated = schema(&new);
    annotated.annotate("toy", "b", |f| f.aliases = vec!["a".into()]);
    check_schemas(&schema(&old), &annotated, &["C06 b ...."]);
    // Of another size it is no rename.
    let other = one(vec![Field::value("b", Codec::Uint16), u32_("z")]);
    check(&old, &other, &["C04 a XXXX", "C02 b XXXX"]);
}

fn kinds(from: Codec, to: Codec, expected: &str) {
    let field = |codec| one(vec![Field::value("a", codec)]);
    let expected: Vec<_> = (!expected.is_empty())
        .then_some(expected)
        .into_iter()
        .collect();
    check(&field(from), &field(to), &expected);
}

#[test]
fn c08_and_c09_width_of_numbers() {
    kinds(Codec::Uint16, Codec::Uint32, "C08 a XX.v");
    kinds(Codec::Uint32, Codec::Uint16, "C09 a XXv.");
    kinds(Codec::Int8, Codec::Int64, "C08 a XX.v");
}

#[test]
fn c10_kind_changed() {
    let buffer = |n| Codec::Buffer(Size::Fixed(n));
    kinds(Codec::Uint32, buffer(4), "C10 a ??XX");
    kinds(Codec::Uint32, buffer(5), "C10 a XXXX");
    kinds(Codec::Bool, Codec::Uint8, "C10 a ??XX");
    kinds(Codec::Uint64, Codec::CpuDouble, "C10 a ??XX");
    kinds(
        Codec::Uint32,
        Codec::LittleEndian(ScalarType::U32),
        "C10 a XX..",
    );
    kinds(Codec::Unused(4), Codec::Unused(8), "C05 a XX..");
    kinds(
        Codec::custom("x", Some(4)),
        Codec::custom("x", Some(8)),
        "C10 a ????",
    );
    kinds(
        Codec::custom("x", Some(4)),
        Codec::custom("y", Some(8)),
        "C10 a XXXX",
    );
    let inner = named("inner", vec![u32_("x")]);
    let (old, new) = (
        one(vec![Field::new("a", Element::Struct(inner.into()))]),
        one(vec![u32_("a")]),
    );
    check(&old, &new, &["C10 a XXXX"]);
}

#[test]
fn c11_signedness_changed() {
    kinds(Codec::Uint32, Codec::Int32, "C11 a ??vv");
    kinds(Codec::Uint64, Codec::Timer, "C11 a ??vv");
}

#[test]
fn c12_fixed_length_changed() {
    let array = |n| one(vec![u32_("a").array(n), u32_("z")]);
    check(&array(4), &array(8), &["C12 a XXXX"]);
    let mut annotated = schema(&array(8));
    annotated.annotate("toy", "a", |f| f.resize_max = Some(8));
    check_schemas(&schema(&array(4)), &annotated, &["C12 a XX.X"]);
    // What comes short leaves the tail at the reader's default; what is above the bound is refused.
    let resizable = |n, max| one(vec![u32_("a").array(n).resize_max(max), u32_("z")]);
    check(&array(4), &resizable(8, 8), &["C12 a XX.X"]);
    check(&array(8), &resizable(4, 8), &["C12 a XX.X"]);
    check(&array(9), &resizable(4, 8), &["C12 a XXXX"]);
    check(&resizable(4, 8), &resizable(8, 8), &["C12 a XX.."]);
    let buffer = |n| Codec::Buffer(Size::Fixed(n));
    kinds(buffer(3), buffer(4), "C12 a XXXX");
    // One element and an array of one are the same bytes.
    check(&one(vec![u32_("a")]), &one(vec![u32_("a").array(1)]), &[]);
}

fn counted(max: u32) -> Field {
    u32_("a").repeat(Repeat::Counted(Count::of_field("n", max)))
}

#[test]
fn c13_fixed_and_counted_length() {
    let (fixed, free) = (
        one(vec![u32_("n"), u32_("a").array(4)]),
        one(vec![u32_("n"), counted(8)]),
    );
    check(&fixed, &free, &["C13 a vv.v"]);
    check(&free, &fixed, &["C13 a vvv."]);
    let small = one(vec![u32_("n"), counted(2)]);
    check(&fixed, &small, &["C13 a XXvv"]);
    // The device counts, and each end by itself.
    let own = |resize_max| {
        let field = u32_("a").repeat(Repeat::Counted(Count::of_device("queues", 8)));
        one(vec![
            u32_("n"),
            Field {
                resize_max,
                ..field
            },
        ])
    };
    check(&fixed, &own(None), &["C13 a vvvv"]);
    check(&fixed, &own(Some(8)), &["C13 a vv.v"]);
    let many = one(vec![u32_("n"), u32_("a").array(9)]);
    check(&many, &own(Some(8)), &["C13 a XXXv"]);
}

#[test]
fn c14_count_changed() {
    let count = |count| one(vec![u32_("n"), u32_("a").repeat(Repeat::Counted(count))]);
    let of_field = count(Count::of_field("n", 8));
    check(
        &of_field,
        &count(Count::of_field("n", 8).times(2)),
        &["C14 a XXvv"],
    );
    check(
        &of_field,
        &count(Count::of_device("queues", 8)),
        &["C14 a vvvv"],
    );
}

#[test]
fn c15_and_c16_subsections() {
    let (without, with) = (one(vec![u32_("a")]), with_sub(named("toy/x", vec![])));
    check(&without, &with, &["C15 {toy/x} .v.v"]);
    check(&with, &without, &["C16 {toy/x} v.v."]);
    let mut annotated = schema(&with);
    annotated.types[1].subsections[0].ignorable = true;
    check_schemas(&schema(&without), &annotated, &["C15 {toy/x} .v.."]);
    // Inside of both: their version travels.
    let mut newer = named("toy/x", vec![]);
    newer.version_id = 2;
    check(&with, &with_sub(newer), &["C17 {toy/x} .X.X"]);
}

#[test]
fn c17_and_c18_versions() {
    let version = |v, min| toy(v, min, vec![u32_("a")]);
    check(&version(1, 1), &version(2, 1), &["C17  .X.X"]);
    check(&version(2, 1), &version(2, 2), &["C17  ...."]);
    check(&version(1, 1), &version(2, 2), &["C18  XXXX"]);
    let mut annotated = schema(&version(2, 1));
    annotated.types[0].readable_from = Some(1);
    check_schemas(&schema(&version(1, 1)), &annotated, &["C17  .X.."]);
}

#[test]
fn c19_order_changed() {
    let (a, b) = (u32_("a"), Field::value("b", Codec::Uint16));
    let (old, new) = (one(vec![a.clone(), b.clone()]), one(vec![b, a]));
    check(&old, &new, &["C19 a ??.."]);
    let inner = |name: &'static str| {
        Field::new(
            name,
            Element::Struct(named("inner", vec![u32_("x")]).into()),
        )
    };
    let (old, new) = (
        one(vec![inner("a"), u32_("b")]),
        one(vec![u32_("b"), inner("a")]),
    );
    assert_eq!(findings(&schema(&old), &schema(&new)).len(), 1);
}

#[test]
fn c20_fields_moved_into_a_structure() {
    let flat = one(vec![u32_("x"), u32_("y"), u32_("z")]);
    let inner = named("inner", vec![u32_("x"), u32_("y")]);
    let nested = one(vec![
        Field::new("in", Element::Struct(inner.into())),
        u32_("z"),
    ]);
    check(&flat, &nested, &["C20 in ..XX"]);
    check(&nested, &flat, &["C20 in ..XX"]);
    let mut annotated = schema(&nested);
    annotated.annotate("inner", "x", |f| f.aliases = vec!["x".into()]);
    annotated.annotate("inner", "y", |f| f.aliases = vec!["y".into()]);
    check_schemas(&schema(&flat), &annotated, &["C20 in ...."]);
    // Inside of it, everything else is looked at too.
    let wide = named("inner", vec![u32_("x"), Field::value("y", Codec::Uint64)]);
    let nested = one(vec![
        Field::new("in", Element::Struct(wide.into())),
        u32_("z"),
    ]);
    check(&flat, &nested, &["C20 in ..XX", "C08 y XX.v"]);
}

#[test]
fn c21_c22_and_c23_sections() {
    let (a, b) = (named("a", vec![]), named("b", vec![]));
    let both = Schema::of(None, [&a, &b]).unwrap();
    let first = Schema::of(None, [&a]).unwrap();
    check_schemas(&first, &both, &["C21  nXnX"]);
    check_schemas(&both, &first, &["C22  XnXn"]);
    let mut optional = both.clone();
    optional.sections[1].optional = true;
    check_schemas(&first, &optional, &["C21  .X.X"]);
    let mut moved = first.clone();
    moved.sections[0].instance_id = 1;
    check_schemas(&first, &moved, &["C23  XXXX"]);
}

#[test]
fn c24_checks() {
    kinds(Codec::Uint32, Codec::Uint32Equal, "C24 a v.v.");
    kinds(Codec::Uint32Equal, Codec::Uint32, "C24 a .v.v");
    kinds(Codec::Int32, Codec::Int32Le, "C24 a v.v.");
    let plain = one(vec![u32_("a")]);
    let checked = one(vec![u32_("a"), Field::validator("sane")]);
    check(&plain, &checked, &["C24 sane v.v."]);
    check(&checked, &plain, &["C24 sane .v.v"]);
    check(&checked, &checked, &[]);
}

#[test]
fn c25_condition_changed() {
    let (always, maybe) = (one(vec![u32_("a")]), one(vec![u32_("a").conditional()]));
    check(&always, &maybe, &["C25 a ??.v"]);
    check(&maybe, &always, &["C25 a ??v."]);
}

#[test]
fn c26_and_c27_pointers() {
    let array = one(vec![u32_("a").array(2)]);
    let absent = one(vec![u32_("a").array(2).mark_absent()]);
    let every = one(vec![u32_("a").array(2).mark_every(4)]);
    check(&array, &absent, &["C26 a vvvv"]);
    check(&absent, &every, &["C27 a XX.v"]);
    check(&every, &absent, &["C27 a XXv."]);
}

#[test]
fn c28_framing_of_lists() {
    let inner = named("inner", vec![u32_("x")]);
    let list = |kind| {
        one(vec![Field::new(
            "a",
            Element::List(kind, inner.clone().into()),
        )])
    };
    let tree = |key| {
        let value = inner.clone().into();
        one(vec![Field::new("a", Element::Tree { key, value })])
    };
    check(&list(ListKind::QTailq), &list(ListKind::QList), &[]);
    let marked = |more, lenient| {
        list(ListKind::Marked {
            more,
            stop: 0,
            lenient,
        })
    };
    // QEMU's lists take any byte but zero for an element, others may not.
    check(&marked(42, true), &list(ListKind::QTailq), &[]);
    check(&marked(42, false), &list(ListKind::QTailq), &["C28 a .X.."]);
    let counted = |width| list(ListKind::Prefixed(width));
    check(&marked(42, true), &counted(4), &["C28 a XX.."]);
    check(&counted(2), &counted(4), &["C28 a XX.."]);
    check(
        &list(ListKind::QTailq),
        &tree(TreeKey::Direct),
        &["C28 a XX.."],
    );
    let keyed = tree(TreeKey::Struct(inner.clone().into()));
    check(&tree(TreeKey::Direct), &keyed, &["C28 a XXXX"]);
}

#[test]
fn c29_bits_of_a_bitmap() {
    let bitmap = |bits| Codec::Bitmap(Size::Fixed(bits));
    kinds(bitmap(60), bitmap(64), "C29 a ??vv");
    kinds(bitmap(64), bitmap(65), "C12 a XXXX");
}

#[test]
fn c30_one_family() {
    kinds(Codec::Int64, Codec::Timer, "C30 a ....");
    kinds(
        Codec::Buffer(Size::Fixed(4)),
        Codec::Unused(4),
        "C30 a ....",
    );
}

#[test]
fn c31_undescribed_bytes() {
    kinds(Codec::custom("own", None), Codec::Uint32, "C31 a ??nn");
    kinds(Codec::custom("own", Some(8)), Codec::Uint32, "C31 a XXnn");
    let inner = named("inner", vec![u32_("x")]);
    let (old, new) = (
        one(vec![Field::value("a", Codec::custom("own", None))]),
        one(vec![Field::new("a", Element::Struct(inner.into()))]),
    );
    check(&old, &new, &["C31 a ??nn"]);
    let mut opaque = schema(&one(vec![]));
    opaque.sections[0].ty = None;
    check_schemas(&opaque, &schema(&one(vec![])), &["C31  ??nn"]);
}

#[test]
fn c32_not_migratable() {
    let d = one(vec![]);
    check(&d, &d.clone().with_unmigratable(), &["C32  XXXX"]);
}

#[test]
fn c33_order_of_sections() {
    let d = one(vec![]);
    check(
        &d,
        &d.clone().with_priority(Priority::Iommu),
        &["C33  nnnn"],
    );
    check(&d, &d.clone().with_early_setup(), &["C33  nnnn"]);
}

#[test]
fn c34_version_gates() {
    let gate = |since| toy(2, 1, vec![u32_("a").since(since)]);
    check(&gate(0), &gate(2), &["C34 a ...."]);
    // The old side saves version 1, without the field; the new one expects it from version 1 on.
    let (old, new) = (
        toy(1, 1, vec![u32_("a").until(1), u32_("z")]),
        toy(1, 1, vec![u32_("a"), u32_("z")]),
    );
    check(&old, &new, &["C34 a XXX."]);
}

#[test]
fn c35_bounds() {
    let bound = |max| one(vec![u32_("n"), counted(max)]);
    check(&bound(8), &bound(4), &["C35 a v.v."]);
    check(&bound(4), &bound(8), &["C35 a .v.v"]);
    kinds(
        Codec::ByteArray { max: 9 },
        Codec::ByteArray { max: 8 },
        "C35 a v.v.",
    );
}

#[test]
fn c36_versions_of_embedded_structures_do_not_travel() {
    let embed = |inner: Description| one(vec![Field::new("in", Element::Struct(inner.into()))]);
    let old = named("inner", vec![u32_("x")]);
    let mut new = named("inner", vec![u32_("x"), u32_("y").since(2)]);
    new.version_id = 2;
    // At the top this would load; embedded, the reader goes by its own version.
    check(&embed(old), &embed(new), &["C36 in nnnn", "C01 in/y XXXX"]);
}

#[test]
fn n08_machines() {
    let d = one(vec![]);
    let machine = |name| Schema::of(Some(name), [&d]).unwrap();
    check_schemas(&machine("pc-1"), &machine("pc-2"), &["N08  XXXX"]);
    check_schemas(&machine("pc-1"), &schema(&d), &[]);
}

fn dump(fields: Vec<crate::Field>) -> Schema {
    let mut schema = Schema::new(crate::Origin::Dump, None);
    let mut ty = crate::Type::new("toy", 1, 1);
    ty.fields = fields;
    let ty = schema.add_type(ty);
    schema.sections.push(crate::Section {
        idstr: "toy".to_owned(),
        instance_id: 0,
        class: Some("toy-class".to_owned()),
        ty,
        optional: true,
    });
    schema
}

fn memory(name: &str, size: u64, num: Option<u32>) -> crate::Field {
    crate::Field::new(
        name,
        crate::Element::Memory {
            size,
            num,
            child: None,
        },
    )
}

/// A stream with one section.
fn stream(idstr: &str, fields: Vec<Field>) -> Schema {
    let mut d = one(fields);
    d.minimum_version_id = 0;
    let mut schema = Schema::new(crate::Origin::Trailer, None);
    schema.add_section(idstr, 0, &d).unwrap();
    schema
}

#[test]
fn n07_sections_that_no_class_describes() {
    let stream = stream("slirp", vec![u32_("a")]);
    check_schemas(&stream, &dump(vec![]), &["N07  ????"]);
    check_schemas(&dump(vec![]), &stream, &["N07  ????"]);
}

#[test]
fn a_stream_against_a_dump() {
    let path = "0000:00:02.0/toy";
    let from = |fields| stream(path, fields);
    let fine = dump(vec![memory("a", 4, None), memory("t", 48, None)]);
    let timer = Field::value("t", Codec::Timer);
    check_schemas(&from(vec![u32_("a"), timer.clone()]), &fine, &[]);
    // What was sent was sent: a subsection is no question any more.
    let mut d = with_sub(named("toy/x", vec![]));
    d.minimum_version_id = 0;
    let mut with_sub = Schema::new(crate::Origin::Trailer, None);
    with_sub.add_section(path, 0, &d).unwrap();
    let plain = dump(vec![memory("a", 4, None)]);
    check_schemas(&with_sub, &plain, &["C16 {toy/x} X.X."]);
    check_schemas(&from(vec![u32_("a"), timer]), &plain, &["C04 t X?X?"]);
    let wide = dump(vec![memory("a", 8, None)]);
    check_schemas(&from(vec![u32_("a")]), &wide, &["C08 a XX.v"]);
    // The condition was false, and is so on the other side.
    let mut maybe = memory("b", 4, None);
    maybe.conditional = true;
    check_schemas(
        &from(vec![u32_("a")]),
        &dump(vec![memory("a", 4, None), maybe]),
        &["C03 b ...."],
    );
    // Namesakes are numbered in trailers by their place in the description, and in dumps likewise.
    let two = dump(vec![
        memory("config[0]", 256, None),
        memory("config[1]", 4096, None),
    ]);
    let buffer = Field::value("config[1]", Codec::custom("pci config", Some(4096)));
    check_schemas(&from(vec![buffer]), &two, &["C02 config[0] X?X?"]);
}

#[test]
fn sizes_in_memory() {
    let pair = |a, b| {
        findings(
            &dump(vec![memory("a", a, None)]),
            &dump(vec![memory("a", b, None)]),
        )
    };
    assert_eq!(pair(4, 8), ["C08 a XX.v"]);
    assert_eq!(pair(8, 4), ["C09 a XXv."]);
    assert_eq!(pair(48, 56), ["C12 a ????"]);
    let array = |n| dump(vec![memory("a", 4, Some(n))]);
    check_schemas(&array(2), &array(3), &["C12 a XXXX"]);
    check_schemas(
        &dump(vec![memory("a", 4, None)]),
        &dump(vec![]),
        &["C32  XXXX"],
    );
}

#[test]
fn every_rule_is_tested_here() {
    let text = [
        include_str!("tests.rs"),
        include_str!("tests/variants.rs"),
        include_str!("tests/whole.rs"),
    ]
    .concat();
    let text = text.to_lowercase();
    for rule in Rule::ALL {
        let id = rule.id();
        assert!(text.contains(&format!("\"{id} ").to_lowercase()), "{id}");
        assert_eq!(Rule::by_id(id), Some(*rule));
    }
}

#[test]
fn only_some_sections() {
    let (a, b) = (named("a", vec![]), named("b", vec![]));
    let both = Schema::of(None, [&a, &b]).unwrap();
    let options = Options {
        sections: vec!["a/*".to_owned()],
    };
    assert_eq!(compare(&both, &both, &options).compared, 1);
}

#[test]
fn types_that_embed_each_other_twice_are_walked_once() {
    // Forty levels, each twice in the next.
    let mut document = Schema::new(crate::Origin::Descriptions, None);
    let mut ty = document
        .add_description(&named("leaf", vec![u32_("x")]))
        .unwrap();
    let mut other = Schema::new(crate::Origin::Descriptions, None);
    let mut other_ty = other
        .add_description(&named("leaf", vec![Field::value("x", Codec::Uint16)]))
        .unwrap();
    for _ in 0..40 {
        for (schema, ty) in [(&mut document, &mut ty), (&mut other, &mut other_ty)] {
            let mut outer = crate::Type::new("outer", 1, 1);
            for name in ["a", "b"] {
                outer
                    .fields
                    .push(crate::Field::new(name, crate::Element::Struct(*ty)));
            }
            *ty = schema.add_type(outer).unwrap();
        }
    }
    for (schema, ty) in [(&mut document, ty), (&mut other, other_ty)] {
        schema.sections.push(crate::Section {
            idstr: "x".to_owned(),
            instance_id: 0,
            class: None,
            ty: Some(ty),
            optional: false,
        });
    }
    let comparison = compare(&document, &other, &Options::default());
    assert_eq!(comparison.findings.len(), MAX_FINDINGS);
    assert!(comparison.left_out > 0);
    assert_eq!(comparison.verdict(Column::QemuForward), Severity::Break);
    assert!(document.description(ty).is_err());
}

#[test]
fn c37_subsections_of_one_name() {
    let part = |field| named("toy/x", vec![u32_(field)]).into();
    let with = |fields: &[&'static str]| {
        let mut d = one(vec![u32_("a")]);
        d.subsections = fields.iter().copied().map(part).collect::<Vec<_>>().into();
        d
    };
    let (first, both) = (with(&["b"]), with(&["b", "c"]));
    check(&both, &both, &["C37 {toy/x}[1] vvnn"]);
    check(&first, &both, &["C15 {toy/x}[1] .v.v"]);
    check(&both, &first, &["C16 {toy/x}[1] v.v."]);
    // The n-th is compared with the n-th.
    check(
        &both,
        &with(&["b", "d"]),
        &["C37 {toy/x}[1] vvnn", "C07 {toy/x}[1]/d ??XX"],
    );
}
