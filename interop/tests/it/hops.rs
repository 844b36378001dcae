//! A running guest hops live from the built-in machine to stock QEMU and back, again and again, and computes on.

use serde_json::json;
use vmstate_interop::{Generation, Program as QemuProgram, Result, find};
use vmstate_spike::guests;

use crate::host::{Host, Shape, set_dirtier};
use crate::ours::Ours;

const MIB: u64 = 1 << 20;

fn qemu() -> Option<QemuProgram> {
    find(Generation::V11_1, "riscv64")
}

/// What a hop is done over.
#[derive(Debug, Clone, Copy)]
enum Over {
    Unix,
    Tcp,
}

impl Over {
    fn uri(self, to: &Host) -> String {
        match self {
            Self::Unix => format!("unix:{}", to.path("migration").display()),
            Self::Tcp => "tcp:127.0.0.1:0".to_owned(),
        }
    }
}

/// Moves the guest while it runs. Both sides say that it has moved.
fn hop(from: &mut Host, to: &mut Host, over: Over) -> Result<()> {
    let uri = to.listen(&over.uri(to))?;
    assert_eq!(from.status()?, "running");
    from.run("migrate", json!({ "uri": uri }))?;
    let sent = from.outcome()?;
    assert_eq!(sent["status"], "completed", "{sent}");
    assert!(sent["downtime"].is_u64() && sent["total-time"].is_u64());
    assert!(
        sent["ram"]["dirty-sync-count"].as_u64() >= Some(2),
        "{sent}"
    );
    let received = to.outcome()?;
    assert_eq!(received["status"], "completed", "{received}");
    assert_eq!(from.status()?, "postmigrate");
    Ok(())
}

/// The guest hops `hops` times, each time to the other kind of machine.
fn hops(mut here: Host, program: &QemuProgram, shape: &Shape, over: Over, hops: u32) -> Result<()> {
    let mut last = 0;
    for number in 0..hops {
        here.goes_on()?;
        // Two hops of five, one in each direction: the guest stays stopped, so that all memory can be compared.
        let autostart = number % 5 < 3;
        let qemu = here.is_ours().then_some(program);
        let mut there = Host::waiting(shape, qemu, autostart)?;
        hop(&mut here, &mut there, over)?;
        if !autostart {
            assert_eq!(there.status()?, "paused");
            here.assert_same_memory(&there)?;
            there.run("cont", json!({}))?;
        }
        assert_eq!(there.status()?, "running");
        there.goes_on()?;
        let reached = there.check()?;
        assert!(reached > last, "{reached} after {last}, hop {number}");
        last = reached;
        there.run("cont", json!({}))?;
        here = there;
    }
    Ok(())
}

fn from_qemu(shape: &Shape, over: Over, count: u32) -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let first = Host::theirs(shape, shape.qemu(&program, &[])?)?;
    hops(first, &program, shape, over, count)
}

/// A dirtier with this ring per hart and this much other memory that is not zero.
fn from_ours(shape: &Shape, ring: u64, fill: u64, over: Over, count: u32) -> Result<()> {
    let Some(program) = qemu() else {
        return Ok(());
    };
    let ours = Ours::stopped(shape, false, true)?;
    set_dirtier(&ours.machine, ring, fill)?;
    ours.machine.resume()?;
    hops(Host::ours(shape, ours)?, &program, shape, over, count)
}

#[test]
fn a_counter_over_unix() -> Result<()> {
    let shape = Shape {
        guest: guests::COUNTER,
        harts: 1,
        ram: 16 * MIB,
    };
    from_qemu(&shape, Over::Unix, 10)
}

#[test]
fn a_counter_on_four_harts_over_tcp() -> Result<()> {
    let shape = Shape {
        guest: guests::COUNTER,
        harts: 4,
        ram: 64 * MIB,
    };
    from_qemu(&shape, Over::Tcp, 10)
}

#[test]
fn a_dirtier_over_tcp() -> Result<()> {
    let shape = Shape {
        guest: guests::DIRTIER,
        harts: 1,
        ram: 64 * MIB,
    };
    from_ours(&shape, 4 * MIB, 16 * MIB, Over::Tcp, 10)
}

#[test]
fn a_dirtier_on_four_harts_over_unix() -> Result<()> {
    let shape = Shape {
        guest: guests::DIRTIER,
        harts: 4,
        ram: 256 * MIB,
    };
    from_ours(&shape, MIB, 64 * MIB, Over::Unix, 10)
}

/// Hops 4 and 5 compare all memory.
#[test]
fn a_gibibyte() -> Result<()> {
    let shape = Shape {
        guest: guests::DIRTIER,
        harts: 4,
        ram: 1024 * MIB,
    };
    from_ours(&shape, MIB, 128 * MIB, Over::Unix, 5)
}

/// Once there and back with the sizes that are left between the others.
#[test]
fn one_hart_with_much_memory_and_four_with_little() -> Result<()> {
    let shape = |guest, harts, ram| Shape { guest, harts, ram };
    from_qemu(&shape(guests::COUNTER, 4, 16 * MIB), Over::Unix, 2)?;
    from_ours(
        &shape(guests::DIRTIER, 1, 256 * MIB),
        MIB,
        64 * MIB,
        Over::Tcp,
        2,
    )?;
    from_ours(
        &shape(guests::DIRTIER, 1, 1024 * MIB),
        4 * MIB,
        256 * MIB,
        Over::Unix,
        2,
    )
}
