//! Two machines of which one goes before its memory, in one thread: what follows the guest may follow on another connection.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmstate_engine::destination::{self, Destination, start_state};
use vmstate_engine::postcopy::{FaultAnswer, MissingPages, PostcopyRam};
use vmstate_engine::source::{Gauge, Notice, Outcome, Phase, Source, Work};
use vmstate_engine::{
    Bql, GuestMemory as _, Incoming, LoadError, LoadStep, Machine, MemoryError, Outgoing, Package,
    ReceivedBitmaps, Registry, RunState, RunToken, SectionWriter, Settings,
};
use vmstate_ram::{BlockId, BlockName};
use vmstate_wire::stream::{BlockName as WireName, ReturnMessage};

use super::{PAGE, Pipe, TestMemory, Toy, identity};

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

/// The destination's host: which pages are missing.
struct Host {
    memory: Arc<TestMemory>,
    absent: Mutex<BTreeSet<(u32, u64)>>,
}

impl Host {
    fn place(&self, block: BlockId, offset: u64) {
        let absent = self.absent.lock().unwrap().remove(&(block.0, offset));
        assert!(absent, "{offset:#x} is there already");
    }
}

impl MissingPages for Host {
    fn prepare(&self) -> Result<(), MemoryError> {
        Ok(())
    }

    fn discard(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        let pages = (offset..offset + length).step_by(4096);
        let mut absent = self.absent.lock().unwrap();
        absent.extend(pages.map(|page| (block.0, page)));
        self.memory.zero(block, offset, length)
    }

    fn serve(&self) -> Result<(), MemoryError> {
        Ok(())
    }

    fn place(&self, block: BlockId, offset: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.place(block, offset);
        self.memory.copy_in(block, offset, data)
    }

    fn place_zero(&self, block: BlockId, offset: u64, length: u64) -> Result<(), MemoryError> {
        self.place(block, offset);
        self.memory.zero(block, offset, length)
    }
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
    touched: u64,
}

impl LatePair {
    pub(crate) fn new(settings: Settings, fault: Break, format: &'static dyn Format) -> Self {
        let here = Toy::new(Some(RunToken::new_guest()));
        let there = Toy::new(None);
        for _ in 0..20 {
            here.step();
        }
        let (out, input) = Pipe::pair(here.memory.clone(), there.memory.clone());
        let mut limit = usize::MAX;
        match fault {
            Break::Never => {}
            Break::There { bytes, noticed } => {
                let mut channel = out.channel.lock().unwrap();
                channel.cut = Some(bytes);
                channel.tells = noticed;
            }
            Break::Back(answers) => limit = answers,
        }
        let mut destination = Destination::new(true);
        destination.incoming().unwrap();
        let host = Arc::new(Host {
            memory: there.memory.clone(),
            absent: Mutex::default(),
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
                self.out.shut_down();
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
            Work::HandOver => outgoing.hand_over(out).map_err(text)?,
            Work::CompletePostcopy => outgoing
                .complete_postcopy(&bql, &mut registry, out)
                .map_err(text)?,
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
            }
            Work::Resume { token, state } => here.start(&bql, token, state),
            Work::Depart => here.migrated(&bql),
            Work::Disconnect => out.shut_down(),
            Work::CleanUp => {
                registry.save_cleanup(&bql);
                out.shut_down();
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
        }
        self.source.message(self.now, &message);
        self.note();
        true
    }

    fn destination_step(&mut self) -> bool {
        let loads = self.destination.phase() == destination::Phase::Loading;
        if self.reading || loads && self.incoming.is_some() {
            return self.load_step();
        }
        let bql = Bql::holding(());
        match self.destination.work() {
            destination::Work::Accept => {}
            destination::Work::Load => {
                let incoming = Incoming::new(self.settings.clone(), identity());
                self.incoming = Some(incoming.with_postcopy(self.ram.clone()));
                return true;
            }
            destination::Work::Start(token) | destination::Work::Launch(token) => {
                let sent = self.there.global.lock().unwrap().run_state();
                self.there.start(&bql, token, start_state(sent, true));
            }
            destination::Work::Receive => {
                self.reading = true;
                return true;
            }
            destination::Work::Reconnect => self.incoming.as_mut().unwrap().interrupted(),
            destination::Work::Recover => {
                self.reading = true;
                return true;
            }
            destination::Work::Shut(value) => self.answer(ReturnMessage::Shut(value)),
            destination::Work::CleanUp => {
                let mut registry = self.there.registry.lock().unwrap();
                registry.rejoin(std::mem::take(&mut self.late));
                registry.load_cleanup(&bql);
            }
            destination::Work::Trailer => panic!("a trailer in postcopy"),
            destination::Work::GiveUp => panic!("nobody gives up"),
            destination::Work::Wait | destination::Work::Rest => return false,
        }
        self.destination.done().unwrap();
        true
    }

    fn load_step(&mut self) -> bool {
        if self.package.is_none() && !self.input.is_readable() {
            return self.touch();
        }
        match self.element() {
            Ok(false) => {}
            Ok(true) => {
                self.reading = false;
                self.destination.done().unwrap();
            }
            Err(reason) => {
                self.reading = false;
                self.package = None;
                self.destination.failed(&reason).unwrap();
            }
        }
        true
    }

    /// The guest, which runs there already, looks at a page.
    fn touch(&mut self) -> bool {
        if self.touched >= 70 || !self.reading {
            return false;
        }
        let page = self.touched * 31 % 70;
        self.touched += 1;
        let Some(name) = self.ram.name(BlockId(0)) else {
            return false;
        };
        let block = WireName::new(name.as_bytes()).unwrap();
        match self.ram.fault(BlockId(0), page * PAGE) {
            FaultAnswer::Ask(request) => self.answer(ReturnMessage::ReqPagesId {
                start: request.offset,
                length: request.length,
                block,
            }),
            FaultAnswer::Asked | FaultAnswer::Arrived => {}
            FaultAnswer::Outside => panic!("page {page}"),
        }
        true
    }

    /// One element of what the destination reads; `true` at the end.
    fn element(&mut self) -> Result<bool, String> {
        let mut answers = Vec::new();
        let result = self.read(&mut answers);
        for answer in answers {
            self.answer(answer);
        }
        result
    }

    fn read(&mut self, answers: &mut Vec<ReturnMessage>) -> Result<bool, String> {
        let broken = self.is_broken();
        let bql = Bql::holding(());
        let text = |error: LoadError| error.to_string();
        let incoming = self.incoming.as_mut().unwrap();
        let registry = &mut self.there.registry.lock().unwrap();
        if let Some((inner, package)) = &mut self.package {
            match inner.next(package).map_err(text)? {
                LoadStep::Section => inner.section(Some(&bql), registry, package).map_err(text)?,
                LoadStep::Send(message) => {
                    if broken {
                        return Err("gone".to_owned());
                    }
                    self.promised = true;
                    answers.push(message);
                }
                LoadStep::SwitchoverStart => {
                    inner.switchover_start(Some(&bql), registry).map_err(text)?;
                }
                LoadStep::Listen => {
                    self.destination.listening().unwrap();
                    self.late = registry.split_postcopy();
                }
                LoadStep::Run => {
                    if !self.promised && broken {
                        return Err("gone".to_owned());
                    }
                    self.package = None;
                    self.destination.ran().unwrap();
                }
                other => return Err(format!("{other:?} in a package")),
            }
            return Ok(false);
        }
        let input = &mut self.input;
        if input.position().0 > 0 && !incoming.is_set_up() {
            let memory = &self.there.memory;
            self.format.begin(incoming, memory, input).map_err(text)?;
            incoming.begin(input).map_err(text)?;
            incoming.setup(&bql, registry).map_err(text)?;
            return Ok(false);
        }
        match incoming.next(input).map_err(text)? {
            LoadStep::OpenReturnPath => self.opened = true,
            LoadStep::Send(message) => answers.push(message),
            LoadStep::Section if self.reading => incoming
                .section(None, &mut self.late, input)
                .map_err(text)?,
            LoadStep::Section => incoming
                .section(Some(&bql), registry, input)
                .map_err(text)?,
            LoadStep::SwitchoverStart if self.reading => {}
            LoadStep::SwitchoverStart => incoming
                .switchover_start(Some(&bql), registry)
                .map_err(text)?,
            LoadStep::Package => {
                self.package = Some(incoming.package(input).map_err(text)?);
            }
            LoadStep::Resume => {
                self.destination.resumed().unwrap();
                answers.push(ReturnMessage::ResumeAck(1));
                for request in self.ram.outstanding() {
                    let name = self.ram.name(request.block).unwrap();
                    let block = WireName::new(name.as_bytes()).unwrap();
                    let (start, length) = (request.offset, request.length);
                    answers.push(ReturnMessage::ReqPagesId {
                        start,
                        length,
                        block,
                    });
                }
            }
            LoadStep::Eof if self.reading => {
                self.ram.complete().map_err(|error| error.to_string())?;
                let absent = self.host.absent.lock().unwrap().len();
                assert_eq!(absent, self.zeros());
                return Ok(true);
            }
            other => return Err(format!("{other:?} comes here")),
        }
        Ok(false)
    }

    /// Pages that came as zeros while the guest ran at the source: they take no memory.
    fn zeros(&self) -> usize {
        let absent = self.host.absent.lock().unwrap();
        let arrived = absent.iter().filter(|(block, offset)| {
            self.ram.fault(BlockId(*block), *offset) == FaultAnswer::Arrived
        });
        arrived.count()
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
