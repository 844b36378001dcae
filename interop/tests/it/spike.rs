//! The built-in machine and stock QEMU's `spike` hand a guest to each other in files, and it goes on computing.

use std::fs;
use std::time::{Duration, Instant};

use vmstate_desc::Limits;
use vmstate_engine::{Bql, Machine as _, RunState, RunToken};
use vmstate_interop::{Generation, Machine as Qemu, Program as QemuProgram, Result, find};
use vmstate_spike::guests::{self, Counter, Dirtier};
use vmstate_spike::{Config, Machine, Program, stream};
use vmstate_wire::codec::decode;

use crate::check::write;
use crate::host::{COUNTER, Shape, progress};

/// Bytes of RAM.
const SIZE: u64 = 16 << 20;

fn qemu(program: &QemuProgram, guest: &'static [u8], harts: u32, more: &[&str]) -> Result<Qemu> {
    let shape = Shape {
        guest,
        harts,
        ram: SIZE,
    };
    shape.qemu(program, more)
}

fn ours(guest: &'static [u8], harts: u32, incoming: bool) -> Result<Machine> {
    let program = Some(Program::parse(guest)?);
    Ok(Machine::new(Config {
        harts,
        ram: SIZE,
        program,
        incoming,
        ..Config::default()
    })?)
}

/// Loads a stream, and finds in the guest nothing but what it must have computed. Returns how far it is.
fn load(machine: &Machine, guest: &[u8], saved: &[u8]) -> Result<u64> {
    assert_eq!(stream::load(machine, saved)?, Some(RunState::Running));
    progress(machine, guest)
}

/// Runs until each hart has done something, and has had timer interrupts.
fn work(machine: &Machine, guest: &[u8]) -> Result<()> {
    let records = || -> Result<_> {
        Ok(if guest == guests::COUNTER {
            Counter::read(machine)?.records
        } else {
            Dirtier::read(machine)?.records
        })
    };
    let before = records()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let now = records()?;
        let pairs = || before.iter().zip(&now);
        if pairs().all(|(a, b)| b.counter > a.counter && b.ticks > a.ticks + 2) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the guest does not go on: {now:?}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Begins in QEMU; each hop goes to the other kind of machine.
fn hops(guest: &'static [u8], harts: u32, hops: u32) -> Result<()> {
    let Some(program) = find(Generation::V11_1, "riscv64") else {
        return Ok(());
    };
    let mut theirs = qemu(&program, guest, harts, &[])?;
    let mut last = 0;
    for _ in 0..hops {
        for hart in 0..harts {
            for _ in 0..3 {
                theirs.wait_for_change(COUNTER + 0x80 * u64::from(hart))?;
            }
        }
        let saved = fs::read(theirs.migrate_to_file("stream")?)?;
        let machine = ours(guest, harts, true)?;
        let reached = load(&machine, guest, &saved)?;
        assert!(reached > last, "{reached} after {last}");
        machine.start(&Bql::holding(()), RunToken::new_guest(), RunState::Running);
        work(&machine, guest)?;
        machine.pause();
        assert_eq!(machine.guest_error(), None);
        last = progress(&machine, guest)?;
        assert!(last > reached);

        let mut saved = Vec::new();
        stream::save(&machine, RunState::Running, &mut saved)?;
        theirs = qemu(&program, guest, harts, &["-incoming", "defer"])?;
        let path = write(&theirs, "stream", &saved)?;
        theirs.load(&path)?;
        assert!(theirs.is_running()?);
    }
    for _ in 0..3 {
        theirs.wait_for_change(COUNTER)?;
    }
    let saved = fs::read(theirs.migrate_to_file("stream")?)?;
    assert!(load(&ours(guest, harts, true)?, guest, &saved)? > last);
    Ok(())
}

#[test]
fn a_counter_goes_to_and_fro() -> Result<()> {
    hops(guests::COUNTER, 1, 5)
}

#[test]
fn a_counter_on_four_harts_goes_to_and_fro() -> Result<()> {
    hops(guests::COUNTER, 4, 5)
}

#[test]
fn a_dirtier_goes_to_and_fro() -> Result<()> {
    hops(guests::DIRTIER, 1, 2)
}

#[test]
fn a_dirtier_on_four_harts_goes_to_and_fro() -> Result<()> {
    hops(guests::DIRTIER, 4, 2)
}

/// What our machine sends of a guest that it has started itself, without the parts that only QEMU has, is enough.
#[test]
fn ours_first() -> Result<()> {
    let Some(program) = find(Generation::V11_1, "riscv64") else {
        return Ok(());
    };
    for (harts, late) in [(1, false), (1, true), (4, false), (4, true)] {
        let machine = ours(guests::COUNTER, harts, false)?;
        machine.resume()?;
        work(&machine, guests::COUNTER)?;
        machine.pause();
        if late {
            // An interrupt that is pending must be seen there, else no other follows.
            oversleep(&machine)?;
        }
        let mut saved = Vec::new();
        stream::save(&machine, RunState::Running, &mut saved)?;
        let reached = progress(&machine, guests::COUNTER)?;
        let mut theirs = qemu(&program, guests::COUNTER, harts, &["-incoming", "defer"])?;
        let path = write(&theirs, "stream", &saved)?;
        theirs.load(&path)?;
        for hart in 0..harts {
            for _ in 0..3 {
                theirs.wait_for_change(COUNTER + 0x80 * u64::from(hart))?;
            }
            // Its ticks, too.
            theirs.wait_for_change(COUNTER + 0x80 * u64::from(hart) + 0x10)?;
        }
        let saved = fs::read(theirs.migrate_to_file("stream")?)?;
        let back = ours(guests::COUNTER, harts, true)?;
        assert!(load(&back, guests::COUNTER, &saved)? > reached);
    }
    Ok(())
}

/// Both machines print the same, and a guest that has moved prints on.
#[test]
fn a_console_prints_on() -> Result<()> {
    let Some(program) = find(Generation::V11_1, "riscv64") else {
        return Ok(());
    };
    for harts in [1, 4] {
        let machine = ours(guests::CONSOLE, harts, false)?;
        let mut parameters = guests::Parameters::read(&machine)?;
        parameters.period = 50_000;
        parameters.write(&machine)?;
        machine.resume()?;
        let ticks = |machine: &Machine| machine.memory().ram.ram.load::<u64>(COUNTER).unwrap_or(0);
        let deadline = Instant::now() + Duration::from_secs(60);
        while ticks(&machine) < 3 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        machine.pause();
        let reached = ticks(&machine);
        assert!(reached >= 3);
        let mut saved = Vec::new();
        stream::save(&machine, RunState::Running, &mut saved)?;
        let mut theirs = qemu(&program, guests::CONSOLE, harts, &["-incoming", "defer"])?;
        let path = write(&theirs, "stream", &saved)?;
        theirs.load(&path)?;
        let console = theirs.dir().join("console");
        let line = format!("tick {}\n", reached + 2);
        theirs.wait_until("line", |_| {
            Ok(fs::read_to_string(&console)?.contains(&line).then_some(()))
        })?;
    }
    Ok(())
}

/// Makes it five seconds later: interrupts are pending, and the harts have not seen them.
fn oversleep(machine: &Machine) -> Result<()> {
    let later = machine.virtual_time() + 5_000_000_000;
    let clocks = [later, 0, later].map(i64::to_be_bytes).concat();
    let clock = machine.sections().swap_remove(0);
    Ok(clock.load(&mut |state| decode(state, 2, &clocks, Limits::default()).map(|_| ()))?)
}

/// A guest whose every hart sleeps, with its timer armed, a second before it is due.
fn asleep(program: &QemuProgram, oversleep: bool) -> Result<()> {
    let machine = ours(guests::DIRTIER, 4, false)?;
    let mut parameters = guests::Parameters::read(&machine)?;
    parameters.period = 10_000_000;
    parameters.write(&machine)?;
    machine.resume()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !Dirtier::read(&machine)?.is_ready() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(20));
    machine.pause();
    assert_eq!(Dirtier::read(&machine)?.pages(), 0);
    if oversleep {
        self::oversleep(&machine)?;
    }
    let mut saved = Vec::new();
    stream::save(&machine, RunState::Running, &mut saved)?;
    let mut theirs = qemu(program, guests::DIRTIER, 4, &["-incoming", "defer"])?;
    let path = write(&theirs, "stream", &saved)?;
    theirs.load(&path)?;
    for hart in 0..4 {
        theirs.wait_until("tick", |machine| {
            Ok((machine.word(COUNTER + 0x80 * hart)? > 0).then_some(()))
        })?;
    }
    let saved = fs::read(theirs.migrate_to_file("stream")?)?;
    let back = ours(guests::DIRTIER, 4, true)?;
    load(&back, guests::DIRTIER, &saved)?;
    back.start(&Bql::holding(()), RunToken::new_guest(), RunState::Running);
    work(&back, guests::DIRTIER)
}

/// Harts that sleep wake on the other side, whether their timers are due later or were due already.
#[test]
fn sleepers_wake() -> Result<()> {
    let Some(program) = find(Generation::V11_1, "riscv64") else {
        return Ok(());
    };
    asleep(&program, false)?;
    asleep(&program, true)
}
