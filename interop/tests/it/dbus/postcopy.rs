//! Helpers of a guest that goes before its memory: their states travel with the devices, and are there when it runs.

use serde_json::{Value, json};
use vmstate_interop::{Bus, Program, Result};

use super::process::Store;
use super::{add_object, qemu, share};
use crate::arrival::source;
use crate::host::Host;
use crate::postcopy::{BANDWIDTH, MIB, Mode, SHAPE, set, status, switch, until};
use crate::proxy::Proxy;

/// What the store of the guest holds: more than a few bytes, so that a piece that is missing is seen.
const ENTRIES: usize = 300;

fn value(number: usize) -> String {
    format!("value {number} of many")
}

fn fill(store: &mut Store) -> Result<()> {
    for number in 0..ENTRIES {
        assert_eq!(
            store.line(&format!("set key{number} {}", value(number)))?,
            "ok"
        );
    }
    Ok(())
}

#[track_caller]
fn is_whole(store: &mut Store) -> Result<()> {
    assert_eq!(store.line("count")?, ENTRIES.to_string());
    for number in 0..ENTRIES {
        assert_eq!(store.line(&format!("get key{number}"))?, value(number));
    }
    Ok(())
}

/// The part of one of our machines.
fn told<'a>(host: &Host, info: &'a Value) -> Option<&'a Value> {
    host.is_ours().then(|| share(info))
}

/// A guest goes, and its store with it; the link breaks afterwards, or not.
fn goes(from: Option<&Program>, to: Option<&Program>, breaks: bool) -> Result<()> {
    let (Some(here), Some(there)) = (Bus::start()?, Bus::start()?) else {
        return Ok(());
    };
    let (mut old, mut new) = (Store::on(&here, "kv0")?, Store::on(&there, "kv0")?);
    fill(&mut old)?;
    let mut source = source(from, Mode::Unset)?;
    let mut destination = Host::waiting(&SHAPE, to, true)?;
    source.goes_on()?;
    for (host, bus) in [(&mut source, &here), (&mut destination, &there)] {
        add_object(host, bus, Some("kv0"))?;
        set(host, &["postcopy-ram"])?;
    }
    let slow = if breaks { MIB } else { BANDWIDTH };
    source.run(
        "migrate-set-parameters",
        json!({ "max-bandwidth": BANDWIDTH, "max-postcopy-bandwidth": slow, "downtime-limit": 50 }),
    )?;
    let path = destination.path("migration");
    destination.listen(&format!("unix:{}", path.display()))?;
    let at = destination.path("proxy");
    let proxy = Proxy::new(&at, path)?;
    let uri = format!("unix:{}", at.display());
    source.run("migrate", json!({ "uri": uri }))?;
    switch(&mut source)?;
    status(&mut source, "postcopy-active")?;
    // What went with the devices is there when the guest runs, whatever becomes of its memory.
    status(&mut destination, "postcopy-active")?;
    is_whole(&mut new)?;
    assert_eq!(new.line("set since the_switch")?, "ok");
    if breaks {
        until(&mut source, "page", |info| {
            info["ram"]["postcopy-bytes"].as_u64() > Some(100 << 10)
        })?;
        proxy.cut();
        for host in [&mut source, &mut destination] {
            status(host, "postcopy-paused")?;
        }
        source.run(
            "migrate-set-parameters",
            json!({ "max-postcopy-bandwidth": 0 }),
        )?;
        let path = destination.path("recovery");
        let uri = format!("unix:{}", path.display());
        destination.run("migrate-recover", json!({ "uri": uri }))?;
        source.run("migrate", json!({ "uri": uri, "resume": true }))?;
    }
    let (sent, received) = (source.outcome()?, destination.outcome()?);
    assert_eq!(sent["status"], "completed", "{sent}");
    assert_eq!(received["status"], "completed", "{received}");
    destination.goes_on()?;
    destination.check()?;
    // Nothing has been loaded a second time: the recovery is one of memory.
    assert_eq!(new.line("get since")?, "the_switch");
    assert_eq!(new.line("count")?, (ENTRIES + 1).to_string());
    is_whole(&mut old)?;
    if let Some(share) = told(&source, &sent) {
        assert_eq!(share["helpers"][0]["id"], "kv0", "{sent}");
        assert!(share["save-time-us"].as_u64() > Some(0), "{sent}");
    }
    if let Some(share) = told(&destination, &received) {
        assert_eq!(share["loaded"], json!(["kv0"]), "{received}");
        assert!(share["load-time-us"].as_u64() > Some(0), "{received}");
    }
    Ok(())
}

#[test]
fn a_store_goes_before_the_memory_from_ours_to_ours() -> Result<()> {
    goes(None, None, false)?;
    goes(None, None, true)
}

#[test]
fn a_store_goes_before_the_memory_from_qemu_to_ours() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    goes(Some(&program), None, false)?;
    goes(Some(&program), None, true)
}

#[test]
fn a_store_goes_before_the_memory_from_ours_to_qemu() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    goes(None, Some(&program), false)?;
    goes(None, Some(&program), true)
}
