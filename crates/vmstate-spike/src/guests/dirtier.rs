//! The guest that dirties memory.

use super::{Complaint, Parameters, Record, record};
use crate::Machine;
use crate::board::{PAGE, RAM_BASE};

const KIND: u64 = 2;
/// What is written to a page begins as its address times this.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the guest [`DIRTIER`](super::DIRTIER) says of itself.
///
/// Each hart writes 64 bytes in each page of its ring, round and round: 8 times `address * STEP + round`. It checks what it wrote a
/// round ago before it writes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirtier {
    /// One for each hart. The counter is the number of pages written, the checksum the sum of what was written.
    pub records: Vec<Record>,
}

impl Dirtier {
    /// Reads it. The machine may run.
    ///
    /// # Errors
    /// If the guest is another one, or has found something wrong.
    pub fn read(machine: &Machine) -> Result<Self, Complaint> {
        let records = record::records(machine, KIND)?;
        Ok(Self { records })
    }

    /// Pages that all harts have written.
    #[must_use]
    pub fn pages(&self) -> u64 {
        let counters = self.records.iter().map(|record| record.counter);
        counters.fold(0, u64::wrapping_add)
    }

    /// Whether memory is filled and all harts have come to their work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.records.iter().all(|record| record.state == 2)
    }

    /// Computes what must stand in the ring of each hart, and the checksums, for a machine that stands still.
    ///
    /// # Errors
    /// What is different.
    pub fn check(&self, machine: &Machine) -> Result<(), Complaint> {
        let parameters = Parameters::read(machine)?;
        let pages = parameters.bytes / PAGE;
        for (hart, record) in self.records.iter().enumerate() {
            if record.state < 2 || pages == 0 {
                continue;
            }
            let start = RAM_BASE + parameters.memory_of(machine, hart)?;
            // How often a page has been written, if so many have been.
            let rounds = |page: u64, written: u64| written.saturating_add(pages - 1 - page) / pages;
            let sum = |written: u64| {
                (0..pages).fold(0_u64, |sum, page| {
                    let times = rounds(page, written);
                    let address = (start + page * PAGE).wrapping_mul(STEP).wrapping_mul(times);
                    let numbers = times.wrapping_mul(times.wrapping_add(1)) / 2;
                    sum.wrapping_add(address).wrapping_add(numbers)
                })
            };
            let complain = |what, expected, found| {
                Err(Complaint::Host {
                    hart,
                    what,
                    expected,
                    found,
                })
            };
            // The page is written first, then the checksum, then the counter.
            let n = record.counter;
            let next = n.saturating_add(1);
            if record.checksum != sum(n) && record.checksum != sum(next) {
                return complain("the checksum", sum(n), record.checksum);
            }
            for page in 0..pages {
                let address = start + page * PAGE;
                let offset = address.wrapping_sub(RAM_BASE);
                let stamp = |written| {
                    address
                        .wrapping_mul(STEP)
                        .wrapping_add(rounds(page, written))
                };
                for word in 0..8 {
                    let found: u64 = machine
                        .memory()
                        .ram
                        .ram
                        .load(offset + 8 * word)
                        .unwrap_or(0);
                    if found != stamp(n) && found != stamp(next) {
                        return complain("a word of its ring", stamp(n), found);
                    }
                }
            }
        }
        Ok(())
    }
}
