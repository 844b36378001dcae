//! Fields at the same place without a common name: unused bytes, renames, structures around them.

use super::fields::listed;
use super::names::bytes;
use super::rules::Rule;
use super::verdict::{Severity, Verdicts};
use super::walk::{Context, Findings, Found, Versions, Walk};
use crate::model::{Element, Field, Schema, Type, TypeId};
use vmstate_desc::{Pointers, Repeat, alias_path};

impl Walk<'_> {
    /// Explains what it can; returns the fields that are left.
    pub(super) fn gap(
        &mut self,
        from: Vec<Field>,
        to: Vec<Field>,
        context: Context,
        findings: &mut Findings,
    ) -> (Vec<Field>, Vec<Field>) {
        let (from, to) = self.unwrapped(from, to, context, findings);
        let (mut left_from, mut left_to) = (Vec::new(), Vec::new());
        for (olds, news) in segments(from, to) {
            match (olds.as_slice(), news.as_slice()) {
                ([], _) | (_, []) => {
                    left_from.extend(olds);
                    left_to.extend(news);
                }
                _ if is_padding(&olds) || is_padding(&news) => {
                    self.padded(&olds, &news, findings);
                }
                ([old], [new]) if self.may_be_same(old, new) => {
                    self.pair(old, new, context, findings);
                }
                _ => {
                    left_from.extend(olds);
                    left_to.extend(news);
                }
            }
        }
        (left_from, left_to)
    }

    /// Whether two fields of other names can be one thing: as many bytes, or both embedded.
    fn may_be_same(&self, old: &Field, new: &Field) -> bool {
        // Who says that it was inside of the other does not say that it was the other.
        if leads_into(new, old) || leads_into(old, new) {
            return false;
        }
        if let (Some(a), Some(b)) = (old.element.child(), new.element.child()) {
            let name = |schema: &Schema, id| schema.get(id).map(|ty| ty.name.clone());
            return name(self.from, a) == name(self.to, b);
        }
        bytes(old).is_some()
            && bytes(old) == bytes(new)
            && old.element.child() == new.element.child()
    }

    /// Unused bytes instead of fields, or the reverse.
    fn padded(&self, olds: &[Field], news: &[Field], findings: &mut Findings) {
        let was_field = !is_padding(olds);
        let is_field = !is_padding(news);
        if !was_field && !is_field && olds.len() == news.len() && bytes_equal(olds, news) {
            return;
        }
        // Who reads unused bytes as a field gets the zeros that were written.
        let sum = |fields: &[Field]| -> Option<u64> {
            let sizes = fields.iter().map(bytes);
            sizes.sum()
        };
        let (old_sum, new_sum) = (sum(olds), sum(news));
        let qemu = match (was_field, is_field) {
            // Before 8.1 dumps do not say how many elements an array has.
            _ if old_sum != new_sum => match (old_sum, new_sum) {
                (Some(old), Some(new))
                    if (is_unsure(olds) && old > 0 && new.is_multiple_of(old))
                        || (is_unsure(news) && new > 0 && old.is_multiple_of(new)) =>
                {
                    [Severity::Suspect; 2]
                }
                (Some(_), Some(_)) => [Severity::Break; 2],
                _ => [Severity::Suspect; 2],
            },
            (true, _) => [Severity::Ok, Severity::Note],
            (false, true) => [Severity::Note, Severity::Ok],
            (false, false) => [Severity::Ok, Severity::Ok],
        };
        let all = |fields: &[Field], what: fn(&Field) -> bool| fields.iter().all(what);
        let named = |pads: &[Field], fields: &[Field]| {
            fields
                .iter()
                .all(|f| f.ignorable || pads.iter().any(|pad| pad.aliases.contains(&f.name)))
        };
        let severity = |fine: bool| if fine { Severity::Ok } else { Severity::Break };
        let ber = match (was_field, is_field) {
            (true, _) => [
                severity(named(news, olds)),
                severity(all(olds, |f| f.default || f.conditional)),
            ],
            (false, true) => [
                severity(all(news, |f| f.default || f.conditional)),
                severity(named(olds, news)),
            ],
            (false, false) => [Severity::Ok, Severity::Ok],
        };
        let [q0, q1] = qemu;
        let [b0, b1] = ber;
        findings.push(Found {
            rule: Rule::C05,
            path: news.first().map(|f| f.name.clone()).unwrap_or_default(),
            from: listed(self.from, olds),
            to: listed(self.to, news),
            verdicts: Verdicts::new([q0, q1, b0, b1]),
            test: None,
        });
    }

    /// A structure on one side whose fields stand one by one on the other.
    fn unwrapped(
        &mut self,
        mut from: Vec<Field>,
        mut to: Vec<Field>,
        context: Context,
        findings: &mut Findings,
    ) -> (Vec<Field>, Vec<Field>) {
        if let Some((place, run)) = wrapped(self.to, &to, &from) {
            let outer = to.remove(place);
            let flat: Vec<Field> = from.drain(run).collect();
            let inner = context_inside(self.to, &outer, context, false);
            self.wrapped_pair(&flat, &outer, inner, false, findings);
        } else if let Some((place, run)) = wrapped(self.from, &from, &to) {
            let outer = from.remove(place);
            let flat: Vec<Field> = to.drain(run).collect();
            let inner = context_inside(self.from, &outer, context, true);
            self.wrapped_pair(&flat, &outer, inner, true, findings);
        }
        (from, to)
    }

    /// `was_wrapped`: FROM has the structure, TO the single fields.
    fn wrapped_pair(
        &mut self,
        flat: &[Field],
        outer: &Field,
        context: Context,
        was_wrapped: bool,
        findings: &mut Findings,
    ) {
        let (wrapping, plain) = if was_wrapped {
            (self.from, self.to)
        } else {
            (self.to, self.from)
        };
        let Some(inner) = child(wrapping, outer) else {
            return;
        };
        let has_alias = flat.iter().all(|field| {
            let path = [outer.name.as_str(), last(&field.name)];
            let names = |aliases: &[String]| {
                let leads = |alias: &String| alias_path(alias).eq(path) || *alias == field.name;
                aliases.iter().any(leads)
            };
            let inside = inner
                .fields
                .iter()
                .find(|f| last(&f.name) == last(&field.name));
            names(&field.aliases) || inside.is_some_and(|f| names(&f.aliases))
        });
        let ber = if has_alias {
            Severity::Ok
        } else {
            Severity::Break
        };
        let structure = format!("structure {} ({})", outer.name, inner.name);
        let single = format!("single fields: {}", listed(plain, flat));
        let (from, to) = if was_wrapped {
            (structure, single)
        } else {
            (single, structure)
        };
        findings.push(Found {
            rule: Rule::C20,
            path: outer.name.clone(),
            from,
            to,
            verdicts: Verdicts::new([Severity::Ok, Severity::Ok, ber, ber]),
            test: None,
        });
        let fields = inner.fields.clone();
        for (flat, inside) in flat.iter().zip(&fields) {
            // The name without its path is the same: what remains is what it is.
            let flat = Field {
                name: inside.name.clone(),
                ..flat.clone()
            };
            if was_wrapped {
                self.pair(inside, &flat, context, findings);
            } else {
                self.pair(&flat, inside, context, findings);
            }
        }
    }
}

/// Whether an alias of one field is a path into the other.
fn leads_into(field: &Field, outer: &Field) -> bool {
    let below = |alias: &String| alias.strip_prefix(outer.name.as_str()).map(str::to_owned);
    let mut rests = field.aliases.iter().filter_map(below);
    rests.any(|rest| rest.starts_with(['/', '.']))
}

/// The versions inside of a structure that one side has: its own, since those of embedded structures do not travel.
fn context_inside(schema: &Schema, outer: &Field, context: Context, is_from: bool) -> Context {
    let version = child(schema, outer).map_or(0, |ty| ty.version_id);
    let (forward, backward) = (context.forward, context.backward);
    if is_from {
        Context {
            forward: Versions {
                writer: version,
                ..forward
            },
            backward: Versions {
                reader: version,
                ..backward
            },
            travels: false,
        }
    } else {
        Context {
            forward: Versions {
                reader: version,
                ..forward
            },
            backward: Versions {
                writer: version,
                ..backward
            },
            travels: false,
        }
    }
}

/// The type of a single embedded structure.
fn child<'s>(schema: &'s Schema, field: &Field) -> Option<&'s Type> {
    let id: TypeId = match &field.element {
        Element::Struct(id)
        | Element::Memory {
            num: None,
            child: Some(id),
            ..
        } => *id,
        _ => return None,
    };
    let plain =
        field.repeat == Repeat::Single && field.pointers == Pointers::No && !field.conditional;
    plain.then(|| schema.get(id)).flatten()
}

/// A name without the structures that it is in.
fn last(name: &str) -> &str {
    name.rsplit(['.', '/']).next().unwrap_or(name)
}

/// A structure among `fields` whose fields stand one after the other in `flat`: its place, and theirs.
fn wrapped(
    schema: &Schema,
    fields: &[Field],
    flat: &[Field],
) -> Option<(usize, std::ops::Range<usize>)> {
    for (place, field) in fields.iter().enumerate() {
        let Some(inner) = child(schema, field) else {
            continue;
        };
        let len = inner.fields.len();
        if len == 0 || len > flat.len() {
            continue;
        }
        let run = flat.windows(len).position(|run| {
            run.iter()
                .zip(&inner.fields)
                .all(|(a, b)| last(&a.name) == last(&b.name) && !leads_into(field, a))
        });
        if let Some(start) = run {
            return Some((place, start..start + len));
        }
    }
    None
}

/// Whether a dump does not say how many of these there are.
fn is_unsure(fields: &[Field]) -> bool {
    let unsure = |field: &Field| matches!(field.element, Element::Memory { num: None, .. });
    fields.iter().any(unsure)
}

fn bytes_equal(olds: &[Field], news: &[Field]) -> bool {
    olds.iter().map(bytes).eq(news.iter().map(bytes))
}

fn is_padding(fields: &[Field]) -> bool {
    fields.iter().all(Field::is_pad)
}

/// Cuts two runs of fields where both have taken as many bytes. What has no known size is compared one by one.
fn segments(from: Vec<Field>, to: Vec<Field>) -> Vec<(Vec<Field>, Vec<Field>)> {
    let known = |fields: &[Field]| fields.iter().all(|f| bytes(f).is_some_and(|n| n > 0));
    if !known(&from) || !known(&to) {
        if from.len() == to.len() {
            return from
                .into_iter()
                .map(|f| vec![f])
                .zip(to.into_iter().map(|f| vec![f]))
                .collect();
        }
        return vec![(from, to)];
    }
    let mut found = Vec::new();
    let (mut olds, mut news) = (Vec::new(), Vec::new());
    let (mut old_bytes, mut new_bytes) = (0_u64, 0_u64);
    let (mut from, mut to) = (from.into_iter(), to.into_iter());
    loop {
        let take_old = old_bytes <= new_bytes;
        let next = if take_old { from.next() } else { to.next() };
        let Some(field) = next else {
            break;
        };
        let size = bytes(&field).unwrap_or(0);
        if take_old {
            old_bytes = old_bytes.saturating_add(size);
            olds.push(field);
        } else {
            new_bytes = new_bytes.saturating_add(size);
            news.push(field);
        }
        if old_bytes == new_bytes {
            found.push((std::mem::take(&mut olds), std::mem::take(&mut news)));
        }
    }
    olds.extend(from);
    news.extend(to);
    if !olds.is_empty() || !news.is_empty() {
        found.push((olds, news));
    }
    found
}
