//! The guests of `vmstate machine`.

use std::borrow::Cow;
use std::path::Path;

use vmstate_spike::board::RAM_BASE;
use vmstate_spike::guests::{self, Parameters};
use vmstate_spike::{Machine, Program};

use crate::args::Load;
use crate::outcome::Failure;
use crate::source::read_bounded;

/// Where the dirtier's memory begins: behind its code and control block.
const START: u64 = RAM_BASE + (2 << 20);
/// Ticks of `mtime` in a second.
const SECOND: u64 = 10_000_000;
/// Ticks of a hart in a second.
const TICKS: u64 = 100;
const PAGE: u64 = 4096;
/// Bytes that the file of a guest may have, with all its symbols.
const MAX_FILE: u64 = 256 << 20;

/// The content of a guest's file.
pub(super) fn read(name: &str) -> Result<Cow<'static, [u8]>, Failure> {
    if let Some(file) = guests::by_name(name) {
        return Ok(file.into());
    }
    read_bounded(Path::new(name), MAX_FILE)
        .map(Cow::Owned)
        .map_err(|e| {
            Failure::new(format!("cannot read the guest {name}: {e}"))
                .with_advice("give counter, dirtier, console, or the path of a bare-metal program")
        })
}

pub(super) fn program<'a>(name: &str, file: &'a [u8]) -> Result<Program<'a>, Failure> {
    Program::parse(file).map_err(|e| {
        Failure::new(format!("the guest {name}: {e}")).with_advice(
            "it must be a 64-bit RISC-V executable that QEMU's -M spike -bios takes: with the symbols tohost, 8 bytes long, and fromhost",
        )
    })
}

/// Tells the dirtier what to do.
pub(super) fn set(machine: &Machine, load: &Load) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("the guest dirtier: {e}"));
    let harts = machine.harts() as u64;
    let mut parameters = Parameters::read(machine).map_err(|e| failed(&e))?;
    let each = (load.working_set / harts).div_ceil(PAGE).max(1);
    parameters.start = START;
    parameters.period = SECOND / TICKS;
    parameters.pages = (load.dirty_rate / PAGE / TICKS / harts).max(u64::from(load.dirty_rate > 0));
    let end = || {
        let bytes = each.checked_mul(PAGE)?;
        let fill = START.checked_add(bytes.checked_mul(harts)?)?;
        Some((bytes, fill, fill.checked_add(load.fill / PAGE * PAGE)?))
    };
    // The board's device tree stands near the end of RAM.
    let room = RAM_BASE + machine.memory().ram.ram.len() - (2 << 20);
    let Some((bytes, fill, _)) = end().filter(|(_, _, end)| *end <= room) else {
        return Err(Failure::new(
            "the guest dirtier needs more RAM: 4 MiB beside --working-set and --fill",
        )
        .with_advice("give more with --ram, or less with --working-set and --fill"));
    };
    parameters.bytes = bytes;
    parameters.fill = fill;
    parameters.fill_bytes = load.fill / PAGE * PAGE;
    parameters.write(machine).map_err(|e| failed(&e))
}
