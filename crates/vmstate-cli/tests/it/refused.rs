//! What two machines that do not fit have sent when they know it.

use serde_json::json;
use vmstate_ber::frame::{Decision, Frame, Status};
use vmstate_ber::stream::{Parser, Step};

use crate::host::{Host, Kind};
use crate::proxy::recorder;

/// The frames of a stream that has ended, with what stands behind it.
fn frames(bytes: &[u8], each: &mut dyn FnMut(&Frame<'_>)) -> usize {
    let mut parser = Parser::default();
    let mut at = 0;
    loop {
        match parser.next(&bytes[at..]).unwrap() {
            Step::Consumed { consumed } => at += consumed,
            Step::Frame {
                consumed, frame, ..
            } => {
                each(&frame);
                at += consumed;
            }
            Step::End => return bytes.len() - at,
            Step::NeedMore { .. } => panic!("the stream is cut off"),
        }
    }
}

#[test]
fn a_machine_with_fewer_harts_sends_its_hello_alone() {
    let mut there = Host::with_harts(Kind::Ber, Some("defer"), 4);
    let mut here = Host::with_harts(Kind::Ber, None, 1);
    here.goes_on();
    let (at, to) = (here.path("proxy"), there.path("incoming"));
    let uri = json!({ "uri": format!("unix:{}", to.display()) });
    there.run("migrate-incoming", uri);
    let (tapes, _) = recorder(&at, &to, 1);
    let tape = &tapes[0];
    here.set(json!({ "x-peer": "vmstate" }));
    here.run(
        "migrate",
        json!({ "uri": format!("unix:{}", at.display()) }),
    );
    here.wait_for("failed");
    let error = here.info().unwrap()["error-desc"].to_string();
    let told = "riscv_mtimer#0: timecmp\\n              number of elements differs (harts): source 1, destination 4";
    assert!(error.contains(told), "{error}");
    assert!(here.is_running());
    here.goes_on();
    assert!(!there.is_running());

    let (mut hellos, mut status) = (0, None);
    let rest = frames(&tape.there(), &mut |frame| match frame {
        Frame::Hello(hello) => {
            hellos += 1;
            let counts = hello.counts.as_deref().unwrap();
            assert_eq!(
                (&*counts[0].idstr, counts[0].counts.len()),
                ("riscv_mtimer", 2)
            );
            assert!(counts[0].counts.iter().all(|count| count.number == 1));
        }
        Frame::End(end) => status = Some(end.status),
        other => panic!("{other:?}"),
    });
    assert_eq!((hellos, status, rest), (1, Some(Status::Cancelled), 0));
    let mut decisions = Vec::new();
    let answer = tape.back();
    let mut parser = Parser::default();
    let mut at = 0;
    while let Step::Consumed { consumed } | Step::Frame { consumed, .. } = {
        let step = parser.next(&answer[at..]).unwrap();
        if let Step::Frame { frame, .. } = &step
            && let Frame::Verdict(verdict) = &**frame
        {
            decisions.push(verdict.decision);
        }
        step
    } {
        at += consumed;
    }
    assert_eq!(decisions, [Decision::Refuse]);
}
