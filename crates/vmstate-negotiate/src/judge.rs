//! Can this machine load what the source will write? Section by section, by the rules of `vmstate-schema`, in BER's column.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use vmstate_ber::frame::{CatalogEntry, Finding, Limit, MachineId, Presence, Severity};
use vmstate_ber::types::TypeTable;
use vmstate_desc::{Description, DescriptionRef, Element, TreeKey};
use vmstate_schema::compare::{Column, Options, compare};
use vmstate_schema::{Rule as SchemaRule, Schema};

use crate::error::{NegotiateError, NegotiateErrorKind};
use crate::inventory::{Inventory, Section};
use crate::rules::Rule;

/// Most findings that are told.
const MAX_FINDINGS: usize = 256;
/// Most fields that all types of a source may stand for, with everything that they embed.
const MAX_FIELDS: u64 = 1 << 18;
/// An architecture that nobody has named.
pub(crate) const UNKNOWN: &str = "unknown";

/// A finding that is about two ends as a whole.
fn whole(rule: Rule, path: &str, destination: String, source: String) -> Finding {
    Finding {
        severity: Severity::Error,
        rule: rule.id().to_owned(),
        path: path.to_owned(),
        expected: Some(destination),
        found: Some(source),
        text: Some(rule.title().to_owned()),
    }
}

/// No version in common.
pub(crate) fn versions(own: &[u64], theirs: &[u64]) -> Finding {
    let list = |versions: &[u64]| {
        let shown: Vec<_> = versions.iter().take(8).map(u64::to_string).collect();
        shown.join(", ")
    };
    whole(Rule::N01, "protocol", list(own), list(theirs))
}

/// The machines themselves.
pub(crate) fn machines(own: &MachineId, theirs: Option<&MachineId>) -> Vec<Finding> {
    let Some(theirs) = theirs else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if own.machine_type != theirs.machine_type {
        let (a, b) = (own.machine_type.clone(), theirs.machine_type.clone());
        findings.push(whole(Rule::N08, "machine", a, b));
    }
    if own.page_bits != theirs.page_bits {
        let bits = |id: &MachineId| format!("{} bits", id.page_bits);
        findings.push(whole(Rule::N05, "machine", bits(own), bits(theirs)));
    }
    let known = own.arch != UNKNOWN && theirs.arch != UNKNOWN;
    if known && own.arch != theirs.arch {
        let (a, b) = (own.arch.clone(), theirs.arch.clone());
        findings.push(whole(Rule::N06, "machine", a, b));
    }
    findings
}

/// What the source has more of than this end takes.
pub(crate) fn limits(own: &[Limit], theirs: &[Limit]) -> Vec<Finding> {
    let over = |need: &&Limit| {
        own.iter()
            .any(|l| l.name == need.name && l.value < need.value)
    };
    let finding = |need: &Limit| {
        let limit = own.iter().find(|l| l.name == need.name);
        let limit = limit.map_or(0, |l| l.value).to_string();
        let path = format!("limit {}", need.name);
        whole(Rule::N04, &path, limit, need.value.to_string())
    };
    theirs.iter().filter(over).map(finding).collect()
}

/// Closure digests that stand in a catalog and that this machine does not have, each once, in order.
pub(crate) fn unknown(own: &Inventory, catalog: &[CatalogEntry]) -> Vec<[u8; 32]> {
    let known: HashSet<[u8; 32]> = own.digests().into_iter().collect();
    let mut seen = HashSet::new();
    let digests = catalog.iter().filter_map(|entry| entry.type_digest);
    digests
        .filter(|digest| !known.contains(digest) && seen.insert(*digest))
        .collect()
}

/// Compares the sections that a source has with this machine's. `types` are those that the source has sent, with their numbers by
/// digest.
pub(crate) fn sections(
    own: &Inventory,
    catalog: &[CatalogEntry],
    types: &mut TypeTable,
    numbers: &HashMap<[u8; 32], u32>,
) -> Result<Vec<Finding>, NegotiateError> {
    let mut findings = Vec::new();
    let (mut from, mut to) = (Schema::default(), Schema::default());
    let mut settled = vec![false; own.sections.len()];
    let mut maybe = HashSet::new();
    let mut size = Size::default();
    let (mut entered, mut taken) = (HashMap::new(), HashSet::new());
    for theirs in catalog {
        // By a name and an alias, two may be for the same section: the second one has no place.
        let place = find(own, theirs).filter(|place| taken.insert(*place));
        let partner = place.and_then(|place| own.sections.get(place));
        let name = partner.map_or((theirs.idstr.as_str(), theirs.instance), |s| {
            (s.entry.idstr.as_str(), s.entry.instance)
        });
        if let Some(partner) = partner {
            if theirs.type_digest.is_none() && theirs.version > partner.entry.version {
                findings.push(newer(partner, theirs));
            }
            let equal = theirs.type_digest == partner.entry.type_digest;
            if equal && let Some(settled) = place.and_then(|place| settled.get_mut(place)) {
                *settled = true;
                continue;
            }
        }
        match described(own, theirs, types, numbers)? {
            Some(description) => {
                size.add(&description, partner.and_then(|s| s.description.as_ref()))?;
                // A type is entered once, with all that it embeds, however many sections have it.
                let ty = match entered.entry(address(&description)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        let ty = from.add_description(&description);
                        *new.insert(ty.map_err(|error| NegotiateErrorKind::Ber(error.into()))?)
                    }
                };
                from.add_typed(name.0, name.1, ty);
            }
            None => from.add_opaque(name.0, name.1),
        }
        if theirs.presence == Presence::Maybe {
            maybe.insert(format!("{}/{}", name.0, name.1));
        }
    }
    for (section, settled) in own.sections.iter().zip(&settled) {
        if *settled {
            continue;
        }
        let entry = &section.entry;
        match &section.description {
            Some(description) => to
                .add_section(&entry.idstr, entry.instance, description)
                .map(drop)
                .map_err(|error| NegotiateErrorKind::Ber(error.into()))?,
            None => to.add_opaque(&entry.idstr, entry.instance),
        }
    }
    let comparison = compare(&from, &to, &Options::default());
    for found in &comparison.findings {
        let mut finding = told(found);
        // It is not in the stream as the machine is now.
        if found.rule == SchemaRule::C22 && maybe.contains(&found.section) {
            finding.severity = Severity::Warning;
        }
        findings.push(finding);
    }
    if comparison.left_out > 0 {
        findings.push(more(comparison.left_out, Severity::Error));
    }
    Ok(findings)
}

/// The worst first, and not too many.
pub(crate) fn ordered(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity as u8));
    let rest = findings.split_off(findings.len().min(MAX_FINDINGS));
    if let Some(first) = rest.first() {
        findings.push(more(rest.len(), first.severity));
    }
    findings
}

fn more(count: usize, severity: Severity) -> Finding {
    Finding {
        severity,
        rule: Rule::N04.id().to_owned(),
        path: "findings".to_owned(),
        expected: None,
        found: None,
        text: Some(format!("{count} more are not told")),
    }
}

/// This machine's section that takes an entry: by its name first, then by its aliases.
pub(crate) fn find(own: &Inventory, theirs: &CatalogEntry) -> Option<usize> {
    let (idstr, instance) = (&*theirs.idstr, theirs.instance);
    let named = own.sections.iter().position(|s| s.is(idstr, instance));
    named.or_else(|| own.sections.iter().position(|s| s.takes(idstr, instance)))
}

/// The version of a section that no type describes.
fn newer(own: &Section, theirs: &CatalogEntry) -> Finding {
    let version = |version: u32| Some(format!("version {version}"));
    Finding {
        severity: Severity::Error,
        rule: SchemaRule::C17.id().to_owned(),
        path: format!("{}#{}", own.entry.idstr, own.entry.instance),
        expected: version(own.entry.version),
        found: version(theirs.version),
        text: Some(SchemaRule::C17.title().to_owned()),
    }
}

/// What the source's section looks like.
fn described(
    own: &Inventory,
    theirs: &CatalogEntry,
    types: &mut TypeTable,
    numbers: &HashMap<[u8; 32], u32>,
) -> Result<Option<DescriptionRef>, NegotiateError> {
    let Some(digest) = &theirs.type_digest else {
        return Ok(None);
    };
    if let Some(number) = numbers.get(digest) {
        let index = types.by_id(*number, 0)?;
        return Ok(Some(types.description(index)?.into()));
    }
    // Another section of this machine has it.
    let same = |s: &&Section| s.entry.type_digest.as_ref() == Some(digest);
    Ok(own
        .sections
        .iter()
        .find(same)
        .and_then(|s| s.description.clone()))
}

/// A difference, as the destination tells it.
fn told(found: &vmstate_schema::Finding) -> Finding {
    use vmstate_schema::Severity as Verdict;
    let severity = match found.verdicts.of(Column::BerForward) {
        Verdict::Break => Severity::Error,
        Verdict::Ok => Severity::Info,
        Verdict::Note | Verdict::Suspect | Verdict::Value => Severity::Warning,
    };
    let section = match found.section.rsplit_once('/') {
        Some((idstr, instance)) => format!("{idstr}#{instance}"),
        None => found.section.clone(),
    };
    Finding {
        severity,
        rule: found.rule.id().to_owned(),
        path: match found.path.is_empty() {
            true => section,
            false => format!("{section}: {}", found.path),
        },
        expected: Some(found.to.clone()),
        found: Some(found.from.clone()),
        text: Some(found.rule.title().to_owned()),
    }
}

/// Descriptions are kept by the table of types, or by the machine, so that each keeps its place.
fn address(description: &Description) -> usize {
    std::ptr::from_ref(description).addr()
}

/// Adds up what descriptions stand for: types that embed each other twice can stand for more fields than there are atoms.
#[derive(Default)]
struct Size {
    total: u64,
    /// By address.
    known: HashMap<usize, u64>,
    /// Pairs that are counted already, by address: equal ones are compared once.
    pairs: HashSet<(usize, Option<usize>)>,
}

impl Size {
    /// Adds a type of the source, which is compared with that of a section here.
    fn add(
        &mut self,
        description: &DescriptionRef,
        partner: Option<&DescriptionRef>,
    ) -> Result<(), NegotiateError> {
        let pair = (address(description), partner.map(|own| address(own)));
        if !self.pairs.insert(pair) {
            return Ok(());
        }
        let size = self.of(description);
        self.total = self.total.saturating_add(size);
        if self.total <= MAX_FIELDS {
            return Ok(());
        }
        Err(NegotiateErrorKind::Limit {
            what: "fields of the source's types",
            found: self.total,
            limit: MAX_FIELDS,
        }
        .into())
    }

    /// Types from a table are nested at most 32 deep.
    fn of(&mut self, description: &Description) -> u64 {
        let address = address(description);
        if let Some(size) = self.known.get(&address) {
            return *size;
        }
        let mut size: u64 = 1;
        for field in description.fields() {
            let key = match &field.element {
                Element::Tree {
                    key: TreeKey::Struct(key),
                    ..
                } => self.of(key),
                _ => 0,
            };
            let child = field.element.child().map_or(0, |child| self.of(child));
            if let Element::Variant(variants) = &field.element {
                for case in variants.cases() {
                    size = size
                        .saturating_add(1)
                        .saturating_add(self.of(&case.description));
                }
            }
            size = size
                .saturating_add(1)
                .saturating_add(key)
                .saturating_add(child);
        }
        for sub in description.subsections() {
            size = size.saturating_add(self.of(sub));
        }
        self.known.insert(address, size);
        size
    }
}

/// Numbers of the types with the digests that were asked for, once they have come.
pub(crate) fn resolve(
    wanted: &[[u8; 32]],
    ids: &[u8],
    types: &TypeTable,
) -> Result<HashMap<[u8; 32], u32>, NegotiateError> {
    let mut budget = HASHED;
    let (ids, rest) = ids.as_chunks::<4>();
    if ids.len() != wanted.len() || !rest.is_empty() {
        let what = format!(
            "names {} types where {} were wanted",
            ids.len(),
            wanted.len()
        );
        return Err(NegotiateErrorKind::Misbehaved(what.into()).into());
    }
    let mut numbers = HashMap::new();
    for (digest, id) in wanted.iter().zip(ids) {
        let id = u32::from_be_bytes(*id);
        let index = types.by_id(id, 0)?;
        if types.digest_within(index, &mut budget)? != *digest {
            let what =
                format!("defines type {id} otherwise than its catalog says: the digest differs");
            return Err(NegotiateErrorKind::Misbehaved(what.into()).into());
        }
        numbers.insert(*digest, id);
    }
    Ok(numbers)
}

/// Bytes of types that are hashed for one peer. A machine with a hundred devices needs some hundred KiB.
const HASHED: u64 = 64 << 20;
