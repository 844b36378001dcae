//! Migrations that `drive` ends with postcopy, between stock machines of each release, and over links that break.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use vmstate_interop::{Generation, Machine, Program, Result};
use vmstate_io::drive::{Note, Plan, Postcopy, Progress, Report, Watcher, drive};
use vmstate_qmp::migration::MigrationStatus;

use crate::board::{COUNTING_PC, MONITOR};
use crate::drive::{Seen, connect, plan, settings};
use crate::postcopy::{qemu, start};
use crate::proxy::Proxy;

/// Cuts the link once, when the guest runs at the destination. Older sources say that it has gone before it has been loaded, and a
/// link that breaks then loses it.
struct Cutting<'a> {
    proxy: Option<&'a Proxy>,
    destination: &'a mut Machine,
    notes: Vec<Note>,
}

impl Watcher for Cutting<'_> {
    fn progress(&mut self, progress: &Progress) {
        if progress.status != MigrationStatus::POSTCOPY_ACTIVE {
            return;
        }
        if self.proxy.is_some()
            && self.destination.is_running().unwrap_or(false)
            && let Some(proxy) = self.proxy.take()
        {
            proxy.cut();
        }
    }

    fn note(&mut self, note: &Note) {
        self.notes.push(note.clone());
    }
}

/// The guest writes faster than its memory is sent, and goes before it. With `cut`, the link breaks then.
fn moves(
    generation: Generation,
    postcopy: Postcopy,
    capabilities: &[&str],
    cut: bool,
) -> Result<()> {
    let Some(program) = COUNTING_PC.find(generation) else {
        return Ok(());
    };
    assert!(moves_once(&program, postcopy, capabilities, cut)?);
    Ok(())
}

/// Whether the guest has moved. If not, it has been doubled, and the report says so.
fn moves_once(
    program: &Program,
    postcopy: Postcopy,
    capabilities: &[&str],
    cut: bool,
) -> Result<bool> {
    let mut source = COUNTING_PC.launch(program, MONITOR)?;
    source.wait_for_change(COUNTING_PC.pulse)?;
    let mut destination =
        COUNTING_PC.launch(program, &[MONITOR, &["-incoming", "defer"]].concat())?;
    let path = destination.dir().join("migration");
    let at = destination.dir().join("proxy");
    let uri = |path: &std::path::Path| format!("unix:{}", path.display());
    let proxy = Proxy::new(&at, path.clone())?;
    let plan = Plan {
        incoming_uri: Some(uri(&path)),
        postcopy,
        capabilities: capabilities
            .iter()
            .map(|name| ((*name).to_owned(), true))
            .collect(),
        parameters: settings(&[
            ("max-bandwidth", "16K"),
            ("max-postcopy-bandwidth", "8K"),
            ("downtime-limit", "1"),
        ]),
        interval: Duration::from_millis(10),
        ..plan(uri(&at))
    };
    let mut monitor = connect(&destination)?;
    let mut watcher = Cutting {
        proxy: cut.then_some(&proxy),
        destination: &mut destination,
        notes: Vec::new(),
    };
    let report = drive(
        &mut connect(&source)?,
        Some(&mut monitor),
        &plan,
        &AtomicBool::new(false),
        &mut watcher,
    )?;
    let runs_there = report.destination.as_ref().is_some_and(|there| {
        // What is not as it should be is what the report is about.
        there.running == Some(true) && !there.as_expected
    });
    if cut && runs_there && report.source.running == Some(true) {
        assert!(!report.is_success(), "{report:#?}");
        return Ok(false);
    }
    assert!(report.is_success(), "{:#?}\n{report:#?}", watcher.notes);
    assert!(
        watcher.notes.contains(&Note::PostcopyStarted),
        "{:?}",
        watcher.notes
    );
    assert_eq!(report.recoveries > 0, cut, "{:?}", watcher.notes);
    let interrupted = |note: &Note| matches!(note, Note::Interrupted(_));
    assert_eq!(watcher.notes.iter().any(interrupted), cut);
    arrived(&report, &mut source, &mut destination)?;
    Ok(true)
}

fn arrived(report: &Report, source: &mut Machine, destination: &mut Machine) -> Result<()> {
    assert!(report.postcopy.is_some());
    let json = report.to_json();
    assert_eq!(json["postcopy"]["recoveries"], report.recoveries);
    assert!(json["postcopy"]["started_ms"].is_u64(), "{json}");
    assert!(!source.is_running()?);
    destination.wait_for_change(COUNTING_PC.pulse)
}

#[test]
fn postcopy_7_2() -> Result<()> {
    moves(Generation::V7_2, Postcopy::After(0), &[], false)
}

#[test]
fn postcopy_10_0() -> Result<()> {
    moves(Generation::V10_0, Postcopy::After(0), &[], false)
}

#[test]
fn postcopy_11_1() -> Result<()> {
    moves(Generation::V11_1, Postcopy::After(0), &[], false)
}

#[test]
fn a_link_that_breaks_7_2() -> Result<()> {
    moves(Generation::V7_2, Postcopy::After(0), &[], true)
}

#[test]
fn a_link_that_breaks_10_0() -> Result<()> {
    moves(
        Generation::V10_0,
        Postcopy::After(0),
        &["postcopy-preempt"],
        true,
    )
}

#[test]
fn a_link_that_breaks_11_1() -> Result<()> {
    moves(Generation::V11_1, Postcopy::After(0), &[], true)
}

/// With preempt all memory has been sent at once, and QEMU 11.1's source takes a link that breaks then for a failure from before the
/// guest has gone, and resumes: two guests run. Then the report must say so.
#[test]
fn a_link_that_breaks_11_1_with_preempt() -> Result<()> {
    let Some(program) = COUNTING_PC.find(Generation::V11_1) else {
        return Ok(());
    };
    let preempt = ["postcopy-preempt"];
    moves_once(&program, Postcopy::After(0), &preempt, true).map(drop)
}

/// Nobody says when: a guest that does not converge goes.
#[test]
fn ours_to_qemu_by_itself() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let (mut here, mut there) = start(&program, &[])?;
    let plan = Plan {
        postcopy: Postcopy::Auto,
        ..plan(format!("unix:{}", there.path("migration").display()))
    };
    let cancel = AtomicBool::new(false);
    let mut seen = Seen::new(&cancel, |_| false);
    let report = drive(
        &mut here.monitor,
        Some(&mut there.monitor),
        &plan,
        &cancel,
        &mut seen,
    )?;
    assert!(report.is_success(), "{report:#?}");
    assert!(
        seen.notes.contains(&Note::PostcopyStarted),
        "{:?}",
        seen.notes
    );
    assert!(seen.statuses.contains(&"postcopy-active".to_owned()));
    there.goes_on()?;
    there.check()?;
    Ok(())
}
