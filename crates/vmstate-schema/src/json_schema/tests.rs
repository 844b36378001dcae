//! What the schemas say; that another author's validator agrees is tested in `tests/validator.rs`.

use super::*;
use vmstate_desc::{Codec, Description, Field};

fn schema() -> Schema {
    let mut d = Description::new("rtc", 2, 1);
    d.fields = vec![
        Field::value("year", Codec::Uint16),
        Field::value("ticks", Codec::Uint64).since(2),
        Field::value("maybe", Codec::Bool).conditional(),
        Field::value("hole", Codec::Unused(4)),
        Field::validator("sane"),
    ]
    .into();
    Schema::of(Some("toy"), [&d]).unwrap()
}

#[test]
fn writers_and_readers() {
    let schema = schema();
    let definition = |audience| {
        let json = type_schema(&schema, TypeId(0), audience).unwrap();
        json["$defs"]["type0"].clone()
    };
    let writer = definition(Audience::Writer);
    assert_eq!(writer["required"], json!(["year", "ticks"]));
    assert_eq!(writer["additionalProperties"], json!(false));
    assert_eq!(writer["properties"]["year"]["maximum"], json!(65535));
    assert_eq!(
        writer["properties"]["year"]["x-vmstate"]["kind"],
        json!("uint16")
    );
    assert_eq!(writer["properties"].as_object().unwrap().len(), 3);
    let reader = definition(Audience::Reader);
    assert_eq!(reader["required"], json!(["year"]));
}

#[test]
fn a_variant_is_one_of_its_cases() {
    use vmstate_desc::{Element, VariantCase, Variants};
    let case = |value, name: &'static str, version| VariantCase {
        value,
        description: Description::new(name, version, 1).into(),
    };
    let cases = vec![case(0, "none", 1), case(2, "some", 3), case(5, "none", 1)];
    let mut d = Description::new("toy", 1, 1);
    let variants = Variants {
        field: "kind".into(),
        cases: cases.into(),
    };
    d.fields = vec![
        Field::value("kind", Codec::Uint8),
        Field::new("one", Element::Variant(variants)),
    ]
    .into();
    let schema = Schema::of(None, [&d]).unwrap();
    let toy = schema.sections[0].ty.unwrap();
    let json = type_schema(&schema, toy, Audience::Writer).unwrap();
    let one = &json["$defs"][format!("type{}", toy.0)]["properties"]["one"];
    let reference = |n: u32| json!({"$ref": format!("#/$defs/type{n}-case")});
    assert_eq!(one["oneOf"], json!([reference(0), reference(1)]));
    assert_eq!(one["x-vmstate"]["discriminant"], "kind");
    let some = &json["$defs"]["type1-case"];
    assert_eq!(some["properties"]["$type"], json!({"const": "some"}));
    assert_eq!(some["properties"]["$version"]["maximum"], 3);
    assert_eq!(some["required"], json!(["$type", "$version"]));
    let again = Schema::from_text(json_text(&schema).as_bytes()).unwrap();
    assert_eq!(again, schema);
}

fn json_text(schema: &Schema) -> String {
    machine_schema(schema, Audience::Reader).to_string()
}

#[test]
fn nothing_is_lost() {
    let schema = schema();
    let json = machine_schema(&schema, Audience::Writer);
    let again = Schema::from_text(json.to_string().as_bytes()).unwrap();
    assert_eq!(again, schema);
}

#[test]
fn names_are_escaped() {
    assert_eq!(escaped("a/b c"), "a%2Fb%20c");
    assert_eq!(suffix_pattern("i8259.x+"), "^(.*/)?i8259\\.x\\+$");
}
