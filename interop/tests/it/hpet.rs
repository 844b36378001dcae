//! A timer block that lives in Rust, behind locks: QEMU takes over what it was made to be, and gives it back.

use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use vmstate_desc::Limits;
use vmstate_desc::snapshot::ToMigrationState;
use vmstate_devices::hpet::{Clock, Hpet, HpetState};
use vmstate_interop::{Generation, Result};
use vmstate_wire::codec::{decode, encode};

use crate::board;
use crate::check::write;

#[derive(Debug, Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where the block's payload is: behind its header, up to its footer.
fn payload(stream: &[u8]) -> Range<usize> {
    const HEADER: &[u8] = b"\x04hpet\0\0\0\0\0\0\0\x02";
    let at = stream
        .windows(HEADER.len())
        .position(|window| window == HEADER)
        .expect("a section `hpet`");
    let from = at + HEADER.len();
    let footer = [&[0x7e], &stream[at - 4..at]].concat();
    let len = stream[from..]
        .windows(footer.len())
        .position(|window| window == footer)
        .expect("a footer");
    from..from + len
}

fn block(stream: &[u8]) -> Result<(Hpet, Arc<TestClock>)> {
    let clock = Arc::new(TestClock::default());
    let hpet = Hpet::new(3, clock.clone());
    let payload = &stream[payload(stream)];
    let used = decode(&mut hpet.state(), 2, payload, Limits::default())?;
    assert_eq!(used, payload.len());
    Ok((hpet, clock))
}

fn mirror(hpet: &Hpet) -> Result<HpetState> {
    Ok(*hpet.state().to_migration_state()?)
}

fn check(generation: Generation) -> Result<()> {
    let board = &board::PC;
    let Some(program) = board.find(generation) else {
        return Ok(());
    };
    let mut source = board.start(&program)?;
    board::settle(&mut source, generation)?;
    let path = source.migrate_to_file("stream")?;
    let mut stream = fs::read(path)?;

    // QEMU's block, programmed here: a periodic timer, one that is level-triggered and has fired, a level of the clock's.
    let (hpet, clock) = block(&stream)?;
    clock.0.store(1_000_000, Ordering::Relaxed);
    hpet.timers()[0].program(0x3c, 500_000_000_000, 1_000_000);
    hpet.timers()[2].program(0x36 | 20 << 9, 1_000, 0);
    hpet.enable(true);
    hpet.timers()[2].fire();
    hpet.state().lock().expect("not poisoned").rtc_level = 1;
    let ours = mirror(&hpet)?;
    let mut bytes = Vec::new();
    encode(&hpet.state(), &mut bytes)?;
    stream.splice(payload(&stream), bytes);

    let mut destination = board.waiting(&program)?;
    let path = write(&destination, "stream", &stream)?;
    destination.load(&path)?;
    let path = destination.migrate_to_file("again")?;
    let (again, _) = block(&fs::read(path)?)?;
    let theirs = mirror(&again)?;
    assert_eq!((theirs.config, theirs.status), (ours.config, ours.status));
    assert_eq!((theirs.rtc_level, theirs.offset), (1, ours.offset));
    assert_eq!(again.lines(), 1 << 20);
    for (theirs, ours) in theirs.timers.iter().zip(&ours.timers) {
        assert_eq!(theirs.number, ours.number);
        assert_eq!(theirs.config, ours.config);
        assert_eq!(theirs.comparator, ours.comparator);
        assert_eq!(theirs.period, ours.period);
        assert_eq!(theirs.alarm.0.is_some(), ours.alarm.0.is_some());
    }
    Ok(())
}

#[test]
fn pc_7_2() -> Result<()> {
    check(Generation::V7_2)
}

#[test]
fn pc_10_0() -> Result<()> {
    check(Generation::V10_0)
}

#[test]
fn pc_11_1() -> Result<()> {
    check(Generation::V11_1)
}
