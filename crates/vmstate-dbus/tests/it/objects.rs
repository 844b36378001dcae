//! Helpers with objects beside the one, and what they say about them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use vmstate_dbus::{DbusVmstate, Fault, OBJECT_PATH, Place, list};
use vmstate_interop::Bus;

use crate::support::{PATIENCE, Said, Script, Villain, Villainy, load, save};

const ONE: &str = r#"<node><interface name="org.qemu.VMState1"/></node>"#;

/// A helper that does what it should, and answers to introspection with `said`.
fn otherwise_good(path: &str, method: &str, said: impl FnOnce() -> Said) -> Said {
    match (path, method) {
        (OBJECT_PATH, "GetAll") => Said::Id("odd"),
        (OBJECT_PATH, "Save") => Said::State(b"state".to_vec()),
        (OBJECT_PATH, "Load") => Said::Done,
        (_, "Introspect") => said(),
        _ => Said::Refusal,
    }
}

/// What a helper says about its objects, and must not be believed, or needs not be said.
const STORIES: &[(&str, Script)] = &[
    ("refuses", |path, method| {
        otherwise_good(path, method, || Said::Refusal)
    }),
    ("another type", |path, method| {
        otherwise_good(path, method, || Said::State(vec![7; 10]))
    }),
    ("no XML", |path, method| {
        otherwise_good(path, method, || Said::Text("</node><<<".to_owned()))
    }),
    ("objects that are not there", |path, method| {
        otherwise_good(path, method, || {
            Said::Text(ONE.replacen("<node>", "<node><node name='a'>", 1) + "</node>")
        })
    }),
    ("children without end", |path, method| {
        otherwise_good(path, method, || {
            Said::Text("<node><node name='a'/><node name='b'/></node>".to_owned())
        })
    }),
    ("children side by side", |path, method| {
        otherwise_good(path, method, || {
            let names = (0..10_000).map(|n| format!("<node name='n{n}'/>"));
            Said::Text(format!("<node>{}</node>", names.collect::<String>()))
        })
    }),
    ("children in one another", |path, method| {
        otherwise_good(path, method, || {
            Said::Text("<node name='a'>".repeat(50_000))
        })
    }),
    ("more than the bus lets through is cut", |path, method| {
        otherwise_good(path, method, || Said::Text(" ".repeat((2 << 20) - 200)))
    }),
    ("nothing", |path, method| {
        otherwise_good(path, method, || Said::Nothing)
    }),
];

/// Introspection is nothing that a helper must answer, and nothing that it can do harm with.
#[test]
fn stories_do_no_harm() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let place = Place::bus(&bus.address()).unwrap();
    let object = DbusVmstate::with_deadline(place.clone(), PATIENCE);
    for (name, story) in STORIES {
        let _villain = Villainy::new(&bus.address(), Villain::Scripted(*story));
        let begin = Instant::now();
        let present = object.rehearse().map(|rehearsal| rehearsal.present);
        assert_eq!(present, Ok(vec!["odd".to_owned()]), "{name}");
        assert!(begin.elapsed() < PATIENCE, "{name}");
        let stream = save(&[&object]).unwrap();
        load(&[&object], &stream).unwrap();
        assert_eq!(object.saved().unwrap().saved, [("odd".to_owned(), 5)]);
    }
}

/// One whose second object has no id is one with two objects all the same.
#[test]
fn two_objects_are_listed_as_wrong() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let place = Place::bus(&bus.address()).unwrap();
    let nameless: Script = |path, method| match (path, method) {
        ("/", "Introspect") => Said::Text("<node><node name='x'/></node>".to_owned()),
        ("/x", "Introspect") => Said::Text(ONE.to_owned()),
        ("/x", "GetAll") => Said::Text("no properties".to_owned()),
        _ => otherwise_good(path, method, || Said::Refusal),
    };
    let villain = Villainy::new(&bus.address(), Villain::Scripted(nameless));
    let present = list(&place, None, true, PATIENCE).unwrap();
    assert_eq!(present[0].id, Ok("odd".to_owned()));
    let Some(Fault::SecondObject { path, id }) = &present[0].second else {
        panic!("{present:?}");
    };
    let expected = Fault::WrongType {
        expected: "a{sv}",
        found: "s".to_owned(),
    };
    assert_eq!((path.as_str(), id), ("/x", &Err(Box::new(expected))));
    let error = DbusVmstate::with_deadline(place, PATIENCE)
        .rehearse()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "helper 'odd' ({}): looking at its objects: org.qemu.VMState1 is also at /x, with the id unknown",
            villain.name()
        )
    );
}

/// Whether the helper has a second object by now.
static GROWN: AtomicBool = AtomicBool::new(false);

/// What was looked at when the migration began may have changed when the guest stands still.
#[test]
fn a_second_object_that_comes_later_is_noticed_at_the_switchover() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let place = Place::bus(&bus.address()).unwrap();
    let growing: Script = |path, method| match (path, method) {
        ("/late", "GetAll") => Said::Id("later"),
        ("/", "Introspect") if GROWN.load(Ordering::SeqCst) => {
            Said::Text(ONE.replacen("<node>", "<node><node name='late'>", 1) + "</node>")
        }
        _ => otherwise_good(path, method, || Said::Text("<node/>".to_owned())),
    };
    let villain = Villainy::new(&bus.address(), Villain::Scripted(growing));
    let object = DbusVmstate::with_deadline(place, PATIENCE);
    assert_eq!(object.rehearse().unwrap().present, ["odd"]);
    save(&[&object]).unwrap();
    GROWN.store(true, Ordering::SeqCst);
    let error = save(&[&object]).unwrap_err().to_string();
    let expected = format!(
        "helper 'odd' ({}): looking at its objects: org.qemu.VMState1 is also at /late, with the id 'later'",
        villain.name()
    );
    assert!(error.contains(&expected), "{error}");
}
