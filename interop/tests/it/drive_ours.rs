//! Migrations that `drive` runs between the built-in machine, through its own monitor, and stock QEMU.

use std::sync::atomic::AtomicBool;

use vmstate_interop::{Generation, Result, find};
use vmstate_io::drive::{Help, Note, Outcome, Outlook, Plan, Report, drive};
use vmstate_io::qmp::QmpClient;
use vmstate_spike::guests;

use crate::drive::{Seen, connect, plan, settings};
use crate::host::{COUNTER, Shape};
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

/// Who has less memory refuses, says why, and the guest runs on where it is.
#[test]
fn a_refusal() -> Result<()> {
    let source = Ours::new(&counting(SIZE), false)?;
    let destination = Ours::new(&counting(2 * SIZE), true)?;
    let passes = source.passes_after(1)?;
    let report = run(
        &mut source.client()?,
        &mut destination.client()?,
        &plan(source.uri()),
    )?;
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert!(report.source.as_expected, "{report:#?}");
    let reason = report.destination.and_then(|end| end.error);
    assert!(
        reason.as_ref().is_some_and(|reason| reason.contains("ram")),
        "{reason:?}"
    );
    assert!(source.passes_after(passes)? > passes);
    Ok(())
}

#[test]
fn a_cancel() -> Result<()> {
    let source = Ours::new(&counting(SIZE), false)?;
    let destination = Ours::new(&counting(SIZE), true)?;
    let passes = source.passes_after(1)?;
    let plan = Plan {
        parameters: settings(&[("max-bandwidth", "4K"), ("downtime-limit", "1")]),
        ..plan(source.uri())
    };
    let cancel = AtomicBool::new(false);
    let active = |seen: &Seen<'_>| seen.statuses.last().is_some_and(|s| s == "active");
    let mut seen = Seen::new(&cancel, active);
    let report = drive(
        &mut source.client()?,
        Some(&mut destination.client()?),
        &plan,
        &cancel,
        &mut seen,
    )?;
    assert_eq!(report.outcome, Outcome::Cancelled, "{report:#?}");
    assert!(seen.notes.contains(&Note::Cancelling), "{:?}", seen.notes);
    assert!(report.source.as_expected, "{report:#?}");
    assert!(source.passes_after(passes)? > passes);
    Ok(())
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
