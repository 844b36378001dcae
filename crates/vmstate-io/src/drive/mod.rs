//! Drives a migration between machines that have a monitor: stock QEMU's or ours.
//!
//! [`drive`] sets capabilities and parameters, has the destination wait, starts the migration, watches it to its end and
//! says how it went. What it sees on the way it tells a [`Watcher`]; a flag that somebody sets cancels.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//!
//! use vmstate_io::drive::{Outcome, Plan, Progress, Watcher, drive};
//! use vmstate_io::qmp::{QmpClient, Timeouts};
//!
//! struct Lines;
//!
//! impl Watcher for Lines {
//!     fn progress(&mut self, progress: &Progress) {
//!         println!("{}: {} bytes left", progress.status, progress.remaining);
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut source = QmpClient::connect(&"/run/source.qmp".parse()?, Timeouts::default())?;
//! let plan = Plan::new("tcp:192.0.2.7:4444");
//! let report = drive(&mut source, None, &plan, &AtomicBool::new(false), &mut Lines)?;
//! assert_eq!(report.outcome, Outcome::Completed);
//! # Ok(())
//! # }
//! ```

mod advice;
mod error;
mod forecast;
mod negotiation;
mod postcopy;
mod prepare;
mod report;
mod settings;
pub mod text;
mod track;
mod watch;

use std::time::Duration;

pub use advice::advice;
pub use error::{DriveError, Side};
pub use forecast::{Help, Outlook};
pub use postcopy::Postcopy;
pub use report::{Machine, Outcome, Report};
pub use track::Progress;
pub use watch::{Note, Watcher, drive};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where the source migrates to.
    pub uri: String,
    /// Where the destination listens, if that is written differently there.
    pub incoming_uri: Option<String>,
    /// Capabilities to switch on or off.
    pub capabilities: Vec<(String, bool)>,
    /// Parameters to set, values as people write them: numbers with `K`, `M`, `G`, `T` for powers of 1024, `on`, `off`.
    pub parameters: Vec<(String, String)>,
    /// Whether the guest may go before its memory, and when. Both machines are prepared for it, unless `capabilities` say
    /// otherwise.
    pub postcopy: Postcopy,
    /// Go on only if both machines speak VM state over BER.
    pub require_ber: bool,
    /// How often at most a connection that breaks after the guest has gone is replaced. The destination's monitor must be known.
    pub recoveries: u32,
    /// How often the source is asked how it goes.
    pub interval: Duration,
    /// How long machines may take to get into the state that they should be in after the end.
    pub patience: Duration,
}

impl Plan {
    /// A migration to this place, with everything else as the machines have it.
    #[must_use]
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            incoming_uri: None,
            capabilities: Vec::new(),
            parameters: Vec::new(),
            postcopy: Postcopy::Never,
            require_ber: false,
            recoveries: 16,
            interval: Duration::from_millis(100),
            patience: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests;
