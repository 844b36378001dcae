//! Which fields each description has, in which order.

use syn::spanned::Spanned;
use syn::{Error, Member};

use super::field::{check_counter, check_discriminant};
use crate::model::{
    CountBy, Counter, Described, Description, DescriptionAttrs, Entry, Extra, ExtraKind, Field,
    Input, Kind, Subsection, member_name,
};
use crate::parse::Errors;

/// The description of the type with the subsections in it.
pub(super) fn plan<'a>(
    input: &'a Input<'a>,
    fields: &'a [Field<'a>],
    errors: &mut Errors,
) -> Description<'a> {
    let mut planner = Planner {
        fields,
        moved: Vec::new(),
        parts: 0,
        errors,
    };
    let description = &input.attrs.description;
    planner.collect_moved(description);
    let mut plan = planner.top(description);
    for extra in &input.attrs.extras {
        if !planner.place(&mut plan, extra) {
            planner.misplaced(extra);
        }
    }
    plan
}

struct Planner<'a, 'e> {
    fields: &'a [Field<'a>],
    /// Fields that live in a subsection, by name.
    moved: Vec<String>,
    parts: usize,
    errors: &'e mut Errors,
}

impl<'a> Planner<'a, '_> {
    fn find(&self, member: &Member) -> Option<&'a Field<'a>> {
        let name = member_name(member);
        self.fields.iter().find(|f| member_name(&f.member) == name)
    }

    fn find_or_refuse(&mut self, member: &Member) -> Option<&'a Field<'a>> {
        let found = self.find(member);
        if found.is_none() {
            let known: Vec<_> = self.fields.iter().map(|f| member_name(&f.member)).collect();
            self.errors.push(Error::new(
                member.span(),
                format!(
                    "there is no field `{}`; the fields are: {}",
                    member_name(member),
                    known.join(", ")
                ),
            ));
        }
        found
    }

    fn collect_moved(&mut self, attrs: &'a DescriptionAttrs) {
        for subsection in &attrs.subsections {
            for member in &subsection.fields {
                let name = member_name(member);
                if self.moved.contains(&name) {
                    self.errors.push(Error::new(
                        member.span(),
                        format!("`{name}` is in a subsection already"),
                    ));
                }
                self.moved.push(name);
            }
            self.collect_moved(&subsection.description);
        }
    }

    fn top(&mut self, attrs: &'a DescriptionAttrs) -> Description<'a> {
        let own: Vec<_> = self
            .fields
            .iter()
            .filter(|f| !self.moved.contains(&member_name(&f.member)))
            .collect();
        let mut subsections = self.subsections(attrs);
        for field in &own {
            if let Some(Kind::Subsection { needed }) = field.kind() {
                subsections.push(Subsection::Field {
                    field,
                    needed: needed.as_ref(),
                });
            }
        }
        let entries = self.entries(
            own.into_iter()
                .filter(|f| !matches!(f.kind(), Some(Kind::Skip | Kind::Subsection { .. })))
                .collect(),
        );
        Description {
            part: None,
            attrs,
            entries,
            subsections,
        }
    }

    fn subsections(&mut self, attrs: &'a DescriptionAttrs) -> Vec<Subsection<'a>> {
        let mut out = Vec::new();
        for subsection in &attrs.subsections {
            let part = self.parts;
            self.parts += 1;
            let mut fields = Vec::new();
            let mut children = Vec::new();
            for member in &subsection.fields {
                let Some(field) = self.find_or_refuse(member) else {
                    continue;
                };
                match field.kind() {
                    Some(Kind::Skip) => self.errors.push(Error::new(
                        member.span(),
                        format!(
                            "`{}` is skipped: it cannot travel in a subsection",
                            member_name(member)
                        ),
                    )),
                    Some(Kind::Subsection { needed }) => children.push(Subsection::Field {
                        field,
                        needed: needed.as_ref(),
                    }),
                    _ => fields.push(field),
                }
            }
            let mut subsections = self.subsections(&subsection.description);
            subsections.extend(children);
            let entries = self.entries(fields);
            out.push(Subsection::Part(Description {
                part: Some(part),
                attrs: &subsection.description,
                entries,
                subsections,
            }));
        }
        out
    }

    fn entries(&mut self, fields: Vec<&'a Field<'a>>) -> Vec<Entry<'a>> {
        let mut out = Vec::new();
        for (position, field) in fields.iter().enumerate() {
            let count = self.counter(field, &fields, position);
            out.push(Entry::Field(Box::new(Described { field, count })));
        }
        out
    }

    /// Finds the counter of `fields[position]`.
    fn counter(
        &mut self,
        field: &'a Field<'a>,
        fields: &[&'a Field<'a>],
        position: usize,
    ) -> Option<Counter<'a>> {
        if let Some(Kind::Variant(member)) = field.kind() {
            return self.discriminant(member, fields, position);
        }
        let count = field.attrs.count.as_ref()?;
        let member = match &count.value {
            CountBy::With(function) => return Some(Counter::With(function)),
            CountBy::Field(member) => member,
        };
        let counter = self.find_or_refuse(member)?;
        let place = fields.iter().position(|f| f.member == counter.member);
        if !check_counter(
            &count.value,
            &count.key,
            counter,
            place.is_some(),
            self.errors,
        ) {
            return None;
        }
        match place {
            Some(place) if place < position => Some(Counter::Field(counter)),
            Some(_) => {
                self.errors.push(Error::new(
                    member.span(),
                    format!(
                        "`{}` must stand before the field that it counts, so that it is loaded first",
                        member_name(member)
                    ),
                ));
                None
            }
            // Skipped, or part of another description: it is not in the stream here.
            None => Some(Counter::Own(counter)),
        }
    }

    /// Finds the discriminant of `fields[position]`, which is a variant.
    fn discriminant(
        &mut self,
        member: &'a Member,
        fields: &[&'a Field<'a>],
        position: usize,
    ) -> Option<Counter<'a>> {
        let discriminant = self.find_or_refuse(member)?;
        let place = fields.iter().position(|f| f.member == discriminant.member);
        if place.is_none_or(|place| place >= position) {
            let what = match place {
                Some(_) => "must stand before the variant, so that it is loaded first",
                None => "must travel in the same description as the variant",
            };
            let name = member_name(member);
            self.errors
                .push(Error::new(member.span(), format!("`{name}` {what}")));
            return None;
        }
        check_discriminant(member, discriminant, self.errors)
            .then_some(Counter::Field(discriminant))
    }

    /// Puts `extra` behind its field, or at the end. `false` if the field is nowhere.
    fn place(&mut self, plan: &mut Description<'a>, extra: &'a Extra) -> bool {
        let Some(after) = &extra.after else {
            plan.entries.push(Entry::Extra(extra));
            return true;
        };
        let name = member_name(after);
        let found = plan.entries.iter().position(
            |entry| matches!(entry, Entry::Field(f) if member_name(&f.field.member) == name),
        );
        if let Some(found) = found {
            // Several behind one field keep their order.
            let others = plan
                .entries
                .iter()
                .skip(found + 1)
                .take_while(|entry| matches!(entry, Entry::Extra(other) if other.after.is_some()))
                .count();
            plan.entries.insert(found + 1 + others, Entry::Extra(extra));
            return true;
        }
        plan.subsections
            .iter_mut()
            .any(|subsection| match subsection {
                Subsection::Part(part) => self.place(part, extra),
                Subsection::Field { .. } => false,
            })
    }

    fn misplaced(&mut self, extra: &'a Extra) {
        if let Some(after) = &extra.after
            && self.find_or_refuse(after).is_some()
        {
            let what = match extra.kind {
                ExtraKind::MustExist(_) => "must_exist",
                ExtraKind::Tmp(_) => "tmp",
            };
            self.errors.push(Error::new(
                after.span(),
                format!("`{what}` cannot stand behind a field that is not in the stream"),
            ));
        }
    }
}
