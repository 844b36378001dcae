//! The destination's thread.

mod answers;
mod format;
mod pages;
mod receive;
mod service;
mod waits;

use std::sync::{Arc, Mutex};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use vmstate_engine::destination::{Work, start_state};
use vmstate_engine::postcopy::PostcopyError;
use vmstate_engine::{
    Capability, Incoming, LoadError, LoadStep, MigrationStatus, Package, Peer, RunState,
};
use vmstate_wire::stream::ReturnMessage;

use self::answers::Answers;
use self::pages::Pages;
use self::receive::Receiver;
pub(super) use self::service::Service;
use super::panics::caught;
use super::{MigrationEvent, Shared, lock};
use crate::live::connect::Listener;
use crate::live::link::Link;
use crate::live::reader::StreamReader;
use crate::live::stop::Stop;

/// Does all the destination's work of one migration.
pub(super) fn run(shared: &Arc<Shared>, listener: Listener) {
    let memory = Arc::clone(&shared.memory);
    std::thread::scope(|scope| {
        let mut worker = Worker {
            shared,
            scope,
            memory: &*memory,
            listener: Some(listener),
            stream: None,
            answers: Arc::default(),
            service: None,
            listening: Listening::Not,
            promise: Arc::default(),
        };
        worker.run();
    });
}

/// Whether the host can serve missing pages of this machine's memory; if not, why, and what to do.
pub(super) fn check_postcopy(shared: &Shared) -> Result<(), String> {
    Pages::check(&shared.memory).map_err(|error| error.to_string())
}

/// A stream, and where it is read from.
type Stream<'m> = (Incoming, StreamReader<'m>);

/// Why a guest is not started.
const GONE: &str = "the source has closed the connection before the guest was started";

/// How long the source may be silent behind the guest, before it is told that the guest runs.
const TRAILER: Duration = Duration::from_secs(5);

/// Bytes that may wait to be read where a requested page waits behind them.
const UNREAD: u32 = 128 << 10;
/// Bytes in a second that a link with a long round trip must be able to carry all the same.
const RATE: u64 = 2_000_000_000;

/// How a piece of work has ended, if well.
enum Ended {
    Done,
    /// With `POSTCOPY_RUN`.
    Run,
}

struct Worker<'scope, 'env, 'm> {
    shared: &'m Arc<Shared>,
    scope: &'scope Scope<'scope, 'env>,
    memory: &'m dyn crate::live::MappedMemory,
    listener: Option<Listener>,
    stream: Option<Stream<'m>>,
    answers: Arc<Answers>,
    /// If the source may switch to postcopy.
    service: Option<Arc<Service>>,
    listening: Listening<'scope>,
    promise: Arc<Mutex<Promise>>,
}

/// Who has the guest while its devices are being loaded, in postcopy.
#[derive(Debug, Default)]
enum Promise {
    /// The source.
    #[default]
    Not,
    /// This machine: the source may have heard that all is loaded, or has sent the whole package.
    Given,
    /// The source, for good: the connection broke before, for this reason.
    Void(String),
}

/// The thread that reads pages from `POSTCOPY_LISTEN` on.
#[derive(Default)]
enum Listening<'scope> {
    /// There is none.
    #[default]
    Not,
    Yes(ScopedJoinHandle<'scope, Received>),
    Over(Box<Received>),
}

/// A stream that has been read as far as it went, and why not to its end.
type Received = (Incoming, Result<(), String>);

impl Listening<'_> {
    /// Waits for the thread; none if there was none.
    fn join(&mut self) -> Option<Received> {
        match std::mem::take(self) {
            Self::Not => None,
            // Its panic has been printed, and nothing is left of what it had.
            Self::Yes(thread) => thread.join().ok(),
            Self::Over(received) => Some(*received),
        }
    }

    /// What has come of it, if it has ended; it may be asked again.
    fn outcome(&mut self) -> Option<&Result<(), String>> {
        if matches!(self, Self::Yes(thread) if thread.is_finished()) {
            *self = self.join().map_or(Self::Not, |r| Self::Over(Box::new(r)));
        }
        match self {
            Self::Over(received) => Some(&received.1),
            _ => None,
        }
    }
}

impl<'scope, 'm: 'scope> Worker<'scope, '_, 'm> {
    fn run(&mut self) {
        loop {
            self.shared.tell_destination();
            let mut inward = lock(&self.shared.destination);
            match inward.destination.work() {
                Work::Rest => break,
                // What happened before this lock was taken has been seen by `work`.
                Work::Wait => drop(self.shared.arrivals.wait(inward)),
                work => {
                    drop(inward);
                    let result = caught(|| self.work(work)).unwrap_or_else(Err);
                    let destination = &mut lock(&self.shared.destination).destination;
                    // The machine has just given this work out, so it takes what came of it.
                    let _ = match result {
                        Ok(Ended::Done) => destination.done(),
                        Ok(Ended::Run) => destination.ran(),
                        // What cannot fail is over when it has panicked.
                        Err(reason) => destination.failed(&reason).or_else(|_| destination.done()),
                    };
                }
            }
        }
        self.shared.tell_destination();
        let failure = lock(&self.shared.destination)
            .destination
            .error()
            .map(str::to_owned);
        self.shared.tell(&MigrationEvent::Arrived(failure));
    }

    fn work(&mut self, work: Work) -> Result<Ended, String> {
        match work {
            Work::Accept => self.accept()?,
            Work::Load => return self.load(),
            Work::Trailer => {
                if let Some((incoming, reader)) = &mut self.stream {
                    reader.set_silence(TRAILER.min(self.shared.deadlines.silence));
                    incoming.trailer(reader).map_err(text)?;
                }
            }
            Work::Start(token) => {
                let autostart = *lock(&self.shared.autostart);
                let state = start_state((self.shared.arrived)(), autostart);
                let bql = self.shared.bql();
                self.shared.machine.start(&bql, token, state);
            }
            Work::Launch(token) => {
                let state = match *lock(&self.shared.autostart) {
                    true => RunState::Running,
                    false => RunState::Paused,
                };
                let bql = self.shared.bql();
                self.shared.machine.start(&bql, token, state);
            }
            Work::Receive => self.received()?,
            Work::Reconnect => self.reconnect()?,
            Work::Recover => self.recover()?,
            Work::GiveUp => {
                self.shared.machine.lost();
                if let Some(service) = &self.service {
                    service.end();
                }
            }
            Work::Shut(value) => self.answers.send(&ReturnMessage::Shut(value))?,
            Work::CleanUp => self.clean_up(),
            Work::Wait | Work::Rest => {}
        }
        Ok(Ended::Done)
    }

    fn stop(&self) -> Stop {
        lock(&self.shared.destination).stop.clone()
    }

    fn accept(&mut self) -> Result<(), String> {
        let Some(listener) = self.listener.take() else {
            return Err("there is nothing to listen on".to_owned());
        };
        let stop = self.stop();
        let link = listener.accept(&stop).map_err(|error| error.to_string())?;
        let settings = lock(&self.shared.settings).clone();
        if settings.capabilities.has(Capability::PostcopyPreempt) {
            self.listener = Some(listener);
        }
        let postcopy = settings.capabilities.has(Capability::PostcopyRam);
        let mut incoming = Incoming::new(settings, self.shared.identity.clone());
        if postcopy {
            let vcpus = self.shared.machine.vcpu_threads();
            let answers = Arc::clone(&self.answers);
            let service = Arc::new(Service::new(&self.shared.memory, vcpus, answers));
            incoming = incoming.with_postcopy(Arc::clone(&service.ram));
            lock(&self.shared.destination).service = Some(Arc::clone(&service));
            self.service = Some(service);
        }
        self.stream = Some((incoming, StreamReader::new(link, self.memory)));
        Ok(())
    }

    fn load(&mut self) -> Result<Ended, String> {
        let Some((mut incoming, mut reader)) = self.stream.take() else {
            return Err("there is no connection".to_owned());
        };
        let shared = self.shared;
        let mut framed = self.recognise(&mut incoming, &mut reader)?;
        if !framed && reader.link().is_bidirectional() && Self::allows_upgrade(&incoming) {
            incoming = incoming.with_upgrade();
        }
        incoming.begin(&mut reader).map_err(text)?;
        incoming
            .setup(&shared.bql(), &mut lock(&shared.registry))
            .map_err(text)?;
        loop {
            match incoming.next(&mut reader).map_err(text)? {
                LoadStep::Eof => {
                    self.stream = Some((incoming, reader));
                    return Ok(Ended::Done);
                }
                LoadStep::OpenReturnPath => {
                    if reader.link().is_bidirectional() {
                        self.answers.open(reader.link().clone());
                    }
                }
                LoadStep::Send(message) => self.answers.send(&message)?,
                LoadStep::Upgrade => {
                    self.in_frames(&mut incoming, &mut reader)?;
                    incoming.begin(&mut reader).map_err(text)?;
                    framed = true;
                }
                LoadStep::Section if !framed && must_be_framed(&incoming) => {
                    return Err(NOT_FRAMED.to_owned());
                }
                LoadStep::Section => {
                    let bql = shared.bql();
                    incoming
                        .section(Some(&bql), &mut lock(&shared.registry), &mut reader)
                        .map_err(text)?;
                }
                LoadStep::SwitchoverStart => {
                    let bql = shared.bql();
                    incoming
                        .switchover_start(Some(&bql), &mut lock(&shared.registry))
                        .map_err(text)?;
                }
                LoadStep::Package => {
                    let (inner, package) = incoming.package(&mut reader).map_err(text)?;
                    return self.load_package(inner, package, (incoming, reader));
                }
                other => return Err(format!("{other:?} comes too early")),
            }
        }
    }

    /// Loads what a source sends in one piece before the guest runs here. Pages that it needs come in the meantime.
    fn load_package(
        &mut self,
        mut inner: Incoming,
        mut package: Package,
        stream: Stream<'m>,
    ) -> Result<Ended, String> {
        let shared = self.shared;
        let stop = self.stop();
        // It is there before the package is sent.
        let preempt = match &self.listener {
            Some(listener) => Some(accept_preempt(shared, listener, &stop)?),
            None => None,
        };
        let mut stream = Some((stream, preempt));
        let mut answered = false;
        loop {
            match inner.next(&mut package).map_err(text)? {
                LoadStep::Section if answered => {
                    return Err(
                        "a section comes behind the question whether all is loaded".to_owned()
                    );
                }
                LoadStep::Section => {
                    let bql = shared.bql();
                    let loaded =
                        inner.section(Some(&bql), &mut lock(&shared.registry), &mut package);
                    drop(bql);
                    // A device that was given zeros may say anything.
                    loaded.map_err(|error| self.broken().unwrap_or_else(|| text(error)))?;
                }
                LoadStep::Send(message) => {
                    // What is answered is a promise to run the guest. A source whose connection is broken may have taken it
                    // back.
                    if !self.answers.is_whole() {
                        return Err(self.broken().unwrap_or_else(|| GONE.to_owned()));
                    }
                    self.promise()?;
                    self.answers.send(&message)?;
                    answered = true;
                }
                LoadStep::SwitchoverStart => {
                    let bql = shared.bql();
                    inner
                        .switchover_start(Some(&bql), &mut lock(&shared.registry))
                        .map_err(text)?;
                }
                LoadStep::Listen => {
                    if let Some((stream, preempt)) = stream.take() {
                        self.listen(stream, preempt)?;
                    }
                }
                LoadStep::Run => {
                    return match self.listening.outcome() {
                        // The source may know that all is loaded, and then nobody else runs the guest any more.
                        _ if answered => Ok(Ended::Run),
                        Some(Err(why)) => Err(why.clone()),
                        _ if !self.answers.is_whole() => Err(GONE.to_owned()),
                        _ => self.promise().map(|()| Ended::Run),
                    };
                }
                other => return Err(format!("{other:?} in a package")),
            }
        }
    }

    /// Promises to run the guest, if that can still be.
    fn promise(&self) -> Result<(), String> {
        let mut promise = lock(&self.promise);
        if let Promise::Void(why) = &*promise {
            return Err(why.clone());
        }
        *promise = Promise::Given;
        Ok(())
    }

    /// Why the guest cannot come any more, if the connection broke.
    fn broken(&self) -> Option<String> {
        match &*lock(&self.promise) {
            Promise::Void(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Begins to read pages, in another thread.
    fn listen(&mut self, stream: Stream<'m>, preempt: Option<Link>) -> Result<(), String> {
        let shared = self.shared;
        let Some(service) = self.service.clone() else {
            return Err("there is nobody to serve missing pages".to_owned());
        };
        if !self.answers.is_open() {
            return Err(PostcopyError::OneWay.to_string());
        }
        let listening = lock(&shared.destination).destination.listening();
        listening.map_err(|error| error.to_string())?;
        shared.tell_destination();
        service.start()?;
        *lock(&service.registry) = lock(&shared.registry).split_postcopy();
        let (answers, stop) = (Arc::clone(&self.answers), self.stop());
        let promise = Arc::clone(&self.promise);
        let (mut incoming, reader) = stream;
        if preempt.is_none() {
            reader.link().limit_unread(UNREAD, RATE);
        }
        let thread = std::thread::Builder::new().name("postcopy listen".to_owned());
        let thread = thread.spawn_scoped(self.scope, move || {
            let receiver = Receiver {
                shared,
                service: &service,
                answers: &answers,
                stop: &stop,
                reader,
                preempt,
                listener: None,
            };
            let result = caught(|| receiver.run(&mut incoming)).unwrap_or_else(Err);
            if let Err(why) = &result {
                abandon(&promise, &service, why);
            }
            (incoming, result)
        });
        self.listening = Listening::Yes(thread.map_err(|error| format!("no thread: {error}"))?);
        Ok(())
    }

    /// Waits until all pages are here, or the connection breaks.
    fn received(&mut self) -> Result<(), String> {
        let Some((incoming, result)) = self.listening.join() else {
            return Err("nobody reads the stream".to_owned());
        };
        self.over(incoming, result)
    }

    /// Nothing comes from this connection any more.
    fn over(&mut self, incoming: Incoming, result: Result<(), String>) -> Result<(), String> {
        if result.is_ok() {
            if let Some(service) = &self.service {
                service.end();
            }
            return Ok(());
        }
        self.listener = None;
        // The source may still be waiting for something.
        if let Some(link) = self.answers.close() {
            link.finish();
        }
        self.listening = Listening::Over(Box::new((incoming, Ok(()))));
        result
    }

    /// Waits for the source, at the place that the user has named.
    fn reconnect(&mut self) -> Result<(), String> {
        let stop = self.stop();
        let Some(listener) = lock(&self.shared.destination).listener.take() else {
            return Err("there is nothing to listen on".to_owned());
        };
        let link = listener.accept(&stop).map_err(|error| error.to_string())?;
        let Some((mut incoming, _)) = self.listening.join() else {
            return Err("there is nothing to go on with".to_owned());
        };
        incoming.interrupted();
        self.answers.open_again(link.clone());
        let settings = incoming.settings();
        self.listener = settings
            .capabilities
            .has(Capability::PostcopyPreempt)
            .then_some(listener);
        self.stream = Some((incoming, StreamReader::new(link, self.memory)));
        Ok(())
    }

    /// Tells the source what is here, and goes on with the rest.
    fn recover(&mut self) -> Result<(), String> {
        let (Some((mut incoming, mut reader)), Some(service)) = (self.stream.take(), &self.service)
        else {
            return Err("there is nothing to go on with".to_owned());
        };
        if self.listener.is_none() {
            reader.link().limit_unread(UNREAD, RATE);
        }
        let alike = self.begins_alike(&mut reader);
        let receiver = Receiver {
            shared: self.shared,
            service,
            answers: &self.answers,
            stop: &self.stop(),
            reader,
            preempt: None,
            listener: self.listener.as_ref(),
        };
        let result = alike.and_then(|()| receiver.run(&mut incoming));
        self.over(incoming, result)
    }

    fn clean_up(&mut self) {
        let link = self.answers.close();
        if matches!(self.listening, Listening::Yes(_)) {
            // What failed was the rest.
            self.stop().stop();
        }
        self.listening.join();
        let mut registry = lock(&self.shared.registry);
        if let Some(service) = self.service.take() {
            service.end();
            registry.rejoin(std::mem::take(&mut *lock(&service.registry)));
        }
        drop(registry);
        let bql = self.shared.bql();
        lock(&self.shared.registry).load_cleanup(&bql);
        drop(bql);
        if let Some(link) = &link {
            link.finish();
        }
        // A source that cannot send its last bytes may take the guest for refused, and run it again. If it has no other way to hear
        // that the guest is refused, it must not be able to.
        let arrived =
            lock(&self.shared.destination).destination.status() == MigrationStatus::Completed;
        let stream = self.stream.take();
        let unheard = || stream.map(|(_, reader)| reader.link().clone());
        if let Some(link) = link.or_else(|| arrived.then(unheard).flatten()) {
            link.read_off();
        }
        self.listener = None;
    }
}

/// Whether nothing but VM state over BER will do.
fn must_be_framed(incoming: &Incoming) -> bool {
    incoming.settings().parameters.x_peer == Peer::Ber
}

/// Why a stream is refused that is QEMU's, in full.
const NOT_FRAMED: &str = "N09: the source does not speak VM state over BER, and x-peer is 'ber'";

/// No page comes any more. If nobody has promised to run the guest, nobody will; a device that waits for a page while it is being
/// loaded gets zeros, since that is the only way to have it fail.
fn abandon(promise: &Mutex<Promise>, service: &Service, why: &str) {
    let mut promise = lock(promise);
    if matches!(*promise, Promise::Not) {
        *promise = Promise::Void(why.to_owned());
        drop(promise);
        service.end();
    }
}

/// Waits for the channel of requested pages: the next connection.
fn accept_preempt(shared: &Shared, listener: &Listener, stop: &Stop) -> Result<Link, String> {
    let own = Stop::new().map_err(|error| format!("no descriptor: {error}"))?;
    listener
        .accept_another(stop, &own, shared.deadlines.silence)
        .map_err(|error| format!("preempt channel: {error}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the argument of map_err")]
fn text(error: LoadError) -> String {
    super::outgoing::reason(&error)
}
