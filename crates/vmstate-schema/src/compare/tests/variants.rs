//! Variants: their cases and what decides about them.

use vmstate_desc::{Codec, Description, Element, Field, VariantCase, Variants};

use super::*;

/// A variant by `kind`, with these cases.
fn cases(cases: &[(i64, &'static str, Vec<Field>)]) -> Description {
    by("kind", cases)
}

fn by(kind: &'static str, cases: &[(i64, &'static str, Vec<Field>)]) -> Description {
    let case = |(value, name, fields): &(i64, &'static str, Vec<Field>)| VariantCase {
        value: *value,
        description: named(name, fields.clone()).into(),
    };
    let variants = Variants {
        field: kind.into(),
        cases: cases.iter().map(case).collect(),
    };
    let discriminants = [u32_("kind"), u32_("type")];
    let variant = Field::new("one", Element::Variant(variants));
    one(discriminants.into_iter().chain([variant]).collect())
}

#[test]
fn c38_case_of_a_variant_added_or_removed() {
    let (line, message) = (vec![u32_("level")], vec![u32_("data")]);
    let old = cases(&[(0, "line", line.clone())]);
    let new = cases(&[(0, "line", line.clone()), (3, "message", message.clone())]);
    check(&old, &new, &["C38 one/{case 3} .v.v"]);
    check(&new, &old, &["C38 one/{case 3} v.v."]);
    // The same value for something else.
    let wide = vec![Field::value("level", Codec::Uint64)];
    let wider = cases(&[(0, "line", wide)]);
    check(&old, &wider, &["C08 one/{case 0}/level XX.v"]);
    // No longer a choice.
    let plain = one(vec![
        u32_("kind"),
        u32_("type"),
        Field::new("one", Element::Struct(named("line", line).into())),
    ]);
    check(&old, &plain, &["C10 one XXXX"]);
    let text = |d: &Description| {
        let comparison = compare(&schema(d), &schema(&plain), &Options::default());
        comparison.findings[0].from.clone()
    };
    assert_eq!(text(&new), "by kind: 0 line, 3 message");
}

#[test]
fn c39_discriminant_of_a_variant_changed() {
    let line = [(0, "line", vec![u32_("level")])];
    check(&cases(&line), &by("type", &line), &["C39 one ????"]);
}
