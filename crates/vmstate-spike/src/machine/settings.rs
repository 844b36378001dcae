//! What a machine is made of.

use std::fmt;
use std::io::Write;

use crate::board::MAX_HARTS;
use crate::error::SpikeError;
use crate::htif::HtifAddresses;
use crate::program::Program;
use crate::recorder::RecorderConfig;

/// How to make a [`Machine`](crate::Machine).
pub struct Config<'a> {
    /// Number of harts: 1 to 8.
    pub harts: u32,
    /// Bytes of RAM: whole MiB, at least 4.
    pub ram: u64,
    /// Whether to take all RAM from the host now.
    pub prealloc: bool,
    /// The guest. A machine that waits for one needs it only to know where HTIF is.
    pub program: Option<Program<'a>>,
    /// Whether the guest comes by migration.
    pub incoming: bool,
    /// Where HTIF is, if not where the program says.
    pub htif: Option<HtifAddresses>,
    /// A device that QEMU's board does not have: see [`Recorder`](crate::Recorder).
    pub recorder: Option<RecorderConfig>,
    /// Where the guest's console goes; without one it is lost.
    pub console: Option<Box<dyn Write + Send>>,
}

impl Default for Config<'_> {
    /// One hart, 16 MiB, nothing in them.
    fn default() -> Self {
        Self {
            harts: 1,
            ram: 16 << 20,
            prealloc: false,
            program: None,
            incoming: false,
            htif: None,
            recorder: None,
            console: None,
        }
    }
}

impl fmt::Debug for Config<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("harts", &self.harts)
            .field("ram", &self.ram)
            .field("incoming", &self.incoming)
            .finish_non_exhaustive()
    }
}

impl Config<'_> {
    pub(super) fn checked_harts(&self) -> Result<u32, SpikeError> {
        if (1..=MAX_HARTS).contains(&self.harts) {
            Ok(self.harts)
        } else {
            Err(SpikeError::Harts { harts: self.harts })
        }
    }

    pub(super) fn checked_ram(&self) -> Result<u64, SpikeError> {
        // Beyond, addresses would not fit together with the board's.
        const MOST: u64 = 1 << 46;
        if self.ram.is_multiple_of(1 << 20) && (4 << 20..=MOST).contains(&self.ram) {
            Ok(self.ram)
        } else {
            Err(SpikeError::RamSize { size: self.ram })
        }
    }
}
