//! Whole migrations of a computing guest, and every place where they can break.

use vmstate_engine::source::{Notice, Phase};
use vmstate_engine::{Capabilities, Capability, Machine, MigrationStatus, RunState, Settings};

use crate::support::{Fault, Pair};

fn settings(return_path: bool) -> Settings {
    let mut settings = Settings::default();
    if return_path {
        settings.capabilities = Capabilities::of(&[Capability::ReturnPath]);
    }
    // Slow enough for several rounds, and a downtime that is reached in the end.
    settings.parameters.max_bandwidth = 4 << 20;
    settings.parameters.downtime_limit = 12;
    settings
}

/// Who has the guest when nothing happens any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Here,
    There,
    Unknown,
}

/// Runs a migration and checks that exactly one guest runs, or that nobody can know.
#[track_caller]
fn run(return_path: bool, fault: Fault) -> (End, Pair) {
    let mut pair = Pair::new(settings(return_path), return_path, fault);
    pair.run();
    let (here, there) = (pair.here.runs(), pair.there.runs());
    let unknown = pair.source.is_unknown();
    let end = match (here, there, unknown) {
        (true, false, false) => End::Here,
        (false, true, false) => End::There,
        (false, _, true) => End::Unknown,
        other => panic!("{fault:?}: {other:?} {:?}", pair.source.error()),
    };
    match end {
        End::Here => {
            assert_eq!(pair.here.run_state(), RunState::Running);
            assert_ne!(pair.source.status(), MigrationStatus::Completed);
        }
        End::There => {
            assert_eq!(pair.here.run_state(), RunState::PostMigrate, "{fault:?}");
            assert_eq!(pair.source.status(), MigrationStatus::Completed);
        }
        End::Unknown => {
            assert_eq!(pair.here.run_state(), RunState::FinishMigrate);
            assert_eq!(pair.source.status(), MigrationStatus::Failed);
            assert!(
                pair.source.error().unwrap().contains("it is unknown"),
                "{fault:?}"
            );
        }
    }
    if there {
        assert!(
            pair.here.content() == pair.there.content(),
            "{fault:?}: the guest has changed"
        );
    }
    (end, pair)
}

#[test]
fn a_guest_moves_and_nothing_is_lost() {
    for return_path in [true, false] {
        let (end, pair) = run(return_path, Fault::default());
        assert_eq!(end, End::There);
        assert!(pair.there.tick.lock().unwrap().count > 40);
        let passes = pair
            .notices
            .iter()
            .filter(|n| matches!(n, Notice::Pass(_)))
            .count();
        assert!(passes >= 2, "{passes} rounds");
        let statuses: Vec<_> = pair
            .notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Status(status) => Some(status.name()),
                _ => None,
            })
            .collect();
        assert_eq!(statuses, ["setup", "active", "device", "completed"]);
        // It goes on computing.
        let before = pair.there.tick.lock().unwrap().count;
        pair.there.step();
        assert_eq!(pair.there.tick.lock().unwrap().count, before + 1);
    }
}

#[test]
fn a_cut_at_every_record_boundary() {
    for return_path in [true, false] {
        let (_, whole) = run(return_path, Fault::default());
        assert!(whole.boundaries.len() > 300, "{}", whole.boundaries.len());
        let mut seen = [0; 3];
        for noticed in [true, false] {
            for cut in &whole.boundaries {
                // The boundary itself, and inside the record that begins there.
                for cut in [*cut, *cut + 1] {
                    let fault = Fault {
                        cut: Some(cut),
                        noticed,
                        ..Fault::default()
                    };
                    let (end, pair) = run_any(return_path, fault);
                    seen[end as usize] += 1;
                    // Without the mark the destination never starts.
                    let mark = *whole.boundaries.iter().rev().nth(1).unwrap();
                    assert!(cut > mark || !pair.there.runs(), "{fault:?}");
                    assert!(cut <= mark || pair.there.runs(), "{fault:?}");
                    if return_path && cut < mark {
                        assert_eq!(end, End::Here, "{fault:?}");
                    }
                }
            }
        }
        assert!(seen[End::Here as usize] > 300);
        assert!(seen[End::Unknown as usize] > 0, "{seen:?}");
    }
}

/// As [`run`]; without a way back, a source whose last bytes are lost without notice cannot but believe that they have arrived.
fn run_any(return_path: bool, fault: Fault) -> (End, Pair) {
    if return_path || fault.noticed {
        return run(return_path, fault);
    }
    let mut pair = Pair::new(settings(false), false, fault);
    pair.run();
    assert!(!(pair.here.runs() && pair.there.runs()), "{fault:?}");
    let end = match pair.here.runs() {
        true => End::Here,
        false => End::There,
    };
    (end, pair)
}

#[test]
fn a_cut_of_the_answers() {
    let ends: Vec<_> = (0..5)
        .map(|answers| {
            let fault = Fault {
                answers: Some(answers),
                ..Fault::default()
            };
            run(true, fault).0
        })
        .collect();
    // PONG of the beginning, PONG of the confirmation, SHUT. Once confirmed, the mark may get through or not.
    assert_eq!(
        ends,
        [End::Here, End::Here, End::Unknown, End::There, End::There]
    );
}

#[test]
fn a_cancel_at_every_moment() {
    let (_, whole) = run(true, Fault::default());
    let mut ends = Vec::new();
    for cancel in 0..whole.works + 3 {
        let fault = Fault {
            cancel: Some(cancel),
            ..Fault::default()
        };
        let (end, pair) = run(true, fault);
        if end == End::Here {
            assert_eq!(pair.source.status(), MigrationStatus::Cancelled, "{cancel}");
            assert_eq!(
                pair.destination.status(),
                MigrationStatus::Failed,
                "{cancel}"
            );
        }
        ends.push(end);
    }
    // While `migrate` has not answered, there is nothing to cancel.
    assert_eq!(ends[..2], [End::There; 2]);
    assert_eq!(ends[2..ends.len() - 8], vec![End::Here; ends.len() - 10]);
    assert_eq!(ends.last(), Some(&End::There));
}

#[test]
fn an_unknown_outcome_is_decided_by_somebody_who_knows() {
    let (_, whole) = run(true, Fault::default());
    // Behind the mark, inside the trailer: the destination starts, the source cannot know.
    let fault = Fault {
        cut: whole.boundaries.last().map(|at| at + 5),
        ..Fault::default()
    };
    let (end, mut pair) = run(true, fault);
    assert_eq!(end, End::Unknown);
    assert!(pair.there.runs());
    pair.source
        .give_up(std::time::Duration::from_secs(9))
        .unwrap();
    assert_eq!(pair.source.phase(), Phase::Departing);
}
