use super::{OwnCount, own_counts};
use crate::{
    Codec, Count, Description, DescriptionRef, Element, Error, Field, Repeat, SaveField, SaveState,
};

fn counted(name: &'static str, max: u32) -> Field {
    Field::value(name, Codec::Uint8).repeat(Repeat::Counted(Count::of_device("ports", max)))
}

/// Fields whose numbers are given by index; those that are an embedded structure or subsection lead to it.
struct State {
    description: Description,
    numbers: Vec<Option<i64>>,
    configured: bool,
    inside: Vec<Self>,
    needed: bool,
}

impl State {
    fn new(name: &'static str, fields: Vec<Field>, numbers: Vec<Option<i64>>) -> Self {
        Self {
            description: Description {
                fields: fields.into(),
                ..Description::new(name, 2, 1)
            },
            numbers,
            configured: true,
            inside: Vec::new(),
            needed: true,
        }
    }
}

impl SaveState for State {
    fn description(&self) -> DescriptionRef {
        self.description.clone().into()
    }

    fn save_field(&self, _: usize, sink: &mut dyn SaveField) -> Result<(), Error> {
        sink.child(self.inside.first().expect("nothing else is asked for"))
    }

    fn exists(&self, _: usize, _: u32) -> bool {
        false
    }

    fn count(&self, field: usize) -> Option<i64> {
        self.numbers[field]
    }

    fn is_configured(&self, _: usize) -> bool {
        self.configured
    }

    fn needed(&self) -> bool {
        self.needed
    }

    fn save_subsection(
        &self,
        _: usize,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        visit(self.inside.last().unwrap())
    }
}

fn told(state: &State) -> Vec<(String, u32)> {
    let told = own_counts(state).into_iter();
    told.map(|one| (one.path, one.number)).collect()
}

#[test]
fn only_what_is_configured_and_fits() {
    let fields = || {
        vec![
            counted("four", 4),
            counted("five", 4),
            counted("negative", 4),
            counted("none", 4),
            counted("younger", 4).since(3),
            counted("conditional", 4).conditional(),
            counted("zero", 4),
        ]
    };
    let numbers = vec![Some(4), Some(5), Some(-1), None, Some(1), Some(1), Some(0)];
    let mut state = State::new("nic", fields(), numbers);
    let expected = [("four".to_owned(), 4), ("zero".to_owned(), 0)];
    assert_eq!(told(&state), expected);
    state.configured = false;
    assert_eq!(told(&state), []);
}

#[test]
fn everything_about_one() {
    let field = Field::value("words", Codec::Uint32)
        .repeat(Repeat::Counted(Count::of_device("ports", 32).times(3)))
        .aliases(const { &[std::borrow::Cow::Borrowed("old/words")] })
        .resize_max(16);
    let state = State::new("nic", vec![field], vec![Some(5)]);
    let expected = OwnCount {
        path: "words".to_owned(),
        aliases: vec!["old.words".to_owned()],
        counter: "ports".to_owned(),
        number: 15,
        resize_max: Some(16),
    };
    assert_eq!(own_counts(&state), [expected]);
}

#[test]
fn inside_of_structures_and_subsections() {
    let inner = State::new("inner", vec![counted("ring", 4)], vec![Some(3)]);
    let mut sub = State::new("nic/more", vec![counted("ring", 4)], vec![Some(2)]);
    // Nothing in here is counted by the device: it is not looked into, and would panic.
    let plain = Description::new("plain", 1, 1);
    let mut state = State::new(
        "nic",
        vec![
            Field::new("first", Element::Struct(inner.description())),
            Field::new("plain", Element::Struct(plain.clone().into())),
            Field::new("second", Element::Struct(plain.into())).repeat(Repeat::Array(2)),
        ],
        vec![None, None, None],
    );
    sub.inside = Vec::new();
    state.description.subsections = vec![sub.description()].into();
    state.inside = vec![inner, sub];
    let expected = [
        ("first.ring".to_owned(), 3),
        ("nic/more.ring".to_owned(), 2),
    ];
    assert_eq!(told(&state), expected);
    state.inside[1].needed = false;
    assert_eq!(told(&state), expected[..1]);
}

#[test]
fn two_of_one_name_tell_nothing() {
    let fields = vec![counted("ring", 4), counted("ring", 4), counted("other", 4)];
    let state = State::new("nic", fields, vec![Some(1), Some(2), Some(3)]);
    assert_eq!(told(&state), [("other".to_owned(), 3)]);
}

#[test]
fn not_too_many() {
    let names = (0..300).map(|n| &*Box::leak(format!("f{n}").into_boxed_str()));
    let fields: Vec<_> = names.map(|name| counted(name, 4)).collect();
    let numbers = vec![Some(1); fields.len()];
    let state = State::new("nic", fields, numbers);
    assert_eq!(told(&state).len(), super::MAX_OWN_COUNTS);
}
