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
        for outer in removed {
            self.dissolved(outer, added, true, findings);
        }
        for outer in added {
            self.dissolved(outer, removed, false, findings);
        }
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

    /// A structure that one side does not have, while aliases lead each of its fields to one that stands by itself there.
    fn dissolved(&mut self, outer: &Field, flat: &[Field], is_from: bool, findings: &mut Findings) {
        let schema = if is_from { self.from } else { self.to };
        let Some((_, ty)) = embedded(schema, outer) else {
            return;
        };
        let partner = |inside: &Field| {
            let path = [outer.name.as_str(), inside.name.as_str()];
            flat.iter().find(|field| {
                let leads = |alias: &String| alias_path(alias).eq(path);
                field.aliases.iter().any(leads) || inside.aliases.contains(&field.name)
            })
        };
        let pairs: Option<Vec<(&Field, &Field)>> = ty
            .fields
            .iter()
            .map(|inside| partner(inside).map(|flat| (inside, flat)))
            .collect();
        let Some(pairs) = pairs.filter(|pairs| !pairs.is_empty()) else {
            return;
        };
        let told = |found: &Found| {
            let single = pairs.iter().any(|(_, flat)| flat.name == found.path);
            let rules = [Rule::C01, Rule::C02, Rule::C03, Rule::C04];
            rules.contains(&found.rule) && (single || found.path == outer.name)
        };
        findings.list.retain(|found| !told(found));
        let structure = format!("structure {} ({})", outer.name, ty.name);
        let names: Vec<&str> = pairs.iter().map(|(_, flat)| flat.name.as_str()).collect();
        let single = format!("single fields: {}", names.join(", "));
        let (from, to) = if is_from {
            (structure, single)
        } else {
            (single, structure)
        };
        let (qemu, ber) = (Severity::Suspect, Severity::Ok);
        findings.push(Found {
            rule: Rule::C20,
            path: outer.name.clone(),
            from,
            to,
            // Whether they stand where they stood is not looked at.
            verdicts: Verdicts::new([qemu, qemu, ber, ber]),
            test: None,
        });
        for (inside, flat) in pairs {
            let path = format!("{}/{}", outer.name, inside.name);
            if is_from {
                self.contents(&path, inside, &flat.name, flat, findings);
            } else {
                self.contents(&flat.name, flat, &path, inside, findings);
            }
        }
    }

    /// What became of a field itself, whose presence was told where it stood.
    fn contents(
        &mut self,
        old_path: &str,
        old: &Field,
        new_path: &str,
        new: &Field,
        findings: &mut Findings,
    ) {
        let level = Versions {
            writer: 0,
            reader: 0,
        };
        let context = Context {
            forward: level,
            backward: level,
            travels: false,
        };
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
        self.contents(old_path, old, new_path, new, findings);
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
