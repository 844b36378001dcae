//! Letting the guest go before its memory, and going on after a connection has broken.

use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::json;
use vmstate_qmp::address::{MigrationAddress, SocketAddress};
use vmstate_qmp::migration::{MigrationInfo, MigrationStatus};

use super::forecast::Outlook;
use super::track::Progress;
use super::watch::{Note, Run};
use super::{Plan, prepare};
use crate::clock::after;
use crate::qmp::{QmpClient, QmpClientError};

/// For so long it must look as if nothing converged before the guest goes.
const STUCK: Duration = Duration::from_secs(1);
/// So many times its memory is sent at most before it goes.
const AT_MOST: u64 = 3;
/// How often a machine is asked for a status that it should get into.
const PAUSE: Duration = Duration::from_millis(20);
/// How long to wait before a connection is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// After so long without an answer a destination waits for a page itself: commands must overtake those that it does not answer.
const ANSWER: Duration = Duration::from_secs(3);

/// The capability that both machines need.
pub(super) const CAPABILITY: &str = "postcopy-ram";

/// Whether the guest may go before its memory, and when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Postcopy {
    /// Only if somebody else tells the source so.
    #[default]
    Never,
    /// When it does not converge.
    Auto,
    /// After so many rounds over memory, the first of which goes over all of it; 0: at once.
    After(u64),
}

impl FromStr for Postcopy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "never" => Ok(Self::Never),
            "auto" => Ok(Self::Auto),
            _ => text
                .strip_prefix("after=")
                .and_then(|passes| passes.parse().ok())
                .map(Self::After)
                .ok_or_else(|| format!("expected auto, after=N or never, found '{text}'")),
        }
    }
}

impl Postcopy {
    /// Whether machines must be prepared for it.
    pub(super) fn is_wanted(self) -> bool {
        self != Self::Never
    }

    /// Whether it is time. `stuck` is since when nothing converges.
    pub(super) fn is_due(
        self,
        progress: &Progress,
        info: &MigrationInfo,
        stuck: Option<Duration>,
    ) -> bool {
        if progress.status != MigrationStatus::ACTIVE {
            return false;
        }
        let Some(ram) = &info.ram else {
            return false;
        };
        let sent = ram
            .normal
            .saturating_add(ram.duplicate)
            .saturating_mul(ram.page_size);
        match self {
            Self::Never => false,
            Self::After(0) => true,
            // Some sources count more rounds than go over all memory.
            Self::After(passes) => progress.pass > passes && sent >= ram.total,
            Self::Auto => {
                let converges = matches!(progress.outlook, Some(Outlook::Converges { .. }));
                stuck.is_some_and(|time| time >= STUCK)
                    || sent >= ram.total.saturating_mul(AT_MOST) && !converges
            }
        }
    }
}

impl Run<'_> {
    /// Tells the source to let the guest go.
    pub(super) fn start_postcopy(&mut self) {
        let note = match self.source.run("migrate-start-postcopy", json!({})) {
            Ok(_) => {
                self.postcopy = Some(self.tracker.elapsed(Instant::now()));
                Note::PostcopyStarted
            }
            Err(e) => Note::PostcopyRefused(refusal(&e)),
        };
        self.watcher.note(&note);
    }

    /// The source has lost its channels after the guest had gone. Connects both machines anew, if both can be told to.
    /// `false`: that is not possible.
    pub(super) fn recover(&mut self) -> bool {
        let reason = self.info.error_desc.clone();
        self.watcher
            .note(&Note::Interrupted(reason.unwrap_or_default()));
        if self.destination.is_none() || self.recoveries >= self.plan.recoveries {
            return false;
        }
        if self.recoveries > 0 {
            std::thread::sleep(AGAIN);
        }
        self.recoveries += 1;
        match self.reconnect_machines() {
            Ok(()) => true,
            Err(reason) => {
                self.watcher.note(&Note::CannotRecover(reason));
                false
            }
        }
    }

    fn reconnect_machines(&mut self) -> Result<(), String> {
        let patience = self.plan.patience;
        let Some(destination) = self.destination.as_deref_mut() else {
            return Err("the destination's monitor is not known".to_owned());
        };
        let place = listening(self.plan, &self.uri);
        if await_source(destination, &place, patience)? == Arrival::HasAll {
            // Only its last word was lost. A source that knows no such command finds out in its own way.
            let told = self.source.run("x-migrate-give-up", json!({}));
            return told.map(|_| ()).map_err(|e| refusal(&e));
        }
        self.watcher.note(&Note::Recovering {
            uri: self.uri.clone(),
        });
        let resume = json!({ "uri": self.uri, "resume": true });
        self.source
            .run("migrate", resume)
            .map_err(|e| format!("source: {}", refusal(&e)))?;
        // Older sources stay in their status until they have connected.
        let end = Instant::now() + patience.min(Duration::from_secs(5));
        while Instant::now() < end {
            let info: MigrationInfo = match self.source.query("query-migrate", json!({})) {
                Ok(info) => info,
                // Whoever watches notices it, too.
                Err(_) => return Ok(()),
            };
            if info.status() != MigrationStatus::POSTCOPY_PAUSED {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// How the destination stands.
#[derive(Debug, PartialEq, Eq)]
enum Arrival {
    /// It waits for another connection.
    Waits,
    /// It has everything.
    HasAll,
}

/// Waits until the destination has noticed, too, that the connection is lost; tells it, where nothing else does. Then has it wait for the
/// source again. Both commands overtake others: the loop that those are run by may itself wait for a page.
fn await_source(
    client: &mut QmpClient,
    place: &str,
    patience: Duration,
) -> Result<Arrival, String> {
    let recover = json!({ "uri": place });
    let end = after(patience);
    loop {
        let state = match status(client)? {
            Some(info) => {
                let state = info.status();
                match state.name() {
                    "postcopy-paused" => {
                        client
                            .run_out_of_band("migrate-recover", &recover)
                            .map_err(|e| format!("destination: {}", refusal(&e)))?;
                        return Ok(Arrival::Waits);
                    }
                    "completed" => return Ok(Arrival::HasAll),
                    "postcopy-active" | "postcopy-recover" => {
                        // It may pause by itself in this moment.
                        let _ = client.run_out_of_band("migrate-pause", json!({}));
                    }
                    "failed" | "none" => {
                        let reason = info.error_desc.unwrap_or_else(|| "no reason".to_owned());
                        return Err(format!("the destination has failed: {reason}"));
                    }
                    _ => {}
                }
                format!("stays in status '{state}'")
            }
            // It has paused if it takes this. If it refuses, it may have to be told to pause.
            None => match client.run_out_of_band("migrate-recover", &recover) {
                Ok(_) => return Ok(Arrival::Waits),
                Err(error) if error.is_lost() => return Err(format!("destination: {error}")),
                Err(error) => {
                    let _ = client.run_out_of_band("migrate-pause", json!({}));
                    format!("does not answer, and says: {}", refusal(&error))
                }
            },
        };
        if Instant::now() > end {
            return Err(format!("the destination {state}"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// How the destination's migration stands. None if it does not answer, but would take commands that overtake the question.
fn status(client: &mut QmpClient) -> Result<Option<MigrationInfo>, String> {
    let answer = if client.is_out_of_band() {
        client.query_within("query-migrate", json!({}), ANSWER)
    } else {
        client.query("query-migrate", json!({})).map(Some)
    };
    answer.map_err(|e| format!("destination: {e}"))
}

/// Where the destination is to listen again: where it listened, with the port that it had chosen.
fn listening(plan: &Plan, uri: &str) -> String {
    let place = plan.incoming_uri.as_ref().unwrap_or(&plan.uri);
    let inet = |uri: &str| match uri.parse() {
        Ok(MigrationAddress::Socket(SocketAddress::Inet(inet))) => Some(inet),
        _ => None,
    };
    match (inet(place), inet(uri)) {
        (Some(mut listens), Some(goes)) if listens.port == "0" => {
            listens.port = goes.port;
            format!("tcp:{listens}")
        }
        _ => place.clone(),
    }
}

/// What a machine says to a command that it refuses.
fn refusal(error: &QmpClientError) -> String {
    match error.refusal() {
        Some(refusal) => refusal.to_string(),
        None => error.to_string(),
    }
}

/// The capabilities to set: those of the plan, and what postcopy needs unless the plan says otherwise.
pub(super) fn capabilities(plan: &Plan) -> Vec<(String, bool)> {
    let mut all = plan.capabilities.clone();
    let named = all.iter().any(|(name, _)| name == CAPABILITY);
    if plan.postcopy.is_wanted() && !named && !prepare::is_stored(plan) {
        all.push((CAPABILITY.to_owned(), true));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_by_name() {
        assert_eq!("auto".parse(), Ok(Postcopy::Auto));
        assert_eq!("never".parse(), Ok(Postcopy::Never));
        assert_eq!("after=3".parse(), Ok(Postcopy::After(3)));
        for wrong in ["", "after", "after=", "after=-1", "soon"] {
            let error = wrong.parse::<Postcopy>().unwrap_err();
            assert!(error.contains("auto, after=N or never"), "{error}");
        }
    }

    #[test]
    fn the_port_that_was_chosen_stays() {
        let mut plan = Plan::new("tcp:host:0");
        assert_eq!(listening(&plan, "tcp:host:4711"), "tcp:host:4711");
        plan.incoming_uri = Some("tcp::0".to_owned());
        assert_eq!(listening(&plan, "tcp:host:4711"), "tcp::4711");
        plan.incoming_uri = Some("tcp::17".to_owned());
        assert_eq!(listening(&plan, "tcp:host:4711"), "tcp::17");
        let plan = Plan::new("unix:/run/m");
        assert_eq!(listening(&plan, "unix:/run/m"), "unix:/run/m");
    }
}
