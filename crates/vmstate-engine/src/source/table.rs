//! The source's table: what follows what, without numbers, errors or time.

mod postcopy;

use super::phase::{Abort, Input, OutOfTurn, Phase, Right, Traits, Word};
use crate::status::MigrationStatus;

/// The source without numbers: all that decides who may run the guest.
///
/// A copy is cheap, so a model can explore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact that the phase does not tell"
)]
pub struct Core {
    phase: Phase,
    /// The worker is at the phase's work.
    busy: bool,
    abort: Option<Abort>,
    right: Right,
    word: Word,
    /// The destination has confirmed everything before the worker was back from sending it.
    confirmed: bool,
    /// The guest was given up because everything has been written, and nobody has said that it arrived: it may have gone
    /// into a file.
    kept: bool,
    /// The guest goes, or has gone, before its memory.
    postcopy: bool,
    /// The destination has loaded all devices and starts the guest.
    loaded: bool,
    /// Postcopy: the channels are of no more use and have to be closed.
    lost: bool,
    /// The worker is closing them.
    closing: bool,
    /// The destination goes on, before the worker was back from telling it to.
    resumed: bool,
    /// Postcopy: everything has been sent.
    sent: bool,
    /// Postcopy was given up with memory on both sides.
    torn: bool,
    /// `save_cleanup` has run since the last `migrate`.
    clean: bool,
    end: MigrationStatus,
    traits: Traits,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            busy: false,
            abort: None,
            right: Right::Machine,
            word: Word::Nothing,
            confirmed: false,
            kept: false,
            postcopy: false,
            loaded: false,
            lost: false,
            closing: false,
            resumed: false,
            sent: false,
            torn: false,
            clean: true,
            end: MigrationStatus::None,
            traits: Traits::default(),
        }
    }
}

/// The rows that hold when nothing goes wrong: phase, how its work ended, next phase.
///
/// `PreSwitchover` is left out without `pause-before-switchover`, `Confirming` and `AwaitingShut` without a return path. After
/// `PostcopyPreparing`, `Packaging` stands in the place of `Completing`. A connection that breaks after `HandingOver` leads to
/// `Paused` from everywhere.
pub const ROWS: &[(Phase, Input, Phase)] = &[
    (Phase::Idle, Input::Migrate, Phase::Preparing),
    (Phase::Preparing, Input::Done, Phase::Connecting),
    (Phase::Connecting, Input::Done, Phase::Beginning),
    (Phase::Beginning, Input::Done, Phase::SettingUp),
    (Phase::SettingUp, Input::Done, Phase::Precopy),
    (Phase::SettingUp, Input::Again, Phase::Unplugging),
    (Phase::Unplugging, Input::Again, Phase::Unplugging),
    (Phase::Unplugging, Input::Done, Phase::Precopy),
    (Phase::Precopy, Input::Again, Phase::Precopy),
    (Phase::Precopy, Input::Done, Phase::Stopping),
    (Phase::Precopy, Input::Switch, Phase::PostcopyPreparing),
    (Phase::PostcopyPreparing, Input::Done, Phase::Stopping),
    (Phase::Stopping, Input::Done, Phase::PreSwitchover),
    (Phase::PreSwitchover, Input::Continue, Phase::Completing),
    (Phase::Completing, Input::Done, Phase::Confirming),
    (Phase::Confirming, Input::Confirm, Phase::Committing),
    (Phase::Committing, Input::Done, Phase::Trailing),
    (Phase::Trailing, Input::Done, Phase::AwaitingShut),
    (Phase::Packaging, Input::Done, Phase::HandingOver),
    (Phase::HandingOver, Input::Done, Phase::Postcopy),
    (Phase::Postcopy, Input::Again, Phase::Postcopy),
    (Phase::Postcopy, Input::Done, Phase::PostcopyCompleting),
    (Phase::PostcopyCompleting, Input::Done, Phase::AwaitingShut),
    (Phase::Paused, Input::Recover, Phase::Reconnecting),
    (Phase::Reconnecting, Input::Done, Phase::Recovering),
    (Phase::Recovering, Input::Done, Phase::AwaitingResume),
    (Phase::AwaitingResume, Input::Resumed, Phase::Postcopy),
    (Phase::AwaitingShut, Input::ShutOk, Phase::Departing),
    (Phase::Departing, Input::Done, Phase::CleaningUp),
    (Phase::Resuming, Input::Done, Phase::CleaningUp),
    (Phase::CleaningUp, Input::Done, Phase::Idle),
];

impl Core {
    /// A source without a migration; the next one will be like this.
    #[must_use]
    pub fn new(traits: Traits) -> Self {
        Self {
            traits,
            ..Self::default()
        }
    }

    /// Sets what the next migration is like; nothing while one is running.
    pub fn set_traits(&mut self, traits: Traits) {
        if self.phase == Phase::Idle {
            self.traits = traits;
        }
    }

    /// Whether there turned out to be a way back, once connected.
    pub(super) fn set_return_path(&mut self, return_path: bool) {
        self.traits.return_path = return_path;
    }

    /// What the migration is like.
    #[must_use]
    pub const fn traits(&self) -> Traits {
        self.traits
    }

    /// Where the source is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the worker is at the phase's work.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether the migration is being given up.
    #[must_use]
    pub const fn abort(&self) -> Option<Abort> {
        self.abort
    }

    /// Where the right to run the guest is.
    #[must_use]
    pub const fn right(&self) -> Right {
        self.right
    }

    /// QEMU's word for all this.
    #[must_use]
    pub const fn status(&self) -> MigrationStatus {
        match (self.phase, self.abort) {
            (Phase::Idle | Phase::Preparing | Phase::Unknown, _) => self.end,
            // A decision after the end.
            (Phase::Resuming | Phase::Departing, _) if self.clean => self.end,
            (Phase::CleaningUp, _) if matches!(self.right, Right::Destination) && !self.torn => {
                MigrationStatus::Completed
            }
            (_, Some(Abort::Cancelled)) => MigrationStatus::Cancelling,
            (_, Some(Abort::Failed)) | (Phase::Resuming | Phase::CleaningUp, None) => {
                MigrationStatus::Failing
            }
            (Phase::Connecting | Phase::Beginning | Phase::SettingUp, None) => {
                MigrationStatus::Setup
            }
            (Phase::Unplugging, None) => MigrationStatus::WaitUnplug,
            (Phase::Precopy | Phase::PostcopyPreparing | Phase::Stopping, None) => {
                MigrationStatus::Active
            }
            (Phase::Paused, None) => MigrationStatus::PostcopyPaused,
            (Phase::Reconnecting, None) => MigrationStatus::PostcopyRecoverSetup,
            (Phase::Recovering | Phase::AwaitingResume, None) => MigrationStatus::PostcopyRecover,
            (Phase::Departing, None) if self.postcopy && !matches!(self.word, Word::Taken) => {
                MigrationStatus::PostcopyPaused
            }
            (
                Phase::Postcopy
                | Phase::PostcopyCompleting
                | Phase::AwaitingShut
                | Phase::Departing,
                None,
            ) if self.postcopy => {
                if self.loaded {
                    MigrationStatus::PostcopyActive
                } else {
                    MigrationStatus::PostcopyDevice
                }
            }
            (Phase::PreSwitchover, None) => MigrationStatus::PreSwitchover,
            (
                Phase::Completing
                | Phase::Confirming
                | Phase::Committing
                | Phase::Trailing
                | Phase::Packaging
                | Phase::HandingOver
                | Phase::Postcopy
                | Phase::PostcopyCompleting
                | Phase::AwaitingShut
                | Phase::Departing,
                None,
            ) => MigrationStatus::Device,
        }
    }

    /// Moves on.
    ///
    /// # Errors
    ///
    /// [`OutOfTurn`] if `input` cannot happen now; nothing changes then.
    pub fn step(&mut self, input: Input) -> Result<(), OutOfTurn> {
        let refused = Err(OutOfTurn {
            phase: self.phase,
            input,
        });
        match input {
            Input::Taken if !self.busy && !self.waits() => {
                self.busy = true;
                self.closing = self.lost;
                if matches!(self.phase, Phase::Committing | Phase::HandingOver) {
                    self.right = Right::InDoubt;
                }
            }
            Input::Done | Input::Failed | Input::NotSent | Input::Again | Input::Switch
                if self.busy =>
            {
                let mut next = *self;
                next.busy = false;
                if !next.worked(input) {
                    return refused;
                }
                *self = next;
            }
            Input::Migrate if self.phase == Phase::Idle && self.right == Right::Machine => {
                *self = Self {
                    phase: Phase::Preparing,
                    clean: false,
                    end: self.end,
                    ..Self::new(self.traits)
                };
            }
            Input::Continue if self.phase == Phase::PreSwitchover => {
                self.follow(Input::Continue);
            }
            Input::Confirm if self.phase == Phase::Confirming => self.follow(Input::Confirm),
            // The question is the last thing that this work sends: the answer may be faster than the worker.
            Input::Confirm if self.phase == Phase::Completing && self.busy => self.confirmed = true,
            // Too early, or once more: a peer may answer whenever it likes, it only moves what waits for it.
            Input::Confirm => {}
            Input::Cancel if self.can_turn_back() => self.abandon(Abort::Cancelled),
            // Too late, except for the waiting.
            Input::Cancel if self.phase == Phase::AwaitingShut && !self.postcopy => {
                self.hear(Word::Ended);
            }
            Input::Cancel => {}
            // Nothing has been handed over yet: a peer that says it has the guest lies.
            Input::Broken | Input::ShutOk | Input::ShutError | Input::ReturnPathEnded
                if self.can_turn_back() =>
            {
                self.abandon(Abort::Failed);
            }
            Input::Broken | Input::ShutOk | Input::ShutError | Input::ReturnPathEnded
                if self.is_handed_over() =>
            {
                self.disturbed(input);
            }
            Input::Loaded => self.hear_loaded(),
            Input::Resumed => self.hear_resumed(),
            Input::Pause if self.can_pause() => self.lost = true,
            Input::Recover if self.phase == Phase::Paused => {
                self.sent = false;
                self.follow(Input::Recover);
            }
            Input::Broken => {}
            Input::ShutOk => self.hear(Word::Taken),
            Input::ShutError => self.hear(Word::Refused),
            Input::ReturnPathEnded => self.hear(Word::Ended),
            Input::ResumeHere if self.can_resume_here() => {
                self.kept = false;
                self.right = Right::Migration;
                if self.phase == Phase::Paused {
                    self.abort = Some(Abort::Failed);
                }
                self.phase = Phase::Resuming;
            }
            Input::GiveUp if self.phase == Phase::Unknown => self.phase = Phase::Departing,
            Input::GiveUp if self.phase == Phase::Paused => {
                self.torn = !self.sent;
                self.phase = Phase::Departing;
            }
            _ => return refused,
        }
        Ok(())
    }

    /// Whether giving up now leaves the guest here for certain.
    #[must_use]
    pub const fn can_turn_back(&self) -> bool {
        self.phase.before_commit() && !matches!(self.right, Right::InDoubt)
    }

    /// Whether somebody who knows better may say that the guest runs nowhere else: the outcome is unknown, or everything
    /// went one way and nobody has said that it arrived.
    #[must_use]
    pub const fn can_resume_here(&self) -> bool {
        match self.phase {
            Phase::Unknown => true,
            Phase::Idle => self.kept,
            // After a sign of the guest's life at the destination, only it can have the guest.
            Phase::Paused => matches!(self.right, Right::InDoubt),
            _ => false,
        }
    }

    /// Whether the right to run the guest is kept although it is given up, see [`can_resume_here`](Self::can_resume_here).
    pub(super) const fn keeps_the_right(&self) -> bool {
        self.kept
    }

    /// The work of the present phase has ended.
    fn worked(&mut self, input: Input) -> bool {
        if let Some(fits) = self.worked_in_postcopy(input) {
            return fits;
        }
        match (self.phase, input) {
            (Phase::Stopping, Input::Done) => {
                self.right = Right::Migration;
                self.advance(input);
            }
            // Refused by the command: nothing has happened that would have to be undone.
            (Phase::Preparing, Input::Failed) => {
                self.phase = Phase::Idle;
                self.clean = true;
            }
            (Phase::Committing, Input::NotSent) => {
                self.right = Right::Migration;
                self.abort = self.abort.or(Some(Abort::Failed));
                self.turn_back();
            }
            (Phase::Committing, Input::Failed) => self.in_doubt(false),
            (Phase::Trailing, Input::Done | Input::Failed) => self.in_doubt(input == Input::Done),
            (Phase::Departing, Input::Done) => {
                self.right = Right::Destination;
                self.finish();
            }
            (Phase::Resuming, Input::Done) => {
                self.right = Right::Machine;
                self.finish();
            }
            (Phase::CleaningUp, Input::Done) => {
                self.clean = true;
                self.finish();
            }
            (_, Input::Failed) if self.can_turn_back() => {
                self.abort = self.abort.or(Some(Abort::Failed));
                self.turn_back();
            }
            (_, Input::Done | Input::Again | Input::Switch)
                if ROWS
                    .iter()
                    .any(|(at, on, _)| (*at, *on) == (self.phase, input)) =>
            {
                self.advance(input);
            }
            _ => return false,
        }
        true
    }

    /// Goes to the next phase, or back if the migration is being given up.
    fn advance(&mut self, input: Input) {
        if self.abort.is_some() && self.can_turn_back() {
            self.turn_back();
        } else {
            self.follow(input);
        }
    }

    /// Goes where the rows say, past the phases that this migration does not have.
    fn follow(&mut self, input: Input) {
        let to = ROWS
            .iter()
            .find(|(at, on, _)| (*at, *on) == (self.phase, input))
            .map_or(self.phase, |(_, _, to)| *to);
        self.postcopy |= to == Phase::PostcopyPreparing;
        self.phase = match to {
            Phase::PreSwitchover if !self.traits.pause && self.postcopy => Phase::Packaging,
            Phase::PreSwitchover if !self.traits.pause => Phase::Completing,
            Phase::Completing if self.postcopy => Phase::Packaging,
            Phase::Confirming if self.confirmed || !self.traits.return_path => Phase::Committing,
            other => other,
        };
    }

    /// Gives the migration up, as soon as the worker is back.
    fn abandon(&mut self, why: Abort) {
        self.abort = self.abort.or(Some(why));
        if !self.busy {
            self.turn_back();
        }
    }

    /// Hears the destination's last word. That it has the guest counts whenever it comes; of the others, the first.
    fn hear(&mut self, word: Word) {
        if self.right != Right::InDoubt
            || self.postcopy
            || self.word == Word::Taken
            || (self.word != Word::Nothing && word != Word::Taken)
        {
            return;
        }
        self.word = word;
        match self.phase {
            Phase::AwaitingShut => self.resolve(),
            Phase::Unknown if word == Word::Taken => self.phase = Phase::Departing,
            _ => {}
        }
    }

    fn turn_back(&mut self) {
        self.phase = match self.right {
            Right::Migration => Phase::Resuming,
            _ => Phase::CleaningUp,
        };
    }

    /// The end-of-stream mark may be out, and there is nothing left to write.
    fn in_doubt(&mut self, all_written: bool) {
        if self.traits.return_path {
            self.phase = Phase::AwaitingShut;
            self.resolve();
        } else if all_written {
            self.kept = true;
            self.phase = Phase::Departing;
        } else {
            self.give_way();
        }
    }

    /// Acts on the destination's last word, if there is one.
    fn resolve(&mut self) {
        match self.word {
            Word::Nothing => {}
            Word::Taken => self.phase = Phase::Departing,
            Word::Refused if self.traits.refusal_is_proof => {
                self.right = Right::Migration;
                self.abort = Some(Abort::Failed);
                self.phase = Phase::Resuming;
            }
            Word::Refused | Word::Ended => self.give_way(),
        }
    }

    fn give_way(&mut self) {
        self.abort = Some(Abort::Failed);
        self.phase = Phase::CleaningUp;
    }

    /// After a guest has found its place, or after the cleanup.
    fn finish(&mut self) {
        if !self.clean {
            self.phase = Phase::CleaningUp;
            return;
        }
        self.phase = Phase::Idle;
        self.end = match (self.right, self.abort) {
            (Right::Destination, _) if self.torn => MigrationStatus::Failed,
            (Right::Destination, _) => MigrationStatus::Completed,
            (Right::InDoubt, _) => {
                self.phase = match self.word {
                    Word::Taken => Phase::Departing,
                    _ => Phase::Unknown,
                };
                MigrationStatus::Failed
            }
            (_, Some(Abort::Cancelled)) => MigrationStatus::Cancelled,
            // It had gone well: the guest runs here once more because somebody said so.
            (_, None) if matches!(self.end, MigrationStatus::Completed) => self.end,
            _ => MigrationStatus::Failed,
        };
    }
}
