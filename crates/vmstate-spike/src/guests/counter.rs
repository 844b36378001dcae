//! The guest that counts.

use super::{Complaint, Parameters, Record, record, words};
use crate::Machine;

const KIND: u64 = 1;
/// Words begin as multiples of this.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// The checksum is multiplied by this before a word is added.
const FACTOR: u64 = 0x100_0000_01b3;

/// What the guest [`COUNTER`](super::COUNTER) says of itself.
///
/// After pass n word i of a hart's memory is `i * STEP + 1 + 2 + … + n`. The hart checks each word before it changes it; so a
/// page that is lost or old on the way stops it with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// One for each hart.
    pub records: Vec<Record>,
    /// Passes of all harts, counted under a lock.
    pub shared: u64,
    /// Passes of all harts, counted with an atomic instruction.
    pub atomic: u64,
}

impl Counter {
    /// Reads it. The machine may run.
    ///
    /// # Errors
    /// If the guest is another one, or has found something wrong.
    pub fn read(machine: &Machine) -> Result<Self, Complaint> {
        let records = record::records(machine, KIND)?;
        let [shared, _, atomic] = words(machine, 0x18)?;
        Ok(Self {
            records,
            shared,
            atomic,
        })
    }

    /// Passes of all harts.
    #[must_use]
    pub fn passes(&self) -> u64 {
        let counters = self.records.iter().map(|record| record.counter);
        counters.fold(0, u64::wrapping_add)
    }

    /// Computes what the guest must have computed, for a machine that stands still: every word of its memory, the checksums, and
    /// what its harts count together.
    ///
    /// # Errors
    /// What is different.
    pub fn check(&self, machine: &Machine) -> Result<(), Complaint> {
        let parameters = Parameters::read(machine)?;
        for (hart, record) in self.records.iter().enumerate() {
            if record.state >= 2 {
                check_hart(machine, &parameters, hart, record)?;
            }
        }
        let harts = self.records.len();
        let passes = self.passes();
        let counts = [
            ("the count under the lock", self.shared),
            ("the atomic count", self.atomic),
        ];
        for (what, found) in counts {
            // A hart counts after it has written its own record.
            if found > passes || found.saturating_add(harts as u64) < passes {
                return Err(Complaint::Host {
                    hart: harts,
                    what,
                    expected: passes,
                    found,
                });
            }
        }
        Ok(())
    }
}

fn check_hart(
    machine: &Machine,
    parameters: &Parameters,
    hart: usize,
    record: &Record,
) -> Result<(), Complaint> {
    let start = parameters.memory_of(machine, hart)?;
    let count = parameters.bytes / 8;
    // 1 + 2 + … + n, to 64 bits.
    let sum = |n: u64| {
        if n.is_multiple_of(2) {
            (n / 2).wrapping_mul(n.wrapping_add(1))
        } else {
            n.wrapping_mul((n / 2).wrapping_add(1))
        }
    };
    let complain = |what, expected, found| {
        Err(Complaint::Host {
            hart,
            what,
            expected,
            found,
        })
    };
    let n = record.counter;
    let checksum = |n: u64| {
        (0..count).fold(0_u64, |checksum, i| {
            let word = i.wrapping_mul(STEP).wrapping_add(sum(n));
            checksum.wrapping_mul(FACTOR).wrapping_add(word)
        })
    };
    // The checksum is written first.
    let expected = if n == 0 { 0 } else { checksum(n) };
    if record.checksum != expected && record.checksum != checksum(n.wrapping_add(1)) {
        return complain("the checksum", expected, record.checksum);
    }
    // Words up to where the hart is have one more pass.
    let mut pass = n.wrapping_add(1);
    for i in 0..count {
        let offset = start + 8 * i;
        let found = machine.memory().ram.ram.load(offset).unwrap_or(0);
        let word = |n| i.wrapping_mul(STEP).wrapping_add(sum(n));
        if pass != n && found != word(pass) {
            pass = n;
        }
        if found != word(pass) {
            return complain("a word of its memory", word(pass), found);
        }
    }
    Ok(())
}
