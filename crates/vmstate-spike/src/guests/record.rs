//! What each hart of a guest writes down about itself.

use vmstate_linux::OutOfBounds;

use super::{MAGIC, RECORD_LEN, RECORDS, words};
use crate::Machine;

/// A hart's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record {
    /// Passes, pages or lines so far.
    pub counter: u64,
    /// Over what was written.
    pub checksum: u64,
    /// Timer ticks so far.
    pub ticks: u64,
    /// `mtime` when it was read last.
    pub last_time: u64,
    /// What has gone wrong; 0 for nothing.
    pub error: u64,
    /// Where or when it has.
    pub detail: u64,
    /// Interrupts from other harts.
    pub ipis: u64,
    /// Dirtier: next page to write.
    pub position: u64,
    /// Dirtier: round, from 1 on; 0 until the first one is over.
    pub rounds: u64,
    /// 0: not started, 1: preparing, 2: running, 3: parked.
    pub state: u64,
}

/// Why a guest is not well, or is another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Complaint {
    /// RAM is too small.
    #[error(transparent)]
    Memory(#[from] OutOfBounds),
    /// Another guest, or none.
    #[error(
        "the control block is not that of guest {wanted}: it begins with {magic:#x}, kind {kind}"
    )]
    Kind {
        /// Kind that was looked for.
        wanted: u64,
        /// First double word of the control block.
        magic: u64,
        /// Second one.
        kind: u64,
    },
    /// A hart has found something wrong, and has parked.
    #[error("hart {hart} has found that {what} (detail {detail:#x})")]
    Guest {
        /// The hart.
        hart: usize,
        /// What it has found.
        what: &'static str,
        /// Address, or time.
        detail: u64,
    },
    /// The host has found something wrong.
    #[error("hart {hart}: {what} is {found:#x}, not {expected:#x}")]
    Host {
        /// The hart; for what all share, their number.
        hart: usize,
        /// What is wrong.
        what: &'static str,
        /// As it must be.
        expected: u64,
        /// As it is.
        found: u64,
    },
}

/// The records of all harts of a guest of this kind, none of which has found anything wrong.
pub(super) fn records(machine: &Machine, wanted: u64) -> Result<Vec<Record>, Complaint> {
    let [magic, kind] = words(machine, 0)?;
    if magic != MAGIC || kind != wanted {
        return Err(Complaint::Kind {
            wanted,
            magic,
            kind,
        });
    }
    (0..machine.harts())
        .map(|hart| {
            let words: [u64; 10] = words(machine, RECORDS + RECORD_LEN * hart as u64)?;
            let [counter, checksum, ticks, last_time, error, ..] = words;
            let [.., detail, ipis, position, rounds, state] = words;
            if error != 0 {
                let what = match error {
                    1 => "time ran backwards",
                    2 => "memory is not what it wrote",
                    3 => "a timer interrupt came early",
                    4 => "there was an exception",
                    _ => "something is wrong",
                };
                return Err(Complaint::Guest { hart, what, detail });
            }
            Ok(Record {
                counter,
                checksum,
                ticks,
                last_time,
                error,
                detail,
                ipis,
                position,
                rounds,
                state,
            })
        })
        .collect()
}
