//! The timer block whose state is taken out of its locks: against what QEMU sent.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use vmstate_desc::snapshot::{ToMigrationState, ToMigrationStateShared};
use vmstate_desc::{ErrorKind, Timer, VmState as _};
use vmstate_devices::hpet::{Clock, Hpet, HpetOffsetMigration, HpetState, HpetTimer, TICK_NS};
use vmstate_wire::vmdesc::VmdescDialect;

use crate::common::Capture;

const RELEASES: [&str; 3] = ["7.2", "10.0", "11.1"];

#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn set(&self, now: i64) {
        self.0.store(now, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn hpet(timers: usize) -> (Hpet, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    (Hpet::new(timers, clock.clone()), clock)
}

fn mirror(hpet: &Hpet) -> HpetState {
    *hpet.state().to_migration_state().unwrap()
}

fn read(release: &str) -> Capture {
    let mut capture = Capture::read(&format!("pc-{release}-hpet"));
    if capture.dialect == VmdescDialect::V7_2 {
        // The number's field has another name since.
        capture.entry = capture
            .entry
            .replace("\"num_timers\"", "\"num_timers_save\"");
    }
    capture
}

#[test]
fn what_a_guest_programmed() {
    for release in RELEASES {
        let capture = read(release);
        let (hpet, clock) = hpet(3);
        capture.load(hpet.state());

        let block = hpet.state();
        let registers = block.lock().unwrap();
        assert_eq!((registers.config, registers.status), (1, 2));
        let offset = registers.offset.unwrap().ns;
        let now = (registers.counter * TICK_NS)
            .wrapping_sub(offset)
            .cast_signed();
        let [periodic, fired, far] = registers.timers.as_slice() else {
            panic!("three timers");
        };
        assert_eq!(
            (periodic.config & 0x0c, periodic.period),
            (0x0c, 100_000_000)
        );
        assert_eq!((fired.config & 0x102, fired.comparator), (0x102, 0x2000));
        assert_eq!((far.comparator, far.number), (0x1000_0000_0000, 2));
        drop(registers);

        // The guest's second is not over yet; what has fired is not armed; what is far away is.
        let deadline = hpet.timers()[0].deadline().unwrap();
        assert!(
            (1..=1_000_000_000).contains(&(deadline - now)),
            "{}",
            deadline - now
        );
        assert_eq!(hpet.timers()[1].deadline(), None);
        assert!(hpet.timers()[2].deadline() > Some(now + (1 << 40)));
        // Level-triggered on input 20.
        assert_eq!(hpet.lines(), 1 << 20);

        clock.set(now);
        capture.saves(&hpet.state());
        // The counter goes on: it is computed when it is asked for, and when it is sent.
        clock.set(now + 1000);
        let later = mirror(&hpet);
        assert_eq!(later.counter, hpet.counter());
        clock.set(now);
        assert_eq!(later.counter, hpet.counter() + 100);
    }
    assert!(HpetState::DESCRIPTION.check().is_ok());
}

#[test]
fn a_stream_without_offset() {
    let capture = read("11.1");
    let (hpet, clock) = hpet(3);
    clock.set(5_000);
    let cut = capture.payload.len() - 25;
    capture
        .try_load(&mut hpet.state(), &capture.payload[..cut])
        .unwrap();
    let state = mirror(&hpet);
    let sent = u64::from_be_bytes(capture.payload[16..24].try_into().unwrap());
    assert_eq!(state.counter, sent, "goes on from where it stood");
    let ns = (sent * TICK_NS).wrapping_sub(5_000);
    assert_eq!(state.offset, Some(HpetOffsetMigration { ns }));
}

#[test]
fn refusals_change_nothing() {
    let capture = read("11.1");
    let (hpet, _) = hpet(3);
    hpet.timers()[1].program(0x104, 7, 0);
    hpet.enable(true);
    let before = mirror(&hpet);
    let armed: Vec<_> = hpet.timers().iter().map(HpetTimer::deadline).collect();
    assert_eq!(armed, [None, Some(70), None]);

    let refused = |payload: &[u8]| {
        let e = capture.try_load(&mut hpet.state(), payload).unwrap_err();
        assert_eq!(mirror(&hpet), before, "{e}");
        let now: Vec<_> = hpet.timers().iter().map(HpetTimer::deadline).collect();
        assert_eq!(now, armed, "{e}");
        e
    };
    let mut payload = capture.payload.clone();
    payload[24 + 1 + 42] = 7;
    assert_eq!(
        refused(&payload).to_string(),
        "hpet/timer[1]/tn: restore refused 7: another timer's number stands in this place (byte 0xb0)"
    );
    let mut payload = capture.payload.clone();
    payload[24] = 2;
    payload.drain(24 + 1 + 84..24 + 1 + 126);
    assert_eq!(
        refused(&payload).to_string(),
        "hpet: restore refused: 2 timers came, and this machine has 3 (byte 0x86)"
    );
    payload[24] = 33;
    assert_eq!(
        refused(&payload).to_string(),
        "hpet/timer: count 33 is outside of 0..=32 (byte 0x19)"
    );
    for len in (0..capture.payload.len()).filter(|len| *len != capture.payload.len() - 25) {
        // A header that is cut off is no subsection, as QEMU sees it.
        if (152..165).contains(&len) {
            continue;
        }
        let e = refused(&capture.payload[..len]);
        assert!(
            matches!(e.kind(), ErrorKind::UnexpectedEnd { .. }),
            "{len}: {e}"
        );
    }
}

#[test]
fn a_lock_of_a_timer_that_is_poisoned() {
    let capture = read("11.1");
    let (hpet, _) = hpet(3);
    let before = mirror(&hpet);
    let block = hpet.state();
    let alarm = Arc::clone(&block.lock().unwrap().timers[2].alarm);
    let thread = std::thread::spawn(move || {
        let _guard = alarm.lock().unwrap();
        resume_unwind(Box::new("poisons the lock"));
    });
    assert!(thread.join().is_err());

    let text = "the lock is poisoned: a thread panicked while it changed the state";
    let e = block.to_migration_state().unwrap_err();
    assert_eq!(e.to_string(), format!("hpet/timer[2]/qemu_timer: {text}"));
    let e = capture
        .try_load(&mut hpet.state(), &capture.payload)
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        format!("hpet/timer[2]/qemu_timer: restore refused: {text} (byte 0xb0)")
    );
    // The locks of the other two had been taken by then, and the registers been converted.
    let registers = block.lock().unwrap();
    assert_eq!(
        (registers.config, registers.status),
        (before.config, before.status)
    );
    assert!(
        hpet.timers()[..2]
            .iter()
            .all(|timer| timer.deadline().is_none())
    );
}

#[test]
fn a_running_block_moves() {
    let (source, clock) = hpet(4);
    clock.set(1_000);
    source.timers()[0].program(0x0c, 500, 500);
    source.timers()[3].program(0x06 | 11 << 9, 300, 0);
    source.enable(true);
    assert_eq!(source.timers()[0].deadline(), Some(1_000 + 5_000));
    clock.set(4_000);
    source.timers()[3].fire();
    assert_eq!(
        (source.lines(), source.timers()[3].deadline()),
        (1 << 11, None)
    );
    clock.set(6_000);
    source.timers()[0].fire();
    assert_eq!(source.timers()[0].deadline(), Some(11_000));
    let registers = source.state();
    registers.lock().unwrap().rtc_level = 1;

    let mirror = mirror(&source);
    let (target, there) = hpet(4);
    there.set(6_000);
    target
        .state()
        .restore_migrated_state(mirror.clone(), 2)
        .unwrap();
    assert_eq!(super::hpet::mirror(&target), mirror);
    assert_eq!((target.lines(), target.counter()), (1 << 11, 500));
    assert_eq!(target.timers()[0].deadline(), Some(11_000));
    target.state().lock().unwrap().acknowledge(1 << 3);
    assert_eq!(target.lines(), 0);
    target.enable(false);
    let stopped = super::hpet::mirror(&target);
    assert_eq!(
        (stopped.offset, stopped.timers[0].alarm),
        (None, Timer(None))
    );
}
