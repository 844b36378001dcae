//! A machine is saved by QEMU, written again by us from the decoded values, loaded by QEMU, and goes on.

use std::fs;

use vmstate_interop::{Generation, Result, sha256};
use vmstate_io::SliceInput;
use vmstate_io::inspect::{Options, rewrite};

use crate::board::{self, Board};
use crate::check::{analyzed, analyzed_file, assert_ram, digests, sections, write};

fn check(board: &Board, generation: Generation) -> Result<()> {
    let Some(program) = board.find(generation) else {
        return Ok(());
    };
    let mut source = board.start(&program)?;
    board::settle(&mut source, generation)?;
    let path = source.migrate_to_file("stream")?;
    let theirs = fs::read(&path)?;
    let saved = analyzed_file(&path)?;
    assert_ram(&saved, &source, board.ram)?;

    let mut ours = Vec::new();
    let summary = rewrite(
        &mut SliceInput::new(&theirs),
        &mut ours,
        &Options::default(),
    )?;
    assert_eq!(
        (summary.copied, summary.carried),
        (0, 0),
        "not all is encoded from values"
    );
    assert!(summary.encoded >= 5, "{summary:?}");
    assert!(ours == theirs, "other bytes than QEMU's");

    let mut destination = board.waiting(&program)?;
    let path = write(&destination, "stream", &ours)?;
    destination.load(&path)?;
    assert!(!destination.is_running()?);
    assert_eq!(
        sha256(&destination.ram()?),
        sha256(&source.ram()?),
        "RAM after loading"
    );

    // What the destination holds now, all blocks of it, also those that cannot be seen from outside.
    let path = destination.migrate_to_file("again")?;
    let again = analyzed(&fs::read(path)?, &[])?;
    assert_eq!(digests(&again), digests(&saved));
    assert_eq!(sections(&again), sections(&saved));

    destination.run("cont", serde_json::json!({}))?;
    assert!(destination.is_running()?);
    destination.wait_for_change(board.pulse)
}

macro_rules! round_trips {
    ($($name:ident: $board:ident, $generation:ident;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            check(&board::$board, Generation::$generation)
        }
    )*};
}

round_trips! {
    pc_7_2: PC, V7_2;
    pc_10_0: PC, V10_0;
    pc_11_1: PC, V11_1;
    q35_7_2: Q35, V7_2;
    q35_10_0: Q35, V10_0;
    q35_11_1: Q35, V11_1;
    spike_11_1: SPIKE, V11_1;
    riscv_virt_11_1: RISCV_VIRT, V11_1;
    arm_virt_11_1: ARM_VIRT, V11_1;
}
