//! The machine's sections, lent for saving and loading.

use std::fmt;
use std::sync::Arc;

use vmstate::{DescriptionRef, Error, LoadState, OwnCount, SaveState, VmState, own_counts};
use vmstate_engine::{Bql, DescribedDevice};

use crate::machine::Shared;
use crate::state::{Clocks, Cpu, CpuCommon, MTimer};

/// A described section of a machine that stands still.
///
/// Saving makes the section from what harts and devices hold; loading changes them when the whole section has come and
/// fits.
#[derive(Clone)]
pub struct Section {
    shared: Arc<Shared>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Clocks,
    CpuCommon(usize),
    Cpu(usize),
    MTimer,
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Section").field(&self.kind).finish()
    }
}

impl Section {
    /// All of them but `globalstate`, which is the migration's.
    pub(crate) fn all(shared: &Arc<Shared>) -> Vec<Self> {
        let harts = 0..shared.harts();
        let harts = harts.flat_map(|hart| [Kind::CpuCommon(hart), Kind::Cpu(hart)]);
        std::iter::once(Kind::Clocks)
            .chain(harts)
            .chain([Kind::MTimer])
            .map(|kind| Self {
                shared: Arc::clone(shared),
                kind,
            })
            .collect()
    }

    /// What it looks like: its name and version are the section's.
    #[must_use]
    pub fn description(&self) -> DescriptionRef {
        let description = match self.kind {
            Kind::Clocks => Clocks::DESCRIPTION,
            Kind::CpuCommon(_) => CpuCommon::DESCRIPTION,
            Kind::Cpu(_) => Cpu::DESCRIPTION,
            Kind::MTimer => MTimer::DESCRIPTION,
        };
        description.into()
    }

    /// Which one of its name: the number of the hart, else 0.
    #[must_use]
    pub fn instance_id(&self) -> u32 {
        match self.kind {
            Kind::CpuCommon(hart) | Kind::Cpu(hart) => u32::try_from(hart).unwrap_or(u32::MAX),
            Kind::Clocks | Kind::MTimer => 0,
        }
    }

    /// Lends the state for saving.
    ///
    /// # Errors
    /// What `visit` returns.
    pub fn save(
        &self,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let now = shared.clock.view().now();
        match self.kind {
            Kind::Clocks => visit(&Clocks {
                cpu_ticks_offset: shared.ticks(now),
                cpu_clock_offset: now,
                _unused: (),
            }),
            Kind::MTimer => visit(&shared.clint.save(now)),
            Kind::Cpu(hart) => {
                let mut resting = shared.resting(hart).clone();
                resting.refresh(shared, hart, now);
                visit(&resting.cpu)
            }
            Kind::CpuCommon(hart) => {
                let mut resting = shared.resting(hart).clone();
                resting.refresh(shared, hart, now);
                visit(&resting.common)
            }
        }
    }

    /// Lends a state for loading, and takes it over.
    ///
    /// # Errors
    /// What `visit` returns; nothing has changed then.
    pub fn load(
        &self,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        match self.kind {
            Kind::Clocks => {
                let mut clocks = Clocks::default();
                visit(&mut clocks)?;
                shared.clock.set(clocks.cpu_clock_offset);
                shared.set_ticks(clocks.cpu_ticks_offset, clocks.cpu_clock_offset);
            }
            Kind::MTimer => {
                let mut timer = self.blank_timer();
                visit(&mut timer)?;
                shared.clint.load(&timer);
            }
            Kind::CpuCommon(hart) => {
                let mut common = CpuCommon::default();
                visit(&mut common)?;
                shared.resting(hart).common = common;
            }
            Kind::Cpu(hart) => {
                let mut cpu = Cpu::reset(hart as u64);
                visit(&mut cpu)?;
                shared.clint.set_software(hart, cpu.mip >> 3 & 1 == 1);
                shared.resting(hart).cpu = cpu;
            }
        }
        Ok(())
    }
}

impl Section {
    /// Timers for all harts.
    fn blank_timer(&self) -> MTimer {
        MTimer::new(u32::try_from(self.shared.harts()).unwrap_or_default())
    }
}

impl DescribedDevice for Section {
    fn description(&self) -> DescriptionRef {
        self.description()
    }

    fn own_counts(&self, _bql: &Bql<'_>) -> Vec<OwnCount> {
        match self.kind {
            Kind::MTimer => own_counts(&self.blank_timer()),
            Kind::Clocks | Kind::CpuCommon(_) | Kind::Cpu(_) => Vec::new(),
        }
    }

    fn save(
        &self,
        _bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.save(visit)
    }

    fn load(
        &mut self,
        _bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        Self::load(self, visit)
    }
}
