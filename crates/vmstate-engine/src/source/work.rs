//! The worker's dialogue with the source.

use std::time::Duration;

use super::phase::{Input, OutOfTurn, Phase};
use super::{Gauge, Source};
use crate::handlers::Pending;
use crate::machine::{RunState, RunToken, StoppedGuest};
use crate::settings::Capability;
use crate::status::MigrationStatus;

/// How long to wait between two looks at failover devices.
const UNPLUG_POLL: Duration = Duration::from_millis(250);

/// The longest that one iteration takes.
const ITERATION: Duration = Duration::from_millis(50);

/// What the worker does next. "Lock" is the VMM's big lock.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// [`Registry::save_prepare`](crate::Registry::save_prepare), with the lock. Part of the command `migrate`: whoever executes that does this
    /// work before it answers. → [`Outcome::Done`], [`Outcome::Failed`].
    Prepare,
    /// Connect all channels, without the lock. Ends early after [`Notice::ShutDown`]. → [`Outcome::Connected`],
    /// [`Outcome::Failed`].
    Connect,
    /// [`Outgoing::begin`](crate::Outgoing::begin), without the lock.
    /// → [`Outcome::Done`], [`Outcome::Failed`].
    Begin,
    /// [`Outgoing::setup`](crate::Outgoing::setup), with the lock. → [`Outcome::Done`] or [`Outcome::Unplug`] (if a device waits),
    /// [`Outcome::Failed`].
    SetUp,
    /// Ask [`Machine::unplug_pending`](crate::Machine::unplug_pending). → [`Outcome::Done`] or [`Outcome::Unplug`].
    PollUnplug,
    /// [`Outgoing::estimate`](crate::Outgoing::estimate), without the lock. → [`Outcome::Pending`].
    Estimate,
    /// [`Outgoing::exact`](crate::Outgoing::exact), without the lock. → [`Outcome::Pending`], [`Outcome::Failed`].
    Exact,
    /// [`Outgoing::iterate`](crate::Outgoing::iterate), without the lock. [`rate_exceeded`](crate::SectionWriter::rate_exceeded) must become true
    /// when `budget` bytes have been appended to all channels from now on, and at the time `until`.
    /// → [`Outcome::Iterated`], [`Outcome::Failed`].
    Iterate {
        /// Bytes; none is no limit.
        budget: Option<u64>,
        /// When to return at the latest.
        until: Duration,
    },
    /// [`Machine::stop`](crate::Machine::stop) with `finish-migrate`, with the lock. Keep the lock for the work that
    /// follows, unless that is a wait. → [`Outcome::Stopped`], [`Outcome::Failed`].
    Stop,
    /// With the lock held all the time: let go of disks, [`Outgoing::complete`](crate::Outgoing::complete): what is left of every section, all
    /// devices, the PING [`CONFIRM`](super::CONFIRM) if there is a way back; flush. → [`Outcome::Done`],
    /// [`Outcome::Failed`].
    Complete,
    /// [`Outgoing::commit`](crate::Outgoing::commit): write and flush the end-of-stream mark. Nobody can take this back. → [`Outcome::Done`],
    /// [`Outcome::NotSent`], [`Outcome::Failed`].
    Commit,
    /// Connect the channel for requested pages, if the capability `postcopy-preempt` is on;
    /// [`Outgoing::postcopy_prepare`](crate::Outgoing::postcopy_prepare), without the lock. The guest still runs.
    /// → [`Outcome::Done`], [`Outcome::Failed`].
    PostcopyPrepare,
    /// With the lock held all the time: let go of disks, [`Outgoing::package`](crate::Outgoing::package): all that the guest
    /// needs to run at the destination, but for the last byte. → [`Outcome::Done`], [`Outcome::Failed`].
    Package,
    /// [`Outgoing::hand_over`](crate::Outgoing::hand_over): write and flush that byte. Nobody can take this back.
    /// → [`Outcome::Done`], [`Outcome::NotSent`], [`Outcome::Failed`].
    HandOver,
    /// [`Outgoing::complete_postcopy`](crate::Outgoing::complete_postcopy), with the lock: the ends of all sections and the
    /// end-of-stream mark. → [`Outcome::Done`], [`Outcome::Failed`].
    CompletePostcopy,
    /// Close all channels and end their threads, so that nothing more of them is heard. The migration goes on later, over
    /// others. → [`Outcome::Done`].
    Disconnect,
    /// Connect the main channel again. Ends early after [`Notice::ShutDown`]. → [`Outcome::Done`], [`Outcome::Failed`].
    Reconnect,
    /// [`Outgoing::recover`](crate::Outgoing::recover), without the lock: find out what the destination has, connect the channel
    /// for requested pages if there was one, and tell the destination to go on. → [`Outcome::Done`], [`Outcome::Failed`].
    Recover,
    /// [`Outgoing::trailer`](crate::Outgoing::trailer): write and flush the description trailer. → [`Outcome::Done`], [`Outcome::Failed`].
    Trailer,
    /// [`Machine::start`](crate::Machine::start) with these, with the lock, after taking disks back.
    /// → [`Outcome::Done`].
    Resume {
        /// The right to run the guest.
        token: RunToken,
        /// What the machine did before.
        state: RunState,
    },
    /// [`Machine::migrated`](crate::Machine::migrated), with the lock. The guest runs here no more.
    /// → [`Outcome::Done`].
    Depart,
    /// [`Registry::save_cleanup`](crate::Registry::save_cleanup) with the lock; end threads, close channels. → [`Outcome::Done`].
    CleanUp,
    /// Nothing, until something else happens or this time has come; then ask again. No outcome.
    Wait {
        /// When to ask again at the latest; none: only when something has happened.
        until: Option<Duration>,
    },
    /// The migration is over; there is no more work until the next command. No outcome.
    Rest,
}

/// How the worker's work went.
#[derive(Debug)]
pub enum Outcome {
    /// Done.
    Done,
    /// Connected.
    Connected {
        /// Whether the destination can answer on what was connected, and shall.
        return_path: bool,
    },
    /// A device waits for its guest to let go of it.
    Unplug,
    /// What is left.
    Pending(Pending),
    /// One walk over the handlers is done.
    Iterated,
    /// The guest is stopped.
    Stopped(StoppedGuest),
    /// It failed, for this reason.
    Failed(String),
    /// [`Work::Commit`] or [`Work::HandOver`] failed, for this reason, and the last byte has certainly not reached the
    /// transport.
    NotSent(String),
}

/// What else happens, for whoever called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The status changed. With the capability `events`, QEMU's event `MIGRATION`.
    Status(MigrationStatus),
    /// A round begins. With the capability `events`, QEMU's event `MIGRATION_PASS`.
    Pass(u64),
    /// Shut down all channels, so that whatever waits for them returns. Their return path still delivers what has
    /// arrived, then its end.
    ShutDown,
    /// [`Machine::throttle`](crate::Machine::throttle).
    Throttle(u8),
}

impl Source {
    /// What the worker does next. Taking it is a promise to answer with [`done`](Self::done), except for
    /// [`Work::Wait`] and [`Work::Rest`].
    pub fn work(&mut self, now: Duration, gauge: Gauge) -> Work {
        self.gauge = gauge;
        if self.core.is_busy() {
            // A second worker, or one that forgot to answer.
            return Work::Wait { until: None };
        }
        if self.core.waits() {
            return match self.core.phase() {
                Phase::Idle | Phase::Unknown => Work::Rest,
                _ => Work::Wait { until: None },
            };
        }
        if let Some(until) = self.must_wait(now, gauge) {
            return Work::Wait { until: Some(until) };
        }
        if self.core.step(Input::Taken).is_err() {
            return Work::Rest;
        }
        if self.core.is_lost() {
            return Work::Disconnect;
        }
        match self.core.phase() {
            Phase::Preparing => Work::Prepare,
            Phase::Connecting => Work::Connect,
            Phase::Beginning => Work::Begin,
            Phase::SettingUp => Work::SetUp,
            Phase::Unplugging => Work::PollUnplug,
            Phase::Precopy => self.rounds.next(now, gauge, ITERATION, &self.settings),
            Phase::Stopping => Work::Stop,
            Phase::Completing => Work::Complete,
            Phase::Committing => Work::Commit,
            Phase::Trailing => Work::Trailer,
            Phase::PostcopyPreparing => Work::PostcopyPrepare,
            Phase::Packaging => Work::Package,
            Phase::HandingOver => Work::HandOver,
            Phase::Postcopy => self
                .rounds
                .next_in_postcopy(now, gauge, ITERATION, &self.settings),
            Phase::PostcopyCompleting => Work::CompletePostcopy,
            Phase::Reconnecting => Work::Reconnect,
            Phase::Recovering => Work::Recover,
            Phase::Departing => {
                if !self.core.keeps_the_right()
                    && let Some(guest) = self.guest.take()
                {
                    guest.token.surrender();
                }
                Work::Depart
            }
            Phase::Resuming => match self.guest.take() {
                Some(guest) => Work::Resume {
                    token: guest.token,
                    state: guest.was,
                },
                // Without a guest there is nothing to resume: the cleanup does for both.
                None => Work::CleanUp,
            },
            Phase::CleaningUp => Work::CleanUp,
            Phase::Idle
            | Phase::PreSwitchover
            | Phase::Confirming
            | Phase::Paused
            | Phase::AwaitingResume
            | Phase::AwaitingShut
            | Phase::Unknown => Work::Rest,
        }
    }

    /// Until when the worker has to wait although its phase has work.
    fn must_wait(&mut self, now: Duration, gauge: Gauge) -> Option<Duration> {
        if self.core.abort().is_some() || self.core.is_lost() {
            return None;
        }
        match self.core.phase() {
            Phase::Postcopy => self.rounds.pause_in_postcopy(now, gauge, &self.settings),
            Phase::Precopy => self.rounds.pause(now, gauge, &self.settings),
            Phase::Unplugging => self.rounds.not_before(now),
            _ => None,
        }
    }

    /// How the work went.
    ///
    /// # Errors
    ///
    /// [`OutOfTurn`] if there is no work, or this cannot come of it. Nothing changes then, and the worker still owes its answer.
    pub fn done(&mut self, now: Duration, outcome: Outcome, gauge: Gauge) -> Result<(), OutOfTurn> {
        self.gauge = gauge;
        let phase = self.core.phase();
        if !self.core.is_busy() {
            return self.step(now, Input::Done);
        }
        match outcome {
            Outcome::Done => {
                let more = matches!(
                    phase,
                    Phase::Connecting | Phase::Precopy | Phase::Stopping | Phase::Postcopy
                );
                self.expect(phase, Input::Done, !more || self.core.is_lost())?;
                self.step(now, Input::Done)
            }
            Outcome::Connected { return_path } => {
                self.expect(phase, Input::Done, phase == Phase::Connecting)?;
                self.core.set_return_path(return_path);
                self.step(now, Input::Done)
            }
            Outcome::Unplug => {
                let right = matches!(phase, Phase::SettingUp | Phase::Unplugging);
                self.expect(phase, Input::Again, right)?;
                self.step(now, Input::Again)?;
                self.rounds.wait_until(now.saturating_add(UNPLUG_POLL));
                Ok(())
            }
            Outcome::Pending(pending) if phase == Phase::Postcopy => {
                let all_sent = self.rounds.counted_in_postcopy(&pending);
                let over = all_sent && self.core.is_loaded();
                self.step(now, if over { Input::Done } else { Input::Again })
            }
            Outcome::Pending(pending) => {
                self.expect(phase, Input::Again, phase == Phase::Precopy)?;
                let verdict = self.rounds.counted(now, gauge, &pending, &self.settings);
                self.notices.extend(verdict.notices);
                let ready =
                    self.answered || !self.settings.capabilities.has(Capability::PostcopyPreempt);
                let switch = self.postcopy_wanted
                    && ready
                    && self.rounds.may_switch(gauge, &pending, &self.settings);
                self.step(
                    now,
                    if switch {
                        Input::Switch
                    } else if verdict.converged {
                        Input::Done
                    } else {
                        Input::Again
                    },
                )
            }
            Outcome::Iterated => {
                let right = matches!(phase, Phase::Precopy | Phase::Postcopy);
                self.expect(phase, Input::Again, right)?;
                self.rounds.iterated(now, gauge, &self.settings);
                self.step(now, Input::Again)
            }
            Outcome::Stopped(guest) => {
                self.expect(phase, Input::Done, phase == Phase::Stopping)?;
                self.guest = Some(guest);
                self.step(now, Input::Done)
            }
            Outcome::Failed(reason) => {
                self.blame(&reason);
                self.step(now, Input::Failed)
            }
            Outcome::NotSent(reason) => {
                self.blame(&reason);
                self.step(now, Input::NotSent)
            }
        }
    }

    fn expect(&self, phase: Phase, input: Input, right: bool) -> Result<(), OutOfTurn> {
        if right {
            Ok(())
        } else {
            Err(OutOfTurn { phase, input })
        }
    }
}
