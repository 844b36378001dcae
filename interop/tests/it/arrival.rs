//! A guest that writes faster than its memory can be sent goes before its memory, to the built-in machine: from stock QEMU and
//! from another one.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde_json::{Value, json};
use vmstate_interop::{Program as QemuProgram, Result};
use vmstate_spike::board::RAM_BASE;
use vmstate_spike::guests::{CONTROL, Parameters};

use crate::host::{Host, set_dirtier};
use crate::ours::Ours;
use crate::postcopy::{BANDWIDTH, MIB, Mode, SHAPE, info, qemu, set, status, switch, until};
use crate::proxy::Proxy;

/// What the guest is to do: write 100 MiB/s and more, beside memory that stays as it is.
fn load() -> Result<Parameters> {
    let ours = Ours::stopped(&SHAPE, false, true)?;
    set_dirtier(&ours.machine, 6 * MIB, 16 * MIB)?;
    let mut parameters = Parameters::read(&ours.machine)?;
    parameters.pages = 256;
    Ok(parameters)
}

/// A machine whose guest does that.
pub(crate) fn source(program: Option<&QemuProgram>, mode: Mode) -> Result<Host> {
    let load = load()?;
    let Some(program) = program else {
        let ours = Ours::stopped(&SHAPE, false, true)?;
        mode.tell(&ours);
        load.write(&ours.machine)?;
        ours.machine.resume()?;
        return Host::ours(&SHAPE, ours);
    };
    let mut qemu = SHAPE.qemu(program, &[&["-S"], mode.arguments()].concat())?;
    // Its program is in memory, and has not been started.
    let memory = OpenOptions::new()
        .write(true)
        .open(qemu.dir().join("ram"))?;
    memory.write_all_at(&load.to_bytes(), CONTROL - RAM_BASE + 0x40)?;
    qemu.run("cont", json!({}))?;
    Host::theirs(&SHAPE, qemu)
}

/// A machine with a guest, and one of ours that waits for it.
fn start(program: Option<&QemuProgram>, mode: Mode) -> Result<(Host, Host)> {
    let mut here = source(program, mode)?;
    let ours = Ours::stopped(&SHAPE, true, true)?;
    mode.tell(&ours);
    let mut there = Host::ours(&SHAPE, ours)?;
    here.goes_on()?;
    set(&mut here, mode.capabilities())?;
    set(&mut there, mode.capabilities())?;
    set(&mut there, &["postcopy-blocktime"])?;
    let limits = json!({
        "max-bandwidth": BANDWIDTH, "max-postcopy-bandwidth": BANDWIDTH, "downtime-limit": 50
    });
    here.run("migrate-set-parameters", limits)?;
    Ok((here, there))
}

/// The guest is there, with all that it has computed.
fn arrived(here: &mut Host, there: &mut Host) -> Result<Value> {
    let sent = here.outcome()?;
    assert_eq!(sent["status"], "completed", "{sent}");
    let received = there.outcome()?;
    assert_eq!(received["status"], "completed", "{received}");
    assert_eq!(received["x-postcopy"]["missing"], json!([]), "{received}");
    assert_eq!(here.status()?, "postmigrate");
    assert_eq!(there.status()?, "running");
    there.goes_on()?;
    there.check()?;
    Ok(received)
}

fn moves(program: Option<&QemuProgram>, mode: Mode) -> Result<()> {
    let (mut here, mut there) = start(program, mode)?;
    let uri = format!("unix:{}", there.path("migration").display());
    let uri = there.listen(&uri)?;
    here.run("migrate", json!({ "uri": uri }))?;
    switch(&mut here)?;
    let received = arrived(&mut here, &mut there)?;
    let seen = &received["x-postcopy"];
    let number = |name: &str| seen[name].as_u64().unwrap_or(0);
    assert!(
        number("faults") > 0 && number("requested-pages") > 0,
        "{seen}"
    );
    assert!(number("latency-p50") <= number("latency-p99"), "{seen}");
    assert!(number("latency-p99") <= number("latency-max"), "{seen}");
    assert_eq!(number("repeated-pages"), 0, "{seen}");
    let harts = received["postcopy-vcpu-blocktime"].as_array();
    assert_eq!(harts.map(Vec::len), Some(2), "{received}");
    let waits = received["postcopy-latency-dist"].as_array();
    let waits = waits.into_iter().flatten().filter_map(Value::as_u64);
    assert_eq!(waits.sum::<u64>(), number("faults"), "{received}");
    Ok(())
}

#[test]
fn qemu_to_ours() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    moves(Some(&program), Mode::Plain)
}

#[test]
fn qemu_to_ours_with_preempt() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    moves(Some(&program), Mode::Preempt)
}

#[test]
fn qemu_to_ours_with_preempt_as_7_2() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    moves(Some(&program), Mode::PreemptAs7_2)
}

#[test]
fn ours_to_ours() -> Result<()> {
    moves(None, Mode::Plain)?;
    moves(None, Mode::Preempt)?;
    moves(None, Mode::PreemptAs7_2)
}

/// The link breaks after the guest has gone, `times` times; it has all its memory in the end.
fn recovers(program: Option<&QemuProgram>, mode: Mode, times: u32) -> Result<()> {
    let (mut here, mut there) = start(program, mode)?;
    let limits = json!({ "max-postcopy-bandwidth": MIB });
    here.run("migrate-set-parameters", limits)?;
    let path = there.path("migration");
    there.listen(&format!("unix:{}", path.display()))?;
    let at = there.path("proxy");
    let mut proxy = Proxy::new(&at, path)?;
    let uri = format!("unix:{}", at.display());
    here.run("migrate", json!({ "uri": uri }))?;
    switch(&mut here)?;
    for number in 0..times {
        status(&mut here, "postcopy-active")?;
        until(&mut here, "page", |info| {
            info["ram"]["postcopy-bytes"].as_u64() > Some(100 << 10)
        })?;
        proxy.cut();
        status(&mut here, "postcopy-paused")?;
        let paused = status(&mut there, "postcopy-paused")?;
        let missing = &paused["x-postcopy"]["missing"][0];
        assert_eq!(missing["block"], "riscv.spike.ram", "{paused}");
        assert!(missing["pages"].as_u64() > Some(0), "{paused}");
        assert!(paused["error-desc"].is_string(), "{paused}");
        assert!(there.run("migrate-pause", json!({})).is_err());
        if number + 1 == times {
            let limits = json!({ "max-postcopy-bandwidth": 0 });
            here.run("migrate-set-parameters", limits)?;
        }
        let path = there.path(&format!("recovery{number}"));
        let uri = format!("unix:{}", path.display());
        there.run("migrate-recover", json!({ "uri": uri }))?;
        let at = there.path(&format!("proxy{number}"));
        proxy = Proxy::new(&at, path)?;
        let uri = format!("unix:{}", at.display());
        here.run("migrate", json!({ "uri": uri, "resume": true }))?;
    }
    arrived(&mut here, &mut there)?;
    Ok(())
}

#[test]
fn qemu_to_ours_over_a_link_that_breaks() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    recovers(Some(&program), Mode::Plain, 2)
}

#[test]
fn qemu_to_ours_with_preempt_over_a_link_that_breaks() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    recovers(Some(&program), Mode::Preempt, 2)
}

#[test]
fn qemu_to_ours_with_preempt_as_7_2_over_a_link_that_breaks() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    recovers(Some(&program), Mode::PreemptAs7_2, 2)
}

#[test]
fn ours_to_ours_over_a_link_that_breaks() -> Result<()> {
    recovers(None, Mode::Plain, 3)?;
    recovers(None, Mode::Preempt, 3)?;
    recovers(None, Mode::PreemptAs7_2, 3)
}

/// A `stop` waits for a hart that waits for a page, which comes over the next connection: what makes that one overtakes it.
#[test]
fn a_command_that_waits_for_a_page_is_overtaken() -> Result<()> {
    let (mut here, mut there) = start(None, Mode::Plain)?;
    let limits = json!({ "max-postcopy-bandwidth": MIB });
    here.run("migrate-set-parameters", limits)?;
    let path = there.path("migration");
    there.listen(&format!("unix:{}", path.display()))?;
    let at = there.path("proxy");
    let proxy = Proxy::new(&at, path)?;
    let uri = format!("unix:{}", at.display());
    here.run("migrate", json!({ "uri": uri }))?;
    switch(&mut here)?;
    status(&mut here, "postcopy-active")?;
    until(&mut here, "page", |info| {
        info["ram"]["postcopy-bytes"].as_u64() > Some(100 << 10)
    })?;
    proxy.cut();
    status(&mut here, "postcopy-paused")?;
    status(&mut there, "postcopy-paused")?;
    there.stalls()?;
    let stop = there
        .monitor
        .query_within::<Value>("stop", json!({}), Duration::from_secs(1))?;
    assert_eq!(stop, None, "the harts wait");
    let unlimited = json!({ "max-postcopy-bandwidth": 0 });
    here.run("migrate-set-parameters", unlimited)?;
    let uri = format!("unix:{}", there.path("recovery").display());
    let place = json!({ "uri": uri });
    there.monitor.run_out_of_band("migrate-recover", &place)?;
    here.run("migrate", json!({ "uri": uri, "resume": true }))?;
    assert_eq!(here.outcome()?["status"], "completed");
    assert_eq!(there.outcome()?["status"], "completed");
    assert_eq!(there.status()?, "paused");
    there.run("cont", json!({}))?;
    there.goes_on()?;
    there.check()?;
    Ok(())
}

/// The destination's user pauses, and gives the guest up: it never runs again.
#[test]
fn a_guest_that_is_given_up_is_gone() -> Result<()> {
    let (mut here, mut there) = start(None, Mode::Plain)?;
    here.run(
        "migrate-set-parameters",
        json!({ "max-postcopy-bandwidth": MIB }),
    )?;
    let uri = format!("unix:{}", there.path("migration").display());
    there.listen(&uri)?;
    here.run("migrate", json!({ "uri": uri }))?;
    switch(&mut here)?;
    status(&mut here, "postcopy-active")?;
    status(&mut there, "postcopy-active")?;
    assert!(
        there.run("x-migrate-give-up", json!({})).is_err(),
        "it is coming"
    );
    there.run("migrate-pause", json!({}))?;
    status(&mut there, "postcopy-paused")?;
    there.run("x-migrate-give-up", json!({}))?;
    let over = status(&mut there, "failed")?;
    assert!(
        over["error-desc"]
            .as_str()
            .is_some_and(|why| why.contains("given it up")),
        "{over}"
    );
    assert_eq!(there.status()?, "internal-error");
    assert!(there.run("cont", json!({})).is_err());
    status(&mut here, "postcopy-paused")?;
    assert!(here.run("cont", json!({})).is_err());
    let refused = here.run("x-migrate-resume-here", json!({}));
    assert!(refused.is_err(), "{:?}", info(&mut here)?);
    Ok(())
}
