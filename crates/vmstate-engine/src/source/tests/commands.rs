//! Commands, ends and what is shown.

use super::*;

#[test]
fn a_migration_that_goes_well() {
    let mut run = Run::new(&[Capability::ReturnPath]);
    run.set_up(true);
    run.now += Duration::from_millis(7);
    run.converge();
    run.stop();
    run.gauge.transferred = 1000;
    run.expect(&Work::Complete, Outcome::Done);
    assert_eq!(run.work(), Work::Wait { until: None });
    assert!(run.source.expects_progress());
    run.source.message(run.now, &ReturnMessage::Pong(1));
    assert_eq!(run.work(), Work::Wait { until: None });
    run.source.message(run.now, &ReturnMessage::Pong(CONFIRM));
    run.expect(&Work::Commit, Outcome::Done);
    run.expect(&Work::Trailer, Outcome::Done);
    assert_eq!(run.work(), Work::Wait { until: None });
    assert!(!run.source.expects_progress());
    run.now += Duration::from_millis(5);
    run.source.message(run.now, &ReturnMessage::Shut(0));
    run.expect(&Work::Depart, Outcome::Done);
    run.cleans_up(MigrationStatus::Completed);
    assert_eq!(run.statuses(), ["setup", "active", "device", "completed"]);
    assert_eq!(
        run.notices
            .iter()
            .filter(|n| matches!(n, Notice::Pass(2)))
            .count(),
        1
    );
    assert!(!run.notices.contains(&Notice::ShutDown));
    assert_eq!(run.source.error(), None);
    let ram = RamTotals {
        page_size: 4096,
        remaining: 4096,
        ..RamTotals::default()
    };
    let info = run
        .source
        .info(run.now + Duration::from_secs(9), run.gauge, &ram, vec![]);
    assert_eq!(info.total_time, Some(Duration::from_millis(12)));
    assert_eq!(info.downtime, Some(Duration::from_millis(5)));
    assert_eq!(info.setup_time, Some(Duration::ZERO));
    assert_eq!((info.expected_downtime, info.remaining), (None, None));
    let stats = info.ram.unwrap();
    assert_eq!(
        (stats.remaining, stats.transferred, stats.dirty_sync_count),
        (0, 1000, 2)
    );
}

#[test]
fn without_a_way_back_the_last_byte_decides() {
    let mut run = Run::new(&[]);
    run.set_up(false);
    run.converge();
    run.stop();
    run.expect(&Work::Complete, Outcome::Done);
    run.expect(&Work::Commit, Outcome::Done);
    run.expect(&Work::Trailer, Outcome::Done);
    run.expect(&Work::Depart, Outcome::Done);
    run.cleans_up(MigrationStatus::Completed);
}

#[test]
fn a_guest_that_went_into_a_file_may_go_on_here() {
    let mut run = Run::new(&[]);
    run.set_up(false);
    run.converge();
    run.stop();
    run.expect(&Work::Complete, Outcome::Done);
    run.expect(&Work::Commit, Outcome::Done);
    assert!(!run.source.can_resume_here());
    run.expect(&Work::Trailer, Outcome::Done);
    assert!(!run.source.is_clearing_up());
    run.expect(&Work::Depart, Outcome::Done);
    // A client can see this before the worker is back.
    assert_eq!(run.source.status(), MigrationStatus::Completed);
    assert!(run.source.is_clearing_up() && !run.source.can_resume_here());
    run.cleans_up(MigrationStatus::Completed);
    assert!(!run.source.is_clearing_up());
    let migrate = |run: &mut Run, state| {
        let settings = Settings::default();
        run.source.migrate(run.now, settings, state, &[], false)
    };
    assert_eq!(
        migrate(&mut run, RunState::PostMigrate),
        Err(CommandError::PostMigrate)
    );
    assert!(run.source.can_resume_here() && !run.source.is_unknown());
    run.source.resume_here(run.now).unwrap();
    let resume = Work::Resume {
        token: RunToken::new_guest(),
        state: RunState::Running,
    };
    run.expect(&resume, Outcome::Done);
    assert_eq!(
        (run.work(), run.source.status()),
        (Work::Rest, MigrationStatus::Completed)
    );
    assert_eq!(run.source.resume_here(run.now), Err(CommandError::Known));
    migrate(&mut run, RunState::Running).unwrap();
}

#[test]
fn a_guest_that_has_arrived_does_not() {
    let mut run = committed(false);
    run.source.message(run.now, &ReturnMessage::Shut(0));
    run.expect(&Work::Depart, Outcome::Done);
    run.cleans_up(MigrationStatus::Completed);
    assert!(!run.source.can_resume_here());
    assert_eq!(run.source.resume_here(run.now), Err(CommandError::Known));
}

#[test]
fn pause_before_switchover_waits_for_the_user() {
    let mut run = Run::new(&[Capability::PauseBeforeSwitchover]);
    run.set_up(false);
    run.converge();
    run.stop();
    assert_eq!(run.work(), Work::Wait { until: None });
    assert!(!run.source.expects_progress());
    let wrong = run.source.proceed(run.now, MigrationStatus::Device);
    assert_eq!(
        wrong,
        Err(CommandError::NotInState(MigrationStatus::PreSwitchover))
    );
    run.source
        .proceed(run.now, MigrationStatus::PreSwitchover)
        .unwrap();
    assert_eq!(run.work(), Work::Complete);
    assert_eq!(
        run.source.proceed(run.now, MigrationStatus::Device),
        Err(CommandError::NotInState(MigrationStatus::Device))
    );
    run.done(Outcome::Failed("disk full".into()));
    assert_eq!(run.source.error(), Some("disk full"));
    run.resumes(MigrationStatus::Failed);
    assert_eq!(
        run.statuses(),
        [
            "setup",
            "active",
            "pre-switchover",
            "device",
            "failing",
            "failed"
        ]
    );
}

#[test]
fn a_cancel_while_the_worker_works_waits_for_it() {
    let mut run = Run::new(&[]);
    run.set_up(false);
    assert_eq!(run.work(), Work::Estimate);
    run.source.cancel(run.now).unwrap();
    run.note();
    assert_eq!(
        run.notices.last(),
        Some(&Notice::Status(MigrationStatus::Cancelling))
    );
    assert!(run.notices.contains(&Notice::ShutDown));
    assert_eq!(run.work(), Work::Wait { until: None });
    run.done(Outcome::Pending(Pending::default()));
    run.cleans_up(MigrationStatus::Cancelled);
    assert_eq!(run.source.error(), None);
    run.source.cancel(run.now).unwrap();
    assert_eq!(run.source.status(), MigrationStatus::Cancelled);
}

#[test]
fn a_guest_that_stops_after_the_cancel_is_resumed() {
    let mut run = Run::new(&[]);
    run.set_up(false);
    run.converge();
    assert_eq!(run.work(), Work::Stop);
    run.source.cancel(run.now).unwrap();
    run.done(Outcome::Stopped(StoppedGuest {
        was: RunState::Running,
        token: RunToken::new_guest(),
    }));
    run.resumes(MigrationStatus::Cancelled);
}

#[test]
fn a_cancel_is_honoured_up_to_the_commit_and_not_after() {
    for late in [false, true] {
        let mut run = Run::new(&[]);
        run.set_up(false);
        run.converge();
        run.stop();
        run.expect(&Work::Complete, Outcome::Done);
        if late {
            assert_eq!(run.work(), Work::Commit);
            assert_eq!(run.source.cancel(run.now), Err(CommandError::TooLate));
            run.done(Outcome::Done);
            run.expect(&Work::Trailer, Outcome::Done);
            run.expect(&Work::Depart, Outcome::Done);
            run.cleans_up(MigrationStatus::Completed);
        } else {
            run.source.cancel(run.now).unwrap();
            run.resumes(MigrationStatus::Cancelled);
        }
    }
}

/// Up to the wait for the last word.
fn committed(refusal_is_proof: bool) -> Run {
    let mut run = Run::new(&[Capability::ReturnPath]);
    if refusal_is_proof {
        let settings = run.source.settings().clone();
        run.source = Source::new();
        run.source
            .migrate(run.now, settings, RunState::Running, &[], true)
            .unwrap();
    }
    run.set_up(true);
    run.converge();
    run.stop();
    run.expect(&Work::Complete, Outcome::Done);
    run.source.message(run.now, &ReturnMessage::Pong(CONFIRM));
    run.expect(&Work::Commit, Outcome::Done);
    run.expect(&Work::Trailer, Outcome::Done);
    run
}

#[test]
fn a_lost_connection_after_the_commit_is_unknown_until_somebody_decides() {
    for here in [true, false] {
        let mut run = committed(false);
        run.source.return_path_ended(run.now, "connection reset");
        run.cleans_up(MigrationStatus::Failed);
        assert!(run.source.is_unknown());
        assert_eq!(
            run.source.error(),
            Some(
                "it is unknown whether the guest runs at the destination, here it stays stopped: connection reset"
            )
        );
        let again = |run: &mut Run| {
            let settings = Settings::default();
            run.source
                .migrate(run.now, settings, RunState::FinishMigrate, &[], false)
        };
        assert_eq!(again(&mut run), Err(CommandError::Unknown));
        assert!(
            run.source
                .info(run.now, run.gauge, &RamTotals::default(), vec![])
                .unknown
        );
        if here {
            run.source.resume_here(run.now).unwrap();
            let resume = Work::Resume {
                token: RunToken::new_guest(),
                state: RunState::Running,
            };
            run.expect(&resume, Outcome::Done);
            assert_eq!(run.source.status(), MigrationStatus::Failed);
            again(&mut run).unwrap();
        } else {
            run.source.give_up(run.now).unwrap();
            run.expect(&Work::Depart, Outcome::Done);
            assert_eq!(run.source.status(), MigrationStatus::Completed);
        }
        assert_eq!(run.source.resume_here(run.now), Err(CommandError::Known));
        assert_eq!(run.source.give_up(run.now), Err(CommandError::Known));
    }
}

#[test]
fn a_refusal_after_the_commit_counts_as_far_as_the_peer_is_trusted() {
    let mut run = committed(false);
    run.source.message(run.now, &ReturnMessage::Shut(1));
    run.cleans_up(MigrationStatus::Failed);
    assert!(run.source.is_unknown());

    let mut run = committed(true);
    run.source.message(run.now, &ReturnMessage::Shut(1));
    run.note();
    run.resumes(MigrationStatus::Failed);
    assert!(!run.source.is_unknown());
    assert_eq!(run.source.error(), Some("the destination reports error 1"));
}

#[test]
fn a_cancel_ends_the_wait_and_a_late_word_still_counts() {
    let mut run = committed(false);
    assert_eq!(run.source.cancel(run.now), Err(CommandError::TooLate));
    run.note();
    assert!(run.notices.contains(&Notice::ShutDown));
    assert_eq!(run.work(), Work::CleanUp);
    run.source.message(run.now, &ReturnMessage::Shut(0));
    run.done(Outcome::Done);
    run.expect(&Work::Depart, Outcome::Done);
    assert_eq!(run.source.status(), MigrationStatus::Completed);
}

#[test]
fn a_mark_that_was_not_sent_leaves_the_guest_here() {
    let mut run = Run::new(&[]);
    run.set_up(false);
    run.converge();
    run.stop();
    run.expect(&Work::Complete, Outcome::Done);
    run.expect(&Work::Commit, Outcome::NotSent("disk full".into()));
    run.resumes(MigrationStatus::Failed);
    assert_eq!(run.source.error(), Some("disk full"));
}

#[test]
fn a_destination_that_ends_early_is_a_failure() {
    for message in [ReturnMessage::Shut(0), ReturnMessage::Shut(1)] {
        let mut run = Run::new(&[Capability::ReturnPath]);
        run.set_up(true);
        run.source.message(run.now, &message);
        run.note();
        run.cleans_up(MigrationStatus::Failed);
        assert!(run.source.error().is_some());
    }
    let mut run = Run::new(&[Capability::ReturnPath]);
    run.set_up(true);
    run.source.message(run.now, &ReturnMessage::ResumeAck(1));
    run.cleans_up(MigrationStatus::Failed);
    assert_eq!(
        run.source.error(),
        Some("the destination sent RESUME_ACK outside of postcopy")
    );
}

#[test]
fn what_migrate_refuses() {
    let mut source = Source::new();
    let now = Duration::ZERO;
    let mut check = |state, blockers: &[String], expected: &str| {
        let error = source
            .migrate(now, Settings::default(), state, blockers, false)
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        RunState::InMigrate,
        &[],
        "Guest is waiting for an incoming migration",
    );
    check(
        RunState::PostMigrate,
        &[],
        "Can't migrate the vm that was paused due to previous migration",
    );
    check(RunState::Running, &["no".into()], "no");
    assert_eq!(source.status(), MigrationStatus::None);
    assert_eq!(
        source.info(now, Gauge::default(), &RamTotals::default(), vec![]),
        MigrationInfo::default()
    );

    source
        .migrate(now, Settings::default(), RunState::Running, &[], false)
        .unwrap();
    assert_eq!(source.work(now, Gauge::default()), Work::Prepare);
    source
        .done(
            now,
            Outcome::Failed("device x refuses".into()),
            Gauge::default(),
        )
        .unwrap();
    assert_eq!(source.work(now, Gauge::default()), Work::Rest);
    assert_eq!(source.status(), MigrationStatus::None);
    assert_eq!(source.notice(), None);
    source
        .migrate(now, Settings::default(), RunState::Running, &[], false)
        .unwrap();
    let second = source.migrate(now, Settings::default(), RunState::Running, &[], false);
    assert_eq!(second, Err(CommandError::InProgress));
}

#[test]
fn outcomes_out_of_turn_change_nothing() {
    let mut run = Run::new(&[]);
    let too_early = run.source.done(run.now, Outcome::Done, run.gauge);
    assert_eq!(
        too_early.unwrap_err().to_string(),
        "source: Done in Preparing"
    );
    run.set_up(false);
    assert_eq!(run.work(), Work::Estimate);
    for outcome in [
        Outcome::Done,
        Outcome::Unplug,
        Outcome::NotSent(String::new()),
        Outcome::Connected { return_path: true },
    ] {
        assert!(run.source.done(run.now, outcome, run.gauge).is_err());
    }
    run.done(Outcome::Pending(Pending::default()));
    assert_eq!(run.work(), Work::Exact);
}
