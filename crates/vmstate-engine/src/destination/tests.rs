use std::collections::{BTreeSet, HashSet, VecDeque};

use super::*;

fn explore() -> Vec<(Core, Input, Option<Core>)> {
    let start = Core::default();
    let mut steps = Vec::new();
    let (mut seen, mut open) = (HashSet::from([start]), VecDeque::from([start]));
    while let Some(core) = open.pop_front() {
        for input in Input::ALL {
            let mut next = core;
            let legal = next.step(*input).is_ok();
            assert!(legal || next == core, "{core:?} {input:?}");
            steps.push((core, *input, legal.then_some(next)));
            if legal && seen.insert(next) {
                open.push_back(next);
            }
        }
    }
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
        ("active", "completed"),
        ("active", "failed"),
        ("active", "postcopy-device"),
        ("none", "setup"),
        ("postcopy-active", "completed"),
        ("postcopy-active", "postcopy-paused"),
        ("postcopy-device", "completed"),
        ("postcopy-device", "failed"),
        ("postcopy-device", "postcopy-active"),
        // The user gives up.
        ("postcopy-paused", "failed"),
        ("postcopy-paused", "postcopy-recover"),
        ("postcopy-recover", "postcopy-active"),
        ("postcopy-recover", "postcopy-paused"),
        ("setup", "active"),
        ("setup", "failed"),
    ];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
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
fn once_the_guest_has_arrived_it_starts() {
    for (core, ..) in explore() {
        // It starts in whichever way it has come.
        let arrived = core.phase() >= Phase::Starting && !core.has_failed();
        let mut end = core;
        for _ in 0..10 {
            let _ = end.step(Input::Taken);
            // What can fail does.
            let _ = end.step(Input::Abandon);
            if end.step(Input::Failed).is_err() {
                let _ = end.step(Input::Done);
            }
        }
        assert_eq!(end.has_guest(), arrived, "{core:?}");
    }
}

fn statuses(destination: &mut Destination) -> Vec<Notice> {
    std::iter::from_fn(|| destination.notice()).collect()
}

#[test]
fn a_guest_arrives() {
    let mut destination = Destination::new(true);
    assert_eq!(destination.work(), Work::Rest);
    destination.incoming().unwrap();
    assert_eq!(destination.incoming(), Err(IncomingError::Started));
    for expected in [
        Work::Accept,
        Work::Load,
        Work::Start(RunToken::new_guest()),
        Work::Trailer,
        Work::Shut(0),
        Work::CleanUp,
    ] {
        assert_eq!(destination.work(), expected);
        // Only one worker.
        assert_eq!(destination.work(), Work::Rest);
        let behind = matches!(expected, Work::Trailer | Work::Shut(_) | Work::CleanUp);
        assert_eq!(destination.is_clearing_up(), behind, "{expected:?}");
        match expected {
            Work::Trailer | Work::Shut(_) => destination.failed("cut").unwrap(),
            _ => destination.done().unwrap(),
        }
    }
    assert_eq!(
        (destination.work(), destination.error()),
        (Work::Rest, None)
    );
    assert_eq!(
        statuses(&mut destination),
        [
            MigrationStatus::Setup,
            MigrationStatus::Active,
            MigrationStatus::Completed
        ]
        .map(Notice::Status)
    );
    assert!(destination.done().is_err() && !destination.is_clearing_up());
    assert_eq!(destination.incoming(), Err(IncomingError::Started));
}

#[test]
fn a_failed_load_never_starts() {
    let mut destination = Destination::new(true);
    destination.incoming().unwrap();
    assert_eq!(destination.work(), Work::Accept);
    destination.done().unwrap();
    assert_eq!(destination.work(), Work::Load);
    destination.abandon("the user ends it");
    assert_eq!(destination.work(), Work::Rest);
    destination.failed("channel shut down").unwrap();
    assert_eq!(destination.work(), Work::Shut(1));
    destination.done().unwrap();
    assert_eq!(destination.work(), Work::CleanUp);
    destination.done().unwrap();
    assert_eq!(destination.phase(), Phase::Over);
    assert_eq!(destination.error(), Some("the user ends it"));
    assert_eq!(destination.status(), MigrationStatus::Failed);
    assert_eq!(destination.incoming(), Err(IncomingError::Started));
    destination.abandon("again");
    assert!(statuses(&mut destination).contains(&Notice::ShutDown));
}

#[test]
fn only_a_machine_that_waits_takes_a_guest() {
    let refused = Destination::new(false).incoming();
    assert_eq!(
        refused.unwrap_err().to_string(),
        "'-incoming' was not specified on the command line"
    );
}

#[test]
fn the_state_in_which_a_guest_starts() {
    use RunState::{Paused, Prelaunch, Running, Suspended};
    for (sent, autostart, expected) in [
        (None, true, Running),
        (None, false, Paused),
        (Some(Running), true, Running),
        (Some(Suspended), true, Suspended),
        (Some(Suspended), false, Paused),
        (Some(Prelaunch), true, Prelaunch),
        (Some(Paused), false, Paused),
    ] {
        assert_eq!(start_state(sent, autostart), expected);
    }
}

/// A destination that has read `POSTCOPY_RUN` and has been started.
fn launched() -> Destination {
    let mut destination = Destination::new(true);
    destination.incoming().unwrap();
    assert_eq!(destination.work(), Work::Accept);
    destination.done().unwrap();
    assert!(destination.listening().is_err(), "nobody loads");
    assert_eq!(destination.work(), Work::Load);
    assert!(destination.ran().is_err(), "before POSTCOPY_LISTEN");
    destination.listening().unwrap();
    assert!(destination.listening().is_err(), "once");
    destination.ran().unwrap();
    let launch = destination.work();
    assert_eq!(launch, Work::Launch(RunToken::new_guest()));
    destination.done().unwrap();
    statuses(&mut destination);
    destination
}

#[test]
fn a_guest_that_comes_before_its_memory() {
    let mut destination = launched();
    assert_eq!(destination.work(), Work::Receive);
    // Too late for this, and too early for that.
    destination.abandon("the user ends it");
    assert!(destination.recover().is_err() && destination.give_up("no").is_err());
    for _ in 0..3 {
        statuses(&mut destination);
        destination.pause().unwrap();
        assert_eq!(destination.notice(), Some(Notice::ShutDown));
        destination.failed("channel shut down").unwrap();
        assert_eq!(destination.work(), Work::Wait);
        assert_eq!(destination.error(), Some("channel shut down"));
        assert_eq!(
            destination.pause(),
            Err(PostcopyCommandError::NotActive),
            "it is paused"
        );
        destination.recover().unwrap();
        assert_eq!(destination.recover(), Err(PostcopyCommandError::NotPaused));
        // Nobody comes; then somebody does.
        assert_eq!(destination.work(), Work::Reconnect);
        destination.failed("nobody").unwrap();
        destination.recover().unwrap();
        assert_eq!(destination.work(), Work::Reconnect);
        destination.done().unwrap();
        assert_eq!(destination.work(), Work::Recover);
        destination.resumed().unwrap();
        assert_eq!(destination.error(), None);
        assert!(destination.resumed().is_err(), "once");
    }
    destination.done().unwrap();
    assert_eq!(destination.work(), Work::Shut(0));
    destination.done().unwrap();
    assert_eq!(destination.work(), Work::CleanUp);
    destination.done().unwrap();
    assert_eq!(destination.status(), MigrationStatus::Completed);
    assert!(destination.end("late").is_err());
}

#[test]
fn a_guest_whose_memory_never_comes() {
    // In each place where it can be given up.
    for place in 0..4 {
        let mut destination = launched();
        assert_eq!(destination.work(), Work::Receive);
        if place > 0 {
            destination.failed("cut").unwrap();
        }
        if place > 1 {
            destination.recover().unwrap();
            assert_eq!(destination.work(), Work::Reconnect);
        }
        if place > 2 {
            destination.done().unwrap();
            assert_eq!(destination.work(), Work::Recover);
        }
        let given_up = match place {
            0 => destination.end("enough"),
            _ => destination.give_up("enough"),
        };
        given_up.unwrap();
        assert!(destination.resumed().is_err() && destination.recover().is_err());
        if place != 1 {
            destination.failed("channel shut down").unwrap();
        }
        assert_eq!(destination.work(), Work::GiveUp, "{place}");
        destination.done().unwrap();
        assert_eq!(destination.work(), Work::CleanUp);
        destination.done().unwrap();
        assert_eq!(destination.status(), MigrationStatus::Failed);
        assert!(
            destination
                .error()
                .is_some_and(|why| why.starts_with("enough"))
        );
    }
}
