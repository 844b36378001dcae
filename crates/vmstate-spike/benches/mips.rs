//! Instructions per second of one hart, beside the same guest's passes.
#![allow(clippy::unwrap_used, reason = "benches fail by panicking")]

use std::time::Instant;

use vmstate_spike::guests::{self, Counter};
use vmstate_spike::{Config, Machine, Program};

fn main() {
    for harts in [1, 2] {
        let machine = Machine::new(Config {
            harts,
            program: Some(Program::parse(guests::COUNTER).unwrap()),
            ..Config::default()
        })
        .unwrap();
        for _ in 0..3 {
            let before = machine.instructions();
            let passes = Counter::read(&machine).unwrap().passes();
            let start = Instant::now();
            machine.resume().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(800));
            machine.pause();
            let time = start.elapsed().as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
            let mips = (machine.instructions() - before) as f64 / time / 1e6;
            let passes = Counter::read(&machine).unwrap().passes() - passes;
            println!("{harts} harts: {mips:.1} MIPS, {passes} passes");
        }
    }
}
