//! Peers that break the rules.

use vmstate_ber::frame::{
    CatalogEntry, Decision, Finding, Frame, Hello, Note, Presence, Role, Severity, Verdict,
    manifest,
};
use vmstate_ber::stream::Writer;
use vmstate_ber::types::{FieldDef, Kind, TypeDef, TypeFlags, TypeTable};
use vmstate_ber::{AnyValue, BerErrorKind};

use super::{RTC, feed, frames, machine, terms};
use crate::negotiation::{MAX_DIGESTS, MAX_FRAMES, MAX_SECTIONS, MAX_TYPES, TYPES_NOTE};
use crate::{Handshake, NegotiateErrorKind, Negotiation, Progress, Terms};

fn source_hello() -> Hello {
    frames(&Handshake::source(terms(&RTC)).output()).0.unwrap()
}

fn entry(idstr: &str, digest: Option<[u8; 32]>) -> CatalogEntry {
    CatalogEntry {
        idstr: idstr.to_owned(),
        instance: 0,
        version: 1,
        presence: Presence::Always,
        type_digest: digest,
    }
}

fn with_catalog(catalog: Vec<CatalogEntry>) -> Hello {
    Hello {
        manifest: Some(manifest(&catalog)),
        catalog: Some(catalog),
        ..source_hello()
    }
}

/// What a destination says to these frames of a source.
fn told(frames: Vec<Frame<'_>>) -> Result<Progress, NegotiateErrorKind> {
    let mut destination = Negotiation::destination(terms(&RTC));
    let mut last = Progress::Wait;
    for frame in frames {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let reply = destination.receive(frame, bytes.len() as u64, 0);
        last = reply.map_err(|error| error.kind)?.progress;
    }
    Ok(last)
}

fn misbehaves(frames: Vec<Frame<'_>>, expected: &str) {
    match told(frames) {
        Err(NegotiateErrorKind::Misbehaved(what)) => assert!(what.contains(expected), "{what}"),
        other => panic!("{expected}: {other:?}"),
    }
}

fn over_limit(frames: Vec<Frame<'_>>, expected: &str) {
    match told(frames) {
        Err(NegotiateErrorKind::Limit { what, found, limit }) => {
            assert!(what.contains(expected) && found > limit, "{what}");
        }
        other => panic!("{expected}: {other:?}"),
    }
}

#[test]
fn hellos_that_are_none_of_a_source() {
    let hello = |change: fn(&mut Hello)| {
        let mut hello = source_hello();
        change(&mut hello);
        vec![Frame::Hello(hello)]
    };
    assert!(matches!(told(hello(|_| {})), Ok(Progress::Agreed(_))));
    misbehaves(hello(|h| h.role = Role::Destination), "not a source");
    misbehaves(hello(|h| h.role = Role::File), "not a source");
    misbehaves(hello(|h| h.channel = Some(1)), "main channel");
    misbehaves(hello(|h| h.catalog = None), "no catalog");
    misbehaves(hello(|h| h.manifest = Some([1; 32])), "manifest");
    misbehaves(
        hello(|h| h.catalog.as_mut().unwrap().reverse()),
        "not sorted",
    );
    misbehaves(
        hello(|h| {
            let catalog = h.catalog.as_mut().unwrap();
            let twice = catalog[0].clone();
            catalog.insert(0, twice);
        }),
        "not sorted",
    );
}

#[test]
fn a_catalog_of_a_million() {
    let many = |count: usize| {
        let catalog = (0..count).map(|n| entry(&format!("{n:08}"), None));
        vec![Frame::Hello(with_catalog(catalog.collect()))]
    };
    assert!(matches!(told(many(MAX_SECTIONS)), Ok(Progress::Refused(_))));
    over_limit(many(MAX_SECTIONS + 1), "sections");
    // The report stays readable.
    let Ok(Progress::Refused(report)) = told(many(1000)) else {
        panic!();
    };
    assert_eq!(report.findings.len(), 257);
    assert_eq!(
        report.findings[256].text.as_deref(),
        Some("746 more are not told")
    );
}

#[test]
fn frames_out_of_turn() {
    let note = |name: &str, value| {
        Frame::Note(Note {
            name: name.to_owned(),
            value,
        })
    };
    let out_of_turn = |frames| {
        let told = told(frames);
        assert!(
            matches!(told, Err(NegotiateErrorKind::OutOfTurn { .. })),
            "{told:?}"
        );
    };
    out_of_turn(vec![Frame::TypeDef(empty(1))]);
    out_of_turn(vec![note(TYPES_NOTE, AnyValue::octets(&[]))]);
    let hello = Frame::Hello(source_hello());
    out_of_turn(vec![hello.clone(), hello.clone()]);
    out_of_turn(vec![hello, Frame::TypeDef(empty(1))]);
    // Notes for people do not matter, but are counted.
    assert_eq!(told(vec![note("hi", AnyValue::int(1))]), Ok(Progress::Wait));
    over_limit(vec![note("hi", AnyValue::int(1)); MAX_FRAMES + 1], "frames");
}

fn empty(id: u32) -> TypeDef {
    TypeDef {
        id,
        name: format!("t{id}"),
        version: 1,
        min_version: 1,
        fields: Vec::new(),
        subs: Vec::new(),
        flags: TypeFlags::default(),
        readable_from: None,
    }
}

fn embeds(id: u32, children: &[u32]) -> TypeDef {
    let fields = children.iter().enumerate().map(|(n, child)| FieldDef {
        ty: Some(*child),
        ..FieldDef::new(format!("f{n}"), Kind::Struct)
    });
    TypeDef {
        fields: fields.collect(),
        ..empty(id)
    }
}

/// A source whose section `x` has the last of these types, and sends all of them.
fn with_types(types: Vec<TypeDef>) -> Vec<Frame<'static>> {
    let mut table = TypeTable::default();
    let limits = vmstate_ber::Limits {
        types: 1 << 20,
        ..vmstate_ber::Limits::default()
    };
    let mut digest = [5; 32];
    let last = types.last().map_or(1, |ty| ty.id);
    for ty in &types {
        table.insert(ty.clone(), 1, 0, &limits).unwrap();
    }
    if let Some(index) = table.find(last) {
        digest = table.digest(index).unwrap_or(digest);
    }
    let mut all = vec![Frame::Hello(with_catalog(vec![entry("x", Some(digest))]))];
    all.extend(types.into_iter().map(Frame::TypeDef));
    all.push(Frame::Note(Note {
        name: TYPES_NOTE.to_owned(),
        value: AnyValue::octets(&last.to_be_bytes()),
    }));
    all
}

#[test]
fn types_that_are_not_what_was_wanted() {
    assert!(matches!(
        told(with_types(vec![empty(1)])),
        Ok(Progress::Refused(_))
    ));
    let mut wrong = with_types(vec![empty(1)]);
    wrong[1] = Frame::TypeDef(TypeDef {
        version: 2,
        ..empty(1)
    });
    misbehaves(wrong, "digest differs");
    let with_ids = |ids: &[u8]| {
        let mut frames = with_types(vec![empty(1)]);
        frames[2] = Frame::Note(Note {
            name: TYPES_NOTE.to_owned(),
            value: AnyValue::octets(ids),
        });
        frames
    };
    misbehaves(with_ids(&[]), "names 0 types");
    misbehaves(with_ids(&[0, 0, 0, 1, 0]), "names 1 types");
    misbehaves(with_ids(&[0, 0, 0, 1, 0, 0, 0, 1]), "names 2 types");
    let unknown = told(with_ids(&[0, 0, 0, 2]));
    let Err(NegotiateErrorKind::Ber(error)) = unknown else {
        panic!("{unknown:?}");
    };
    assert_eq!(error.kind(), &BerErrorKind::UnknownType { id: 2 });
    let mut in_text = with_types(vec![empty(1)]);
    in_text[2] = Frame::Note(Note {
        name: TYPES_NOTE.to_owned(),
        value: AnyValue::text("1"),
    });
    misbehaves(in_text, "another form");
}

#[test]
fn types_in_circles_and_towers() {
    let ber = |types: Vec<TypeDef>| match told(with_types(types)) {
        Err(NegotiateErrorKind::Ber(error)) => error.kind().clone(),
        other => panic!("{other:?}"),
    };
    let circle = ber(vec![embeds(2, &[1]), embeds(1, &[2])]);
    assert!(
        matches!(circle, BerErrorKind::CircularType { .. }),
        "{circle:?}"
    );
    let tower: Vec<_> = std::iter::once(empty(1))
        .chain((2..40).map(|id| embeds(id, &[id - 1])))
        .collect();
    assert!(matches!(ber(tower), BerErrorKind::Limit { .. }));
    // Each embeds the one before twice: few types, more fields than anybody can look at.
    let doubling = std::iter::once(empty(1)).chain((2..30).map(|id| embeds(id, &[id - 1, id - 1])));
    over_limit(
        with_types(doubling.collect()),
        "fields of the source's types",
    );
    let many: Vec<_> = (1..).map(empty).take(MAX_TYPES + 1).collect();
    let error = told(with_types(many));
    assert!(
        matches!(error, Err(NegotiateErrorKind::Ber(_))),
        "{error:?}"
    );
}

#[test]
fn many_sections_of_one_large_type_are_no_large_types() {
    let fields = (0..600).map(|n| FieldDef::new(format!("f{n}"), Kind::Bool));
    let large = TypeDef {
        fields: fields.collect(),
        ..empty(1)
    };
    let mut frames = with_types(vec![large]);
    let Some(Frame::Hello(hello)) = frames.first() else {
        panic!();
    };
    let digest = hello.catalog.as_ref().unwrap()[0].type_digest;
    let catalog = (0..500).map(|n| entry(&format!("{n:04}"), digest));
    frames[0] = Frame::Hello(with_catalog(catalog.collect()));
    let Ok(Progress::Refused(report)) = told(frames) else {
        panic!("no verdict");
    };
    assert!(report.findings.iter().any(|found| found.rule == "C22"));
}

#[test]
fn two_sections_for_one() {
    let mut here = terms(&RTC);
    here.inventory.add_alias(("rtc", 0), "old-rtc", 0);
    let mut hello = source_hello();
    let catalog = hello.catalog.as_mut().unwrap();
    let named = catalog.iter().find(|entry| entry.idstr == "rtc").unwrap();
    let by_alias = CatalogEntry {
        idstr: "old-rtc".to_owned(),
        ..named.clone()
    };
    catalog.insert(0, by_alias);
    let hello = with_catalog(catalog.clone());
    let mut destination = Negotiation::destination(here);
    let reply = destination.receive(Frame::Hello(hello), 100, 0).unwrap();
    let Progress::Refused(report) = reply.progress else {
        panic!("{:?}", reply.progress);
    };
    let rules = super::rules(&report.findings);
    assert_eq!(rules, [("C22", Severity::Error)]);
}

#[test]
fn hashing_is_bounded() {
    // All roots share a large part, so that each digest costs as much as that part.
    let fields = |n: usize| (0..n).map(|n| FieldDef::new(format!("{n:0200}"), Kind::Bool));
    let large = TypeDef {
        fields: fields(4000).collect(),
        ..empty(1)
    };
    let roots = 2..=200;
    let mut table = TypeTable::default();
    let limits = vmstate_ber::Limits::default();
    table.insert(large.clone(), 1, 0, &limits).unwrap();
    let mut catalog = Vec::new();
    let mut types = vec![Frame::TypeDef(large)];
    let mut ids = Vec::new();
    for id in roots {
        let root = embeds(id, &[1]);
        let index = table.insert(root.clone(), 1, 0, &limits).unwrap();
        let digest = table.digest(index).unwrap();
        catalog.push(entry(&format!("{id:04}"), Some(digest)));
        types.push(Frame::TypeDef(root));
        ids.extend_from_slice(&id.to_be_bytes());
    }
    let mut all = vec![Frame::Hello(with_catalog(catalog))];
    all.append(&mut types);
    all.push(Frame::Note(Note {
        name: TYPES_NOTE.to_owned(),
        value: AnyValue::octets(&ids),
    }));
    match told(all) {
        Err(NegotiateErrorKind::Ber(error)) => {
            let limit =
                matches!(error.kind(), BerErrorKind::Limit { what, .. } if what.contains("hashed"));
            assert!(limit, "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// What a source says to these frames of a destination.
fn answered(
    change: impl FnOnce(&mut Hello),
    verdict: Verdict,
) -> Result<Progress, NegotiateErrorKind> {
    let (mut source, _) = Negotiation::source(terms(&RTC));
    let mut destination = Handshake::destination(terms(&RTC));
    let there = Handshake::source(terms(&RTC)).output();
    feed(&mut destination, &there, 1000);
    let mut hello = frames(&destination.output()).0.unwrap();
    change(&mut hello);
    let mut last = Progress::Wait;
    for frame in [Frame::Hello(hello), Frame::Verdict(verdict)] {
        let reply = source.receive(frame, 100, 0);
        last = reply.map_err(|error| error.kind)?.progress;
    }
    Ok(last)
}

fn accept() -> Verdict {
    let base = Terms::new("x", super::inventory(&RTC)).capabilities;
    Verdict {
        decision: Decision::Accept,
        version: 1,
        capabilities: base,
        wanted: Vec::new(),
        findings: Vec::new(),
    }
}

#[test]
fn destinations_that_break_the_rules() {
    assert!(matches!(
        answered(|_| {}, accept()),
        Ok(Progress::Agreed(_))
    ));
    let bad = |change: fn(&mut Hello), verdict: Verdict, expected: &str| match answered(
        change, verdict,
    ) {
        Err(NegotiateErrorKind::Misbehaved(what)) => {
            assert!(what.contains(expected), "{what}");
        }
        other => panic!("{expected}: {other:?}"),
    };
    let keep: fn(&mut Hello) = |_| {};
    bad(|h| h.role = Role::Source, accept(), "not a destination");
    bad(|h| h.session = [0; 16], accept(), "another session");
    let with = |change: fn(&mut Verdict)| {
        let mut verdict = accept();
        change(&mut verdict);
        verdict
    };
    bad(keep, with(|v| v.version = 2), "version 2");
    bad(
        keep,
        with(|v| drop(v.capabilities.pop())),
        "other capabilities",
    );
    // It lacks what the source requires, and says that all is well.
    let lacks: fn(&mut Hello) = |h| drop(h.capabilities.pop());
    match answered(lacks, with(|v| drop(v.capabilities.pop()))) {
        Ok(Progress::Refused(report)) => {
            assert!(report.refused);
            let rules = super::rules(&report.findings);
            assert_eq!(rules, [("N02", Severity::Error)]);
        }
        other => panic!("{other:?}"),
    }
    bad(
        keep,
        with(|v| v.decision = Decision::NeedTypes),
        "wants no types",
    );
    let unknown = with(|v| {
        v.decision = Decision::NeedTypes;
        v.wanted = vec![[3; 32]];
    });
    bad(keep, unknown, "not in the catalog");
    let errors = with(|v| {
        v.findings.push(Finding {
            severity: Severity::Error,
            rule: "C10".to_owned(),
            path: String::new(),
            expected: None,
            found: None,
            text: None,
        });
    });
    bad(keep, errors, "in spite of errors");
    let limit = answered(|h| h.known = Some(vec![[1; 32]; MAX_DIGESTS + 1]), accept());
    assert!(
        matches!(limit, Err(NegotiateErrorKind::Limit { .. })),
        "{limit:?}"
    );
    let wanted = with(|v| {
        v.decision = Decision::NeedTypes;
        v.wanted = vec![[3; 32]; MAX_DIGESTS + 1];
    });
    let limit = answered(keep, wanted);
    assert!(
        matches!(limit, Err(NegotiateErrorKind::Limit { .. })),
        "{limit:?}"
    );
}

#[test]
fn types_are_asked_for_once() {
    let (mut source, hello) = Negotiation::source(terms(&RTC));
    let digest = hello
        .catalog
        .unwrap()
        .iter()
        .find_map(|e| e.type_digest)
        .unwrap();
    let mut theirs = source_hello();
    theirs.role = Role::Destination;
    source.receive(Frame::Hello(theirs), 1, 0).unwrap();
    let need = Frame::Verdict(Verdict {
        decision: Decision::NeedTypes,
        wanted: vec![digest],
        ..accept()
    });
    assert!(source.receive(need.clone(), 1, 0).unwrap().types);
    let error = source.receive(need, 1, 0).unwrap_err();
    assert!(error.to_string().contains("wants types twice"), "{error}");
    // After an error nothing more is taken.
    let error = source.receive(Frame::Verdict(accept()), 1, 0).unwrap_err();
    assert!(matches!(error.kind, NegotiateErrorKind::OutOfTurn { .. }));
}

#[test]
fn a_peer_that_gives_up_says_why() {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&source_hello(), &mut bytes);
    let why = Finding {
        severity: Severity::Error,
        rule: "N09".to_owned(),
        path: String::new(),
        expected: None,
        found: None,
        text: Some("the user has cancelled".to_owned()),
    };
    writer.end_with(vmstate_ber::frame::Status::Cancelled, Some(why), &mut bytes);
    // A source with another device, so that the destination waits for types.
    static OTHER: vmstate_desc::Description = vmstate_desc::Description::new("rtc", 7, 1);
    let mut destination = Handshake::destination(terms(&OTHER));
    let said = feed(&mut destination, &bytes, 10_000).unwrap().unwrap_err();
    assert_eq!(
        said.to_string(),
        "negotiation: the peer gave up (Cancelled: the user has cancelled)"
    );
}

#[test]
fn no_machine_is_no_reason() {
    let hello = Hello {
        machine: None,
        ..source_hello()
    };
    assert!(matches!(
        told(vec![Frame::Hello(hello)]),
        Ok(Progress::Agreed(_))
    ));
    assert_eq!(machine().machine_type, "toy");
}
