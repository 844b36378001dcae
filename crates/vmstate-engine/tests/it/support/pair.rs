//! Two machines and what is between them, on a virtual clock, in one thread.

use std::time::Duration;

use vmstate_engine::destination::{self, Destination, start_state};
use vmstate_engine::source::{Gauge, Notice, Outcome, Phase, Source, Work};
use vmstate_engine::{
    Bql, Incoming, LoadStep, Machine, Outgoing, RunState, RunToken, SectionWriter, Settings,
};
use vmstate_wire::stream::ReturnMessage;

use super::{Pipe, Toy, identity};

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The connection breaks after so many bytes of the source.
    pub(crate) cut: Option<u64>,
    /// The source's writes fail from there on; otherwise they seem to succeed, and nothing arrives.
    pub(crate) noticed: bool,
    /// The connection breaks when the destination has sent so many answers.
    pub(crate) answers: Option<usize>,
    /// The user cancels when the source takes its work for the n-th time.
    pub(crate) cancel: Option<usize>,
}

/// A migration from one toy to another.
pub(crate) struct Pair {
    pub(crate) here: Toy,
    pub(crate) there: Toy,
    pub(crate) source: Source,
    pub(crate) destination: Destination,
    pub(crate) notices: Vec<Notice>,
    settings: Settings,
    return_path: bool,
    fault: Fault,
    now: Duration,
    out: Pipe,
    input: Pipe,
    outgoing: Option<Outgoing>,
    incoming: Option<Incoming>,
    opened: bool,
    answers: Vec<ReturnMessage>,
    answered: usize,
    told: bool,
    /// How often the source has taken work.
    pub(crate) works: usize,
    /// Where records began.
    pub(crate) boundaries: Vec<u64>,
}

impl Pair {
    pub(crate) fn new(settings: Settings, return_path: bool, fault: Fault) -> Self {
        let here = Toy::new(Some(RunToken::new_guest()));
        let there = Toy::new(None);
        for _ in 0..20 {
            here.step();
        }
        let (out, input) = Pipe::pair(here.memory.clone(), there.memory.clone());
        {
            let mut channel = out.channel.lock().unwrap();
            channel.cut = fault.cut;
            channel.tells = fault.noticed;
        }
        let mut destination = Destination::new(true);
        destination.incoming().unwrap();
        Self {
            here,
            there,
            source: Source::new(),
            destination,
            notices: Vec::new(),
            settings,
            return_path,
            fault,
            now: Duration::from_secs(1),
            out,
            input,
            outgoing: None,
            incoming: None,
            opened: false,
            answers: Vec::new(),
            answered: 0,
            told: false,
            works: 0,
            boundaries: Vec::new(),
        }
    }

    /// Runs until nothing happens any more.
    pub(crate) fn run(&mut self) {
        self.source
            .migrate(
                self.now,
                self.settings.clone(),
                RunState::Running,
                &[],
                false,
            )
            .unwrap();
        for _ in 0..10_000 {
            self.here.step();
            let wait = self.source_step();
            if wait.is_none() {
                continue;
            }
            if self.destination_step() || self.hear() {
                continue;
            }
            match wait.flatten() {
                Some(until) => self.now = until,
                None => {
                    let channel = self.out.channel.lock().unwrap();
                    self.boundaries.clone_from(&channel.boundaries);
                    return;
                }
            }
        }
        panic!(
            "no end: {:?} {:?}",
            self.source.phase(),
            self.destination.phase()
        );
    }

    fn gauge(&self) -> Gauge {
        Gauge {
            transferred: self.out.position().0,
            pages: self.here.counters.totals().pages(),
            running: self.here.runs(),
            urgent: self.here.counters.requests().is_urgent(),
        }
    }

    /// One piece of the source's work; a wait, if there was none.
    fn source_step(&mut self) -> Option<Option<Duration>> {
        if self.fault.cancel == Some(self.works) {
            self.works += 1;
            let _ = self.source.cancel(self.now);
            self.note();
        }
        let gauge = self.gauge();
        let work = self.source.work(self.now, gauge);
        match &work {
            Work::Wait { until } => return Some(*until),
            Work::Rest => return Some(None),
            _ => self.works += 1,
        }
        // A cancel may come while the worker works.
        if self.fault.cancel == Some(self.works) {
            self.works += 1;
            let _ = self.source.cancel(self.now);
            self.note();
        }
        let outcome = self.execute(work).unwrap_or_else(Outcome::Failed);
        self.now += Duration::from_millis(3);
        let gauge = self.gauge();
        self.source.done(self.now, outcome, gauge).unwrap();
        self.note();
        None
    }

    fn execute(&mut self, work: Work) -> Result<Outcome, String> {
        let bql = Bql::holding(());
        let Self {
            here,
            out,
            outgoing,
            settings,
            ..
        } = self;
        let mut registry = here.registry.lock().unwrap();
        let stream = || "no stream".to_owned();
        let text = |error: vmstate_engine::SaveError| error.to_string();
        match work {
            Work::Prepare => {
                let prepared = registry.save_prepare(&bql);
                prepared.map_err(|(name, error)| format!("{name}: {error}"))?;
            }
            Work::Connect => {
                let return_path = self.return_path;
                *outgoing = Some(Outgoing::new(settings.clone(), identity(), return_path));
                return Ok(Outcome::Connected { return_path });
            }
            Work::Begin => outgoing
                .as_mut()
                .ok_or_else(stream)?
                .begin(out)
                .map_err(text)?,
            Work::SetUp => {
                let outgoing = outgoing.as_mut().ok_or_else(stream)?;
                outgoing.setup(&bql, &mut registry, out).map_err(text)?;
            }
            Work::PollUnplug => {}
            Work::Estimate => {
                let outgoing = outgoing.as_mut().ok_or_else(stream)?;
                return Ok(Outcome::Pending(outgoing.estimate(&mut registry)));
            }
            Work::Exact => {
                let outgoing = outgoing.as_mut().ok_or_else(stream)?;
                return Ok(Outcome::Pending(
                    outgoing.exact(&mut registry).map_err(text)?,
                ));
            }
            Work::Iterate { budget, .. } => {
                out.stop_at = budget.map(|budget| out.position().0 + budget);
                let outgoing = outgoing.as_mut().ok_or_else(stream)?;
                outgoing.iterate(&mut registry, out).map_err(text)?;
                out.stop_at = None;
                return Ok(Outcome::Iterated);
            }
            Work::Stop => {
                let stopped = here.stop(&bql, RunState::FinishMigrate);
                return Ok(Outcome::Stopped(
                    stopped.map_err(|error| error.to_string())?,
                ));
            }
            Work::Complete => {
                let outgoing = outgoing.as_mut().ok_or_else(stream)?;
                outgoing.complete(&bql, &mut registry, out).map_err(text)?;
            }
            Work::Commit => outgoing
                .as_mut()
                .ok_or_else(stream)?
                .commit(out)
                .map_err(text)?,
            Work::Trailer => outgoing
                .take()
                .ok_or_else(stream)?
                .trailer(out)
                .map_err(text)?,
            Work::PostcopyPrepare => {
                let outgoing = outgoing.as_mut().ok_or_else(stream)?;
                outgoing
                    .postcopy_prepare(&mut registry, out)
                    .map_err(text)?;
            }
            Work::Package => {
                let outgoing = outgoing.as_mut().ok_or_else(stream)?;
                outgoing.package(&bql, &mut registry, out).map_err(text)?;
            }
            Work::HandOver => outgoing
                .as_mut()
                .ok_or_else(stream)?
                .hand_over(out)
                .map_err(text)?,
            Work::CompletePostcopy => {
                let outgoing = outgoing.as_mut().ok_or_else(stream)?;
                outgoing
                    .complete_postcopy(&bql, &mut registry, out)
                    .map_err(text)?;
            }
            Work::Disconnect => out.shut_down(),
            Work::Reconnect | Work::Recover => {
                return Err("this pair has one connection".to_owned());
            }
            Work::Resume { token, state } => here.start(&bql, token, state),
            Work::Depart => here.migrated(&bql),
            Work::CleanUp => {
                registry.save_cleanup(&bql);
                out.shut_down();
            }
            Work::Wait { .. } | Work::Rest => return Err("nothing to do".to_owned()),
        }
        Ok(Outcome::Done)
    }

    fn note(&mut self) {
        while let Some(notice) = self.source.notice() {
            if notice == Notice::ShutDown {
                self.out.shut_down();
            }
            self.notices.push(notice);
        }
    }

    /// Whether the connection is broken, as the destination's answers and the return path are concerned.
    fn is_broken(&self) -> bool {
        let channel = self.out.channel.lock().unwrap();
        channel.is_over()
            || self
                .fault
                .answers
                .is_some_and(|limit| self.answered >= limit)
    }

    /// The source reads one answer, or that there will be none.
    fn hear(&mut self) -> bool {
        if !self.return_path || self.told || self.source.phase() == Phase::Idle {
            return false;
        }
        if self.answers.is_empty() {
            let over = self.is_broken() || self.destination.phase() == destination::Phase::Over;
            if over {
                self.told = true;
                self.source
                    .return_path_ended(self.now, "the connection broke");
                self.note();
            }
            return over;
        }
        let message = self.answers.remove(0);
        self.told = matches!(message, ReturnMessage::Shut(_));
        self.source.message(self.now, &message);
        self.note();
        true
    }

    fn answer(&mut self, message: ReturnMessage) {
        if self.opened && !self.is_broken() {
            self.answers.push(message);
            self.answered += 1;
            if self.is_broken() {
                self.out.shut_down();
            }
        }
    }

    /// One step of the destination's work; `false` if it waits.
    fn destination_step(&mut self) -> bool {
        if self.destination.phase() == destination::Phase::Loading && self.incoming.is_some() {
            return self.load_step();
        }
        if self.destination.phase() == destination::Phase::Trailing && !self.input.is_readable() {
            return false;
        }
        let work = self.destination.work();
        let bql = Bql::holding(());
        let result = match work {
            destination::Work::Accept => Ok(()),
            destination::Work::Load => {
                self.incoming = Some(Incoming::new(self.settings.clone(), identity()));
                return true;
            }
            destination::Work::Trailer => {
                let incoming = self.incoming.as_mut().unwrap();
                incoming
                    .trailer(&mut self.input)
                    .map_err(|error| error.to_string())
            }
            destination::Work::Start(token) => {
                let sent = self.there.global.lock().unwrap().run_state();
                self.there.start(&bql, token, start_state(sent, true));
                Ok(())
            }
            destination::Work::Shut(value) => {
                self.answer(ReturnMessage::Shut(value));
                Ok(())
            }
            destination::Work::CleanUp => {
                self.there.registry.lock().unwrap().load_cleanup(&bql);
                Ok(())
            }
            destination::Work::Rest => return false,
            other => panic!("{other:?} without postcopy"),
        };
        match result {
            Ok(()) => self.destination.done().unwrap(),
            Err(reason) => self.destination.failed(&reason).unwrap(),
        }
        true
    }

    /// One element of the stream.
    fn load_step(&mut self) -> bool {
        if !self.input.is_readable() {
            return false;
        }
        match self.element() {
            Ok(false) => {}
            Ok(true) => self.destination.done().unwrap(),
            Err(reason) => self.destination.failed(&reason).unwrap(),
        }
        true
    }

    fn element(&mut self) -> Result<bool, String> {
        let bql = Bql::holding(());
        let text = |error: vmstate_engine::LoadError| error.to_string();
        let Self {
            there,
            incoming,
            input,
            ..
        } = self;
        let mut registry = there.registry.lock().unwrap();
        let incoming = incoming.as_mut().unwrap();
        if input.position().0 > 0 && !incoming.is_set_up() {
            incoming.begin(input).map_err(text)?;
            incoming.setup(&bql, &mut registry).map_err(text)?;
            return Ok(false);
        }
        match incoming.next(input).map_err(text)? {
            LoadStep::OpenReturnPath => self.opened = true,
            LoadStep::Send(message) => {
                drop(registry);
                self.answer(message);
            }
            LoadStep::Section => incoming
                .section(Some(&bql), &mut registry, input)
                .map_err(text)?,
            LoadStep::SwitchoverStart => incoming
                .switchover_start(Some(&bql), &mut registry)
                .map_err(text)?,
            LoadStep::Eof => return Ok(true),
            other => return Err(format!("{other:?} without postcopy")),
        }
        Ok(false)
    }
}
