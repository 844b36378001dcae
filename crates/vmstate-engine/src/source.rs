//! The source: a pure state machine that says what to do next and hears how it went.
//!
//! [`Core`] is its table: everything that decides who may run the guest, small enough to be explored whole. [`Source`]
//! adds numbers, time and messages.
//!
//! ```text
//! Idle → Preparing → Connecting → Beginning → SettingUp → (Unplugging) → Precopy → Stopping → (PreSwitchover)
//!      → Completing → (Confirming) → Committing → Trailing → (AwaitingShut) → Departing → CleaningUp → Idle
//! ```
//!
//! Up to `Committing`, everything that fails and every cancel leads to `Resuming` (if the guest has been stopped) and
//! `CleaningUp`: the guest runs on here. In `Committing` the end-of-stream mark is written, which lets the destination
//! start the guest. From there on only the destination's word counts: SHUT 0 leads to `Departing`, anything else to
//! `Unknown`, where the guest stays stopped until somebody who knows says [`Source::resume_here`] or
//! [`Source::give_up`].
//!
//! Postcopy leaves that line where `migrate-start-postcopy` says so, for a guest that goes before its memory:
//!
//! ```text
//! Precopy → PostcopyPreparing → Stopping → (PreSwitchover) → Packaging → HandingOver → Postcopy → PostcopyCompleting
//!         → AwaitingShut → Departing → CleaningUp → Idle
//! from HandingOver on, whenever the connection breaks:  Paused → Reconnecting → Recovering → AwaitingResume → Postcopy
//! ```
//!
//! The last byte of the package, written in `HandingOver`, lets the destination start the guest. Nothing leads back from there
//! but [`Source::resume_here`], and that only as long as the destination has given no sign that it runs the guest.
//!
//! The wait in `Confirming` keeps that window short: a PING behind the last section is answered when the destination
//! has loaded everything, so that no device's refusal falls behind the mark. Stock QEMU answers it too.

mod approach;
mod command;
mod info;
mod phase;
mod rate;
mod rounds;
mod table;
#[cfg(test)]
mod tests;
mod throttle;
mod work;

use std::collections::VecDeque;
use std::time::Duration;

use vmstate_wire::stream::ReturnMessage;

pub use self::command::CommandError;
pub use self::phase::{Abort, Input, OutOfTurn, Phase, Right, Traits};
pub use self::rate::Gauge;
pub use self::table::{Core, ROWS};
pub use self::work::{Notice, Outcome, Work};

use self::rounds::Rounds;
use crate::machine::StoppedGuest;
use crate::settings::{MigrationParameters, Settings};
use crate::status::MigrationStatus;

/// Value of the PING behind the last section, whose PONG confirms that everything has been loaded.
pub const CONFIRM: u32 = 0x454f_463f;

/// Value of the PING in front of RUN, whose PONG says that the destination has loaded all devices of a postcopy migration
/// and starts the guest. QEMU 10.2 and later use the same.
pub const LOADED: u32 = 0x42;

/// Drives one machine's outgoing migrations, one after the other.
///
/// One thread, the worker, alternates between [`work`](Self::work) and [`done`](Self::done); the machine stands in a
/// lock so that others can bring what happens meanwhile: commands, messages of the return path, failures. After each call,
/// whoever made it takes the [`notice`](Self::notice)s and acts on them, and wakes the worker if that waits.
///
/// Time is the duration since any fixed moment, and never goes back.
#[derive(Debug)]
pub struct Source {
    core: Core,
    settings: Settings,
    guest: Option<StoppedGuest>,
    rounds: Rounds,
    /// Status of the last notice.
    shown: MigrationStatus,
    notices: VecDeque<Notice>,
    error: Option<String>,
    /// Somebody wants the guest to move before its memory.
    postcopy_wanted: bool,
    /// The destination has answered a PING: it reads.
    answered: bool,
    /// Pages that the destination has asked for.
    requests: u64,
    times: Times,
    /// Bytes and pages when the last piece of work had been done.
    gauge: Gauge,
}

/// When things happened.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    start: Duration,
    set_up: Option<Duration>,
    stopped: Option<Duration>,
    /// Everything that the guest needs to run at the destination has been written.
    handed_over: Option<Duration>,
    resumed: Option<Duration>,
    end: Option<Duration>,
}

impl Default for Source {
    fn default() -> Self {
        Self::new()
    }
}

impl Source {
    /// A source without a migration.
    #[must_use]
    pub fn new() -> Self {
        Self {
            core: Core::default(),
            settings: Settings::default(),
            guest: None,
            rounds: Rounds::new(Duration::ZERO, Gauge::default(), 0),
            shown: MigrationStatus::None,
            notices: VecDeque::new(),
            error: None,
            postcopy_wanted: false,
            answered: false,
            requests: 0,
            times: Times::default(),
            gauge: Gauge::default(),
        }
    }

    /// QEMU's word for what is going on.
    #[must_use]
    pub fn status(&self) -> MigrationStatus {
        self.core.status()
    }

    /// Where the source is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.core.phase()
    }

    /// Whether nobody on this side can know who runs the guest, and nothing goes on that would tell. It is stopped here; see
    /// [`resume_here`](Self::resume_here).
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match self.core.phase() {
            Phase::Unknown => true,
            Phase::Paused => self.core.right() == Right::InDoubt,
            _ => false,
        }
    }

    /// Whether [`resume_here`](Self::resume_here) is possible: the outcome is unknown, or everything went one way and nobody has said
    /// that it arrived.
    #[must_use]
    pub fn can_resume_here(&self) -> bool {
        self.core.can_resume_here()
    }

    /// Whether the status says already that the migration is over, while the worker still clears up behind it. What a client asks
    /// for next, having seen that status, should wait for it.
    #[must_use]
    pub fn is_clearing_up(&self) -> bool {
        self.core.phase() == Phase::CleaningUp && !self.status().is_running()
    }

    /// Whether a driver should end the migration with [`broken`](Self::broken) when nothing has moved for long: on its channels, or,
    /// where [`work`](Self::work) says to wait, at the destination, which keeps the guest standing still. `false` where it is
    /// legal that nothing moves: while waiting for the user, or for the destination's last word.
    #[must_use]
    pub fn expects_progress(&self) -> bool {
        !matches!(
            self.core.phase(),
            Phase::Idle
                | Phase::Preparing
                | Phase::Unplugging
                | Phase::PreSwitchover
                | Phase::Paused
                | Phase::AwaitingResume
                | Phase::AwaitingShut
                | Phase::Departing
                | Phase::Resuming
                | Phase::CleaningUp
                | Phase::Unknown
        )
    }

    /// The first error of the last migration. QEMU: `error-desc`.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What the migration goes by. Handlers get it in their contexts.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes the parameters of a migration that is running; at once where QEMU does.
    pub fn set_parameters(&mut self, parameters: MigrationParameters) {
        self.settings.parameters = parameters;
    }

    /// A message of the return path.
    pub fn message(&mut self, now: Duration, message: &ReturnMessage) {
        match message {
            ReturnMessage::Pong(value) => {
                self.answered = true;
                match *value {
                    CONFIRM => self.feed(now, Input::Confirm),
                    LOADED => self.feed(now, Input::Loaded),
                    _ => {}
                }
            }
            ReturnMessage::ReqPages { .. } | ReturnMessage::ReqPagesId { .. }
                if self.core.is_handed_over() =>
            {
                self.requests = self.requests.saturating_add(1);
            }
            ReturnMessage::RecvBitmap { .. } if self.core.phase() == Phase::Recovering => {}
            ReturnMessage::ResumeAck(_) if self.core.is_handed_over() => {
                self.feed(now, Input::Resumed);
            }
            ReturnMessage::Shut(0) => {
                self.blame("the destination says that it is done, before everything has been sent");
                self.feed(now, Input::ShutOk);
            }
            ReturnMessage::Shut(value) => {
                self.blame(&format!("the destination reports error {value}"));
                self.feed(now, Input::ShutError);
            }
            ReturnMessage::SwitchoverAck => {
                if let Err(reason) = self.rounds.acknowledged(&self.settings) {
                    self.broken(now, reason);
                }
            }
            other => {
                let reason = format!("the destination sent {} outside of postcopy", other.id());
                self.broken(now, &reason);
            }
        }
    }

    /// The return path ended without SHUT, or carried something else than messages.
    pub fn return_path_ended(&mut self, now: Duration, reason: &str) {
        self.blame(reason);
        self.feed(now, Input::ReturnPathEnded);
    }

    /// Something else failed that the migration needs: a thread of another channel.
    pub fn broken(&mut self, now: Duration, reason: &str) {
        self.blame(reason);
        self.feed(now, Input::Broken);
    }

    /// What to do now besides the worker's work; none when all has been taken.
    pub fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Keeps an error, if it is the first and matters.
    fn blame(&mut self, reason: &str) {
        let cancelled = self.core.abort() == Some(Abort::Cancelled);
        if self.core.phase() != Phase::Idle && !cancelled && self.error.is_none() {
            self.error = Some(reason.to_owned());
        }
    }

    /// Moves on with an input that is legal in every phase.
    fn feed(&mut self, now: Duration, input: Input) {
        let _ = self.step(now, input);
    }

    /// Moves on and notes what that changed.
    fn step(&mut self, now: Duration, input: Input) -> Result<(), OutOfTurn> {
        let before = (self.core.phase(), self.core.abort());
        let was = self.core;
        self.core.step(input)?;
        let after = (self.core.phase(), self.core.abort());
        let cancels = input == Input::Cancel
            && !was.is_handed_over()
            && !matches!(before.0, Phase::Idle | Phase::Preparing);
        if before.1.is_none() && after.1.is_some()
            || !was.is_lost() && self.core.is_lost()
            || cancels
        {
            self.notices.push_back(Notice::ShutDown);
        }
        // Who has seen the guest run elsewhere keeps nothing with which it could run here.
        if self.core.is_postcopy()
            && self.core.right() == Right::Destination
            && let Some(guest) = self.guest.take()
        {
            guest.token.surrender();
        }
        if before.0 != Phase::Precopy && after.0 == Phase::Precopy {
            self.rounds.begin(now, self.gauge);
        }
        if before.0 != Phase::Postcopy && after.0 == Phase::Postcopy {
            self.rounds.begin_postcopy(now, self.gauge);
        }
        if before.0 == Phase::Precopy && after.0 != Phase::Precopy {
            self.rounds.ended();
            if self.throttles() {
                self.notices.push_back(Notice::Throttle(0));
            }
        }
        if after.0 == Phase::Unknown && before.0 != Phase::Unknown {
            let reason = self.error.take().unwrap_or_default();
            self.error = Some(format!(
                "it is unknown whether the guest runs at the destination, here it stays stopped: {reason}"
            ));
        }
        if after.0 == Phase::Paused && before.0 != Phase::Paused {
            let reason = self.error.take().unwrap_or_default();
            self.error = Some(match self.is_unknown() {
                true => format!(
                    "the connection is lost, it is unknown whether the guest runs at the destination, here it stays stopped: \
                     {reason}"
                ),
                false => format!(
                    "the connection is lost, the guest runs at the destination and waits for its memory: {reason}"
                ),
            });
        }
        self.note_times(now, before.0, after.0);
        self.note_status();
        Ok(())
    }

    fn note_times(&mut self, now: Duration, before: Phase, after: Phase) {
        if before == after {
            return;
        }
        match after {
            Phase::Precopy => {
                self.times.set_up.get_or_insert(now);
            }
            Phase::Stopping => {
                self.times.stopped.get_or_insert(now);
            }
            Phase::Postcopy => {
                self.times.handed_over.get_or_insert(now);
            }
            _ => {}
        }
        if before == Phase::Resuming {
            self.times.resumed.get_or_insert(now);
        }
        let over = matches!(after, Phase::Idle | Phase::Unknown)
            || self.core.status() == MigrationStatus::Completed;
        if over {
            self.times.end.get_or_insert(now);
        }
    }

    fn note_status(&mut self) {
        let status = self.core.status();
        if status != self.shown {
            self.shown = status;
            self.notices.push_back(Notice::Status(status));
            if status == MigrationStatus::Completed {
                self.error = None;
            }
        }
    }

    /// Whether vCPUs are throttled now.
    fn throttles(&self) -> bool {
        self.rounds.throttle_percent() != 0
    }
}
