//! Names of fields and subsections, made unique within one object.

use std::collections::HashSet;

use vmstate_desc::{DescriptionRef, DynState, Field, SaveState};

/// Up to so many names are compared one with another.
const FEW: usize = 48;

/// What the names of a state's members are taken from.
pub(crate) struct Members {
    description: DescriptionRef,
    /// Descriptions of the subsections that are there.
    subsections: Vec<DescriptionRef>,
    /// The names, where some came more than once.
    numbered: Option<Vec<String>>,
}

impl Members {
    pub(crate) fn of(state: &DynState) -> Self {
        let mut members = Self {
            description: state.description(),
            subsections: state.subsections().map(SaveState::description).collect(),
            numbered: None,
        };
        if has_duplicates(members.description.fields(), &members.subsections) {
            let fields = members.description.fields().iter().map(|f| &*f.name);
            let subsections = members.subsections.iter().map(|d| &*d.name);
            members.numbered = Some(number(&fields.chain(subsections).collect::<Vec<_>>()));
        }
        members
    }

    /// Name of field number `index`. A name that came before has a number: `x`, `x[1]`, `x[2]`.
    pub(crate) fn field<'s>(&'s self, index: usize, field: &'s Field) -> &'s str {
        self.numbered(index).unwrap_or(&field.name)
    }

    /// Name of subsection number `index` of those that are there.
    pub(crate) fn subsection(&self, index: usize) -> &str {
        self.numbered(self.description.fields().len() + index)
            .or_else(|| self.subsections.get(index).map(|d| &*d.name))
            .unwrap_or_default()
    }

    fn numbered(&self, index: usize) -> Option<&str> {
        Some(self.numbered.as_ref()?.get(index)?)
    }
}

fn has_duplicates(fields: &[Field], subsections: &[DescriptionRef]) -> bool {
    let name = |i: usize| match fields.get(i) {
        Some(field) => &*field.name,
        None => subsections.get(i - fields.len()).map_or("", |d| &*d.name),
    };
    let count = fields.len() + subsections.len();
    if count > FEW {
        let mut seen = HashSet::with_capacity(count);
        return !(0..count).all(|i| seen.insert(name(i)));
    }
    (1..count).any(|i| (0..i).any(|before| name(before) == name(i)))
}

#[cold]
fn number(names: &[&str]) -> Vec<String> {
    let all: HashSet<&str> = names.iter().copied().collect();
    let mut taken: HashSet<String> = HashSet::new();
    let mut unique = Vec::with_capacity(names.len());
    for name in names {
        let mut k = 1_u64;
        let mut candidate = (*name).to_owned();
        while taken.contains(&candidate) || (k > 1 && all.contains(&*candidate)) {
            candidate = format!("{name}[{k}]");
            k += 1;
        }
        taken.insert(candidate.clone());
        unique.push(candidate);
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstate_desc::{Codec, Description};

    fn names(fields: &[&'static str]) -> Vec<String> {
        let fields: Vec<_> = fields
            .iter()
            .map(|n| Field::value(n, Codec::Bool))
            .collect();
        let mut description = Description::new("d", 1, 1);
        description.fields = fields.into();
        let state = DynState::new(description);
        let members = Members::of(&state);
        state
            .fields()
            .enumerate()
            .map(|(i, (f, _))| members.field(i, f).to_owned())
            .collect()
    }

    #[test]
    fn names_that_came_before_get_a_number() {
        assert_eq!(names(&["a", "b"]), ["a", "b"]);
        assert_eq!(names(&["a", "b", "a", "a"]), ["a", "b", "a[1]", "a[2]"]);
        assert_eq!(names(&["a", "a[1]", "a"]), ["a", "a[1]", "a[2]"]);
        assert_eq!(
            names(&["a", "a", "a[1]", "a[1]"]),
            ["a", "a[2]", "a[1]", "a[1][1]"]
        );
    }

    #[test]
    fn a_subsection_may_have_a_fields_name() {
        let mut description = Description::new("d", 1, 1);
        description.fields = vec![Field::value("d/x", Codec::Bool)].into();
        description.subsections = vec![Description::new("d/x", 1, 1).into()].into();
        let mut state = DynState::new(description);
        state.set_subsection(0, Some(DynState::new(Description::new("d/x", 1, 1))));
        let members = Members::of(&state);
        assert_eq!(members.subsection(0), "d/x[1]");
    }

    #[test]
    fn many_names_are_checked_too() {
        let name = |i: usize| &*Box::leak(i.to_string().into_boxed_str());
        let mut many: Vec<&str> = (0..1000).map(name).collect();
        many.push("7");
        assert_eq!(names(&many).last().map(String::as_str), Some("7[1]"));
    }
}
