//! Guests that go before their memory, with a device beside it that follows, too; and every place where the connection can break.

use vmstate_engine::{Capabilities, Capability, Machine as _, MigrationStatus, RunState, Settings};

use crate::FORMAT;
use crate::support::{Break, LatePair};

pub(crate) fn settings() -> Settings {
    let mut settings = Settings {
        capabilities: Capabilities::of(&[Capability::PostcopyRam, Capability::ReturnPath]),
        ..Settings::default()
    };
    settings.parameters.max_bandwidth = 1 << 20;
    settings.parameters.max_postcopy_bandwidth = 1 << 20;
    settings.parameters.downtime_limit = 2;
    settings
}

/// Where the guest is in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Here,
    /// It has never run there, and somebody who knew has said so.
    HereAfterDoubt,
    There,
    /// After another connection.
    Recovered,
}

/// Runs it, and checks that exactly one guest runs, with all that it had.
#[track_caller]
fn run(fault: Break) -> (End, LatePair) {
    run_with(settings(), fault)
}

/// The same with other settings.
#[track_caller]
pub(crate) fn run_with(settings: Settings, fault: Break) -> (End, LatePair) {
    use MigrationStatus as Status;

    let mut pair = LatePair::new(settings, fault, FORMAT);
    pair.run();
    let statuses = (pair.source.status(), pair.destination.status());
    let what = format!("{fault:?} {statuses:?} {:?}", pair.source.error());
    assert!(!(pair.here.runs() && pair.there.runs()), "{what}");
    let end = match statuses {
        (Status::Failed | Status::Cancelled, Status::Failed) => End::Here,
        (Status::PostcopyPaused, Status::Failed) => {
            let now = std::time::Duration::from_secs(1000);
            pair.source.resume_here(now).expect(&what);
            return (End::HereAfterDoubt, pair);
        }
        (Status::PostcopyPaused, Status::Completed) => {
            let now = std::time::Duration::from_secs(1000);
            assert!(pair.source.resume_here(now).is_err(), "{what}");
            pair.source.give_up(now).expect(&what);
            End::There
        }
        (Status::Completed, Status::Completed) if pair.recoveries > 0 => End::Recovered,
        (Status::Completed, Status::Completed) => End::There,
        _ => panic!("{what}"),
    };
    let there = matches!(end, End::There | End::Recovered);
    assert_eq!(
        (pair.here.runs(), pair.there.runs()),
        (!there, there),
        "{what}"
    );
    if there {
        assert!(
            pair.here.content() == pair.there.content(),
            "{what}: the guest has changed"
        );
    } else {
        assert_eq!(pair.here.run_state(), RunState::Running, "{what}");
    }
    (end, pair)
}

#[test]
fn a_device_that_is_no_ram_follows_its_guest() {
    let (end, pair) = run(Break::Never);
    assert_eq!(end, End::There);
    assert_eq!(pair.recoveries, 0);
    assert!(pair.there.mill.lock().unwrap().late > 0);
    assert!(pair.here.counters.totals().pages() > 0);
}

#[test]
fn a_cut_at_every_record_boundary() {
    let (_, whole) = run(Break::Never);
    assert!(whole.boundaries.len() > 100, "{}", whole.boundaries.len());
    let mut seen = [0; 4];
    for noticed in [true, false] {
        for cut in &whole.boundaries {
            // The boundary itself, and inside the record that begins there.
            for bytes in [*cut, *cut + 1] {
                let (end, pair) = run(Break::There { bytes, noticed });
                seen[end as usize] += 1;
                assert!(pair.recoveries <= 1);
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert!(seen[End::Recovered as usize] > 10, "{seen:?}");
}

#[test]
fn a_cut_at_every_answer() {
    let mut ends = Vec::new();
    for answers in 0..30 {
        ends.push(run(Break::Back(answers)).0);
    }
    assert!(ends[0] < End::There, "{ends:?}");
    assert!(ends.contains(&End::HereAfterDoubt), "{ends:?}");
    assert!(ends.contains(&End::Recovered), "{ends:?}");
}
