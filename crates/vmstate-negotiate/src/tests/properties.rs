//! Whatever comes: no panic, an answer or an error, and what two ends agree on holds for both.

use proptest::prelude::*;
use vmstate_ber::frame::{Capability, Level};

use super::{RTC, agreed, feed, terms};
use crate::Handshake;
use crate::capabilities::{capability, combine, sort};

fn wishes() -> impl Strategy<Value = Vec<Capability>> {
    let level = prop_oneof![
        Just(Level::Offered),
        Just(Level::Wanted),
        Just(Level::Required)
    ];
    let one = ("[a-e]", level).prop_map(|(name, level)| capability(name, level));
    proptest::collection::vec(one, 0..6).prop_map(|mut all| {
        sort(&mut all);
        all
    })
}

proptest! {
    #[test]
    fn what_is_on_is_listed_by_both(source in wishes(), destination in wishes()) {
        let (on, findings) = combine(&source, &destination);
        let lists = |list: &[Capability], name: &str| list.iter().any(|one| one.name == name);
        for one in &on {
            prop_assert!(lists(&source, &one.name) && lists(&destination, &one.name));
        }
        // Both ends compute the same, whoever asks.
        let (again, complaints) = combine(&destination, &source);
        prop_assert_eq!(on, again);
        prop_assert_eq!(findings.len(), complaints.len());
        for one in source.iter().chain(&destination).filter(|one| one.level == Level::Required) {
            let missing = !lists(&source, &one.name) || !lists(&destination, &one.name);
            let told = findings.iter().any(|f| f.path.ends_with(&one.name));
            prop_assert_eq!(missing, told);
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_mean_something(
        at in 0_usize..2000,
        value: u8,
        piece in 1_usize..50,
    ) {
        let mut bytes = Handshake::source(terms(&RTC)).output();
        let place = at % bytes.len();
        let intact = bytes[place] == value;
        bytes[place] = value;
        let mut destination = Handshake::destination(terms(&RTC));
        let said = feed(&mut destination, &bytes, piece);
        prop_assert!(matches!(said, Some(Ok(_))) || !intact, "{:?}", said);
        prop_assert!(said.is_some() || destination.closed(&[]).is_err());
        let mut source = Handshake::source(terms(&RTC));
        prop_assert!(!source.output().is_empty());
        // These are its own words.
        let said = feed(&mut source, &bytes, piece);
        prop_assert!(!matches!(said, Some(Ok(_))), "{:?}", said);
    }

    #[test]
    fn garbage_is_refused(bytes: Vec<u8>, piece in 1_usize..50) {
        prop_assume!(!vmstate_ber::stream::is_stream(&bytes));
        let mut destination = Handshake::destination(terms(&RTC));
        let said = feed(&mut destination, &bytes, piece);
        prop_assert!(bytes.is_empty() || matches!(said, Some(Err(_))), "{:?}", said);
    }
}

#[test]
fn a_negotiation_that_is_cut_short_is_an_error() {
    let bytes = Handshake::source(terms(&RTC)).output();
    for end in 0..bytes.len() {
        let mut destination = Handshake::destination(terms(&RTC));
        assert_eq!(feed(&mut destination, &bytes[..end], 1000), None);
        assert!(destination.closed(&[]).is_err());
    }
    assert!(agreed(terms(&RTC), terms(&RTC)).report.findings.is_empty());
}
