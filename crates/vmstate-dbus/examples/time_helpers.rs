//! Measures what helpers cost: twenty processes with 1 MiB each are saved together, and one after the other.
//!
//! ```text
//! cargo run --release -p vmstate-dbus --example time_helpers [HELPERS [BYTES [RUNS [MILLISECONDS]]]]
//! ```
//!
//! With `MILLISECONDS`, each helper needs that long for its answer. Needs `dbus-daemon`. Prints the median of the runs, and the most memory that this process, which has the object, has had.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vmstate_dbus::{DbusVmstate, Helper, HelperError, Place, Served, list};
use vmstate_engine::{Bql, DescribedDevice as _};

type Failure = Box<dyn Error + Send + Sync>;

/// A helper that always has a state of the same size, and needs a while for it.
struct Fixed(String, usize, Duration);

impl Helper for Fixed {
    fn id(&self) -> String {
        self.0.clone()
    }

    fn save(&self) -> Result<Vec<u8>, HelperError> {
        std::thread::sleep(self.2);
        Ok(vec![0x5a; self.1])
    }

    fn load(&self, _: &[u8]) -> Result<(), HelperError> {
        Ok(())
    }
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, place, id, size, pause] = &arguments[..] {
        let pause = Duration::from_millis(pause.parse()?);
        return serve(mode, place, Fixed(id.clone(), size.parse()?, pause));
    }
    let number = |index: usize, default: usize| -> Result<usize, Failure> {
        arguments
            .get(index)
            .map_or(Ok(default), |text| Ok(text.parse()?))
    };
    let (helpers, size) = (number(0, 20)?, number(1, 1 << 20)?);
    let (runs, pause) = (number(2, 21)?, number(3, 0)?);
    println!("{helpers} helpers with {size} bytes and {pause} ms each, median of {runs} runs");
    let dir = tempfile::tempdir()?;
    let shape = Shape {
        helpers,
        size,
        pause,
    };
    on_a_bus(dir.path(), &shape, runs)?;
    without_a_bus(dir.path(), &shape, runs)
}

/// What is measured.
struct Shape {
    helpers: usize,
    size: usize,
    pause: usize,
}

/// The helper's process.
fn serve(mode: &str, place: &str, helper: Fixed) -> Result<(), Failure> {
    let served = match mode {
        "bus" => Served::on_bus(&Place::bus(place)?, helper)?,
        _ => Served::on_listener(UnixListener::bind(place)?, helper)?,
    };
    println!("ready");
    served.wait();
    Ok(())
}

fn start(mode: &str, place: &str, number: usize, shape: &Shape) -> Result<Running, Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([mode, place, &format!("helper{number:03}")])
        .args([shape.size.to_string(), shape.pause.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let said = child.stdout.take().ok_or("no output")?;
    BufReader::new(said).read_line(&mut String::new())?;
    Ok(Running(child))
}

fn on_a_bus(dir: &Path, shape: &Shape, runs: usize) -> Result<(), Failure> {
    let socket = dir.join("bus");
    let address = format!("unix:path={}", socket.display());
    let daemon = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--nosyslog"])
        .arg(format!("--address={address}"))
        .stderr(Stdio::null())
        .spawn()?;
    let _daemon = Running(daemon);
    let end = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&socket).is_err() {
        if Instant::now() > end {
            return Err("dbus-daemon does not listen".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut running = Vec::new();
    for number in 0..shape.helpers {
        running.push(start("bus", &address, number, shape)?);
    }
    let place = Place::bus(&address)?;
    measure("on a bus", &place, shape.helpers, runs)?;
    // As QEMU does it: one after the other.
    let mut alone = Vec::new();
    for number in 0..shape.helpers {
        let object = DbusVmstate::new(place.clone());
        object.set_id_list(Some(format!("helper{number:03}").parse()?));
        alone.push(object);
    }
    let one_by_one = median(runs, || alone.iter().try_for_each(save))?;
    println!("on a bus, one object for each helper, one after the other: {one_by_one:?}");
    Ok(())
}

fn without_a_bus(dir: &Path, shape: &Shape, runs: usize) -> Result<(), Failure> {
    let mut running = Vec::new();
    let mut addresses = Vec::new();
    for number in 0..shape.helpers {
        let socket = dir.join(format!("peer{number}")).display().to_string();
        running.push(start("peer", &socket, number, shape)?);
        addresses.push(format!("unix:path={socket}"));
    }
    measure(
        "without a bus",
        &Place::peers(&addresses.join(";"))?,
        shape.helpers,
        runs,
    )
}

fn measure(what: &str, place: &Place, helpers: usize, runs: usize) -> Result<(), Failure> {
    let object = DbusVmstate::new(place.clone());
    let rehearsed = median(runs, || Ok(object.rehearse().map(|_| ())?))?;
    println!("{what}, {helpers} ids: {rehearsed:?}");
    let before = peak()?;
    let saved = median(runs, || save(&object))?;
    let report = object.saved().ok_or("nothing was saved")?;
    let bytes: usize = report.saved.iter().map(|(_, size)| size).sum();
    println!(
        "{what}, all states, {bytes} bytes: {saved:?}; most memory {} MiB, {} MiB before",
        peak()? >> 10,
        before >> 10
    );
    let present = list(place, None, false, object.deadline())?;
    assert_eq!(present.len(), helpers);
    Ok(())
}

/// One save, up to the bytes of the section.
fn save(object: &DbusVmstate) -> Result<(), Failure> {
    let mut section = Vec::new();
    let device = object.section();
    device.save(&Bql::holding(()), &mut |state| {
        vmstate_wire::codec::encode(state, &mut section)
    })?;
    Ok(())
}

fn median(runs: usize, mut run: impl FnMut() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let begin = Instant::now();
        run()?;
        times.push(begin.elapsed());
    }
    times.sort();
    times.get(runs / 2).copied().ok_or_else(|| "no runs".into())
}

/// Most memory of this process, in KiB.
fn peak() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmHWM")?.parse()?)
}
