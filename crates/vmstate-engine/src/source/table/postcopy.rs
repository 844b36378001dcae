//! The part of the table from the hand-over of a guest that goes before its memory.
//!
//! The guest's way back is closed as soon as the last byte of its package may be on its way. A connection that breaks from
//! there on is no failure of the migration: what was lost is found out and sent again after another one has been made.

use super::super::phase::{Abort, Input, Phase, Right, Word};
use super::Core;

impl Core {
    /// Whether the guest is going, or has gone, before its memory.
    #[must_use]
    pub const fn is_postcopy(&self) -> bool {
        self.postcopy
    }

    /// Whether the destination has loaded all devices, and starts the guest.
    #[must_use]
    pub const fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Whether the worker is to close all channels before anything else.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the worker is closing them.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether the destination may have been told to run the guest, and the migration goes on for the sake of its memory.
    #[must_use]
    pub const fn is_handed_over(&self) -> bool {
        self.postcopy
            && matches!(
                self.phase,
                Phase::HandingOver
                    | Phase::Postcopy
                    | Phase::PostcopyCompleting
                    | Phase::AwaitingShut
                    | Phase::Paused
                    | Phase::Reconnecting
                    | Phase::Recovering
                    | Phase::AwaitingResume
            )
            && matches!(self.right, Right::InDoubt | Right::Destination)
    }

    /// Whether the worker has nothing to do before something comes from elsewhere.
    pub(in crate::source) const fn waits(&self) -> bool {
        self.phase.waits() && !self.lost
    }

    /// Whether `migrate-pause` means something: the migration has channels, and can do without. While devices are being loaded, it
    /// cannot: a destination whose source goes then gives the guest up.
    pub(super) const fn can_pause(&self) -> bool {
        !self.lost
            && self.postcopy
            && matches!(
                self.phase,
                Phase::Postcopy
                    | Phase::PostcopyCompleting
                    | Phase::AwaitingShut
                    | Phase::Recovering
                    | Phase::AwaitingResume
            )
            && (self.loaded || !matches!(self.phase, Phase::Postcopy))
    }

    /// Something that ends the use of the channels, or the destination's last word.
    pub(super) fn disturbed(&mut self, input: Input) {
        let completing = self.phase == Phase::PostcopyCompleting && self.busy && !self.closing;
        let last = self.sent || completing;
        if self.phase == Phase::Paused {
            // There are no channels that it could concern.
        } else if input == Input::ShutOk && last {
            self.word = Word::Taken;
            self.resolve_last_word();
        } else if !self.closing {
            self.lost = true;
        }
    }

    /// The destination has everything, if it has said so.
    fn resolve_last_word(&mut self) {
        let over = matches!(self.phase, Phase::AwaitingShut | Phase::Paused);
        if self.word == Word::Taken && over && !self.busy {
            self.lost = false;
            self.phase = Phase::Departing;
        }
    }

    /// The destination says that it has loaded the package. What it says before it can have read it is no word.
    pub(super) fn hear_loaded(&mut self) {
        let waits_for_it = matches!(self.phase, Phase::HandingOver | Phase::Postcopy);
        if waits_for_it && self.right == Right::InDoubt {
            self.loaded = true;
            // The worker may still come back with the news that nothing was sent.
            if self.phase != Phase::HandingOver {
                self.right = Right::Destination;
            }
        }
    }

    /// The destination goes on: so it runs the guest.
    pub(super) fn hear_resumed(&mut self) {
        match self.phase {
            Phase::Recovering if self.busy && !self.closing => self.resumed = true,
            Phase::AwaitingResume if !self.lost => self.go_on(),
            // Too early, or once more.
            _ => {}
        }
    }

    fn go_on(&mut self) {
        self.resumed = false;
        self.loaded = true;
        self.right = Right::Destination;
        self.follow(Input::Resumed);
    }

    /// The work of a phase from the hand-over on has ended; none for all other phases.
    pub(super) fn worked_in_postcopy(&mut self, input: Input) -> Option<bool> {
        if self.closing {
            self.closing = false;
            self.lost = false;
            self.resumed = false;
            let fits = matches!(input, Input::Done | Input::Failed);
            self.phase = Phase::Paused;
            if self.sent {
                self.resolve_last_word();
            }
            return Some(fits);
        }
        match (self.phase, input) {
            (Phase::HandingOver, Input::NotSent) => {
                self.right = Right::Migration;
                self.loaded = false;
                self.lost = false;
                self.abort = self.abort.or(Some(Abort::Failed));
                self.turn_back();
            }
            (Phase::HandingOver, Input::Done | Input::Failed) => {
                if self.loaded {
                    self.right = Right::Destination;
                }
                self.lost |= input == Input::Failed;
                self.follow(Input::Done);
            }
            (Phase::Postcopy | Phase::Reconnecting | Phase::Recovering, Input::Failed) => {
                self.lost = true;
            }
            // Not before the guest runs: what it needs for that may still be refused.
            (Phase::Postcopy, Input::Done) if !self.loaded && !self.lost => return Some(false),
            (Phase::Postcopy, Input::Done) if self.lost => {}
            (Phase::Recovering, Input::Done) => {
                self.follow(Input::Done);
                if self.resumed && !self.lost {
                    self.go_on();
                }
            }
            (Phase::PostcopyCompleting, Input::Done | Input::Failed) => {
                self.sent = input == Input::Done;
                if input == Input::Done || self.word == Word::Taken {
                    self.follow(Input::Done);
                    self.resolve_last_word();
                } else {
                    self.lost = true;
                }
            }
            _ => return None,
        }
        Some(true)
    }
}
