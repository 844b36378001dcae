//! A server for one of our machines.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vmstate_qmp::{
    CommandTable, Dialogue, Event, Incoming, MachineEvent, Request, Timestamp, Version, event_line,
};

use super::outbox::Outbox;
use super::socket::{Listener, QmpAddress, Stream};
use crate::descriptors::Descriptors;

/// Clients at a time. More are turned away.
const MOST_CLIENTS: usize = 16;
/// Commands of a client that may wait for one that runs, if others may overtake them. As many as QEMU lets wait.
const WAITING: usize = 8;
/// How long a client may take to accept anything at all.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an ending server waits for its clients to take their last replies.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long to leave it be after a connection that could not be accepted, say for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Where a machine tells what happens. Every client of every server that was started with this value, or with a clone of
/// it, hears of it.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Hub>);

#[derive(Debug, Default)]
struct Hub {
    clients: Mutex<BTreeMap<u64, Client>>,
    last: Mutex<u64>,
}

#[derive(Debug, Clone)]
struct Client {
    outbox: Arc<Outbox>,
    stream: Arc<Stream>,
}

impl Events {
    /// Nobody listens yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells of something that happens now. Does not wait: a client that has not read for long is cut off.
    pub fn emit(&self, event: &MachineEvent) {
        self.emit_at(event, SystemTime::now());
    }

    /// Tells of something that happened at this time.
    pub fn emit_at(&self, event: &MachineEvent, at: SystemTime) {
        self.send(&event.at(timestamp(at)));
    }

    /// Tells of something else.
    pub fn send(&self, event: &Event) {
        let line = event_line(event);
        for client in self.clients().values() {
            if !client.outbox.event(&line) {
                client.outbox.discard();
                client.stream.shut_down();
            }
        }
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, Client>> {
        // Nothing that panics is done under the lock.
        self.0
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: there are enough.
    fn join(&self, client: &Client) -> Option<u64> {
        let mut clients = self.clients();
        if clients.len() >= MOST_CLIENTS {
            return None;
        }
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        clients.insert(*last, client.clone());
        Some(*last)
    }

    fn leave(&self, number: u64) {
        self.clients().remove(&number);
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp {
            seconds: since.as_secs().try_into().unwrap_or(-1),
            microseconds: since.subsec_micros().into(),
        },
        Err(_) => Timestamp {
            seconds: -1,
            microseconds: -1,
        },
    }
}

/// A monitor that listens and does not answer yet.
#[derive(Debug)]
pub struct QmpServer {
    listener: Listener,
    address: QmpAddress,
    descriptors: Descriptors,
}

impl QmpServer {
    /// Listens. A Unix socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// A place where one cannot listen.
    pub fn bind(address: &QmpAddress) -> io::Result<Self> {
        let listener = Listener::bind(address)?;
        let address = listener.address()?;
        Ok(Self {
            listener,
            address,
            descriptors: Descriptors::default(),
        })
    }

    /// Descriptors that clients send go here, for [`getfd`](Descriptors::name).
    #[must_use]
    pub fn with_descriptors(mut self, descriptors: Descriptors) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// Where. A TCP port that was 0 is the one that was chosen.
    #[must_use]
    pub const fn address(&self) -> &QmpAddress {
        &self.address
    }

    /// Answers. Each client has a thread of its own that runs its commands, one after the other; another one writes. If there are
    /// commands that may be run out of band, that is offered; a client that enables it has a third thread, and such
    /// commands do not wait for the others.
    ///
    /// # Errors
    /// No thread.
    pub fn start<C>(
        self,
        commands: CommandTable<C>,
        context: Arc<C>,
        events: &Events,
        version: Version,
    ) -> io::Result<RunningQmpServer>
    where
        C: Send + Sync + ?Sized + 'static,
    {
        let shared = Arc::new(Shared {
            listener: self.listener,
            ending: AtomicBool::new(false),
            events: events.clone(),
            mine: Mutex::new(BTreeMap::new()),
        });
        let service = Arc::new(Service {
            commands,
            context,
            version,
            descriptors: self.descriptors,
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("qmp".to_owned())
                .spawn(move || accept(&shared, &service))?
        };
        Ok(RunningQmpServer {
            address: self.address,
            shared,
            accepting: Some(accepting),
        })
    }
}

struct Service<C: ?Sized> {
    commands: CommandTable<C>,
    context: Arc<C>,
    version: Version,
    descriptors: Descriptors,
}

struct Shared {
    listener: Listener,
    ending: AtomicBool,
    events: Events,
    /// The clients of this server.
    mine: Mutex<BTreeMap<u64, (Client, JoinHandle<()>)>>,
}

impl Shared {
    fn mine(&self) -> MutexGuard<'_, BTreeMap<u64, (Client, JoinHandle<()>)>> {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A monitor that answers, until this is closed or dropped.
#[derive(Debug)]
pub struct RunningQmpServer {
    address: QmpAddress,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl RunningQmpServer {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> &QmpAddress {
        &self.address
    }

    /// Sends what is still to be sent, for two seconds at most, and ends all connections. Not to be called by a command:
    /// it waits for commands that run.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.listener.shut_down();
        // A thread that has panicked has said so.
        let _ = accepting.join();
        let end = Instant::now() + LAST_WORDS;
        let mine = std::mem::take(&mut *self.shared.mine());
        for (client, _) in mine.values() {
            // The command that ends the machine has an answer, too.
            client.outbox.answered(end);
            client.outbox.close();
        }
        for (client, _) in mine.values() {
            client.outbox.drained(end);
            client.stream.shut_down();
        }
        for (_, (_, thread)) in mine {
            let _ = thread.join();
        }
    }
}

impl Drop for RunningQmpServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn accept<C: Send + Sync + ?Sized + 'static>(shared: &Arc<Shared>, service: &Arc<Service<C>>) {
    while !shared.ending.load(Ordering::SeqCst) {
        let accepted = shared.listener.accept();
        shared.mine().retain(|_, (_, thread)| !thread.is_finished());
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            // A client that cannot be served is a client that is gone.
            Ok(stream) => drop(admit(stream, shared, service)),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn admit<C: Send + Sync + ?Sized + 'static>(
    stream: Stream,
    shared: &Arc<Shared>,
    service: &Arc<Service<C>>,
) -> io::Result<()> {
    stream.set_timeouts(None, WRITE_TIMEOUT)?;
    let client = Client {
        outbox: Arc::new(Outbox::default()),
        stream: Arc::new(stream),
    };
    let Some(number) = shared.events.join(&client) else {
        return Ok(());
    };
    let thread = {
        let (client, service) = (client.clone(), Arc::clone(service));
        let events = shared.events.clone();
        thread::Builder::new()
            .name(format!("qmp-{number}"))
            .spawn(move || {
                serve(&client, &service);
                service.descriptors.forget();
                events.leave(number);
                client.stream.shut_down();
            })
    };
    match thread {
        Ok(thread) => {
            shared.mine().insert(number, (client, thread));
            Ok(())
        }
        Err(e) => {
            shared.events.leave(number);
            Err(e)
        }
    }
}

/// Reads commands, runs them and has their replies written, until the client goes.
fn serve<C: Send + Sync + ?Sized>(client: &Client, service: &Service<C>) {
    let mut dialogue = Dialogue::new(service.version.clone());
    if service.commands.has_out_of_band() {
        dialogue = dialogue.with_out_of_band();
    }
    let outbox = &client.outbox;
    thread::scope(|scope| {
        let writer = thread::Builder::new()
            .name("qmp-writer".to_owned())
            .spawn_scoped(scope, || write(client));
        if writer.is_err() || !outbox.say(dialogue.greeting(), false) {
            return outbox.close();
        }
        // What waits for a command that runs, and who runs them.
        let mut queue: Option<(SyncSender<Request>, ScopedJoinHandle<'_, ()>)> = None;
        let mut buffer = [0; 4096];
        loop {
            let mut bytes = match client.stream.receive(&mut buffer, &service.descriptors) {
                Ok(0) => break,
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            while let Some(incoming) = dialogue.receive(&mut bytes) {
                if dialogue.is_out_of_band() && queue.is_none() {
                    let (sender, requests) = mpsc::sync_channel(WAITING);
                    let runner = thread::Builder::new()
                        .name("qmp-in-band".to_owned())
                        .spawn_scoped(scope, || run_all(client, service, requests));
                    let Ok(runner) = runner else {
                        return outbox.close();
                    };
                    queue = Some((sender, runner));
                }
                let goes_on = match (incoming, &queue) {
                    (Incoming::Reply(line), _) => outbox.say(line, dialogue.wants_events()),
                    (Incoming::OutOfBand(request), _) => {
                        outbox.begin();
                        let response = service.commands.run_out_of_band(&service.context, request);
                        outbox.answer(Dialogue::answer(&response))
                    }
                    (Incoming::Command(request), None) => {
                        outbox.begin();
                        run(client, service, request)
                    }
                    (Incoming::Command(request), Some((queue, _))) => {
                        outbox.begin();
                        queue.send(request).is_ok()
                    }
                };
                if !goes_on {
                    return;
                }
            }
        }
        if let Some((sender, runner)) = queue {
            // A client that says nothing more still hears what came of what it has said.
            drop(sender);
            // One that has panicked has said so.
            let _ = runner.join();
        }
        outbox.close();
    });
}

/// Runs a command and has its reply written. `false`: nobody takes it any more.
fn run<C: Send + Sync + ?Sized>(client: &Client, service: &Service<C>, request: Request) -> bool {
    let response = service.commands.run(&service.context, request);
    client.outbox.answer(Dialogue::answer(&response))
}

/// The same for commands that others overtake.
fn run_all<C: Send + Sync + ?Sized>(
    client: &Client,
    service: &Service<C>,
    requests: Receiver<Request>,
) {
    for request in requests {
        if !run(client, service, request) {
            return;
        }
    }
}

fn write(client: &Client) {
    while let Some(line) = client.outbox.next() {
        if (&*client.stream).write_all(&line).is_err() {
            client.outbox.discard();
            client.stream.shut_down();
            // Says that the last line is not being written any more.
            let _ = client.outbox.next();
            return;
        }
    }
}
