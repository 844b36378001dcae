//! Findings for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::compare::{Column, Comparison, Finding, Rule, Severity};
use crate::exceptions::Accepted;

/// The name of the form that [`to_json`] makes.
pub const FORMAT: &str = "vmstate-check/1";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Name of the first file.
    pub from: String,
    /// Name of the second.
    pub to: String,
    /// The columns that decide. Others are shown, but the answer does not depend on them.
    pub columns: Vec<Column>,
    /// Count as a no what depends on values or cannot be told.
    pub strict: bool,
    /// Show findings that are fine, too, and all places of each.
    pub all: bool,
}

impl Question {
    /// Whether FROM's QEMU stream loads in TO.
    #[must_use]
    pub fn new(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            columns: vec![Column::QemuForward],
            strict: false,
            all: false,
        }
    }

    /// The worst of the columns that decide.
    #[must_use]
    pub fn severity(&self, comparison: &Comparison) -> Severity {
        let columns = self.columns.iter();
        let verdicts = columns.map(|column| comparison.verdict(*column));
        verdicts.max().unwrap_or_default()
    }

    /// The answer: compatible or not.
    #[must_use]
    pub fn is_compatible(&self, comparison: &Comparison) -> bool {
        let limit = if self.strict {
            Severity::Note
        } else {
            Severity::Value
        };
        self.severity(comparison) <= limit
    }

    fn weight(&self, finding: &Finding) -> Severity {
        let columns = self.columns.iter();
        let verdicts = columns.map(|column| finding.verdicts.of(*column));
        verdicts.max().unwrap_or_default()
    }
}

/// Places, and items of one place, that are named in text.
const SHOWN: usize = 4;

/// The same differences at several places.
struct Group<'c> {
    severity: Severity,
    rule: Rule,
    /// Section, and the path of what has the fields.
    places: Vec<String>,
    items: Vec<Item<'c>>,
}

/// A field and what became of it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Item<'c> {
    name: &'c str,
    finding: Difference<'c>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Difference<'c> {
    from: &'c str,
    to: &'c str,
    values: Option<&'c str>,
    undecided: Option<&'static str>,
}

fn place(finding: &Finding) -> String {
    if finding.path.is_empty() {
        finding.section.clone()
    } else {
        format!("{}: {}", finding.section, finding.path)
    }
}

/// What encloses the field that a finding is about, and the field's name.
fn split(finding: &Finding) -> (String, &str) {
    // The name of a subsection can have slashes.
    let name = match finding.path.rfind('{') {
        Some(at) if finding.path.ends_with('}') => finding.path.get(at..),
        _ => finding.path.rsplit('/').next(),
    }
    .unwrap_or_default();
    let outer = finding.path.strip_suffix(name).unwrap_or_default();
    let outer = outer.trim_end_matches('/');
    if outer.is_empty() {
        (finding.section.clone(), name)
    } else {
        (format!("{}: {outer}", finding.section), name)
    }
}

/// Fields of one structure to which the same happened are told together; and what is found at many places, since they embed the
/// same structure, is told once.
fn groups<'c>(question: &Question, comparison: &'c Comparison) -> Vec<Group<'c>> {
    let mut at_places: Vec<(Severity, Rule, String, Vec<Item<'c>>)> = Vec::new();
    let mut index: BTreeMap<(Severity, Rule, String), usize> = BTreeMap::new();
    for finding in &comparison.findings {
        let (outer, name) = split(finding);
        let key = (question.weight(finding), finding.rule, outer);
        let at = *index.entry(key.clone()).or_insert_with(|| {
            at_places.push((key.0, key.1, key.2, Vec::new()));
            at_places.len() - 1
        });
        if let Some((.., items)) = at_places.get_mut(at) {
            items.push(Item {
                name,
                finding: Difference {
                    from: &finding.from,
                    to: &finding.to,
                    values: finding.values.as_deref(),
                    undecided: finding.undecided,
                },
            });
        }
    }
    let mut groups: Vec<Group<'c>> = Vec::new();
    let mut same: BTreeMap<(Severity, Rule, String), usize> = BTreeMap::new();
    for (severity, rule, outer, items) in at_places {
        let mut key = String::new();
        for item in &items {
            // Writing to a string does not fail.
            let Difference {
                from,
                to,
                values,
                undecided,
            } = &item.finding;
            let _ = write!(key, "{:?}", (item.name, from, to, values, undecided));
        }
        let at = *same.entry((severity, rule, key)).or_insert_with(|| {
            groups.push(Group {
                severity,
                rule,
                places: Vec::new(),
                items,
            });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(at) {
            group.places.push(outer);
        }
    }
    groups.sort_by_key(|group| (std::cmp::Reverse(group.severity), group.rule));
    groups
}

const fn heading(severity: Severity) -> &'static str {
    match severity {
        Severity::Break => "breaks",
        Severity::Value => "depends on values",
        Severity::Suspect => "cannot be told from these files",
        Severity::Note => "worth knowing",
        Severity::Ok => "harmless",
    }
}

/// The report for people.
#[must_use]
pub fn to_text(question: &Question, comparison: &Comparison, accepted: &Accepted) -> String {
    let mut out = String::new();
    let compatible = question.is_compatible(comparison);
    let severity = question.severity(comparison);
    let answer = match (compatible, severity) {
        (false, _) => "NOT COMPATIBLE",
        (true, Severity::Ok | Severity::Note) => "compatible",
        (true, _) => "compatible as far as these files tell",
    };
    let Question { from, to, .. } = question;
    let way = match question.columns.as_slice() {
        [_] => format!("{from} -> {to}"),
        _ => format!("{from} <-> {to}"),
    };
    // Writing to a string does not fail.
    let _ = writeln!(out, "{answer}: {way}");
    let _ = writeln!(
        out,
        "  {} compared, {} of them equal{}",
        counted(
            comparison.compared,
            "section or class",
            "sections or classes"
        ),
        comparison.equal,
        match comparison.identical.len() {
            0 => String::new(),
            n => format!(", {n} by their digests ({})", Rule::C00),
        }
    );
    let _ = writeln!(
        out,
        "  QEMU stream: {} forward, {} backward; BER: {} forward, {} backward",
        comparison.verdict(Column::QemuForward),
        comparison.verdict(Column::QemuBackward),
        comparison.verdict(Column::BerForward),
        comparison.verdict(Column::BerBackward)
    );
    let groups = groups(question, comparison);
    let mut last = None;
    for group in &groups {
        if group.severity == Severity::Ok && !question.all {
            continue;
        }
        if last != Some(group.severity) {
            last = Some(group.severity);
            let same: Vec<_> = groups
                .iter()
                .filter(|other| other.severity == group.severity)
                .collect();
            let count = |group: &&Group<'_>| group.places.len() * group.items.len();
            let places: usize = same.iter().map(count).sum();
            let _ = writeln!(
                out,
                "\n{}: {}, of {}",
                heading(group.severity),
                counted(places, "difference", "differences"),
                counted(same.len(), "kind", "kinds")
            );
        }
        write_group(&mut out, question, group);
    }
    let harmless = groups
        .iter()
        .filter(|group| group.severity == Severity::Ok)
        .map(|group| group.places.len() * group.items.len())
        .sum::<usize>();
    if harmless > 0 && !question.all {
        let text = counted(harmless, "harmless difference", "harmless differences");
        let _ = writeln!(out, "\n{text} not shown; --all shows all");
    }
    if comparison.left_out > 0 {
        let text = counted(comparison.left_out, "difference", "differences");
        let _ = writeln!(out, "\n{text} beyond the limit left out");
    }
    if question.all {
        write_identical(&mut out, comparison);
    }
    write_accepted(&mut out, accepted);
    out
}

fn write_identical(out: &mut String, comparison: &Comparison) {
    if comparison.identical.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{} {}:", Rule::C00, Rule::C00.title());
    for found in &comparison.identical {
        let _ = writeln!(out, "  {} {}", found.to, found.section);
    }
}

fn write_group(out: &mut String, question: &Question, group: &Group<'_>) {
    let most = if question.all { usize::MAX } else { SHOWN };
    let more = |out: &mut String, n: usize| {
        if n > most {
            let _ = writeln!(out, "           and {} more", n - most);
        }
    };
    let _ = writeln!(out, "  {} {}", group.rule, group.rule.title());
    for (number, place) in group.places.iter().take(most).enumerate() {
        let label = if number == 0 { "in" } else { "" };
        let _ = writeln!(out, "      {label:4} {place}");
    }
    more(out, group.places.len());
    for (number, Item { name, finding }) in group.items.iter().take(most).enumerate() {
        let label = if number == 0 { "what" } else { "" };
        let name = if name.is_empty() {
            String::new()
        } else {
            format!("{name}: ")
        };
        let Difference {
            from, to, values, ..
        } = finding;
        let values = values.map_or_else(String::new, |values| format!(" ({values})"));
        let _ = writeln!(out, "      {label:4} {name}{from} -> {to}{values}");
    }
    more(out, group.items.len());
    let mut reasons: Vec<_> = group
        .items
        .iter()
        .filter_map(|i| i.finding.undecided)
        .collect();
    reasons.dedup();
    for why in reasons {
        let _ = writeln!(out, "      open {why}");
    }
    if group.severity > Severity::Note {
        let _ = writeln!(out, "      do   {}", group.rule.advice());
    }
}

fn write_accepted(out: &mut String, accepted: &Accepted) {
    if !accepted.findings.is_empty() {
        let text = counted(accepted.findings.len(), "difference", "differences");
        let _ = writeln!(out, "\naccepted by the exception file: {text}");
        for (finding, reason) in &accepted.findings {
            let _ = writeln!(out, "  {} {}: {reason}", finding.rule, place(finding));
        }
    }
    for exception in &accepted.unused {
        let _ = writeln!(
            out,
            "\nunused exception: {} {} {} ({}): delete it",
            exception.rule, exception.section, exception.path, exception.reason
        );
    }
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// The report for programs, in the form that `docs/check-json.md` documents.
#[must_use]
pub fn to_json(question: &Question, comparison: &Comparison, accepted: &Accepted) -> Value {
    let verdicts = |of: &dyn Fn(Column) -> Severity| -> Value {
        Column::ALL
            .iter()
            .map(|column| (column.name().to_owned(), json!(of(*column).name())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let finding = |finding: &Finding| {
        let mut json = json!({
            "rule": finding.rule.id(),
            "title": finding.rule.title(),
            "section": finding.section,
            "path": finding.path,
            "from": finding.from,
            "to": finding.to,
            "severity": question.weight(finding).name(),
            "verdicts": verdicts(&|column| finding.verdicts.of(column)),
            "advice": finding.rule.advice(),
        });
        if let (Some(members), Some(values)) = (json.as_object_mut(), &finding.values) {
            members.insert("values".to_owned(), json!(values));
        }
        if let (Some(members), Some(why)) = (json.as_object_mut(), finding.undecided) {
            members.insert("undecided".to_owned(), json!(why));
        }
        json
    };
    let findings: Vec<Value> = comparison.findings.iter().map(finding).collect();
    let accepted_findings: Vec<Value> = accepted
        .findings
        .iter()
        .map(|(accepted, reason)| {
            let mut json = finding(accepted);
            if let Some(members) = json.as_object_mut() {
                members.insert("reason".to_owned(), json!(reason));
            }
            json
        })
        .collect();
    let identical: Vec<Value> = comparison
        .identical
        .iter()
        .map(|found| {
            json!({
                "rule": found.rule.id(),
                "title": found.rule.title(),
                "section": found.section,
                "digest": found.to,
            })
        })
        .collect();
    let unused: Vec<Value> = accepted
        .unused
        .iter()
        .map(|exception| {
            json!({
                "rule": exception.rule.id(),
                "section": exception.section,
                "path": exception.path,
                "reason": exception.reason,
            })
        })
        .collect();
    let columns: Vec<&str> = question
        .columns
        .iter()
        .map(|column| column.name())
        .collect();
    json!({
        "format": FORMAT,
        "compatible": question.is_compatible(comparison),
        "from": question.from,
        "to": question.to,
        "asked": columns,
        "strict": question.strict,
        "severity": question.severity(comparison).name(),
        "verdicts": verdicts(&|column| comparison.verdict(column)),
        "compared": comparison.compared,
        "equal": comparison.equal,
        "identical": identical,
        "left_out": comparison.left_out,
        "findings": findings,
        "accepted": accepted_findings,
        "unused_exceptions": unused,
    })
}
