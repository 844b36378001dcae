//! A helper that is of use by itself: a key-value store that a machine's devices or its management share. What it holds travels
//! with the machine, under QEMU as under a machine in Rust.
//!
//! Without arguments, it shows that: it starts two message buses with a store each, as two hosts would have them, and moves the
//! state of one to the other as a migration does.
//!
//! ```text
//! cargo run -p vmstate-dbus --example key_value
//! ```
//!
//! As a helper, it serves the store on a bus (`--addr`) or at a socket (`--peer`), and takes lines at another socket (`--listen`):
//! `set KEY VALUE`, `get KEY`, `count`.
//!
//! ```text
//! key_value --addr unix:path=/run/vm7/bus --id kv0 --listen /run/vm7/kv0
//! qemu-system-x86_64 -object dbus-vmstate,id=dv0,addr=unix:path=/run/vm7/bus,id-list=kv0 …
//! ```

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vmstate_dbus::{DbusVmstate, Described, Place, Served};
use vmstate_derive::VmState;
use vmstate_engine::{Bql, Registry};

type Failure = Box<dyn Error + Send + Sync>;

/// What travels: the description of these is all that the store does for it.
#[derive(Debug, Default, VmState)]
#[vmstate(name = "key-value", version = 1, minimum_version = 1)]
struct Store {
    count: u32,
    #[vmstate(count = count, max = 10_000)]
    entries: Vec<Pair>,
}

#[derive(Debug, Default, VmState)]
#[vmstate(name = "key-value/pair", version = 1, minimum_version = 1)]
struct Pair {
    #[vmstate(byte_array, max = 255)]
    key: String,
    #[vmstate(byte_array, max = 4095)]
    value: String,
}

type Shared = Arc<Mutex<Store>>;

impl Store {
    fn set(&mut self, key: &str, value: &str) {
        match self.entries.binary_search_by(|pair| (*pair.key).cmp(key)) {
            Ok(at) => value.clone_into(&mut self.entries[at].value),
            Err(at) => {
                let (key, value) = (key.to_owned(), value.to_owned());
                self.entries.insert(at, Pair { key, value });
                self.count += 1;
            }
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        let at = self.entries.binary_search_by(|pair| (*pair.key).cmp(key));
        at.ok().map(|at| &*self.entries[at].value)
    }

    /// Carries out a line.
    fn line(&mut self, line: &str) -> String {
        match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["set", key, value] if key.len() <= 255 && value.len() <= 4095 => {
                self.set(key, value);
                "ok".to_owned()
            }
            ["get", key] => self.get(key).unwrap_or("-").to_owned(),
            ["count"] => self.count.to_string(),
            _ => "what?".to_owned(),
        }
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (mut place, mut peer, mut listen) = (None, None, None);
    let mut id = "kv0".to_owned();
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name}: what?"))?;
        match name.as_str() {
            "--addr" => place = Some(Place::bus(&value)?),
            "--peer" => peer = Some(UnixListener::bind(value)?),
            "--listen" => listen = Some(UnixListener::bind(value)?),
            "--id" => id = value,
            _ => return Err(format!("{name}: known are --addr, --peer, --listen, --id").into()),
        }
    }
    let store = Shared::default();
    let helper = Described::new(id, Arc::clone(&store));
    let served = match (place, peer) {
        (None, None) => return demonstrate(),
        (Some(place), _) => Served::on_bus(&place, helper)?,
        (None, Some(listener)) => Served::on_listener(listener, helper)?,
    };
    if let Some(listener) = listen {
        std::thread::spawn(move || take_lines(&listener, &store));
    }
    println!("ready");
    served.wait();
    Ok(())
}

/// Answers one client after the other.
fn take_lines(listener: &UnixListener, store: &Mutex<Store>) {
    while let Ok((client, _)) = listener.accept() {
        // A client that goes away early is no concern of the store's.
        let _ = answer(client, store);
    }
}

fn answer(mut client: UnixStream, store: &Mutex<Store>) -> std::io::Result<()> {
    for line in BufReader::new(client.try_clone()?).lines() {
        let line = line?;
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = store.line(&line);
        drop(store);
        writeln!(client, "{answer}")?;
    }
    Ok(())
}

/// A bus of its own, which ends with this value.
struct Bus(Child, String);

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_bus(path: &std::path::Path) -> Result<Bus, Failure> {
    // The policy of a session: everything here is one user's. docs/dbus has the one for a machine.
    let address = format!("unix:path={}", path.display());
    let child = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--nosyslog"])
        .arg(format!("--address={address}"))
        .spawn()
        .map_err(|e| format!("dbus-daemon: {e}"))?;
    let bus = Bus(child, address);
    let end = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(path).is_err() {
        if Instant::now() > end {
            return Err("dbus-daemon does not listen".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(bus)
}

/// Moves a store's content from one bus to another, with two machines that consist of nothing else.
fn demonstrate() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let (here, there) = (
        start_bus(&dir.path().join("here"))?,
        start_bus(&dir.path().join("there"))?,
    );
    let (old, new) = (Shared::default(), Shared::default());
    let serve = |bus: &Bus, store: &Shared| -> Result<_, Failure> {
        let helper = Described::new("kv0", Arc::clone(store));
        Ok(Served::on_bus(&Place::bus(&bus.1)?, helper)?)
    };
    let _stores = (serve(&here, &old)?, serve(&there, &new)?);
    let mut content = old.lock().unwrap_or_else(PoisonError::into_inner);
    for number in 0..1000 {
        content.set(&format!("lease/{number}"), "10.0.2.15");
    }
    drop(content);

    let object = |bus: &Bus| -> Result<_, Failure> {
        let object = DbusVmstate::new(Place::bus(&bus.1)?);
        object.set_id_list(Some("kv0".parse()?));
        Ok(object)
    };
    let (source, destination) = (object(&here)?, object(&there)?);
    // A machine that moves calls the first before it begins, and the helpers with its guest stopped.
    let mut registry = Registry::new();
    registry.register_device(source.device(None))?;
    registry
        .save_prepare(&Bql::holding(()))
        .map_err(|(section, error)| format!("{section}: {error}"))?;
    let state = vmstate_dbus::list(source.place(), None, true, source.deadline())?;
    let mut elements = Vec::new();
    for one in state {
        let (id, state) = (one.id?.into_bytes(), one.state.ok_or("no state")??);
        println!("kv0 has saved {} bytes", state.len());
        elements.push(vmstate_wire::helpers::Element { id, state });
    }
    let list = destination.id_list();
    let loaded = vmstate_dbus::load(
        destination.place(),
        list.as_ref(),
        &elements,
        destination.deadline(),
    )?;
    println!(
        "{} has loaded them in {:?}",
        loaded.loaded.join(", "),
        loaded.took
    );
    let content = new.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "lease/999 is {}",
        content.get("lease/999").unwrap_or("lost")
    );
    Ok(())
}
