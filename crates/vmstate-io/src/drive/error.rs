//! Why a migration was not begun.

use std::fmt;

use thiserror::Error;
use vmstate_qmp::QmpError;
use vmstate_qmp::address::AddressError;

use crate::qmp::QmpClientError;

/// One of the two machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the guest is.
    Source,
    /// Where it is to go.
    Destination,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

/// A migration that was not begun. Nothing has happened to the guest.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DriveError {
    /// A monitor that does not answer, or answers oddly.
    #[error("{side}: {error}")]
    Monitor {
        /// Whose.
        side: Side,
        /// What is wrong.
        #[source]
        error: QmpClientError,
    },
    /// The URI names no place.
    #[error("{0}")]
    Uri(#[from] AddressError),
    /// A capability that this release does not have.
    #[error("{side}: {machine} has no capability '{name}'")]
    UnknownCapability {
        /// On which side.
        side: Side,
        /// Name and version of the program.
        machine: String,
        /// The capability.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A parameter that this release does not have.
    #[error("{side}: {machine} has no parameter '{name}'")]
    UnknownParameter {
        /// On which side.
        side: Side,
        /// Name and version of the program.
        machine: String,
        /// The parameter.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A value that cannot be one of this parameter.
    #[error("parameter '{name}': expected {expected}, found '{value}'")]
    Value {
        /// The parameter.
        name: String,
        /// The value.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The machine refuses capabilities or parameters.
    #[error("{side}: {error}")]
    Settings {
        /// Which machine.
        side: Side,
        /// What it says.
        #[source]
        error: QmpError,
    },
    /// The destination does not wait for a migration that is still to be named.
    #[error("destination: its status is '{status}', it does not wait for a migration")]
    NotIncoming {
        /// Its run state.
        status: String,
    },
    /// The source waits for a migration itself.
    #[error("source: its status is 'inmigrate', it waits for a migration itself")]
    SourceIsIncoming,
    /// The source's guest has been migrated away.
    #[error("source: its status is 'postmigrate', its guest has been migrated away")]
    HasMoved {
        /// Whether it is a machine that keeps book of who has the right to run the guest.
        ours: bool,
    },
    /// The source has a migration under way.
    #[error("source: a migration is under way, its status is '{status}'")]
    UnderWay {
        /// Its status.
        status: String,
    },
    /// The two machines differ in what must be equal: the destination would refuse what comes.
    #[error(
        "the machines differ: {what} is {source_has} at the source, {destination_has} at the destination"
    )]
    Different {
        /// In what.
        what: &'static str,
        /// The source's.
        source_has: String,
        /// The destination's.
        destination_has: String,
    },
    /// The machine cannot be migrated at all now.
    #[error("source: cannot be migrated: {}", .reasons.join("; "))]
    Blocked {
        /// Why not.
        reasons: Vec<String>,
    },
    /// The machine refuses to begin.
    #[error("{side}: {error}")]
    Refused {
        /// Which machine.
        side: Side,
        /// What it says.
        #[source]
        error: QmpError,
    },
    /// The two machines cannot do together what one of them requires.
    #[error("{0}")]
    Incompatible(vmstate_negotiate::Report),
    /// The machine does not speak VM state over BER.
    #[error("{side}: {machine} does not speak VM state over BER")]
    NotOurs {
        /// Which machine.
        side: Side,
        /// Name and version of the program.
        machine: String,
    },
    /// This release cannot go there.
    #[error("{side}: {machine} does not know {scheme}: URIs")]
    Scheme {
        /// Which machine.
        side: Side,
        /// Name and version of the program.
        machine: String,
        /// The scheme.
        scheme: &'static str,
    },
}

impl DriveError {
    /// Whether a machine has said no, rather than that it could not be asked properly.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::HasMoved { .. }
                | Self::Different { .. }
                | Self::Blocked { .. }
                | Self::Refused { .. }
                | Self::Incompatible(_)
                | Self::NotOurs { .. }
        )
    }

    pub(super) const fn monitor(side: Side) -> impl Fn(QmpClientError) -> Self {
        move |error| Self::Monitor { side, error }
    }
}
