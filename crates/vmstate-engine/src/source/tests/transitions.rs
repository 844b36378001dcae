//! The table, explored whole.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::*;

fn all_traits() -> impl Iterator<Item = Traits> {
    (0..8).map(|bits| Traits {
        return_path: bits & 1 != 0,
        pause: bits & 2 != 0,
        refusal_is_proof: bits & 4 != 0,
    })
}

/// Every state that can be reached, with every input and what it leads to.
fn explore() -> Vec<(Core, Input, Option<Core>)> {
    let mut steps = Vec::new();
    for traits in all_traits() {
        let start = Core::new(traits);
        let (mut seen, mut open) = (HashSet::from([start]), VecDeque::from([start]));
        while let Some(core) = open.pop_front() {
            for input in Input::ALL {
                let mut next = core;
                let legal = next.step(*input).is_ok();
                assert!(
                    legal || next == core,
                    "{core:?} {input:?} changed and refused"
                );
                steps.push((core, *input, legal.then_some(next)));
                if legal && seen.insert(next) {
                    open.push_back(next);
                }
            }
        }
    }
    assert!(steps.len() > 1000, "{}", steps.len());
    steps
}

#[test]
fn statuses_follow_each_other_as_in_qemu() {
    let mut found = BTreeSet::new();
    for (core, _, next) in explore() {
        if let Some(next) = next
            && next.status() != core.status()
        {
            found.insert((core.status().name(), next.status().name()));
        }
    }
    let expected = [
        ("active", "cancelling"),
        ("active", "device"),
        ("active", "failing"),
        ("active", "pre-switchover"),
        ("cancelled", "setup"),
        ("cancelling", "cancelled"),
        // Only after a guest that went into a file has been resumed.
        ("completed", "setup"),
        ("device", "cancelling"),
        ("device", "completed"),
        ("device", "failing"),
        ("device", "postcopy-active"),
        ("device", "postcopy-device"),
        // Only after an unknown outcome, by the destination's late word or by decision.
        ("failed", "completed"),
        ("failed", "setup"),
        ("failing", "failed"),
        ("none", "setup"),
        ("postcopy-active", "completed"),
        ("postcopy-active", "postcopy-paused"),
        ("postcopy-device", "postcopy-active"),
        ("postcopy-device", "postcopy-paused"),
        // Somebody says that the guest runs at the destination, which has everything, or has not.
        ("postcopy-paused", "completed"),
        ("postcopy-paused", "failing"),
        ("postcopy-paused", "postcopy-recover-setup"),
        ("postcopy-recover", "postcopy-active"),
        ("postcopy-recover", "postcopy-paused"),
        ("postcopy-recover-setup", "postcopy-paused"),
        ("postcopy-recover-setup", "postcopy-recover"),
        ("pre-switchover", "cancelling"),
        ("pre-switchover", "device"),
        ("pre-switchover", "failing"),
        ("setup", "active"),
        ("setup", "cancelling"),
        ("setup", "failing"),
        ("setup", "wait-unplug"),
        ("wait-unplug", "active"),
        ("wait-unplug", "cancelling"),
        ("wait-unplug", "failing"),
    ];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn the_right_moves_only_where_it_may() {
    let mut moves = BTreeSet::new();
    for (core, input, next) in explore() {
        if let Some(next) = next
            && next.right() != core.right()
        {
            let of = |core: &Core| format!("{:?} {:?}", core.phase(), core.right());
            moves.insert(format!("{} -{input:?}-> {}", of(&core), of(&next)));
        }
    }
    let expected = [
        "AwaitingResume InDoubt -Resumed-> Postcopy Destination",
        "AwaitingShut InDoubt -ShutError-> Resuming Migration",
        "Committing InDoubt -Failed-> Resuming Migration",
        "Committing InDoubt -NotSent-> Resuming Migration",
        "Committing Migration -Taken-> Committing InDoubt",
        "Departing InDoubt -Done-> CleaningUp Destination",
        "Departing InDoubt -Done-> Idle Destination",
        "HandingOver InDoubt -Done-> Postcopy Destination",
        "HandingOver InDoubt -Failed-> Postcopy Destination",
        "HandingOver InDoubt -NotSent-> Resuming Migration",
        "HandingOver Migration -Taken-> HandingOver InDoubt",
        "Idle Destination -ResumeHere-> Resuming Migration",
        "Paused InDoubt -ResumeHere-> Resuming Migration",
        "Postcopy InDoubt -Loaded-> Postcopy Destination",
        "Recovering InDoubt -Done-> Postcopy Destination",
        "Resuming Migration -Done-> CleaningUp Machine",
        "Resuming Migration -Done-> Idle Machine",
        "Stopping Machine -Done-> PreSwitchover Migration",
        "Stopping Machine -Done-> Completing Migration",
        "Stopping Machine -Done-> Packaging Migration",
        "Stopping Machine -Done-> Resuming Migration",
        "Trailing InDoubt -Done-> Resuming Migration",
        "Trailing InDoubt -Failed-> Resuming Migration",
        "Unknown InDoubt -ResumeHere-> Resuming Migration",
    ];
    assert_eq!(moves, expected.map(str::to_owned).into());
}

/// Does what the phase asks for, and answers questions of the outside, until the migration is over.
fn settle(mut core: Core) -> Core {
    for _ in 0..60 {
        let _ = core.step(Input::Taken);
        let input = match core.phase() {
            // The channels are being closed.
            _ if core.is_lost() => Input::Done,
            Phase::Idle | Phase::Unknown => break,
            Phase::PreSwitchover => Input::Continue,
            Phase::Confirming => Input::Confirm,
            Phase::AwaitingShut => Input::ShutOk,
            Phase::Paused => Input::Recover,
            Phase::AwaitingResume => Input::Resumed,
            Phase::Postcopy if !core.is_loaded() && !core.is_lost() => Input::Loaded,
            _ => Input::Done,
        };
        core.step(input).unwrap();
    }
    core
}

#[test]
fn before_the_commit_every_failure_and_cancel_leaves_the_guest_here() {
    for (core, input, next) in explore() {
        let gives_up = matches!(
            input,
            Input::Failed
                | Input::Broken
                | Input::Cancel
                | Input::ReturnPathEnded
                | Input::ShutError
        );
        let (true, Some(next)) = (core.can_turn_back() && gives_up, next) else {
            continue;
        };
        let end = settle(next);
        assert_eq!(end.right(), Right::Machine, "{core:?} {input:?}");
        let expected = match core.abort().or(next.abort()) {
            Some(Abort::Cancelled) => MigrationStatus::Cancelled,
            _ => MigrationStatus::Failed,
        };
        assert_eq!(end.status(), expected, "{core:?} {input:?}");
    }
}

#[test]
fn nothing_gets_stuck() {
    for (core, ..) in explore() {
        let end = settle(core);
        assert!(
            matches!(end.phase(), Phase::Idle | Phase::Unknown),
            "{core:?}"
        );
        assert!(!end.is_busy());
        assert_eq!(end.phase() == Phase::Unknown, end.right() == Right::InDoubt);
    }
}

#[test]
fn every_row_is_used_and_every_phase_reached() {
    let steps = explore();
    for (at, input, to) in ROWS {
        let used = steps.iter().any(|(core, on, next)| {
            (core.phase(), on) == (*at, input) && next.is_some_and(|next| next.phase() == *to)
        });
        assert!(used, "{at} {input:?} {to}");
    }
    for phase in Phase::ALL {
        assert!(
            steps.iter().any(|(core, ..)| core.phase() == *phase),
            "{phase}"
        );
    }
}

#[test]
fn a_refusal_names_both() {
    let error = Core::default().step(Input::Done).unwrap_err();
    assert_eq!(error.to_string(), "source: Done in Idle");
}

/// The answer to the last thing that is sent may be there before whoever sent it says that it is done.
#[test]
fn a_confirmation_is_not_lost_while_the_worker_is_busy() {
    let early = explore().into_iter().filter(|(core, input, _)| {
        (core.phase(), core.is_busy(), *input) == (Phase::Completing, true, Input::Confirm)
    });
    let mut seen = 0;
    for (core, _, next) in early {
        let mut next = next.unwrap();
        next.step(Input::Done).unwrap();
        if core.abort().is_none() {
            assert_eq!(next.phase(), Phase::Committing);
            seen += 1;
        }
    }
    assert!(seen > 0);
}
