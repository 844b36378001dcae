//! A device that the engine does not know moves with the machine.

use std::time::{Duration, Instant};

use vmstate_engine::{Bql, Machine as _, RunState, RunToken};
use vmstate_spike::{Config, Machine, Program, RecorderConfig, guests, stream};

const RING: u64 = 64 << 10;

fn machine(bytes: u64, incoming: bool) -> Machine {
    Machine::new(Config {
        program: Some(Program::parse(guests::COUNTER).unwrap()),
        incoming,
        recorder: Some(RecorderConfig {
            bytes,
            period: Duration::from_millis(1),
            ..RecorderConfig::default()
        }),
        ..Config::default()
    })
    .unwrap()
}

/// Entries so far, all of which are as they must be.
fn entries(machine: &Machine) -> u64 {
    let recorder = machine.recorder().unwrap();
    recorder.check(machine.virtual_time()).unwrap();
    recorder.entries()
}

#[test]
fn records_while_the_machine_runs_and_moves_with_it() {
    let mut machine = machine(RING, false);
    machine.resume().unwrap();
    let mut last = 0;
    for hop in 0..4 {
        // Beyond the ring's end.
        let deadline = Instant::now() + Duration::from_secs(60);
        while machine.recorder().unwrap().entries() < last + RING / 16 + 100 {
            assert!(Instant::now() < deadline, "it does not record");
            std::thread::sleep(Duration::from_millis(1));
        }
        machine.pause();
        let now = entries(&machine);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(entries(&machine), now, "it stands still");
        assert!(now > last);
        last = now;

        let mut saved = Vec::new();
        stream::save(&machine, RunState::Running, &mut saved).unwrap();
        let next = self::machine(RING, true);
        assert_eq!(
            stream::load(&next, &*saved).unwrap(),
            Some(RunState::Running)
        );
        assert_eq!(entries(&next), now, "hop {hop}");
        next.start(&Bql::holding(()), RunToken::new_guest(), RunState::Running);
        machine = next;
    }
}

#[test]
fn a_ring_of_another_size_is_refused() {
    let mut saved = Vec::new();
    stream::save(&machine(RING, false), RunState::Running, &mut saved).unwrap();
    let error = stream::load(&machine(2 * RING, true), &*saved).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("loading recorder/0: a ring of 65536 bytes, here it has 131072"),
        "{text}"
    );
    // And a machine without one does not know what it is.
    let plain = Machine::new(Config {
        incoming: true,
        ..Config::default()
    })
    .unwrap();
    let error = stream::load(&plain, &*saved).unwrap_err().to_string();
    assert!(error.starts_with("unknown section recorder/0"), "{error}");
}
