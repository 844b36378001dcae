//! The source's threads: one writes the stream, one reads the return path.

use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use vmstate_engine::source::{Gauge, Outcome, Work};
use vmstate_engine::{
    Bql, ChannelEnd, ChannelWriter as _, Outgoing, RunState, SaveError, SectionWriter as _,
};
use vmstate_linux::Scatter;
use vmstate_qmp::address::MigrationAddress;
use vmstate_wire::stream::{ReturnEvent, ReturnPathParser, ReturnStep, StreamOffset};

use super::{MigrationEvent, Outward, Shared, lock};
use crate::live::connect::connect_to;
use crate::live::link::{Link, LinkKind};
use crate::live::writer::StreamWriter;

/// How long a command that takes the stream may go on after its end.
const COMMAND: Duration = Duration::from_secs(30);

/// Does all the source's work of one migration.
pub(super) fn run(shared: &Arc<Shared>, address: &MigrationAddress) {
    // Pages are sent from where they are, so the memory must outlive the writer.
    let memory = Arc::clone(&shared.memory);
    let mut worker = Worker {
        shared,
        address: Some(address),
        channel: None,
        outgoing: None,
        answers: None,
        lock: None,
        memory: &*memory,
    };
    worker.run();
}

/// Does what is left after a decision about a migration whose outcome was unknown.
pub(super) fn finish(shared: &Arc<Shared>) {
    let memory = Arc::clone(&shared.memory);
    let mut worker = Worker {
        shared,
        address: None,
        channel: None,
        outgoing: None,
        answers: None,
        lock: None,
        memory: &*memory,
    };
    worker.run();
}

struct Worker<'m> {
    shared: &'m Arc<Shared>,
    address: Option<&'m MigrationAddress>,
    channel: Option<StreamWriter<'m>>,
    outgoing: Option<Outgoing>,
    /// The thread of the return path.
    answers: Option<JoinHandle<()>>,
    /// The VMM's lock, kept from stopping the guest until everything has been written.
    lock: Option<Bql<'m>>,
    memory: &'m dyn crate::live::MappedMemory,
}

impl<'m> Worker<'m> {
    fn run(&mut self) {
        loop {
            self.shared.tell_source();
            let mut outward = lock(&self.shared.source);
            let gauge = self.shared.gauge(&outward.counters);
            let work = outward.source.work(self.shared.now(), gauge);
            if let (Some(outgoing), settings) = (&mut self.outgoing, outward.source.settings()) {
                outgoing.set_parameters(settings);
            }
            match work {
                Work::Rest => break,
                Work::Wait { until } => {
                    self.lock = None;
                    self.wait(outward, until);
                }
                work => {
                    drop(outward);
                    let outcome = self.work(work);
                    let gauge = self.gauge();
                    let now = self.shared.now();
                    // The machine has just given this work out, so it takes what came of it.
                    let _ = lock(&self.shared.source).source.done(now, outcome, gauge);
                }
            }
        }
        self.shared.tell_source();
        let status = lock(&self.shared.source).source.status();
        (self.shared.observer)(&MigrationEvent::Departed(status));
    }

    fn gauge(&self) -> Gauge {
        let outward = lock(&self.shared.source);
        self.shared.gauge(&outward.counters)
    }

    /// Waits until something happens, unless there is a notice already.
    fn wait(&self, outward: MutexGuard<'_, Outward>, until: Option<Duration>) {
        let left = until.map(|until| until.saturating_sub(self.shared.now()));
        // What happened before this lock was taken has been seen by `work`.
        match left {
            Some(left) => drop(self.shared.wake.wait_timeout(outward, left)),
            None => drop(self.shared.wake.wait(outward)),
        }
    }

    fn work(&mut self, work: Work) -> Outcome {
        match work {
            Work::Prepare => match self.shared.registry_prepare() {
                Ok(()) => Outcome::Done,
                Err(reason) => Outcome::Failed(reason),
            },
            Work::Connect => self.connect(),
            Work::Begin => self.stream(|outgoing, channel, _| outgoing.begin(channel)),
            Work::SetUp => {
                let bql = self.shared.bql();
                let outcome = self.stream(|outgoing, channel, shared| {
                    outgoing.setup(&bql, &mut lock(&shared.registry), channel)
                });
                match outcome {
                    Outcome::Done if self.shared.machine.unplug_pending() => Outcome::Unplug,
                    outcome => outcome,
                }
            }
            Work::PollUnplug if self.shared.machine.unplug_pending() => Outcome::Unplug,
            Work::PollUnplug => Outcome::Done,
            Work::Estimate => match &mut self.outgoing {
                Some(outgoing) => {
                    Outcome::Pending(outgoing.estimate(&mut lock(&self.shared.registry)))
                }
                None => no_stream(),
            },
            Work::Exact => match &mut self.outgoing {
                Some(outgoing) => match outgoing.exact(&mut lock(&self.shared.registry)) {
                    Ok(pending) => Outcome::Pending(pending),
                    Err(error) => Outcome::Failed(error.to_string()),
                },
                None => no_stream(),
            },
            Work::Iterate { budget, until } => {
                let until = self.shared.origin + until;
                let outcome = self.stream(|outgoing, channel, shared| {
                    channel.limit(budget, until);
                    outgoing.iterate(&mut lock(&shared.registry), channel)?;
                    // What waits in the writer would look like silence to the destination.
                    Ok(channel.flush()?)
                });
                match outcome {
                    Outcome::Done => Outcome::Iterated,
                    outcome => outcome,
                }
            }
            Work::Stop => {
                let bql = self.shared.bql();
                let stopped = self.shared.machine.stop(&bql, RunState::FinishMigrate);
                self.lock = Some(bql);
                match stopped {
                    Ok(guest) => Outcome::Stopped(guest),
                    Err(error) => Outcome::Failed(error.to_string()),
                }
            }
            Work::Complete => {
                let bql = self.lock.take().unwrap_or_else(|| self.shared.bql());
                self.stream(|outgoing, channel, shared| {
                    channel.unlimited();
                    outgoing.complete(&bql, &mut lock(&shared.registry), channel)
                })
            }
            Work::Commit => self.commit(),
            Work::Trailer => self.trailer(),
            Work::Resume { token, state } => {
                self.lock = None;
                let bql = self.shared.bql();
                self.shared.machine.start(&bql, token, state);
                Outcome::Done
            }
            Work::Depart => {
                self.lock = None;
                self.shared.machine.migrated(&self.shared.bql());
                Outcome::Done
            }
            Work::CleanUp => {
                self.lock = None;
                self.clean_up();
                Outcome::Done
            }
            Work::Wait { .. } | Work::Rest => Outcome::Done,
        }
    }

    fn connect(&mut self) -> Outcome {
        let Some(address) = self.address else {
            return no_stream();
        };
        let outward = lock(&self.shared.source);
        let (stop, counters) = (outward.stop.clone(), Arc::clone(&outward.counters));
        let settings = outward.source.settings().clone();
        drop(outward);
        let deadlines = self.shared.deadlines;
        let link = match connect_to(address, &self.shared.descriptors, &stop, deadlines.connect) {
            Ok(link) => link,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let return_path = link.is_bidirectional();
        if return_path {
            let (shared, link) = (Arc::clone(self.shared), link.clone());
            let thread = std::thread::Builder::new().name("return path".to_owned());
            match thread.spawn(move || read_answers(&shared, &link)) {
                Ok(thread) => self.answers = Some(thread),
                Err(error) => return Outcome::Failed(format!("no thread: {error}")),
            }
        }
        let identity = self.shared.identity.clone();
        self.outgoing = Some(Outgoing::new(settings, identity, return_path));
        {
            let mut outward = lock(&self.shared.source);
            outward.kind = Some(link.kind());
            outward.link = Some(link.clone());
        }
        let link = link.with_silence(Some(deadlines.silence));
        self.channel = Some(StreamWriter::new(link, self.memory, counters));
        Outcome::Connected { return_path }
    }

    fn stream(
        &mut self,
        work: impl FnOnce(&mut Outgoing, &mut StreamWriter<'m>, &Shared) -> Result<(), SaveError>,
    ) -> Outcome {
        let (Some(outgoing), Some(channel)) = (&mut self.outgoing, &mut self.channel) else {
            return no_stream();
        };
        match work(outgoing, channel, self.shared) {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(reason(&error)),
        }
    }

    fn commit(&mut self) -> Outcome {
        let (Some(outgoing), Some(channel)) = (&mut self.outgoing, &mut self.channel) else {
            return no_stream();
        };
        // Everything before has been flushed, so the mark is all that is written here.
        let before = channel.position();
        match outgoing.commit(channel) {
            Ok(()) => Outcome::Done,
            Err(SaveError::Channel(error)) if error.offset == before => {
                Outcome::NotSent(reason(&error))
            }
            Err(error) => Outcome::Failed(reason(&error)),
        }
    }

    fn trailer(&mut self) -> Outcome {
        let (Some(outgoing), Some(channel)) = (self.outgoing.take(), &mut self.channel) else {
            return no_stream();
        };
        match outgoing.trailer(channel) {
            Ok(()) => self.command_ended(),
            Err(error) => Outcome::Failed(reason(&error)),
        }
    }

    /// Behind the last byte: waits for a command that takes the stream. One that fails has not put it where it belongs.
    fn command_ended(&mut self) -> Outcome {
        if self.channel.as_ref().map(|channel| channel.link().kind()) != Some(LinkKind::Pipe) {
            return Outcome::Done;
        }
        lock(&self.shared.source).link = None;
        let link = self.channel.take().map(|channel| channel.link().clone());
        match link.and_then(|link| link.exit_status(COMMAND)) {
            Some(status) if !status.success() => {
                Outcome::Failed(format!("the command that took the stream failed: {status}"))
            }
            _ => Outcome::Done,
        }
    }

    fn clean_up(&mut self) {
        self.outgoing = None;
        let bql = self.shared.bql();
        lock(&self.shared.registry).save_cleanup(&bql);
        drop(bql);
        let mut outward = lock(&self.shared.source);
        outward.link = None;
        let stop = outward.stop.clone();
        drop(outward);
        if let Some(channel) = self.channel.take() {
            channel.link().finish();
        }
        stop.stop();
        if let Some(thread) = self.answers.take() {
            // It has nothing to return, and a panic of its own has been printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn registry_prepare(&self) -> Result<(), String> {
        let bql = self.bql();
        lock(&self.registry)
            .save_prepare(&bql)
            .map_err(|(section, error)| format!("{section}: {error}"))
    }
}

fn no_stream() -> Outcome {
    Outcome::Failed("there is no connection".to_owned())
}

/// An error with its causes.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Reads the return path to its end.
fn read_answers(shared: &Shared, link: &Link) {
    let mut parser = ReturnPathParser::new();
    let mut buffer = [0; 4096];
    let mut used = 0;
    let why = loop {
        match take_answers(shared, &mut parser, &mut buffer, &mut used) {
            Ok(true) => return,
            Ok(false) => {}
            Err(why) => break why,
        }
        let mut list = Scatter::new();
        list.buffer(buffer.get_mut(used..).unwrap_or_default());
        let offset = StreamOffset(parser.offset().0);
        match link.read(&mut list, offset) {
            Ok(0) => break "the destination has closed the connection".to_owned(),
            Ok(count) => used += count,
            Err(error) if error.end == ChannelEnd::ShutDown => {
                break "the connection has been shut down".to_owned();
            }
            Err(error) => break format!("return path: {}", reason(&error)),
        }
    };
    let now = shared.now();
    lock(&shared.source).source.return_path_ended(now, &why);
    shared.tell_source();
}

/// Hands on the messages at hand; `true` after the last one.
fn take_answers(
    shared: &Shared,
    parser: &mut ReturnPathParser,
    buffer: &mut [u8],
    used: &mut usize,
) -> Result<bool, String> {
    let mut taken = 0;
    let mut over = false;
    loop {
        let rest = buffer.get(taken..*used).unwrap_or_default();
        match parser.next(rest).map_err(|error| error.to_string())? {
            ReturnStep::NeedMore { .. } => break,
            ReturnStep::End => {
                over = true;
                break;
            }
            ReturnStep::Event { consumed, event } => {
                taken += consumed;
                if let ReturnEvent::Message(message) = event {
                    let now = shared.now();
                    lock(&shared.source).source.message(now, &message);
                    shared.tell_source();
                }
            }
        }
    }
    buffer.copy_within(taken..*used, 0);
    *used -= taken;
    Ok(over)
}
