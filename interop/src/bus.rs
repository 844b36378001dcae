//! A message bus of its own for a test, as the documentation says that a machine should have one.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;

/// How long the daemon may take to open its socket.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// A `dbus-daemon`, started by the command of `docs/dbus/vm-bus@.service` on the policy of `docs/dbus/vm-bus.conf`. It ends when this is
/// dropped.
#[derive(Debug)]
pub struct Bus {
    child: Child,
    dir: TempDir,
}

/// Who may do what on a [`Bus`]: user names or numbers.
#[derive(Debug, Clone)]
pub struct Users {
    /// Runs helpers.
    pub helper: String,
    /// Runs the machine, and the daemon.
    pub machine: String,
}

impl Users {
    /// The test's own user is both.
    ///
    /// # Errors
    /// A system without `/proc`.
    pub fn own() -> Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let uid = fs::metadata("/proc/self")?.uid().to_string();
        Ok(Self {
            helper: uid.clone(),
            machine: uid,
        })
    }
}

/// A file of the documentation on D-Bus.
///
/// # Errors
/// If it is not there.
pub fn dbus_document(name: &str) -> Result<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dbus");
    Ok(fs::read_to_string(dir.join(name))?)
}

/// The words of the command that a unit of the documentation starts, with `changes` made in each.
///
/// # Errors
/// A unit without a command.
pub fn unit_command(unit: &str, changes: &[(&str, &str)]) -> Result<Vec<String>> {
    let text = dbus_document(unit)?;
    let command = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let command = command.ok_or_else(|| format!("{unit} starts nothing"))?;
    let change = |word: &str| {
        changes
            .iter()
            .fold(word.to_owned(), |word, (from, to)| word.replace(from, to))
    };
    Ok(command.split_whitespace().map(change).collect())
}

impl Bus {
    /// Starts a bus, if there is a `dbus-daemon`. Where it is missing, says so.
    ///
    /// # Errors
    /// A daemon that does not start.
    ///
    /// # Panics
    /// If it is missing and `VMSTATE_REQUIRE_DBUS` is set.
    pub fn start() -> Result<Option<Self>> {
        Self::start_for(&Users::own()?)
    }

    /// As [`start`](Self::start), for these users.
    ///
    /// # Errors
    /// A daemon that does not start.
    ///
    /// # Panics
    /// If it is missing and `VMSTATE_REQUIRE_DBUS` is set.
    pub fn start_for(users: &Users) -> Result<Option<Self>> {
        let found = Command::new("dbus-daemon").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            assert!(
                std::env::var_os("VMSTATE_REQUIRE_DBUS").is_none(),
                "dbus-daemon is required and missing"
            );
            // Not through the macro: what a passing test prints would not be seen.
            let _ = std::io::stderr().write_all(b"skipped: no dbus-daemon\n");
            return Ok(None);
        }
        let dir = tempfile::Builder::new().prefix("vmstate-bus-").tempdir()?;
        let policy = dbus_document("vm-bus.conf")?
            .replace("\"vm-helper\"", &format!("\"{}\"", users.helper))
            .replace("\"vm-machine\"", &format!("\"{}\"", users.machine));
        let config = dir.path().join("vm-bus.conf");
        fs::write(&config, policy)?;
        let words = unit_command(
            "vm-bus@.service",
            &[
                ("/usr/bin/dbus-daemon", "dbus-daemon"),
                ("/etc/vm", &dir.path().display().to_string()),
                ("/run/vm/%i", &dir.path().display().to_string()),
            ],
        )?;
        let (program, arguments) = words.split_first().ok_or("no command")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(fs::File::create(dir.path().join("stderr"))?)
            .spawn()?;
        let mut bus = Self { child, dir };
        bus.wait()?;
        Ok(Some(bus))
    }

    /// Waits until the daemon listens.
    fn wait(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let blame = |bus: &Self, what: &str| {
            let said = fs::read_to_string(bus.dir.path().join("stderr")).unwrap_or_default();
            format!("dbus-daemon {what}\n{said}")
        };
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(blame(self, &format!("ended with {status}")).into());
            }
            if Instant::now() > end {
                return Err(blame(self, "does not listen").into());
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("bus")
    }

    /// The bus's address, as D-Bus writes it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// The bus's own directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the daemon has said.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
