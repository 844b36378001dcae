//! Fields: which belong together, and whether both sides have them.

use super::align::{Step, align, is_alias};
use super::names::{bytes, field_text};
use super::rules::Rule;
use super::values::{Condition, Test};
use super::verdict::{Column, Severity, Verdicts};
use super::walk::{Context, Findings, Found, Presence, Versions, Walk, presence};
use crate::model::{Element, Field, Schema, Type, base_name};
use vmstate_desc::{Codec, Repeat, Size};

use Presence::{Always, Maybe, Never};

/// Which side has a field that the other does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    From,
    To,
}

impl Walk<'_> {
    pub(super) fn fields(
        &mut self,
        from: &Type,
        to: &Type,
        context: Context,
        findings: &mut Findings,
    ) {
        let with_bytes = |ty: &'_ Type| -> Vec<usize> {
            (0..ty.fields.len())
                .filter(|i| ty.fields.get(*i).is_some_and(|f| !f.must_exist))
                .collect()
        };
        let (old_places, new_places) = (with_bytes(from), with_bytes(to));
        let old: Vec<&Field> = old_places
            .iter()
            .filter_map(|i| from.fields.get(*i))
            .collect();
        let new: Vec<&Field> = new_places
            .iter()
            .filter_map(|i| to.fields.get(*i))
            .collect();
        let mut removed = Vec::new();
        let mut added = Vec::new();
        for step in align(&old, &new) {
            match step {
                Step::Pair(i, j) => {
                    if let (Some(a), Some(b)) = (old.get(i), new.get(j)) {
                        self.pair(a, b, context, findings);
                    }
                }
                Step::Gap(olds, news) => {
                    let pick = |places: &[usize], fields: &[&'_ Field]| -> Vec<Field> {
                        let chosen = places.iter().filter_map(|i| fields.get(*i));
                        chosen.map(|field| (*field).clone()).collect()
                    };
                    let rest = self.gap(pick(&olds, &old), pick(&news, &new), context, findings);
                    removed.extend(rest.0);
                    added.extend(rest.1);
                }
            }
        }
        self.moved(&mut removed, &mut added, context, findings);
        for field in &removed {
            findings.push(self.single(field, Only::From, from, to, context));
        }
        for field in &added {
            findings.push(self.single(field, Only::To, to, from, context));
        }
        self.led_inside(from, to, &removed, &added, findings);
        validators(from, to, findings);
    }

    /// Fields of one name that both sides have, in another order.
    fn moved(
        &mut self,
        removed: &mut Vec<Field>,
        added: &mut Vec<Field>,
        context: Context,
        findings: &mut Findings,
    ) {
        let mut kept = Vec::new();
        for field in removed.drain(..) {
            let place = added
                .iter()
                .position(|other| other.name == field.name || is_alias(&field, other));
            let Some(place) = place.filter(|_| !field.is_pad()) else {
                kept.push(field);
                continue;
            };
            let other = added.remove(place);
            // Where both take as many bytes, what stands between them may still be read rightly: it cannot be told.
            let qemu = if bytes(&field).is_some() && bytes(&field) == bytes(&other) {
                Severity::Suspect
            } else {
                Severity::Break
            };
            let ok = Severity::Ok;
            findings.push(Found {
                rule: Rule::C19,
                path: other.name.clone(),
                from: field_text(self.from, &field),
                to: field_text(self.to, &other),
                verdicts: Verdicts::new([qemu, qemu, ok, ok]),
                test: None,
            });
            self.pair(&field, &other, context, findings);
        }
        *removed = kept;
    }

    /// A field of both sides.
    pub(super) fn pair(
        &mut self,
        from: &Field,
        to: &Field,
        context: Context,
        findings: &mut Findings,
    ) {
        let seen = self.was_seen();
        let forward = present(from, to, context.forward, seen);
        let (b, a) = present(to, from, context.backward, (seen.1, seen.0));
        let backward = (b, a);
        let both_pads = from.is_pad() && to.is_pad();
        if base_name(&from.name) != base_name(&to.name) && !both_pads {
            self.renamed(from, to, findings);
        }
        self.presence(from, to, [forward, backward], findings);
        let both_never = |(writer, reader)| writer == Never && reader == Never;
        if both_never(forward) && both_never(backward) {
            return;
        }
        let mut inner = Findings::default();
        self.content(from, to, context, &mut inner);
        // What no direction sends cannot go wrong there.
        for found in &mut inner.list {
            let [q0, q1, b0, b1] = Column::ALL.map(|column| found.verdicts.of(column));
            if forward.0 == Maybe && q0.max(b0) == Severity::Break {
                found.test = Some(Test::new(Condition::NotSent));
            }
            let dampen = |severity: Severity, pair: (Presence, Presence)| match pair {
                (Never, _) => Severity::Ok,
                (Maybe, _) => severity.min(Severity::Value),
                _ => severity,
            };
            found.verdicts = Verdicts::new([
                dampen(q0, forward),
                dampen(q1, backward),
                dampen(b0, forward),
                dampen(b1, backward),
            ]);
        }
        findings.below_both(&from.name, &to.name, &inner);
    }

    fn renamed(&self, from: &Field, to: &Field, findings: &mut Findings) {
        let (rule, qemu, ber) = if is_alias(from, to) {
            (Rule::C06, Severity::Ok, Severity::Ok)
        } else {
            (Rule::C07, Severity::Suspect, Severity::Break)
        };
        findings.push(Found {
            rule,
            path: to.name.clone(),
            from: format!("{} ({})", from.name, field_text(self.from, from)),
            to: format!("{} ({})", to.name, field_text(self.to, to)),
            verdicts: Verdicts::new([qemu, qemu, ber, ber]),
            test: None,
        });
    }

    /// Whether both sides have the field's bytes.
    fn presence(
        &self,
        from: &Field,
        to: &Field,
        [forward, backward]: [(Presence, Presence); 2],
        findings: &mut Findings,
    ) {
        let qemu = |pair| match pair {
            (Always, Never) | (Never, Always) => Severity::Break,
            (Maybe, Never) | (Never, Maybe) => Severity::Value,
            (Maybe, Always) | (Always, Maybe) => Severity::Suspect,
            _ => Severity::Ok,
        };
        // A stream showed what is there; the other side has the same test.
        let seen = self.was_seen();
        let unsure = |pair, seen: bool| match qemu(pair) {
            Severity::Suspect if seen => Severity::Ok,
            severity => severity,
        };
        let any_seen = seen.0 || seen.1;
        let ber = |pair, reader: &Field| match pair {
            (Never, Always) if !reader.default => Severity::Break,
            (Maybe, Always) if !reader.default => Severity::Value,
            _ => Severity::Ok,
        };
        let verdicts = Verdicts::new([
            unsure(forward, any_seen),
            unsure(backward, any_seen),
            ber(forward, to),
            ber(backward, from),
        ]);
        let gates = |field: &Field| (field.version_id, field.until);
        if from.conditional == to.conditional
            && gates(from) == gates(to)
            && verdicts.worst() == Severity::Ok
        {
            return;
        }
        let rule = if from.conditional == to.conditional {
            Rule::C34
        } else {
            Rule::C25
        };
        // A trailer tells neither conditions nor gates.
        if any_seen && verdicts.worst() == Severity::Ok {
            return;
        }
        let condition = match forward {
            (Maybe, Never) => Some(Condition::NotSent),
            (Maybe, Always) => Some(Condition::Sent),
            _ => None,
        };
        findings.push(Found {
            rule,
            path: to.name.clone(),
            from: field_text(self.from, from),
            to: field_text(self.to, to),
            verdicts,
            test: condition.map(|condition| Test::new(condition).below(&from.name)),
        });
    }

    /// A field that one side does not know.
    fn single(
        &self,
        field: &Field,
        only: Only,
        owner: &Type,
        other: &Type,
        context: Context,
    ) -> Found {
        let (owner_schema, owner_seen, other_seen, own, theirs) = {
            let (from_seen, to_seen) = self.was_seen();
            match only {
                Only::From => (
                    self.from,
                    from_seen,
                    to_seen,
                    context.forward,
                    context.backward,
                ),
                Only::To => (
                    self.to,
                    to_seen,
                    from_seen,
                    context.backward,
                    context.forward,
                ),
            }
        };
        // The side that has it writes; the side that has it reads.
        let (qemu_out, ber_out) = writes(field, own.writer, owner_seen, other_seen, owner, other);
        let (qemu_in, ber_in) = reads(field, theirs.reader, owner_seen, other_seen);
        let verdicts = match only {
            Only::From => [qemu_out, qemu_in, ber_out, ber_in],
            Only::To => [qemu_in, qemu_out, ber_in, ber_out],
        };
        let text = field_text(owner_schema, field);
        let (rule, from, to) = match only {
            Only::From => (Rule::C04, text, "none".to_owned()),
            Only::To => {
                let rule = if field.conditional {
                    Rule::C03
                } else if field.version_id > other.version_id {
                    Rule::C01
                } else {
                    Rule::C02
                };
                (rule, "none".to_owned(), text)
            }
        };
        // Where FROM alone has it, all depends on whether it is there.
        let test = (only == Only::From).then(|| Test::new(Condition::NotSent).below(&field.name));
        Found {
            rule,
            path: field.name.clone(),
            from,
            to,
            verdicts: Verdicts::new(verdicts),
            test,
        }
    }
}

/// Presence at the writer and at the reader.
fn present(
    writer: &Field,
    reader: &Field,
    versions: Versions,
    (writer_seen, reader_seen): (bool, bool),
) -> (Presence, Presence) {
    (
        presence(writer, versions.writer, writer_seen),
        presence(reader, versions.reader, reader_seen),
    )
}

/// The side that has a field writes, the other reads: in a QEMU stream, in BER.
fn writes(
    field: &Field,
    version: u32,
    was_seen: bool,
    other_seen: bool,
    owner: &Type,
    other: &Type,
) -> (Severity, Severity) {
    let mut qemu = match presence(field, version, was_seen) {
        Always if bytes(field) == Some(0) => Severity::Ok,
        Always => Severity::Break,
        Maybe => Severity::Value,
        Never => Severity::Ok,
    };
    if other_seen {
        // What the other side's stream had no bytes of may be a field that it knows.
        qemu = qemu.min(if field.conditional {
            Severity::Ok
        } else {
            Severity::Suspect
        });
    }
    let readable = owner.readable_from.is_none_or(|v| v <= other.version_id);
    let ber = if field.ignorable && readable {
        Severity::Ok
    } else {
        qemu
    };
    (qemu, ber)
}

/// The side that has a field reads what the other wrote.
fn reads(field: &Field, version: u32, own_seen: bool, other_seen: bool) -> (Severity, Severity) {
    let there = presence(field, version, own_seen);
    let qemu = match there {
        Always if bytes(field) == Some(0) => Severity::Ok,
        // An array without elements leaves no trace in a trailer.
        Always if other_seen && is_counted(field) => Severity::Ok,
        Always if other_seen && may_be_counted(field) => Severity::Suspect,
        // Of what a trailer shows it is not known whether it may be missing.
        Always if own_seen => Severity::Suspect,
        Always => Severity::Break,
        // A stream that does not have it answers the question: the condition was false.
        Maybe if other_seen => Severity::Ok,
        Maybe => Severity::Value,
        Never => Severity::Ok,
    };
    let ber = match there {
        Always if field.default => Severity::Ok,
        Always => qemu,
        _ => Severity::Ok,
    };
    (qemu, ber)
}

/// Whether a field can have no elements.
fn is_counted(field: &Field) -> bool {
    matches!(field.repeat, Repeat::Counted(_))
        || matches!(
            field.element,
            Element::Value(Codec::Buffer(Size::Counted(_)) | Codec::Bitmap(Size::Counted(_)))
        )
}

/// Whether a dump's field can have no elements: dumps do not tell counted arrays of structures from single ones.
const fn may_be_counted(field: &Field) -> bool {
    matches!(
        field.element,
        Element::Memory {
            num: None,
            child: Some(_),
            ..
        }
    )
}

/// Validators have no bytes; the reader's must hold for what the writer has.
fn validators(from: &Type, to: &Type, findings: &mut Findings) {
    let has = |ty: &Type, name: &str| ty.fields.iter().any(|f| f.must_exist && f.name == name);
    for (ty, other, verdicts) in [
        (
            from,
            to,
            [Severity::Ok, Severity::Value, Severity::Ok, Severity::Value],
        ),
        (
            to,
            from,
            [Severity::Value, Severity::Ok, Severity::Value, Severity::Ok],
        ),
    ] {
        for field in ty.fields.iter().filter(|f| f.must_exist) {
            if has(other, &field.name) {
                continue;
            }
            let (has, none) = ("validator".to_owned(), "none".to_owned());
            let is_new = verdicts.first() == Some(&Severity::Value);
            let (from, to) = if is_new { (none, has) } else { (has, none) };
            findings.push(Found {
                rule: Rule::C24,
                path: field.name.clone(),
                from,
                to,
                verdicts: Verdicts::new(verdicts),
                test: None,
            });
        }
    }
}

/// What a schema says about a field, for findings about several.
pub(super) fn listed(schema: &Schema, fields: &[Field]) -> String {
    const MOST: usize = 6;
    let mut texts: Vec<String> = fields
        .iter()
        .take(MOST)
        .map(|field| format!("{} ({})", field.name, field_text(schema, field)))
        .collect();
    if fields.len() > MOST {
        texts.push(format!("{} more", fields.len() - MOST));
    }
    texts.join(", ")
}
