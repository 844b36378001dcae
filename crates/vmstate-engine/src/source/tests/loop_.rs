//! The loop: queries, iterations, limits.

use super::*;

fn left(bytes: u64) -> Outcome {
    Outcome::Pending(Pending {
        must_precopy: bytes,
        ..Pending::default()
    })
}

impl Run {
    /// One iteration that sends this much in this time.
    #[track_caller]
    fn iterates(&mut self, bytes: u64, time: Duration) -> Option<u64> {
        let Work::Iterate { budget, until } = self.work() else {
            panic!("no iteration");
        };
        assert_eq!(until, self.now + Duration::from_millis(50));
        self.gauge.transferred += bytes;
        self.now += time;
        self.done(Outcome::Iterated);
        budget
    }

    fn passes(&self) -> usize {
        let pass = |notice: &&Notice| matches!(notice, Notice::Pass(_));
        self.notices.iter().filter(pass).count()
    }
}

const MIB: u64 = 1 << 20;

#[test]
fn rounds_until_the_rest_fits_into_the_downtime() {
    // 1000 MiB per second for 50 ms are 50 MiB.
    let mut run = Run::with(|settings| {
        settings.parameters.max_bandwidth = 0;
        settings.parameters.downtime_limit = 50;
    });
    run.set_up(false);
    for round in 0..3 {
        run.expect(&Work::Estimate, left(400 * MIB));
        assert_eq!(run.iterates(100 * MIB, Duration::from_millis(100)), None);
        run.expect(&Work::Estimate, left(51 * MIB));
        run.iterates(50 * MIB, Duration::from_millis(50));
        run.expect(&Work::Estimate, left(50 * MIB));
        if round == 0 {
            // It fits, and goes on for twice the time that the guest may be stopped.
            for rest in [49, 48] {
                run.iterates(50 * MIB, Duration::from_millis(50));
                run.expect(&Work::Estimate, left(rest * MIB));
            }
        }
        run.expect(&Work::Exact, left(100 * MIB));
        assert_eq!(run.passes(), round + 1);
        run.iterates(50 * MIB, Duration::from_millis(50));
    }
    run.expect(&Work::Estimate, left(50 * MIB));
    run.expect(&Work::Exact, left(50 * MIB));
    run.stop();
    let info = run
        .source
        .info(run.now, run.gauge, &RamTotals::default(), vec![]);
    assert_eq!(info.expected_downtime, Some(Duration::from_millis(50)));
    assert_eq!(info.remaining, Some(50 * MIB));
    assert_eq!(
        run.notices
            .iter()
            .filter_map(|n| match n {
                Notice::Pass(pass) => Some(*pass),
                _ => None,
            })
            .collect::<Vec<_>>(),
        [2, 3, 4, 5]
    );
}

/// A guest of which 100 MiB are left, at 1000 MiB per second, with the default downtime limit of 300 ms.
fn fitting(running: bool) -> Run {
    let mut run = Run::with(|settings| settings.parameters.max_bandwidth = 0);
    run.set_up(false);
    run.expect(&Work::Estimate, left(400 * MIB));
    run.iterates(100 * MIB, Duration::from_millis(100));
    run.gauge.running = running;
    run.expect(&Work::Estimate, left(100 * MIB));
    run
}

#[test]
fn what_fits_is_sent_while_the_guest_runs() {
    let mut run = fitting(true);
    run.iterates(98 * MIB, Duration::from_millis(50));
    run.expect(&Work::Estimate, left(2 * MIB));
    run.iterates(2 * MIB, Duration::from_millis(2));
    run.expect(&Work::Estimate, left(0));
    // Rounds that halve the rest go on,
    for rest in [16, 8, 4] {
        run.expect(&Work::Exact, left(rest * MIB));
        run.iterates(rest * MIB, Duration::from_millis(rest));
        // until it is what a millisecond carries.
        run.expect(&Work::Estimate, left(MIB));
    }
    run.expect(&Work::Exact, left(MIB));
    assert_eq!(run.work(), Work::Stop);
}

#[test]
fn a_round_that_does_not_halve_the_rest_is_the_last() {
    let mut run = fitting(true);
    run.iterates(100 * MIB, Duration::from_millis(50));
    run.expect(&Work::Estimate, left(0));
    run.expect(&Work::Exact, left(40 * MIB));
    run.iterates(40 * MIB, Duration::from_millis(40));
    run.expect(&Work::Estimate, left(0));
    run.expect(&Work::Exact, left(21 * MIB));
    assert_eq!(run.work(), Work::Stop);
}

#[test]
fn a_stopped_guest_has_nothing_to_gain_from_another_round() {
    let mut run = fitting(false);
    run.expect(&Work::Exact, left(100 * MIB));
    assert_eq!(run.work(), Work::Stop);
}

#[test]
fn what_fits_is_not_kept_from_the_switchover_for_long() {
    let mut run = fitting(true);
    for _ in 0..12 {
        run.iterates(50 * MIB, Duration::from_millis(49));
        run.expect(&Work::Estimate, left(60 * MIB));
    }
    run.iterates(MIB, Duration::from_millis(12));
    run.expect(&Work::Estimate, left(60 * MIB));
    run.expect(&Work::Exact, left(60 * MIB));
    assert_eq!(run.work(), Work::Stop);
}

#[test]
fn at_least_one_iteration_before_anything_is_measured() {
    let mut run = Run::new(&[]);
    run.set_up(false);
    run.expect(&Work::Estimate, left(1));
    run.iterates(1, Duration::from_millis(1));
    run.expect(&Work::Estimate, left(0));
    run.expect(&Work::Exact, left(0));
    assert_eq!(run.work(), Work::Stop);
}

#[test]
fn a_used_up_slice_is_waited_for() {
    let mut run = Run::with(|settings| settings.parameters.max_bandwidth = 10 * MIB);
    run.set_up(false);
    let start = run.now;
    run.expect(&Work::Estimate, left(400 * MIB));
    assert_eq!(
        run.iterates(MIB / 2, Duration::from_millis(10)),
        Some(MIB + 1)
    );
    run.expect(&Work::Estimate, left(400 * MIB));
    assert_eq!(
        run.iterates(MIB, Duration::from_millis(10)),
        Some(MIB / 2 + 1)
    );
    let until = Some(start + Duration::from_millis(100));
    assert_eq!(run.work(), Work::Wait { until });
    run.now = start + Duration::from_millis(99);
    assert_eq!(run.work(), Work::Wait { until });
    run.now = start + Duration::from_millis(100);
    run.expect(&Work::Estimate, left(400 * MIB));
    assert_eq!(run.iterates(0, Duration::ZERO), Some(MIB + 1));
    // A new limit acts at once.
    run.gauge.transferred += 2 * MIB;
    assert!(matches!(run.work(), Work::Wait { .. }));
    run.source.set_parameters(MigrationParameters {
        max_bandwidth: 100 * MIB,
        ..MigrationParameters::default()
    });
    assert_eq!(run.work(), Work::Estimate);
}

#[test]
fn a_cancel_ends_the_wait_for_a_slice() {
    let mut run = Run::with(|settings| settings.parameters.max_bandwidth = 10);
    run.set_up(false);
    run.expect(&Work::Estimate, left(400 * MIB));
    run.iterates(100, Duration::ZERO);
    assert!(matches!(run.work(), Work::Wait { until: Some(_) }));
    run.source.cancel(run.now).unwrap();
    run.cleans_up(MigrationStatus::Cancelled);
}

#[test]
fn what_can_be_sent_later_does_not_keep_a_round_open() {
    let mut run = Run::new(&[]);
    run.set_up(false);
    let pending = Pending {
        can_postcopy: 100,
        ..Pending::default()
    };
    run.expect(&Work::Estimate, Outcome::Pending(pending));
    run.expect(&Work::Exact, Outcome::Pending(pending));
    run.iterates(100, Duration::ZERO);
}

#[test]
fn acknowledgements_hold_the_switchover_back() {
    let capabilities = [Capability::ReturnPath, Capability::SwitchoverAck];
    for legacy in [true, false] {
        let mut run = Run::with(|settings| {
            settings.capabilities = Capabilities::of(&capabilities);
            settings.dialect.switchover_ack_legacy = legacy;
        });
        run.set_up(true);
        let asks = Pending {
            switchover_acks: u32::from(!legacy),
            ..Pending::default()
        };
        run.expect(&Work::Estimate, Outcome::Pending(asks));
        run.expect(&Work::Exact, left(0));
        // Once per slice, not as fast as the loop can turn.
        assert!(matches!(run.work(), Work::Wait { until: Some(_) }));
        run.now += Duration::from_millis(100);
        run.iterates(0, Duration::ZERO);
        run.source.message(run.now, &ReturnMessage::SwitchoverAck);
        run.converge();
        assert_eq!(run.work(), Work::Stop);
        // One too many is an error in the newer form only.
        run.source.message(run.now, &ReturnMessage::SwitchoverAck);
        assert_eq!(run.source.error().is_some(), !legacy);
    }
}

#[test]
fn a_stopped_guest_needs_no_acknowledgement() {
    let capabilities = [Capability::ReturnPath, Capability::SwitchoverAck];
    let mut run = Run::with(|settings| {
        settings.capabilities = Capabilities::of(&capabilities);
        settings.dialect.switchover_ack_legacy = true;
    });
    run.gauge.running = false;
    run.set_up(true);
    run.converge();
    assert_eq!(run.work(), Work::Stop);
}

#[test]
fn failover_devices_are_waited_for() {
    let mut run = Run::new(&[]);
    run.expect(&Work::Prepare, Outcome::Done);
    run.expect(&Work::Connect, Outcome::Connected { return_path: false });
    run.expect(&Work::Begin, Outcome::Done);
    run.expect(&Work::SetUp, Outcome::Unplug);
    let until = Some(run.now + Duration::from_millis(250));
    assert_eq!(run.work(), Work::Wait { until });
    run.now += Duration::from_millis(250);
    run.expect(&Work::PollUnplug, Outcome::Unplug);
    assert!(matches!(run.work(), Work::Wait { .. }));
    run.now += Duration::from_millis(250);
    run.expect(&Work::PollUnplug, Outcome::Done);
    assert_eq!(run.work(), Work::Estimate);
    assert_eq!(run.statuses(), ["setup", "wait-unplug", "active"]);
}

#[test]
fn a_guest_that_writes_too_much_is_throttled() {
    let mut run = Run::with(|settings| {
        settings.capabilities = Capabilities::of(&[Capability::AutoConverge]);
        settings.parameters.downtime_limit = 0;
    });
    run.set_up(false);
    let mut throttled = Vec::new();
    for _ in 0..5 {
        run.expect(&Work::Estimate, left(0));
        let pending = Pending {
            must_precopy: 2000,
            dirtied: 2000,
            ..Pending::default()
        };
        run.expect(&Work::Exact, Outcome::Pending(pending));
        run.iterates(2000, Duration::from_millis(1001));
        throttled = run
            .notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Throttle(percent) => Some(*percent),
                _ => None,
            })
            .collect();
    }
    assert_eq!(throttled, [20, 30]);
    let info = run
        .source
        .info(run.now, run.gauge, &RamTotals::default(), vec![]);
    assert_eq!(info.cpu_throttle_percentage, Some(30));
    // Whatever ends the loop ends the throttling.
    run.source.broken(run.now, "x");
    run.note();
    assert_eq!(
        run.notices
            .iter()
            .filter(|n| **n == Notice::Throttle(0))
            .count(),
        1
    );
}

#[test]
fn long_rounds_are_looked_into() {
    let mut run = Run::with(|settings| {
        settings.capabilities = Capabilities::of(&[Capability::AutoConverge]);
    });
    run.set_up(false);
    run.expect(&Work::Estimate, left(0));
    run.expect(&Work::Exact, left(1 << 40));
    for _ in 0..100 {
        run.iterates(MIB, Duration::from_millis(50));
        match run.work() {
            Work::Estimate => run.done(left(1 << 40)),
            Work::Wait { until } => run.now = until.unwrap(),
            other => panic!("{other:?}"),
        }
        if run.now >= Duration::from_secs(105) {
            break;
        }
    }
    assert_eq!(run.work(), Work::Exact);
    run.done(left(1 << 40));
    assert_eq!(run.passes(), 1);
}
