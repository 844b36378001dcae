//! Fields that stand in an embedded struct at one end only.

use super::*;

const fn names<const N: usize>(names: [&'static str; N]) -> [Cow<'static, str>; N] {
    let mut out = [const { Cow::Borrowed("") }; N];
    let mut i = 0;
    while i < N {
        std::mem::forget(std::mem::replace(&mut out[i], Cow::Borrowed(names[i])));
        i += 1;
    }
    out
}

const DOTTED: &[Cow<'static, str>] = &names(["bus.config"]);
const SLASHED: &[Cow<'static, str>] = &names(["bus/config"]);
const DEEP: &[Cow<'static, str>] = &names(["old", "bus/dev/config"]);
const OWN: &[Cow<'static, str>] = &names(["config"]);

fn embedded(name: &'static str, fields: Vec<Field>) -> Field {
    Field::new(name, Element::Struct(description(1, fields).into()))
}

/// A state with these numbers in its fields, structs included, counted from 1.
fn filled(d: Description, next: &mut u8) -> DynState {
    let mut state = DynState::new(d);
    let fields = state.description().fields().to_vec();
    for (index, field) in fields.into_iter().enumerate() {
        let value = match field.element {
            Element::Struct(inner) => filled((*inner).clone(), next).into(),
            _ => {
                *next += 1;
                Value::from(Scalar::U8(*next - 1))
            }
        };
        state.set_value(index, value);
    }
    state
}

fn writer(fields: Vec<Field>) -> DynState {
    filled(description(1, fields), &mut 1)
}

fn inner<'s>(state: &'s DynState, name: &str) -> &'s DynState {
    match state.get(name) {
        Some(Value::Struct(inner)) => inner,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_field_comes_out_of_a_struct() {
    let from = writer(vec![
        u8_field("a"),
        embedded("bus", vec![u8_field("config")]),
        u8_field("z"),
    ]);
    for aliases in [DOTTED, SLASHED] {
        let reader = vec![
            u8_field("z"),
            u8_field("config").aliases(aliases),
            u8_field("a"),
        ];
        let (to, warnings) = moved(&from, description(1, reader)).unwrap();
        let found = ["a", "config", "z"].map(|name| scalar(&to, name));
        assert_eq!(found, [1, 2, 3].map(Scalar::U8));
        assert_eq!(warnings, []);
    }
    let without = vec![u8_field("a"), u8_field("config"), u8_field("z")];
    let error = moved(&from, description(1, without)).unwrap_err();
    assert_eq!(rule(&error), "E-MISSING");
}

#[test]
fn nothing_of_the_struct_gets_lost() {
    let from = writer(vec![embedded(
        "bus",
        vec![u8_field("config"), u8_field("more")],
    )]);
    let reader = || vec![u8_field("config").aliases(DOTTED)];
    let error = moved(&from, description(1, reader())).unwrap_err();
    assert_eq!(rule(&error), "E-UNKNOWN");
    assert!(error.to_string().contains("unknown field more"), "{error}");
    let ignorable = vec![embedded(
        "bus",
        vec![u8_field("config"), u8_field("more").ignorable()],
    )];
    let (to, warnings) = moved(&writer(ignorable), description(1, reader())).unwrap();
    assert_eq!(scalar(&to, "config"), Scalar::U8(1));
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].rule, "W-UNKNOWN");
    // A struct that both ends have is not taken apart.
    let both = vec![
        embedded("bus", vec![u8_field("more")]),
        u8_field("config").aliases(DOTTED),
    ];
    assert!(moved(&from, description(1, both)).is_err());
}

#[test]
fn paths_lead_through_several_structs() {
    let from = writer(vec![embedded(
        "bus",
        vec![
            u8_field("x"),
            embedded("dev", vec![u8_field("config"), u8_field("y")]),
        ],
    )]);
    const X: &[Cow<'static, str>] = &names(["bus/x"]);
    const Y: &[Cow<'static, str>] = &names(["bus/dev/y"]);
    let reader = vec![
        u8_field("y").aliases(Y),
        u8_field("config").aliases(DEEP),
        u8_field("x").aliases(X),
    ];
    let (to, _) = moved(&from, description(1, reader)).unwrap();
    let found = ["x", "config", "y"].map(|name| scalar(&to, name));
    assert_eq!(found, [1, 2, 3].map(Scalar::U8));
}

#[test]
fn a_field_goes_into_a_struct() {
    let struct_of = |config: Field| {
        vec![
            u8_field("a"),
            embedded("bus", vec![config, u8_field("x").with_default()]),
            u8_field("z"),
        ]
    };
    let config = |state: &DynState| scalar(inner(state, "bus"), "config");
    let flat = |config: Field| writer(vec![u8_field("a"), config, u8_field("z")]);
    // The writer says it: the field was there before.
    let from = flat(u8_field("config").aliases(DOTTED));
    let (to, _) = moved(&from, description(1, struct_of(u8_field("config")))).unwrap();
    assert_eq!(
        (config(&to), scalar(&to, "z")),
        (Scalar::U8(2), Scalar::U8(3))
    );
    // The reader says it: the field stood beside the struct.
    let from = flat(u8_field("config"));
    let (to, _) = moved(
        &from,
        description(1, struct_of(u8_field("config").aliases(OWN))),
    )
    .unwrap();
    assert_eq!(
        (config(&to), scalar(&to, "z")),
        (Scalar::U8(2), Scalar::U8(3))
    );
    // Nobody does.
    let error = moved(&from, description(1, struct_of(u8_field("config")))).unwrap_err();
    assert_eq!(rule(&error), "E-MISSING");
    // What is missing of it is missing.
    let strict = vec![
        u8_field("a"),
        embedded("bus", vec![u8_field("config").aliases(OWN), u8_field("x")]),
        u8_field("z"),
    ];
    let error = moved(&from, description(1, strict)).unwrap_err();
    assert_eq!(rule(&error), "E-MISSING");
    assert!(error.to_string().contains("bus"), "{error}");
}

#[test]
fn absent_structs_and_versions() {
    let optional = vec![
        u8_field("a"),
        embedded("bus", vec![u8_field("config")]).conditional(),
    ];
    let mut from = DynState::new(description(1, optional));
    from.set("a", Scalar::U8(1));
    let reader = vec![
        u8_field("a"),
        u8_field("config").aliases(DOTTED).with_default(),
    ];
    let (to, _) = moved(&from, description(1, reader)).unwrap();
    assert_eq!(to.get("config"), Some(&Value::Unset));
}

#[test]
fn bad_paths_and_circles_are_refused() {
    let broken = |fields: Vec<Field>| description(1, fields).check().unwrap_err().rule;
    let aliased = |name: &'static str, aliases: Vec<&'static str>| {
        let mut field = u8_field(name);
        field.aliases = aliases.into_iter().map(Cow::Borrowed).collect();
        field
    };
    let one = |alias: &'static str| broken(vec![aliased("a", vec![alias])]);
    for bad in ["", "/x", "x/", "x//y", ".x", "x..y", "a/x", "a.x"] {
        assert_eq!(one(bad), vmstate_desc::Rule::Alias, "{bad:?}");
    }
    // Each had the other's name, or both the same one.
    let circle = vec![aliased("a", vec!["b"]), aliased("b", vec!["a"])];
    assert_eq!(broken(circle), vmstate_desc::Rule::Alias);
    let twice = vec![aliased("a", vec!["x"]), aliased("b", vec!["x"])];
    assert_eq!(broken(twice), vmstate_desc::Rule::Alias);
    let deep: &'static str = Box::leak(
        vec!["x"; vmstate_desc::MAX_DEPTH as usize + 1]
            .join("/")
            .into_boxed_str(),
    );
    assert_eq!(one(deep), vmstate_desc::Rule::Alias);
    let many = (0..257)
        .map(|n| &*Box::leak(format!("x{n}").into_boxed_str()))
        .collect();
    assert_eq!(
        broken(vec![aliased("a", many)]),
        vmstate_desc::Rule::TooManyAliases
    );
    assert_eq!(
        description(1, vec![aliased("a", vec!["a", "b", "c/d.e"])]).check(),
        Ok(())
    );
    // A type that came says so, too.
    let mut types = TypeTable::default();
    let index = types
        .add(&description(1, vec![aliased("a", vec!["x//y"])]))
        .unwrap();
    let error = types.description(index).unwrap_err();
    assert!(error.to_string().contains("an alias must be"), "{error}");
}
