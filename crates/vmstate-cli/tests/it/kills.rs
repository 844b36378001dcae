//! Either process of a migration is killed in every state that can be seen: there are never two running guests, and what is left has
//! one wherever it may.

use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use vmstate_engine::source::CONFIRM;

use crate::host::{Host, Kind, qemu};
use crate::proxy::{Cutter, Flow, proxy};

/// State of the source when somebody dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As soon as it has begun.
    Setup,
    Active,
    PreSwitchover,
    /// Ours waits for the word that the last section has been loaded, QEMU for the last word of all.
    Device,
}

const STATES: [State; 4] = [
    State::Setup,
    State::Active,
    State::PreSwitchover,
    State::Device,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Source,
    Destination,
}

/// A migration that stays in this state.
fn held(from: Kind, to: Kind, state: State) -> (Host, Host, Cutter) {
    let mut source = Host::started(from);
    let mut destination = Host::start(to, Some("defer"));
    let there = destination.path("there");
    let at = destination.path("at");
    let uri = |path: &std::path::Path| json!({ "uri": format!("unix:{}", path.display()) });
    // Without it QEMU takes what the socket has taken for arrived.
    source.enable("return-path");
    let back = match state {
        // It has to answer before anything else.
        State::Device if from == Kind::Ber => Flow::HeldAt(CONFIRM.to_be_bytes()),
        State::Device => Flow::Held,
        _ => Flow::Free,
    };
    match state {
        State::Setup | State::Active => {
            source.set(json!({ "max-bandwidth": 4096, "downtime-limit": 1 }));
        }
        State::PreSwitchover => {
            source.enable("pause-before-switchover");
            destination.enable("pause-before-switchover");
        }
        // What is held are all answers, also those that say who is there.
        State::Device if from == Kind::Ours => source.set(json!({ "x-peer": "qemu" })),
        State::Device => {}
    }
    destination.run("migrate-incoming", uri(&there));
    let cutter = proxy(at.clone(), &there, Flow::Free, back);
    source.run("migrate", uri(&at));
    match state {
        State::Setup => {}
        State::Active => source.wait_for("active"),
        State::PreSwitchover => source.wait_for("pre-switchover"),
        State::Device => {
            source.wait_for("device");
            // Everything that the source says now is said.
            sleep(Duration::from_millis(200));
            if from == Kind::Qemu {
                destination.wait_to_run();
            }
        }
    }
    (source, destination, cutter)
}

fn kill(from: Kind, to: Kind, state: State, victim: Victim) {
    let (mut source, mut destination, cutter) = held(from, to, state);
    // QEMU does not ask before it gives its guest away.
    let given_away = state == State::Device && from == Kind::Qemu;
    assert_eq!(destination.is_running(), given_away);
    match victim {
        Victim::Destination => {
            destination.kill();
            // The end of its connection comes through, however much was held.
            cutter.cut();
            if state == State::PreSwitchover && from == Kind::Qemu {
                // It does not look at the connection while it waits.
                source.run("migrate-continue", json!({ "state": "pre-switchover" }));
            }
            source.wait_for("failed");
            let info = source.info().unwrap();
            assert!(info["error-desc"].is_string(), "{info}");
            assert_ne!(info["x-unknown"], true, "{info}");
            assert!(source.is_running(), "{info}");
            source.goes_on();
        }
        Victim::Source if given_away => {
            source.kill();
            destination.goes_on();
        }
        Victim::Source => {
            source.kill();
            if to.is_ours() && state != State::Setup {
                assert_eq!(destination.exit_code(), Some(1));
            } else {
                sleep(Duration::from_millis(300));
            }
            assert!(!destination.is_running());
        }
    }
}

fn kill_all(from: Kind, to: Kind) {
    if [from, to].contains(&Kind::Qemu) && qemu().is_none() {
        return;
    }
    for state in STATES {
        for victim in [Victim::Source, Victim::Destination] {
            println!("{victim:?} in {state:?}");
            kill(from, to, state, victim);
        }
    }
}

#[test]
fn from_ours_to_ours() {
    kill_all(Kind::Ours, Kind::Ours);
}

#[test]
fn from_ours_to_ours_over_ber() {
    kill_all(Kind::Ber, Kind::Ber);
}

#[test]
fn from_ours_to_qemu() {
    kill_all(Kind::Ours, Kind::Qemu);
}

#[test]
fn from_qemu_to_ours() {
    kill_all(Kind::Qemu, Kind::Ours);
}

/// A guest with much memory that is not zero: all that is, goes in one frame.
const FULL: [&str; 8] = [
    "--guest",
    "dirtier",
    "--working-set",
    "1M",
    "--dirty-rate",
    "16M",
    "--fill",
    "10M",
];

/// A guest that runs at the destination, while most of its memory is still at the source.
fn torn(from: Kind, to: Kind, peer: Option<&str>) -> (Host, Host, Cutter) {
    let (mut source, mut destination) = match peer {
        Some(peer) => {
            let mut source = Host::started(from);
            source.set(json!({ "x-peer": peer }));
            (source, Host::start(to, Some("defer")))
        }
        None if from.is_ours() && to.is_ours() => {
            let mut source = Host::start_ours(from, None, &FULL);
            while source.check() == 0 {}
            (source, Host::start_ours(to, Some("defer"), &FULL))
        }
        None => (Host::started(from), Host::start(to, Some("defer"))),
    };
    let (there, at) = (destination.path("there"), destination.path("at"));
    let uri = |path: &std::path::Path| json!({ "uri": format!("unix:{}", path.display()) });
    for host in [&mut source, &mut destination] {
        host.enable("postcopy-ram");
    }
    source.set(json!({
        "max-bandwidth": 4096, "max-postcopy-bandwidth": 4096, "downtime-limit": 1
    }));
    destination.run("migrate-incoming", uri(&there));
    let cutter = proxy(at.clone(), &there, Flow::Free, Flow::Free);
    source.run("migrate", uri(&at));
    source.wait_for("active");
    source.run("migrate-start-postcopy", json!({}));
    source.wait_for("postcopy-active");
    destination.wait_for("postcopy-active");
    (source, destination, cutter)
}

/// What is left of the guest waits, and nobody makes another one of it.
fn kill_torn(from: Kind, to: Kind, peer: Option<&str>) {
    if [from, to].contains(&Kind::Qemu) && qemu().is_none() {
        return;
    }
    let (source, mut destination, cutter) = torn(from, to, peer);
    source.kill();
    cutter.cut();
    destination.wait_for("postcopy-paused");
    if to.is_ours() {
        let info = destination.info().unwrap();
        let missing = &info["x-postcopy"]["missing"];
        assert!(missing[0]["pages"].as_u64() > Some(0), "{info}");
        assert!(info["error-desc"].is_string(), "{info}");
        // Nobody else has it. With it, the machine has nothing more to do.
        destination.run("x-migrate-give-up", json!({}));
        assert_eq!(destination.exit_code(), Some(1));
    }
    let (mut source, destination, cutter) = torn(from, to, peer);
    destination.kill();
    cutter.cut();
    source.wait_for("postcopy-paused");
    assert!(!source.is_running());
    if from.is_ours() {
        for command in ["cont", "x-migrate-resume-here"] {
            assert!(!source.accepts(command), "{command}: it has run elsewhere");
        }
    }
    assert!(!source.accepts("migrate_cancel"));
    assert!(!source.is_running());
}

#[test]
fn in_postcopy_from_ours_to_ours() {
    kill_torn(Kind::Ours, Kind::Ours, Some("qemu"));
}

#[test]
fn in_postcopy_from_ours_to_ours_over_ber() {
    kill_torn(Kind::Ours, Kind::Ours, None);
    kill_torn(Kind::Ber, Kind::Ber, None);
}

#[test]
fn in_postcopy_from_ours_to_qemu() {
    kill_torn(Kind::Ours, Kind::Qemu, None);
}

#[test]
fn in_postcopy_from_qemu_to_ours() {
    kill_torn(Kind::Qemu, Kind::Ours, None);
}
