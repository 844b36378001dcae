//! How it went.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use vmstate_qmp::Version;
use vmstate_qmp::migration::{AdaptedState, MigrationInfo};

use super::forecast::Outlook;

/// How a migration that was begun has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The guest is at the destination.
    Completed,
    /// The source says that it failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// A postcopy migration has lost its connection: parts of the guest are on both sides.
    Paused,
    /// Nobody knows: the source's monitor is gone, or the source itself cannot know whether the guest has arrived.
    Unknown,
}

/// A machine, as it was found at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Name and version of the program, such as `QEMU 10.0.13`.
    pub program: String,
    /// Where its monitor is.
    pub monitor: String,
    /// Its run state. Absent: it could not be asked, or has ended.
    pub status: Option<String>,
    /// Whether its guest runs. Absent: it could not be asked. A guest whose machine has ended does not run.
    pub running: Option<bool>,
    /// Whether its guest is as it should be after this outcome.
    pub as_expected: bool,
    /// Status of its migration, where that says more than its run state: the destination's, if no guest has come to it, or if
    /// parts of its guest's memory are still to come.
    pub migration: Option<String>,
    /// Its own reason of a failure, or why it could not be asked.
    pub error: Option<String>,
}

/// How a migration went.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// Where it went.
    pub uri: String,
    /// The machine that the guest was on.
    pub source: Machine,
    /// The machine that it went to, if it has a monitor that we know.
    pub destination: Option<Machine>,
    /// What the source said last.
    pub info: MigrationInfo,
    /// Rounds over memory.
    pub passes: u64,
    /// Bytes per second on the wire, from the end of setup to the end.
    pub throughput: u64,
    /// What was to be expected when it was last looked at while the guest ran.
    pub outlook: Option<Outlook>,
    /// After what time the guest was to go before its memory; none if nobody here said so.
    pub postcopy: Option<Duration>,
    /// How often a connection that broke after the guest had gone was replaced.
    pub recoveries: u32,
    /// What the machines said to each other, if both are ours: the answer of `x-query-negotiation` at the source.
    pub negotiation: Option<Value>,
    /// What the destination has dropped, or left at its default, if it has a monitor that we know and is one of ours.
    pub adapted: Option<AdaptedState>,
}

/// Words of a source that has heard that the destination failed, and not why: ours, and QEMU's.
const POINTS_THERE: &[&str] = &["the destination reports error", "indicated error"];

impl Machine {
    /// Whether a destination still waits for a guest.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.migration.as_deref(), Some("none" | "setup"))
    }

    /// Whether its guest lacks memory that only the source had.
    pub(super) fn is_torn(&self) -> bool {
        self.migration.as_deref() == Some("postcopy-paused")
    }
}

impl Report {
    /// Whether the guest is where it should be and does what it did before.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let arrived = |machine: &Machine| machine.as_expected;
        self.outcome == Outcome::Completed && self.destination.as_ref().is_none_or(arrived)
    }

    /// Whether both machines run the guest. A stock source can do that to a guest when a connection breaks while the
    /// destination starts it.
    #[must_use]
    pub fn runs_twice(&self) -> bool {
        let there = self
            .destination
            .as_ref()
            .and_then(|machine| machine.running);
        self.source.running == Some(true) && there == Some(true)
    }

    /// Why it did not go as it should have: the source's reason, or what is known of the end.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let said = self.info.error_desc.clone();
        if self.runs_twice() {
            return Some("the guest runs on both machines".to_owned());
        }
        match self.outcome {
            Outcome::Completed if self.is_success() => None,
            Outcome::Completed => Some("the guest does not run at the destination".to_owned()),
            Outcome::Cancelled => None,
            Outcome::Failed => {
                let theirs = self.destination.as_ref().and_then(|d| d.error.clone());
                match (said, theirs) {
                    // It knows only that there is a reason.
                    (Some(said), Some(theirs)) if POINTS_THERE.iter().any(|w| said.contains(w)) => {
                        Some(theirs)
                    }
                    (Some(said), _) => Some(said),
                    (None, theirs) => {
                        Some(theirs.unwrap_or_else(|| "the source gives no reason".to_owned()))
                    }
                }
            }
            Outcome::Paused => {
                let lost = "the connection was lost after the guest had moved";
                Some(said.unwrap_or_else(|| lost.to_owned()))
            }
            Outcome::Unknown if self.info.unknown == Some(true) => {
                let cut = "the connection was lost before the destination could say that it has the guest";
                Some(said.unwrap_or_else(|| cut.to_owned()))
            }
            Outcome::Unknown => Some(
                self.source
                    .error
                    .clone()
                    .unwrap_or_else(|| "the source's monitor is lost".to_owned()),
            ),
        }
    }

    /// What the destination had to say although it took the guest, in several lines.
    #[must_use]
    pub fn remarks(&self) -> Option<&str> {
        let told = self.negotiation.as_ref()?;
        let some = told["findings"]
            .as_array()
            .is_some_and(|all| !all.is_empty());
        (some && told["refused"] == false)
            .then(|| told["text"].as_str())
            .flatten()
    }

    /// The format that the state went in: `ber`, VM state over BER, or `qemu`, QEMU's stream. `None` if nobody says it: a machine of
    /// ours writes files in both, and agrees on it with nobody.
    #[must_use]
    pub fn stream(&self) -> Option<&'static str> {
        let ours = self.source.program.starts_with("vmstate");
        let one_way = ["file:", "exec:", "fd:"]
            .iter()
            .any(|p| self.uri.starts_with(p));
        match &self.negotiation {
            Some(told) if told["refused"] == false => Some("ber"),
            Some(_) => None,
            None if ours && (one_way || self.outcome != Outcome::Completed) => None,
            None => Some("qemu"),
        }
    }

    /// As `docs/migrate-json.md` says.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let info = &self.info;
        let ram = info.ram.as_ref().map(|ram| {
            json!({
                "transferred": ram.transferred,
                "total": ram.total,
                "remaining": ram.remaining,
                "page_size": ram.page_size,
                "normal_pages": ram.normal,
                "zero_pages": ram.duplicate,
                "precopy_bytes": ram.precopy_bytes,
                "downtime_bytes": ram.downtime_bytes,
                "postcopy_bytes": ram.postcopy_bytes,
                "multifd_bytes": ram.multifd_bytes,
                "dirty_rate": ram.dirty_pages_rate.saturating_mul(ram.page_size),
            })
        });
        let requests = info.ram.as_ref().map_or(0, |ram| ram.postcopy_requests);
        let postcopy = self.postcopy.map(|started| {
            json!({
                "started_ms": u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
                "requests": requests,
                "recoveries": self.recoveries,
            })
        });
        json!({
            "format": "vmstate-migrate/1",
            "outcome": self.outcome,
            "success": self.is_success(),
            "error": self.error(),
            "advice": self.advice(),
            "uri": self.uri,
            "source": self.source,
            "destination": self.destination,
            "total_time_ms": info.total_time,
            "downtime_ms": info.downtime,
            "setup_time_ms": info.setup_time,
            "passes": self.passes,
            "throughput": self.throughput,
            "ram": ram,
            "postcopy": postcopy,
            "outlook": self.outlook,
            "stream": self.stream(),
            "negotiation": self.negotiation,
            "adapted": self.adapted,
            "query_migrate": info,
        })
    }

    /// Bytes per second: what was sent by the time that there was for it, without setup.
    pub(super) fn rate(info: &MigrationInfo) -> u64 {
        let sent = info.ram.as_ref().map_or(0, |ram| ram.transferred);
        let setup = info.setup_time.unwrap_or(0);
        let time = info.total_time.unwrap_or(0).saturating_sub(setup);
        match time {
            0 => sent.saturating_mul(1000),
            time => sent.saturating_mul(1000) / time,
        }
    }
}

/// What a program calls itself. Ours says it in its package.
pub(super) fn program(version: &Version) -> String {
    let number = &version.qemu;
    let number = format!("{}.{}.{}", number.major, number.minor, number.micro);
    if version.package.starts_with("vmstate") {
        format!("{} (as QEMU {number})", version.package)
    } else {
        format!("QEMU {number}")
    }
}
