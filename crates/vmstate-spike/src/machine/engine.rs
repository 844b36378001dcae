//! What a migration asks of the machine.

use vmstate_engine::{Bql, MachineError, RunState, RunToken, StoppedGuest};

use super::Machine;
use crate::board::MACHINE;

impl vmstate_engine::Machine for Machine {
    fn name(&self) -> &str {
        MACHINE
    }

    fn run_state(&self) -> RunState {
        self.run_state()
    }

    fn stop(&self, _bql: &Bql<'_>, state: RunState) -> Result<StoppedGuest, MachineError> {
        let control = &self.shared.control;
        let Some(token) = control.take_token() else {
            let reason = "the right to run it is not here";
            return Err(MachineError::new("stop the guest", reason));
        };
        let was = self.stop_with(state);
        control.set_state(state);
        Ok(StoppedGuest { was, token })
    }

    fn start(&self, _bql: &Bql<'_>, token: RunToken, state: RunState) {
        let control = &self.shared.control;
        control.give_token(token);
        if !state.is_live() {
            control.set_state(state);
        } else if self.resume().is_err() {
            // The guest has ended itself meanwhile, and the state says so.
            control.set_ended();
        }
    }

    fn migrated(&self, _bql: &Bql<'_>) {
        self.shared.control.set_state(RunState::PostMigrate);
    }

    fn throttle(&self, percent: u8) {
        self.throttle(percent);
    }
}
