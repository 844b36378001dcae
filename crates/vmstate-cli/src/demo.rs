//! `vmstate demo`.

mod pair;
mod proof;
mod tell;

use std::time::Duration;

use vmstate_io::drive::{Plan, drive};

use crate::args::{Demo, Format, Transport};
use crate::migrate::{Display, cancel_on_signals, failure};
use crate::outcome::{Failure, Verdict, written};

use pair::Pair;
pub(crate) use pair::remove;

/// How long the guest works before it moves.
const BEFORE: Duration = Duration::from_millis(500);
/// How long it works where it has arrived, before it is looked at.
const AFTER: Duration = Duration::from_millis(500);

pub(crate) fn run(arguments: &Demo) -> Result<Verdict, Failure> {
    let cancel = cancel_on_signals("both machines end")?;
    let mut display = Display::new(arguments.quiet);
    let say = |line: &str| {
        if !arguments.quiet {
            display.line(line);
        }
    };
    say("starting two machines, and a guest that writes to its memory");
    let mut pair = Pair::start(arguments)?;
    pair.wait_for_guest()?;
    std::thread::sleep(BEFORE);
    let uri = match arguments.transport {
        Transport::Unix => format!("unix:{}", pair.path("migration").display()),
        Transport::Tcp => format!("tcp:127.0.0.1:{}", free_port()?),
    };
    let mut plan = Plan::new(uri);
    plan.postcopy = arguments.postcopy;
    plan.parameters = vec![
        (
            "max-bandwidth".to_owned(),
            arguments.max_bandwidth.to_string(),
        ),
        (
            "downtime-limit".to_owned(),
            arguments.downtime_limit.to_string(),
        ),
        ("x-peer".to_owned(), arguments.peer.name().to_owned()),
    ];
    let report = drive(
        &mut pair.source.client,
        Some(&mut pair.destination.client),
        &plan,
        &cancel,
        &mut display,
    );
    display.finish();
    let report = report.map_err(|error| failure(&error))?;
    let mut demo = tell::Result {
        report,
        proof: None,
        stayed: None,
        sensors: None,
    };
    if demo.report.is_success() {
        let stopped = pair.stopped()?;
        std::thread::sleep(AFTER);
        demo.proof = Some((stopped, proof::of(&mut pair)?));
        if arguments.variant.is_some() {
            demo.sensors = Some(pair.sensors()?);
        }
    } else if demo.report.source.running == Some(true) {
        demo.stayed = Some(pair.goes_on(AFTER)?);
    }
    pair.end();
    written(match arguments.output.format {
        Format::Text => tell::text(&demo),
        Format::Json => tell::json(&demo),
    })?;
    Ok(if demo.is_right() {
        Verdict::Yes
    } else {
        Verdict::No
    })
}

/// A port that nobody uses now.
fn free_port() -> Result<u16, Failure> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| Failure::new(format!("no port on 127.0.0.1: {e}")))
}
