//! Variants: an enum with data, chosen by a field before it.

use std::sync::Mutex;

use proptest::prelude::*;
use vmstate_derive::{ToMigrationState, VmState};
use vmstate_desc::snapshot::Migratable;
use vmstate_desc::{
    Description, Element, FieldValue, SaveState, VariantValue, VmState as _, trace,
};

use crate::common::{hex, load, load_with, refused, save, save_with};

#[derive(Debug, Clone, Default, PartialEq, VmState)]
#[vmstate(name = "line", version = 1)]
struct Line {
    level: bool,
    #[vmstate(skip = "wiring")]
    wire: u8,
}

#[derive(Debug, Clone, Default, PartialEq, VmState)]
#[vmstate(name = "message", version = 2, minimum_version = 2)]
#[vmstate(subsection(name = "message/mask", version = 1, needed = |m: &Self| m.mask != 0, fields(mask)))]
struct Message {
    address: u64,
    data: u32,
    #[vmstate(default = 0)]
    mask: u32,
}

#[derive(Debug, Clone, Default, PartialEq, VmState)]
enum Target {
    #[vmstate(case = 7)]
    Message(Box<Message>),
    #[default]
    #[vmstate(case = -1)]
    Unset,
    #[vmstate(case = 0)]
    Line(Line),
}

#[derive(Debug, Clone, PartialEq, VmState)]
#[vmstate(name = "route", version = 1)]
struct Route {
    #[vmstate(name = "type")]
    kind: i32,
    flags: u8,
    #[vmstate(variant = kind)]
    target: Target,
    end: u8,
}

fn route(kind: i32, target: Target) -> Route {
    Route {
        kind,
        flags: 1,
        target,
        end: 0xee,
    }
}

fn message(mask: u32) -> Target {
    Target::Message(Box::new(Message {
        address: 0xfee0_0000,
        data: 0x41,
        mask,
    }))
}

#[test]
fn the_description_has_the_cases_in_order() {
    let fields = Route::DESCRIPTION.fields();
    let Element::Variant(variants) = &fields[2].element else {
        panic!("{fields:?}");
    };
    assert_eq!(variants.field, "type");
    let shown: Vec<_> = variants
        .cases()
        .iter()
        .map(|case| (case.value, case.description.name().to_owned()))
        .collect();
    let case = |value, name: &str| (value, name.to_owned());
    assert_eq!(
        shown,
        [case(-1, "Unset"), case(0, "line"), case(7, "message")]
    );
    assert!(variants.case(1).is_none());
    assert_eq!(Target::CASES, variants.cases());
    assert_eq!(Route::DESCRIPTION.check(), Ok(()));
    assert_eq!(Route::PLAIN, None);
}

#[test]
fn the_bytes_are_those_of_the_case() {
    let line = Target::Line(Line {
        level: true,
        wire: 9,
    });
    let bytes = save(&route(0, line));
    assert_eq!(bytes, hex("00000000 01 01 ee"));
    assert_eq!(
        save(&route(-1, Target::Unset)),
        hex("ffffffff 01 ee"),
        "a case without state has no bytes"
    );
    assert_eq!(
        save(&route(7, message(0))),
        hex("00000007 01 00000000fee00000 00000041 ee")
    );
    let mut text = String::new();
    let traced = route(7, message(0));
    vmstate_desc::save(
        &traced,
        &mut trace::Trace::new(&mut trace::Nothing, &mut text),
    )
    .unwrap();
    assert!(
        text.contains("  case 7 message version 2\n    address: "),
        "{text}"
    );
}

#[test]
fn loading_takes_the_case_that_the_discriminant_names() {
    for source in [
        route(0, Target::Line(Line::default())),
        route(-1, Target::Unset),
        route(7, message(0)),
        route(7, message(0xff)),
    ] {
        for before in [Target::Unset, message(3), Target::Line(Line::default())] {
            let mut target = route(0, before);
            load(&mut target, &save(&source)).unwrap();
            assert_eq!(target, source);
        }
    }
    // The case that is there is loaded in place.
    let wired = Line {
        level: false,
        wire: 9,
    };
    let mut target = route(0, Target::Line(wired));
    load(&mut target, &hex("00000000 01 01 ee")).unwrap();
    let kept = Line {
        level: true,
        wire: 9,
    };
    assert_eq!(target.target, Target::Line(kept));
}

#[test]
fn what_has_no_case_is_refused() {
    let mut target = route(0, Target::Unset);
    assert_eq!(
        refused(&mut target, &hex("00000005 01 01 ee")),
        "route/target: type is 5, for which there is no case (known: -1, 0, 7) (byte 0x5)"
    );
    assert_eq!(
        save_with(&route(5, Target::Unset), false)
            .unwrap_err()
            .to_string(),
        "route/target: type is 5, for which there is no case (known: -1, 0, 7)"
    );
}

#[test]
fn a_device_whose_discriminant_and_state_disagree_is_not_saved() {
    let e = save_with(&route(0, message(0)), true).unwrap_err();
    assert_eq!(
        e.to_string(),
        "route/target: type is 0, so line is expected, found message"
    );
}

/// A discriminant that is an enum itself.
#[derive(Debug, Clone, Copy, PartialEq, VmState)]
#[vmstate(repr = u16)]
enum Kind {
    First = 1,
    Second = 0x100,
}

/// Values may be constants: they stand in their order then.
const SECOND: u16 = 0x100;

#[derive(Debug, Clone, PartialEq, VmState)]
enum Choice<T> {
    #[vmstate(case = 1)]
    First(T),
    #[vmstate(case = SECOND)]
    Second((u8, u16)),
}

#[derive(Debug, Clone, PartialEq, VmState)]
#[vmstate(name = "holder", version = 3, minimum_version = 1)]
struct Holder<C> {
    kind: Kind,
    #[vmstate(variant = kind, since = 2, exists = Self::has_choice)]
    choice: C,
    present: bool,
}

impl<C> Holder<C> {
    fn has_choice(&self, _version: u32) -> bool {
        self.present
    }
}

#[test]
fn enums_choose_and_parameters_are_cases() {
    type Device = Holder<Choice<Line>>;
    let first = Device {
        kind: Kind::First,
        choice: Choice::First(Line {
            level: true,
            wire: 0,
        }),
        present: true,
    };
    let bytes = save(&first);
    assert_eq!(bytes, hex("0001 01 01"));
    let mut target = Device {
        kind: Kind::Second,
        choice: Choice::Second((1, 2)),
        present: true,
    };
    assert_eq!(save(&target), hex("0100 01 0002 01"));
    load(&mut target, &bytes).unwrap();
    assert_eq!(target, first);
    target.present = false;
    target.choice = Choice::Second((3, 4));
    assert_eq!(
        save(&target),
        hex("0001 00"),
        "an absent case is not asked for"
    );
    assert_eq!(Device::DESCRIPTION.check(), Ok(()));
    let description: &Description = &SaveState::description(&target);
    assert!(description.fields()[1].conditional);
}

/// Behind a lock, a union is copied as a whole: it needs no mirror.
#[derive(Debug, ToMigrationState)]
#[migration_state(name = "locked", version = 1)]
struct Locked {
    #[migration_state(clone)]
    kind: i32,
    #[migration_state(clone, variant = kind)]
    target: Target,
}

#[test]
fn a_mirror_may_have_a_variant() {
    let locked = |kind, target| Migratable::new(Mutex::new(Locked { kind, target }));
    let source = locked(7, message(3));
    let bytes = save(&source);
    let mut target = locked(0, Target::Line(Line::default()));
    load(&mut target, &bytes).unwrap();
    let state = target.lock().unwrap();
    assert_eq!((state.kind, &state.target), (7, &message(3)));
}

fn routes() -> impl Strategy<Value = Route> {
    let message = |(address, data, mask)| Message {
        address,
        data,
        mask,
    };
    let (flags, end) = (any::<u8>(), any::<u8>());
    let target = prop_oneof![
        Just((-1, Target::Unset)),
        any::<bool>().prop_map(|level| (0, Target::Line(Line { level, wire: 0 }))),
        (any::<u64>(), any::<u32>(), 0..3_u32)
            .prop_map(move |fields| (7, Target::Message(Box::new(message(fields))))),
    ];
    (flags, target, end).prop_map(|(flags, (kind, target), end)| Route {
        kind,
        flags,
        target,
        end,
    })
}

proptest! {
    #[test]
    fn any_route_is_loaded_over_any_other(source in routes(), mut target in routes()) {
        load(&mut target, &save(&source)).unwrap();
        prop_assert_eq!(target, source);
    }

    #[test]
    fn damage_is_refused_or_loads_as_what_it_says(
        source in routes(),
        mut target in routes(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = save(&source);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(used) = load_with(&mut target, 1, &bytes, true) {
            let again = save(&target);
            let mut other = target.clone();
            load(&mut other, &again).unwrap();
            prop_assert_eq!(&other, &target);
            // A bool has more bytes than values.
            prop_assert!(used == again.len());
        }
    }
}
