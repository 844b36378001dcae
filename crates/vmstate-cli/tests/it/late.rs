//! A guest that writes faster than the link carries goes before its memory, from process to process, in the form that both ends have
//! agreed on.

use std::path::Path;

use serde_json::{Value, json};

use crate::host::{Host, Kind};
use crate::proxy::{Flow, proxy};
use crate::support::{json, run, status, stderr};

pub(crate) const DIRTIER: [&str; 8] = [
    "--guest",
    "dirtier",
    "--working-set",
    "4M",
    "--dirty-rate",
    "64M",
    "--fill",
    "2M",
];

/// A guest that writes, and a machine that waits for it. On the way, the link carries so many bytes per second in postcopy.
pub(crate) fn pair(kind: Kind, postcopy: u64) -> (Host, Host) {
    pair_with(kind, postcopy, [&[], &[]])
}

/// The same, with more arguments for source and destination.
pub(crate) fn pair_with(kind: Kind, postcopy: u64, more: [&[&str]; 2]) -> (Host, Host) {
    let [here, there] = more.map(|more| [&DIRTIER, more].concat());
    let mut source = Host::start_ours(kind, None, &here);
    let destination = Host::start_ours(kind, Some("defer"), &there);
    while source.check() == 0 {}
    source.set(json!({
        "max-bandwidth": 4 << 20, "max-postcopy-bandwidth": postcopy, "downtime-limit": 1
    }));
    (source, destination)
}

/// The guest has all that it had, and computes on what it has. Both ends have agreed on what moved it.
pub(crate) fn proven(mut source: Host, mut destination: Host, capabilities: &[&str]) {
    let before = source.run("x-query-guest", json!({}));
    destination.run("stop", json!({}));
    // Refused if one of the words that it has written is not the right one.
    let after = destination.run("x-query-guest", json!({}));
    assert_eq!(after["checked"], true, "{after}");
    assert!(after["counter"].as_u64() > before["counter"].as_u64());
    let without = json!({ "without": destination.run("x-query-written", json!({})) });
    let [here, there] =
        [&mut source, &mut destination].map(|host| host.run("x-query-digest", without.clone()));
    assert!(here.as_object().is_some_and(|digests| !digests.is_empty()));
    assert_eq!(here, there);
    for host in [&mut source, &mut destination] {
        let told = host.run("x-query-negotiation", json!({}));
        let used = told["capabilities"].as_array().unwrap();
        for capability in capabilities {
            assert!(used.iter().any(|one| one == capability), "{told}");
        }
    }
}

/// Found out by asking, and from the first byte on.
#[test]
fn a_cut_connection_is_replaced() {
    for kind in [Kind::Ours, Kind::Ber] {
        let (mut source, mut destination) = pair(kind, 256 << 10);
        for host in [&mut source, &mut destination] {
            host.enable("postcopy-ram");
        }
        let uri = |path: &Path| json!({ "uri": format!("unix:{}", path.display()) });
        let (there, at, again) = (
            destination.path("there"),
            destination.path("at"),
            destination.path("again"),
        );
        destination.run("migrate-incoming", uri(&there));
        let cutter = proxy(at.clone(), &there, Flow::Free, Flow::Free);
        source.run("migrate", uri(&at));
        source.wait_for("active");
        source.run("migrate-start-postcopy", json!({}));
        for host in [&mut source, &mut destination] {
            host.wait_for("postcopy-active");
        }
        cutter.cut();
        for host in [&mut source, &mut destination] {
            host.wait_for("postcopy-paused");
        }
        destination.run("migrate-recover", uri(&again));
        source.set(json!({ "max-postcopy-bandwidth": 0 }));
        let mut resume = uri(&again);
        resume["resume"] = true.into();
        source.run("migrate", resume);
        for host in [&mut source, &mut destination] {
            host.wait_for("completed");
        }
        proven(source, destination, &["postcopy"]);
    }
}

#[test]
fn what_is_required_is_used() {
    for (preempt, used) in [
        (false, &["postcopy"][..]),
        (true, &["postcopy", "channels"]),
    ] {
        let (source, destination) = pair(Kind::Ours, 0);
        let uri = format!("unix:{}", destination.path("there").display());
        let monitors = [&source, &destination].map(|host| host.monitor.to_string());
        let mut command = vec![
            "migrate",
            "--quiet",
            "--format=json",
            "--require=ber",
            "--postcopy=after=1",
            "--qmp",
            &monitors[0],
            "--incoming-qmp",
            &monitors[1],
            &uri,
        ];
        if preempt {
            command.extend(["--capability", "postcopy-preempt"]);
        }
        let output = run(command);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        let report: Value = json(&output);
        assert_eq!(report["outcome"], "completed");
        assert!(report["postcopy"]["started_ms"].is_u64(), "{report}");
        proven(source, destination, used);
    }
}
