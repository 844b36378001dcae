//! Which keys of an object the fields have.

use std::collections::{HashMap, HashSet};

use vmstate_desc::Description;

/// The keys of the fields of `d`, in their order.
#[must_use]
pub fn field_keys(d: &Description) -> Vec<String> {
    unique_keys(d.fields().iter().map(|field| &*field.name))
}

/// The same for any list of names.
pub(crate) fn unique_keys<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Vec<String> {
    let mut keys = unique_names(names);
    for key in &mut keys {
        if key.starts_with('$') {
            key.insert(0, '$');
        }
    }
    keys
}

/// Names as they are, but of several equal ones `name[0]`, `name[1]`, …, as QEMU numbers them in trailers.
pub fn unique_names<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Vec<String> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut twice: HashSet<&str> = HashSet::new();
    for name in names.clone() {
        if seen.insert(name, 0).is_some() {
            twice.insert(name);
        }
    }
    let mut keys = Vec::new();
    for name in names {
        let mut key = name.to_owned();
        if twice.contains(name) {
            let number = seen.get(name).copied().unwrap_or(0);
            seen.insert(name, number + 1);
            key = format!("{name}[{number}]");
            // Another field may have what was just made as its name.
            while seen.contains_key(&*key) {
                key.push('\'');
            }
        }
        keys.push(key);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique() {
        let keys = |names: &[&'static str]| unique_keys(names.iter().copied());
        assert_eq!(keys(&["a", "b"]), ["a", "b"]);
        assert_eq!(keys(&["a", "b", "a"]), ["a[0]", "b", "a[1]"]);
        assert_eq!(keys(&["a", "a", "a[1]"]), ["a[0]", "a[1]'", "a[1]"]);
        assert_eq!(keys(&["$sub"]), ["$$sub"]);
    }
}
