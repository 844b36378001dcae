//! On a real `dbus-daemon`, with the policy that the documentation recommends.

use std::time::Duration;

use vmstate_dbus::{DbusVmstate, Fault, Loaded, Place, Rehearsal, Served, export, list};
use vmstate_interop::Bus;
use vmstate_wire::helpers::put_blob;

use crate::support::{Act, Good, PATIENCE, Villain, Villainy, load, on_save, save};

fn place(bus: &Bus) -> Place {
    Place::bus(&bus.address()).unwrap()
}

fn serve(bus: &Bus, helper: &std::sync::Arc<Good>) -> Served {
    Served::on_bus(&place(bus), helper.clone()).unwrap()
}

fn object(bus: &Bus, list: Option<&str>) -> DbusVmstate {
    let object = DbusVmstate::with_deadline(place(bus), PATIENCE);
    object.set_id_list(list.map(|list| list.parse().unwrap()));
    object
}

fn contains(stream: &[u8], bytes: &[u8]) -> bool {
    stream.windows(bytes.len()).any(|window| window == bytes)
}

#[test]
fn states_travel_from_one_bus_to_another() {
    let (Some(here), Some(there)) = (Bus::start().unwrap(), Bus::start().unwrap()) else {
        return;
    };
    let (a, b) = (Good::new("idA", b"state\0A"), Good::new("idB", b"B"));
    let _sources = (serve(&here, &b), serve(&here, &a));
    let source = object(&here, None);
    let stream = save(&[&source]).unwrap();
    let mut blob = Vec::new();
    put_blob(&mut blob, &[(b"idA", b"state\0A"), (b"idB", b"B")]).unwrap();
    let name = b"\x19dbus-vmstate/dbus-vmstate\0\0\0\0\0\0\0\0";
    assert!(contains(
        &stream,
        &[name, &[0, 0, 0, 64][..], &blob].concat()
    ));
    let fields = br#""fields": [{"name": "data_size", "type": "uint32", "size": 4}, {"name": "data", "type": "buffer", "size": 64}]"#;
    assert!(contains(&stream, fields));
    let report = source.saved().unwrap();
    let sizes = [("idA".to_owned(), 7), ("idB".to_owned(), 1)];
    assert_eq!(
        (&report.saved[..], &report.skipped[..]),
        (&sizes[..], &[][..])
    );
    assert!(report.took > Duration::ZERO);

    let (c, d) = (Good::new("idA", b""), Good::new("idB", b""));
    // One that comes back under another unique name is found all the same.
    drop(serve(&there, &c));
    let _targets = (serve(&there, &c), serve(&there, &d));
    let target = object(&there, Some("idA,idB"));
    load(&[&target], &stream).unwrap();
    assert_eq!((c.state(), d.state()), (a.state(), b.state()));
    assert_eq!((a.calls(), c.calls()), (vec!["save"], vec!["load"]));
    let loaded = target.loaded().unwrap();
    assert_eq!(loaded.loaded, ["idA", "idB"]);
    // The source's helpers go on.
    assert_eq!(save(&[&source]).unwrap(), stream);
}

#[test]
fn nobody_is_somebody_too() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let object = object(&bus, None);
    let stream = save(&[&object]).unwrap();
    assert!(contains(
        &stream,
        &[[0, 0, 0, 16], [0; 4], [0; 4], [0; 4], [0; 4]].concat()
    ));
    load(&[&object], &stream).unwrap();
    assert_eq!(object.saved().unwrap().saved, []);
}

#[test]
fn a_list_takes_some_and_reports_the_others() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let (a, b) = (Good::new("a", b"1"), Good::new("b", b"2"));
    let _served = (serve(&bus, &a), serve(&bus, &b));
    let object = object(&bus, Some("a"));
    let stream = save(&[&object]).unwrap();
    assert_eq!(object.saved().unwrap().skipped, ["b"]);
    assert_eq!(object.rehearse().unwrap().skipped, ["b"]);
    object.set_id_list(None);
    let stream_of_both = save(&[&object]).unwrap();
    assert!(object.skipped().is_empty());
    object.set_id_list(Some("a".parse().unwrap()));
    load(&[&object], &stream).unwrap();
    assert_eq!(object.skipped(), ["b"]);
    assert_eq!(object.loaded().unwrap().skipped, ["b"]);
    // A state for one that is there and not listed.
    let error = load(&[&object], &stream_of_both).unwrap_err().to_string();
    let why = "), whose state has come, is not in the id-list";
    assert!(
        error.contains("helper 'b' (:1.") && error.contains(why),
        "{error}"
    );
    assert_eq!(
        (a.calls(), b.calls()),
        (vec!["save", "save", "load"], vec!["save"])
    );
    // Two are listed at the destination, and the state of one comes, as QEMU takes it.
    object.set_id_list(Some("a,b".parse().unwrap()));
    load(&[&object], &stream).unwrap();
    let Loaded {
        loaded, without, ..
    } = object.loaded().unwrap();
    assert_eq!(
        (loaded, without),
        (vec!["a".to_owned()], vec!["b".to_owned()])
    );
}

/// Further objects have sections of their own, and each finds its own again.
#[test]
fn two_objects_in_one_machine() {
    let (Some(one), Some(two)) = (Bus::start().unwrap(), Bus::start().unwrap()) else {
        return;
    };
    let (a, b) = (Good::new("same", b"one"), Good::new("same", b"two"));
    let _served = (serve(&one, &a), serve(&two, &b));
    let (first, second) = (object(&one, None), object(&two, None));
    let stream = save(&[&first, &second]).unwrap();
    assert!(contains(&stream, b"\x1ddbus-vmstate/dv1/dbus-vmstate"));
    *a.state.lock().unwrap() = vec![];
    *b.state.lock().unwrap() = vec![];
    load(&[&first, &second], &stream).unwrap();
    assert_eq!((a.state(), b.state()), (b"one".to_vec(), b"two".to_vec()));
    let error = load(&[&first], &stream).unwrap_err().to_string();
    assert!(
        error.contains("unknown section dbus-vmstate/dv1/dbus-vmstate/0"),
        "{error}"
    );
}

#[test]
fn limits_are_met_exactly() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let id = "x".repeat(255);
    let (long, large) = (Good::new(&id, b"1"), Good::new("large", &vec![7; 1 << 20]));
    let _served = (serve(&bus, &long), serve(&bus, &large));
    let object = object(&bus, Some(&format!("large,{id}")));
    let stream = save(&[&object]).unwrap();
    *large.state.lock().unwrap() = vec![];
    load(&[&object], &stream).unwrap();
    assert_eq!(large.state(), vec![7; 1 << 20]);
    // What the library refuses on the helper's side.
    for (state, why) in [
        (
            vec![],
            "the helper has an empty state, which QEMU cannot save",
        ),
        (
            vec![7; (1 << 20) + 1],
            "the helper has a state of 1048577 bytes, more than 1048576",
        ),
    ] {
        *large.state.lock().unwrap() = state;
        let error = save(&[&object]).unwrap_err().to_string();
        assert!(error.contains("helper 'large' (:1."), "{error}");
        assert!(error.contains(why), "{error}");
    }
    for id in [String::new(), "x".repeat(256)] {
        let refused = Served::on_bus(&place(&bus), Good::new(&id, b"1")).unwrap_err();
        let why = format!("an id of {} bytes, must be 1 to 255", id.len());
        assert_eq!(refused.to_string(), why);
    }
}

/// An empty state is legal where it comes from somebody else's helper.
#[test]
fn an_empty_state_travels() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let _villain = Villainy::new(&bus.address(), on_save(Act::Bytes(0)));
    let object = object(&bus, Some("bad"));
    let stream = save(&[&object]).unwrap();
    assert_eq!(object.saved().unwrap().saved, [("bad".to_owned(), 0)]);
    load(&[&object], &stream).unwrap();
}

#[test]
fn a_panic_is_an_error_and_no_end() {
    struct Clumsy;

    impl vmstate_dbus::Helper for Clumsy {
        fn id(&self) -> String {
            "clumsy".to_owned()
        }
        fn save(&self) -> Result<Vec<u8>, vmstate_dbus::HelperError> {
            panic!("oops")
        }
        fn load(&self, _: &[u8]) -> Result<(), vmstate_dbus::HelperError> {
            Ok(())
        }
    }

    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let served = Served::on_bus(&place(&bus), Clumsy).unwrap();
    let object = object(&bus, Some("clumsy"));
    for _ in 0..2 {
        let error = save(&[&object]).unwrap_err().to_string();
        assert!(error.contains("the helper has panicked in save"), "{error}");
    }
    assert!(!served.is_over());
}

#[test]
fn everybody_is_listed_with_what_is_wrong() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let good = Good::new("good", b"state");
    let _served = serve(&bus, &good);
    let bad = Villainy::new(&bus.address(), Villain::NoId);
    let present = list(&place(&bus), None, true, PATIENCE).unwrap();
    assert_eq!(present.len(), 2);
    assert_eq!(present[0].id, Ok("good".to_owned()));
    assert_eq!(present[0].state, Some(Ok(b"state".to_vec())));
    assert_eq!(present[1].owner, bad.name());
    assert_eq!(
        (&present[1].id, &present[1].state),
        (&Err(Fault::NoId), &None)
    );
    let present = list(&place(&bus), None, false, PATIENCE).unwrap();
    assert_eq!((&present[0].state, good.calls()), (&None, vec!["save"]));
}

/// A program that has a connection exports its helper there, beside objects of its own.
#[test]
fn a_connection_of_ones_own() {
    struct Other;

    #[zbus::interface(name = "org.example.Other")]
    impl Other {
        fn save(&self) -> Vec<u8> {
            b"wrong".to_vec()
        }
    }

    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let good = Good::new("good", b"right");
    let address = bus.address();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let helper = good.clone();
    let thread = std::thread::spawn(move || {
        let connection = zbus::block_on(async {
            let builder = zbus::connection::Builder::address(address.as_str());
            let connection = builder.build().await.unwrap();
            let server = connection.object_server();
            server.at("/org/qemu/VMState2", Other).await.unwrap();
            export(&connection, helper).await.unwrap();
            connection
        });
        ready.send(()).unwrap();
        let _ = stopped.recv();
        drop(connection);
    });
    is_ready.recv().unwrap();
    let object = object(&bus, None);
    assert_eq!(object.rehearse().unwrap().present, ["good"]);
    let stream = save(&[&object]).unwrap();
    assert_eq!(object.saved().unwrap().saved, [("good".to_owned(), 5)]);
    assert!(contains(&stream, b"right") && !contains(&stream, b"wrong"));
    drop(stop);
    thread.join().unwrap();
}

#[test]
fn serving_ends_with_the_bus() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let served = serve(&bus, &Good::new("good", b"1"));
    assert!(!served.is_over());
    let object = object(&bus, None);
    assert_eq!(object.rehearse().unwrap().present, ["good"]);
    drop(bus);
    served.wait();
    let error = object.rehearse().unwrap_err().to_string();
    assert!(error.starts_with("cannot connect to unix:path="), "{error}");
}

/// Who may not own the name is told so, and is not there.
#[test]
fn the_policy_decides() {
    let users = vmstate_interop::Users {
        helper: "65534".to_owned(),
        ..vmstate_interop::Users::own().unwrap()
    };
    if users.machine == users.helper {
        return;
    }
    let Some(bus) = Bus::start_for(&users).unwrap() else {
        return;
    };
    let refused = Served::on_bus(&place(&bus), Good::new("good", b"1")).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("AccessDenied") && text.contains("org.qemu.VMState1"),
        "{text}"
    );
    let object = object(&bus, None);
    assert_eq!(object.rehearse(), Ok(Rehearsal::default()));
    // And whoever may not call gets to know that, too.
    let users = vmstate_interop::Users {
        helper: users.machine.clone(),
        machine: users.helper.clone(),
    };
    let Some(bus) = Bus::start_for(&users).unwrap() else {
        return;
    };
    let _served = serve(&bus, &Good::new("good", b"1"));
    let object = self::object(&bus, None);
    let error = object.rehearse().unwrap_err().to_string();
    assert!(
        error.contains("reading its Id") && error.contains("AccessDenied"),
        "{error}"
    );
}
