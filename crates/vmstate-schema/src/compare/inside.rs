//! Single fields that an alias leads into an embedded structure of the other side, or out of one.

use std::collections::HashSet;

use vmstate_desc::{Pointers, Repeat, alias_path};

use super::names::{bytes, field_text};
use super::rules::Rule;
use super::verdict::{Severity, Verdicts};
use super::walk::{Context, Findings, Found, Versions, Walk};
use crate::model::{Element, Field, Schema, Type, TypeId};

/// Where a field stands.
struct Place<'s> {
    /// The names of the structures, and the field's.
    path: Vec<&'s str>,
    field: &'s Field,
}

impl Walk<'_> {
    /// Puts together what is told of both ends of such a move: a field that is not there any more, and another one that is new.
    pub(super) fn led_inside(
        &mut self,
        from: &Type,
        to: &Type,
        removed: &[Field],
        added: &[Field],
        findings: &mut Findings,
    ) {
        let (from_schema, to_schema) = (self.from, self.to);
        for field in added {
            if let Some(inside) = inside_of(from_schema, from, field) {
                self.moved_between(
                    &inside.path.join("/"),
                    inside.field,
                    &field.name,
                    field,
                    findings,
                );
            }
        }
        for field in removed {
            if let Some(inside) = inside_of(to_schema, to, field) {
                self.moved_between(
                    &field.name,
                    field,
                    &inside.path.join("/"),
                    inside.field,
                    findings,
                );
            }
        }
        // The reader says so of a field inside, which had the name of the one outside.
        for (flat, nested, is_from) in [
            (removed, (to_schema, to), true),
            (added, (from_schema, from), false),
        ] {
            for field in flat {
                let (mut path, mut seen) = (Vec::new(), HashSet::new());
                let Some(inside) =
                    named_inside(nested.0, nested.1, &field.name, &mut path, &mut seen)
                else {
                    continue;
                };
                let path = inside.path.join("/");
                if is_from {
                    self.moved_between(&field.name, field, &path, inside.field, findings);
                } else {
                    self.moved_between(&path, inside.field, &field.name, field, findings);
                }
            }
        }
    }

    /// Replaces the findings about both places by one, and by what became of the field itself.
    fn moved_between(
        &mut self,
        old_path: &str,
        old: &Field,
        new_path: &str,
        new: &Field,
        findings: &mut Findings,
    ) {
        let gone = |found: &Found| found.rule == Rule::C04 && found.path == old_path;
        let came = |found: &Found| {
            matches!(found.rule, Rule::C01 | Rule::C02 | Rule::C03) && found.path == new_path
        };
        let both = findings.list.iter().any(gone) && findings.list.iter().any(came);
        if !both {
            return;
        }
        findings.list.retain(|found| !gone(found) && !came(found));
        // Where both take as many bytes, what stands between them may still be read rightly: it cannot be told.
        let qemu = if bytes(old).is_some() && bytes(old) == bytes(new) {
            Severity::Suspect
        } else {
            Severity::Break
        };
        let text = |schema: &Schema, path: &str, field: &Field| {
            format!("{path} ({})", field_text(schema, field))
        };
        findings.push(Found {
            rule: Rule::C20,
            path: new_path.to_owned(),
            from: text(self.from, old_path, old),
            to: text(self.to, new_path, new),
            verdicts: Verdicts::new([qemu, qemu, Severity::Ok, Severity::Ok]),
            test: None,
        });
        let level = Versions {
            writer: 0,
            reader: 0,
        };
        let context = Context {
            forward: level,
            backward: level,
            travels: false,
        };
        // Its presence was told where it stood; what is left is what it is.
        let always = |field: &Field| Field {
            name: String::new(),
            version_id: 0,
            until: None,
            conditional: false,
            ..field.clone()
        };
        let mut inner = Findings::default();
        self.pair(&always(old), &always(new), context, &mut inner);
        findings.below_both(old_path, new_path, &inner);
    }
}

/// The structure that a field embeds in its place.
fn embedded<'s>(schema: &'s Schema, field: &Field) -> Option<(TypeId, &'s Type)> {
    let (Element::Struct(id) | Element::VersionedStruct(id, _)) = field.element else {
        return None;
    };
    let plain = field.repeat == Repeat::Single && field.pointers == Pointers::No;
    plain.then(|| Some((id, schema.get(id)?))).flatten()
}

/// The field to which an alias of `field` leads.
fn inside_of<'s>(schema: &'s Schema, ty: &'s Type, field: &Field) -> Option<Place<'s>> {
    field.aliases.iter().find_map(|alias| {
        let (mut ty, mut path) = (ty, Vec::new());
        let mut parts = alias_path(alias).peekable();
        while let Some(part) = parts.next() {
            let field = ty.fields.iter().find(|field| field.name == part)?;
            path.push(field.name.as_str());
            if parts.peek().is_none() {
                return (path.len() > 1).then_some(Place { path, field });
            }
            ty = embedded(schema, field)?.1;
        }
        None
    })
}

/// The field of an embedded structure that had this name when it stood beside it. Each type is looked at once.
fn named_inside<'s>(
    schema: &'s Schema,
    ty: &'s Type,
    name: &str,
    path: &mut Vec<&'s str>,
    seen: &mut HashSet<TypeId>,
) -> Option<Place<'s>> {
    if path.len() >= vmstate_desc::MAX_DEPTH as usize {
        return None;
    }
    for field in &ty.fields {
        if !path.is_empty() && field.aliases.iter().any(|alias| alias == name) {
            path.push(&field.name);
            return Some(Place {
                path: path.clone(),
                field,
            });
        }
        if let Some((id, inner)) = embedded(schema, field)
            && seen.insert(id)
        {
            path.push(&field.name);
            if let Some(place) = named_inside(schema, inner, name, path, seen) {
                return Some(place);
            }
            path.pop();
        }
    }
    None
}
