//! Helpers of machines: ours under QEMU's object, and others' under ours.
//!
//! Each machine has a message bus of its own, with the policy that the documentation recommends.

mod cases;
mod postcopy;
mod process;
mod sections;

use serde_json::{Value, json};
use vmstate_interop::{Bus, Generation, Program, Result, find};
use vmstate_spike::guests;

use crate::host::{Host, Shape};

use process::{Python, Store};

const SHAPE: Shape = Shape {
    guest: guests::COUNTER,
    harts: 1,
    ram: 16 << 20,
};

fn qemu() -> Option<Program> {
    find(Generation::V11_1, "riscv64")
}

/// Adds the object for this bus.
fn add_object(host: &mut Host, bus: &Bus, list: Option<&str>) -> Result<()> {
    let mut arguments = json!({"qom-type": "dbus-vmstate", "id": "dv0", "addr": bus.address()});
    if let Some(list) = list {
        arguments["id-list"] = list.into();
    }
    host.run("object-add", arguments)?;
    Ok(())
}

/// What the object of a machine of ours tells of its last save.
fn share(info: &Value) -> &Value {
    &info["x-dbus-vmstate"][0]
}

/// A guest goes live from QEMU to ours and back, and its store goes with it: each host has a helper process of its own.
#[test]
fn a_store_follows_its_guest_live() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let Some(bus) = Bus::start()? else {
        return Ok(());
    };
    let mut store = Store::on(&bus, "kv0")?;
    let mut here = Host::started(&SHAPE, Some(&program))?;
    add_object(&mut here, &bus, Some("kv0"))?;
    let mut buses = vec![bus];
    assert_eq!(store.line("set begin QEMU")?, "ok");
    for hop in 0..4 {
        here.goes_on()?;
        assert_eq!(store.line(&format!("set hop{hop} done"))?, "ok");
        let Some(bus) = Bus::start()? else {
            return Ok(());
        };
        let mut new = Store::on(&bus, "kv0")?;
        assert_eq!(new.line("count")?, "0");
        let program = here.is_ours().then_some(&program);
        let mut there = Host::waiting(&SHAPE, program, true)?;
        add_object(&mut there, &bus, Some("kv0"))?;
        let uri = there.listen(&format!("unix:{}", there.path("migration").display()))?;
        here.run("migrate", json!({ "uri": uri }))?;
        let sent = here.outcome()?;
        assert_eq!(sent["status"], "completed", "{sent}");
        assert_eq!(there.outcome()?["status"], "completed");
        if here.is_ours() {
            assert_eq!(share(&sent)["helpers"][0]["id"], "kv0", "{sent}");
            let time = share(&sent)["save-time-us"].as_u64();
            assert!(time.is_some_and(|time| time > 0), "{sent}");
        }
        assert_eq!(new.line("get begin")?, "QEMU");
        assert_eq!(new.line("count")?, (hop + 2).to_string());
        there.goes_on()?;
        // The old helper goes on, too: nothing was taken away from it.
        assert_eq!(store.line(&format!("get hop{hop}"))?, "done");
        (here, store) = (there, new);
        buses.push(bus);
    }
    assert!(!here.is_ours());
    here.check()?;
    Ok(())
}

/// A helper in Python, by another library, under our object; its state goes to one of ours and back.
#[test]
fn a_helper_in_python() -> Result<()> {
    let (Some(here), Some(there)) = (Bus::start()?, Bus::start()?) else {
        return Ok(());
    };
    let Some(mut old) = Python::on(&here, "py0", b"a state\0of\xff bytes")? else {
        return Ok(());
    };
    let Some(mut new) = Python::on(&there, "py0", b"")? else {
        return Ok(());
    };
    let mut source = Host::started(&SHAPE, None)?;
    add_object(&mut source, &here, Some("py0"))?;
    let mut destination = Host::waiting(&SHAPE, None, true)?;
    add_object(&mut destination, &there, Some("py0"))?;
    let uri = destination.listen(&format!("unix:{}", destination.path("m").display()))?;
    source.run("migrate", json!({ "uri": uri }))?;
    let sent = source.outcome()?;
    assert_eq!(sent["status"], "completed", "{sent}");
    assert_eq!(share(&sent)["helpers"], json!([{"id": "py0", "size": 17}]));
    assert_eq!(destination.outcome()?["status"], "completed");
    assert_eq!(old.said()?, "saved");
    assert_eq!(new.said()?, "loaded 61207374617465006f66ff206279746573");
    destination.goes_on()
}
