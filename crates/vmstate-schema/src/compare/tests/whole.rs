//! Rules about more than one field: types as a whole, and structures that are there on one side only.

use super::*;

#[test]
fn c00_identical_digest() {
    let with = |inner| {
        named(
            "toy",
            vec![Field::new(
                "a",
                Element::Struct(DescriptionRef::from(inner)),
            )],
        )
    };
    let (narrow, wide) = (with(one(vec![u32_("x")])), with(one(vec![u32_("y")])));
    let identical = |from: &Description, to: &Description| -> Vec<String> {
        let comparison = compare(&schema(from), &schema(to), &Options::default());
        let text = |f: &Finding| format!("{} {} {}", f.rule, f.section, letters(f.verdicts));
        comparison.identical.iter().map(text).collect()
    };
    assert_eq!(identical(&narrow, &narrow), ["C00 toy/0 ...."]);
    // What is embedded counts, and so do names of the same bytes.
    assert_eq!(identical(&narrow, &wide), [""; 0]);
    // What says the same and is refused all the same is no such pair.
    let mut refused = narrow.clone();
    refused.unmigratable = true;
    assert_eq!(identical(&refused, &refused), [""; 0]);
    check(&refused, &refused, &["C32  XXXX"]);
}

#[test]
fn c00_is_not_said_of_what_does_not_load_its_own_stream() {
    // The temporary is written at version 2 and read at that of its field.
    let tmp = |since| {
        let inner = toy(2, 1, vec![u32_("x"), u32_("y").since(2)]);
        toy(
            2,
            1,
            vec![Field::new("t", Element::Tmp(inner.into())).since(since)],
        )
    };
    let findings = |since| {
        let comparison = compare(
            &schema(&tmp(since)),
            &schema(&tmp(since)),
            &Options::default(),
        );
        (comparison.identical.len(), comparison.equal)
    };
    assert_eq!(findings(2), (1, 1));
    assert_eq!(findings(1), (0, 0));
}

#[test]
fn c20_single_fields_led_by_aliases() {
    let bus = |fields| Field::new("bus", Element::Struct(named("bus", fields).into()));
    let inside = one(vec![bus(vec![u32_("x"), u32_("config")]), u32_("z")]);
    let outside = |aliases: &[&'static str]| {
        let mut config = u32_("config");
        config.aliases = aliases.iter().map(|name| (*name).into()).collect();
        one(vec![bus(vec![u32_("x")]), u32_("z"), config])
    };
    check(
        &inside,
        &outside(&[]),
        &["C04 bus/config XXXX", "C02 config XXXX"],
    );
    for alias in ["bus/config", "bus.config"] {
        let outside = outside(&[alias]);
        check(&inside, &outside, &["C20 config ??.."]);
        check(&outside, &inside, &["C20 bus/config ??.."]);
    }
    // A path that leads nowhere, or to what is no structure, says nothing.
    for alias in ["bus/other", "z/config", "nobody/config"] {
        check(
            &inside,
            &outside(&[alias]),
            &["C04 bus/config XXXX", "C02 config XXXX"],
        );
    }
    // What it became counts all the same.
    let mut narrow = outside(&["bus/config"]);
    narrow.fields.to_mut()[2].element = Element::Value(Codec::Uint16);
    check(&inside, &narrow, &["C20 config XX..", "C09 config XXv."]);
    // A structure of which nothing is left.
    let mut apart = [u32_("p"), u32_("q")];
    apart[0].aliases = vec!["bus.x".into()].into();
    apart[1].aliases = vec!["bus/config".into()].into();
    let apart = one([apart.to_vec(), vec![u32_("z")]].concat());
    check(&inside, &apart, &["C20 bus ??.."]);
    check(&apart, &inside, &["C20 bus ??.."]);
    // The field inside says what it was called outside.
    let mut said = schema(&inside);
    said.annotate("bus", "config", |f| f.aliases = vec!["config".into()]);
    check_schemas(&schema(&outside(&[])), &said, &["C20 bus/config ??.."]);
}
