//! Which handler is called when, and with what.

use std::sync::{Arc, Mutex};

use vmstate_engine::{
    ANY_INSTANCE, Bql, Capabilities, Capability, CompleteCx, HandlerError, IterateCx, LoadCx,
    LoadSetupCx, LoadStateBuffer, Machine, MigrationStatus, Pending, Progress, RunState,
    SaveVmHandlers, Settings, SetupCx, Writes,
};
use vmstate_wire::stream::VersionId;

use crate::support::{Fault, Pair};

type Calls = Arc<Mutex<Vec<&'static str>>>;

/// Notes every call; refuses one of them, if told to.
struct Spy {
    calls: Calls,
    /// What both sides' spies see.
    joint: Calls,
    refuses: &'static str,
    writes: Writes,
}

impl Spy {
    fn note(&self, call: &'static str) -> Result<(), HandlerError> {
        self.joint.lock().unwrap().push(call);
        let mut calls = self.calls.lock().unwrap();
        if calls.last() != Some(&call) {
            calls.push(call);
        }
        if self.refuses == call {
            return Err(HandlerError::refused("the spy says no"));
        }
        Ok(())
    }
}

impl SaveVmHandlers for Spy {
    fn writes(&self) -> Writes {
        self.writes
    }

    fn save_prepare(&mut self, _bql: &Bql<'_>) -> Result<(), HandlerError> {
        self.note("save_prepare")
    }

    fn save_setup(&mut self, cx: &mut SetupCx<'_>) -> Result<(), HandlerError> {
        cx.out.bytes(b"!")?;
        self.note("save_setup")
    }

    fn state_pending_estimate(&mut self, _pending: &mut Pending) {
        let _ = self.note("estimate");
    }

    fn state_pending_exact(&mut self, _pending: &mut Pending) -> Result<(), HandlerError> {
        self.note("exact")
    }

    fn save_live_iterate(&mut self, cx: &mut IterateCx<'_>) -> Result<Progress, HandlerError> {
        cx.out.bytes(b"!")?;
        self.note("save_live_iterate")?;
        Ok(Progress::Finished)
    }

    fn save_live_complete_precopy(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        cx.out.bytes(b"!")?;
        self.note("save_live_complete_precopy")
    }

    fn save_state(&mut self, cx: &mut CompleteCx<'_>) -> Result<(), HandlerError> {
        cx.out.bytes(b"!")?;
        self.note("save_state")
    }

    fn save_cleanup(&mut self, _bql: &Bql<'_>) {
        let _ = self.note("save_cleanup");
    }

    fn load_setup(&mut self, cx: &mut LoadSetupCx<'_>) -> Result<(), HandlerError> {
        assert!(cx.bql.is_some());
        self.note("load_setup")
    }

    fn switchover_ack_needed(&mut self) -> bool {
        let _ = self.note("switchover_ack_needed");
        true
    }

    fn load_state_buffer(&mut self) -> Option<Arc<dyn LoadStateBuffer>> {
        let _ = self.note("load_state_buffer");
        None
    }

    fn load_state(&mut self, cx: &mut LoadCx<'_>, _: VersionId) -> Result<(), HandlerError> {
        assert!(cx.bql.is_some());
        let mut byte = [0];
        cx.input.read_exact(&mut byte)?;
        assert_eq!(byte, *b"!");
        cx.approve_switchover();
        self.note("load_state")
    }

    fn switchover_start(&mut self, _cx: &mut LoadSetupCx<'_>) -> Result<(), HandlerError> {
        self.note("switchover_start")
    }

    fn load_cleanup(&mut self, _bql: &Bql<'_>) {
        let _ = self.note("load_cleanup");
    }
}

/// A migration with a spy on each side; what they saw.
fn spied(
    writes: Writes,
    refuses: &'static str,
    capabilities: &[Capability],
) -> (Pair, [Vec<&'static str>; 3]) {
    let mut settings = Settings {
        capabilities: Capabilities::of(capabilities),
        ..Settings::default()
    };
    settings.dialect.switchover_ack_legacy = true;
    let mut pair = Pair::new(settings, true, Fault::default());
    let calls = [Calls::default(), Calls::default(), Calls::default()];
    for (toy, own) in [&pair.here, &pair.there].into_iter().zip(&calls) {
        let spy = Spy {
            calls: own.clone(),
            joint: calls[2].clone(),
            refuses,
            writes,
        };
        let mut registry = toy.registry.lock().unwrap();
        registry
            .register_savevm_live("spy", ANY_INSTANCE, 1, Box::new(spy))
            .unwrap();
    }
    pair.run();
    (pair, calls.map(|calls| calls.lock().unwrap().clone()))
}

#[test]
fn a_live_section() {
    let (pair, [source, destination, _]) = spied(Writes::LIVE, "", &[Capability::ReturnPath]);
    assert!(pair.there.runs());
    let rounds = source.iter().position(|call| *call == "estimate").unwrap();
    let end = source
        .iter()
        .position(|call| *call == "save_live_complete_precopy")
        .unwrap();
    assert_eq!(source[..rounds], ["save_prepare", "save_setup"]);
    let in_rounds = ["estimate", "exact", "save_live_iterate"];
    assert!(
        source[rounds..end]
            .iter()
            .all(|call| in_rounds.contains(call)),
        "{source:?}"
    );
    assert_eq!(source[end - 1], "exact");
    assert_eq!(
        source[end..],
        ["save_live_complete_precopy", "save_cleanup"]
    );
    assert_eq!(
        destination,
        [
            "load_setup",
            "load_state_buffer",
            "load_state",
            "switchover_start",
            "load_state",
            "load_cleanup"
        ]
    );
}

#[test]
fn an_old_style_section() {
    let (pair, [source, destination, _]) = spied(Writes::STATE, "", &[Capability::ReturnPath]);
    assert!(pair.there.runs());
    assert_eq!(source, ["save_prepare", "save_state", "save_cleanup"]);
    assert_eq!(
        destination,
        [
            "load_setup",
            "load_state_buffer",
            "switchover_start",
            "load_state",
            "load_cleanup"
        ]
    );
}

#[test]
fn a_device_that_must_approve_is_waited_for() {
    let capabilities = [Capability::ReturnPath, Capability::SwitchoverAck];
    let (pair, [_, destination, joint]) = spied(Writes::LIVE, "", &capabilities);
    assert!(pair.there.runs());
    assert_eq!(
        destination[..3],
        ["load_setup", "switchover_ack_needed", "load_state_buffer"]
    );
    let first = |call| joint.iter().position(|one| *one == call).unwrap();
    assert!(first("load_state") < first("save_live_complete_precopy"));
    // Without the capability nobody waits, and the destination reads when all has been written.
    let (_, [.., joint]) = spied(Writes::LIVE, "", &[Capability::ReturnPath]);
    let first = |call| joint.iter().position(|one| *one == call).unwrap();
    assert!(first("load_state") > first("save_live_complete_precopy"));
}

#[test]
fn wherever_a_handler_refuses_the_guest_stays_and_all_clean_up() {
    for refuses in [
        "save_setup",
        "exact",
        "save_live_iterate",
        "save_live_complete_precopy",
        "load_setup",
        "load_state",
        "switchover_start",
    ] {
        let (pair, [source, destination, _]) =
            spied(Writes::LIVE, refuses, &[Capability::ReturnPath]);
        assert!(pair.here.runs() && !pair.there.runs(), "{refuses}");
        assert_eq!(pair.source.status(), MigrationStatus::Failed, "{refuses}");
        assert_eq!(
            pair.destination.status(),
            MigrationStatus::Failed,
            "{refuses}"
        );
        assert_eq!(source.last(), Some(&"save_cleanup"), "{refuses}");
        assert_eq!(destination.last(), Some(&"load_cleanup"), "{refuses}");
        // Whoever refuses says why; the other side learns that it was refused.
        let (own, other) = match refuses {
            "load_setup" | "load_state" | "switchover_start" => {
                (pair.destination.error(), pair.source.error())
            }
            _ => (pair.source.error(), pair.destination.error()),
        };
        assert!(own.unwrap().contains("spy/0: the spy says no"), "{own:?}");
        assert!(other.is_some(), "{refuses}");
    }
}

#[test]
fn a_refusal_of_the_command_changes_nothing() {
    let (pair, [source, ..]) = spied(Writes::LIVE, "save_prepare", &[Capability::ReturnPath]);
    assert_eq!(source, ["save_prepare"]);
    assert_eq!(pair.source.status(), MigrationStatus::None);
    assert_eq!(pair.here.run_state(), RunState::Running);
    assert!(pair.notices.is_empty());
}
