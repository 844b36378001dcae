//! Tagged unions from end to end: a device that has some, in QEMU's stream, over BER and as JSON.

#![expect(clippy::unwrap_used, reason = "a test")]

mod router;

use router::{Route, Router, in_ber, in_qemu};
use serde_json::Value;
use vmstate_desc::{Limits, VmState as _};
use vmstate_io::SliceInput;
use vmstate_io::convert::{ConvertError, Format, Options, Summary, convert};
use vmstate_io::inspect::{self, Content, analyze};
use vmstate_io::schema::of_report;
use vmstate_schema::Schema;
use vmstate_schema::compare::{self, Column, Severity, compare};
use vmstate_wire::vmdesc::VmdescDialect;

fn converted(format: Format, bytes: &[u8]) -> Result<(Vec<u8>, Summary), ConvertError> {
    let mut out = Vec::new();
    let options = Options::default();
    let summary = convert(&mut SliceInput::new(bytes), &mut out, format, &options)?;
    Ok((out, summary))
}

/// Converted as values, not as bytes.
fn to(format: Format, bytes: &[u8]) -> Result<Vec<u8>, ConvertError> {
    let (out, summary) = converted(format, bytes)?;
    assert!(summary.carried.is_empty(), "{:?}", summary.carried);
    assert_eq!(summary.devices, 1);
    Ok(out)
}

fn report(bytes: &[u8]) -> inspect::Report {
    let options = inspect::Options::default();
    let analysis = analyze(&mut SliceInput::new(bytes), &mut [], &options);
    assert!(analysis.failure.is_none(), "{:?}", analysis.failure);
    assert!(analysis.is_clean());
    analysis.report
}

#[test]
fn a_trailer_alone_describes_the_cases_that_are_there() {
    for dialect in VmdescDialect::ALL {
        let stream = in_qemu(&Router::new(), dialect);
        let report = report(&stream);
        let Content::Described(state) = &report.sections[0].content else {
            panic!("{:?}", report.sections[0].content);
        };
        let mut bytes = Vec::new();
        vmstate_wire::codec::encode(&**state, &mut bytes).unwrap();
        let mut own = Vec::new();
        vmstate_wire::codec::encode(&Router::new(), &mut own).unwrap();
        assert_eq!(bytes, own);
        // Elements of the table, of which each has a shape of its own, are described one by one.
        let text = String::from_utf8_lossy(&stream);
        let entries = text.matches("{\"name\": \"table\", ").count();
        assert_eq!(entries, 4, "{text}");
        let ber = to(Format::Ber, &stream).unwrap();
        assert!(to(Format::Qemu, &ber).unwrap() == stream);
        // JSON has one shape for all elements of a table, and carries bytes where they differ.
        let (json, _) = converted(Format::Json, &stream).unwrap();
        assert!(converted(Format::Qemu, &json).unwrap().0 == stream);
        let mut again = Vec::new();
        let options = inspect::Options::default();
        inspect::rewrite(&mut SliceInput::new(&stream), &mut again, &options).unwrap();
        assert!(again == stream);
    }
}

#[test]
fn a_description_of_its_own_goes_through_ber_and_json() {
    let router = Router::new();
    let ber = in_ber(&router);
    report(&ber);
    let json = to(Format::Json, &ber).unwrap();
    let values: Value = serde_json::from_slice(&json).unwrap();
    let elements = values["elements"].as_array().unwrap();
    let device = elements.iter().find(|e| e["section"] == "router").unwrap();
    let target = &device["state"]["table"][1]["target"];
    assert_eq!(target["$type"], "message");
    assert_eq!(target["$version"], 2);
    assert_eq!(target["$sub"]["message/mask"]["mask"], 255);
    assert_eq!(device["state"]["last"]["target"]["data"], 0x43);
    // QEMU's stream of it is the one that the device itself writes.
    let qemu = to(Format::Qemu, &ber).unwrap();
    let Content::Described(state) = &report(&qemu).sections[0].content else {
        panic!("the trailer describes it");
    };
    let (mut bytes, mut own) = (Vec::new(), Vec::new());
    vmstate_wire::codec::encode(&**state, &mut bytes).unwrap();
    vmstate_wire::codec::encode(&router, &mut own).unwrap();
    assert_eq!(bytes, own);
    let mut loaded = Router::default();
    vmstate_wire::codec::decode(&mut loaded, 3, &bytes, Limits::default()).unwrap();
    assert_eq!(loaded, router);
    assert!(to(Format::Qemu, &json).unwrap() == qemu);
}

#[test]
fn a_case_that_the_discriminant_does_not_name_is_refused() {
    let json = to(Format::Json, &in_ber(&Router::new())).unwrap();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut values: Value = serde_json::from_slice(&json).unwrap();
        let elements = values["elements"].as_array_mut().unwrap();
        let device = elements.iter_mut().find(|e| e["section"] == "router");
        change(&mut device.unwrap()["state"]["last"]);
        let e = to(Format::Qemu, values.to_string().as_bytes()).unwrap_err();
        assert!(e.is_about_the_stream());
        e.to_string()
    };
    let text = refused(&|last| last["kind"] = 1.into());
    assert!(
        text.contains("router/last/target: kind is 1, so line is expected, found message"),
        "{text}"
    );
    let text = refused(&|last| last["kind"] = 9.into());
    assert!(
        text.contains("kind is 9, for which there is no case"),
        "{text}"
    );
    let text = refused(&|last| last["target"]["$type"] = "line".into());
    assert!(text.contains("message is expected, found line"), "{text}");
    let text = refused(&|last| {
        last["target"].as_object_mut().unwrap().remove("$version");
    });
    assert!(text.contains("a version of the case expected"), "{text}");
    let text = refused(&|last| last["target"]["$version"] = 3.into());
    assert!(
        text.contains("version 3 of message is not loadable"),
        "{text}"
    );
}

#[test]
fn what_a_stream_had_is_compared_with_what_can_be() {
    let own = Schema::of(None, [Router::DESCRIPTION]).unwrap();
    let seen = of_report(&report(&in_qemu(&Router::new(), VmdescDialect::ALL[0]))).unwrap();
    let options = compare::Options::default();
    for (from, to) in [(&seen, &own), (&own, &seen)] {
        let comparison = compare(from, to, &options);
        let verdict = comparison.verdict(Column::QemuForward);
        assert!(verdict < Severity::Break, "{:#?}", comparison.findings);
    }
    let over_ber = of_report(&report(&in_ber(&Router::new()))).unwrap();
    let comparison = compare(&over_ber, &own, &options);
    assert_eq!(comparison.findings, [], "it has all cases");
    // A stream with other cases.
    let none = Router {
        table: [const { Route::none() }; 4],
        list: vec![Route::none()],
        last: Route::none(),
        pending: 0,
    };
    let empty = of_report(&report(&in_qemu(&none, VmdescDialect::ALL[0]))).unwrap();
    let comparison = compare(&empty, &own, &options);
    let verdict = comparison.verdict(Column::QemuForward);
    assert!(verdict < Severity::Break, "{:#?}", comparison.findings);
}
