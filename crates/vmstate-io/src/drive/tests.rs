mod ends;
mod overtaking;
mod toy;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use toy::{Running, Script, destination, source};

use super::*;

fn quick(uri: &str) -> Plan {
    Plan {
        interval: Duration::from_millis(1),
        patience: Duration::from_millis(600),
        ..Plan::new(uri)
    }
}

/// What is to be seen on the way. Sets the flag at the first progress, if it is to.
#[derive(Default)]
struct Seen<'a> {
    statuses: Vec<String>,
    notes: Vec<Note>,
    cancel: Option<&'a AtomicBool>,
}

impl Watcher for Seen<'_> {
    fn progress(&mut self, progress: &Progress) {
        let status = progress.status.to_string();
        if self.statuses.last() != Some(&status) {
            self.statuses.push(status);
        }
        if let Some(cancel) = self.cancel {
            cancel.store(true, Ordering::Relaxed);
        }
    }

    fn note(&mut self, note: &Note) {
        self.notes.push(note.clone());
    }
}

fn run(source: &Running, other: Option<&Running>, plan: &Plan) -> Result<Report, DriveError> {
    let mut destination = other.map(Running::client);
    drive(
        &mut source.client(),
        destination.as_mut(),
        plan,
        &AtomicBool::new(false),
        &mut Seen::default(),
    )
}

fn status(status: &str) -> Value {
    json!({ "status": status })
}

fn completed() -> Value {
    json!({
        "status": "completed", "total-time": 1500, "setup-time": 500, "downtime": 12,
        "ram": {"transferred": 3_000_000, "dirty-sync-count": 3, "total": 1 << 20, "page-size": 4096},
    })
}

#[test]
fn to_the_end_at_both_sides() {
    let source = Running::new(Script {
        then: Some("postmigrate".to_owned()),
        ..source(&[
            status("setup"),
            status("active"),
            status("device"),
            completed(),
        ])
    });
    let destination = Running::new(Script {
        then: Some("running".to_owned()),
        ..destination(&[status("setup"), status("active"), status("completed")])
    });
    let plan = Plan {
        capabilities: vec![
            ("multifd".to_owned(), true),
            ("auto-converge".to_owned(), true),
        ],
        parameters: vec![
            ("max-bandwidth".to_owned(), "64M".to_owned()),
            ("multifd-channels".to_owned(), "4".to_owned()),
        ],
        ..quick("unix:/m")
    };
    let mut seen = Seen::default();
    let report = drive(
        &mut source.client(),
        Some(&mut destination.client()),
        &plan,
        &AtomicBool::new(false),
        &mut seen,
    )
    .unwrap();
    assert!(report.is_success(), "{report:?}");
    assert_eq!(report.outcome, Outcome::Completed);
    assert_eq!((report.passes, report.throughput), (3, 3_000_000));
    assert_eq!((report.error(), report.advice()), (None, None));
    assert_eq!(report.source.status.as_deref(), Some("postmigrate"));
    assert!(report.source.as_expected);
    assert_eq!(seen.statuses, ["setup", "active", "device", "completed"]);
    let waiting = Note::Waiting {
        uri: "unix:/m".to_owned(),
    };
    assert_eq!(seen.notes, [waiting, Note::Begun]);
    assert_eq!(
        source.told(),
        [
            "multifd=true auto-converge=true",
            "max-bandwidth=67108864 multifd-channels=4",
            "migrate unix:/m",
        ]
    );
    // What is of the source alone is not set there.
    assert_eq!(
        destination.told(),
        [
            "multifd=true",
            "multifd-channels=4",
            "incoming unix:/m false"
        ]
    );
    assert_eq!(
        text::report(&report),
        "completed in 1500 ms: downtime 12 ms, setup 500 ms\n  sent         2.9 MiB in 3 passes, 2.9 MiB/s\n  \
         memory       1 MiB: 0 pages in full, 0 of zero\n  source       QEMU 11.1.1: the guest does not run \
         (postmigrate)\n  destination  QEMU 11.1.1: the guest runs\n  format       QEMU's stream"
    );
    let answer = report.to_json();
    assert_eq!(answer["format"], "vmstate-migrate/1");
    assert_eq!(answer["outcome"], "completed");
    assert_eq!(answer["destination"]["running"], true);
    assert_eq!(answer["query_migrate"]["downtime"], 12);
}

#[test]
fn a_guest_that_does_not_run_there() {
    let source = Running::new(Script {
        then: Some("postmigrate".to_owned()),
        ..source(&[completed()])
    });
    let other = Running::new(Script {
        then: Some("paused".to_owned()),
        ..destination(&[status("completed")])
    });
    let report = run(&source, Some(&other), &quick("unix:/m")).unwrap();
    assert_eq!(report.outcome, Outcome::Completed);
    assert!(!report.is_success());
    assert_eq!(
        report.error().as_deref(),
        Some("the guest does not run at the destination")
    );
    // One that stood still before may stand still.
    let source = Running::new(Script {
        status: "paused".to_owned(),
        then: Some("postmigrate".to_owned()),
        ..toy::source(&[completed()])
    });
    let other = Running::new(Script {
        then: Some("paused".to_owned()),
        ..destination(&[status("completed")])
    });
    let report = run(&source, Some(&other), &quick("unix:/m")).unwrap();
    assert!(report.is_success(), "{report:?}");
}

#[test]
fn a_failure_with_both_reasons() {
    let failed = json!({"status": "failed", "error-desc": "Broken pipe"});
    let source = Running::new(source(&[status("active"), status("failing"), failed]));
    let reason = "Machine type received is 'a' and local is 'b'";
    let failed = json!({"status": "failed", "error-desc": reason});
    let other = Running::new(destination(&[status("active"), failed]));
    let report = run(&source, Some(&other), &quick("unix:/m")).unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(report.error().as_deref(), Some("Broken pipe"));
    assert_eq!(
        report.advice().as_deref(),
        Some("start the destination with the source's -machine")
    );
    let other_end = report.destination.unwrap();
    assert_eq!(other_end.error.as_deref(), Some(reason));
    assert_eq!(other_end.running, Some(false));
    assert_eq!(other.told(), ["incoming unix:/m false", "quit"]);
    assert!(report.source.as_expected, "{:?}", report.source);
}

#[test]
fn a_source_that_does_not_go_on_is_told() {
    let source = Running::new(Script {
        then: Some("postmigrate".to_owned()),
        ..source(&[status("active"), status("failed")])
    });
    let plan = Plan {
        patience: Duration::from_millis(50),
        ..quick("unix:/m")
    };
    let report = run(&source, None, &plan).unwrap();
    assert!(!report.source.as_expected);
    assert!(text::report(&report).contains("the guest does not run (postmigrate)"));
}

#[test]
fn cancelling() {
    let source = Running::new(Script {
        cancelled: Some(vec![status("cancelling"), status("cancelled")]),
        ..source(&[status("active")])
    });
    let cancel = AtomicBool::new(false);
    let mut seen = Seen {
        cancel: Some(&cancel),
        ..Seen::default()
    };
    let plan = quick("unix:/m");
    let report = drive(&mut source.client(), None, &plan, &cancel, &mut seen).unwrap();
    assert_eq!(report.outcome, Outcome::Cancelled);
    assert!(report.source.as_expected && !report.is_success());
    assert_eq!(seen.notes, [Note::Begun, Note::Cancelling]);
    assert_eq!(source.told(), ["migrate unix:/m", "cancel"]);

    // In postcopy there is no way back; it goes on.
    let source = Running::new(toy::source(&[
        status("postcopy-active"),
        status("postcopy-active"),
        status("postcopy-active"),
        completed(),
    ]));
    let cancel = AtomicBool::new(true);
    let mut seen = Seen::default();
    let report = drive(&mut source.client(), None, &plan, &cancel, &mut seen).unwrap();
    assert_eq!(report.outcome, Outcome::Completed);
    let refusal = "Postcopy migration in progress, cannot cancel.".to_owned();
    assert_eq!(seen.notes, [Note::Begun, Note::CannotCancel(refusal)]);
}

#[test]
fn a_pause_is_ended_once() {
    let source = Running::new(source(&[
        status("active"),
        status("pre-switchover"),
        status("pre-switchover"),
        status("device"),
        completed(),
    ]));
    run(&source, None, &quick("unix:/m")).unwrap();
    assert_eq!(
        source.told(),
        ["migrate unix:/m", "continue pre-switchover"]
    );
}

#[test]
fn postcopy_that_is_interrupted() {
    let source = Running::new(source(&[
        status("postcopy-active"),
        status("postcopy-paused"),
    ]));
    let report = run(&source, None, &quick("unix:/m")).unwrap();
    assert_eq!(report.outcome, Outcome::Paused);
    assert!(report.advice().unwrap().contains("migrate-recover"));
}

/// In round `pass`, everything sent `times` times.
fn copying(pass: u64, times: u64) -> Value {
    json!({"status": "active", "ram": {
        "dirty-sync-count": pass, "total": 8 << 20, "remaining": 8 << 20, "page-size": 4096,
        "normal": 2048 * times, "transferred": times,
    }})
}

#[test]
fn postcopy_begins_when_it_is_time() {
    for (postcopy, expected) in [
        (Postcopy::Never, false),
        (Postcopy::After(0), true),
        (Postcopy::After(1), true),
        (Postcopy::After(4), false),
        (Postcopy::Auto, true),
    ] {
        let rounds = [(1, 0), (2, 0), (2, 1), (3, 3)].map(|(pass, times)| copying(pass, times));
        let mut answers = rounds.to_vec();
        answers.push(completed());
        let source = Running::new(source(&answers));
        let plan = Plan {
            postcopy,
            ..quick("unix:/m")
        };
        let mut seen = Seen::default();
        let cancel = AtomicBool::new(false);
        let report = drive(&mut source.client(), None, &plan, &cancel, &mut seen).unwrap();
        let told = source.told();
        assert_eq!(told[0] == "postcopy-ram=true", postcopy != Postcopy::Never);
        let begun = told.iter().filter(|told| *told == "start postcopy").count();
        assert_eq!(begun, usize::from(expected), "{postcopy:?}");
        assert_eq!(report.postcopy.is_some(), expected);
        assert_eq!(seen.notes.contains(&Note::PostcopyStarted), expected);
    }
}

#[test]
fn a_connection_that_breaks_in_postcopy_is_replaced() {
    let source = Running::new(source(&[
        copying(2, 1),
        status("postcopy-active"),
        status("postcopy-paused"),
        // Connecting, as an older source shows it.
        status("postcopy-paused"),
        status("postcopy-recover"),
        status("postcopy-active"),
        completed(),
    ]));
    let other = Running::new(Script {
        then: Some("running".to_owned()),
        ..destination(&[
            status("postcopy-active"),
            status("postcopy-paused"),
            status("completed"),
        ])
    });
    let plan = Plan {
        postcopy: Postcopy::After(1),
        incoming_uri: Some("unix:/n".to_owned()),
        ..quick("unix:/m")
    };
    let report = run(&source, Some(&other), &plan).unwrap();
    assert!(report.is_success(), "{report:?}");
    assert_eq!(report.recoveries, 1);
    assert_eq!(report.to_json()["postcopy"]["recoveries"], 1);
    assert_eq!(
        source.told(),
        [
            "postcopy-ram=true",
            "migrate unix:/m",
            "start postcopy",
            "migrate unix:/m again"
        ]
    );
    assert_eq!(
        other.told(),
        [
            "postcopy-ram=true",
            "incoming unix:/n false",
            "pause",
            "recover unix:/n"
        ]
    );
}

#[test]
fn a_connection_is_not_replaced_for_ever() {
    let source = Running::new(source(&[status("postcopy-paused")]));
    let other = Running::new(destination(&[status("postcopy-paused")]));
    let plan = Plan {
        recoveries: 2,
        patience: Duration::from_millis(50),
        ..quick("unix:/m")
    };
    let report = run(&source, Some(&other), &plan).unwrap();
    assert_eq!((report.outcome, report.recoveries), (Outcome::Paused, 2));
}

/// Only the last word was lost.
#[test]
fn a_destination_that_has_everything_needs_no_connection() {
    let source = Running::new(source(&[
        status("postcopy-active"),
        status("postcopy-paused"),
        completed(),
    ]));
    let other = Running::new(Script {
        then: Some("running".to_owned()),
        ..destination(&[status("completed")])
    });
    let report = run(&source, Some(&other), &quick("unix:/m")).unwrap();
    assert!(report.is_success(), "{report:?}");
    assert_eq!(source.told(), ["migrate unix:/m", "give up"]);
}

/// Stock sources do that when a connection breaks at the wrong moment.
#[test]
fn a_guest_that_runs_twice_is_called_so() {
    let source = Running::new(source(&[status("failed")]));
    let other = Running::new(Script {
        then: Some("running".to_owned()),
        ..destination(&[status("completed")])
    });
    let report = run(&source, Some(&other), &quick("unix:/m")).unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.runs_twice(), "{report:?}");
    assert_eq!(report.error().unwrap(), "the guest runs on both machines");
    assert!(report.advice().unwrap().starts_with("stop one of them"));
}

#[test]
fn a_stored_stream_is_loaded_when_it_is_whole() {
    let source = Running::new(source(&[status("active"), completed()]));
    let other = Running::new(Script {
        then: Some("running".to_owned()),
        ..destination(&[status("completed")])
    });
    let plan = Plan {
        incoming_uri: Some("exec:cat /f".to_owned()),
        ..quick("exec:cat > /f")
    };
    let report = run(&source, Some(&other), &plan).unwrap();
    assert!(report.is_success(), "{report:?}");
    assert_eq!(other.told(), ["incoming exec:cat /f false"]);
}

#[test]
fn the_port_that_the_destination_chooses() {
    let source = Running::new(source(&[completed()]));
    let listening = json!({"status": "setup", "socket-address": [
        {"type": "inet", "host": "0.0.0.0", "port": "40123"}
    ]});
    let other = Running::new(Script {
        then: Some("running".to_owned()),
        ..destination(&[listening, status("completed")])
    });
    let plan = Plan {
        incoming_uri: Some("tcp::0".to_owned()),
        ..quick("tcp:far:0")
    };
    let report = run(&source, Some(&other), &plan).unwrap();
    assert_eq!(report.uri, "tcp:far:40123");
    assert_eq!(source.told(), ["migrate tcp:far:40123"]);
}

#[test]
fn an_old_destination_ends_by_itself() {
    let source = Running::new(source(&[completed()]));
    let other = Running::new(Script {
        release: (7, 2),
        then: Some("running".to_owned()),
        ..destination(&[status("completed")])
    });
    run(&source, Some(&other), &quick("unix:/m")).unwrap();
    // It does not know the argument: our server's default is shown.
    assert_eq!(other.told(), ["incoming unix:/m true"]);
}

#[test]
fn a_monitor_that_is_lost() {
    let lost = Running::new(source(&[status("active")]));
    let mut client = lost.client();
    let server = lost.server;
    let mut seen = Seen::default();
    let plan = quick("unix:/m");
    let ender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        server.close();
    });
    let report = drive(&mut client, None, &plan, &AtomicBool::new(false), &mut seen).unwrap();
    ender.join().unwrap();
    assert_eq!(report.outcome, Outcome::Unknown);
    assert!(!report.is_success() && report.error().is_some());
    assert!(
        report.advice().unwrap().contains("before it is started"),
        "{report:?}"
    );
    assert!(matches!(
        seen.notes.as_slice(),
        [Note::Begun, Note::MonitorLost(_)]
    ));
}

#[test]
fn a_source_that_cannot_know() {
    let source = Running::new(Script {
        then: Some("paused".to_owned()),
        ..source(&[
            status("device"),
            json!({"status": "failed", "x-unknown": true}),
        ])
    });
    let report = run(&source, None, &quick("unix:/m")).unwrap();
    assert_eq!(report.outcome, Outcome::Unknown);
    assert!(
        report
            .error()
            .unwrap()
            .contains("before the destination could say")
    );
    assert!(report.advice().unwrap().contains("x-migrate-resume-here"));
    assert!(report.source.as_expected);
}

#[test]
fn nothing_is_begun() {
    let check = |script: Script, plan: &Plan, expected: &str, refusal: bool, hint: &str| {
        let source = Running::new(script);
        let error = run(&source, None, plan).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.is_refusal(), refusal, "{error}");
        assert_eq!(advice(&error).unwrap_or_default(), hint, "{error}");
    };
    let plan = quick("unix:/m");
    let idle = |idle: Value| Script {
        idle,
        ..source(&[])
    };
    check(
        source(&[]),
        &quick("foo:1"),
        "unknown migration protocol: foo:1",
        false,
        "give tcp:HOST:PORT, unix:PATH, file:PATH, exec:COMMAND or fd:NAME",
    );
    check(
        idle(status("active")),
        &plan,
        "source: a migration is under way, its status is 'active'",
        false,
        "wait for it, or cancel it with migrate_cancel",
    );
    check(
        idle(json!({"blocked-reasons": ["a", "b"]})),
        &plan,
        "source: cannot be migrated: a; b",
        true,
        "remove the devices or jobs that are named; until then the guest cannot move",
    );
    check(
        destination(&[]),
        &plan,
        "source: its status is 'inmigrate', it waits for a migration itself",
        false,
        "--qmp names the machine that the guest is on, --incoming-qmp the one that it goes to",
    );
    check(
        Script {
            status: "postmigrate".to_owned(),
            ..source(&[])
        },
        &plan,
        "source: its status is 'postmigrate', its guest has been migrated away",
        true,
        "if it runs nowhere else, 'cont' lets it go on here, and then it can be moved",
    );
    check(
        Script {
            refusal: Some("Address already in use".to_owned()),
            ..source(&[])
        },
        &plan,
        "source: Address already in use",
        true,
        "something listens there already: choose another place",
    );
    check(
        Script {
            release: (7, 2),
            ..source(&[])
        },
        &quick("file:/x"),
        "source: QEMU 7.2.1 does not know file: URIs",
        false,
        "use exec:cat > FILE, and exec:cat FILE at the destination",
    );
    let with = |name: &str, value: &str| Plan {
        parameters: vec![(name.to_owned(), value.to_owned())],
        ..quick("unix:/m")
    };
    check(
        source(&[]),
        &with("downtime-limit", "9000000"),
        "source: out of range",
        false,
        "nothing has been begun",
    );
    check(
        source(&[]),
        &with("downtime", "1"),
        "source: QEMU 11.1.1 has no parameter 'downtime'",
        false,
        "did you mean downtime-limit?",
    );
    check(
        source(&[]),
        &with("max-bandwidth", "fast"),
        "parameter 'max-bandwidth': expected a number, as 300, 64K, 32M or 1G, found 'fast'",
        false,
        "",
    );
    let capability = Plan {
        capabilities: vec![("colour".to_owned(), true)],
        ..quick("unix:/m")
    };
    check(
        source(&[]),
        &capability,
        "source: QEMU 11.1.1 has no capability 'colour'",
        false,
        "there are: events, multifd, auto-converge, postcopy-ram",
    );
}

#[test]
fn a_destination_that_does_not_wait() {
    let source = Running::new(source(&[completed()]));
    let running = Running::new(toy::source(&[]));
    let error = run(&source, Some(&running), &quick("unix:/m")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "destination: its status is 'running', it does not wait for a migration"
    );
    let refuses = Running::new(Script {
        refusal: Some("The incoming migration has already been started".to_owned()),
        ..destination(&[])
    });
    let error = run(&source, Some(&refuses), &quick("unix:/m")).unwrap_err();
    assert!(error.is_refusal());
    assert_eq!(
        advice(&error).as_deref(),
        Some("a process can be a destination once: start it anew")
    );
    let refuses = Running::new(Script {
        machine: Some("q35-machine"),
        ..destination(&[])
    });
    let known = Running::new(Script {
        machine: Some("pc-machine"),
        ..toy::source(&[completed()])
    });
    let error = run(&known, Some(&refuses), &quick("unix:/m")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the machines differ: machine type is pc at the source, q35 at the destination"
    );
    assert!(error.is_refusal() && advice(&error).unwrap().contains("-machine"));
    assert_eq!((known.told(), refuses.told()), (vec![], vec![]));
    // The source has been told nothing.
    assert_eq!(source.told(), [""; 0]);
}
