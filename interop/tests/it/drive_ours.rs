//! Migrations that `drive` runs between the built-in machine, through its own monitor, and stock QEMU.

use std::sync::atomic::AtomicBool;

use vmstate_interop::{Generation, Result, find};
use vmstate_io::drive::{Help, Note, Outcome, Outlook, Plan, Report, drive};
use vmstate_io::qmp::QmpClient;
use vmstate_spike::guests;

use crate::drive::{Seen, connect, plan, settings};
use crate::host::{COUNTER, Host, Shape};
use crate::ours::Ours;

/// Bytes of RAM.
const SIZE: u64 = 16 << 20;

/// A guest that counts on two harts.
const fn counting(ram: u64) -> Shape {
    Shape {
        guest: guests::COUNTER,
        harts: 2,
        ram,
    }
}

fn run(source: &mut QmpClient, destination: &mut QmpClient, plan: &Plan) -> Result<Report> {
    let cancel = AtomicBool::new(false);
    let mut seen = Seen::new(&cancel, |_| false);
    Ok(drive(source, Some(destination), plan, &cancel, &mut seen)?)
}

fn assert_moved(report: &Report) {
    assert!(report.is_success(), "{report:#?}");
    assert_eq!(report.source.status.as_deref(), Some("postmigrate"));
    let ram = report.info.ram.clone().unwrap_or_default();
    assert!(ram.transferred > 0 && ram.total >= SIZE, "{ram:?}");
    assert!(report.info.downtime.is_some() && report.info.total_time.is_some());
}

#[test]
fn ours_to_ours() -> Result<()> {
    let source = Ours::new(&counting(SIZE), false)?;
    let destination = Ours::new(&counting(SIZE), true)?;
    let passes = source.passes_after(3)?;
    let report = run(
        &mut source.client()?,
        &mut destination.client()?,
        &plan(source.uri()),
    )?;
    assert_moved(&report);
    assert_eq!(report.source.program, "vmstate 0.1.0 (as QEMU 11.1.0)");
    assert!(destination.passes_after(passes)? > passes);
    Ok(())
}

/// With settings of both sides, over TCP, to a port that the destination chooses.
#[test]
fn ours_to_ours_with_settings() -> Result<()> {
    let source = Ours::new(&counting(SIZE), false)?;
    let destination = Ours::new(&counting(SIZE), true)?;
    let passes = source.passes_after(3)?;
    let plan = Plan {
        capabilities: ["return-path", "pause-before-switchover", "events"]
            .map(|name| (name.to_owned(), true))
            .to_vec(),
        parameters: settings(&[("max-bandwidth", "1G")]),
        ..plan("tcp:127.0.0.1:0")
    };
    let report = run(&mut source.client()?, &mut destination.client()?, &plan)?;
    assert_moved(&report);
    assert!(destination.passes_after(passes)? > passes);
    Ok(())
}

#[test]
fn qemu_to_ours_and_back() -> Result<()> {
    let Some(program) = find(Generation::V11_1, "riscv64") else {
        return Ok(());
    };
    let mut first = counting(SIZE).qemu(&program, &[])?;
    for _ in 0..3 {
        first.wait_for_change(COUNTER)?;
    }
    let ours = Ours::new(&counting(SIZE), true)?;
    let report = run(
        &mut connect(&first)?,
        &mut ours.client()?,
        &plan(ours.uri()),
    )?;
    assert_moved(&report);
    let passes = ours.passes_after(0)?;
    assert!(ours.passes_after(passes)? > passes);

    let mut last = counting(SIZE).qemu(&program, &["-incoming", "defer"])?;
    let uri = format!("unix:{}", last.dir().join("migration").display());
    let report = run(&mut ours.client()?, &mut connect(&last)?, &plan(uri))?;
    assert_moved(&report);
    for _ in 0..3 {
        last.wait_for_change(COUNTER)?;
    }
    Ok(())
}

/// Which machine is of which kind.
#[derive(Debug, Clone, Copy)]
enum Pair {
    OursToOurs,
    OursToQemu,
    QemuToOurs,
}

impl Pair {
    /// A machine whose guest computes, and one with this much RAM that waits for it. Nothing if QEMU is missing.
    fn start(self, ram: u64) -> Result<Option<(Host, Host)>> {
        let program = match self {
            Self::OursToOurs => None,
            Self::OursToQemu | Self::QemuToOurs => {
                let found = find(Generation::V11_1, "riscv64");
                if found.is_none() {
                    return Ok(None);
                }
                found
            }
        };
        let (first, second) = match self {
            Self::QemuToOurs => (program, None),
            Self::OursToOurs | Self::OursToQemu => (None, program),
        };
        let source = Host::started(&counting(SIZE), first.as_ref())?;
        source.goes_on()?;
        let destination = Host::waiting(&counting(ram), second.as_ref(), true)?;
        Ok(Some((source, destination)))
    }
}

/// So slow that it lasts until something happens.
fn slow(to: &Host) -> Plan {
    Plan {
        parameters: settings(&[("max-bandwidth", "4K"), ("downtime-limit", "1")]),
        ..plan(format!("unix:{}", to.path("migration").display()))
    }
}

/// A destination with another amount of memory refuses, says why, and the guest runs on where it is.
fn refused(pair: Pair, named: &str) -> Result<()> {
    let Some((mut source, mut destination)) = pair.start(2 * SIZE)? else {
        return Ok(());
    };
    let plan = slow(&destination);
    let report = run(&mut source.monitor, &mut destination.monitor, &plan)?;
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert!(report.error().is_some(), "{report:#?}");
    assert!(report.source.as_expected, "{report:#?}");
    let Some(end) = report.destination else {
        return Err("no destination in the report".into());
    };
    assert_eq!(end.running, Some(false), "{end:?}");
    let reason = end.error.unwrap_or_default();
    assert!(reason.contains(named), "{reason}");
    assert_eq!(source.status()?, "running");
    source.goes_on()?;
    source.check()?;
    Ok(())
}

#[test]
fn we_refuse_ours() -> Result<()> {
    refused(Pair::OursToOurs, "riscv.spike.ram")
}

#[test]
fn qemu_refuses_ours() -> Result<()> {
    // The block is named on its standard error alone.
    refused(Pair::OursToQemu, "device 'ram'")
}

#[test]
fn we_refuse_qemus() -> Result<()> {
    refused(Pair::QemuToOurs, "riscv.spike.ram")
}

/// The guest runs on where it is, and another destination can still have it.
fn cancelled(pair: Pair) -> Result<()> {
    let Some((mut source, mut destination)) = pair.start(SIZE)? else {
        return Ok(());
    };
    let cancel = AtomicBool::new(false);
    let active = |seen: &Seen<'_>| seen.statuses.last().is_some_and(|s| s == "active");
    let mut seen = Seen::new(&cancel, active);
    let plan = slow(&destination);
    let report = drive(
        &mut source.monitor,
        Some(&mut destination.monitor),
        &plan,
        &cancel,
        &mut seen,
    )?;
    assert_eq!(report.outcome, Outcome::Cancelled, "{report:#?}");
    assert!(seen.notes.contains(&Note::Cancelling), "{:?}", seen.notes);
    assert!(report.source.as_expected, "{report:#?}");
    let end = report.destination.and_then(|end| end.running);
    assert_eq!(end, Some(false));
    assert_eq!(source.status()?, "running");
    source.goes_on()?;

    let mut other = Host::waiting(&counting(SIZE), None, true)?;
    let plan = Plan {
        parameters: settings(&[("max-bandwidth", "1G"), ("downtime-limit", "300")]),
        ..slow(&other)
    };
    let report = run(&mut source.monitor, &mut other.monitor, &plan)?;
    assert_moved(&report);
    other.goes_on()?;
    other.check()?;
    Ok(())
}

#[test]
fn a_cancel_between_ours() -> Result<()> {
    cancelled(Pair::OursToOurs)
}

#[test]
fn a_cancel_on_the_way_to_qemu() -> Result<()> {
    cancelled(Pair::OursToQemu)
}

#[test]
fn a_cancel_on_the_way_from_qemu() -> Result<()> {
    cancelled(Pair::QemuToOurs)
}

/// Our source, too, says what it needs for a forecast.
#[test]
fn too_fast() -> Result<()> {
    let source = Ours::new(&counting(SIZE), false)?;
    source.passes_after(1)?;
    let slow = Plan {
        parameters: settings(&[("max-bandwidth", "64K"), ("downtime-limit", "5")]),
        ..plan("exec:cat > /dev/null")
    };
    let cancel = AtomicBool::new(false);
    let mut seen = Seen::new(&cancel, |seen| seen.stuck().is_some());
    let report = drive(&mut source.client()?, None, &slow, &cancel, &mut seen)?;
    assert_eq!(report.outcome, Outcome::Cancelled, "{report:#?}");
    let Some(Outlook::DoesNotConverge { help, .. }) = seen.stuck() else {
        return Err(format!("{:?}", seen.notes).into());
    };
    assert!(help.contains(&Help::AutoConverge), "{help:?}");
    Ok(())
}
