//! What the built-in machine's monitor can do beside QEMU's commands for every machine.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use vmstate_dbus::add_object_commands;
use vmstate_engine::GuestMemory as _;
use vmstate_io::live::{Monitor, RunControl as _, add_negotiation_commands};
use vmstate_qmp::schema::{Member, Shape, Type};
use vmstate_qmp::{CommandTable, QmpError, machine_commands};
use vmstate_ram::BlockId;
use vmstate_spike::Machine;
use vmstate_spike::board::RAM_BASE;
use vmstate_spike::guests::{Counter, Dirtier, Record};

use super::Board;

/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;
const PAGE: u64 = 4096;

const PMEMSAVE: Shape = Shape::of(&[
    Member::required("val", Type::U64),
    Member::required("size", Type::U64),
    Member::required("filename", Type::String),
]);

const RANGE: Shape = Shape::of(&[
    Member::required("page", Type::U64),
    Member::required("pages", Type::U64),
]);

const DIGEST: Shape = Shape::of(&[Member::optional(
    "without",
    Type::List(&Type::Object(&RANGE)),
)]);

#[derive(Deserialize)]
struct Pmemsave {
    val: u64,
    size: u64,
    filename: String,
}

/// Pages of RAM.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) page: u64,
    pub(crate) pages: u64,
}

#[derive(Deserialize)]
struct Without {
    #[serde(default)]
    without: Vec<Range>,
}

/// What a guest says of itself. Its own checks have found nothing wrong.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct GuestReport {
    /// Passes or pages of all harts.
    pub(crate) counter: u64,
    /// Timer ticks of all harts.
    pub(crate) ticks: u64,
    /// All harts have come to their work.
    pub(crate) ready: bool,
    /// One of each hart.
    pub(crate) checksums: Vec<u64>,
    /// Whether checksums and memory were computed again and found right, which needs a guest that stands still.
    pub(crate) checked: bool,
}

#[derive(Deserialize)]
struct Nothing {}

/// QEMU's commands and some of our own: `pmemsave` is QEMU's, too.
pub(super) fn table() -> CommandTable<Monitor<Board>> {
    type M = Monitor<Board>;
    let mut table = machine_commands();
    add_object_commands(&mut table, |m: &M| m.control().objects());
    add_negotiation_commands(&mut table);
    table.add("pmemsave", PMEMSAVE, |m: &M, a: Pmemsave| {
        pmemsave(m.control().machine(), &a).map(|()| BTreeMap::<String, u64>::new())
    });
    table.add("x-query-guest", Shape::EMPTY, |m: &M, _: Nothing| {
        report(m.control().machine(), standing(m).is_ok())
    });
    table.add("x-query-written", Shape::EMPTY, |m: &M, _: Nothing| {
        standing(m)?;
        Ok(written(m.control().machine()))
    });
    table.add("x-query-sensor", Shape::EMPTY, |m: &M, _: Nothing| {
        let sensor = m.control().sensor();
        let sensor = sensor.ok_or_else(|| QmpError::generic("the machine has no sensor"))?;
        Ok(sensor.values())
    });
    table.add("x-query-digest", DIGEST, |m: &M, a: Without| {
        standing(m)?;
        digest(m.control().machine(), &a.without)
    });
    table
}

fn standing(monitor: &Monitor<Board>) -> Result<(), QmpError> {
    if monitor.control().run_state().is_live() {
        return Err(QmpError::generic("the guest runs: stop it first"));
    }
    Ok(())
}

/// Writes guest memory to a file: QEMU's command.
fn pmemsave(machine: &Machine, arguments: &Pmemsave) -> Result<(), QmpError> {
    let ram = &machine.memory().ram.ram;
    let offset = arguments.val.checked_sub(RAM_BASE);
    let inside = offset
        .and_then(|offset| offset.checked_add(arguments.size))
        .is_some_and(|end| end <= ram.len());
    let (Some(mut offset), true) = (offset, inside) else {
        return Err(QmpError::generic(format_args!(
            "Invalid addr {:#x}/size {} specified",
            arguments.val, arguments.size
        )));
    };
    let failed = |e: std::io::Error| {
        QmpError::generic(format_args!("Could not open '{}': {e}", arguments.filename))
    };
    let mut file = std::fs::File::create(&arguments.filename).map_err(failed)?;
    let mut left = arguments.size;
    let mut buffer = vec![0; usize::try_from(PIECE.min(left)).unwrap_or(0)];
    while left > 0 {
        let size = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let piece = buffer.get_mut(..size).unwrap_or_default();
        ram.read(offset, piece).map_err(QmpError::generic)?;
        file.write_all(piece).map_err(failed)?;
        offset += size as u64;
        left -= size as u64;
    }
    Ok(())
}

/// Asks one of the built-in guests how it is, and checks what it says.
fn report(machine: &Machine, check: bool) -> Result<GuestReport, QmpError> {
    let sum = |records: &[Record], ready| GuestReport {
        counter: records.iter().map(|record| record.counter).sum(),
        ticks: records.iter().map(|record| record.ticks).sum(),
        ready,
        checksums: records.iter().map(|record| record.checksum).collect(),
        checked: check,
    };
    match Dirtier::read(machine) {
        Ok(dirtier) => {
            if check {
                dirtier.check(machine).map_err(QmpError::generic)?;
            }
            return Ok(sum(&dirtier.records, dirtier.is_ready()));
        }
        // Another guest.
        Err(vmstate_spike::guests::Complaint::Kind { .. }) => {}
        Err(complaint) => return Err(QmpError::generic(complaint)),
    }
    let counter = Counter::read(machine).map_err(QmpError::generic)?;
    if check {
        counter.check(machine).map_err(QmpError::generic)?;
    }
    Ok(sum(&counter.records, true))
}

/// Pages of RAM that the guest has written here, since it arrived or since its last migration looked.
fn written(machine: &Machine) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let log = &machine.memory().ram.log;
    log.collect(|word, bits| {
        for bit in (0..64_u64).filter(|bit| bits >> bit & 1 == 1) {
            let page = word as u64 * 64 + bit;
            match ranges.last_mut() {
                Some(last) if last.page + last.pages == page => last.pages += 1,
                _ => ranges.push(Range { page, pages: 1 }),
            }
        }
    });
    // The log forgets what it tells, and others want to know it, too.
    for range in &ranges {
        log.mark_range(range.page * PAGE, range.pages * PAGE);
    }
    ranges
}

/// SHA-256 of each block, RAM without these pages.
fn digest(machine: &Machine, without: &[Range]) -> Result<BTreeMap<String, String>, QmpError> {
    let memory = machine.memory();
    let mut digests = BTreeMap::new();
    let mut buffer = vec![0; 4096];
    for (block, number) in memory.blocks().into_iter().zip(0..) {
        let mut hash = Sha256::new();
        let mut skip = without.iter().peekable();
        for page in 0..block.ram.len() / PAGE {
            while skip
                .peek()
                .is_some_and(|range| range.page.saturating_add(range.pages) <= page)
            {
                skip.next();
            }
            let left_out = number == 0 && skip.peek().is_some_and(|range| range.page <= page);
            if !left_out {
                memory
                    .copy_out(BlockId(number), page * PAGE, &mut buffer)
                    .map_err(QmpError::generic)?;
                hash.update(&buffer);
            }
        }
        let text: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        digests.insert(block.idstr.to_owned(), text);
    }
    Ok(digests)
}
