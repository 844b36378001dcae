//! Everything that helpers can do wrong: each is an error that names the helper, before the deadline, and nothing is left behind.
//!
//! One test in a process of its own, which can count its descriptors and threads.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::{Act, Good, PATIENCE, Villain, Villainy, load, on_save, save, with_blob};
use vmstate_dbus::{DbusVmstate, Place, Served};
use vmstate_interop::Bus;
use vmstate_wire::helpers::put_blob;

/// For those who never answer. Everybody else is given much more.
const SHORT: Duration = Duration::from_millis(400);
/// How long what was let go of may take to be gone.
const SETTLE: Duration = Duration::from_secs(10);

/// Descriptors and threads of this process.
fn resources() -> (usize, usize) {
    let count = |dir| fs::read_dir(dir).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// Runs `step`, and waits until there is no more of anything than before.
fn counted<T>(name: &str, step: impl FnOnce() -> T) -> T {
    let before = resources();
    let result = step();
    let end = Instant::now() + SETTLE;
    while resources() > before {
        assert!(
            Instant::now() < end,
            "{name}: {before:?} before, {:?} after",
            resources()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    result
}

/// One with two objects is refused when it is looked at: by the command, and before its state is loaded.
fn two_objects(bus: &Bus) {
    let villain = Villainy::new(&bus.address(), Villain::TwoObjects);
    let object = object(bus, None, PATIENCE);
    let why = format!(
        "helper 'one' ({}): looking at its objects: org.qemu.VMState1 is also at /org/qemu/second/VMState1, with the id 'two'",
        villain.name()
    );
    let error = counted("two objects", || object.rehearse()).unwrap_err();
    assert_eq!(error.to_string(), why);
    let mut blob = Vec::new();
    put_blob(&mut blob, &[(b"one", b"x")]).unwrap();
    let stream = with_blob(u32::try_from(blob.len()).unwrap(), &blob);
    let error = counted("two objects, loading", || load(&[&object], &stream)).unwrap_err();
    assert!(error.to_string().contains(&why), "{error}");
}

/// What a save of everybody on the bus fails with.
fn refused(name: &str, bus: &Bus, list: Option<&str>, deadline: Duration) -> String {
    let object = object(bus, list, deadline);
    let begin = Instant::now();
    let error = counted(name, || save(&[&object])).unwrap_err();
    let took = begin.elapsed();
    assert!(took < deadline + SETTLE, "{name}: {took:?}");
    assert_eq!(object.saved(), None, "{name}");
    error.to_string()
}

fn object(bus: &Bus, list: Option<&str>, deadline: Duration) -> DbusVmstate {
    let place = Place::bus(&bus.address()).unwrap();
    let object = DbusVmstate::with_deadline(place, deadline);
    object.set_id_list(list.map(|list| list.parse().unwrap()));
    object
}

/// Villains beside a good helper.
fn on_the_saving_side(bus: &Bus) {
    let acts = |on_id, on_save| Villain::Acts {
        id: "bad",
        on_id,
        on_save,
        on_load: Act::Answer,
    };
    let late = "no answer within 400 ms";
    let gone = "it has gone away: Message recipient disconnected from message bus without replying";
    for (name, villain, why) in [
        (
            "an error",
            on_save(Act::Refuse),
            "helper 'bad' (NAME): Save: org.freedesktop.DBus.Error.Failed: out of\\ncheese",
        ),
        (
            "too large",
            on_save(Act::Bytes((1 << 20) + 1)),
            "helper 'bad' (NAME): Save: a state of 1048577 bytes, more than 1048576",
        ),
        (
            "hangs",
            on_save(Act::Hang),
            &format!("helper 'bad' (NAME): Save: {late}"),
        ),
        (
            "dies",
            on_save(Act::Die),
            &format!("helper 'bad' (NAME): Save: {gone}"),
        ),
        // The bus cuts it off.
        (
            "floods",
            on_save(Act::Bytes(16 << 20)),
            &format!("helper 'bad' (NAME): Save: {gone}"),
        ),
        (
            "an empty id",
            acts(Act::Bytes(0), Act::Answer),
            "helper NAME: reading its Id: an id of 0 bytes, must be 1 to 255",
        ),
        (
            "a long id",
            acts(Act::Bytes(256), Act::Answer),
            "helper NAME: reading its Id: an id of 256 bytes, must be 1 to 255",
        ),
        (
            "no word about its id",
            acts(Act::Refuse, Act::Answer),
            "helper NAME: reading its Id: ",
        ),
        (
            "hangs early",
            acts(Act::Hang, Act::Answer),
            &format!("helper NAME: reading its Id: {late}"),
        ),
        (
            "dies early",
            acts(Act::Die, Act::Answer),
            &format!("helper NAME: reading its Id: {gone}"),
        ),
        (
            "a state of another type",
            Villain::WrongSave,
            "helper 'wrong' (NAME): Save: the answer has type 's', must have 'ay'",
        ),
        (
            "an id of another type",
            Villain::WrongId,
            "helper NAME: reading its Id: the answer has type 'u', must have 's'",
        ),
        (
            "no id",
            Villain::NoId,
            "helper NAME: reading its Id: the object has no property Id",
        ),
        (
            "no object",
            Villain::NoObject,
            "helper NAME: reading its Id: org.freedesktop.DBus.Error.",
        ),
    ] {
        let villain = Villainy::new(&bus.address(), villain);
        let waits = name.starts_with("hangs");
        let deadline = if waits { SHORT } else { PATIENCE };
        let error = refused(name, bus, None, deadline);
        let why = why.replace("NAME", &villain.name());
        assert!(error.contains(&why), "{name}: {error}");
        assert!(
            error.starts_with("saving dbus-vmstate/dbus-vmstate/0: "),
            "{name}: {error}"
        );
    }
}

fn who_is_there(bus: &Bus) {
    let place = Place::bus(&bus.address()).unwrap();
    let twin = Served::on_bus(&place, Good::new("good", b"twin")).unwrap();
    for list in [None, Some("good")] {
        let error = refused("twins", bus, list, PATIENCE);
        let both = "helpers :1.";
        assert!(
            error.contains(both) && error.contains("both have the id 'good'"),
            "{error}"
        );
    }
    drop(twin);
    let error = refused("missing", bus, Some("good,b,a"), PATIENCE);
    assert!(
        error.contains("no helper has the listed ids 'a', 'b'"),
        "{error}"
    );
    let nowhere = Place::bus("unix:path=/nowhere/at/all").unwrap();
    let object = DbusVmstate::new(nowhere);
    let error = counted("no bus", || save(&[&object])).unwrap_err();
    let why = "cannot connect to unix:path=/nowhere/at/all: ";
    assert!(error.to_string().contains(why), "{error}");
}

fn on_the_loading_side(bus: &Bus, good: &Good) {
    let blob = |elements: &[(&[u8], &[u8])]| {
        let mut blob = Vec::new();
        put_blob(&mut blob, elements).unwrap();
        blob
    };
    let one = blob(&[(b"good", b"loaded")]);
    let mut lost = one.clone();
    lost[3] = 2;
    let mut many = one.clone();
    many[0] = 0x10;
    let mut long = one.clone();
    long[4] = 1;
    let mut large = one.clone();
    large[12] = 1;
    let size = |blob: &[u8]| u32::try_from(blob.len()).unwrap();
    for (name, data_size, blob, why) in [
        (
            "nobody of this name",
            None,
            blob(&[(b"other", b"x")]),
            "no helper has the id 'other', whose state has come",
        ),
        (
            "refuses",
            None,
            blob(&[(b"good", b"refuse me")]),
            "): Load: org.freedesktop.DBus.Error.Failed: the state is of another planet",
        ),
        (
            "counts too many",
            None,
            many,
            "268435457 elements are announced, but at most 1000 helpers",
        ),
        (
            "counts one more",
            None,
            lost,
            "the source counted 2 helpers but wrote 1: saving a helper failed there",
        ),
        (
            "a long name",
            None,
            long,
            "an id of 16777220 bytes, must be 1 to 255",
        ),
        (
            "a large state",
            None,
            large,
            "the state of 'good' has 16777222 bytes, more than 1 MiB",
        ),
        (
            "nothing",
            Some(0),
            vec![],
            "the blob ends inside the number of elements",
        ),
        (
            "short",
            Some(9),
            one[..9].to_vec(),
            "the blob ends inside an id",
        ),
        (
            "a size beyond all",
            Some(u32::MAX),
            one.clone(),
            "count 4294967295 is outside of",
        ),
        (
            "a size beyond the stream",
            Some(1 << 30),
            one.clone(),
            "stream ends inside buffer",
        ),
    ] {
        let object = object(bus, None, PATIENCE);
        let data_size = data_size.unwrap_or_else(|| size(&blob));
        let stream = with_blob(data_size, &blob);
        let error = counted(name, || load(&[&object], &stream)).unwrap_err();
        assert!(error.to_string().contains(why), "{name}: {error}");
        assert_eq!((good.state(), object.loaded()), (b"good".to_vec(), None));
    }
    // One of two: neither is loaded.
    let villain = Villainy::new(
        &bus.address(),
        Villain::Acts {
            id: "bad",
            on_id: Act::Answer,
            on_save: Act::Answer,
            on_load: Act::Hang,
        },
    );
    let three = blob(&[(b"good", b"loaded"), (b"bad", b"x"), (b"who", b"")]);
    let slow = object(bus, None, SHORT);
    let stream = with_blob(size(&three), &three);
    let error = counted("one of three", || load(&[&slow], &stream)).unwrap_err();
    let why = "no helper has the id 'who', whose state has come";
    assert!(error.to_string().contains(why), "{error}");
    assert_eq!(good.state(), b"good");
    let two = blob(&[(b"bad", b"x")]);
    let stream = with_blob(size(&two), &two);
    let error = counted("hangs in Load", || load(&[&slow], &stream)).unwrap_err();
    let why = format!(
        "helper 'bad' ({}): Load: no answer within 400 ms",
        villain.name()
    );
    assert!(error.to_string().contains(&why), "{error}");
    // There, and not listed.
    let listed = object(bus, Some("good"), PATIENCE);
    let error = counted("unlisted", || load(&[&listed], &stream)).unwrap_err();
    let why = format!(
        "helper 'bad' ({}), whose state has come, is not in the id-list",
        villain.name()
    );
    assert!(error.to_string().contains(&why), "{error}");
    assert_eq!(good.state(), b"good");
    // Listed here, and not there.
    let listed = object(bus, Some("good,bad,ugly"), PATIENCE);
    let stream = with_blob(size(&one), &one);
    let error = counted("missing here", || load(&[&listed], &stream)).unwrap_err();
    let why = "no helper has the listed id 'ugly'";
    assert!(error.to_string().contains(why), "{error}");
    assert_eq!(good.state(), b"good");
}

#[test]
fn every_failure_names_the_helper_and_leaves_nothing_behind() {
    let Some(bus) = Bus::start().unwrap() else {
        return;
    };
    let place = Place::bus(&bus.address()).unwrap();
    let good = Good::new("good", b"good");
    let served = Served::on_bus(&place, good.clone()).unwrap();
    on_the_saving_side(&bus);
    who_is_there(&bus);
    two_objects(&bus);
    on_the_loading_side(&bus, &good);
    // All is well in the end, and that leaves nothing behind either.
    let object = object(&bus, Some("good"), PATIENCE);
    let stream = counted("good", || save(&[&object])).unwrap();
    *good.state.lock().unwrap() = Vec::new();
    counted("good again", || load(&[&object], &stream)).unwrap();
    assert_eq!(good.state(), b"good");
    counted("serving ends", || drop(served));
}
