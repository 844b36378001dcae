//! Which sections belong together.

use std::collections::HashMap;

use super::glob::matches_glob;
use super::rules::Rule;
use super::verdict::{Column, Severity, Verdicts};
use super::walk::{Findings, Found, Walk};
use super::{Comparison, Finding, Options};
use crate::model::{Origin, Schema, Section, TypeId, is_named};

use Severity::{Break, Note, Ok, Suspect};

pub(super) fn compare(from: &Schema, to: &Schema, options: &Options) -> Comparison {
    let mut comparison = Comparison::default();
    machines(from, to, &mut comparison);
    let mut walk = Walk::new(from, to);
    let wanted = |section: &&Section| {
        let name = section.name();
        let matches = |glob: &String| {
            matches_glob(glob.as_bytes(), name.as_bytes())
                || matches_glob(glob.as_bytes(), section.idstr.as_bytes())
        };
        options.sections.is_empty() || options.sections.iter().any(matches)
    };
    let olds: Vec<&Section> = from.sections.iter().filter(wanted).collect();
    let news: Vec<&Section> = to.sections.iter().filter(wanted).collect();
    let is_dump = |schema: &Schema| schema.origin == Origin::Dump;
    match (is_dump(from), is_dump(to)) {
        (false, true) => {
            for section in olds {
                against_classes(&mut walk, section, &news, false, &mut comparison);
            }
        }
        (true, false) => {
            for section in news {
                against_classes(&mut walk, section, &olds, true, &mut comparison);
            }
        }
        _ => one_by_one(&mut walk, &olds, &news, &mut comparison),
    }
    comparison
}

fn machines(from: &Schema, to: &Schema, comparison: &mut Comparison) {
    if let (Some(a), Some(b)) = (&from.machine, &to.machine)
        && a != b
    {
        comparison.findings.push(Finding {
            rule: Rule::N08,
            section: "configuration".to_owned(),
            path: String::new(),
            from: a.clone(),
            to: b.clone(),
            verdicts: Verdicts::new([Break; 4]),
            test: None,
            values: None,
            undecided: None,
        });
    }
}

impl Comparison {
    /// Adds what was found about a pair of sections.
    fn add(&mut self, section: &str, findings: Findings) {
        self.compared += 1;
        self.equal += usize::from(findings.list.is_empty());
        self.left_out = self.left_out.saturating_add(findings.left_out);
        for found in findings.list {
            self.push(section, found);
        }
    }

    /// Notes a pair of sections of which nothing is left to compare.
    fn identical(&mut self, section: &str, walk: &Walk<'_>, from: TypeId, to: TypeId) {
        let Some(digest) = walk.identical(from, to) else {
            return;
        };
        self.identical.push(Finding {
            rule: Rule::C00,
            section: section.to_owned(),
            path: String::new(),
            from: digest.to_string(),
            to: digest.to_string(),
            verdicts: Verdicts::new([Ok; 4]),
            test: None,
            values: None,
            undecided: None,
        });
    }

    fn push(&mut self, section: &str, found: Found) {
        self.findings.push(Finding {
            rule: found.rule,
            section: section.to_owned(),
            path: found.path,
            from: found.from,
            to: found.to,
            verdicts: found.verdicts,
            test: found.test,
            values: None,
            undecided: None,
        });
    }
}

fn whole(rule: Rule, from: String, to: String, verdicts: [Severity; 4]) -> Found {
    Found {
        rule,
        path: String::new(),
        from,
        to,
        verdicts: Verdicts::new(verdicts),
        test: None,
    }
}

fn described(schema: &Schema, section: &Section) -> String {
    match section.ty.and_then(|ty| schema.get(ty)) {
        Some(ty) => format!("version {}", ty.version_id),
        None => "bytes that nothing describes".to_owned(),
    }
}

/// Sections with id string and instance id, or device classes by name.
fn one_by_one(
    walk: &mut Walk<'_>,
    olds: &[&Section],
    news: &[&Section],
    comparison: &mut Comparison,
) {
    // Several may have one name: the first goes with the first.
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, section) in news.iter().enumerate().rev() {
        places.entry(section.name()).or_default().push(place);
    }
    let mut partner = vec![None; olds.len()];
    let mut taken = vec![false; news.len()];
    for (section, partner) in olds.iter().zip(&mut partner) {
        *partner = places.get_mut(&section.name()).and_then(Vec::pop);
        if let Some(taken) = partner.and_then(|place| taken.get_mut(place)) {
            *taken = true;
        }
    }
    for (old, partner) in olds.iter().zip(&partner) {
        if let Some(new) = partner.and_then(|place| news.get(place)) {
            // Of a class the name of its sections is that of its description.
            if old.idstr != new.idstr {
                let (from, to) = (old.idstr.clone(), new.idstr.clone());
                comparison.push(&old.name(), whole(Rule::C23, from, to, [Break; 4]));
            }
            if let (Some(from), Some(to)) = (old.ty, new.ty) {
                comparison.identical(&old.name(), walk, from, to);
            }
            comparison.add(&old.name(), pair(walk, old, new));
            continue;
        }
        // The same device at another place?
        let elsewhere = news.iter().zip(&mut taken).find(|(new, taken)| {
            !**taken && old.class.is_none() && last(&new.idstr) == last(&old.idstr)
        });
        if let Some((new, taken)) = elsewhere {
            *taken = true;
            comparison.push(
                &old.name(),
                whole(Rule::C23, old.name(), new.name(), [Break; 4]),
            );
            comparison.add(&old.name(), pair(walk, old, new));
            continue;
        }
        let (from, none) = (described(walk.from, old), "none".to_owned());
        let read = if old.optional { Ok } else { Note };
        // Sections of this name may be of another class, which the other side has.
        let shared = old.class.is_some() && news.iter().any(|new| new.idstr == old.idstr);
        let sent = if shared { Suspect } else { Break };
        comparison.push(
            &old.name(),
            whole(Rule::C22, from, none, [sent, read, sent, read]),
        );
    }
    for (new, taken) in news.iter().zip(&taken) {
        if !taken {
            let (to, none) = (described(walk.to, new), "none".to_owned());
            let read = if new.optional { Ok } else { Note };
            comparison.push(
                &new.name(),
                whole(Rule::C21, none, to, [read, Break, read, Break]),
            );
        }
    }
}

fn pair(walk: &mut Walk<'_>, old: &Section, new: &Section) -> Findings {
    match (old.ty, new.ty) {
        (Some(a), Some(b)) => walk.top(a, b),
        (None, None) => Findings::default(),
        _ => {
            let mut findings = Findings::default();
            let (from, to) = (described(walk.from, old), described(walk.to, new));
            findings.push(whole(Rule::C31, from, to, [Suspect, Suspect, Note, Note]));
            findings
        }
    }
}

/// An id string without the path of the device.
fn last(idstr: &str) -> &str {
    idstr.rsplit('/').next().unwrap_or(idstr)
}

/// A section against all device classes of a dump whose description can be its: the one that suits it best counts.
fn against_classes(
    walk: &mut Walk<'_>,
    section: &Section,
    classes: &[&Section],
    classes_are_from: bool,
    comparison: &mut Comparison,
) {
    let name = section.name();
    let Some(ty) = section.ty else {
        let text = "bytes that nothing describes".to_owned();
        let dump = "a dump says nothing about them".to_owned();
        let (from, to) = if classes_are_from {
            (dump, text)
        } else {
            (text, dump)
        };
        comparison.push(&name, whole(Rule::C31, from, to, [Suspect; 4]));
        return;
    };
    let mut candidates: Vec<TypeId> = Vec::new();
    for class in classes {
        if let Some(id) = class.ty
            && is_named(&section.idstr, &class.idstr)
            && !candidates.contains(&id)
        {
            candidates.push(id);
        }
    }
    let column = if classes_are_from {
        Column::QemuBackward
    } else {
        Column::QemuForward
    };
    let weight = |findings: &Findings| {
        let worst = findings.worst().of(column);
        let bad = findings
            .list
            .iter()
            .filter(|f| f.verdicts.of(column) >= Suspect);
        (worst, bad.count(), findings.list.len())
    };
    let best = candidates
        .into_iter()
        .map(|class| {
            if classes_are_from {
                walk.top(class, ty)
            } else {
                walk.top(ty, class)
            }
        })
        .min_by_key(weight);
    match best {
        Some(findings) => comparison.add(&name, findings),
        None => {
            // Sections of the core, and devices that register their state by themselves, belong to no class.
            let (text, none) = (
                "a section".to_owned(),
                "no device class of this name in the dump".to_owned(),
            );
            let (from, to) = if classes_are_from {
                (none, text)
            } else {
                (text, none)
            };
            comparison.push(&name, whole(Rule::N07, from, to, [Suspect; 4]));
        }
    }
}
