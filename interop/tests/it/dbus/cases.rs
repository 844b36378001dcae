//! The cases of QEMU's own test of its object, with every pair of machines; and what QMP says to bad input.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use vmstate_dbus::{Helper, HelperError, Place, Served};
use vmstate_interop::{Bus, Program, Result};

use super::{SHAPE, add_object, qemu};
use crate::host::Host;

/// A helper of the test's: the state of the source's, nothing at the destination's.
#[derive(Default)]
struct Witness {
    id: &'static str,
    state: Mutex<Vec<u8>>,
    saved: Mutex<bool>,
    loaded: Mutex<bool>,
}

impl Helper for Witness {
    fn id(&self) -> String {
        self.id.to_owned()
    }

    fn save(&self) -> std::result::Result<Vec<u8>, HelperError> {
        *self.saved.lock().unwrap() = true;
        Ok(self.state.lock().unwrap().clone())
    }

    fn load(&self, state: &[u8]) -> std::result::Result<(), HelperError> {
        *self.loaded.lock().unwrap() = true;
        *self.state.lock().unwrap() = state.to_vec();
        Ok(())
    }
}

impl Witness {
    fn new(id: &'static str, state: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            id,
            state: Mutex::new(state.to_vec()),
            ..Self::default()
        })
    }

    /// Saved, and loaded.
    fn called(&self) -> (bool, bool) {
        (*self.saved.lock().unwrap(), *self.loaded.lock().unwrap())
    }
}

/// One case of QEMU's test: a list, whether the destination has B, and what must have become of it.
struct Case {
    name: &'static str,
    list: Option<&'static str>,
    b_there: bool,
    completes: bool,
    /// Of A and B, at the source.
    saved: [bool; 2],
    /// Of A and B, at the destination.
    loaded: [bool; 2],
}

const CASES: &[Case] = &[
    Case {
        name: "without list",
        list: None,
        b_there: true,
        completes: true,
        saved: [true, true],
        loaded: [true, true],
    },
    Case {
        name: "with list",
        list: Some("idA,idB"),
        b_there: true,
        completes: true,
        saved: [true, true],
        loaded: [true, true],
    },
    Case {
        name: "only a",
        list: Some("idA"),
        b_there: true,
        completes: true,
        saved: [true, false],
        loaded: [true, false],
    },
    Case {
        name: "missing source",
        list: Some("idA,idC"),
        b_there: true,
        completes: false,
        saved: [false, false],
        loaded: [false, false],
    },
    Case {
        name: "missing destination",
        list: Some("idA,idB"),
        b_there: false,
        completes: false,
        saved: [true, true],
        loaded: [false, false],
    },
];

const STATES: [&[u8]; 2] = [b"I am A\0, and more", b"B\xff"];

fn run(case: &Case, source: Option<&Program>, destination: Option<&Program>) -> Result<()> {
    let name = case.name;
    let (Some(here), Some(there)) = (Bus::start()?, Bus::start()?) else {
        return Ok(());
    };
    let ids = ["idA", "idB"];
    let old = [0, 1].map(|index| Witness::new(ids[index], STATES[index]));
    let new = ids.map(|id| Witness::new(id, b""));
    let mut served = Vec::new();
    for (bus, witnesses) in [(&here, &old), (&there, &new)] {
        let place = Place::bus(&bus.address())?;
        for witness in witnesses {
            if case.b_there || !Arc::ptr_eq(witness, &new[1]) {
                served.push(Served::on_bus(&place, Arc::clone(witness))?);
            }
        }
    }
    let mut from = Host::started(&SHAPE, source)?;
    let mut to = Host::waiting(&SHAPE, destination, true)?;
    for (host, bus) in [(&mut from, &here), (&mut to, &there)] {
        add_object(host, bus, None)?;
        // QEMU's test sets the list when the machine runs already.
        if let Some(list) = case.list {
            let list = json!({"path": "/objects/dv0", "property": "id-list", "value": list});
            host.run("qom-set", list)?;
        }
    }
    from.goes_on()?;
    let uri = to.listen(&format!("unix:{}", to.path("migration").display()))?;
    let begun = from.run("migrate", json!({ "uri": uri }));
    let refused = !case.completes && !case.saved[0] && source.is_none();
    // QEMU without a return path does not hear that the destination has failed.
    let lost = !case.completes && case.saved[0] && source.is_some();
    if refused {
        // Where QEMU's migration fails, ours does not even begin.
        let error = begun.as_ref().err().map(ToString::to_string);
        let error = error.unwrap_or_default();
        assert!(error.contains("'idC'"), "{name}: {error}");
    } else {
        let sent = from.outcome()?;
        let status = if case.completes {
            "completed"
        } else {
            "failed"
        };
        assert!(lost || sent["status"] == status, "{name}: {sent}");
    }
    if case.completes {
        begun?;
        assert_eq!(to.outcome()?["status"], "completed", "{name}");
        to.goes_on()?;
    } else if case.saved[0] {
        assert_eq!(to.outcome()?["status"], "failed", "{name}");
    }
    if !case.completes && !lost {
        assert_eq!(from.status()?, "running", "{name}");
        from.goes_on()?;
    }
    for index in 0..2 {
        let id = ids[index];
        assert_eq!(
            old[index].called(),
            (case.saved[index], false),
            "{name}, {id}"
        );
        assert_eq!(
            new[index].called(),
            (false, case.loaded[index]),
            "{name}, {id}"
        );
        let expected = if case.loaded[index] {
            STATES[index]
        } else {
            b""
        };
        assert_eq!(*new[index].state.lock().unwrap(), expected, "{name}, {id}");
    }
    Ok(())
}

#[test]
fn cases_from_ours_to_ours() -> Result<()> {
    CASES.iter().try_for_each(|case| run(case, None, None))
}

#[test]
fn cases_from_qemu_to_ours() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let mut cases = CASES.iter();
    cases.try_for_each(|case| run(case, Some(&program), None))
}

#[test]
fn cases_from_ours_to_qemu() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let mut cases = CASES.iter();
    cases.try_for_each(|case| run(case, None, Some(&program)))
}

/// What both refuse, they refuse in the same words.
#[test]
fn bad_objects_are_refused_in_qemus_words() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let Some(bus) = Bus::start()? else {
        return Ok(());
    };
    let mut ours = Host::started(&SHAPE, None)?;
    let mut theirs = Host::started(&SHAPE, Some(&program))?;
    let object = |more: Value| {
        let mut object = json!({"qom-type": "dbus-vmstate", "id": "dv0", "addr": bus.address()});
        for (name, value) in more.as_object().into_iter().flatten() {
            object[name] = value.clone();
        }
        object
    };
    let id_list = json!({"path": "/objects/dv0", "property": "id-list"});
    for (command, arguments, good) in [
        ("object-add", json!({}), false),
        ("object-add", json!({"qom-type": "dbus-vmstate"}), false),
        (
            "object-add",
            json!({"qom-type": "dbus-vmstate", "id": "a"}),
            false,
        ),
        (
            "object-add",
            object(json!({"qom-type": "no-such-thing"})),
            false,
        ),
        ("object-add", object(json!({"id": "1"})), false),
        ("object-add", object(json!({"id": 1})), false),
        ("object-add", object(json!({"addr": 7})), false),
        ("object-add", object(json!({"colour": "red"})), false),
        ("object-del", json!({}), false),
        ("object-del", json!({"id": "dv0"}), false),
        ("qom-get", id_list.clone(), false),
        ("object-add", object(json!({"id-list": "a,b"})), true),
        ("object-add", object(json!({})), false),
        ("qom-get", id_list.clone(), true),
        (
            "qom-get",
            json!({"path": "/objects/dv0", "property": "type"}),
            true,
        ),
        (
            "qom-get",
            json!({"path": "/objects/dv0", "property": "addr"}),
            true,
        ),
        (
            "qom-get",
            json!({"path": "/objects/dv0", "property": "x"}),
            false,
        ),
        (
            "qom-set",
            json!({"path": "/objects/dv0", "property": "x", "value": 1}),
            false,
        ),
        (
            "qom-set",
            json!({"path": "/objects/dv0", "property": "id-list", "value": 1}),
            false,
        ),
        (
            "qom-set",
            json!({"path": "/objects/dv0", "property": "id-list", "value": "c"}),
            true,
        ),
        ("qom-get", id_list, true),
        ("object-del", json!({"id": "dv0"}), true),
        ("object-del", json!({"id": "dv0"}), false),
    ] {
        let answers = [&mut ours, &mut theirs].map(|host| {
            let answer = host.run(command, arguments.clone());
            answer.map_err(|error| error.to_string())
        });
        let [ours, theirs] = answers;
        assert_eq!(ours, theirs, "{command} {arguments}");
        assert_eq!(ours.is_ok(), good, "{command} {arguments}");
    }
    Ok(())
}
