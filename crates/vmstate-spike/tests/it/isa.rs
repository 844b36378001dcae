//! What instructions compute, compared with QEMU: the guest `isa` executes everything on operands that make trouble.

use std::time::{Duration, Instant};

use vmstate_spike::{Config, Machine, Program, guests};

/// The guest's checksums in QEMU 11.1.3, by group.
const QEMU: [(&str, u64); 10] = [
    ("registers", 0xdf78_5d91_a14a_f694),
    ("multiplication and division", 0x989c_c5a4_b94c_7842),
    ("numbers", 0x2da5_785b_59d4_9a5c),
    ("branches", 0x5277_f5ec_d893_8898),
    ("loads and stores", 0x5f07_b97f_d41a_3860),
    ("atomic operations", 0xdb28_9629_a052_9e2e),
    ("control and status registers", 0x1e4a_32c4_e724_406b),
    ("exceptions", 0xf736_1665_dc7c_5d59),
    ("interrupts", 0x19d1_d84c_c065_ecf6),
    ("code that writes code", 2),
];

#[test]
fn computes_what_qemu_computes() {
    let guest = include_bytes!("../../guests/isa.elf");
    let machine = Machine::new(Config {
        program: Some(Program::parse(guest).unwrap()),
        ..Config::default()
    })
    .unwrap();
    machine.resume().unwrap();
    let word = |offset| {
        let at = guests::CONTROL - vmstate_spike::board::RAM_BASE + offset;
        machine.memory().ram.ram.load::<u64>(at).unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while word(0x248) != 2 && machine.guest_error().is_none() {
        assert!(Instant::now() < deadline, "the guest does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(machine.guest_error(), None);
    let found: Vec<_> = QEMU
        .iter()
        .zip(0..)
        .map(|((name, _), i)| (*name, word(0x280 + 8 * i)))
        .collect();
    assert_eq!(found, QEMU);
}
