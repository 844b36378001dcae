mod commands;
mod loop_;
mod postcopy;
mod transitions;

use std::time::Duration;

use super::*;
use crate::handlers::Pending;
use crate::info::MigrationInfo;
use crate::machine::{RunState, RunToken};
use crate::ram::RamTotals;
use crate::settings::{Capabilities, Capability, Settings};

/// A source, a clock and what has been noted.
struct Run {
    source: Source,
    now: Duration,
    gauge: Gauge,
    notices: Vec<Notice>,
}

impl Run {
    fn new(capabilities: &[Capability]) -> Self {
        Self::with(|settings| settings.capabilities = Capabilities::of(capabilities))
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let mut run = Self {
            source: Source::new(),
            now: Duration::from_secs(100),
            gauge: Gauge {
                running: true,
                ..Gauge::default()
            },
            notices: Vec::new(),
        };
        run.source
            .migrate(run.now, settings, RunState::Running, &[], false)
            .unwrap();
        run
    }

    fn work(&mut self) -> Work {
        self.source.work(self.now, self.gauge)
    }

    fn done(&mut self, outcome: Outcome) {
        self.source.done(self.now, outcome, self.gauge).unwrap();
        self.note();
    }

    fn note(&mut self) {
        while let Some(notice) = self.source.notice() {
            self.notices.push(notice);
        }
    }

    /// Does the next work, which must be `expected`, well.
    #[track_caller]
    fn expect(&mut self, expected: &Work, outcome: Outcome) {
        assert_eq!(self.work(), *expected);
        self.done(outcome);
    }

    /// Up to the first query.
    fn set_up(&mut self, return_path: bool) {
        self.expect(&Work::Prepare, Outcome::Done);
        self.expect(&Work::Connect, Outcome::Connected { return_path });
        self.expect(&Work::Begin, Outcome::Done);
        self.expect(&Work::SetUp, Outcome::Done);
    }

    /// A guest with nothing left to send, up to the work that stops it.
    fn converge(&mut self) {
        self.expect(&Work::Estimate, Outcome::Pending(Pending::default()));
        self.expect(&Work::Exact, Outcome::Pending(Pending::default()));
    }

    fn stop(&mut self) {
        self.expect(
            &Work::Stop,
            Outcome::Stopped(StoppedGuest {
                was: RunState::Running,
                token: RunToken::new_guest(),
            }),
        );
    }

    #[track_caller]
    fn statuses(&self) -> Vec<&'static str> {
        self.notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Status(status) => Some(status.name()),
                _ => None,
            })
            .collect()
    }

    /// The guest is to run again, and everything is over.
    #[track_caller]
    fn resumes(&mut self, end: MigrationStatus) {
        let resume = Work::Resume {
            token: RunToken::new_guest(),
            state: RunState::Running,
        };
        self.expect(&resume, Outcome::Done);
        self.cleans_up(end);
    }

    #[track_caller]
    fn cleans_up(&mut self, end: MigrationStatus) {
        self.expect(&Work::CleanUp, Outcome::Done);
        assert_eq!((self.work(), self.source.status()), (Work::Rest, end));
    }
}
