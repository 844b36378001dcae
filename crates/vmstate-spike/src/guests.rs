//! Guests that come with the machine, and how to read from outside whether they are well.
//!
//! Their sources stand beside the crate in `guests/`; they run in QEMU just as well. All have a control block at
//! [`CONTROL`], in little-endian double words:
//!
//! | offset | meaning |
//! |---|---|
//! | 0x00 | `vmstate` and a zero |
//! | 0x08 | kind: 1 counter, 2 dirtier, 3 console |
//! | 0x10 | harts that take part |
//! | 0x18 | counter: passes of all harts, counted under a lock |
//! | 0x28 | counter: the same, counted with an atomic instruction |
//! | 0x40 | [`Parameters`] |
//! | 0x200 | a [`Record`] for each hart, 128 bytes apart |

mod counter;
mod dirtier;
mod record;

use vmstate_linux::OutOfBounds;

use crate::Machine;
use crate::board::RAM_BASE;

pub use self::counter::Counter;
pub use self::dirtier::Dirtier;
pub use self::record::{Complaint, Record};

/// Counts in memory of its own as fast as it can, and checks what it has counted: [`Counter`].
pub const COUNTER: &[u8] = include_bytes!("../guests/counter.elf");
/// Dirties memory at a given rate: [`Dirtier`].
pub const DIRTIER: &[u8] = include_bytes!("../guests/dirtier.elf");
/// Prints a line at every tick.
pub const CONSOLE: &[u8] = include_bytes!("../guests/console.elf");

/// Guest physical address of the control block.
pub const CONTROL: u64 = RAM_BASE + 0x1000;

const MAGIC: u64 = u64::from_le_bytes(*b"vmstate\0");
const PARAMETERS: u64 = 0x40;
const RECORDS: u64 = 0x200;
const RECORD_LEN: u64 = 0x80;

/// The guest of this name: `counter`, `dirtier` or `console`.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static [u8]> {
    match name {
        "counter" => Some(COUNTER),
        "dirtier" => Some(DIRTIER),
        "console" => Some(CONSOLE),
        _ => None,
    }
}

/// What a guest is told before it starts. It reads most of it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Guest physical address of hart 0's memory; that of the others follows.
    pub start: u64,
    /// Bytes for each hart.
    pub bytes: u64,
    /// Ticks of `mtime` (100 ns) between two ticks of a hart.
    pub period: u64,
    /// Dirtier: pages to write per tick and hart. Read again at each tick.
    pub pages: u64,
    /// Dirtier: guest physical address of memory to fill at the start.
    pub fill: u64,
    /// Dirtier: how much, in bytes.
    pub fill_bytes: u64,
    /// Harts with this number and above sleep for ever.
    pub harts: u64,
    /// Console: number of the tick at which the guest ends its machine; 0 for never.
    pub limit: u64,
}

impl Parameters {
    /// What the guest has been told.
    ///
    /// # Errors
    /// [`OutOfBounds`] if RAM is too small for any guest.
    pub fn read(machine: &Machine) -> Result<Self, OutOfBounds> {
        let words: [u64; 8] = words(machine, PARAMETERS)?;
        let [start, bytes, period, pages, fill, fill_bytes, harts, limit] = words;
        Ok(Self {
            start,
            bytes,
            period,
            pages,
            fill,
            fill_bytes,
            harts,
            limit,
        })
    }

    /// Tells the guest. The memory is not checked: what is not RAM faults in the guest.
    ///
    /// # Errors
    /// [`OutOfBounds`] if RAM is too small for any guest.
    pub fn write(&self, machine: &Machine) -> Result<(), OutOfBounds> {
        let block = &machine.memory().ram;
        let offset = CONTROL - RAM_BASE + PARAMETERS;
        let bytes = self.to_bytes();
        block.ram.write(offset, &bytes)?;
        block.log.mark_range(offset, bytes.len() as u64);
        Ok(())
    }

    /// Where a hart's memory begins in RAM; its length is `bytes`. What a guest says of itself is not believed.
    fn memory_of(&self, machine: &Machine, hart: usize) -> Result<u64, OutOfBounds> {
        let size = machine.memory().ram.ram.len();
        let begin = self.bytes.checked_mul(hart as u64);
        let offset = begin
            .and_then(|begin| self.start.checked_add(begin))
            .and_then(|address| address.checked_sub(RAM_BASE));
        let inside = offset
            .and_then(|offset| offset.checked_add(self.bytes))
            .is_some_and(|end| end <= size);
        offset.filter(|_| inside).ok_or(OutOfBounds {
            offset: self.start,
            len: self.bytes,
            size,
        })
    }

    /// The parameters as they stand in memory, at offset 0x40 of the control block.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = [
            self.start,
            self.bytes,
            self.period,
            self.pages,
            self.fill,
            self.fill_bytes,
            self.harts,
            self.limit,
        ];
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }
}

/// Double words of the control block from this offset on.
fn words<const N: usize>(machine: &Machine, offset: u64) -> Result<[u64; N], OutOfBounds> {
    let mut bytes = vec![0; 8 * N];
    let at = CONTROL - RAM_BASE + offset;
    machine.memory().ram.ram.read(at, &mut bytes)?;
    let (chunks, _) = bytes.as_chunks::<8>();
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u64::from_le_bytes(*chunk);
    }
    Ok(words)
}
