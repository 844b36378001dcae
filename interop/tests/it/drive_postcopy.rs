//! Migrations that `drive` ends with postcopy, between stock machines of each release, and over links that break.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use vmstate_interop::{Generation, Machine, Program, Result};
use vmstate_io::drive::{Note, Plan, Postcopy, Progress, Report, Watcher, drive};
use vmstate_qmp::migration::MigrationStatus;

use crate::board::{COUNTING_PC, MONITOR};
use crate::drive::{Seen, connect, plan, settings};
use crate::postcopy::{Mode, qemu, start};
use crate::proxy::Proxy;

/// Cuts the link once, when the guest runs at the destination. Older sources say that it has gone before it has been loaded, and a
/// link that breaks then loses it.
struct Cutting<'a> {
    proxy: Option<&'a Proxy>,
    destination: &'a mut Machine,
    notes: Vec<Note>,
    /// Has the destination's main loop wait for a page that does not come any more.
    stall: bool,
    stalled: Option<Stalled>,
    /// It waited when both machines were told to connect again.
    waited: bool,
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
            if self.stall {
                let stalled = Stalled::new(self.destination);
                self.stalled = Some(stalled.expect("a third monitor"));
            }
        }
    }

    fn note(&mut self, note: &Note) {
        self.notes.push(note.clone());
        if let (Note::Recovering { .. }, Some(stalled)) = (note, &mut self.stalled) {
            self.waited = !stalled.has_answered();
        }
    }
}

/// A monitor beside the others, with a command that the main loop runs and that touches every page.
struct Stalled {
    socket: UnixStream,
    said: Vec<u8>,
}

/// Further arguments: that monitor, at `third` in the machine's directory.
const THIRD: &[&str] = &[
    "-chardev",
    "socket,id=third,path=DIR/third,server=on,wait=off",
    "-mon",
    "chardev=third,mode=control",
];

impl Stalled {
    fn new(machine: &Machine) -> Result<Self> {
        let socket = UnixStream::connect(machine.dir().join("third"))?;
        let everything = json!({ "command-line": format!("sum 0 {:#x}", COUNTING_PC.ram.size) });
        for message in [
            json!({ "execute": "qmp_capabilities" }),
            json!({ "execute": "human-monitor-command", "arguments": everything, "id": "all pages" }),
        ] {
            (&socket).write_all(message.to_string().as_bytes())?;
        }
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            said: Vec::new(),
        })
    }

    fn has_answered(&mut self) -> bool {
        // Ends with an error: there is no more.
        let _ = self.socket.read_to_end(&mut self.said);
        String::from_utf8_lossy(&self.said).contains("all pages")
    }

    /// It goes on when its page has come.
    fn wait(&mut self) {
        let end = Instant::now() + Duration::from_secs(120);
        while !self.has_answered() {
            assert!(Instant::now() < end, "the main loop waits for ever");
            thread::sleep(Duration::from_millis(10));
        }
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
    let cut = if cut { Cut::Link } else { Cut::None };
    assert!(moves_once(&program, postcopy, capabilities, cut)?);
    Ok(())
}

/// What happens on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    None,
    /// The link breaks.
    Link,
    /// And the destination's main loop waits for a page when that has happened.
    LinkAndLoop,
}

/// Whether the guest has moved. If not, it has been doubled, and the report says so.
fn moves_once(
    program: &Program,
    postcopy: Postcopy,
    capabilities: &[&str],
    cut: Cut,
) -> Result<bool> {
    moves_between([program, program], postcopy, capabilities, cut)
}

/// The same from one release to another, with the machine type of the older one.
fn moves_between(
    [from, to]: [&Program; 2],
    postcopy: Postcopy,
    capabilities: &[&str],
    cut: Cut,
) -> Result<bool> {
    let machine = from.generation.min(to.generation);
    let stall = cut == Cut::LinkAndLoop;
    let cut = cut != Cut::None;
    let mut source = COUNTING_PC.launch_as(from, machine, MONITOR)?;
    source.wait_for_change(COUNTING_PC.pulse)?;
    let waits = [MONITOR, THIRD, &["-incoming", "defer"]].concat();
    let mut destination = COUNTING_PC.launch_as(to, machine, &waits)?;
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
        stall,
        stalled: None,
        waited: false,
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
    let said = watcher.stalled.as_ref().map(|stalled| &stalled.said[..]);
    let said = String::from_utf8_lossy(said.unwrap_or_default()).into_owned();
    assert_eq!(watcher.waited, stall, "{:?} {said}", watcher.notes);
    if let Some(mut stalled) = watcher.stalled.take() {
        stalled.wait();
    }
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
    moves_once(&program, Postcopy::After(0), &preempt, Cut::Link).map(drop)
}

const PREEMPT: &[&str] = &["postcopy-preempt"];

/// Machine types of 7.2 have the channel of requested pages from the beginning, whichever release runs them.
fn with_the_machine_type_of_7_2(from: Generation, to: Generation, cut: Cut) -> Result<()> {
    let (Some(from), Some(to)) = (COUNTING_PC.find(from), COUNTING_PC.find(to)) else {
        return Ok(());
    };
    assert!(moves_between(
        [&from, &to],
        Postcopy::After(0),
        PREEMPT,
        cut
    )?);
    Ok(())
}

#[test]
fn preempt_between_releases() -> Result<()> {
    use Generation::{V7_2, V10_0, V11_1};
    for (from, to) in [
        (V7_2, V7_2),
        (V7_2, V10_0),
        (V7_2, V11_1),
        (V10_0, V7_2),
        (V11_1, V7_2),
    ] {
        with_the_machine_type_of_7_2(from, to, Cut::None)
            .map_err(|error| format!("{from} to {to}: {error}"))?;
    }
    Ok(())
}

#[test]
fn preempt_between_releases_over_a_link_that_breaks() -> Result<()> {
    for to in Generation::ALL {
        with_the_machine_type_of_7_2(Generation::V7_2, to, Cut::Link)
            .map_err(|error| format!("7.2 to {to}: {error}"))?;
    }
    Ok(())
}

/// The destination's main loop waits for a page when the link has broken, and answers nothing any more: what it is told must overtake.
#[test]
fn a_destination_whose_main_loop_waits_for_a_page() -> Result<()> {
    for generation in Generation::ALL {
        if let Some(program) = COUNTING_PC.find(generation) {
            assert!(moves_once(
                &program,
                Postcopy::After(0),
                &[],
                Cut::LinkAndLoop
            )?);
        }
    }
    Ok(())
}

/// Nobody says when: a guest that does not converge goes.
#[test]
fn ours_to_qemu_by_itself() -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let (mut here, mut there) = start(&program, Mode::Unset)?;
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
