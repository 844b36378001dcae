//! What a migration asks of the machine.

use std::sync::{Arc, PoisonError};

use vmstate::wire::stream::InstanceId;
use vmstate_engine::{
    Bql, Device, MachineError, RAM_VERSION, RamCounters, RamHandler, Registry, RegistryError,
    RunState, RunToken, StoppedGuest,
};

use super::Machine;
use crate::board::MACHINE;
use crate::hart::Line;
use crate::recorder;

impl Machine {
    /// Everything that migrates, in QEMU's order: one registry serves one migration after the other.
    ///
    /// # Errors
    /// None with this board.
    pub fn registry(&self) -> Result<Registry, RegistryError> {
        Ok(self.registry_with_counters()?.0)
    }

    /// As [`registry`](Self::registry), with the counters of RAM, for whoever shows them.
    ///
    /// # Errors
    /// None with this board.
    pub fn registry_with_counters(&self) -> Result<(Registry, RamCounters), RegistryError> {
        let mut registry = Registry::new();
        let memory = self.memory();
        let ram = RamHandler::new(memory.clone(), Box::new(memory.dirty_log()));
        let counters = ram.counters();
        let mut ram = Some(ram);
        for section in self.sections() {
            let instance = InstanceId(section.instance_id());
            registry.register_device(Device::new(section).instance(instance))?;
            // Behind the clock, which is the first.
            if let Some(ram) = ram.take() {
                let only = InstanceId(0);
                registry.register_savevm_live("ram", only, RAM_VERSION, Box::new(ram))?;
            }
        }
        if let Some(recorder) = self.recorder() {
            let handler = Box::new(recorder::Handler::new(Arc::clone(recorder)));
            let only = InstanceId(0);
            registry.register_savevm_live(recorder::NAME, only, recorder::VERSION, handler)?;
            let registers = recorder::Registers(Arc::clone(recorder));
            registry.register_device(Device::new(registers))?;
        }
        let global = Arc::clone(&self.shared.global);
        registry.register_device(Device::new(global))?;
        Ok((registry, counters))
    }

    /// What the source of a guest that has arrived was doing.
    #[must_use]
    pub fn global_state(&self) -> Option<RunState> {
        let global = self.shared.global.lock();
        global.unwrap_or_else(PoisonError::into_inner).run_state()
    }

    /// Sets what the destination is told; stopping for a migration does so by itself.
    pub(crate) fn set_global_state(&self, state: RunState) {
        let global = self.shared.global.lock();
        global
            .unwrap_or_else(PoisonError::into_inner)
            .set(state, state == RunState::Suspended);
    }
}

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
        self.set_global_state(was);
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

    fn lost(&self) {
        self.shared.control.lose(&self.shared.lines);
    }

    fn vcpu_threads(&self) -> Vec<u32> {
        let harts = self.shared.lines.iter().take(self.harts());
        harts.map(Line::thread).collect()
    }

    fn throttle(&self, percent: u8) {
        self.throttle(percent);
    }
}
