//! Two machines in processes of their own.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vmstate_io::qmp::{QmpAddress, QmpClient, QmpClientError, Timeouts};

use crate::args::Demo;
use crate::machine::{GuestReport, Shape};
use crate::outcome::Failure;

/// Numbers of a sensor, by field.
pub(super) type Values = BTreeMap<String, i64>;

/// How long a machine may take to start, and its guest to fill memory.
const START: Duration = Duration::from_secs(60);
/// How long an event may be under way.
const EVENT: Duration = Duration::from_secs(5);
/// How long a machine may take to end.
const END: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// A machine, its monitor, and a second connection that hears its events.
pub(super) struct Side {
    process: Child,
    pub(super) client: QmpClient,
    events: QmpClient,
}

/// Source and destination. Dropping them ends their processes.
pub(super) struct Pair {
    dir: tempfile::TempDir,
    pub(super) source: Side,
    pub(super) destination: Side,
}

pub(super) fn lost(error: &QmpClientError) -> Failure {
    Failure::new(error.to_string())
}

impl Side {
    fn start(name: &str, dir: &tempfile::TempDir, more: &[String]) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::new(format!("cannot start the {name}: {e}"));
        let path = dir.path().join(name);
        let mut process = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["machine", "--guest", "dirtier", "--quiet", "--qmp"])
            .arg(&path)
            .args(more)
            // It ends with this process, however that ends.
            .arg("--demo-dir")
            .arg(dir.path())
            .stdin(Stdio::piped())
            // Ctrl-C on the terminal is for this process.
            .process_group(0)
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let address: QmpAddress = path
            .display()
            .to_string()
            .parse()
            .map_err(|e| Failure::new(format!("cannot start the {name}: {e}")))?;
        let deadline = Instant::now() + START;
        loop {
            let connect = || QmpClient::connect(&address, Timeouts::default());
            match connect().and_then(|client| Ok((client, connect()?))) {
                Ok((client, events)) => {
                    return Ok(Self {
                        process,
                        client,
                        events,
                    });
                }
                Err(error) => {
                    let ended = process.try_wait().map_err(failed)?;
                    if let Some(status) = ended {
                        return Err(Failure::new(format!("the {name} has ended: {status}")));
                    }
                    if Instant::now() >= deadline || !error.is_refused() {
                        end(&mut process);
                        return Err(lost(&error));
                    }
                    std::thread::sleep(POLL);
                }
            }
        }
    }

    /// When, in µs since 1970, the machine told of this last.
    fn time_of(&mut self, name: &str) -> Result<i64, Failure> {
        let deadline = Instant::now() + EVENT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.next_event(left).map_err(|e| lost(&e))?;
            let Some(event) = event else {
                return Err(Failure::new(format!("the event {name} did not come")));
            };
            if event.name == name {
                let at = event.timestamp;
                return Ok(at.seconds.saturating_mul(1_000_000) + at.microseconds);
            }
        }
    }

    pub(super) fn query<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: Value,
    ) -> Result<T, Failure> {
        self.client
            .query(command, arguments)
            .map_err(|error| lost(&error))
    }

    fn quit(&mut self) {
        // It may be gone.
        let _ = self.client.run("quit", json!({}));
    }
}

/// Names in the directory: both monitors, and where the destination waits.
const NAMES: [&str; 3] = ["source", "destination", "migration"];

/// Removes the directory of a demo that has ended without doing so. Both machines come here; the last one finds it empty.
pub(crate) fn remove(dir: &Path) {
    for name in NAMES {
        let _ = std::fs::remove_file(dir.join(name));
    }
    let _ = std::fs::remove_dir(dir);
}

/// Ends a process that this one has started.
fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

impl Drop for Side {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            end(&mut self.process);
        }
    }
}

impl Pair {
    pub(super) fn start(demo: &Demo) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new()
            .prefix("vmstate-demo-")
            .tempdir()
            .map_err(|e| Failure::new(format!("cannot make a directory for sockets: {e}")))?;
        let with_harts = |harts: u32| {
            let words = [
                "--ram",
                &demo.ram.to_string(),
                "--harts",
                &harts.to_string(),
            ];
            words.map(str::to_owned).to_vec()
        };
        let mut board = with_harts(demo.harts);
        let mut incoming = with_harts(demo.destination_harts.unwrap_or(demo.harts));
        incoming.extend(["--incoming".to_owned(), "defer".to_owned()]);
        for (name, value) in [
            ("--working-set", demo.working_set),
            ("--dirty-rate", demo.dirty_rate),
            ("--fill", demo.fill),
        ] {
            board.extend([name.to_owned(), value.to_string()]);
        }
        if let Some(shape) = demo.variant {
            board.extend(["--sensor", Shape::Plain.name()].map(str::to_owned));
            incoming.extend(["--sensor", shape.name()].map(str::to_owned));
        }
        let source = Side::start("source", &dir, &board)?;
        let destination = Side::start("destination", &dir, &incoming)?;
        Ok(Self {
            dir,
            source,
            destination,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until the guest has filled its memory and does what it is there for.
    pub(super) fn wait_for_guest(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START;
        loop {
            let guest: GuestReport = self.source.query("x-query-guest", json!({}))?;
            if guest.ready {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Failure::new("the guest does not get ready"));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Pages that the guest has written at the source, now and a while later: it stays there.
    pub(super) fn goes_on(&mut self, time: Duration) -> Result<(u64, u64), Failure> {
        let mut count = || -> Result<u64, Failure> {
            let guest: GuestReport = self.source.query("x-query-guest", json!({}))?;
            Ok(guest.counter)
        };
        let before = count()?;
        std::thread::sleep(time);
        Ok((before, count()?))
    }

    /// What the sensors have measured: the source's, and the destination's.
    pub(super) fn sensors(&mut self) -> Result<[Values; 2], Failure> {
        let source = self.source.query("x-query-sensor", json!({}))?;
        let destination = self.destination.query("x-query-sensor", json!({}))?;
        Ok([source, destination])
    }

    /// How long the guest stood still: from its stop at the source to its start at the destination.
    pub(super) fn stopped(&mut self) -> Result<Duration, Failure> {
        let stop = self.source.time_of("STOP")?;
        let resume = self.destination.time_of("RESUME")?;
        Ok(Duration::from_micros(
            u64::try_from(resume.saturating_sub(stop)).unwrap_or(0),
        ))
    }

    pub(super) fn end(&mut self) {
        let sides = [&mut self.source, &mut self.destination];
        let deadline = Instant::now() + END;
        for side in sides {
            side.quit();
            while Instant::now() < deadline && matches!(side.process.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
        }
    }
}
