//! The walk over two types at once.

use std::collections::HashMap;
use std::rc::Rc;

use super::MAX_FINDINGS;
use super::rules::Rule;
use super::values::{Condition, Test};
use super::verdict::{Severity, Verdicts};
use crate::digest::{Digest, digests};
use crate::model::{Element, Field, Key, Origin, Schema, Subsection, Type, TypeId};

/// The versions in force in one direction: of the writer, and of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Versions {
    pub(super) writer: u32,
    pub(super) reader: u32,
}

/// How two types stand in their streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Context {
    /// FROM writes, TO reads.
    pub(super) forward: Versions,
    /// TO writes, FROM reads.
    pub(super) backward: Versions,
    /// The version travels: of sections and subsections. It does not for embedded structures.
    pub(super) travels: bool,
}

impl Context {
    /// Whether writer and reader go by one version, so that equal types have equal fields.
    fn is_level(&self) -> bool {
        let level = |versions: Versions| versions.writer == versions.reader;
        level(self.forward) && level(self.backward)
    }
}

/// A finding below some type.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) rule: Rule,
    pub(super) path: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) verdicts: Verdicts,
    /// By which values it can be settled.
    pub(super) test: Option<Test>,
}

/// The findings of a pair of types.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Found>,
    pub(super) left_out: usize,
}

impl Findings {
    pub(super) fn push(&mut self, found: Found) {
        if self.list.len() < MAX_FINDINGS {
            self.list.push(found);
        } else {
            self.left_out += 1;
        }
    }

    /// Adds the findings of a part that has one name on both sides.
    pub(super) fn below(&mut self, part: &str, inner: &Self) {
        self.below_both(part, part, inner);
    }

    /// Adds the findings of a part, by FROM's name and TO's.
    pub(super) fn below_both(&mut self, from: &str, to: &str, inner: &Self) {
        for found in &inner.list {
            self.push(Found {
                path: joined(to, &found.path),
                test: found.test.as_ref().map(|test| test.below(from)),
                ..found.clone()
            });
        }
        self.left_out = self.left_out.saturating_add(inner.left_out);
    }

    pub(super) fn worst(&self) -> Verdicts {
        let verdicts = self.list.iter().map(|found| found.verdicts);
        verdicts.fold(Verdicts::default(), Verdicts::or)
    }
}

/// The path of something inside of a part.
pub(super) fn joined(part: &str, path: &str) -> String {
    match (part, path) {
        ("", path) => path.to_owned(),
        (part, "") => part.to_owned(),
        (part, path) => format!("{part}/{path}"),
    }
}

/// A pair of types that was walked before, and how.
type Walked = (TypeId, TypeId, Context);

/// Two schemas, and what was found out about their types.
pub(super) struct Walk<'s> {
    pub(super) from: &'s Schema,
    pub(super) to: &'s Schema,
    known: HashMap<Walked, Rc<Findings>>,
    from_digests: Vec<Digest>,
    to_digests: Vec<Digest>,
    /// Of FROM's types: whether what such a type writes is always loaded by the same type.
    settled: Vec<bool>,
}

impl<'s> Walk<'s> {
    pub(super) fn new(from: &'s Schema, to: &'s Schema) -> Self {
        Self {
            from,
            to,
            known: HashMap::new(),
            from_digests: digests(from),
            to_digests: digests(to),
            settled: loads_its_own(from),
        }
    }

    /// The digest of two types that say the same, so that nothing is left to compare (C00). The versions in force are the same
    /// then.
    pub(super) fn identical(&self, from: TypeId, to: TypeId) -> Option<Digest> {
        let digest = self.from_digests.get(from.index())?;
        let same = self.to_digests.get(to.index())? == digest;
        let settled = self
            .settled
            .get(from.index())
            .is_some_and(|settled| *settled);
        (same && settled).then_some(*digest)
    }

    /// Whether what FROM (or TO) says about presence is what was in a stream, not what can be.
    pub(super) fn was_seen(&self) -> (bool, bool) {
        let seen = |schema: &Schema| schema.origin == Origin::Trailer;
        (seen(self.from), seen(self.to))
    }

    /// Compares two types. Each pair is walked once, however often it is embedded.
    pub(super) fn types(&mut self, from: TypeId, to: TypeId, context: Context) -> Rc<Findings> {
        let key = (from, to, context);
        if let Some(known) = self.known.get(&key) {
            return Rc::clone(known);
        }
        let mut findings = Findings::default();
        let (from_schema, to_schema) = (self.from, self.to);
        if context.is_level() && self.identical(from, to).is_some() {
            // C00: nothing is left to compare.
        } else if let (Some(from), Some(to)) = (from_schema.get(from), to_schema.get(to)) {
            self.migratable(from, to, &mut findings);
            if !context.travels {
                embedded_versions(from, to, &mut findings);
            }
            if !self.stateless(from, to, context, &mut findings) {
                self.fields(from, to, context, &mut findings);
                self.subsections(from, to, context, &mut findings);
            }
        }
        let findings = Rc::new(findings);
        self.known.insert(key, Rc::clone(&findings));
        findings
    }

    fn migratable(&self, from: &Type, to: &Type, findings: &mut Findings) {
        if !from.unmigratable && !to.unmigratable {
            return;
        }
        let text = |ty: &Type| {
            if ty.unmigratable {
                "not migratable"
            } else {
                "migratable"
            }
        };
        findings.push(Found {
            rule: Rule::C32,
            path: String::new(),
            from: text(from).to_owned(),
            to: text(to).to_owned(),
            verdicts: Verdicts::new([Severity::Break; 4]),
            test: None,
        });
    }

    /// Of a dump: a class without any state beside one that has some. Dumps do not say which devices refuse to be saved; those
    /// have no fields.
    fn stateless(&self, from: &Type, to: &Type, context: Context, findings: &mut Findings) -> bool {
        let dumps = self.from.origin == Origin::Dump && self.to.origin == Origin::Dump;
        let none = |ty: &Type| ty.fields.is_empty() && ty.subsections.is_empty();
        if !dumps || !context.travels || none(from) == none(to) {
            return false;
        }
        let text = |ty: &Type| {
            if none(ty) {
                "no fields, as of a device that cannot be migrated".to_owned()
            } else {
                format!("{} fields", ty.fields.len())
            }
        };
        findings.push(Found {
            rule: Rule::C32,
            path: String::new(),
            from: text(from),
            to: text(to),
            verdicts: Verdicts::new([Severity::Break; 4]),
            test: None,
        });
        true
    }

    /// A pair of top-level types: of sections, or of subsections. Their version travels.
    pub(super) fn top(&mut self, from: TypeId, to: TypeId) -> Findings {
        let mut findings = Findings::default();
        let (Some(old), Some(new)) = (self.from.get(from), self.to.get(to)) else {
            return findings;
        };
        let (from_seen, to_seen) = self.was_seen();
        versions(old, new, from_seen || to_seen, &mut findings);
        if self.from.origin == Origin::Descriptions && self.to.origin == Origin::Descriptions {
            order(old, new, &mut findings);
        }
        let in_range = |version: u32, ty: &Type| {
            let lowest = ty.minimum_version_id.min(ty.version_id);
            version.clamp(lowest, ty.version_id)
        };
        let context = Context {
            forward: Versions {
                writer: old.version_id,
                reader: in_range(old.version_id, new),
            },
            backward: Versions {
                writer: new.version_id,
                reader: in_range(new.version_id, old),
            },
            travels: true,
        };
        let inner = self.types(from, to, context);
        for found in &inner.list {
            findings.push(found.clone());
        }
        findings.left_out = findings.left_out.saturating_add(inner.left_out);
        findings
    }

    fn subsections(&mut self, from: &Type, to: &Type, _: Context, findings: &mut Findings) {
        let (from_seen, to_seen) = self.was_seen();
        let (from_schema, to_schema) = (self.from, self.to);
        let old = numbered(from_schema, from);
        let new = numbered(to_schema, to);
        for one in &old {
            let part = one.part();
            let Some(other) = new.iter().find(|other| one.is_same(other)) else {
                findings.push(one_sided(Rule::C16, one, from_seen, to_seen));
                continue;
            };
            if one.number > 0 {
                findings.push(namesakes(one, other, [from_seen, to_seen]));
            }
            let inner = self.top(one.sub.ty, other.sub.ty);
            findings.below(&part, &inner);
        }
        for one in &new {
            if !old.iter().any(|other| one.is_same(other)) {
                findings.push(one_sided(Rule::C15, one, to_seen, from_seen));
            }
        }
    }
}

/// A subsection of a type, and which of its name it is: the one of QEMU 11.1's `sd-card` has a namesake.
struct Numbered<'a> {
    sub: &'a Subsection,
    ty: &'a Type,
    number: usize,
}

impl Numbered<'_> {
    fn part(&self) -> String {
        match self.number {
            0 => format!("{{{}}}", self.ty.name),
            number => format!("{{{}}}[{number}]", self.ty.name),
        }
    }

    fn is_same(&self, other: &Numbered<'_>) -> bool {
        (&self.ty.name, self.number) == (&other.ty.name, other.number)
    }
}

fn numbered<'a>(schema: &'a Schema, owner: &'a Type) -> Vec<Numbered<'a>> {
    let mut all: Vec<Numbered<'a>> = Vec::new();
    for sub in &owner.subsections {
        if let Some(ty) = schema.get(sub.ty) {
            let number = all.iter().filter(|one| one.ty.name == ty.name).count();
            all.push(Numbered { sub, ty, number });
        }
    }
    all
}

/// Both sides have more than one subsection of a name. QEMU loads each as the first of them. In BER the type tells them apart.
fn namesakes(from: &Numbered<'_>, to: &Numbered<'_>, seen: [bool; 2]) -> Found {
    let [forward, backward] = seen.map(|seen| match seen {
        true => Severity::Break,
        false => Severity::Value,
    });
    let text = |one: &Numbered<'_>| format!("number {} of this name", one.number.saturating_add(1));
    Found {
        rule: Rule::C37,
        path: from.part(),
        from: text(from),
        to: text(to),
        verdicts: Verdicts::new([forward, backward, Severity::Note, Severity::Note]),
        test: None,
    }
}

/// A subsection that one side does not know. `was_seen`: a stream had it; `other_unsure`: the other side tells only what its
/// stream had.
fn one_sided(rule: Rule, one: &Numbered<'_>, was_seen: bool, other_unsure: bool) -> Found {
    let sent = if was_seen {
        Severity::Break
    } else {
        Severity::Value
    };
    let sent = if other_unsure {
        sent.min(Severity::Suspect)
    } else {
        sent
    };
    let ber = if one.sub.ignorable {
        Severity::Ok
    } else {
        sent
    };
    let path = one.part();
    let has = format!("subsection, version {}", one.ty.version_id);
    let none = "none".to_owned();
    // To write what the other does not know is what matters; to miss it while reading is nothing.
    let (from, to, verdicts) = if rule == Rule::C16 {
        (has, none, [sent, Severity::Ok, ber, Severity::Ok])
    } else {
        (none, has, [Severity::Ok, sent, Severity::Ok, ber])
    };
    // Values are found by name: of namesakes, the first.
    let test = (rule == Rule::C16 && one.number == 0).then(|| Test {
        path: path.clone(),
        condition: Condition::NotSent,
    });
    Found {
        rule,
        path,
        from,
        to,
        verdicts: Verdicts::new(verdicts),
        test,
    }
}

/// Which types load what they write themselves, by what is known of them: not those that refuse to be saved, not those that embed
/// something at another version than they write, and not those with several subsections of one name.
fn loads_its_own(schema: &Schema) -> Vec<bool> {
    let mut known: Vec<bool> = Vec::with_capacity(schema.types().len());
    for ty in schema.types() {
        let settled = |id: TypeId| known.get(id.index()).is_some_and(|settled| *settled);
        let at = |id: TypeId, version: u32| {
            settled(id) && schema.get(id).is_some_and(|ty| ty.version_id == version)
        };
        let field = |field: &Field| {
            let element = match field.element {
                Element::Value(_) | Element::Memory { child: None, .. } => true,
                Element::Variant { ref cases, .. } => cases.iter().all(|case| settled(case.ty)),
                Element::Struct(id)
                | Element::VersionedStruct(id, _)
                | Element::Memory {
                    child: Some(id), ..
                } => settled(id),
                // Read at the version of the field.
                Element::Tmp(id) | Element::List(_, id) => at(id, field.version_id),
                Element::Tree { key, value } => {
                    let key = match key {
                        Key::Direct => true,
                        Key::Struct(id) => at(id, field.version_id),
                    };
                    key && at(value, field.version_id)
                }
            };
            element && field.variants.iter().copied().all(settled)
        };
        let all = !ty.unmigratable
            && ty.fields.iter().all(field)
            && ty.subsections.iter().all(|sub| settled(sub.ty))
            && numbered(schema, ty).iter().all(|one| one.number == 0);
        known.push(all);
    }
    known
}

fn range(ty: &Type) -> String {
    format!(
        "version {}, loads from {}",
        ty.version_id, ty.minimum_version_id
    )
}

/// The versions of sections and subsections.
fn versions(from: &Type, to: &Type, was_seen: bool, findings: &mut Findings) {
    if (from.version_id, from.minimum_version_id) == (to.version_id, to.minimum_version_id) {
        return;
    }
    let loads = |writer: &Type, reader: &Type| {
        (reader.minimum_version_id..=reader.version_id).contains(&writer.version_id)
    };
    let too_old = |writer: &Type, reader: &Type| writer.version_id < reader.minimum_version_id;
    let qemu = |writer: &Type, reader: &Type| {
        if loads(writer, reader) {
            Severity::Ok
        } else {
            Severity::Break
        }
    };
    let ber = |writer: &Type, reader: &Type| {
        let readable = writer
            .readable_from
            .is_some_and(|version| version <= reader.version_id);
        if readable && !too_old(writer, reader) {
            Severity::Ok
        } else {
            qemu(writer, reader)
        }
    };
    let verdicts = Verdicts::new([qemu(from, to), qemu(to, from), ber(from, to), ber(to, from)]);
    // A stream does not say from which version on its machine loads.
    if was_seen && verdicts.worst() == Severity::Ok {
        return;
    }
    let rule = if too_old(from, to) || too_old(to, from) {
        Rule::C18
    } else {
        Rule::C17
    };
    findings.push(Found {
        rule,
        path: String::new(),
        from: range(from),
        to: range(to),
        verdicts,
        test: None,
    });
}

fn embedded_versions(from: &Type, to: &Type, findings: &mut Findings) {
    // A dump gives versions to what has no bytes of its own, too.
    if from.version_id == to.version_id || (from.fields.is_empty() && to.fields.is_empty()) {
        return;
    }
    findings.push(Found {
        rule: Rule::C36,
        path: String::new(),
        from: format!("version {}", from.version_id),
        to: format!("version {}", to.version_id),
        // What it does to single fields is said there.
        verdicts: Verdicts::new([Severity::Note; 4]),
        test: None,
    });
}

fn order(from: &Type, to: &Type, findings: &mut Findings) {
    let place = |ty: &Type| (ty.priority, ty.early_setup);
    if place(from) == place(to) {
        return;
    }
    let text = |ty: &Type| {
        let early = if ty.early_setup { ", during setup" } else { "" };
        format!("priority {:?}{early}", ty.priority)
    };
    findings.push(Found {
        rule: Rule::C33,
        path: String::new(),
        from: text(from),
        to: text(to),
        verdicts: Verdicts::new([Severity::Note; 4]),
        test: None,
    });
}

/// Whether a field has bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Always,
    Maybe,
    Never,
}

/// Whether a field has bytes at this version. `seen`: it was in a stream, so there is no question.
pub(super) fn presence(field: &Field, version: u32, seen: bool) -> Presence {
    if field.must_exist {
        Presence::Never
    } else if seen {
        Presence::Always
    } else if field.conditional {
        Presence::Maybe
    } else if field.exists_at(version) {
        Presence::Always
    } else {
        Presence::Never
    }
}
