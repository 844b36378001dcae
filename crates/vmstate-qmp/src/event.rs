//! Events of a machine that migrates.

use serde_json::{Map, Value, json};

use crate::message::{Event, Timestamp};
use crate::migration::MigrationStatus;

/// What an event tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MachineEvent {
    /// `MIGRATION`: the status of the migration has changed.
    Migration(MigrationStatus),
    /// `MIGRATION_PASS`: a round over memory begins, with its number.
    MigrationPass(u64),
    /// `STOP`: the guest's processors have stopped.
    Stop,
    /// `RESUME`: they run again.
    Resume,
    /// `SHUTDOWN`: the machine ends.
    Shutdown {
        /// Whether the guest wanted it.
        guest: bool,
        /// Why, in QEMU's words: `host-qmp-quit`, `host-signal`, `guest-shutdown` and others.
        reason: &'static str,
    },
}

impl MachineEvent {
    /// As a message.
    #[must_use]
    pub fn at(&self, timestamp: Timestamp) -> Event {
        let (name, data) = match self {
            Self::Migration(status) => ("MIGRATION", Some(("status", json!(status)))),
            Self::MigrationPass(pass) => ("MIGRATION_PASS", Some(("pass", json!(pass)))),
            Self::Stop => ("STOP", None),
            Self::Resume => ("RESUME", None),
            Self::Shutdown { guest, reason } => {
                let data = [("guest", json!(guest)), ("reason", json!(reason))];
                return event("SHUTDOWN", timestamp, Some(members(data)));
            }
        };
        event(name, timestamp, data.map(|data| members([data])))
    }
}

fn event(name: &str, timestamp: Timestamp, data: Option<Map<String, Value>>) -> Event {
    Event {
        timestamp,
        name: name.to_owned(),
        data,
    }
}

fn members<const N: usize>(list: [(&str, Value); N]) -> Map<String, Value> {
    list.map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_line;

    #[test]
    fn events_are_qemus() {
        let line = |event: MachineEvent| {
            let timestamp = Timestamp {
                seconds: 1,
                microseconds: 2,
            };
            String::from_utf8(event_line(&event.at(timestamp))).unwrap()
        };
        let time = r#"{"timestamp":{"seconds":1,"microseconds":2},"#;
        for (event, rest) in [
            (MachineEvent::Stop, r#""event":"STOP"}"#),
            (MachineEvent::Resume, r#""event":"RESUME"}"#),
            (
                MachineEvent::Migration(MigrationStatus::DEVICE),
                r#""event":"MIGRATION","data":{"status":"device"}}"#,
            ),
            (
                MachineEvent::MigrationPass(3),
                r#""event":"MIGRATION_PASS","data":{"pass":3}}"#,
            ),
            (
                MachineEvent::Shutdown {
                    guest: false,
                    reason: "host-qmp-quit",
                },
                r#""event":"SHUTDOWN","data":{"guest":false,"reason":"host-qmp-quit"}}"#,
            ),
        ] {
            assert_eq!(line(event), format!("{time}{rest}\r\n"));
        }
    }
}
