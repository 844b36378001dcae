//! Migrations that `drive` runs between real machines.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vmstate_interop::{Generation, Machine, Program, Ram, Result};
use vmstate_io::drive::{Help, Note, Outcome, Outlook, Plan, Progress, Report, Watcher, drive};
use vmstate_io::qmp::{QmpAddress, QmpClient, Timeouts};

use crate::board::{Board, COUNTING_PC, MONITOR};

/// So that a machine that does not do what it should does not hold up the test.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(board: &Board, program: &Program) -> Result<Machine> {
    let mut machine = board.launch(program, MONITOR)?;
    machine.wait_for_change(board.pulse)?;
    Ok(machine)
}

/// A machine that waits for a guest and runs it then.
fn waiting(board: &Board, program: &Program) -> Result<Machine> {
    board.launch(program, &[MONITOR, &["-incoming", "defer"]].concat())
}

pub(crate) fn connect(machine: &Machine) -> Result<QmpClient> {
    let address = QmpAddress::Unix(machine.dir().join("drive"));
    Ok(QmpClient::connect(&address, Timeouts::default())?)
}

pub(crate) fn plan(uri: impl Into<String>) -> Plan {
    Plan {
        interval: Duration::from_millis(20),
        ..Plan::new(uri)
    }
}

pub(crate) fn settings(list: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    list.iter().map(owned).collect()
}

fn socket(machine: &Machine) -> (PathBuf, String) {
    let path = machine.dir().join("migration");
    let uri = format!("unix:{}", path.display());
    (path, uri)
}

/// What is to be seen, and when to cancel.
pub(crate) struct Seen<'a> {
    cancel: &'a AtomicBool,
    cancel_when: fn(&Self) -> bool,
    end: Instant,
    pub(crate) statuses: Vec<String>,
    pub(crate) notes: Vec<Note>,
}

impl<'a> Seen<'a> {
    pub(crate) fn new(cancel: &'a AtomicBool, cancel_when: fn(&Self) -> bool) -> Self {
        Self {
            cancel,
            cancel_when,
            end: Instant::now() + PATIENCE,
            statuses: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn stuck(&self) -> Option<&Outlook> {
        self.notes.iter().find_map(|note| match note {
            Note::Stuck(outlook) => Some(outlook),
            _ => None,
        })
    }

    fn look(&self) {
        if (self.cancel_when)(self) || Instant::now() > self.end {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

impl Watcher for Seen<'_> {
    fn progress(&mut self, progress: &Progress) {
        let status = progress.status.to_string();
        if self.statuses.last() != Some(&status) {
            self.statuses.push(status);
        }
        self.look();
    }

    fn note(&mut self, note: &Note) {
        self.notes.push(note.clone());
        self.look();
    }
}

fn run(source: &Machine, destination: Option<&Machine>, plan: &Plan) -> Result<Report> {
    let cancel = AtomicBool::new(false);
    let mut seen = Seen::new(&cancel, |_| false);
    let mut destination = destination.map(connect).transpose()?;
    Ok(drive(
        &mut connect(source)?,
        destination.as_mut(),
        plan,
        &cancel,
        &mut seen,
    )?)
}

/// The guest is there, and counts on.
fn assert_arrived(report: &Report, source: &mut Machine, destination: &mut Machine) -> Result<()> {
    assert!(report.is_success(), "{report:#?}");
    assert_eq!(report.source.status.as_deref(), Some("postmigrate"));
    let ram = report.info.ram.clone().unwrap_or_default();
    assert!(
        ram.transferred > 50_000 && ram.total >= COUNTING_PC.ram.size,
        "{ram:?}"
    );
    assert!(ram.normal > 0 && ram.duplicate > 3000, "{ram:?}");
    assert!(report.passes >= 1 && report.throughput > 0, "{report:?}");
    assert!(report.info.downtime.is_some() && report.info.total_time.is_some());
    assert!(!source.is_running()?);
    assert!(destination.is_running()?);
    destination.wait_for_change(COUNTING_PC.pulse)
}

fn moves(generation: Generation, plan: impl FnOnce(String) -> Plan) -> Result<()> {
    let Some(program) = COUNTING_PC.find(generation) else {
        return Ok(());
    };
    let mut source = start(&COUNTING_PC, &program)?;
    let mut destination = waiting(&COUNTING_PC, &program)?;
    let (_, uri) = socket(&source);
    let report = run(&source, Some(&destination), &plan(uri))?;
    assert_arrived(&report, &mut source, &mut destination)
}

#[test]
fn moves_7_2() -> Result<()> {
    moves(Generation::V7_2, plan)
}

#[test]
fn moves_10_0() -> Result<()> {
    moves(Generation::V10_0, plan)
}

#[test]
fn moves_11_1() -> Result<()> {
    moves(Generation::V11_1, plan)
}

/// Settings of both sides, a port that the destination chooses, a pause that somebody has to end.
fn moves_with_settings(generation: Generation) -> Result<()> {
    moves(generation, |_| Plan {
        capabilities: vec![
            ("multifd".to_owned(), true),
            ("pause-before-switchover".to_owned(), true),
        ],
        parameters: settings(&[("multifd-channels", "3"), ("max-bandwidth", "1G")]),
        ..plan("tcp:127.0.0.1:0")
    })
}

#[test]
fn moves_with_settings_7_2() -> Result<()> {
    moves_with_settings(Generation::V7_2)
}

#[test]
fn moves_with_settings_11_1() -> Result<()> {
    moves_with_settings(Generation::V11_1)
}

/// Through a file that waits in between.
fn moves_through_a_file(generation: Generation) -> Result<()> {
    moves(generation, |uri| {
        let path = uri.trim_start_matches("unix:");
        if generation == Generation::V7_2 {
            return Plan {
                incoming_uri: Some(format!("exec:cat {path}")),
                ..plan(format!("exec:cat > {path}"))
            };
        }
        plan(format!("file:{path},offset=4K"))
    })
}

#[test]
fn moves_through_a_file_7_2() -> Result<()> {
    moves_through_a_file(Generation::V7_2)
}

#[test]
fn moves_through_a_file_10_0() -> Result<()> {
    moves_through_a_file(Generation::V10_0)
}

#[test]
fn moves_through_a_file_11_1() -> Result<()> {
    moves_through_a_file(Generation::V11_1)
}

fn cancelled(generation: Generation) -> Result<()> {
    let Some(program) = COUNTING_PC.find(generation) else {
        return Ok(());
    };
    let mut source = start(&COUNTING_PC, &program)?;
    let destination = waiting(&COUNTING_PC, &program)?;
    let (_, uri) = socket(&source);
    let plan = Plan {
        parameters: settings(&[("max-bandwidth", "4K"), ("downtime-limit", "1")]),
        ..plan(uri)
    };
    let cancel = AtomicBool::new(false);
    let active = |seen: &Seen<'_>| seen.statuses.last().is_some_and(|s| s == "active");
    let mut seen = Seen::new(&cancel, active);
    let report = drive(
        &mut connect(&source)?,
        Some(&mut connect(&destination)?),
        &plan,
        &cancel,
        &mut seen,
    )?;
    assert_eq!(report.outcome, Outcome::Cancelled, "{report:#?}");
    assert!(seen.notes.contains(&Note::Cancelling), "{:?}", seen.notes);
    assert!(report.source.as_expected, "{:?}", report.source);
    assert!(
        report
            .destination
            .is_some_and(|machine| machine.as_expected)
    );
    assert!(source.is_running()?);
    source.wait_for_change(COUNTING_PC.pulse)
}

#[test]
fn cancelled_7_2() -> Result<()> {
    cancelled(Generation::V7_2)
}

#[test]
fn cancelled_10_0() -> Result<()> {
    cancelled(Generation::V10_0)
}

#[test]
fn cancelled_11_1() -> Result<()> {
    cancelled(Generation::V11_1)
}

/// What is known beforehand to fail is not begun.
fn different(generation: Generation) -> Result<()> {
    let Some(program) = COUNTING_PC.find(generation) else {
        return Ok(());
    };
    let large = Board {
        ram: Ram {
            size: 32 << 20,
            ..COUNTING_PC.ram
        },
        ..COUNTING_PC
    };
    let other = Board {
        machine: "pc-q35-",
        ..COUNTING_PC
    };
    let mut source = start(&COUNTING_PC, &program)?;
    for (board, expected) in [
        (
            &large,
            "memory is 16 MiB at the source, 32 MiB at the destination",
        ),
        (&other, "machine type is pc-i440fx-"),
    ] {
        let mut destination = waiting(board, &program)?;
        let (_, uri) = socket(&source);
        let Err(error) = run(&source, Some(&destination), &plan(uri)) else {
            return Err("the machines do not differ".into());
        };
        assert!(error.to_string().contains(expected), "{error}");
        let status = destination.run("query-status", serde_json::json!({}))?;
        assert_eq!(status["status"], "inmigrate");
    }
    assert!(source.is_running()?);
    Ok(())
}

#[test]
fn different_7_2() -> Result<()> {
    different(Generation::V7_2)
}

#[test]
fn different_10_0() -> Result<()> {
    different(Generation::V10_0)
}

#[test]
fn different_11_1() -> Result<()> {
    different(Generation::V11_1)
}

/// A destination that lacks a device refuses.
fn refused(generation: Generation) -> Result<()> {
    let Some(program) = COUNTING_PC.find(generation) else {
        return Ok(());
    };
    let more = [MONITOR, &["-device", "virtio-rng-pci"]].concat();
    let mut source = COUNTING_PC.launch(&program, &more)?;
    source.wait_for_change(COUNTING_PC.pulse)?;
    let destination = waiting(&COUNTING_PC, &program)?;
    let (_, uri) = socket(&source);
    let plan = Plan {
        // Waits for the destination's word.
        capabilities: vec![("return-path".to_owned(), true)],
        ..plan(uri)
    };
    let report = run(&source, Some(&destination), &plan)?;
    assert_eq!(report.outcome, Outcome::Failed, "{report:#?}");
    assert!(report.error().is_some() && report.advice().is_some());
    assert!(report.source.as_expected, "{:?}", report.source);
    let Some(end) = report.destination else {
        return Err("no destination in the report".into());
    };
    assert_eq!(end.running, Some(false), "{end:?}");
    // 7.2 ends before anybody can ask why.
    let reason = end.error.unwrap_or_default();
    if generation > Generation::V7_2 {
        assert!(reason.contains("load of migration failed"), "{reason}");
    }
    assert!(source.is_running()?);
    source.wait_for_change(COUNTING_PC.pulse)
}

#[test]
fn refused_7_2() -> Result<()> {
    refused(Generation::V7_2)
}

#[test]
fn refused_10_0() -> Result<()> {
    refused(Generation::V10_0)
}

#[test]
fn refused_11_1() -> Result<()> {
    refused(Generation::V11_1)
}

/// A guest that is too fast for the connection: it is said what would help, and that does help. Not with 7.2, which
/// misses writes of an emulated processor and takes it for slower than it is.
fn too_fast(generation: Generation) -> Result<()> {
    let Some(program) = COUNTING_PC.find(generation) else {
        return Ok(());
    };
    let slow = Plan {
        parameters: settings(&[("max-bandwidth", "64K"), ("downtime-limit", "5")]),
        ..plan("exec:cat > /dev/null")
    };
    let mut stuck = None;
    for _ in 0..5 {
        let source = start(&COUNTING_PC, &program)?;
        let cancel = AtomicBool::new(false);
        let mut seen = Seen::new(&cancel, |seen| seen.stuck().is_some());
        let report = drive(&mut connect(&source)?, None, &slow, &cancel, &mut seen)?;
        // On a busy host the guest may get no time for a whole pass, so that nothing was left.
        if report.outcome != Outcome::Completed {
            assert_eq!(report.outcome, Outcome::Cancelled, "{report:#?}");
            let Some(Outlook::DoesNotConverge { help, .. }) = seen.stuck().cloned() else {
                return Err(format!("{:?}", seen.notes).into());
            };
            stuck = Some((source, help));
            break;
        }
    }
    let (source, help) = stuck.ok_or("it converges whenever it is tried")?;
    assert!(help.contains(&Help::AutoConverge) && help.contains(&Help::Postcopy));
    let limit = help.iter().find_map(|help| match help {
        Help::DowntimeLimit { milliseconds } => Some(*milliseconds),
        _ => None,
    });
    let limit = limit.ok_or("no downtime-limit")?;
    assert!((6..2000).contains(&limit), "{limit}");
    let bandwidth = help.iter().any(|help| match help {
        Help::MaxBandwidth { bytes_per_second } => *bytes_per_second > 64 << 10,
        _ => false,
    });
    assert!(bandwidth, "{help:?}");

    let helped = Plan {
        parameters: settings(&[("downtime-limit", &limit.to_string())]),
        ..plan("exec:cat > /dev/null")
    };
    let report = run(&source, None, &helped)?;
    assert_eq!(report.outcome, Outcome::Completed, "{report:#?}");
    Ok(())
}

#[test]
fn too_fast_10_0() -> Result<()> {
    too_fast(Generation::V10_0)
}

#[test]
fn too_fast_11_1() -> Result<()> {
    too_fast(Generation::V11_1)
}

/// Ends the source's process when it is under way.
struct Killer(Option<Machine>);

impl Watcher for Killer {
    fn progress(&mut self, progress: &Progress) {
        if progress.status.name() == "active" {
            self.0 = None;
        }
    }
}

#[test]
fn a_source_that_dies() -> Result<()> {
    let Some(program) = COUNTING_PC.find(Generation::V11_1) else {
        return Ok(());
    };
    let source = start(&COUNTING_PC, &program)?;
    let destination = waiting(&COUNTING_PC, &program)?;
    let plan = Plan {
        parameters: settings(&[("max-bandwidth", "4K"), ("downtime-limit", "1")]),
        ..plan(socket(&destination).1)
    };
    let mut client = connect(&source)?;
    let report = drive(
        &mut client,
        Some(&mut connect(&destination)?),
        &plan,
        &AtomicBool::new(false),
        &mut Killer(Some(source)),
    )?;
    assert_eq!(report.outcome, Outcome::Unknown, "{report:#?}");
    assert_eq!(report.source.running, None);
    let end = report.destination.ok_or("no destination")?;
    assert_eq!(end.running, Some(false), "{end:?}");
    Ok(())
}
