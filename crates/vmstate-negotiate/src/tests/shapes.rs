//! Devices that are not the same at both ends: adapted or refused, and why.

use std::borrow::Cow;

use vmstate_ber::frame::{Presence, Severity};
use vmstate_desc::{Codec, Description, Field, Size};

use super::{RTC, agreed, inventory, machine, refused, rules, terms};
use crate::{Inventory, Terms};

use Severity::{Error, Info, Warning};

macro_rules! device {
    ($version:expr, $($field:expr),* $(,)?) => {{
        static D: Description =
            Description::new("rtc", $version, 1).with_fields(const { &[$($field),*] });
        &D
    }};
}

const YEAR: Field = Field::value("year", Codec::Uint16);
const TICKS: Field = Field::value("ticks", Codec::Uint64);
const OLD: &[Cow<'static, str>] = &[Cow::Borrowed("ticks")];

/// What the destination with this device says to a source with [`RTC`].
fn said(theirs: &'static Description) -> (bool, Vec<(String, Severity)>) {
    let (here, _, turns) = super::run(terms(&RTC), terms(theirs));
    assert_eq!(turns, 2, "types are asked for");
    let report = match here.unwrap() {
        crate::Outcome::Agreed(agreement) => agreement.report,
        crate::Outcome::Refused(report) => report,
    };
    let findings = rules(&report.findings);
    let findings = findings.into_iter().map(|(rule, s)| (rule.to_owned(), s));
    (report.refused, findings.collect())
}

fn check(theirs: &'static Description, refused: bool, expected: &[(&str, Severity)]) {
    let (was_refused, findings) = said(theirs);
    let findings: Vec<_> = findings.iter().map(|(r, s)| (r.as_str(), *s)).collect();
    assert_eq!((was_refused, &*findings), (refused, expected));
}

#[test]
fn a_changed_type() {
    let changed = device!(
        2,
        Field::value("year", Codec::Buffer(Size::Fixed(2))),
        TICKS
    );
    check(changed, true, &[("C10", Error)]);
    let wider = device!(2, Field::value("year", Codec::Uint32), TICKS);
    check(wider, false, &[("C08", Info)]);
    let narrower = device!(2, YEAR, Field::value("ticks", Codec::Uint32));
    check(narrower, false, &[("C09", Warning)]);
}

#[test]
fn a_missing_field() {
    let more = device!(2, YEAR, TICKS, Field::value("zone", Codec::Uint8));
    check(more, true, &[("C02", Error)]);
    // Nobody misses what is younger than the source.
    let newer = device!(3, YEAR, TICKS, Field::value("zone", Codec::Uint8).since(3));
    let (refused, findings) = said(newer);
    assert!(!refused, "{findings:?}");
}

#[test]
fn an_unknown_field() {
    check(device!(2, YEAR), true, &[("C04", Error)]);
    static IGNORABLE: Description = Description::new("rtc", 2, 1)
        .with_fields(const { &[YEAR, TICKS, Field::value("hint", Codec::Uint8).ignorable()] });
    let on = agreed(terms(&IGNORABLE), terms(&RTC));
    assert_eq!(rules(&on.report.findings), [("C04", Info)]);
}

#[test]
fn reordered_fields() {
    check(device!(2, TICKS, YEAR), false, &[("C19", Info)]);
}

#[test]
fn a_renamed_field() {
    let without = device!(2, YEAR, Field::value("counter", Codec::Uint64));
    check(without, true, &[("C07", Error)]);
    let with = device!(2, YEAR, Field::value("counter", Codec::Uint64).aliases(OLD));
    check(with, false, &[("C06", Info)]);
}

#[test]
fn versions() {
    check(device!(1, YEAR, TICKS), true, &[("C17", Error)]);
    static RAISED: Description =
        Description::new("rtc", 4, 3).with_fields(const { &[YEAR, TICKS] });
    let (refused, findings) = said(&RAISED);
    assert!(
        refused
            && findings
                .iter()
                .any(|(rule, s)| rule == "C18" && *s == Error)
    );
    let mut newer = Inventory::new(machine());
    newer.add_live("ram", 0, 5, true).unwrap();
    let rtc = (&RTC).into();
    newer
        .add_described("rtc", 0, rtc, Presence::Always)
        .unwrap();
    let report = super::refused(Terms::new("toy 2.0", newer), terms(&RTC));
    assert_eq!(report.findings[0].path, "ram#0");
    assert_eq!(report.findings[0].found.as_deref(), Some("version 5"));
}

#[test]
fn sections_that_one_side_lacks() {
    let extra = |presence| {
        let mut more = inventory(&RTC);
        static NIC: Description = Description::new("nic", 1, 1)
            .with_fields(const { &[Field::value("mac", Codec::Buffer(Size::Fixed(6)))] });
        let nic = (&NIC).into();
        more.add_described("pci/nic", 0, nic, presence).unwrap();
        Terms::new("toy 1.0", more)
    };
    let report = refused(extra(Presence::Always), terms(&RTC));
    assert_eq!(rules(&report.findings), [("C22", Error)]);
    assert_eq!(report.findings[0].path, "pci/nic#0");
    // It would not be sent as the machine is now.
    let on = agreed(extra(Presence::Maybe), terms(&RTC));
    assert_eq!(rules(&on.report.findings), [("C22", Warning)]);
    let on = agreed(terms(&RTC), extra(Presence::Always));
    assert_eq!(rules(&on.report.findings), [("C21", Warning)]);
}

#[test]
fn aliases_of_sections() {
    let at = |idstr: &str, instance| {
        let mut own = Inventory::new(machine());
        own.add_described(idstr, instance, (&RTC).into(), Presence::Always)
            .unwrap();
        own
    };
    let report = refused(
        Terms::new("a", at("rtc", 8)),
        Terms::new("b", at("isa/rtc", 0)),
    );
    assert!(
        rules(&report.findings).contains(&("C23", Error)),
        "{report}"
    );
    let mut knows = at("isa/rtc", 0);
    knows.add_alias(("isa/rtc", 0), "rtc", 8);
    agreed(Terms::new("a", at("rtc", 8)), Terms::new("b", knows));
}

#[test]
fn a_type_of_another_section_need_not_travel() {
    let two = |second: &'static str| {
        let mut own = Inventory::new(machine());
        for name in ["rtc", second] {
            own.add_described(name, 0, (&RTC).into(), Presence::Always)
                .unwrap();
        }
        Terms::new("a", own)
    };
    // The types are known, so there is an answer at once, and it is about sections.
    let (here, _, turns) = super::run(two("x"), two("y"));
    assert_eq!(turns, 1);
    let Ok(crate::Outcome::Refused(report)) = here else {
        panic!("{here:?}");
    };
    assert_eq!(rules(&report.findings), [("C22", Error), ("C21", Warning)]);
}

#[test]
fn bytes_against_a_description() {
    let mut bytes = Inventory::new(machine());
    bytes.add_live("ram", 0, 4, true).unwrap();
    bytes.add_live("rtc", 0, 2, false).unwrap();
    let on = agreed(Terms::new("a", bytes), terms(&RTC));
    assert_eq!(rules(&on.report.findings), [("C31", Warning)]);
}

#[test]
fn the_report_names_the_field_and_both_sides() {
    let changed = device!(
        2,
        Field::value("year", Codec::Buffer(Size::Fixed(2))),
        TICKS
    );
    let report = refused(terms(&RTC), terms(changed));
    assert_eq!(
        report.to_string(),
        "migration refused before any guest page was sent (1 error)\n \
         error   C10  rtc#0: year\n              \
         kind changed: source uint16, destination buffer of 2 bytes\n              \
         do: keep the old field for older streams, and add a new one with a new version"
    );
}
