//! The source's thread that writes the stream.

mod postcopy;
mod probe;

use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use vmstate_engine::source::{Gauge, Outcome, Work};
use vmstate_engine::{
    Bql, Capability, ChannelWriter as _, Outgoing, Peer, RunState, SaveError, SectionWriter as _,
    Settings,
};
use vmstate_qmp::address::MigrationAddress;
use vmstate_wire::stream::ReturnPathParser;

pub(super) use self::probe::Probe;
use super::answers::{Bitmaps, Messages, read_answers};
use super::panics::caught;
use super::{MigrationEvent, Outward, Shared, lock};
use crate::live::ber::{self, BerEncoder};
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
        bitmaps: Arc::default(),
        probe: Arc::default(),
        session: None,
        lock: None,
        memory: &*memory,
        waits_since: None,
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
        bitmaps: Arc::default(),
        probe: Arc::default(),
        session: None,
        lock: None,
        memory: &*memory,
        waits_since: None,
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
    /// What it has heard about pages that have arrived.
    bitmaps: Arc<Bitmaps>,
    /// What it has heard about who the destination is.
    probe: Arc<Probe>,
    /// The number of the migration, if it goes in VM state over BER.
    session: Option<[u8; 16]>,
    /// The VMM's lock, kept from stopping the guest until everything has been written.
    lock: Option<Bql<'m>>,
    memory: &'m dyn crate::live::MappedMemory,
    /// Since when it waits for the destination.
    waits_since: Option<Duration>,
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
                    self.waits_since = None;
                    let outcome = caught(|| self.work(work)).unwrap_or_else(Outcome::Failed);
                    let gauge = self.gauge();
                    let now = self.shared.now();
                    let source = &mut lock(&self.shared.source).source;
                    // The machine has just given this work out, so it takes what came of it; what cannot fail is over when it
                    // has panicked.
                    let _ = source
                        .done(now, outcome, gauge)
                        .or_else(|_| source.done(now, Outcome::Done, gauge));
                }
            }
        }
        self.shared.tell_source();
        let status = lock(&self.shared.source).source.status();
        self.shared.tell(&MigrationEvent::Departed(status));
    }

    fn gauge(&self) -> Gauge {
        let outward = lock(&self.shared.source);
        self.shared.gauge(&outward.counters)
    }

    /// Waits until something happens, unless there is a notice already. Where it is for the destination to do something while the
    /// guest stands still, not for ever.
    fn wait(&mut self, mut outward: MutexGuard<'_, Outward>, mut until: Option<Duration>) {
        if until.is_none() && outward.source.expects_progress() {
            let now = self.shared.now();
            let silence = self.shared.deadlines.silence;
            let end = self.waits_since.get_or_insert(now).saturating_add(silence);
            if now >= end {
                let reason = format!(
                    "the destination has not confirmed within {} ms that it has loaded everything",
                    silence.as_millis()
                );
                outward.source.broken(now, &reason);
                return;
            }
            until = Some(end);
        }
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
            Work::Begin => self.begin(),
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
            Work::Commit => self.last_byte(|outgoing, channel| outgoing.commit(channel)),
            Work::PostcopyPrepare => self.prepare_postcopy(),
            Work::Package => self.package(),
            Work::HandOver => self.hand_over(),
            Work::CompletePostcopy => self.complete_postcopy(),
            Work::Disconnect => self.disconnect(),
            Work::Reconnect => self.reconnect(),
            Work::Recover => self.recover(),
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
        if !return_path && settings.capabilities.has(Capability::PostcopyRam) {
            return Outcome::Failed("Unable to open return-path for postcopy".to_owned());
        }
        {
            let mut outward = lock(&self.shared.source);
            outward.kind = Some(link.kind());
            outward.link = Some(link.clone());
        }
        let link = link.with_silence(Some(deadlines.silence));
        let channel = StreamWriter::new(link.clone(), self.memory, counters);
        let begun = match settings.parameters.x_peer {
            Peer::Vmstate => self.begin_ber(&link, channel, settings),
            Peer::Auto | Peer::Qemu | Peer::Ber => self.begin_qemu(&link, channel, settings),
        };
        match begun {
            Ok(()) => Outcome::Connected { return_path },
            Err(reason) => Outcome::Failed(reason),
        }
    }

    /// Chooses QEMU's stream.
    fn begin_qemu(
        &mut self,
        link: &Link,
        channel: StreamWriter<'m>,
        settings: Settings,
    ) -> Result<(), String> {
        if link.is_bidirectional() {
            self.listen(link, Messages::Qemu(ReturnPathParser::new()))
                .map_err(|error| format!("no thread: {error}"))?;
        }
        let identity = self.shared.identity.clone();
        self.outgoing = Some(Outgoing::new(settings, identity, link.is_bidirectional()));
        self.channel = Some(channel);
        Ok(())
    }

    /// Chooses VM state over BER, after the other end has agreed.
    fn begin_ber(
        &mut self,
        link: &Link,
        mut channel: StreamWriter<'m>,
        settings: Settings,
    ) -> Result<(), String> {
        let writer = if link.is_bidirectional() {
            self.agree(link, &mut channel, &settings)?
        } else {
            let mut bytes = Vec::new();
            let writer = ber::of_file(&mut bytes);
            channel.bytes(&bytes).map_err(|error| reason(&error))?;
            writer
        };
        let memory = Arc::clone(&self.shared.memory);
        let encoder = BerEncoder::new(writer, memory, &settings);
        let identity = self.shared.identity.clone();
        self.outgoing = Some(Outgoing::in_format(
            settings,
            identity,
            link.is_bidirectional(),
            Box::new(encoder),
        ));
        self.channel = Some(channel);
        Ok(())
    }

    /// Begins to read the return path.
    fn listen(&mut self, link: &Link, messages: Messages) -> std::io::Result<()> {
        self.bitmaps = Arc::default();
        self.probe = Arc::default();
        let (shared, link) = (Arc::clone(self.shared), link.clone().with_silence(None));
        let (bitmaps, probe) = (Arc::clone(&self.bitmaps), Arc::clone(&self.probe));
        let thread = std::thread::Builder::new()
            .name("return path".to_owned())
            .spawn(move || read_answers(&shared, &link, &bitmaps, &probe, messages))?;
        self.answers = Some(thread);
        Ok(())
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

    /// Writes the byte from which on the destination may run the guest.
    fn last_byte(
        &mut self,
        write: impl FnOnce(&mut Outgoing, &mut StreamWriter<'m>) -> Result<(), SaveError>,
    ) -> Outcome {
        let (Some(outgoing), Some(channel)) = (&mut self.outgoing, &mut self.channel) else {
            return no_stream();
        };
        // Everything before has been flushed, so the byte is the first that is written here.
        let before = channel.position();
        match write(outgoing, channel) {
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
        self.close_channels();
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
pub(in crate::live) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
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
