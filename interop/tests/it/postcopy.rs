//! A guest that writes faster than its memory can be sent goes before its memory, from the built-in machine to stock QEMU.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmstate_interop::{Generation, Program as QemuProgram, Result, find};
use vmstate_spike::guests::{self, Parameters};

use crate::host::{Host, Shape, set_dirtier};
use crate::ours::Ours;
use crate::proxy::Proxy;

pub(crate) const MIB: u64 = 1 << 20;
/// Bytes per second that the link carries, a fraction of what the guest writes.
pub(crate) const BANDWIDTH: u64 = 24 * MIB;
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) const SHAPE: Shape = Shape {
    guest: guests::DIRTIER,
    harts: 2,
    ram: 64 * MIB,
};

pub(crate) fn qemu() -> Option<QemuProgram> {
    find(Generation::V11_1, "riscv64")
}

/// How a guest goes before its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Over one channel.
    Plain,
    /// Requested pages have a channel of their own.
    Preempt,
    /// And have it from the beginning, as machine types of 7.2 and older want it.
    PreemptAs7_2,
    /// Whoever drives the migration sets that.
    Unset,
}

impl Mode {
    pub(crate) fn capabilities(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["postcopy-ram"],
            Self::Preempt | Self::PreemptAs7_2 => &["postcopy-ram", "postcopy-preempt"],
            Self::Unset => &[],
        }
    }

    /// Further arguments of a QEMU.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::PreemptAs7_2 => &["-global", "migration.x-preempt-pre-7-2=on"],
            Self::Plain | Self::Preempt | Self::Unset => &[],
        }
    }

    /// The same for one of ours.
    pub(crate) fn tell(self, ours: &Ours) {
        if self == Self::PreemptAs7_2 {
            ours.as_machine_of_7_2();
        }
    }
}

pub(crate) fn set(host: &mut Host, capabilities: &[&str]) -> Result<()> {
    let list: Vec<_> = capabilities
        .iter()
        .map(|name| json!({ "capability": name, "state": true }))
        .collect();
    host.run("migrate-set-capabilities", json!({ "capabilities": list }))?;
    Ok(())
}

/// Our machine with a guest that writes 100 MiB/s and more, and a QEMU that waits for it.
pub(crate) fn start(program: &QemuProgram, mode: Mode) -> Result<(Host, Host)> {
    let ours = Ours::stopped(&SHAPE, false, true)?;
    set_dirtier(&ours.machine, 6 * MIB, 16 * MIB)?;
    let mut parameters = Parameters::read(&ours.machine)?;
    parameters.pages = 256;
    parameters.write(&ours.machine)?;
    ours.machine.resume()?;
    mode.tell(&ours);
    let mut here = Host::ours(&SHAPE, ours)?;
    let waits = [&["-incoming", "defer"], mode.arguments()].concat();
    let mut there = Host::theirs(&SHAPE, SHAPE.qemu(program, &waits)?)?;
    here.goes_on()?;
    set(&mut here, mode.capabilities())?;
    set(&mut there, mode.capabilities())?;
    let limits = json!({ "max-bandwidth": BANDWIDTH, "max-postcopy-bandwidth": BANDWIDTH, "downtime-limit": 50 });
    here.run("migrate-set-parameters", limits)?;
    Ok((here, there))
}

pub(crate) fn info(host: &mut Host) -> Result<Value> {
    host.run("query-migrate", json!({}))
}

/// Waits until the answer of `query-migrate` is one that is wanted.
pub(crate) fn until(host: &mut Host, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = info(host)?;
        if wanted(&now) {
            return Ok(now);
        }
        if Instant::now() > end {
            return Err(format!("no {what}: {now}").into());
        }
        thread::sleep(PAUSE);
    }
}

pub(crate) fn status(host: &mut Host, wanted: &str) -> Result<Value> {
    until(host, wanted, |info| info["status"] == wanted)
}

/// After so much of precopy that it is clear that it would not end.
pub(crate) fn switch(here: &mut Host) -> Result<()> {
    until(here, "second look at memory", |info| {
        assert_eq!(info["status"].as_str().unwrap_or("setup"), info["status"]);
        info["ram"]["dirty-sync-count"].as_u64() >= Some(4)
    })?;
    thread::sleep(Duration::from_millis(500));
    assert_eq!(info(here)?["status"], "active");
    here.run("migrate-start-postcopy", json!({}))?;
    Ok(())
}

fn arrived(here: &mut Host, there: &mut Host) -> Result<Value> {
    let sent = here.outcome()?;
    assert_eq!(sent["status"], "completed", "{sent}");
    assert!(sent["downtime"].is_u64(), "{sent}");
    assert_eq!(sent["ram"]["remaining"], 0, "{sent}");
    let received = there.outcome()?;
    assert_eq!(received["status"], "completed", "{received}");
    assert_eq!(here.status()?, "postmigrate");
    assert_eq!(there.status()?, "running");
    there.goes_on()?;
    there.check()?;
    Ok(sent)
}

fn moves(mode: Mode) -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let (mut here, mut there) = start(&program, mode)?;
    let uri = format!("unix:{}", there.path("migration").display());
    let uri = there.listen(&uri)?;
    here.run("migrate", json!({ "uri": uri }))?;
    switch(&mut here)?;
    let sent = arrived(&mut here, &mut there)?;
    let ram = &sent["ram"];
    assert!(ram["postcopy-requests"].as_u64() > Some(0), "{ram}");
    assert!(ram["postcopy-bytes"].as_u64() > Some(MIB), "{ram}");
    Ok(())
}

#[test]
fn ours_to_qemu() -> Result<()> {
    moves(Mode::Plain)
}

#[test]
fn ours_to_qemu_with_preempt() -> Result<()> {
    moves(Mode::Preempt)
}

#[test]
fn ours_to_qemu_with_preempt_as_7_2() -> Result<()> {
    moves(Mode::PreemptAs7_2)
}

/// The link breaks after the guest has gone, `times` times; it has all its memory in the end.
fn recovers(mode: Mode, times: u32) -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let (mut here, mut there) = start(&program, mode)?;
    let limits = json!({ "max-postcopy-bandwidth": MIB });
    here.run("migrate-set-parameters", limits)?;
    let path = there.path("migration");
    there.listen(&format!("unix:{}", path.display()))?;
    let at = there.path("proxy");
    let mut proxy = Proxy::new(&at, path)?;
    here.run(
        "migrate",
        json!({ "uri": format!("unix:{}", at.display()) }),
    )?;
    switch(&mut here)?;
    for number in 0..times {
        status(&mut here, "postcopy-active")?;
        until(&mut here, "request", |info| {
            info["ram"]["postcopy-bytes"].as_u64() > Some(100 << 10)
        })?;
        proxy.cut();
        let paused = status(&mut here, "postcopy-paused")?;
        assert!(
            paused["error-desc"].is_string() && paused["x-unknown"].is_null(),
            "{paused}"
        );
        status(&mut there, "postcopy-paused")?;
        assert_eq!(here.status()?, "finish-migrate");
        // The guest has run elsewhere.
        let refused = here.run("x-migrate-resume-here", json!({}));
        assert!(refused.is_err_and(|e| e.to_string().contains("has run at the destination")));
        if number + 1 == times {
            here.run(
                "migrate-set-parameters",
                json!({ "max-postcopy-bandwidth": 0 }),
            )?;
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
fn ours_to_qemu_over_a_link_that_breaks() -> Result<()> {
    recovers(Mode::Plain, 2)
}

#[test]
fn ours_to_qemu_with_preempt_over_a_link_that_breaks() -> Result<()> {
    recovers(Mode::Preempt, 2)
}

#[test]
fn ours_to_qemu_with_preempt_as_7_2_over_a_link_that_breaks() -> Result<()> {
    recovers(Mode::PreemptAs7_2, 2)
}
