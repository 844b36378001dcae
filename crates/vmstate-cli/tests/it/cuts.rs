//! The connection of two processes is cut after so many bytes in either direction. What a whole migration does at every cut is tested
//! with the engine; these few positions are there to show that processes do the same.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::host::{Host, Kind, qemu};
use crate::proxy::{Flow, proxy};

/// Bytes of the stream: in its header, in the first sections, among pages. Not one to three: QEMU waits for the first four and answers
/// nobody meanwhile, even if they can never come.
const THERE: [usize; 7] = [0, 4, 8, 100, 4096, 65536, 90_000];
/// Bytes of the destination's answers. The last ones are its last word, eight bytes long.
const BACK: [usize; 7] = [0, 4, 8, 12, 16, 20, 24];

/// How it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The guest runs where it was.
    Here,
    /// The guest runs at the destination, and the source knows that.
    There,
    /// The source does not know. Whether the guest runs at the destination.
    Unknown(bool),
}

/// Migrates over a connection that is cut, and looks on: there are never two running guests, and there is one unless the source
/// does not know.
fn cut(from: Kind, to: Kind, there: Flow, back: Flow) -> End {
    let mut source = Host::started(from);
    let mut destination = Host::start(to, Some("defer"));
    source.enable("return-path");
    if from == Kind::Ours && back != Flow::Free {
        // What is counted are QEMU's answers.
        source.set(json!({ "x-peer": "qemu" }));
    }
    let (listens, at) = (destination.path("there"), destination.path("at"));
    let uri = |path: &std::path::Path| json!({ "uri": format!("unix:{}", path.display()) });
    destination.run("migrate-incoming", uri(&listens));
    proxy(at.clone(), &listens, there, back);
    source.run("migrate", uri(&at));
    let end = Instant::now() + Duration::from_secs(60);
    let info = loop {
        // In this order: once it runs there, it must not run here any more.
        let both = destination.is_running() && source.is_running();
        assert!(!both, "two guests run: {there:?} {back:?}");
        let info = source.info().unwrap();
        if matches!(info["status"].as_str(), Some("completed" | "failed")) {
            break info;
        }
        assert!(Instant::now() < end, "{info}");
        sleep(Duration::from_millis(5));
    };
    // Whatever the destination does now, it has time to do it.
    sleep(Duration::from_millis(300));
    let (runs_there, runs_here) = (destination.is_running(), source.is_running());
    assert!(
        !(runs_there && runs_here),
        "two guests run: {there:?} {back:?}"
    );
    if info["x-unknown"] == true {
        assert!(!runs_here);
        decide(&mut source, destination, runs_there);
        return End::Unknown(runs_there);
    }
    assert_eq!(runs_there, info["status"] == "completed", "{info}");
    assert_eq!(runs_here, !runs_there, "{there:?} {back:?} {info}");
    if runs_there {
        destination.goes_on();
        return End::There;
    }
    assert!(info["error-desc"].is_string(), "{info}");
    source.goes_on();
    End::Here
}

/// Somebody who can see both sides tells the source, which does as it is told.
fn decide(source: &mut Host, mut destination: Host, runs_there: bool) {
    assert!(!source.accepts("cont"), "a guest whose place nobody knows");
    if runs_there {
        source.run("x-migrate-give-up", json!({}));
        assert!(!source.is_running());
        destination.goes_on();
    } else {
        destination.kill();
        source.run("x-migrate-resume-here", json!({}));
        assert!(source.is_running());
        source.goes_on();
    }
}

fn cut_there(from: Kind, to: Kind) {
    if [from, to].contains(&Kind::Qemu) && qemu().is_none() {
        return;
    }
    for bytes in THERE {
        let end = cut(from, to, Flow::Cut(bytes), Flow::Free);
        assert_eq!(end, End::Here, "after {bytes} bytes");
    }
}

fn cut_back(to: Kind) {
    if to == Kind::Qemu && qemu().is_none() {
        return;
    }
    let ends = BACK.map(|bytes| cut(Kind::Ours, to, Flow::Free, Flow::Cut(bytes)));
    assert_eq!(ends[0], End::Here);
    assert!(ends.contains(&End::Unknown(true)), "{ends:?}");
}

#[test]
fn on_the_way_from_ours_to_ours() {
    cut_there(Kind::Ours, Kind::Ours);
}

#[test]
fn on_the_way_from_ours_to_ours_over_ber() {
    cut_there(Kind::Ber, Kind::Ber);
}

#[test]
fn on_the_way_from_ours_to_qemu() {
    cut_there(Kind::Ours, Kind::Qemu);
}

/// Not behind the end of the stream: there QEMU runs its guest again, and cannot know that it runs here, too.
#[test]
fn on_the_way_from_qemu_to_ours() {
    cut_there(Kind::Qemu, Kind::Ours);
}

#[test]
fn on_the_way_back_from_ours() {
    cut_back(Kind::Ours);
}

#[test]
fn on_the_way_back_from_qemu() {
    cut_back(Kind::Qemu);
}
