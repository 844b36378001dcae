//! Variants: their cases by value, and what a stream had against what can be.

use super::elements::found;
use super::names::element_text;
use super::rules::Rule;
use super::values::{Condition, Test};
use super::verdict::Severity::{Ok, Suspect, Value};
use super::walk::{Findings, Walk};
use crate::model::{Case, Element, Field, TypeId};
use crate::validate::case_part;

impl Walk<'_> {
    /// Two variants: each case with the one of the same value.
    pub(super) fn variants(&mut self, from: &Field, to: &Field, findings: &mut Findings) {
        let (
            Element::Variant {
                discriminant: a,
                cases: old,
            },
            Element::Variant {
                discriminant: b,
                cases: new,
            },
        ) = (&from.element, &to.element)
        else {
            return;
        };
        if a != b {
            findings.push(found(Rule::C39, a.clone(), b.clone(), [Suspect; 4]));
        }
        let of = |cases: &[Case], value: i64| {
            let at = cases.binary_search_by_key(&value, |case| case.value);
            at.ok().and_then(|at| cases.get(at)).map(|case| case.ty)
        };
        for case in old {
            let part = format!("{{{}}}", case_part(case.value));
            match of(new, case.value) {
                Some(ty) => {
                    let inner = self.embedded(from, case.ty, to, ty);
                    findings.below(&part, &inner);
                }
                None => self.one_sided(&part, Some(case.ty), None, findings),
            }
        }
        for case in new {
            if of(old, case.value).is_none() {
                let part = format!("{{{}}}", case_part(case.value));
                self.one_sided(&part, None, Some(case.ty), findings);
            }
        }
    }

    /// A case that one side lacks: who reads it refuses it.
    fn one_sided(
        &self,
        part: &str,
        old: Option<TypeId>,
        new: Option<TypeId>,
        findings: &mut Findings,
    ) {
        let text = |schema: &crate::Schema, id: Option<TypeId>| match id {
            Some(id) => element_text(schema, &Element::Struct(id)),
            None => "none".to_owned(),
        };
        let (a, b) = (text(self.from, old), text(self.to, new));
        let verdicts = if old.is_some() {
            [Value, Ok, Value, Ok]
        } else {
            [Ok, Value, Ok, Value]
        };
        let mut one = found(Rule::C38, a, b, verdicts);
        one.path = part.to_owned();
        one.test = old.is_some().then(|| Test {
            path: part.to_owned(),
            condition: Condition::NotSent,
        });
        findings.push(one);
    }

    /// What one stream had in place of a variant, of which it shows the chosen case: each shape with the case that suits it best.
    pub(super) fn seen_cases(
        &mut self,
        from: &Field,
        to: &Field,
        from_seen: bool,
        findings: &mut Findings,
    ) {
        let (seen, all) = if from_seen { (from, to) } else { (to, from) };
        let shapes: Vec<TypeId> = seen
            .element
            .child()
            .into_iter()
            .chain(seen.variants.iter().copied())
            .collect();
        for shape in shapes {
            let mut best: Option<std::rc::Rc<Findings>> = None;
            for ty in self.candidates(shape, all, from_seen) {
                let (a, b) = if from_seen { (shape, ty) } else { (ty, shape) };
                let inner = self.embedded(from, a, to, b);
                let better = best
                    .as_ref()
                    .is_none_or(|best| inner.worst().worst() < best.worst().worst());
                if better {
                    best = Some(inner);
                }
            }
            if let Some(best) = best {
                findings.below("", &best);
            }
        }
    }

    /// Types of cases that can be what was seen: those with its name, or all of them.
    fn candidates(&self, shape: TypeId, variant: &Field, from_seen: bool) -> Vec<TypeId> {
        let (seen, all) = if from_seen {
            (self.from, self.to)
        } else {
            (self.to, self.from)
        };
        let name = seen.get(shape).map(|ty| ty.name.as_str());
        let mut types: Vec<TypeId> = variant.element.cases().iter().map(|case| case.ty).collect();
        types.sort_unstable();
        types.dedup();
        let named = |ty: &TypeId| all.get(*ty).map(|ty| ty.name.as_str()) == name;
        let same: Vec<TypeId> = types.iter().copied().filter(named).collect();
        if same.is_empty() { types } else { same }
    }
}
