//! Numbers that a stream does not say, because both ends have them from their configuration.

use vmstate_ber::frame::{Finding, Hello, Presence, Severity};
use vmstate_desc::OwnCount;

use crate::inventory::Inventory;
use crate::judge::find;
use crate::rules::Rule;

/// Compares the numbers that a source tells with this machine's. What only one of them has is left to the comparison of types.
pub(crate) fn findings(own: &Inventory, theirs: &Hello) -> Vec<Finding> {
    let catalog = theirs.catalog.as_deref().unwrap_or_default();
    let mut findings = Vec::new();
    for told in theirs.counts.as_deref().unwrap_or_default() {
        // It is sorted.
        let place = catalog.binary_search_by(|entry| {
            let key = (entry.idstr.as_str(), entry.instance);
            key.cmp(&(told.idstr.as_str(), told.instance))
        });
        let Some(entry) = place.ok().and_then(|place| catalog.get(place)) else {
            continue;
        };
        let section = find(own, entry).and_then(|place| own.sections.get(place));
        let Some(section) = section else {
            continue;
        };
        for count in &told.counts {
            let all = &section.counts;
            let formerly = |one: &&OwnCount| one.aliases.contains(&count.path);
            let mine = all.iter().find(|one| one.path == count.path);
            let Some(mine) = mine.or_else(|| all.iter().find(formerly)) else {
                continue;
            };
            if mine.number == count.number {
                continue;
            }
            let taken = mine.resize_max.is_some_and(|max| count.number <= max);
            findings.push(Finding {
                severity: match (taken, entry.presence) {
                    (true, _) => Severity::Info,
                    // It is not in the stream as the device is now.
                    (false, Presence::Maybe) => Severity::Warning,
                    (false, _) => Severity::Error,
                },
                rule: Rule::N10.id().to_owned(),
                path: format!(
                    "{}#{}: {}",
                    section.entry.idstr, section.entry.instance, mine.path
                ),
                expected: Some(mine.number.to_string()),
                found: Some(count.number.to_string()),
                text: Some(format!("{} ({})", Rule::N10.title(), mine.counter)),
            });
        }
    }
    findings
}
