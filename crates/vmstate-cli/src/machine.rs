//! `vmstate machine`.

mod commands;
mod guest;
mod sensor;

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vmstate_dbus::Objects;
use vmstate_engine::{Peer, RunState, Supported};
use vmstate_io::live::{Deadlines, MigrationEvent, Migrator, Monitor, RunControl};
use vmstate_io::qmp::{Events, QmpServer, RunningQmpServer};
use vmstate_qmp::address::MigrationAddress;
use vmstate_qmp::{MachineEvent, QmpMachine as _, Version, VersionTriple};
use vmstate_spike::{Config, Event, Machine, Occurrence};

use crate::args;
use crate::demo;
use crate::outcome::{Failure, Verdict, complain};

pub(crate) use commands::{GuestReport, Range};
use sensor::Sensor;
pub(crate) use sensor::Shape;

/// The release whose board, stream and monitor this is.
const QEMU: VersionTriple = VersionTriple {
    major: 11,
    minor: 1,
    micro: 0,
};

/// What ends or changes the machine, from all its threads.
#[derive(Debug)]
enum Happening {
    Machine(Occurrence),
    Migration(MigrationEvent),
    /// Somebody wants it to end, for this reason in QEMU's words.
    Quit(&'static str),
    /// The demo that it belongs to has gone.
    Alone,
}

/// The machine, as its monitor commands it.
#[derive(Debug)]
pub(crate) struct Board {
    machine: Arc<Machine>,
    objects: Objects,
    sensor: Option<Sensor>,
    main: Mutex<Sender<Happening>>,
}

impl Board {
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    pub(crate) fn sensor(&self) -> Option<&Sensor> {
        self.sensor.as_ref()
    }
}

impl RunControl for Board {
    fn run_state(&self) -> RunState {
        self.machine.run_state()
    }

    fn pause(&self) {
        self.machine.pause();
    }

    fn resume(&self) -> Result<(), String> {
        self.machine.resume().map_err(|error| error.to_string())
    }

    fn quit(&self) {
        send(&self.main, Happening::Quit("host-qmp-quit"));
    }
}

/// Tells the main thread. It may have left already.
fn send(to: &Mutex<Sender<Happening>>, happening: Happening) {
    let to = to.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = to.send(happening);
}

pub(crate) fn run(arguments: &args::Machine) -> Result<Verdict, Failure> {
    let incoming = arguments.incoming.is_some();
    let machine = make(arguments, incoming)?;
    let (sender, happenings) = channel();
    watch(&machine, &sender)?;
    if arguments.demo_dir.is_some() {
        watch_standard_input(&sender)?;
    }
    let mut vmm = machine
        .vmm(incoming, !arguments.paused)
        .map_err(|e| Failure::new(e.to_string()))?;
    let sensor = arguments.sensor.map(|shape| Sensor::new(shape, !incoming));
    if let Some(sensor) = &sensor {
        let registered = sensor.register(&mut vmm.registry);
        registered.map_err(|e| Failure::new(e.to_string()))?;
    }
    let deadlines = Deadlines {
        connect: Duration::from_secs(arguments.connect_timeout),
        silence: Duration::from_secs(arguments.silence_timeout),
    };
    let observer = Mutex::new(sender.clone());
    let migrator = Migrator::new(vmm, deadlines, move |event| {
        send(&observer, Happening::Migration(event.clone()));
    })
    .map_err(|e| Failure::new(format!("cannot begin: {e}")))?;
    let peer = Peer::from_name(arguments.peer.name()).unwrap_or_default();
    let set: Result<(), Infallible> = migrator.change_settings(|settings| {
        settings.parameters.x_peer = peer;
        for (property, on) in &arguments.global {
            match property {
                args::Property::PreemptPre7_2 => settings.dialect.preempt_pre_7_2 = *on,
            }
        }
        Ok(())
    });
    let Ok(()) = set;
    let board = Board {
        machine: Arc::clone(&machine),
        objects: objects(arguments, &migrator)?,
        sensor,
        main: Mutex::new(sender),
    };
    let version = Version {
        qemu: QEMU,
        package: concat!("vmstate-", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let monitor = Arc::new(Monitor::new(board, migrator, version, Supported::default()));
    let events = Events::new();
    let servers = serve(arguments, &monitor, &events)?;
    match arguments.incoming.as_deref() {
        None if arguments.paused => {}
        None => machine.resume().map_err(|e| Failure::new(e.to_string()))?,
        Some("defer") => {}
        Some(uri) => listen(uri, &monitor)?,
    }
    let (verdict, alone) = live(&monitor, &events, &happenings);
    for server in servers {
        server.close();
    }
    if let Some(dir) = arguments.demo_dir.as_ref().filter(|_| alone) {
        demo::remove(dir);
    }
    Ok(verdict)
}

/// Makes the objects of the command line.
fn objects(arguments: &args::Machine, migrator: &Migrator) -> Result<Objects, Failure> {
    let migrator = migrator.clone();
    let objects = Objects::new(move |change| {
        let changed = migrator.change_registry(change);
        changed.map_err(|error| error.to_string())
    });
    for options in &arguments.object {
        let added = objects.add(options);
        added.map_err(|e| Failure::new(format!("--object {}: {e}", options.id)))?;
    }
    Ok(objects)
}

fn make(arguments: &args::Machine, incoming: bool) -> Result<Arc<Machine>, Failure> {
    let file = guest::read(&arguments.guest)?;
    let program = guest::program(&arguments.guest, &file)?;
    let config = Config {
        harts: arguments.harts,
        ram: arguments.ram,
        prealloc: arguments.prealloc,
        program: Some(program),
        incoming,
        console: (!arguments.quiet).then(|| Box::new(std::io::stdout()) as _),
        ..Config::default()
    };
    let machine = Machine::new(config).map_err(|e| Failure::new(e.to_string()))?;
    if !incoming && arguments.guest == "dirtier" {
        guest::set(&machine, &arguments.load)?;
    }
    Ok(Arc::new(machine))
}

/// Hands on what the machine and the operating system tell.
fn watch(machine: &Machine, sender: &Sender<Happening>) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot begin: {e}"));
    let (events, to) = (machine.events(), sender.clone());
    std::thread::Builder::new()
        .name("machine events".to_owned())
        .spawn(move || {
            for event in events {
                if to.send(Happening::Machine(event)).is_err() {
                    return;
                }
            }
        })
        .map_err(failed)?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let to = sender.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if to.send(Happening::Quit("host-signal")).is_err() {
                    return;
                }
            }
        })
        .map_err(failed)?;
    Ok(())
}

/// The demo holds the other end, and writes nothing: it ends when the demo does.
fn watch_standard_input(sender: &Sender<Happening>) -> Result<(), Failure> {
    let to = sender.clone();
    std::thread::Builder::new()
        .name("standard input".to_owned())
        .spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = to.send(Happening::Alone);
        })
        .map_err(|e| Failure::new(format!("cannot begin: {e}")))?;
    Ok(())
}

fn serve(
    arguments: &args::Machine,
    monitor: &Arc<Monitor<Board>>,
    events: &Events,
) -> Result<Vec<RunningQmpServer>, Failure> {
    let mut servers = Vec::new();
    for address in &arguments.qmp {
        let failed = |e| Failure::new(format!("cannot answer QMP at {address}: {e}"));
        let descriptors = monitor.migrator().descriptors().clone();
        let server = QmpServer::bind(address)
            .map_err(failed)?
            .with_descriptors(descriptors);
        let started = server.start(
            commands::table(),
            Arc::clone(monitor),
            events,
            monitor.version(),
        );
        servers.push(started.map_err(failed)?);
    }
    Ok(servers)
}

fn listen(uri: &str, monitor: &Monitor<Board>) -> Result<(), Failure> {
    let address: MigrationAddress = uri
        .parse()
        .map_err(|e| Failure::new(format!("--incoming {uri}: {e}")))?;
    monitor
        .migrator()
        .incoming(&address)
        .map_err(|e| Failure::new(format!("--incoming {uri}: {e}")))?;
    Ok(())
}

/// Waits for the end, and tells clients of everything before. Also gives whether it has been left alone.
fn live(
    monitor: &Monitor<Board>,
    events: &Events,
    happenings: &Receiver<Happening>,
) -> (Verdict, bool) {
    let shutdown = |guest, reason| events.emit(&MachineEvent::Shutdown { guest, reason });
    while let Ok(happening) = happenings.recv() {
        match happening {
            Happening::Machine(Occurrence { at, event }) => match event {
                Event::Resumed => events.emit_at(&MachineEvent::Resume, at),
                Event::Stopped => events.emit_at(&MachineEvent::Stop, at),
                Event::Shutdown { status } => {
                    shutdown(true, "guest-shutdown");
                    if status == 0 {
                        return (Verdict::Yes, false);
                    }
                    complain(&format!("the guest ended with status {status}"), None);
                    return (Verdict::No, false);
                }
                Event::GuestFailed { error } => {
                    complain(&format!("the guest cannot go on: {error}"), None);
                    return (Verdict::No, false);
                }
                _ => {}
            },
            Happening::Migration(event) => {
                if let Some(event) = monitor.event(&event) {
                    events.emit(&event);
                }
                if let MigrationEvent::Arrived(Some(why)) = event {
                    complain(&format!("load of migration failed: {why}"), None);
                    if monitor.exits_on_error() {
                        return (Verdict::No, false);
                    }
                }
            }
            Happening::Quit(reason) => {
                // Harts may wait for memory that nobody sends any more.
                monitor.migrator().end();
                shutdown(false, reason);
                return (Verdict::Yes, false);
            }
            Happening::Alone => {
                monitor.migrator().end();
                return (Verdict::Yes, true);
            }
        }
    }
    (Verdict::Yes, false)
}
