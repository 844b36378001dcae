//! Instructions per second of processor time, so that it does not matter what else the host does.
#![allow(clippy::unwrap_used, reason = "benches fail by panicking")]

use std::time::Duration;

use vmstate_spike::guests::{self, Counter};
use vmstate_spike::{Config, Machine, Program};

/// Processor time of all threads of this process in ns.
fn processor_time() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| {
            let path = task.unwrap().path().join("schedstat");
            let text = std::fs::read_to_string(path).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        })
        .sum()
}

fn main() {
    for harts in [1, 2, 1, 2] {
        let machine = Machine::new(Config {
            harts,
            program: Some(Program::parse(guests::COUNTER).unwrap()),
            ..Config::default()
        })
        .unwrap();
        let (time, executed) = (processor_time(), machine.instructions());
        machine.resume().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        machine.pause();
        let (time, executed) = (processor_time() - time, machine.instructions() - executed);
        let passes = Counter::read(&machine).unwrap().passes();
        println!(
            "{harts} harts: {} MIPS on one processor, {} ns per pass",
            executed * 1000 / time,
            time / passes.max(1)
        );
    }
}
