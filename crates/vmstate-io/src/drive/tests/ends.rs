//! What is said of ends that are not as they should be.

use super::*;

fn failed(why: &str) -> Value {
    json!({"status": "failed", "error-desc": why})
}

/// The monitor is that of a machine which the stream did not go to.
#[test]
fn a_guest_that_went_elsewhere() {
    let source = Running::new(source(&[completed()]));
    let other = Running::new(destination(&[status("setup")]));
    let report = run(&source, Some(&other), &quick("unix:/m")).unwrap();
    assert!(!report.is_success());
    let machine = report.destination.as_ref().unwrap();
    assert_eq!(machine.migration.as_deref(), Some("setup"));
    let advice = report.advice().unwrap();
    assert!(
        advice.starts_with("no guest has come to the machine of --incoming-qmp"),
        "{advice}"
    );
    assert!(!advice.contains("'cont'"));
}

/// The source hears that there is a reason, the destination knows it.
#[test]
fn the_reason_of_the_end_that_has_one() {
    for said in [
        "the destination reports error 1",
        "source_return_path_thread: Sibling indicated error 1",
    ] {
        let source = Running::new(source(&[failed(said)]));
        let why = "Unknown savevm section or instance 'nic' 0";
        let there = Running::new(destination(&[failed(why)]));
        let report = run(&source, Some(&there), &quick("unix:/m")).unwrap();
        assert_eq!(report.error().as_deref(), Some(why));
        assert!(report.advice().unwrap().contains("same devices"));
        // Without a monitor there, nobody knows more.
        let alone = Running::new(toy::source(&[failed(said)]));
        let report = run(&alone, None, &quick("unix:/m")).unwrap();
        assert_eq!(report.error().as_deref(), Some(said));
    }
    let source = Running::new(source(&[failed("No space left on device")]));
    let there = Running::new(destination(&[failed("the stream ends")]));
    let report = run(&source, Some(&there), &quick("unix:/m")).unwrap();
    assert_eq!(report.error().as_deref(), Some("No space left on device"));
}

/// What the source cannot open, the destination knows nothing about.
#[test]
fn places_that_cannot_be_opened() {
    for (why, expected) in [
        ("/no/file: No such file or directory (os error 2)", "path"),
        ("/tmp: Is a directory (os error 21)", "not of a directory"),
        ("/srv/x: Permission denied (os error 13)", "user"),
        ("File descriptor named 'x' has not been found", "getfd"),
        ("fd:7: Bad file descriptor (os error 9)", "getfd"),
        ("/x: File too large (os error 27)", "offset"),
        ("/x: Invalid argument (os error 22)", "offset"),
    ] {
        let source = Running::new(source(&[failed(why)]));
        let report = run(&source, None, &quick("unix:/m")).unwrap();
        let advice = report.advice().unwrap();
        assert!(advice.contains(expected), "{why}: {advice}");
        assert!(!advice.contains("standard error"), "{why}: {advice}");
    }
    // The same words of a destination's are about something else.
    let source = Running::new(source(&[failed("Broken pipe")]));
    let there = Running::new(destination(&[failed("Invalid argument (os error 22)")]));
    let report = run(&source, Some(&there), &quick("unix:/m")).unwrap();
    assert!(report.advice().unwrap().contains("standard error"));
}

/// The source has gone after its guest had.
#[test]
fn a_guest_that_lacks_memory() {
    let source = Running::new(source(&[status("postcopy-active")]));
    let there = Running::new(Script {
        then: Some("running".to_owned()),
        ..destination(&[status("postcopy-active"), status("postcopy-paused")])
    });
    let (mut client, mut destination) = (source.client(), there.client());
    let server = source.server;
    let ender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        server.close();
    });
    let report = drive(
        &mut client,
        Some(&mut destination),
        &quick("unix:/m"),
        &AtomicBool::new(false),
        &mut Seen::default(),
    )
    .unwrap();
    ender.join().unwrap();
    assert_eq!(report.outcome, Outcome::Unknown);
    let machine = report.destination.as_ref().unwrap();
    assert_eq!(machine.migration.as_deref(), Some("postcopy-paused"));
    let text = text::report(&report);
    assert!(
        text.contains("until it needs memory that has not come"),
        "{text}"
    );
    let advice = report.advice().unwrap();
    assert!(advice.contains("waits for memory"), "{advice}");
}

#[test]
fn what_our_machines_do_not_take() {
    let moved = |ours| advice(&DriveError::HasMoved { ours }).unwrap();
    assert!(!moved(true).contains("'cont'") && moved(true).contains("x-migrate-resume-here"));
    assert!(moved(false).contains("'cont'"));
    let source = Running::new(source(&[completed()]));
    let plan = Plan {
        parameters: vec![("x-peer".to_owned(), "vmstate".to_owned())],
        ..quick("unix:/m")
    };
    let error = run(&source, None, &plan).unwrap_err();
    let advice = advice(&error).unwrap();
    assert!(
        advice.contains("does not speak VM state over BER"),
        "{advice}"
    );
}
