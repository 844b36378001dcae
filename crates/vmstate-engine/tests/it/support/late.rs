//! Two machines of which one goes before its memory, in one thread: what follows the guest may follow on another connection.

mod arrival;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use vmstate_engine::destination::{self, Destination};
use vmstate_engine::postcopy::PostcopyRam;
use vmstate_engine::source::{Gauge, Notice, Outcome, Phase, Source, Work};
use vmstate_engine::{
    Bql, Capability, Incoming, LoadError, LoadStep, Machine as _, Outgoing, Package,
    ReceivedBitmaps, Registry, RunState, RunToken, SectionWriter, Settings,
};
use vmstate_ram::BlockName;
use vmstate_wire::stream::ReturnMessage;

use self::arrival::Host;
use super::{Pipe, TestMemory, Toy, Urgent, identity};

/// Where the first connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    Never,
    /// After so many bytes of the source, which notices it or does not.
    There {
        bytes: u64,
        noticed: bool,
    },
    /// After so many answers of the destination.
    Back(usize),
    /// After so many bytes of requested pages, on their own channel.
    Urgent {
        bytes: u64,
        noticed: bool,
    },
}

/// In which format the two machines speak.
pub(crate) trait Format {
    /// A stream of this machine, and what stands in front of it.
    fn outgoing(&self, settings: Settings, memory: &Arc<TestMemory>) -> (Outgoing, Vec<u8>);

    /// Reads what stands in front of it.
    fn begin(
        &self,
        incoming: &mut Incoming,
        memory: &Arc<TestMemory>,
        input: &mut Pipe,
    ) -> Result<(), LoadError>;
}

/// A migration in postcopy.
pub(crate) struct LatePair {
    pub(crate) here: Toy,
    pub(crate) there: Toy,
    pub(crate) source: Source,
    pub(crate) destination: Destination,
    settings: Settings,
    format: &'static dyn Format,
    now: Duration,
    out: Pipe,
    input: Pipe,
    /// The channel of requested pages.
    urgent: Option<Urgent>,
    /// Where it breaks.
    urgent_cut: Option<(u64, bool)>,
    outgoing: Option<Outgoing>,
    /// What stands in front of its stream.
    front: Vec<u8>,
    incoming: Option<Incoming>,
    package: Option<(Incoming, Package)>,
    /// The destination has answered from within the package.
    promised: bool,
    ram: Arc<PostcopyRam>,
    host: Arc<Host>,
    /// The destination's sections that follow the guest.
    late: Registry,
    opened: bool,
    answers: VecDeque<ReturnMessage>,
    answered: usize,
    /// The connection breaks after so many answers.
    limit: usize,
    told: bool,
    /// The destination reads behind the package.
    reading: bool,
    /// Connections that replaced a broken one.
    pub(crate) recoveries: usize,
    /// Where records of the first connection began.
    pub(crate) boundaries: Vec<u64>,
    /// The same for its channel of requested pages.
    pub(crate) urgent_boundaries: Vec<u64>,
    /// Whether that has ended with a mark.
    pub(crate) marked: bool,
    touched: u64,
}

impl LatePair {
    pub(crate) fn new(settings: Settings, fault: Break, format: &'static dyn Format) -> Self {
        // So much that not all has been sent when somebody asks for it.
        let larger = settings.capabilities.has(Capability::PostcopyPreempt);
        let toy = if larger { Toy::larger } else { Toy::new };
        let here = toy(Some(RunToken::new_guest()));
        let there = toy(None);
        for _ in 0..20 {
            here.step();
        }
        let (out, input) = Pipe::pair(here.memory.clone(), there.memory.clone());
        let mut limit = usize::MAX;
        let mut urgent_cut = None;
        match fault {
            Break::Never => {}
            Break::There { bytes, noticed } => {
                let mut channel = out.channel.lock().unwrap();
                channel.cut = Some(bytes);
                channel.tells = noticed;
            }
            Break::Back(answers) => limit = answers,
            Break::Urgent { bytes, noticed } => urgent_cut = Some((bytes, noticed)),
        }
        let mut destination = Destination::new(true);
        destination.incoming().unwrap();
        let host = Arc::new(Host {
            memory: there.memory.clone(),
            absent: std::sync::Mutex::default(),
        });
        let ram = PostcopyRam::new(there.memory.clone(), host.clone());
        Self {
            here,
            there,
            source: Source::new(),
            destination,
            settings,
            format,
            now: Duration::from_secs(1),
            out,
            input,
            urgent: None,
            urgent_cut,
            outgoing: None,
            front: Vec::new(),
            incoming: None,
            package: None,
            promised: false,
            ram: Arc::new(ram),
            host,
            late: Registry::new(),
            opened: false,
            answers: VecDeque::new(),
            answered: 0,
            limit,
            told: false,
            reading: false,
            recoveries: 0,
            boundaries: Vec::new(),
            urgent_boundaries: Vec::new(),
            marked: false,
            touched: 0,
        }
    }

    /// Runs until nothing happens any more; what both sides have paused goes on, on a connection that holds.
    pub(crate) fn run(&mut self) {
        let settings = self.settings.clone();
        let state = RunState::Running;
        self.source
            .migrate(self.now, settings, state, &[], false)
            .unwrap();
        for turn in 0..20_000 {
            self.here.step();
            // After some of precopy.
            if turn == 12 {
                self.source.start_postcopy(true).unwrap();
            }
            let Some(wait) = self.source_step() else {
                continue;
            };
            if self.destination_step() || self.hear() {
                continue;
            }
            if let Some(until) = wait {
                self.now = until;
                continue;
            }
            if self.boundaries.is_empty() {
                let channel = self.out.channel.lock().unwrap();
                self.boundaries.clone_from(&channel.boundaries);
            }
            if let Some(urgent) = &self.urgent {
                self.urgent_boundaries
                    .clone_from(&urgent.channel().lock().unwrap().boundaries);
                self.marked = urgent.is_marked();
            }
            let paused = self.source.phase() == Phase::Paused
                && self.destination.phase() == destination::Phase::Paused;
            if !paused {
                return;
            }
            self.reconnect();
        }
        let phases = (self.source.phase(), self.destination.phase());
        panic!("no end: {phases:?} {:?}", self.source.error());
    }

    fn reconnect(&mut self) {
        self.recoveries += 1;
        let (out, input) = Pipe::pair(self.here.memory.clone(), self.there.memory.clone());
        (self.out, self.input) = (out, input);
        (self.urgent, self.urgent_cut) = (None, None);
        self.answers.clear();
        (self.limit, self.told) = (usize::MAX, false);
        self.destination.recover().unwrap();
        self.source.recover(self.now).unwrap();
    }

    fn gauge(&self) -> Gauge {
        Gauge {
            transferred: self.out.position().0,
            pages: self.here.counters.totals().pages(),
            running: self.here.runs(),
            urgent: self.here.counters.requests().is_urgent(),
        }
    }

    fn source_step(&mut self) -> Option<Option<Duration>> {
        let work = self.source.work(self.now, self.gauge());
        match &work {
            Work::Wait { until } => return Some(*until),
            Work::Rest => return Some(None),
            _ => {}
        }
        let outcome = self.execute(work).unwrap_or_else(Outcome::Failed);
        self.now += Duration::from_millis(1);
        let gauge = self.gauge();
        self.source.done(self.now, outcome, gauge).unwrap();
        self.note();
        None
    }

    fn note(&mut self) {
        while let Some(notice) = self.source.notice() {
            if notice == Notice::ShutDown {
                self.shut_down();
            }
        }
    }

    fn shut_down(&self) {
        self.out.shut_down();
        if let Some(urgent) = &self.urgent {
            urgent.shut_down();
        }
    }

    /// Connects the channel of requested pages, if there is to be one and this is the moment.
    fn connect_urgent(&mut self, early: bool) {
        let wanted = self.settings.capabilities.has(Capability::PostcopyPreempt);
        if wanted && self.settings.preempts_early() == early {
            let ends = [&self.here.memory, &self.there.memory];
            let (cut, noticed) = self.urgent_cut.unzip();
            self.urgent = Some(Urgent::new(ends, cut, noticed.unwrap_or(true)));
        }
    }

    /// The source sends what has been asked for over its own channel.
    fn send_urgent(&mut self) {
        let Some(urgent) = &mut self.urgent else {
            return;
        };
        if let Err(error) = urgent.send(self.here.counters.requests()) {
            // The page that broke it is not taken for sent, even if it was the last.
            assert!(self.here.counters.totals().remaining > 0);
            self.source.broken(self.now, &error.to_string());
            self.note();
        }
    }

    /// The destination places that. If the channel breaks, the main one ends, too.
    fn receive_urgent(&mut self) -> bool {
        let Some(urgent) = self.urgent.as_mut().filter(|_| self.reading) else {
            return false;
        };
        match urgent.receive(&self.ram) {
            Ok(something) => something,
            Err(reason) => {
                self.shut_down();
                self.reading = false;
                self.destination.failed(&reason).unwrap();
                true
            }
        }
    }

    fn execute(&mut self, work: Work) -> Result<Outcome, String> {
        if work == Work::Recover {
            // It is read by the destination that waits for it.
            while !self.reading {
                self.destination_step();
            }
        }
        match work {
            Work::Begin | Work::Reconnect => self.connect_urgent(true),
            Work::PostcopyPrepare => self.connect_urgent(false),
            _ => {}
        }
        let bql = Bql::holding(());
        let text = |error: vmstate_engine::SaveError| error.to_string();
        let Self { here, out, .. } = self;
        let mut registry = here.registry.lock().unwrap();
        if work == Work::Connect {
            let (outgoing, front) = self.format.outgoing(self.settings.clone(), &here.memory);
            (self.outgoing, self.front) = (Some(outgoing), front);
            return Ok(Outcome::Connected { return_path: true });
        }
        let mut none = Outgoing::new(self.settings.clone(), identity(), true);
        let outgoing = self.outgoing.as_mut().unwrap_or(&mut none);
        match work {
            Work::Begin => {
                if !self.front.is_empty() {
                    out.bytes(&self.front).map_err(|error| error.to_string())?;
                }
                outgoing.begin(out).map_err(text)?;
            }
            Work::SetUp => outgoing.setup(&bql, &mut registry, out).map_err(text)?,
            Work::Estimate => return Ok(Outcome::Pending(outgoing.estimate(&mut registry))),
            Work::Exact => {
                let pending = outgoing.exact(&mut registry).map_err(text)?;
                return Ok(Outcome::Pending(pending));
            }
            Work::Iterate { budget, .. } => {
                out.stop_at = budget.map(|budget| out.position().0 + budget);
                let iterated = outgoing.iterate(&mut registry, out);
                out.stop_at = None;
                iterated.map_err(text)?;
                return Ok(Outcome::Iterated);
            }
            Work::Stop => {
                let stopped = here.stop(&bql, RunState::FinishMigrate);
                return Ok(Outcome::Stopped(
                    stopped.map_err(|error| error.to_string())?,
                ));
            }
            Work::Complete => outgoing.complete(&bql, &mut registry, out).map_err(text)?,
            Work::Commit => outgoing.commit(out).map_err(text)?,
            Work::PostcopyPrepare => outgoing
                .postcopy_prepare(&mut registry, out)
                .map_err(text)?,
            Work::Package => outgoing.package(&bql, &mut registry, out).map_err(text)?,
            Work::HandOver => {
                let before = out.position().0;
                let handed_over = outgoing.hand_over(out);
                // Up to here the package lacks one byte, without which the destination runs no guest.
                let writes = &out.channel.lock().unwrap().boundaries;
                let next = writes.iter().find(|write| **write > before);
                assert!(writes.contains(&before) && next.is_none_or(|next| *next == before + 1));
                handed_over.map_err(text)?;
            }
            Work::CompletePostcopy => {
                outgoing
                    .complete_postcopy(&bql, &mut registry, out)
                    .map_err(text)?;
                if let Some(urgent) = &mut self.urgent
                    && self.settings.preempts_early()
                {
                    urgent.end().map_err(|error| error.to_string())?;
                }
            }
            Work::Recover => {
                let incoming = self.incoming.as_mut().unwrap();
                let input = &mut self.input;
                let mut answers = Answering {
                    incoming,
                    input,
                    pages: 0,
                };
                let recovered = outgoing.recover(&mut registry, out, &mut answers);
                recovered.map_err(text)?;
                outgoing.resume(out).map_err(text)?;
                drop(registry);
                self.connect_urgent(false);
            }
            Work::Resume { token, state } => here.start(&bql, token, state),
            Work::Depart => here.migrated(&bql),
            Work::Disconnect => {
                drop(registry);
                self.shut_down();
            }
            Work::CleanUp => {
                registry.save_cleanup(&bql);
                drop(registry);
                self.shut_down();
            }
            Work::Prepare | Work::PollUnplug | Work::Reconnect => {}
            other => return Err(format!("{other:?}")),
        }
        Ok(Outcome::Done)
    }

    fn is_broken(&self) -> bool {
        self.answered >= self.limit || self.out.channel.lock().unwrap().is_over()
    }

    fn answer(&mut self, message: ReturnMessage) {
        if self.opened && !self.is_broken() {
            self.answers.push_back(message);
            self.answered += 1;
            if self.is_broken() {
                self.out.shut_down();
            }
        }
    }

    /// The source reads one answer, or that there will be none.
    fn hear(&mut self) -> bool {
        if self.told || matches!(self.source.phase(), Phase::Idle | Phase::Paused) {
            return false;
        }
        let Some(message) = self.answers.pop_front() else {
            let over = self.is_broken() || self.destination.phase() == destination::Phase::Over;
            if over {
                self.told = true;
                self.source
                    .return_path_ended(self.now, "the connection broke");
                self.note();
            }
            return over;
        };
        self.told = matches!(message, ReturnMessage::Shut(_));
        if let ReturnMessage::ReqPagesId {
            start,
            length,
            block,
        } = &message
        {
            let name = BlockName::new(block.as_bytes()).unwrap();
            let requests = self.here.counters.requests();
            requests
                .push(Some(&name), *start, (*length).into())
                .unwrap();
            self.send_urgent();
        }
        self.source.message(self.now, &message);
        self.note();
        true
    }
}

/// The destination, which answers at once.
struct Answering<'a> {
    incoming: &'a mut Incoming,
    input: &'a mut Pipe,
    pages: u64,
}

impl ReceivedBitmaps for Answering<'_> {
    fn expect(&mut self, _block: &BlockName, pages: u64) {
        self.pages = pages;
    }

    fn wait(&mut self) -> Option<Vec<u64>> {
        match self.incoming.next(self.input) {
            Ok(LoadStep::Bitmap { received, .. }) if received.pages() == self.pages => {
                Some(received.words().to_vec())
            }
            other => panic!("{other:?}"),
        }
    }
}
