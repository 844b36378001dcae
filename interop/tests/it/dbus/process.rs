//! Helpers as processes.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use vmstate_interop::{Bus, Result, unit_command};

/// How long a helper may take for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with this value.
struct Running {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut running = Self { child, said };
        let first = running.line()?;
        if first == "ready" {
            Ok(running)
        } else {
            Err(format!("a helper said {first:?}, not that it is ready").into())
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example's key-value store, started by the command of `docs/dbus/vm-helper@.service`.
pub(super) struct Store {
    _process: Running,
    client: BufReader<UnixStream>,
}

impl Store {
    pub(super) fn on(bus: &Bus, id: &str) -> Result<Self> {
        Self::start(bus, id, None)
    }

    /// The same, run by this user; only root may do so.
    pub(super) fn run_by(bus: &Bus, id: &str, uid: u32) -> Result<Self> {
        Self::start(bus, id, Some(uid))
    }

    fn start(bus: &Bus, id: &str, uid: Option<u32>) -> Result<Self> {
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(2).ok_or("no target directory")?;
        let example = target.join("examples/helper");
        if !example.exists() {
            // Cargo builds examples with all tests of a package, not with a chosen one.
            return Err(
                "build the helper first: cargo build -p vmstate-interop --example helper".into(),
            );
        }
        let mut example = example.display().to_string();
        let mut dir = bus.dir().display().to_string();
        if let Some(uid) = uid {
            // Where another user may read and write.
            let own = bus.dir().join(id);
            fs::create_dir(&own)?;
            chown(&own, Some(uid), None)?;
            fs::set_permissions(bus.dir(), fs::Permissions::from_mode(0o755))?;
            let copy = bus.dir().join(format!("program-{id}"));
            // By a process: a file that is open for writing cannot be started, nor can it while another thread's child has inherited it.
            let status = Command::new("cp").arg(&example).arg(&copy).status()?;
            if !status.success() {
                return Err(format!("cp: {status}").into());
            }
            example = copy.display().to_string();
            dir = own.display().to_string();
        }
        let bus_dir = bus.dir().display().to_string();
        let words = unit_command(
            "vm-helper@.service",
            &[
                ("/usr/libexec/key_value", &example),
                ("/run/vm-helper/%i", &dir),
                ("/run/vm/%i", &bus_dir),
                ("kv0", id),
            ],
        )?;
        let (program, arguments) = words.split_first().ok_or("no command")?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(uid) = uid {
            command.uid(uid);
        }
        let process = Running::start(command)?;
        let socket: PathBuf = Path::new(&dir).join(id);
        let client = UnixStream::connect(socket)?;
        client.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            _process: process,
            client: BufReader::new(client),
        })
    }

    /// Sends a line and reads the answer.
    pub(super) fn line(&mut self, line: &str) -> Result<String> {
        writeln!(self.client.get_mut(), "{line}")?;
        let mut answer = String::new();
        self.client.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }
}

/// The helper in Python.
pub(super) struct Python(Running);

impl Python {
    /// Starts it, if there is a Python with the library: the one that `VMSTATE_PYTHON` names, else `python3`.
    pub(super) fn on(bus: &Bus, id: &str, state: &[u8]) -> Result<Option<Self>> {
        let python = std::env::var_os("VMSTATE_PYTHON").unwrap_or_else(|| "python3".into());
        let found = Command::new(&python)
            .args(["-c", "import dbus_fast"])
            .stderr(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            assert!(
                std::env::var_os("VMSTATE_REQUIRE_PYTHON").is_none(),
                "a Python with dbus-fast is required and missing"
            );
            // Not through the macro: what a passing test prints would not be seen.
            let _ = std::io::stderr().write_all(b"skipped: no Python with dbus-fast\n");
            return Ok(None);
        }
        let hex: String = state.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut command = Command::new(python);
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/dbus_helper.py"))
            .args([&bus.address(), id, &hex]);
        Ok(Some(Self(Running::start(command)?)))
    }

    /// The next line that it prints.
    pub(super) fn said(&mut self) -> Result<String> {
        self.0.line()
    }
}
