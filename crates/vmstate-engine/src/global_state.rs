//! The section `globalstate`: what the machine did when the source stopped it.

use vmstate_derive::VmState;

use crate::machine::RunState;

/// State of the section `globalstate`: what the machine was doing before the source stopped it for the switchover.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 4 | big-endian | length of the name and 1; not used on loading |
/// | 4 | 32 | | name of the run state, zero padded |
/// | 36 | 1 | | 1: the next byte means something (since QEMU 9.0) |
/// | 37 | 1 | | 1: the guest sleeps |
/// | 38 | 66 | | zero |
///
/// A VMM registers one behind all devices, sets it when it stops the guest, and reads it when a guest has arrived.
///
/// ```
/// use vmstate_engine::{GlobalState, RunState};
///
/// let mut state = GlobalState::default();
/// assert_eq!(state.run_state(), None);
/// state.set(RunState::Prelaunch, false);
/// let mut bytes = Vec::new();
/// vmstate_wire::codec::encode(&state, &mut bytes)?;
/// assert_eq!((bytes.len(), &bytes[..13]), (104, &b"\0\0\0\x0aprelaunch"[..]));
/// assert_eq!(state.run_state(), Some(RunState::Prelaunch));
/// # Ok::<(), vmstate_desc::Error>(())
/// ```
///
/// Wire: QEMU 7.2 to 11.1, `vectors/streams`.
#[derive(Debug, Clone, PartialEq, Eq, VmState)]
#[vmstate(name = "globalstate", version = 1, minimum_version = 1)]
pub struct GlobalState {
    size: u32,
    #[vmstate(buffer)]
    runstate: [u8; 32],
    has_vm_was_suspended: u8,
    vm_was_suspended: u8,
    #[vmstate(buffer)]
    unused: [u8; 66],
}

impl Default for GlobalState {
    fn default() -> Self {
        Self {
            size: 0,
            runstate: [0; 32],
            has_vm_was_suspended: 0,
            vm_was_suspended: 0,
            unused: [0; 66],
        }
    }
}

impl GlobalState {
    /// Sets the run state. `was_suspended`: the guest slept when it was stopped.
    pub fn set(&mut self, state: RunState, was_suspended: bool) {
        let name = state.name().as_bytes();
        self.runstate = [0; 32];
        for (to, from) in self.runstate.iter_mut().zip(name) {
            *to = *from;
        }
        self.size = u32::try_from(name.len()).map_or(0, |length| length.saturating_add(1));
        self.has_vm_was_suspended = 1;
        self.vm_was_suspended = was_suspended.into();
    }

    /// The run state; none before anything was set or loaded, or if QEMU has no state of that name.
    #[must_use]
    pub fn run_state(&self) -> Option<RunState> {
        // The last byte counts as the end of the name, whatever it is.
        let (_, name) = self.runstate.split_last()?;
        let name = name.split(|byte| *byte == 0).next()?;
        RunState::from_name(std::str::from_utf8(name).ok()?)
    }

    /// Whether the guest slept when it was stopped.
    #[must_use]
    pub fn was_suspended(&self) -> bool {
        self.has_vm_was_suspended != 0 && self.vm_was_suspended != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstate_desc::{Limits, VmState};
    use vmstate_wire::vmdesc::{Vmdesc, VmdescDialect};

    #[test]
    fn every_run_state_survives() {
        assert!(GlobalState::DESCRIPTION.check().is_ok());
        for state in RunState::ALL {
            let mut sent = GlobalState::default();
            sent.set(RunState::Running, true);
            sent.set(*state, *state == RunState::Suspended);
            let mut bytes = Vec::new();
            vmstate_wire::codec::encode(&sent, &mut bytes).unwrap();
            let mut loaded = GlobalState::default();
            let used = vmstate_wire::codec::decode(&mut loaded, 1, &bytes, Limits::default());
            assert_eq!(used, Ok(104));
            assert_eq!((&loaded, loaded.run_state()), (&sent, Some(*state)));
            assert_eq!(loaded.was_suspended(), *state == RunState::Suspended);
        }
    }

    #[test]
    fn unknown_names_are_no_state() {
        for name in [&b"sleeping"[..], b"", b"running\xff", &[b'r'; 32]] {
            let mut state = GlobalState::default();
            state.runstate[..name.len()].copy_from_slice(name);
            assert_eq!(state.run_state(), None, "{name:?}");
        }
    }

    #[test]
    fn the_trailer_is_that_of_qemu() {
        let mut vmdesc = Vmdesc::new(VmdescDialect::V11_1, 4096);
        let mut state = GlobalState::default();
        state.set(RunState::Running, false);
        vmdesc
            .device("globalstate", 0, &state, &mut Vec::new())
            .unwrap();
        let expected = concat!(
            r#"{"name": "globalstate", "instance_id": 0, "vmsd_name": "globalstate", "version": 1, "fields": ["#,
            r#"{"name": "size", "type": "uint32", "size": 4}, {"name": "runstate", "type": "buffer", "size": 32}, "#,
            r#"{"name": "has_vm_was_suspended", "type": "uint8", "size": 1}, "#,
            r#"{"name": "vm_was_suspended", "type": "uint8", "size": 1}, "#,
            r#"{"name": "unused", "type": "buffer", "size": 66}]}"#
        );
        assert!(vmdesc.finish().contains(expected));
    }
}
