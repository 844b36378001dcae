//! The guests run, stop anywhere, and go on.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmstate_engine::RunState;
use vmstate_spike::guests::{self, Counter, Dirtier, Parameters};
use vmstate_spike::{Config, Event, Machine, Program};

/// Waits for something to become true, for half a minute at most.
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn machine(guest: &'static [u8], harts: u32) -> Machine {
    let program = Some(Program::parse(guest).unwrap());
    Machine::new(Config {
        harts,
        program,
        ..Config::default()
    })
    .unwrap()
}

#[test]
fn the_counter_counts_right_wherever_it_is_stopped() {
    for harts in [1, 2, 8] {
        let machine = machine(guests::COUNTER, harts);
        assert_eq!(machine.run_state(), RunState::Prelaunch);
        let mut last = 0;
        for _ in 0..20 {
            machine.resume().unwrap();
            assert_eq!(machine.run_state(), RunState::Running);
            std::thread::sleep(Duration::from_millis(7));
            machine.pause();
            assert_eq!(machine.run_state(), RunState::Paused);
            let counter = Counter::read(&machine).unwrap();
            counter.check(&machine).unwrap();
            assert!(counter.passes() >= last);
            last = counter.passes();
            let time = machine.virtual_time();
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(machine.virtual_time(), time);
        }
        machine.resume().unwrap();
        wait("every hart has ticked and been called", || {
            let counter = Counter::read(&machine).unwrap();
            let records = &counter.records;
            records
                .iter()
                .all(|r| r.ticks > 2 && r.ipis > 0 && r.counter > 0)
        });
    }
}

#[test]
fn a_wrong_word_is_found_by_guest_and_host() {
    let machine = machine(guests::COUNTER, 1);
    machine.resume().unwrap();
    wait("some passes", || {
        Counter::read(&machine).unwrap().passes() > 2
    });
    machine.pause();
    let offset = Parameters::read(&machine).unwrap().start - vmstate_spike::board::RAM_BASE + 800;
    machine
        .memory()
        .ram
        .ram
        .update(offset, |word: u64| word ^ 1);
    let counter = Counter::read(&machine).unwrap();
    assert!(counter.check(&machine).is_err());
    machine.resume().unwrap();
    wait("the guest sees it", || Counter::read(&machine).is_err());
    let complaint = Counter::read(&machine).unwrap_err().to_string();
    assert_eq!(
        complaint,
        "hart 0 has found that memory is not what it wrote (detail 0x80100320)"
    );
}

#[test]
fn the_dirtier_writes_at_its_rate() {
    for harts in [1, 4] {
        let machine = machine(guests::DIRTIER, harts);
        let mut parameters = Parameters::read(&machine).unwrap();
        parameters.fill = 0x8080_0000;
        parameters.fill_bytes = 1 << 20;
        parameters.write(&machine).unwrap();
        machine.resume().unwrap();
        wait("ready", || Dirtier::read(&machine).unwrap().is_ready());
        let ram = &machine.memory().ram;
        assert!((0..256).all(|page| ram.ram.is_zero(0x80_0000 + page * 4096, 64) == Ok(false)));
        wait("twice round", || {
            let dirtier = Dirtier::read(&machine).unwrap();
            dirtier.pages() > u64::from(harts) * 600
        });
        machine.pause();
        let before = Dirtier::read(&machine).unwrap();
        before.check(&machine).unwrap();
        // Two stops: the virtual time in between says how much was written.
        let time = machine.virtual_time();
        ram.log.collect(|_, _| ());
        machine.resume().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        machine.pause();
        let ticks = (machine.virtual_time() - time) / 1_000_000;
        let after = Dirtier::read(&machine).unwrap();
        after.check(&machine).unwrap();
        let pages = after.pages() - before.pages();
        let most = u64::try_from(ticks + 2).unwrap() * 16 * u64::from(harts);
        // At most what it was told; less where the host has no time for it.
        assert!(pages <= most && pages > 0, "{pages} of {most}");
        let mut dirty = 0;
        ram.log.collect(|_, bits| dirty += bits.count_ones());
        assert!(u64::from(dirty) >= pages.min(256), "{dirty} of {pages}");
    }
}

#[test]
fn the_console_prints_and_ends_the_machine() {
    #[derive(Clone, Default)]
    struct Printed(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let printed = Printed::default();
    let machine = Machine::new(Config {
        harts: 2,
        program: Some(Program::parse(guests::CONSOLE).unwrap()),
        console: Some(Box::new(printed.clone())),
        ..Config::default()
    })
    .unwrap();
    let mut parameters = Parameters::read(&machine).unwrap();
    parameters.period = 10_000;
    parameters.limit = 12;
    parameters.write(&machine).unwrap();
    let events = machine.events();
    machine.resume().unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&Event::Stopped) {
        seen.push(events.recv_timeout(Duration::from_secs(60)).unwrap().event);
    }
    assert_eq!(
        seen,
        [
            Event::Resumed,
            Event::Shutdown { status: 0 },
            Event::Stopped
        ]
    );
    assert_eq!(machine.run_state(), RunState::Shutdown);
    assert_eq!(machine.exit_status(), Some(0));
    assert!(machine.resume().is_err());
    let lines: Vec<_> = (1..=12).map(|n| format!("tick {n}\n")).collect();
    let printed = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
    assert_eq!(printed, format!("vmstate guest\n{}", lines.concat()));
}

/// The programs that are checked in are what their sources give. Without an assembler for RISC-V this says so and passes.
#[test]
fn programs_are_built_from_their_sources() {
    let guests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("guests");
    let out = tempfile::tempdir().unwrap();
    let build = std::process::Command::new(guests.join("build"))
        .arg(out.path())
        .output()
        .unwrap();
    if build.status.code() == Some(2) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&build.stderr).trim());
        return;
    }
    assert!(
        build.status.success(),
        "{}",
        String::from_utf8_lossy(&build.stderr)
    );
    for name in ["counter", "dirtier", "console", "isa"] {
        let file = format!("{name}.elf");
        let built = std::fs::read(out.path().join(&file)).unwrap();
        let kept = std::fs::read(guests.join(&file)).unwrap();
        // Other releases of the tools may lay files out in another way: what is loaded counts.
        let loaded = |file: &[u8]| {
            let machine = machine_of(file);
            let mut bytes = vec![0; 0x3000];
            machine.memory().ram.ram.read(0, &mut bytes).unwrap();
            bytes
        };
        assert!(
            loaded(&built) == loaded(&kept),
            "{name} is not built from its source"
        );
    }
}

fn machine_of(file: &[u8]) -> Machine {
    let program = Some(Program::parse(file).unwrap());
    Machine::new(Config {
        program,
        ..Config::default()
    })
    .unwrap()
}
