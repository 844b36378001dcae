//! Machines in processes of their own: `vmstate machine`, and stock QEMU's `spike`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use vmstate_interop::{Generation, Machine as Qemu, Program, Ram, find};
use vmstate_io::qmp::{QmpAddress, QmpClient, Timeouts};
use vmstate_spike::board::RAM_BASE;
use vmstate_spike::guests::COUNTER;

use crate::support::vmstate;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);
/// Guest physical address of the first hart's counter.
const COUNT: u64 = RAM_BASE + 0x1200;

/// Where a guest can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    /// One of ours that speaks and hears nothing but VM state over BER.
    Ber,
    Qemu,
}

impl Kind {
    pub(crate) fn is_ours(self) -> bool {
        self != Self::Qemu
    }
}

/// QEMU, where a test cannot do without.
pub(crate) fn qemu() -> Option<Program> {
    find(Generation::V11_1, "riscv64")
}

/// A machine with 16 MiB, 2 harts and the counting guest, or waiting for it. It is killed when this is dropped.
pub(crate) struct Host {
    ours: Option<Child>,
    _qemu: Option<Qemu>,
    /// Where another client finds its monitor.
    pub(crate) monitor: QmpAddress,
    client: QmpClient,
    dir: TempDir,
}

impl Host {
    /// A machine of this kind. `incoming` is an address, or `defer`.
    pub(crate) fn start(kind: Kind, incoming: Option<&str>) -> Self {
        match kind {
            Kind::Ours | Kind::Ber => Self::start_ours(kind, incoming, &["--guest", "counter"]),
            Kind::Qemu => {
                let dir = tempfile::tempdir().unwrap();
                let qemu = theirs(incoming);
                // Each serves one client at a time.
                let [one, other] = ["one", "other"].map(|name| qemu.dir().join(name));
                Self {
                    ours: None,
                    _qemu: Some(qemu),
                    client: connect(&QmpAddress::Unix(one)),
                    monitor: QmpAddress::Unix(other),
                    dir,
                }
            }
        }
    }

    /// A machine of ours, with this guest.
    pub(crate) fn start_ours(kind: Kind, incoming: Option<&str>, guest: &[&str]) -> Self {
        Self::start_with(kind, incoming, guest, 2)
    }

    /// A machine of ours with so many harts and the counting guest.
    pub(crate) fn with_harts(kind: Kind, incoming: Option<&str>, harts: u32) -> Self {
        Self::start_with(kind, incoming, &["--guest", "counter"], harts)
    }

    fn start_with(kind: Kind, incoming: Option<&str>, guest: &[&str], harts: u32) -> Self {
        Self::start_by(vmstate(), kind, incoming, guest, harts)
    }

    /// A machine of ours, started by this command, which gets the command line.
    pub(crate) fn start_by(
        command: Command,
        kind: Kind,
        incoming: Option<&str>,
        guest: &[&str],
        harts: u32,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Whoever it runs as.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let socket = dir.path().join("qmp");
        let child = ours(command, kind, &dir, &socket, (incoming, harts), guest);
        Self {
            ours: Some(child),
            _qemu: None,
            client: connect(&QmpAddress::Unix(socket.clone())),
            monitor: QmpAddress::Unix(socket),
            dir,
        }
    }

    /// A machine whose guest has begun to count.
    pub(crate) fn started(kind: Kind) -> Self {
        let mut host = Self::start(kind, None);
        host.goes_on();
        host
    }

    /// A path of its own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn run(&mut self, command: &str, arguments: Value) -> Value {
        self.client.run(command, arguments).unwrap()
    }

    /// Runs a command that may be refused. Returns whether it was not.
    pub(crate) fn accepts(&mut self, command: &str) -> bool {
        self.client.run(command, json!({})).is_ok()
    }

    /// Runs a command that is refused. Returns why.
    pub(crate) fn refused(&mut self, command: &str, arguments: Value) -> String {
        match self.client.run(command, arguments) {
            Err(error) => error.to_string(),
            Ok(answer) => panic!("{command} is accepted: {answer}"),
        }
    }

    /// Sets migration parameters.
    pub(crate) fn set(&mut self, parameters: Value) {
        self.run("migrate-set-parameters", parameters);
    }

    /// Switches a capability on.
    pub(crate) fn enable(&mut self, capability: &str) {
        let list = json!([{ "capability": capability, "state": true }]);
        self.run("migrate-set-capabilities", json!({ "capabilities": list }));
    }

    /// What `query-migrate` says, if the process is still there.
    pub(crate) fn info(&mut self) -> Option<Value> {
        self.client.run("query-migrate", json!({})).ok()
    }

    /// Whether its guest runs. That of a process that has ended does not.
    pub(crate) fn is_running(&mut self) -> bool {
        let status = self.client.run("query-status", json!({}));
        status.is_ok_and(|status| status["running"] == true)
    }

    /// Waits until the guest is started.
    pub(crate) fn wait_to_run(&mut self) {
        let end = Instant::now() + PATIENCE;
        while !self.is_running() {
            assert!(Instant::now() < end, "it is not started");
            sleep(PAUSE);
        }
    }

    /// Waits until `query-migrate` says this.
    pub(crate) fn wait_for(&mut self, status: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let info = self.info().unwrap();
            if info["status"] == status {
                return;
            }
            assert!(Instant::now() < end, "not {status}: {info}");
            sleep(PAUSE);
        }
    }

    /// The first hart's counter.
    fn count(&mut self) -> u64 {
        let path = self.path("count");
        let arguments = json!({ "val": COUNT, "size": 8, "filename": path });
        self.run("pmemsave", arguments);
        u64::from_le_bytes(fs::read(path).unwrap().try_into().unwrap())
    }

    /// Waits until the guest has counted on. Returns how far it is.
    pub(crate) fn goes_on(&mut self) -> u64 {
        let (before, end) = (self.count(), Instant::now() + PATIENCE);
        loop {
            let now = self.count();
            if now > before + 2 {
                return now;
            }
            assert!(Instant::now() < end, "the guest stands still at {now}");
            sleep(PAUSE);
        }
    }

    /// Stops one of ours, and lets it check all that its guest has computed. Returns how far that is.
    pub(crate) fn check(&mut self) -> u64 {
        self.run("stop", json!({}));
        let guest = self.run("x-query-guest", json!({}));
        self.run("cont", json!({}));
        guest["counter"].as_u64().unwrap()
    }

    /// Ends the process as `kill -9` does.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Waits until a process of ours has ended by itself. Returns its exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let child = self.ours.as_mut()?;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "the process does not end");
            sleep(PAUSE);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // QEMU ends with its own value.
        if let Some(child) = &mut self.ours {
            // Both fail only for a process that is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client of a machine that may just be starting: the file of its socket is there before anybody listens.
pub(crate) fn connect(address: &QmpAddress) -> QmpClient {
    let end = Instant::now() + PATIENCE;
    loop {
        match QmpClient::connect(address, Timeouts::default()) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        sleep(PAUSE);
    }
}

fn ours(
    mut command: Command,
    kind: Kind,
    dir: &TempDir,
    socket: &Path,
    (incoming, harts): (Option<&str>, u32),
    guest: &[&str],
) -> Child {
    let monitor = format!("unix:{}", socket.display());
    command.args(["machine", "--quiet"]).args(guest).args([
        "--ram",
        "16M",
        "--harts",
        &harts.to_string(),
        "--qmp",
        &monitor,
    ]);
    if let Some(incoming) = incoming {
        command.args(["--incoming", incoming]);
    }
    if kind == Kind::Ber {
        command.args(["--peer", "vmstate"]);
    }
    let said = fs::File::create(dir.path().join("stderr")).unwrap();
    command.stdout(Stdio::null()).stderr(said).spawn().unwrap()
}

fn theirs(incoming: Option<&str>) -> Qemu {
    let fixed = "-machine spike,memory-backend=riscv.spike.ram -smp 2 -bios DIR/guest.elf \
        -chardev socket,id=one,path=DIR/one,server=on,wait=off -mon chardev=one,mode=control \
        -chardev socket,id=other,path=DIR/other,server=on,wait=off -mon chardev=other,mode=control";
    let mut arguments: Vec<_> = fixed.split_whitespace().map(str::to_owned).collect();
    if let Some(incoming) = incoming {
        arguments.extend(["-incoming".to_owned(), incoming.to_owned()]);
    }
    let ram = Ram {
        block: "riscv.spike.ram",
        size: 16 << 20,
    };
    let program = qemu().unwrap();
    Qemu::start(&program, ram, &[("guest.elf", COUNTER)], &arguments).unwrap()
}
