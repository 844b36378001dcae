//! What a recorder must have before the machine runs: the number of its entries.

use std::sync::Arc;

use vmstate::{DescriptionRef, Error, LoadState, SaveState, VmState};
use vmstate_engine::{Bql, DescribedDevice};

use super::Recorder;

/// The section `recorder-registers`: it goes with the devices, while the ring may come later.
#[derive(Debug, Default, VmState)]
#[vmstate(name = "recorder-registers", version = 1)]
struct State {
    /// Entries made so far.
    count: u64,
}

/// A recorder's registers as an entry of a registry.
#[derive(Debug)]
pub(crate) struct Registers(pub(crate) Arc<Recorder>);

impl DescribedDevice for Registers {
    fn description(&self) -> DescriptionRef {
        DescriptionRef::Static(State::DESCRIPTION)
    }

    fn save(
        &self,
        _bql: &Bql<'_>,
        visit: &mut dyn FnMut(&dyn SaveState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        visit(&State {
            count: self.0.entries(),
        })
    }

    fn load(
        &mut self,
        _bql: Option<&Bql<'_>>,
        visit: &mut dyn FnMut(&mut dyn LoadState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut state = State::default();
        visit(&mut state)?;
        self.0.arrive_with(state.count);
        Ok(())
    }
}
