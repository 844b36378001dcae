//! What the machine does not have, and what it is told.

use std::time::{Duration, Instant};

use vmstate_engine::RunState;
use vmstate_spike::{
    Config, Event, GuestError, Machine, Program, ProgramError, SpikeError, guests,
};

/// Runs instructions from the beginning of RAM until the guest fails.
fn fail(code: &[u32]) -> GuestError {
    let bytes: Vec<_> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    let machine = Machine::new(Config {
        program: Some(Program::parse(&bytes).unwrap()),
        ..Config::default()
    })
    .unwrap();
    let events = machine.events();
    machine.resume().unwrap();
    let mut failed = None;
    loop {
        match events.recv_timeout(Duration::from_secs(60)).unwrap().event {
            Event::GuestFailed { error } => failed = Some(error),
            Event::Stopped => break,
            _ => {}
        }
    }
    assert_eq!(machine.run_state(), RunState::InternalError);
    assert_eq!(machine.guest_error(), failed);
    assert!(machine.resume().is_err());
    failed.unwrap()
}

const NOP: u32 = 0x13;

#[test]
fn unknown_instructions_stop_the_machine() {
    for word in [
        0x0000_0053, // fadd.s
        0x2020_a1b3, // sh1add
        0x4020_f1b3, // andn
        0x1020_0073, // sret
        0x1000_0033, // reserved
        0x0000_4033 | 0x0800_0000,
        0xffff_ffff,
    ] {
        let error = fail(&[NOP, NOP, word]);
        let expected = GuestError::Instruction {
            hart: 0,
            pc: 0x8000_0008,
            instruction: word,
        };
        assert_eq!(error, expected);
    }
    // Compressed: c.fld, and what is never an instruction.
    for half in [0x2000, 0] {
        let error = fail(&[NOP, 0x0001_0001, half]);
        let GuestError::Instruction {
            pc, instruction, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((pc, instruction), (0x8000_0008, half));
    }
    assert_eq!(
        fail(&[0x0000_0053]).to_string(),
        "hart 0: instruction 0x53 at pc 0x80000000 is not in RV64IMAC_Zicsr_Zifencei"
    );
}

#[test]
fn what_else_the_hart_lacks_stops_the_machine() {
    // csrr a0, cycle
    let error = fail(&[NOP, 0xc000_2573]);
    let expected = GuestError::Csr {
        hart: 0,
        pc: 0x8000_0004,
        csr: 0xc00,
    };
    assert_eq!(error, expected);
    // mret, when mstatus says user mode
    let error = fail(&[0x3020_0073]);
    let expected = GuestError::Mode {
        hart: 0,
        pc: 0x8000_0000,
        mode: 0,
    };
    assert_eq!(error, expected);
    // ecall, and no handler
    let error = fail(&[NOP, 0x73]);
    let expected = GuestError::TrapVector {
        hart: 0,
        pc: 0x8000_0004,
        vector: 0,
    };
    assert_eq!(error, expected);
    // auipc a0, 0; addi a0, a0, 0x102; amoadd.w a1, a1, (a0)
    let error = fail(&[0x0000_0517, 0x1025_0513, 0x00b5_25af]);
    let expected = GuestError::Atomic {
        hart: 0,
        pc: 0x8000_0008,
        address: 0x8000_0102,
    };
    assert_eq!(error, expected);
    // lui a0, 0x1000; li a1, 2; sd a1, 0(a0): a command for HTIF that it does not know
    let error = fail(&[0x0100_0537, 0x0020_0593, 0x00b5_3023]);
    assert!(
        matches!(error, GuestError::Htif { command: 2, .. }),
        "{error}"
    );
}

#[test]
fn a_throttled_guest_works_less() {
    let machine = Machine::new(Config {
        program: Some(Program::parse(guests::COUNTER).unwrap()),
        ..Config::default()
    })
    .unwrap();
    let work = |percent| {
        machine.throttle(percent);
        let before = machine.instructions();
        machine.resume().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        machine.pause();
        machine.instructions() - before
    };
    // By turns, since other processes take their part of the host; and until it has had a turn with each.
    let end = Instant::now() + Duration::from_secs(60);
    let (mut free, mut throttled, mut rounds) = (0, 0, 0);
    while Instant::now() < end && (rounds < 5 || free == 0 || throttled == 0) {
        free += work(0);
        throttled += work(99);
        rounds += 1;
    }
    assert!(throttled < free / 2, "{throttled} of {free}");
    assert!(throttled > 0);
}

#[test]
fn machines_that_there_are_not() {
    for harts in [0, 9] {
        let config = Config {
            harts,
            ..Config::default()
        };
        assert!(matches!(
            Machine::new(config),
            Err(SpikeError::Harts { .. })
        ));
    }
    for ram in [0, 3 << 20, (4 << 20) + 4096, 1 << 47, u64::MAX] {
        let config = Config {
            ram,
            ..Config::default()
        };
        assert!(matches!(
            Machine::new(config),
            Err(SpikeError::RamSize { .. })
        ));
    }
}

#[test]
fn programs_that_are_none() {
    let good = guests::CONSOLE;
    assert_eq!(Program::parse(good).unwrap().entry(), 0x8000_0000);
    let changed = |at: usize, byte: u8| {
        let mut file = good.to_vec();
        file[at] = byte;
        file
    };
    // Class, machine, type.
    assert!(Program::parse(&changed(4, 1)).is_err());
    for at in [18, 16] {
        let file = changed(at, 3);
        let error = Program::parse(&file).unwrap_err();
        assert!(matches!(error, ProgramError::Foreign { .. }), "{error}");
    }
    // Without its symbols.
    let at = good.windows(7).position(|w| w == b"tohost\0").unwrap();
    let file = changed(at, b'T');
    assert!(matches!(
        Program::parse(&file),
        Err(ProgramError::Symbol { symbol: "tohost" })
    ));
    for len in (4..good.len()).step_by(7) {
        // Cut anywhere: an error, or the same program without what stood behind.
        _ = Program::parse(&good[..len]);
    }
    // More than RAM.
    let large = vec![0x13; 5 << 20];
    let config = Config {
        ram: 4 << 20,
        program: Some(Program::parse(&large).unwrap()),
        ..Config::default()
    };
    let error = Machine::new(config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the guest program is refused: 0x500000 bytes at 0x80000000 are not in RAM"
    );
}
