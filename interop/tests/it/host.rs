//! Where a guest of the board `spike` can be: in the built-in machine, or in stock QEMU.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmstate_interop::{Machine as Qemu, Program as QemuProgram, Ram, Result};
use vmstate_io::qmp::QmpClient;
use vmstate_spike::board::RAM_BASE;
use vmstate_spike::guests::{self, Counter, Dirtier, Parameters};
use vmstate_spike::{Config, Machine};

use crate::board::MONITOR;
use crate::drive::connect;
use crate::ours::Ours;

/// Offset in RAM of the first hart's record: its counter.
pub(crate) const COUNTER: u64 = 0x1200;
/// Bytes from one hart's record to the next one's.
const RECORD: u64 = 0x80;
/// How long a guest may take to do something, and a migration to end.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// What both kinds of machine must have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// `guests::COUNTER` or `guests::DIRTIER`.
    pub(crate) guest: &'static [u8],
    pub(crate) harts: u32,
    /// Bytes of RAM.
    pub(crate) ram: u64,
}

impl Shape {
    /// QEMU with this board, a monitor for others, and the guest's console in the file `console`.
    pub(crate) fn qemu(&self, program: &QemuProgram, more: &[&str]) -> Result<Qemu> {
        const BLOCK: &str = "riscv.spike.ram";
        let fixed = "-machine spike,memory-backend=riscv.spike.ram -bios DIR/guest.elf -serial file:DIR/console";
        let words = fixed.split_whitespace().chain(MONITOR.iter().copied());
        let words = words.chain(more.iter().copied()).map(str::to_owned);
        let mut arguments: Vec<_> = words.collect();
        arguments.extend(["-smp".to_owned(), self.harts.to_string()]);
        let ram = Ram {
            block: BLOCK,
            size: self.ram,
        };
        Qemu::start(program, ram, &[("guest.elf", self.guest)], &arguments)
    }
}

/// Checks all that a guest that stands still has computed. Returns how far it is.
pub(crate) fn progress(machine: &Machine, guest: &[u8]) -> Result<u64> {
    Ok(if guest == guests::COUNTER {
        let counter = Counter::read(machine)?;
        counter.check(machine)?;
        counter.passes()
    } else {
        let dirtier = Dirtier::read(machine)?;
        dirtier.check(machine)?;
        dirtier.pages()
    })
}

/// What a hart says of itself.
#[derive(Debug)]
struct Life {
    counter: u64,
    ticks: u64,
}

enum Kind {
    Ours(Ours),
    Theirs(Qemu),
}

/// A machine of either kind, and its monitor.
pub(crate) struct Host {
    kind: Kind,
    pub(crate) monitor: QmpClient,
    shape: Shape,
}

impl Host {
    pub(crate) fn ours(shape: &Shape, ours: Ours) -> Result<Self> {
        Ok(Self {
            monitor: ours.client()?,
            kind: Kind::Ours(ours),
            shape: *shape,
        })
    }

    pub(crate) fn theirs(shape: &Shape, qemu: Qemu) -> Result<Self> {
        Ok(Self {
            monitor: connect(&qemu)?,
            kind: Kind::Theirs(qemu),
            shape: *shape,
        })
    }

    /// A machine whose guest runs.
    pub(crate) fn started(shape: &Shape, qemu: Option<&QemuProgram>) -> Result<Self> {
        match qemu {
            None => Self::ours(shape, Ours::new(shape, false)?),
            Some(program) => Self::theirs(shape, shape.qemu(program, &[])?),
        }
    }

    /// A machine that waits for a guest; `autostart` says whether the guest goes on by itself.
    pub(crate) fn waiting(
        shape: &Shape,
        qemu: Option<&QemuProgram>,
        autostart: bool,
    ) -> Result<Self> {
        let Some(program) = qemu else {
            return Self::ours(shape, Ours::stopped(shape, true, autostart)?);
        };
        let more = ["-incoming", "defer", "-S"];
        let more = if autostart { &more[..2] } else { &more[..] };
        Self::theirs(shape, shape.qemu(program, more)?)
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Ours(_))
    }

    /// A path in the machine's own directory.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        match &self.kind {
            Kind::Ours(ours) => ours.dir().join(name),
            Kind::Theirs(qemu) => qemu.dir().join(name),
        }
    }

    pub(crate) fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        Ok(self.monitor.run(command, arguments)?)
    }

    /// Name of the run state.
    pub(crate) fn status(&mut self) -> Result<String> {
        let status = self.run("query-status", json!({}))?;
        Ok(status["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits there for a guest. Returns where to send it.
    pub(crate) fn listen(&mut self, uri: &str) -> Result<String> {
        let arguments = json!({ "uri": uri, "exit-on-error": false });
        self.run("migrate-incoming", arguments)?;
        if !uri.starts_with("tcp:") {
            return Ok(uri.to_owned());
        }
        let info = self.run("query-migrate", json!({}))?;
        let port = info["socket-address"][0]["port"].as_str();
        Ok(format!("tcp:127.0.0.1:{}", port.ok_or("no port")?))
    }

    /// What `query-migrate` says at the end.
    pub(crate) fn outcome(&mut self) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let info = self.run("query-migrate", json!({}))?;
            let over = matches!(
                info["status"].as_str(),
                Some("completed" | "failed" | "cancelled")
            );
            if over {
                return Ok(info);
            }
            if Instant::now() > end {
                return Err(format!("no end of the migration: {info}").into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Reads guest RAM, while the guest runs or stands still.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match &self.kind {
            Kind::Ours(ours) => ours.machine.memory().ram.ram.read(offset, out)?,
            Kind::Theirs(qemu) => {
                File::open(qemu.dir().join("ram"))?.read_exact_at(out, offset)?;
            }
        }
        Ok(())
    }

    /// The harts' records. None has found anything wrong, time that runs backwards included.
    fn lives(&self) -> Result<Vec<Life>> {
        let life = |hart| {
            let mut words = [[0; 8]; 5];
            self.read(COUNTER + RECORD * u64::from(hart), words.as_flattened_mut())?;
            let [counter, _, ticks, _, error] = words.map(u64::from_le_bytes);
            if error != 0 {
                return Err(format!("hart {hart} has found error {error}").into());
            }
            Ok(Life { counter, ticks })
        };
        (0..self.shape.harts).map(life).collect()
    }

    /// Waits until each hart has done something, and has had timer interrupts.
    pub(crate) fn goes_on(&self) -> Result<()> {
        let before = self.lives()?;
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.lives()?;
            let mut pairs = before.iter().zip(&now);
            if pairs.all(|(a, b)| b.counter > a.counter && b.ticks > a.ticks + 2) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the guest does not go on: {now:?}").into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until no hart does anything any more.
    pub(crate) fn stalls(&self) -> Result<()> {
        let counters = || -> Result<Vec<u64>> {
            let lives = self.lives()?;
            Ok(lives.iter().map(|life| life.counter).collect())
        };
        let end = Instant::now() + PATIENCE;
        let mut before = counters()?;
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = counters()?;
            if now == before {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the guest does not stall: {now:?}").into());
            }
            before = now;
        }
    }

    /// Stops the guest and checks all that it has computed. Returns how far it is.
    pub(crate) fn check(&mut self) -> Result<u64> {
        self.run("stop", json!({}))?;
        match &self.kind {
            Kind::Ours(ours) => {
                assert_eq!(ours.machine.guest_error(), None);
                progress(&ours.machine, self.shape.guest)
            }
            Kind::Theirs(qemu) => {
                let path = qemu.dir().join("memory");
                // Everything that the guests compute in.
                let size = self.shape.ram.min(32 << 20);
                let arguments = json!({ "val": RAM_BASE, "size": size, "filename": path });
                self.run("pmemsave", arguments)?;
                // A machine that never runs knows how to read it.
                let reader = Machine::new(Config {
                    harts: self.shape.harts,
                    ram: self.shape.ram,
                    incoming: true,
                    ..Config::default()
                })?;
                reader.memory().ram.ram.write(0, &fs::read(path)?)?;
                progress(&reader, self.shape.guest)
            }
        }
    }

    /// Compares all RAM of two machines that stand still.
    pub(crate) fn assert_same_memory(&self, other: &Self) -> Result<()> {
        let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
        for offset in (0..self.shape.ram).step_by(PIECE) {
            self.read(offset, &mut a)?;
            other.read(offset, &mut b)?;
            assert!(a == b, "RAM differs in the MiB at {offset:#x}");
        }
        Ok(())
    }
}

/// Tells a dirtier that has not started to fill this much memory beside its ring of `ring` bytes per hart, and to dirty
/// 16 MiB/s.
pub(crate) fn set_dirtier(machine: &Machine, ring: u64, fill: u64) -> Result<()> {
    let harts = machine.harts() as u64;
    let mut parameters = Parameters::read(machine)?;
    parameters.start = RAM_BASE + (2 << 20);
    parameters.bytes = ring;
    parameters.period = 100_000;
    parameters.pages = 40_u64.div_ceil(harts);
    parameters.fill = parameters.start + ring * harts;
    parameters.fill_bytes = fill;
    Ok(parameters.write(machine)?)
}
