//! A running QEMU.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{Program, Qmp, Result};

/// How long a start or a migration may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often is looked.
const PAUSE: Duration = Duration::from_millis(10);

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The guest's main memory: a file that QEMU maps and that can be read from outside.
#[derive(Debug, Clone, Copy)]
pub struct Ram<'a> {
    /// Name of the RAM block.
    pub block: &'a str,
    /// Bytes.
    pub size: u64,
}

/// A QEMU process. It ends when this is dropped.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    qmp: Option<Qmp>,
    dir: TempDir,
    /// Where the guest's memory is: its pages must be ones that can come late.
    _shared: Option<TempDir>,
}

/// A file system in memory.
const SHARED: &str = "/dev/shm";

impl Machine {
    /// Starts QEMU without default devices and display, with these arguments. `DIR/` stands for its directory in them,
    /// into which `files` are put before.
    ///
    /// # Errors
    /// A QEMU that does not start, with what it says.
    pub fn start(
        program: &Program,
        ram: Ram<'_>,
        files: &[(&str, &[u8])],
        arguments: &[String],
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("vmstate-").tempdir()?;
        for (name, content) in files {
            fs::write(dir.path().join(name), content)?;
        }
        let mut shared = None;
        if Path::new(SHARED).is_dir() {
            let place = tempfile::Builder::new()
                .prefix("vmstate-")
                .tempdir_in(SHARED)?;
            let memory = place.path().join("ram");
            // QEMU makes no file behind a link.
            File::create(&memory)?;
            symlink(&memory, dir.path().join("ram"))?;
            shared = Some(place);
        }
        let socket = dir.path().join("qmp");
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let here = format!("{}/", dir.path().display());
        let mut command = program.command();
        command
            .args(["-nodefaults", "-display", "none", "-accel", "tcg"])
            .args(["-m", &format!("{}k", ram.size >> 10)])
            .arg("-object")
            .arg(format!(
                "memory-backend-file,id={},size={},share=on,mem-path={here}ram",
                ram.block, ram.size
            ))
            .arg("-chardev")
            .arg(format!("socket,id=qmp,path={}", socket.display()))
            .args(["-mon", "chardev=qmp,mode=control"])
            .args(arguments.iter().map(|a| a.replace("DIR/", &here)))
            .stdout(File::create(dir.path().join("stdout"))?)
            .stderr(File::create(dir.path().join("stderr"))?);
        let mut machine = Self {
            child: command.spawn()?,
            qmp: None,
            dir,
            _shared: shared,
        };
        let stream = machine.accept(&listener)?;
        machine.qmp = Some(Qmp::new(stream).map_err(|e| machine.blame(&e.to_string()))?);
        Ok(machine)
    }

    fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream> {
        let end = Instant::now() + PATIENCE;
        loop {
            match listener.accept() {
                Ok((stream, _)) => return Ok(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.blame(&format!("ended with {status}")).into());
            }
            if Instant::now() > end {
                return Err(self.blame("does not open its monitor").into());
            }
            sleep(PAUSE);
        }
    }

    /// A message with what QEMU has said.
    fn blame(&self, what: &str) -> String {
        let said = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
        format!("QEMU: {what}\n{said}")
    }

    /// The machine's own directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a QMP command.
    ///
    /// # Errors
    /// What QEMU refuses.
    pub fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let Some(qmp) = &mut self.qmp else {
            return Err("no monitor".into());
        };
        let result = qmp.run(command, arguments);
        result.map_err(|e| self.blame(&e.to_string()).into())
    }

    /// Runs a line of the human monitor.
    ///
    /// # Errors
    /// A monitor that fails; what the line itself refuses is in its text.
    pub fn human(&mut self, line: &str) -> Result<String> {
        let text = self.run("human-monitor-command", json!({ "command-line": line }))?;
        Ok(text.as_str().unwrap_or_default().trim().to_owned())
    }

    /// Whether the guest runs.
    ///
    /// # Errors
    /// A monitor that fails.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.run("query-status", json!({}))?["running"] == true)
    }

    /// Switches these migration capabilities on.
    ///
    /// # Errors
    /// Those that QEMU does not know.
    pub fn capabilities(&mut self, names: &[&str]) -> Result<()> {
        let list: Vec<_> = names
            .iter()
            .map(|name| json!({ "capability": name, "state": true }))
            .collect();
        self.run("migrate-set-capabilities", json!({ "capabilities": list }))?;
        Ok(())
    }

    /// Migrates to this place, to the end.
    ///
    /// # Errors
    /// A migration that fails or takes too long.
    pub fn migrate(&mut self, uri: &str) -> Result<Value> {
        self.run("migrate", json!({ "uri": uri }))?;
        self.wait_for_migration()
    }

    /// Writes a stream into a file.
    ///
    /// # Errors
    /// As [`Machine::migrate`].
    pub fn migrate_to_file(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.dir().join(name);
        self.migrate(&format!("exec:cat > {}", path.display()))?;
        Ok(path)
    }

    /// Loads a stream from a file, in a machine that waits for one.
    ///
    /// # Errors
    /// A stream that QEMU refuses.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let uri = format!("exec:cat {}", path.display());
        self.run("migrate-incoming", json!({ "uri": uri }))?;
        self.wait_for_migration()?;
        Ok(())
    }

    /// Waits for the migration's end.
    ///
    /// # Errors
    /// A migration that fails or takes too long.
    pub fn wait_for_migration(&mut self) -> Result<Value> {
        let status = self.wait_until("the end of the migration", |machine| {
            let status = machine.run("query-migrate", json!({}))?;
            Ok(match status["status"].as_str() {
                Some("completed" | "failed" | "cancelled") => Some(status),
                _ => None,
            })
        })?;
        if status["status"] == "completed" {
            Ok(status)
        } else {
            Err(self.blame(&format!("migration: {status}")).into())
        }
    }

    /// Asks again and again until there is an answer.
    ///
    /// # Errors
    /// What the question gives, and an answer that does not come.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask(self)? {
                return Ok(answer);
            }
            if Instant::now() > end {
                return Err(self.blame(&format!("no {what} in {PATIENCE:?}")).into());
            }
            sleep(PAUSE);
        }
    }

    /// The guest's main memory, as it is now.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn ram(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.dir().join("ram"))?)
    }

    /// The little-endian word at this offset of the guest's main memory.
    ///
    /// # Errors
    /// A file that cannot be read or is too short.
    pub fn word(&self, offset: u64) -> Result<u32> {
        use std::os::unix::fs::FileExt;
        let mut word = [0; 4];
        File::open(self.dir().join("ram"))?.read_exact_at(&mut word, offset)?;
        Ok(u32::from_le_bytes(word))
    }

    /// Waits until the word at this offset changes: until the guest does something.
    ///
    /// # Errors
    /// A guest that does nothing.
    pub fn wait_for_change(&mut self, offset: u64) -> Result<()> {
        let before = self.word(offset)?;
        self.wait_until("sign of life", |machine| {
            Ok((machine.word(offset)? != before).then_some(()))
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
