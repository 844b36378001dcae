//! Streams of stock QEMU load, go out again as they were, and run on.

use std::path::Path;
use std::time::{Duration, Instant};

use vmstate_engine::RunState;
use vmstate_spike::guests::{self, Counter, Dirtier};
use vmstate_spike::stream;
use vmstate_spike::{Config, Machine, Program};

fn recorded(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/streams");
    let bytes = std::fs::read(dir.join(format!("{name}.main.bin.zst"))).unwrap();
    zstd::decode_all(&*bytes).unwrap()
}

fn incoming(harts: u32) -> Machine {
    Machine::new(Config {
        harts,
        incoming: true,
        ..Config::default()
    })
    .unwrap()
}

/// Everything from the first device's section on: devices, end and trailer. RAM records may be cut into sections in many
/// ways.
fn devices(stream: &[u8]) -> &[u8] {
    let first = b"\x05timer\0\0\0\0\0\0\0\x02";
    let at = stream.windows(first.len()).rposition(|w| w == first);
    &stream[at.unwrap() - 5..]
}

/// Counts the sections of a recorded stream as ours are: QEMU has registered something behind RAM that sends nothing, so its
/// numbers from 3 on are one more.
fn renumbered(devices: &[u8], sections: &[(&str, u32, usize)]) -> Vec<u8> {
    let mut out = devices.to_vec();
    let mut at = 0;
    for (name, _, body) in sections {
        let id = u32::from_be_bytes(out[at + 1..at + 5].try_into().unwrap());
        let ours = if id >= 3 { id - 1 } else { id };
        out[at + 1..at + 5].copy_from_slice(&ours.to_be_bytes());
        at += 5 + 1 + name.len() + 8 + body;
        assert_eq!(out[at], 0x7e, "the footer of {name}");
        out[at + 1..at + 5].copy_from_slice(&ours.to_be_bytes());
        at += 5;
    }
    assert_eq!(out[at..at + 2], [0, 6], "the end, then the trailer");
    out
}

#[test]
fn recorded_streams_come_out_as_they_were() {
    for (name, harts) in [("spike-11.1", 1), ("spike-11.1-smp4", 4)] {
        let recorded = recorded(name);
        let machine = incoming(harts);
        let was = stream::load(&machine, &*recorded).unwrap().unwrap();
        assert_eq!(was, RunState::Running);
        let mut saved = Vec::new();
        stream::save(&machine, was, &mut saved).unwrap();
        let sections = machine.sections();
        let described: Vec<_> = sections.iter().map(|s| (s.description(), s)).collect();
        let mut known: Vec<_> = described
            .iter()
            .map(|(description, section)| {
                let mut bytes = Vec::new();
                section
                    .save(&mut |state| vmstate::encode(state, &mut bytes))
                    .unwrap();
                (description.name(), section.instance_id(), bytes.len())
            })
            .collect();
        known.push(("globalstate", 0, 104));
        let theirs = renumbered(devices(&recorded), &known);
        let ours = devices(&saved);
        let different = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        assert_eq!((different, ours.len()), (None, theirs.len()), "{name}");

        // The memory, too: another machine loads it.
        let other = incoming(harts);
        stream::load(&other, &*saved).unwrap();
        for (a, b) in machine
            .memory()
            .blocks()
            .into_iter()
            .zip(other.memory().blocks())
        {
            let bytes = |block: &vmstate_spike::Block| {
                let mut bytes = vec![0; usize::try_from(block.ram.len()).unwrap()];
                block.ram.read(0, &mut bytes).unwrap();
                bytes
            };
            assert!(bytes(a) == bytes(b), "{}", a.idstr);
        }
    }
}

#[test]
fn the_boot_rom_is_qemus() {
    let recorded = recorded("spike-11.1");
    let theirs = incoming(1);
    stream::load(&theirs, &*recorded).unwrap();
    let ours = Machine::new(Config::default()).unwrap();
    let rom = |machine: &Machine| {
        let mut bytes = vec![0; 0xf000];
        machine.memory().rom.ram.read(0, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(rom(&ours), rom(&theirs));
}

#[test]
fn a_hart_after_reset_is_qemus() {
    use vmstate_spike::state::Cpu;
    let recorded = recorded("spike-11.1");
    let machine = incoming(1);
    stream::load(&machine, &*recorded).unwrap();
    let mut theirs = Cpu::reset(0);
    let mut payload = Vec::new();
    let sections = machine.sections();
    sections[2]
        .save(&mut |state| vmstate::encode(state, &mut payload))
        .unwrap();
    vmstate::decode(&mut theirs, 12, &payload, vmstate::Limits::default()).unwrap();
    // What the guest has changed since, and what only QEMU has.
    let mut ours = Cpu::reset(0);
    ours.gpr = theirs.gpr;
    ours.pc = theirs.pc;
    ours.mstatus |= 0x88;
    ours.mie = 0x80;
    ours.mtvec = theirs.mtvec;
    ours.mepc = theirs.mepc;
    ours.mcause = theirs.mcause;
    theirs = Cpu {
        pmp: None,
        hypervisor: None,
        vector: None,
        environment: None,
        debug: None,
        state_enable: None,
        landing_pad: None,
        shadow_stack: None,
        records: None,
        timers: None,
        security: None,
        ..theirs
    };
    assert_eq!(ours, theirs);
}

#[test]
fn a_recorded_guest_runs_on() {
    for (name, harts) in [("spike-11.1", 1), ("spike-11.1-smp4", 4)] {
        let machine = incoming(harts);
        stream::load(&machine, &*recorded(name)).unwrap();
        assert!(machine.resume().is_err(), "nobody has given it the right");
        start(&machine);
        let time = machine.virtual_time();
        let deadline = Instant::now() + Duration::from_secs(60);
        // Its timer was armed: it wakes, works, and sleeps again.
        while machine.instructions() < 1000 {
            assert!(Instant::now() < deadline, "the guest sleeps for ever");
            std::thread::sleep(Duration::from_millis(1));
        }
        machine.pause();
        assert_eq!(machine.guest_error(), None);
        assert!(machine.virtual_time() > time);
    }
}

fn start(machine: &Machine) {
    use vmstate_engine::{Bql, Machine as _, RunToken};
    let bql = Bql::holding(());
    machine.start(&bql, RunToken::new_guest(), RunState::Running);
}

#[test]
fn ours_to_ours_again_and_again() {
    for (guest, harts) in [(guests::COUNTER, 4), (guests::DIRTIER, 2)] {
        let mut machine = Machine::new(Config {
            harts,
            program: Some(Program::parse(guest).unwrap()),
            ..Config::default()
        })
        .unwrap();
        machine.resume().unwrap();
        let work = |machine: &Machine| {
            if guest == guests::COUNTER {
                let counter = Counter::read(machine).unwrap();
                counter.check(machine).unwrap();
                counter.passes()
            } else {
                let dirtier = Dirtier::read(machine).unwrap();
                dirtier.check(machine).unwrap();
                dirtier.pages()
            }
        };
        let mut last = 0;
        for hop in 0..10 {
            std::thread::sleep(Duration::from_millis(20));
            machine.pause();
            let mut saved = Vec::new();
            stream::save(&machine, RunState::Running, &mut saved).unwrap();
            let next = incoming(harts);
            stream::load(&next, &*saved).unwrap();
            assert_eq!(work(&next), work(&machine));
            assert_eq!(next.virtual_time(), machine.virtual_time());
            let mut again = Vec::new();
            stream::save(&next, RunState::Running, &mut again).unwrap();
            assert!(again == saved, "hop {hop}");
            assert!(work(&next) >= last);
            last = work(&next);
            machine = next;
            start(&machine);
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            machine.pause();
            if work(&machine) > last {
                break;
            }
            assert!(Instant::now() < deadline, "the guest has stopped working");
            machine.resume().unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let recorded = recorded("spike-11.1");
    let refuse = |machine: &Machine, stream: &[u8]| stream::load(machine, stream).unwrap_err();
    // More harts than there are, and fewer.
    let smp4 = self::recorded("spike-11.1-smp4");
    let error = refuse(&incoming(1), &smp4).to_string();
    assert!(error.starts_with("unknown section cpu_common/1"), "{error}");
    let error = refuse(&incoming(2), &recorded).to_string();
    assert!(error.contains("riscv_mtimer"), "{error}");
    // Another size of RAM.
    let large = Machine::new(Config {
        ram: 32 << 20,
        incoming: true,
        ..Config::default()
    })
    .unwrap();
    let error = refuse(&large, &recorded).to_string();
    assert!(error.contains("RAM block 0 has 0x2000000 bytes"), "{error}");
    // Another machine.
    let mut other = recorded.clone();
    let at = other.windows(5).position(|w| w == b"spike").unwrap();
    other[at] = b'S';
    assert_eq!(
        refuse(&incoming(1), &other).to_string(),
        "Machine type received is 'Spike' and local is 'spike'"
    );
    // A stream that ends early, anywhere behind its RAM.
    let start = recorded.len() - devices(&recorded).len();
    for cut in (start..recorded.len() - 1).step_by(97) {
        refuse(&incoming(1), &recorded[..cut]);
    }
    // Supervisor mode.
    let mut other = recorded.clone();
    let at = other
        .windows(12)
        .position(|w| w == b"\x03cpu\0\0\0\0\0\0\0\x0c")
        .unwrap();
    // 32 and 32 registers, 128 priorities, and what stands between them and the mode.
    let mode = at + 12 + 2 * 256 + 128 + 3 * 8 + 1 + 2 * 8 + 6 * 4;
    assert_eq!(other[mode], 3);
    other[mode] = 1;
    let error = refuse(&incoming(1), &other).to_string();
    assert!(
        error.contains("the hart knows machine mode only"),
        "{error}"
    );
}
