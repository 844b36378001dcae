//! Numbers of elements that both ends have from their configuration.

use vmstate_ber::frame::{FieldCount, Frame, Hello, Presence, SectionCounts, Severity, manifest};
use vmstate_desc::OwnCount;

use super::{RTC, agreed, frames, machine, refused, rules, terms};
use crate::negotiation::MAX_COUNTS;
use crate::{Handshake, Inventory, NegotiateErrorKind, Negotiation, Progress, Terms};

fn count(path: &str, number: u32) -> OwnCount {
    OwnCount {
        path: path.to_owned(),
        aliases: Vec::new(),
        counter: "harts".to_owned(),
        number,
        resize_max: None,
    }
}

fn with(counts: Vec<OwnCount>) -> Terms {
    let mut terms = terms(&RTC);
    terms.inventory.set_counts(("rtc", 0), counts);
    terms
}

fn hello(terms: Terms) -> Hello {
    frames(&Handshake::source(terms).output()).0.unwrap()
}

/// What a destination with 4 `timers` says.
fn told(hello: Hello) -> Result<Progress, NegotiateErrorKind> {
    let mut destination = Negotiation::destination(with(vec![count("timers", 4)]));
    let reply = destination.receive(Frame::Hello(hello), 0, 0);
    reply
        .map(|reply| reply.progress)
        .map_err(|error| error.kind)
}

#[test]
fn equal_numbers_agree() {
    let numbers = || with(vec![count("timers", 4), count("cmp", 4)]);
    assert_eq!(agreed(numbers(), numbers()).report.findings, []);
}

#[test]
fn another_number_is_refused_although_the_types_are_equal() {
    let one = with(vec![count("timers", 1), count("ring", 8)]);
    let four = with(vec![count("timers", 4), count("ring", 8)]);
    let report = refused(one, four);
    assert_eq!(rules(&report.findings), [("N10", Severity::Error)]);
    assert_eq!(
        report.to_string(),
        "migration refused before any guest page was sent (1 error)\n \
         error   N10  rtc#0: timers\n              \
         number of elements differs (harts): source 1, destination 4\n              \
         do: configure the destination as the source is: as many processors, queues or ports"
    );
}

#[test]
fn also_where_types_had_to_be_sent() {
    static OTHER: vmstate_desc::Description = vmstate_desc::Description::new("rtc", 2, 1)
        .with_fields(
            const {
                &[
                    vmstate_desc::Field::value("ticks", vmstate_desc::Codec::Uint64),
                    vmstate_desc::Field::value("year", vmstate_desc::Codec::Uint16),
                ]
            },
        );
    let mut other = terms(&OTHER);
    let counts = vec![count("timers", 4)];
    other.inventory.set_counts(("rtc", 0), counts);
    let report = refused(with(vec![count("timers", 1)]), other);
    assert!(rules(&report.findings).contains(&("N10", Severity::Error)));
}

#[test]
fn what_only_one_end_tells_is_not_compared() {
    let told = || with(vec![count("timers", 4)]);
    agreed(told(), terms(&RTC));
    agreed(terms(&RTC), told());
    agreed(with(vec![count("other", 1)]), told());
}

#[test]
fn a_number_that_the_destination_can_take() {
    let room = |max| {
        with(vec![OwnCount {
            resize_max: Some(max),
            ..count("timers", 4)
        }])
    };
    let report = agreed(with(vec![count("timers", 6)]), room(6)).report;
    assert_eq!(rules(&report.findings), [("N10", Severity::Info)]);
    refused(with(vec![count("timers", 7)]), room(6));
}

#[test]
fn former_names_and_aliases_of_sections() {
    let renamed = || {
        with(vec![
            OwnCount {
                aliases: vec!["timers".to_owned()],
                ..count("clocks", 4)
            },
            count("other", 1),
        ])
    };
    agreed(with(vec![count("timers", 4)]), renamed());
    let report = refused(with(vec![count("timers", 1)]), renamed());
    assert_eq!(report.findings[0].path, "rtc#0: clocks");
    // A field that has this name now comes first.
    let both = with(vec![
        OwnCount {
            aliases: vec!["timers".to_owned()],
            ..count("clocks", 4)
        },
        count("timers", 1),
    ]);
    agreed(with(vec![count("timers", 1)]), both);

    let mut moved = Inventory::new(machine());
    moved.add_live("ram", 0, 4, true).unwrap();
    let rtc = (&RTC).into();
    moved
        .add_described("bus/rtc", 0, rtc, Presence::Always)
        .unwrap();
    moved.add_alias(("bus/rtc", 0), "rtc", 0);
    moved.set_counts(("bus/rtc", 0), vec![count("timers", 4)]);
    let moved = Terms {
        session: [9; 16],
        ..Terms::new("toy 1.0", moved)
    };
    let report = refused(with(vec![count("timers", 1)]), moved);
    assert_eq!(report.findings[0].path, "bus/rtc#0: timers");
}

#[test]
fn a_section_that_may_not_come() {
    let mut hello = hello(with(vec![count("timers", 1)]));
    let catalog = hello.catalog.as_mut().unwrap();
    let rtc = catalog.iter_mut().find(|entry| entry.idstr == "rtc");
    rtc.unwrap().presence = Presence::Maybe;
    hello.manifest = Some(manifest(catalog));
    let Ok(Progress::Agreed(agreement)) = told(hello) else {
        panic!("refused");
    };
    assert_eq!(
        rules(&agreement.report.findings),
        [("N10", Severity::Warning)]
    );
}

#[test]
fn sources_that_break_the_rules() {
    let numbers = |idstr: &str, instance, counts| SectionCounts {
        idstr: idstr.to_owned(),
        instance,
        counts,
    };
    let field = |path: String, number| FieldCount { path, number };
    let own = || hello(with(vec![count("timers", 4)]));
    assert!(matches!(told(own()), Ok(Progress::Agreed(_))));
    for unknown in [("rtc", 1), ("fdc", 0)] {
        let mut hello = own();
        let counts = vec![field("x".to_owned(), 1)];
        hello.counts = Some(vec![numbers(unknown.0, unknown.1, counts)]);
        match told(hello) {
            Err(NegotiateErrorKind::Misbehaved(what)) => {
                assert!(what.contains("not in its catalog"), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }
    let many = |n: usize| (0..n).map(|i| field(format!("{i:08}"), 1)).collect();
    let mut hello = own();
    hello.counts = Some(vec![numbers("rtc", 0, many(MAX_COUNTS))]);
    assert!(matches!(told(hello.clone()), Ok(Progress::Agreed(_))));
    hello.counts = Some(vec![numbers("rtc", 0, many(MAX_COUNTS + 1))]);
    match told(hello) {
        Err(NegotiateErrorKind::Limit { what, .. }) => assert_eq!(what, "numbers of elements"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_source_tells_no_more_than_is_taken() {
    let long = "x".repeat(256);
    let paths = (0..MAX_COUNTS + 10).map(|i| count(&format!("{i:08}"), 1));
    let inventory = with(paths.chain([count(&long, 1), count("", 1)]).collect()).inventory;
    let told = inventory.counts();
    assert_eq!(told[0].counts.len(), MAX_COUNTS);
    assert!(told[0].counts.is_sorted_by(|a, b| a.path < b.path));
    let mut short = inventory;
    short.set_counts(("rtc", 0), vec![count(&long, 1), count("", 1)]);
    assert_eq!(short.counts(), []);
    short.set_counts(("nobody", 0), vec![count("x", 1)]);
    assert_eq!(short.counts(), []);
}

#[test]
fn a_hello_that_knows_no_numbers() {
    let old = Hello {
        counts: None,
        ..hello(with(vec![count("timers", 1)]))
    };
    assert!(matches!(told(old), Ok(Progress::Agreed(_))));
}
