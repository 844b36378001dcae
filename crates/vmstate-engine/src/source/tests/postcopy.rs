//! A guest that goes before its memory.

use vmstate_wire::stream::BlockName;

use super::*;

const SLICE: Duration = Duration::from_millis(100);

fn left(bytes: u64) -> Outcome {
    Outcome::Pending(Pending {
        can_postcopy: bytes,
        ..Pending::default()
    })
}

/// A guest that would never converge, up to the first look at what is left.
fn precopy(more: &[Capability]) -> Run {
    let mut on = vec![Capability::PostcopyRam];
    on.extend(more);
    let mut run = Run::new(&on);
    run.set_up(true);
    run
}

/// Up to the last byte of the package.
fn packaged() -> Run {
    let mut run = precopy(&[]);
    run.source.start_postcopy(true).unwrap();
    run.expect(&Work::Estimate, left(1 << 30));
    run.expect(&Work::PostcopyPrepare, Outcome::Done);
    run.stop();
    run.expect(&Work::Package, Outcome::Done);
    assert_eq!(run.work(), Work::HandOver);
    run
}

/// The destination runs the guest.
fn gone() -> Run {
    let mut run = packaged();
    run.done(Outcome::Done);
    run.source.message(run.now, &ReturnMessage::Pong(LOADED));
    run.note();
    run
}

/// Without channels.
fn paused(mut run: Run) -> Run {
    run.source.return_path_ended(run.now, "connection reset");
    run.note();
    assert!(run.notices.contains(&Notice::ShutDown));
    run.expect(&Work::Disconnect, Outcome::Done);
    assert_eq!(run.source.status(), MigrationStatus::PostcopyPaused);
    assert_eq!(run.work(), Work::Wait { until: None });
    run
}

fn recovered(run: &mut Run) {
    run.source.recover(run.now).unwrap();
    assert_eq!(run.source.error(), None);
    run.expect(&Work::Reconnect, Outcome::Done);
    let bitmap = ReturnMessage::RecvBitmap {
        block: BlockName::new(b"ram").unwrap(),
    };
    assert_eq!(run.work(), Work::Recover);
    run.source.message(run.now, &bitmap);
    run.done(Outcome::Done);
    assert_eq!(run.work(), Work::Wait { until: None });
    run.source.message(run.now, &ReturnMessage::ResumeAck(1));
    run.note();
}

/// From the first look at what is left there to the end.
fn finishes(run: &mut Run) {
    run.expect(&Work::Estimate, left(0));
    run.expect(&Work::CompletePostcopy, Outcome::Done);
    assert_eq!(run.work(), Work::Wait { until: None });
    run.source.message(run.now, &ReturnMessage::Shut(0));
    run.expect(&Work::Depart, Outcome::Done);
    run.cleans_up(MigrationStatus::Completed);
}

#[test]
fn the_statuses_are_those_of_qemu() {
    let mut run = gone();
    finishes(&mut run);
    assert_eq!(
        run.statuses(),
        [
            "setup",
            "active",
            "device",
            "postcopy-device",
            "postcopy-active",
            "completed"
        ]
    );
    assert_eq!(run.source.error(), None);
}

#[test]
fn commands_need_the_capability_and_a_migration() {
    let mut source = Source::new();
    let refused = source.start_postcopy(false).unwrap_err().to_string();
    assert_eq!(
        refused,
        "Enable postcopy with migrate_set_capability before the start of migration"
    );
    let refused = source.start_postcopy(true).unwrap_err().to_string();
    assert_eq!(
        refused,
        "Postcopy must be started after migration has been started"
    );
    let now = Duration::ZERO;
    assert_eq!(source.pause(now), Err(CommandError::NotPausable));
    assert_eq!(source.recover(now), Err(CommandError::NotPaused));
    let mut run = precopy(&[]);
    assert_eq!(run.source.pause(run.now), Err(CommandError::NotPausable));
    assert_eq!(run.source.recover(run.now), Err(CommandError::NotPaused));
}

/// What can be sent later does not count, what cannot does.
#[test]
fn the_guest_goes_when_what_must_go_before_fits() {
    let mut run = precopy(&[]);
    run.source.start_postcopy(true).unwrap();
    let both = |must_precopy, stop_copy| {
        Outcome::Pending(Pending {
            must_precopy,
            stop_copy,
            can_postcopy: 1 << 30,
            ..Pending::default()
        })
    };
    run.expect(&Work::Estimate, both(1, 0));
    let work = run.work();
    assert!(matches!(work, Work::Iterate { .. }), "{work:?}");
    run.now += SLICE;
    run.gauge.transferred += 1 << 20;
    run.done(Outcome::Iterated);
    // 10 MiB/s for 300 ms are 3 MiB.
    run.expect(&Work::Estimate, both(3 << 20, 1 << 20));
    assert!(matches!(run.work(), Work::Iterate { .. }));
    run.done(Outcome::Iterated);
    run.expect(&Work::Estimate, both(1 << 20, 1 << 20));
    assert_eq!(run.work(), Work::PostcopyPrepare);
}

/// A destination that has not read anything yet would not know the second connection.
#[test]
fn the_channel_of_requested_pages_waits_for_an_answer() {
    let mut run = precopy(&[Capability::PostcopyPreempt]);
    run.source.start_postcopy(true).unwrap();
    run.expect(&Work::Estimate, left(1 << 30));
    run.expect(&Work::Exact, left(1 << 30));
    run.source.message(run.now, &ReturnMessage::Pong(1));
    assert!(matches!(run.work(), Work::Iterate { .. }));
    run.done(Outcome::Iterated);
    run.expect(&Work::Estimate, left(1 << 30));
    assert_eq!(run.work(), Work::PostcopyPrepare);
}

#[test]
fn up_to_the_last_byte_every_failure_resumes_the_guest() {
    let mut run = packaged();
    run.done(Outcome::NotSent("connection refused".to_owned()));
    run.resumes(MigrationStatus::Failed);

    for cancel in [false, true] {
        let mut run = precopy(&[]);
        run.source.start_postcopy(true).unwrap();
        run.expect(&Work::Estimate, left(1));
        run.expect(&Work::PostcopyPrepare, Outcome::Done);
        run.stop();
        assert_eq!(run.work(), Work::Package);
        if cancel {
            run.source.cancel(run.now).unwrap();
            run.done(Outcome::Done);
            run.resumes(MigrationStatus::Cancelled);
        } else {
            run.done(Outcome::Failed("a device refuses".to_owned()));
            run.resumes(MigrationStatus::Failed);
        }
    }
}

#[test]
fn from_the_last_byte_on_nothing_resumes_the_guest_by_itself() {
    for outcome in [Outcome::Done, Outcome::Failed("broken".to_owned())] {
        let mut run = packaged();
        assert_eq!(run.source.cancel(run.now), Err(CommandError::InPostcopy));
        run.done(outcome);
        assert_eq!(run.source.cancel(run.now), Err(CommandError::InPostcopy));
        let mut run = paused(run);
        assert!(run.source.is_unknown());
        let error = run.source.error().unwrap_or_default();
        assert!(error.contains("it is unknown whether"), "{error}");
        // Somebody who knows that it does not run there can say so.
        run.source.resume_here(run.now).unwrap();
        run.resumes(MigrationStatus::Failed);
    }
}

#[test]
fn a_guest_that_has_run_there_is_given_up_here() {
    let mut run = paused(gone());
    assert!(!run.source.is_unknown());
    assert!(run.source.guest.is_none());
    assert_eq!(run.source.resume_here(run.now), Err(CommandError::HasRun));
    let again = run.source.migrate(
        run.now,
        Settings::default(),
        RunState::FinishMigrate,
        &[],
        false,
    );
    assert_eq!(again, Err(CommandError::InProgress));
    // Whoever gives it up, with memory that only the source has, does not call that a success.
    run.source.give_up(run.now).unwrap();
    run.expect(&Work::Depart, Outcome::Done);
    run.cleans_up(MigrationStatus::Failed);
}

#[test]
fn a_broken_connection_is_replaced_as_often_as_it_takes() {
    let mut run = gone();
    for _ in 0..3 {
        run = paused(run);
        run.source.recover(run.now).unwrap();
        run.expect(&Work::Reconnect, Outcome::Failed("refused".to_owned()));
        run.expect(&Work::Disconnect, Outcome::Done);
        assert_eq!(run.source.status(), MigrationStatus::PostcopyPaused);
        // Broken again while it finds out.
        run.source.recover(run.now).unwrap();
        run.expect(&Work::Reconnect, Outcome::Done);
        assert_eq!(run.work(), Work::Recover);
        run.source.return_path_ended(run.now, "reset");
        run.done(Outcome::Done);
        run.expect(&Work::Disconnect, Outcome::Done);
        recovered(&mut run);
        assert_eq!(run.source.status(), MigrationStatus::PostcopyActive);
    }
    finishes(&mut run);
}

#[test]
fn a_destination_that_goes_on_has_the_guest() {
    let mut run = packaged();
    run.done(Outcome::Done);
    let mut run = paused(run);
    assert!(run.source.is_unknown());
    recovered(&mut run);
    let mut run = paused(run);
    assert!(!run.source.is_unknown());
    assert_eq!(run.source.resume_here(run.now), Err(CommandError::HasRun));
    recovered(&mut run);
    finishes(&mut run);
}

#[test]
fn all_sent_and_no_last_word() {
    let mut run = gone();
    run.expect(&Work::Estimate, left(0));
    run.expect(&Work::CompletePostcopy, Outcome::Done);
    // A refusal is no word of it either: what is missing can be found out.
    run.source.message(run.now, &ReturnMessage::Shut(1));
    run.note();
    run.expect(&Work::Disconnect, Outcome::Done);
    assert_eq!(run.source.status(), MigrationStatus::PostcopyPaused);
    run.source.give_up(run.now).unwrap();
    run.expect(&Work::Depart, Outcome::Done);
    run.cleans_up(MigrationStatus::Completed);
}

#[test]
fn a_last_word_that_is_faster_than_the_worker() {
    for outcome in [Outcome::Done, Outcome::Failed("reset".to_owned())] {
        let mut run = gone();
        run.expect(&Work::Estimate, left(0));
        assert_eq!(run.work(), Work::CompletePostcopy);
        run.source.message(run.now, &ReturnMessage::Shut(0));
        run.done(outcome);
        run.expect(&Work::Depart, Outcome::Done);
        run.cleans_up(MigrationStatus::Completed);
    }
}

/// A destination that says it is done before everything has been sent says nothing that counts.
#[test]
fn a_last_word_that_is_too_early_pauses() {
    let mut run = gone();
    assert_eq!(run.work(), Work::Estimate);
    run.source.message(run.now, &ReturnMessage::Shut(0));
    run.done(left(4096));
    run.expect(&Work::Disconnect, Outcome::Done);
    assert_eq!(run.source.status(), MigrationStatus::PostcopyPaused);
}

#[test]
fn the_end_waits_until_the_destination_has_loaded() {
    let mut run = packaged();
    run.done(Outcome::Done);
    assert_eq!(run.source.status(), MigrationStatus::PostcopyDevice);
    // The destination would give the guest up.
    assert_eq!(run.source.pause(run.now), Err(CommandError::NotPausable));
    run.expect(&Work::Estimate, left(0));
    let until = Some(run.now + SLICE);
    assert_eq!(run.work(), Work::Wait { until });
    run.source.message(run.now, &ReturnMessage::Pong(LOADED));
    finishes(&mut run);
}

#[test]
fn requests_break_the_limit() {
    let mut run = gone();
    let mut settings = run.source.settings().parameters.clone();
    settings.max_postcopy_bandwidth = 10 << 20;
    run.source.set_parameters(settings);
    run.expect(&Work::Estimate, left(1 << 30));
    let work = run.work();
    let Work::Iterate { budget, .. } = work else {
        panic!("{work:?}");
    };
    assert_eq!(budget, Some((1 << 20) + 1));
    run.gauge.transferred += 2 << 20;
    run.done(Outcome::Iterated);
    let work = run.work();
    assert!(matches!(work, Work::Wait { until: Some(_) }), "{work:?}");
    run.gauge.urgent = true;
    let request = ReturnMessage::ReqPages {
        start: 0,
        length: 4096,
    };
    run.source.message(run.now, &request);
    run.expect(&Work::Estimate, left(1 << 30));
    let work = run.work();
    assert!(
        matches!(
            work,
            Work::Iterate {
                budget: Some(0),
                ..
            }
        ),
        "{work:?}"
    );
    let info = run
        .source
        .info(run.now, run.gauge, &RamTotals::default(), vec![]);
    assert_eq!(info.ram.unwrap().postcopy_requests, 1);
    assert!(info.downtime.is_some() && info.expected_downtime.is_none());
}

/// Pages, bitmaps and acknowledgements that nobody can want yet.
#[test]
fn answers_out_of_turn_end_the_migration_while_the_guest_is_here() {
    for message in [
        ReturnMessage::ReqPages {
            start: 0,
            length: 4096,
        },
        ReturnMessage::RecvBitmap {
            block: BlockName::new(b"ram").unwrap(),
        },
        ReturnMessage::ResumeAck(1),
    ] {
        let mut run = precopy(&[]);
        run.source.message(run.now, &message);
        run.cleans_up(MigrationStatus::Failed);
        let error = run.source.error().unwrap_or_default();
        assert!(error.contains("outside of postcopy"), "{error}");
    }
    // A PONG that nobody can have sent yet lets nothing happen.
    let mut run = packaged();
    run.source.message(run.now, &ReturnMessage::Pong(LOADED));
    run.done(Outcome::NotSent("refused".to_owned()));
    run.resumes(MigrationStatus::Failed);
}

#[test]
fn a_command_pauses() {
    let mut run = gone();
    run.source.pause(run.now).unwrap();
    run.note();
    assert!(run.notices.contains(&Notice::ShutDown));
    run.expect(&Work::Disconnect, Outcome::Done);
    let error = run.source.error().unwrap_or_default();
    assert!(error.ends_with("paused by a command"), "{error}");
    assert_eq!(run.source.pause(run.now), Err(CommandError::NotPausable));
    recovered(&mut run);
    finishes(&mut run);
}
