//! From the beginning to the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use vmstate_qmp::migration::{CapabilityStatus, MigrationInfo, MigrationStatus, StatusInfo};

use super::error::{DriveError, Side};
use super::forecast::Outlook;
use super::report::{Machine, Outcome, Report, program};
use super::track::{Progress, Tracker};
use super::{Plan, negotiation, prepare};
use crate::clock::after;
use crate::qmp::{QmpClient, QmpClientError};

/// How often parameters are looked at: somebody else may change them.
const LOOK_AT_PARAMETERS: Duration = Duration::from_secs(5);
/// After so long without a byte somebody should know.
const SILENCE: Duration = Duration::from_secs(20);
/// For so long nothing must converge before somebody is told.
const STUCK: Duration = Duration::from_secs(3);
/// How often a machine is asked for a state that it should be in.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a lost monitor is tried again.
const RECONNECT: Duration = Duration::from_millis(500);

/// Something that happens once.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Note {
    /// The destination waits for the source.
    Waiting {
        /// Where the source goes.
        uri: String,
    },
    /// The source has begun.
    Begun,
    /// The source has stopped the guest and would wait: it was told to go on.
    Continued,
    /// It does not converge by itself.
    Stuck(Outlook),
    /// The guest is to go before its memory; the source has been told.
    PostcopyStarted,
    /// The guest should go before its memory, which the source refuses.
    PostcopyRefused(String),
    /// The connection is lost after the guest has gone, for this reason.
    Interrupted(String),
    /// Both machines have been told to connect again.
    Recovering {
        /// Where the source goes.
        uri: String,
    },
    /// They cannot be connected again.
    CannotRecover(String),
    /// Nothing has been sent for so long.
    Silent(Duration),
    /// Somebody wants it cancelled; the source has been told.
    Cancelling,
    /// Somebody wants it cancelled, which the source refuses.
    CannotCancel(String),
    /// The source's monitor does not answer any more; it is tried again.
    MonitorLost(String),
    /// The source's monitor answers again.
    MonitorBack,
}

/// Is told what happens.
pub trait Watcher {
    /// How it stands. Often.
    fn progress(&mut self, progress: &Progress);

    /// Something has happened.
    fn note(&mut self, note: &Note) {
        let _ = note;
    }
}

/// Drives a migration from its settings to its end. When `cancel` becomes true, the source is told to cancel; when it
/// cannot any more, the migration goes on.
///
/// # Errors
/// What kept the migration from beginning. How one that was begun has ended is in the report.
pub fn drive(
    source: &mut QmpClient,
    destination: Option<&mut QmpClient>,
    plan: &Plan,
    cancel: &AtomicBool,
    watcher: &mut dyn Watcher,
) -> Result<Report, DriveError> {
    let mut destination = destination;
    let before = prepare::source(source, plan)?;
    let mut uri = plan.uri.clone();
    let stored = prepare::is_stored(plan);
    if let Some(destination) = &mut destination {
        prepare::destination(destination, plan)?;
        prepare::compare(source, destination)?;
        negotiation::agree(source, destination)?;
        if !stored {
            uri = prepare::incoming(destination, plan)?;
            watcher.note(&Note::Waiting { uri: uri.clone() });
        }
    }
    let mut tracker = Tracker::new(Instant::now());
    read_settings(source, &mut tracker).map_err(DriveError::monitor(Side::Source))?;
    prepare::migrate(source, &uri)?;
    watcher.note(&Note::Begun);
    let mut run = Run {
        source,
        destination: destination.as_deref_mut(),
        uri: uri.clone(),
        plan,
        cancel,
        watcher,
        tracker,
        info: MigrationInfo::default(),
        outlook: None,
        postcopy: None,
        recoveries: 0,
        told: Told::default(),
    };
    let outcome = run.watch();
    let (info, outlook) = (run.info, run.outlook);
    let (postcopy, recoveries) = (run.postcopy, run.recoveries);
    let ends = Ends {
        plan,
        before,
        outcome,
    };
    if stored
        && outcome == Outcome::Completed
        && let Some(destination) = &mut destination
        && let Err(e) = prepare::incoming(destination, plan)
    {
        // The stream is where it was to go, so the source is done. The destination says what is wrong.
        watcher.note(&Note::MonitorLost(e.to_string()));
    }
    let adapted = match (&mut destination, outcome) {
        (Some(client), Outcome::Completed) => negotiation::adapted(client),
        _ => None,
    };
    let destination = destination.map(|client| ends.destination(client));
    let told = match ends.outcome {
        Outcome::Unknown => None,
        _ => negotiation::outcome(source),
    };
    let source = ends.source(source);
    Ok(Report {
        outcome: ends.outcome,
        uri,
        source,
        destination,
        passes: info.ram.as_ref().map_or(0, |ram| ram.dirty_sync_count),
        throughput: Report::rate(&info),
        info,
        outlook,
        postcopy,
        recoveries,
        negotiation: told,
        adapted,
    })
}

fn read_settings(client: &mut QmpClient, tracker: &mut Tracker) -> Result<(), QmpClientError> {
    let parameters: Map<String, Value> = client.query("query-migrate-parameters", json!({}))?;
    tracker.parameters(&parameters);
    let on: Vec<CapabilityStatus> = client.query("query-migrate-capabilities", json!({}))?;
    tracker.capabilities(|name| on.iter().any(|one| one.capability == name && one.state));
    Ok(())
}

/// What has been said once.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that is said once"
)]
struct Told {
    cancel: bool,
    continued: bool,
    stuck: bool,
    silent: bool,
    postcopy: bool,
}

/// A migration under way.
pub(super) struct Run<'a> {
    pub(super) source: &'a mut QmpClient,
    pub(super) destination: Option<&'a mut QmpClient>,
    /// Where the source goes.
    pub(super) uri: String,
    pub(super) plan: &'a Plan,
    cancel: &'a AtomicBool,
    pub(super) watcher: &'a mut dyn Watcher,
    pub(super) tracker: Tracker,
    pub(super) info: MigrationInfo,
    outlook: Option<Outlook>,
    /// When the source was told to let the guest go.
    pub(super) postcopy: Option<Duration>,
    /// How often a connection has been replaced.
    pub(super) recoveries: u32,
    told: Told,
}

impl Run<'_> {
    fn watch(&mut self) -> Outcome {
        let mut moved = (0, Instant::now());
        let mut looked = Instant::now();
        let mut stuck: Option<Instant> = None;
        loop {
            if self.cancel.load(Ordering::Relaxed) && !self.told.cancel {
                self.told.cancel = true;
                self.say_cancel();
            }
            match self
                .source
                .query::<MigrationInfo>("query-migrate", json!({}))
            {
                Ok(info) => self.info = info,
                Err(e) if e.is_lost() => {
                    if self.reconnect(&e) {
                        continue;
                    }
                    return Outcome::Unknown;
                }
                Err(e) => {
                    self.watcher.note(&Note::MonitorLost(e.to_string()));
                    return Outcome::Unknown;
                }
            }
            // Nobody reads them here, and they would pile up.
            self.source.take_events();
            let now = Instant::now();
            let progress = self.tracker.take(&self.info, now);
            self.watcher.progress(&progress);
            let paused = progress.status == MigrationStatus::POSTCOPY_PAUSED;
            if paused && !self.told.cancel && self.recover() {
                continue;
            }
            if self.info.unknown == Some(true) {
                return Outcome::Unknown;
            }
            if let Some(outcome) = outcome(&progress.status) {
                return outcome;
            }
            if progress.outlook.is_some() {
                self.outlook.clone_from(&progress.outlook);
            }
            match (&progress.outlook, stuck) {
                (Some(Outlook::DoesNotConverge { .. }), None) => stuck = Some(now),
                (Some(outlook @ Outlook::DoesNotConverge { .. }), Some(since))
                    if now - since >= STUCK && !self.told.stuck =>
                {
                    self.told.stuck = true;
                    self.watcher.note(&Note::Stuck(outlook.clone()));
                }
                (Some(Outlook::DoesNotConverge { .. }), Some(_)) => {}
                _ => stuck = None,
            }
            let since = stuck.map(|since| now - since);
            if !self.told.postcopy && self.plan.postcopy.is_due(&progress, &self.info, since) {
                self.told.postcopy = true;
                self.start_postcopy();
            }
            if progress.transferred != moved.0 {
                moved = (progress.transferred, now);
                self.told.silent = false;
            } else if now - moved.1 >= SILENCE && !self.told.silent {
                self.told.silent = true;
                self.watcher.note(&Note::Silent(now - moved.1));
            }
            if progress.status == MigrationStatus::PRE_SWITCHOVER && !self.told.continued {
                self.told.continued = true;
                self.go_on();
            }
            if now - looked >= LOOK_AT_PARAMETERS {
                looked = now;
                // A connection that is lost here is noticed above.
                let _ = read_settings(self.source, &mut self.tracker);
            }
            sleep(self.plan.interval);
        }
    }

    fn say_cancel(&mut self) {
        let note = match self.source.run("migrate_cancel", json!({})) {
            Ok(_) => Note::Cancelling,
            Err(e) => Note::CannotCancel(match e.refusal() {
                Some(refusal) => refusal.to_string(),
                None => e.to_string(),
            }),
        };
        self.watcher.note(&note);
    }

    /// The guest stands still, and who asked for the pause is us.
    fn go_on(&mut self) {
        let state = json!({ "state": MigrationStatus::PRE_SWITCHOVER });
        // A cancel may have come in between. The status says so.
        if self.source.run("migrate-continue", state).is_ok() {
            self.watcher.note(&Note::Continued);
        }
    }

    /// Connects again. The migration does not need us.
    fn reconnect(&mut self, error: &QmpClientError) -> bool {
        self.watcher.note(&Note::MonitorLost(error.to_string()));
        let end = after(self.plan.patience);
        while Instant::now() < end {
            match self.source.reconnect() {
                Ok(()) => {
                    self.watcher.note(&Note::MonitorBack);
                    return true;
                }
                // Nobody listens there any more: the process has ended.
                Err(e) if e.is_refused() => return false,
                Err(_) => sleep(RECONNECT),
            }
        }
        false
    }
}

/// Whether it is over.
fn outcome(status: &MigrationStatus) -> Option<Outcome> {
    match status.name() {
        "completed" => Some(Outcome::Completed),
        // A source that has begun and shows none has been told to forget it.
        "failed" | "none" => Some(Outcome::Failed),
        "cancelled" => Some(Outcome::Cancelled),
        "postcopy-paused" => Some(Outcome::Paused),
        _ => None,
    }
}

/// How both machines are found in the end.
struct Ends<'a> {
    plan: &'a Plan,
    before: StatusInfo,
    outcome: Outcome,
}

impl Ends<'_> {
    /// The source's guest must run if it ran before and has not gone.
    fn source(&self, client: &mut QmpClient) -> Machine {
        let gone = matches!(
            self.outcome,
            Outcome::Completed | Outcome::Paused | Outcome::Unknown
        );
        let should_run = self.before.running && !gone;
        let status = self.wait(client, |status| {
            status.running == should_run && status.status != "finish-migrate"
        });
        machine(client, status, |status| status.running == should_run)
    }

    fn destination(&self, client: &mut QmpClient) -> Machine {
        if self.outcome == Outcome::Completed {
            let (error, migration) = self.loaded(client);
            let status = self.wait(client, |status| status.running == self.before.running);
            let mut machine = machine(client, status, |status| {
                status.running == self.before.running
            });
            machine.error = error.or(machine.error);
            machine.migration = migration;
            return machine;
        }
        if self.outcome == Outcome::Paused {
            // It runs as far as it can.
            let status = client.query("query-status", json!({}));
            let mut machine = machine(client, status, |status: &StatusInfo| {
                status.running == self.before.running
            });
            let info = client.query::<MigrationInfo>("query-migrate", json!({}));
            machine.migration = info.ok().map(|info| info.status().to_string());
            return machine;
        }
        let Reason {
            error,
            ended,
            migration,
        } = self.reason(client);
        if ended {
            return Machine {
                program: program(client.version()),
                monitor: client.address().to_string(),
                status: None,
                running: Some(false),
                as_expected: true,
                migration,
                error,
            };
        }
        let status = client.query("query-status", json!({}));
        let mut machine = machine(client, status, |status: &StatusInfo| !status.running);
        machine.error = error.or(machine.error);
        machine.migration = migration;
        machine
    }

    /// The source is done when the last byte has left. Loading takes longer: waits for it. Gives the reason if it fails,
    /// and in what status it stays.
    fn loaded(&self, client: &mut QmpClient) -> (Option<String>, Option<String>) {
        let end = after(self.plan.patience);
        loop {
            let info: MigrationInfo = match client.query("query-migrate", json!({})) {
                Ok(info) => info,
                Err(e) => return (Some(e.to_string()), None),
            };
            let status = info.status();
            if status.is_over() && status != MigrationStatus::NONE {
                return (info.error_desc, None);
            }
            if Instant::now() > end {
                let stays = format!("its migration stays in status '{status}'");
                return (Some(stays), Some(status.to_string()));
            }
            sleep(PAUSE);
        }
    }

    /// What the destination says of itself. One that has failed is of no more use, and is told to end if it has not, as by
    /// itself it would have.
    fn reason(&self, client: &mut QmpClient) -> Reason {
        let end = Instant::now() + self.plan.patience.min(Duration::from_secs(5));
        while Instant::now() < end {
            let info: MigrationInfo = match client.query("query-migrate", json!({})) {
                Ok(info) => info,
                Err(e) => {
                    return Reason {
                        ended: e.is_lost() && is_gone(client, self.plan.patience),
                        ..Reason::default()
                    };
                }
            };
            match info.status() {
                status if status == MigrationStatus::FAILED => {
                    let told = client.run("quit", json!({}));
                    return Reason {
                        error: info.error_desc,
                        ended: told.is_ok(),
                        migration: None,
                    };
                }
                status if status == MigrationStatus::NONE => break,
                // Its guest runs as far as it can, and the rest of it was with the source.
                status if status == MigrationStatus::POSTCOPY_PAUSED => {
                    return Reason {
                        migration: Some(status.to_string()),
                        ..Reason::default()
                    };
                }
                _ => sleep(PAUSE),
            }
        }
        Reason::default()
    }

    /// Asks until the answer is good, or for so long.
    fn wait(
        &self,
        client: &mut QmpClient,
        good: impl Fn(&StatusInfo) -> bool,
    ) -> Result<StatusInfo, QmpClientError> {
        let end = Instant::now() + self.plan.patience.min(Duration::from_secs(10));
        loop {
            let status: StatusInfo = client.query("query-status", json!({}))?;
            if good(&status) || Instant::now() > end {
                return Ok(status);
            }
            sleep(PAUSE);
        }
    }
}

/// What a destination says when the guest has not simply come.
#[derive(Debug, Default)]
struct Reason {
    /// Why it has failed.
    error: Option<String>,
    /// Whether it has ended.
    ended: bool,
    /// Status of its migration, where that is of use.
    migration: Option<String>,
}

/// Whether nobody answers at a monitor that was there. A process that is ending still accepts connections for a moment.
fn is_gone(client: &mut QmpClient, within: Duration) -> bool {
    let end = after(within);
    loop {
        match client.reconnect() {
            Ok(()) => return false,
            Err(e) if e.is_refused() => return true,
            Err(_) if Instant::now() > end => return false,
            Err(_) => sleep(PAUSE),
        }
    }
}

fn machine(
    client: &QmpClient,
    status: Result<StatusInfo, QmpClientError>,
    good: impl Fn(&StatusInfo) -> bool,
) -> Machine {
    let mut machine = Machine {
        program: program(client.version()),
        monitor: client.address().to_string(),
        ..Machine::default()
    };
    match status {
        Ok(status) => {
            machine.as_expected = good(&status);
            machine.running = Some(status.running);
            machine.status = Some(status.status);
        }
        Err(e) => machine.error = Some(e.to_string()),
    }
    machine
}
