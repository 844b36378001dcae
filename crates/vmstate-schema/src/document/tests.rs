//! What is written is read; what is wrong is refused, with its place.

use serde_json::{Value, json};
use vmstate_desc::{
    Codec, Count, Description, Element, Field, ListKind, Priority, Repeat, ScalarType, Size,
    TreeKey, VariantCase, Variants,
};

use super::*;
use crate::model::{self, Origin, TypeId};

fn everything() -> Description {
    let mut inner = Description::new("inner", 3, 1);
    inner.fields = vec![Field::value("x", Codec::Uint8).since(2).until(4)].into();
    let child = || inner.clone().into();
    let mut sub = Description::new("all/sub", 1, 1);
    sub.fields = vec![Field::validator("sane")].into();
    let mut d = Description::new("all", 4, 2);
    d.priority = Priority::Iommu;
    d.early_setup = true;
    d.subsections = vec![sub.into()].into();
    let count = |name| Count::of_field(name, 9);
    let mut fields = vec![
        Field::value("n", Codec::Uint32),
        Field::value("eq", Codec::Uint64Equal),
        Field::value("le", Codec::LittleEndian(ScalarType::I16)).array(3),
        Field::value("buffer", Codec::Buffer(Size::Counted(count("n").times(2)))),
        Field::value("bits", Codec::Bitmap(Size::Fixed(70))),
        Field::value("pad", Codec::Unused(5)),
        Field::value("bytes", Codec::ByteArray { max: 77 }),
        Field::value("cap", Codec::Capability),
        Field::value("own", Codec::custom("own codec", Some(6))),
        Field::value("free", Codec::custom("free", None)),
        Field::value("some", Codec::Int8).repeat(Repeat::Counted(Count::of_device("queues", 4))),
        Field::new("one", Element::Struct(child())).conditional(),
        Field::new("old", Element::VersionedStruct(child(), 2)),
        Field::new("tmp", Element::Tmp(child())).since(2),
        Field::new("list", Element::List(ListKind::QList, child())).since(2),
        Field::new(
            "tree",
            Element::Tree {
                key: TreeKey::Struct(child()),
                value: child(),
            },
        )
        .since(2),
    ];
    fields.push(
        Field::new("every", Element::Struct(child()))
            .array(2)
            .mark_every(64),
    );
    fields.push(Field::value("absent", Codec::Timer).array(2).mark_absent());
    let marked = ListKind::Marked {
        more: 42,
        stop: 0,
        lenient: true,
    };
    for (name, kind) in [("marked", marked), ("counted", ListKind::Prefixed(4))] {
        fields.push(Field::new(name, Element::List(kind, child())).since(2));
    }
    let cases = [(-1, child()), (7, child())]
        .map(|(value, description)| VariantCase { value, description });
    fields.push(Field::value("kind", Codec::Int16));
    fields.push(Field::new(
        "variant",
        Element::Variant(Variants {
            field: "kind".into(),
            cases: cases.to_vec().into(),
        }),
    ));
    d.fields = fields.into();
    d
}

fn schema() -> Schema {
    let mut schema = Schema::of(Some("toy-1"), [&everything()]).unwrap();
    schema.annotate("all", "n", |field| {
        field.aliases = vec!["count".to_owned()];
        (field.default, field.ignorable, field.resize_max) = (true, true, Some(8));
    });
    schema.types[0].readable_from = Some(2);
    let memory = model::Element::Memory {
        size: 48,
        num: Some(2),
        child: Some(TypeId(0)),
    };
    let mut extra = Type::new("extra", 1, 0);
    let mut field = model::Field::new("m", memory);
    field.variants = vec![TypeId(0)];
    extra.fields.push(field);
    schema.add_type(extra).unwrap();
    schema.add_opaque("slirp", 1);
    schema.sections[0].class = Some("all-class".to_owned());
    schema.sections[0].optional = true;
    schema
}

#[test]
fn what_is_written_is_read() {
    let schema = schema();
    let text = schema.to_text();
    assert_eq!(Schema::from_text(text.as_bytes()).unwrap(), schema);
    let again: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(again, schema.to_document());
    assert_eq!(Schema::from_document(schema.to_document()).unwrap(), schema);
    // One line for each field: that is what makes a difference readable.
    assert!(
        text.lines()
            .any(|line| line == r#"   {"name":"eq","kind":"int64 equal"},"#),
        "{text}"
    );
    assert_eq!(Origin::by_name("dump"), Some(Origin::Dump));
}

#[test]
fn descriptions_come_back() {
    let d = everything();
    let schema = Schema::of(None, [&d]).unwrap();
    let ty = schema.sections[0].ty.unwrap();
    assert_eq!(*schema.description(ty).unwrap(), d);
}

#[test]
fn equal_types_have_one_number() {
    let schema = Schema::of(None, [&everything(), &everything()]).unwrap();
    assert_eq!(schema.sections[0].ty, schema.sections[1].ty);
    assert_eq!(schema.types().len(), 3);
}

fn document(change: impl FnOnce(&mut Value)) -> String {
    let mut json = schema().to_document();
    change(&mut json);
    Schema::from_document(json).unwrap_err().to_string()
}

#[test]
fn what_is_refused() {
    assert!(
        Schema::from_text(b"{")
            .unwrap_err()
            .to_string()
            .contains("JSON")
    );
    assert!(
        Schema::from_text(b"{}")
            .unwrap_err()
            .to_string()
            .contains("format")
    );
    assert!(document(|d| d["format"] = json!("x/2")).contains("x/2"));
    assert!(document(|d| d["origin"] = json!("x")).contains("unknown origin"));
    assert!(document(|d| d["extra"] = json!(1)).contains("`extra`"));
    let text = document(|d| d["sections"][1]["type"] = json!(99));
    assert_eq!(text, "section 1: there is no type 99");
    let field = |key: &str, value: Value| document(|d| d["types"][2]["fields"][0][key] = value);
    assert_eq!(
        field("kind", json!("x")),
        "type 2 (all), field 0: unknown kind \"x\""
    );
    assert!(field("kind", json!("buffer")).contains("needs a \"size\""));
    assert!(field("type", json!(0)).contains("kind uint32 has no \"type\""));
    assert!(field("name", json!("")).contains("without a name"));
    assert!(field("repeat", json!({"max": 3})).contains("either"));
    assert!(field("repeat", json!(1_u64 << 32)).contains("above"));
    assert!(field("pointers", json!("x")).contains("unknown pointers"));
    assert!(field("surprise", json!(1)).contains("surprise"));
    let text = document(|d| d["types"][0]["priority"] = json!("x"));
    assert!(text.contains("unknown priority"), "{text}");
}

#[test]
fn types_cannot_go_round_in_circles() {
    for target in [2, 3, 99] {
        let text = document(|d| {
            d["types"][2]["fields"][11]["type"] = json!(target);
        });
        assert!(text.contains("does not stand before it"), "{text}");
    }
    let text = document(|d| d["types"][2]["subsections"][0]["type"] = json!(2));
    assert!(text.contains("does not stand before it"), "{text}");
}

#[test]
fn depth_and_number_are_bounded() {
    let chain = |n: u32| {
        let types: Vec<Value> = (0..n)
            .map(|i| {
                let fields = match i.checked_sub(1) {
                    Some(before) => json!([{"name": "a", "kind": "struct", "type": before}]),
                    None => json!([]),
                };
                json!({"name": "t", "version": 1, "minimum_version": 1, "fields": fields, "subsections": []})
            })
            .collect();
        json!({"format": FORMAT, "origin": "descriptions", "machine": null, "sections": [], "types": types})
    };
    assert!(Schema::from_document(chain(64)).is_ok());
    let text = Schema::from_document(chain(65)).unwrap_err().to_string();
    assert!(text.contains("deeper than 64"), "{text}");
    let text = Schema::from_text_within(schema().to_text().as_bytes(), 1 << 12);
    assert!(text.unwrap_err().to_string().contains("memory"));
}
