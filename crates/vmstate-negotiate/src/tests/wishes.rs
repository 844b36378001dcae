//! Capabilities, parameters, limits, and the ends as a whole.

use vmstate_ber::AnyValue;
use vmstate_ber::der::{close, open, tag};
use vmstate_ber::frame::{Capability, Level, Limit, MachineId, Param, Severity};

use super::{RTC, agreed, inventory, machine, refused, rules, terms};
use crate::capabilities::{capability, combine, sort};
use crate::{Inventory, Rule, Terms};

use Level::{Offered, Required, Wanted};

/// What comes of one capability: on, or the rule.
fn outcome(source: Option<Level>, destination: Option<Level>) -> (bool, Option<&'static str>) {
    let list = |level: Option<Level>| -> Vec<Capability> {
        level
            .map(|level| capability("x", level))
            .into_iter()
            .collect()
    };
    let (on, findings) = combine(&list(source), &list(destination));
    let rule = findings.first().map(|finding| match &*finding.rule {
        "N02" => "N02",
        "N03" => "N03",
        other => panic!("{other}"),
    });
    let error = findings.iter().any(|f| f.severity == Severity::Error);
    assert_eq!(error, rule == Some("N02"));
    assert!(on.iter().all(|one| one.level == Required));
    (!on.is_empty(), rule)
}

#[test]
fn the_table_of_levels() {
    let all = [None, Some(Offered), Some(Wanted), Some(Required)];
    for source in all {
        for destination in all {
            let expected = match (source, destination) {
                (None | Some(Offered), None | Some(Offered)) => (false, None),
                (Some(_), Some(_)) => (true, None),
                (Some(Required), None) | (None, Some(Required)) => (false, Some("N02")),
                (Some(Wanted), None) | (None, Some(Wanted)) => (false, Some("N03")),
            };
            assert_eq!(
                outcome(source, destination),
                expected,
                "{source:?} {destination:?}"
            );
        }
    }
}

fn list(elements: &[i64]) -> AnyValue {
    let mut out = Vec::new();
    let start = open(&mut out, tag::SEQUENCE);
    for one in elements {
        out.extend_from_slice(AnyValue::int(*one).as_bytes());
    }
    close(&mut out, start);
    AnyValue::decode(&mut vmstate_ber::der::DerReader::new(&out, 0)).unwrap()
}

#[test]
fn parameters_are_combined() {
    let with = |params: &[(&str, AnyValue)]| {
        let params = params.iter().map(|(name, value)| Param {
            name: (*name).to_owned(),
            value: value.clone(),
        });
        [Capability {
            name: "x".to_owned(),
            level: Wanted,
            params: params.collect(),
        }]
    };
    let combined = |a: &[(&str, AnyValue)], b: &[(&str, AnyValue)]| {
        let (on, _) = combine(&with(a), &with(b));
        on.into_iter().next().map(|one| {
            let params = one.params.into_iter();
            params
                .map(|param| (param.name, param.value))
                .collect::<Vec<_>>()
        })
    };
    let int = AnyValue::int;
    let named = |name: &str, value: AnyValue| Some(vec![(name.to_owned(), value)]);
    assert_eq!(
        combined(&[("max", int(9))], &[("max", int(4))]),
        named("max", int(4))
    );
    assert_eq!(
        combined(&[("max", int(3))], &[("max", int(4))]),
        named("max", int(3))
    );
    assert_eq!(combined(&[("max", int(3))], &[]), named("max", int(3)));
    assert_eq!(combined(&[], &[("max", int(3))]), named("max", int(3)));
    let (a, b) = (list(&[1, 2, 3]), list(&[3, 4, 1]));
    assert_eq!(
        combined(&[("of", a.clone())], &[("of", b)]),
        named("of", list(&[1, 3]))
    );
    assert_eq!(combined(&[("of", a.clone())], &[("of", list(&[7]))]), None);
    assert_eq!(combined(&[("of", a)], &[("of", int(1))]), None);
    let text = AnyValue::text;
    assert_eq!(
        combined(&[("t", text("a"))], &[("t", text("a"))]),
        named("t", text("a"))
    );
    assert_eq!(combined(&[("t", text("a"))], &[("t", text("b"))]), None);
}

#[test]
fn namesakes_keep_the_greater_wish() {
    let mut all = vec![
        capability("b", Offered),
        capability("a", Offered),
        capability("b", Required),
        capability("b", Wanted),
    ];
    sort(&mut all);
    let shown: Vec<_> = all.iter().map(|c| (&*c.name, c.level)).collect();
    assert_eq!(shown, [("a", Offered), ("b", Required)]);
}

#[test]
fn a_required_capability_must_be_there() {
    let report = refused(terms(&RTC).with("qemu:postcopy-ram", Required), terms(&RTC));
    assert_eq!(rules(&report.findings), [("N02", Severity::Error)]);
    assert_eq!(
        report.to_string(),
        "migration refused before any guest page was sent (1 error)\n \
         error   N02  capability qemu:postcopy-ram\n              \
         required capability is missing at the other end: source required, destination not there\n              \
         do: set the same capabilities at both ends before migrating"
    );
    let report = refused(terms(&RTC), terms(&RTC).with("a", Required));
    assert_eq!(report.findings[0].found.as_deref(), Some("not there"));
    let on = agreed(
        terms(&RTC)
            .with("ram-fill", Offered)
            .with("only-here", Wanted),
        terms(&RTC)
            .with("ram-fill", Wanted)
            .with("only-there", Offered),
    );
    assert!(on.has("ram-fill") && !on.has("only-here") && !on.has("only-there"));
    assert_eq!(rules(&on.report.findings), [("N03", Severity::Info)]);
}

#[test]
fn machines_must_be_the_same() {
    let other = |change: fn(&mut MachineId)| {
        let mut id = machine();
        change(&mut id);
        let mut own = Inventory::new(id);
        own.add_live("ram", 0, 4, true).unwrap();
        let rtc = (&RTC).into();
        own.add_described("rtc", 0, rtc, vmstate_ber::frame::Presence::Always)
            .unwrap();
        Terms::new("toy 1.0", own)
    };
    for (change, rule) in [
        (
            (|m| m.machine_type = "tin".to_owned()) as fn(&mut MachineId),
            "N08",
        ),
        (|m| m.page_bits = 14, "N05"),
        (|m| m.arch = "s390x".to_owned(), "N06"),
    ] {
        // The manifests are equal, the machines are not.
        let report = refused(terms(&RTC), other(change));
        assert_eq!(rules(&report.findings), [(rule, Severity::Error)]);
    }
    agreed(terms(&RTC), other(|m| m.arch = "unknown".to_owned()));
}

#[test]
fn a_source_must_not_have_more_than_the_destination_takes() {
    let limit = |value| {
        let name = "ram-blocks".to_owned();
        let limits = vec![Limit { name, value }];
        Terms {
            limits,
            ..terms(&RTC)
        }
    };
    agreed(limit(8), limit(8));
    agreed(limit(8), terms(&RTC));
    let report = refused(limit(9), limit(8));
    assert_eq!(rules(&report.findings), [("N04", Severity::Error)]);
    assert_eq!(report.findings[0].path, "limit ram-blocks");
}

#[test]
fn rules_are_known_by_their_ids() {
    for rule in Rule::ALL {
        assert_eq!(Rule::by_id(rule.id()), Some(*rule));
        assert!(!rule.title().is_empty() && !rule.advice().is_empty());
    }
    assert_eq!(Rule::by_id("C01"), None);
}

#[test]
fn inventories_refuse_namesakes() {
    let mut own = inventory(&RTC);
    let error = own.add_live("rtc", 0, 1, false).unwrap_err();
    assert_eq!(error.to_string(), "section rtc/0 is there twice");
    own.add_live("rtc", 1, 1, false).unwrap();
}
