//! The built-in machine: programs, streams, and instructions.

use std::time::Duration;

use vmstate_spike::guests::{Counter, Dirtier};
use vmstate_spike::{Config, Machine, Program, RecorderConfig, stream};

use super::settings;

/// Bytes of RAM, and of the recorder.
const RAM: u64 = 4 << 20;
const RING: u64 = 16 << 10;

/// A program, instructions or a stream for the built-in machine: nothing makes it panic, and a stream that it takes gives the
/// same state again.
///
/// First byte: 0 for the file of a program, 1 for instructions that are run, else a stream.
///
/// # Panics
/// If that does not hold.
pub fn machine(data: &[u8]) {
    let (byte, data) = settings(data);
    match byte {
        0 => {
            if let Ok(program) = Program::parse(data) {
                // Whether it fits is another question.
                _ = made(Some(program), false);
            }
        }
        1 => run(data),
        _ => load(data),
    }
}

fn made(program: Option<Program<'_>>, incoming: bool) -> Option<Machine> {
    let config = Config {
        ram: RAM,
        program,
        incoming,
        recorder: Some(RecorderConfig {
            bytes: RING,
            ..RecorderConfig::default()
        }),
        ..Config::default()
    };
    Machine::new(config).ok()
}

fn run(code: &[u8]) {
    // It does not begin as an ELF file does, so anything is a program.
    let code = [&[0x13, 0, 0, 0], code].concat();
    let program = Program::parse(&code).expect("flat");
    let Some(machine) = made(Some(program), false) else {
        return;
    };
    machine.resume().expect("it has not begun");
    std::thread::sleep(Duration::from_micros(200));
    machine.pause();
    // A hart that has panicked holds a lock that is poisoned, and its machine no right to go on.
    assert!(
        machine.resume().is_ok()
            || machine.guest_error().is_some()
            || machine.exit_status().is_some()
    );
    // What a guest writes about itself is not believed.
    _ = Counter::read(&machine).and_then(|counter| counter.check(&machine));
    _ = Dirtier::read(&machine).and_then(|dirtier| dirtier.check(&machine));
}

/// Runs for a moment; no thread of the machine panics.
fn assert_runs(machine: &Machine) {
    std::thread::sleep(Duration::from_micros(200));
    machine.pause();
    // A machine of which a thread has panicked has lost its right to go on.
    let ended = machine.guest_error().is_some() || machine.exit_status().is_some();
    assert!(ended || machine.resume().is_ok());
    machine.pause();
}

fn load(data: &[u8]) {
    let machine = made(None, true).expect("a plain machine");
    let Ok(was) = stream::load(&machine, data) else {
        return;
    };
    let save = |machine: &Machine| {
        let mut bytes = Vec::new();
        let was = was.unwrap_or(vmstate_engine::RunState::Paused);
        stream::save(machine, was, &mut bytes).expect("it stands still");
        bytes
    };
    let saved = save(&machine);
    let other = made(None, true).expect("a plain machine");
    stream::load(&other, &*saved).expect("what was saved is loaded");
    assert!(save(&other) == saved, "another state");
    // It runs from wherever it is said to be.
    let bql = vmstate_engine::Bql::holding(());
    let token = vmstate_engine::RunToken::new_guest();
    let running = vmstate_engine::RunState::Running;
    vmstate_engine::Machine::start(&other, &bql, token, running);
    assert_runs(&other);
}
